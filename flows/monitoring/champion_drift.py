"""Drift since the champion was trained, by comparison with its training snapshot, which the ledger names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentos.ledger import releases
from bentos.ledger.releases import Release
from pipeline.drift import DriftReport, compare
from pipeline.errors import ArtifactError
from pipeline.files import read_json
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, load_snapshot
from pipeline.spec import load_spec
from pipeline.split import Rule

if TYPE_CHECKING:
    import pyarrow
    from sqlalchemy import Engine


def drift_since_champion(
    settings: Settings, ledger: "Engine", model: str, table: "pyarrow.Table | SnapshotFile", digest: str | None = None
) -> DriftReport:
    """Compare a table with the champion's training snapshot; `digest` is the table's own, if it is known.

    If there is no champion or its snapshot is gone, the result says so and rejects nothing.
    """
    champion = releases.champion(ledger, model)
    if champion is None:
        return DriftReport(since=None, incomparable="there is no champion to compare with")
    number, trained_on = champion.number, champion.digests["snapshot"]
    if trained_on == digest:
        return DriftReport(since=number, incomparable=f"the data is what release {number} was trained on")
    try:
        then = SnapshotFile(load_snapshot(settings.folder("snapshots") / f"{trained_on}.parquet").path)
        return compare(load_spec(model), then, table, number, _holdout(settings, champion))
    except ArtifactError as error:
        why = f"what release {number} was trained on cannot be compared with: {error.__cause__ or error}"
        return DriftReport(since=number, incomparable=why)


def _holdout(settings: Settings, champion: Release) -> Rule | None:
    """Return how rows were held out from the champion; None if its package is gone, which evaluation reports later."""
    manifest = packed_manifest(settings, champion)
    return Rule.from_dict(manifest["holdout"]) if manifest else None


def packed_manifest(settings: Settings, release: Release) -> dict[str, Any] | None:
    """Return the manifest of the artifact in a release's package, unverified; None if the package is gone."""
    try:
        manifest: dict[str, Any] = read_json(packed_source(settings, release) / "artifact" / "manifest.json")
        return manifest
    except (OSError, ValueError):
        return None


def packed_source(settings: Settings, release: Release) -> Path:
    """Return the folder of a release's package with its code and its artifact; it may be gone."""
    _, _, version = release.bento.partition(":")
    return settings.folder("bentoml") / "bentos" / release.model / version / "src"
