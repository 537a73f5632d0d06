"""The provenance of a release: its rows, its code, its validation, and the report of the run that made it.

The ledger has the release's own row. A part that was removed, or that is in another home, is None.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentos.ledger.releases import Release
from flows.cli.views import CodeView, GuardView, Proofs, RowsView, ValidationSummary
from flows.monitoring.champion_drift import packed_manifest
from pipeline.errors import ArtifactError
from pipeline.files import read_json
from pipeline.settings import Settings
from pipeline.snapshot import Snapshot, load_snapshot


def run_folder(settings: Settings, model: str, release: int) -> Path | None:
    """Return the folder of the run that made a release; None if it is gone. Its name is the id of the flow run."""
    for outcome in (settings.folder() / "runs" / model).glob("*/outcome.json"):
        if (_read(outcome) or {}).get("release") == release:
            return outcome.parent
    return None


def provenance_of(settings: Settings, release: Release) -> Proofs:
    """Return the rows a release was trained on, its code, its validation, and the path of its report."""
    manifest = packed_manifest(settings, release)
    facts = manifest or {}
    snapshot = _snapshot(settings.folder() / "snapshots" / f"{release.digests['snapshot']}.parquet")
    folder = run_folder(settings, release.model, release.number)
    report = folder and _read(folder / "validation.json")
    source = settings.folder() / "bentoml" / "bentos" / release.bento.replace(":", "/") / "src"
    counts = facts.get("rows", {})
    return Proofs(
        rows=RowsView(
            all=snapshot.rows if snapshot else None,
            origin=snapshot.origin if snapshot else None,
            ingested=snapshot.created if snapshot else None,
            trained_on=counts.get("training"),
            held_out=counts.get("holdout"),
        ),
        code=CodeView(facts.get("estimator"), str(source) if source.exists() else None),
        validation=_summary(report) if report else None,
        guards=[GuardView(**guard) for guard in facts.get("guards", [])] if manifest else None,
        unguarded=facts.get("unguarded", []) if manifest else None,
        report=str(folder / "report.md") if folder else None,
    )


def _summary(report: Mapping[str, Any]) -> ValidationSummary:
    quarantine = report["quarantine"]
    return ValidationSummary(len(report["rules"]), report["warnings"], quarantine and quarantine["rows"])


def _snapshot(path: Path) -> Snapshot | None:
    try:
        return load_snapshot(path)
    except ArtifactError:
        return None


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
