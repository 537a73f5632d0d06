"""Is this table fit to train a model on? What its spec names must be there, and its suite must hold."""

from typing import TYPE_CHECKING

from expectations.validate import Report, load_suite, validate
from pipeline.errors import DataError
from pipeline.schema import check_columns
from pipeline.spec import load_spec

if TYPE_CHECKING:
    import pyarrow


def check(model: str, table: "pyarrow.Table") -> Report:
    """Judge a table by what the model's spec needs of it and by the model's suite.

    Raises CheckError when the suite is missing, empty or broken, which says nothing about the data.
    """
    report = validate(table.to_pandas(), load_suite(model))
    try:
        check_columns(load_spec(model), table)
    except DataError as error:
        return report.refused(str(error))
    return report
