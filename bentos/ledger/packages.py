"""The package of a release as it was released; or whose package it is, what is wrong with it, and the way out."""

from pathlib import Path

from sqlalchemy import Engine

from bentos.ledger import releases
from bentos.ledger.releases import Release
from bentos.package import Bento, load_bento
from pipeline.artifact import Artifact, load_artifact
from pipeline.errors import PackageError


def package_of(ledger: Engine, release: Release, home: Path) -> Bento:
    """Return the Bento of a release from BentoML's home; PackageError when it is gone or not what was released."""
    model, now = release.model, releases.champion(ledger, release.model)
    way_out = "restore it from a copy"
    # Of another release's package it would take away a champion that nothing is wrong with.
    if now is not None and now.bento == release.bento:
        way_out += f", or `evergreen retire {model}`"
    try:
        return load_bento(release.bento, home, release.digests["bento"], way_out)
    except PackageError as error:
        _, events = releases.history(ledger, model)
        whose = f"release {release.number} of {model}"
        if releases.states(events).get(release.number) == releases.ARCHIVED:
            raise PackageError(
                f"{whose} is archived: `evergreen gc` removed its package ({error})", code="package.archived"
            ) from error
        raise PackageError(f"the package of {whose} cannot be used: {error}", code=error.code) from error


def artifact_of(release: Release, bento: Bento) -> Artifact:
    """Return the artifact in the Bento of a release; ArtifactError when it is not what was released, or not signed."""
    return load_artifact(bento.path / "src" / "artifact", release.digests["artifact"])
