"""Is this table fit to train a model on? What its spec names must be there, and its suite must hold."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from expectations.validate import Report, load_suite, validate_and_quarantine
from pipeline.errors import DataError
from pipeline.schema import check_columns
from pipeline.snapshot import Snapshot, Stored, set_aside
from pipeline.spec import load_spec

if TYPE_CHECKING:
    import pyarrow


def check(model: str, table: "pyarrow.Table") -> Report:
    """Judge a table by what the model's spec needs of it and by the model's suite; nothing is written.

    Raises CheckError when the suite is missing, empty or broken, which says nothing about the data.
    """
    import pyarrow as pa

    report, failing = validate_and_quarantine(table, load_suite(model), load_spec(model).sensitive)
    return _with_columns(model, report, table.filter(pa.array(~failing.any)) if failing else table)


def check_snapshot(model: str, snapshot: Snapshot) -> Report:
    """Judge a snapshot as `check` does, reading only what is looked at, and set aside what breaks quarantine rules.

    What is left is a snapshot of its own, which the report names: everything after this knows nothing of quarantine.
    """
    report, failing = validate_and_quarantine(Stored(snapshot.path), load_suite(model), load_spec(model).sensitive)
    if not report.passed or failing is None or report.quarantine is None:
        return _with_columns(model, report, Stored(snapshot.path))
    good, file = set_aside(snapshot, failing.by_rule)
    aside = replace(report.quarantine, file=str(file), snapshot=good.digest)
    return _with_columns(model, replace(report, quarantine=aside), Stored(good.path))


def _with_columns(model: str, report: Report, table: Any) -> Report:
    try:
        check_columns(load_spec(model), table)
    except DataError as error:
        return report.refused(str(error))
    return report
