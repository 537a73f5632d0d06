"""Is this table fit to train a model on? What its spec names must be there, and its suite must hold."""

from typing import TYPE_CHECKING

from expectations.guard import check_guards, feature_types, guards_of
from expectations.validate import Report, load_suite, validate
from pipeline.errors import DataError
from pipeline.schema import check_columns
from pipeline.sources import logical_type
from pipeline.spec import load_spec

if TYPE_CHECKING:
    import pyarrow


def check(model: str, table: "pyarrow.Table") -> Report:
    """Judge a table by what the model's spec needs of it and by the model's suite.

    Raises CheckError when the suite is missing, empty or broken, which says nothing about the data.
    """
    spec, suite = load_spec(model), load_suite(model)
    report = validate(table.to_pandas(), suite)
    try:
        check_columns(spec, table)
        if report.passed:
            columns = {field.name: logical_type(field.type) for field in table.schema}
            check_guards(spec, guards_of(suite, feature_types(spec, columns))[0])
    except DataError as error:
        return report.refused(str(error))
    return report
