"""Data checked by itself, before anything is trained on it or before it is published: nothing is kept."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from expectations.check import check_snapshot
from expectations.validate import Report
from flows.since import changes_since
from pipeline import sources
from pipeline.drift import Changes
from pipeline.settings import Settings
from pipeline.snapshot import Stored, ingest
from pipeline.spec import load_spec

if TYPE_CHECKING:
    from sqlalchemy import Engine


def check(settings: Settings, ledger: "Engine", model: str, data: str | None) -> tuple[Report, Changes | None]:
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
        return report, changes_since(settings, ledger, model, Stored(left))
