"""Data checked by itself, before anything is trained on it or before it is published: nothing is kept."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from expectations.check import check_snapshot
from expectations.report import Report
from flows.cli.views import (
    ColumnDriftView,
    DriftView,
    HistogramView,
    QuarantineView,
    RowQualityView,
    RuleView,
    ValidationView,
)
from flows.monitoring.champion_drift import drift_since_champion
from pipeline import sources
from pipeline.drift import ColumnDrift, DriftReport
from pipeline.errors import DataError
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, ingest
from pipeline.spec import load_spec

if TYPE_CHECKING:
    from sqlalchemy import Engine


def check(settings: Settings, ledger: "Engine", model: str, data: str | None) -> tuple[Report, DriftReport | None]:
    """Judge `data`, or the spec's own source, as a run would; return the report, and what changed since the champion.

    It is frozen in a folder of its own meanwhile, so that it may be of any size. Raises SourceError and DataError, as
    ingest does, and CheckError where a check is broken.
    """
    source = load_spec(model).source
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as name:
        snapshot = ingest(source if data is None else sources.at(source, data), Path(name))
        report = check_snapshot(model, snapshot)
        if not report.passed:
            return report, None
        left = snapshot.path
        if report.quarantine and report.quarantine.snapshot:
            left = left.with_name(f"{report.quarantine.snapshot}.parquet")
            # What was set aside goes with the folder.
            report = replace(report, quarantine=replace(report.quarantine, file=None, snapshot=None))
        return report, drift_since_champion(settings, ledger, model, SnapshotFile(left))


def unreadable(error: DataError) -> Report:
    """Return the report of what is not a table that could be checked: refused, for that reason alone."""
    return Report(rows=0, columns=0, rules=()).refused(str(error))


def view_of(model: str, report: Report, changes: DriftReport | None) -> ValidationView:
    """Return what `evergreen validate --json` prints: data passes when neither its rules nor its drift refuse it."""
    aside, refused = report.quarantine, changes.errors if changes else ()
    return ValidationView(
        model=model,
        passed=report.passed and not refused,
        rows=report.rows,
        columns=report.columns,
        quarantine=QuarantineView(**{**asdict(aside), "reasons": list(aside.reasons)}) if aside else None,
        reasons=[*report.reasons, *refused],
        warnings=report.warnings,
        rules=[RuleView(**{**asdict(rule), "examples": list(rule.examples)}) for rule in report.rules],
        drift=_drift(changes) if changes else None,
    )


def _drift(changes: DriftReport) -> DriftView:
    then, now = changes.rows_then, changes.rows_now
    return DriftView(
        passed=changes.passed,
        since=changes.since,
        errors=list(changes.errors),
        notes=list(changes.notes),
        columns=[_column(column) for column in changes.columns],
        rows_then=RowQualityView(**asdict(then)) if then else None,
        rows_now=RowQualityView(**asdict(now)) if now else None,
        relabelled=changes.relabelled,
        sampled=changes.sampled,
        incomparable=changes.incomparable,
    )


def _column(column: ColumnDrift) -> ColumnDriftView:
    histogram = HistogramView(**asdict(column.histogram)) if column.histogram else None
    return ColumnDriftView(**{**asdict(column), "histogram": histogram})
