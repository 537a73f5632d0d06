"""What a release rests on besides the ledger's row: its rows, its code, its checks, the report of the run that made it.

What was removed meanwhile, or is in another home, is None.
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
    """Return the folder that the run which made a release left, named by the id of its flow run."""
    for outcome in (settings.folder() / "runs" / model).glob("*/outcome.json"):
        if (_read(outcome) or {}).get("release") == release:
            return outcome.parent
    return None


def provenance_of(settings: Settings, release: Release) -> Proofs:
    """Return on which rows a release was trained, by which code, what was checked, and where its report is."""
    manifest = packed_manifest(settings, release)
    known = manifest or {}
    snapshot = _snapshot(settings.folder() / "snapshots" / f"{release.digests['snapshot']}.parquet")
    folder = run_folder(settings, release.model, release.number)
    report = folder and _read(folder / "validation.json")
    source = settings.folder() / "bentoml" / "bentos" / release.bento.replace(":", "/") / "src"
    counts = known.get("rows", {})
    return Proofs(
        rows=RowsView(
            all=snapshot.rows if snapshot else None,
            origin=snapshot.origin if snapshot else None,
            ingested=snapshot.created if snapshot else None,
            trained_on=counts.get("training"),
            held_out=counts.get("holdout"),
        ),
        code=CodeView(known.get("estimator"), str(source) if source.exists() else None),
        validation=_summary(report) if report else None,
        guards=[GuardView(**guard) for guard in known.get("guards", [])] if manifest else None,
        unguarded=known.get("unguarded", []) if manifest else None,
        report=str(folder / "report.md") if folder else None,
    )


def _summary(report: Mapping[str, Any]) -> ValidationSummary:
    aside = report["quarantine"]
    return ValidationSummary(len(report["rules"]), report["warnings"], aside and aside["rows"])


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
