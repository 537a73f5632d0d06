"""Validate data without a run, for example before it is published. Nothing is trained or kept."""

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
    """Validate `data`, or the spec's own source, as a run would; return the report and the drift since the champion.

    The drift is None if the report rejects the data. The rows are ingested into a temporary folder, so the data may be
    of any size. Raises SourceError and DataError, as ingest does, and CheckError if a check is broken.
    """
    source = load_spec(model).source
    with tempfile.TemporaryDirectory(prefix="evergreen-check-") as name:
        snapshot = ingest(source if data is None else sources.at(source, data), Path(name))
        report = check_snapshot(model, snapshot)
        if not report.passed:
            return report, None
        rows = snapshot.path
        if report.quarantine and report.quarantine.snapshot:
            rows = rows.with_name(f"{report.quarantine.snapshot}.parquet")
            # The quarantined rows are deleted with the temporary folder.
            report = replace(report, quarantine=replace(report.quarantine, file=None, snapshot=None))
        return report, drift_since_champion(settings, ledger, model, SnapshotFile(rows))


def unreadable(error: DataError) -> Report:
    """Return the report of data that is not a usable table: rejected, with the error as the only reason."""
    return Report(rows=0, columns=0, rules=()).refused(str(error))


def view_of(model: str, report: Report, changes: DriftReport | None) -> ValidationView:
    """Return what `evergreen validate --json` prints: data passes if neither its rules nor its drift reject it."""
    quarantine, drift_errors = report.quarantine, changes.errors if changes else ()
    return ValidationView(
        model=model,
        passed=report.passed and not drift_errors,
        rows=report.rows,
        columns=report.columns,
        quarantine=QuarantineView(**{**asdict(quarantine), "reasons": list(quarantine.reasons)})
        if quarantine
        else None,
        reasons=[*report.reasons, *drift_errors],
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
