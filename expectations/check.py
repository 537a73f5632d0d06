"""Is this table fit to train a model on? It must have the columns that the spec names and keep the suite's rules."""

from dataclasses import replace
from typing import TYPE_CHECKING

from expectations.guard import check_guards, guards_of
from expectations.report import Report
from expectations.suite import Suite, load_suite
from expectations.validate import validate_and_quarantine
from pipeline.errors import DataError
from pipeline.schema import check_columns, feature_names
from pipeline.snapshot import Snapshot, SnapshotFile, set_aside
from pipeline.sources import logical_type
from pipeline.spec import load_spec

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec


def check_snapshot(model: str, snapshot: Snapshot) -> Report:
    """Check a snapshot against the model's spec and suite; only the columns that a rule needs are read.

    Rows that break quarantine rules are set aside. The remaining rows are a snapshot of their own, which the report
    names, so later steps need not know about quarantine. Raises CheckError if the suite is missing, empty or broken,
    which says nothing about the data.
    """
    spec, suite = load_spec(model), load_suite(model)
    report, failing = validate_and_quarantine(SnapshotFile(snapshot.path), suite, spec.sensitive)
    if not report.passed or failing is None or report.quarantine is None:
        return _with_columns(report, spec, suite, SnapshotFile(snapshot.path))
    good, file = set_aside(snapshot, failing.by_rule)
    aside = replace(report.quarantine, file=str(file), snapshot=good.digest)
    return _with_columns(replace(report, quarantine=aside), spec, suite, SnapshotFile(good.path))


def _with_columns(report: Report, spec: "ModelSpec", suite: Suite, table: SnapshotFile) -> Report:
    try:
        check_columns(spec, table)
        return guarded(report, spec, suite, table.schema) if report.passed else report
    except DataError as error:
        return report.refused(str(error))


def guarded(report: Report, spec: "ModelSpec", suite: Suite, schema: "pyarrow.Schema") -> Report:
    """Return the report with the guards that an endpoint applies to requests; they need the suite to be loaded."""
    columns = {field.name: logical_type(field.type) for field in schema}
    guards, unguarded = guards_of(suite, {name: columns[name] for name in feature_names(spec, [*columns])})
    check_guards(spec, guards)
    return replace(report, guards=guards, unguarded=unguarded)
