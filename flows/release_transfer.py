"""A release on its way from one home to another, with its proofs: one file, sealed, and signed where there is a key.

In the file, a tar archive, are its row of the ledger, its package, its snapshot and the report of the run that made it.
"""

import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile, copyfileobj, copytree
from typing import Any

from sqlalchemy import Engine

from bentos import releasing
from bentos.ledger import releases
from bentos.ledger.packages import artifact_of, package_of
from bentos.ledger.releases import Release
from bentos.package import Bento, digest_of, package_lock
from bentos.trial import Trial, run_trial
from flows.export import check_makeable
from flows.provenance import run_folder
from pipeline.artifact import Artifact
from pipeline.erase import check_whole
from pipeline.errors import ArtifactError, ReleaseError
from pipeline.files import read_json, scratch_folder, space_for, whole_file, whole_folder, write_json
from pipeline.formats import ARCHIVE, check_format
from pipeline.manifest import open_sealed, seal
from pipeline.processes import run_niced
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, load_snapshot
from pipeline.spec import load_spec

IMPORT_CAUSE = "import"
_DIGEST = re.compile("[0-9a-f]{64}")
_RUN = re.compile("[0-9a-f-]{36}")


@dataclass(frozen=True)
class ImportedRelease:
    """A release that came from another home: how it is here, and why so."""

    release: Release
    state: str
    reasons: tuple[str, ...]


def pack(settings: Settings, ledger: Engine, release: Release, file: Path) -> None:
    """Write a release with its proofs into `file`, whole or not at all; what was there is replaced.

    Raises PackageError or ArtifactError when its package or its snapshot is not what was released.
    """
    check_makeable(file.absolute().parent)
    bento = package_of(ledger, release, settings.folder("bentoml"))
    artifact_of(release, bento)
    rows = settings.folder("snapshots") / f"{release.digests['snapshot']}.parquet"
    check_whole(rows)
    _check_rows(release, rows)
    judged = release.replaced and releases.get_release(ledger, release.model, release.replaced)
    run = run_folder(settings, release.model, release.number)
    file.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(settings.folder()) as folder, space_for(file):
        copytree(bento.path, folder / "package")
        (folder / "snapshot").mkdir()
        for part in (rows, rows.with_suffix(".json")):
            copyfile(part, folder / "snapshot" / part.name)
        if run is not None:
            copytree(run, folder / "run" / run.name)
        facts = {
            "format": ARCHIVE.current,
            "release": asdict(release),
            "judged_against": judged and judged.digests["artifact"],
        }
        seal(folder, facts)
        with whole_file(file) as part, tarfile.open(part, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)


def _check_rows(release: Release, rows: Path) -> None:
    """Raise ArtifactError unless the snapshot at `rows` holds, to the last value, what a release was trained on."""
    way_out = "restore it from a copy, or another home will refuse the archive"
    of_release = f"of release {release.number} of {release.model}"
    try:
        actual = SnapshotFile(load_snapshot(rows).path).digest()
    except ArtifactError as error:
        raise ArtifactError(
            f"the snapshot {of_release} cannot be read: {error}; {way_out}", code="artifact.snapshot_unreadable"
        ) from error
    if (expected := release.digests["snapshot"]) != actual:
        raise ArtifactError(
            f"snapshot {rows.name} {of_release} is not the one it was trained on: its digest is {actual}, "
            f"not {expected}; {way_out}",
            code="artifact.snapshot_changed",
        )


def unpack(settings: Settings, ledger: Engine, file: Path) -> ImportedRelease:
    """Enter a release of another home into this one's ledger, after all that is said of it was found to be so.

    Every file is checked by digest and the seal by its signature where there is a key, the snapshot by its rows, and
    the package is started and asked its golden rows. It becomes champion where it was judged against what is champion
    here, or where there is none; else, and where the spec wishes so, it awaits a person's approval. Raises
    ArtifactError, PackageError or ReleaseError, and changes nothing, when something is not so.
    """
    with scratch_folder(settings.folder()) as folder, space_for(settings.folder()):
        try:
            with tarfile.open(file, "r:") as archive:
                _extract(archive, folder)
        except (OSError, tarfile.TarError) as error:
            raise ArtifactError(
                f"{file} is not a complete archive of a release: {error}; "
                "write it again with `evergreen archive MODEL N FILE`",
                code="artifact.not_an_archive",
            ) from error
        try:
            _, manifest = open_sealed(folder)
        except ArtifactError as error:
            sentence = str(error).replace(str(folder), str(file))
            raise ArtifactError(f"{sentence}; or write the archive again", code=error.code) from error
        release = _release_in(file, manifest)
        _check_new(ledger, release)
        expected = release.digests["bento"]
        bento = Bento(release.bento, folder / "package", digest_of(folder / "package", expected))
        if bento.digest != expected:
            raise ReleaseError(
                f"the package in {file} is not what was released: its digest is {bento.digest}, not {expected}; "
                "write the archive again",
                code="release.archive_mismatch",
            )
        artifact = artifact_of(release, bento)
        _check_row(file, release, artifact)
        rows = folder / "snapshot" / f"{release.digests['snapshot']}.parquet"
        if (actual := SnapshotFile(load_snapshot(rows).path).digest()) != release.digests["snapshot"]:
            raise ReleaseError(
                f"the snapshot in {file} is not the one the release was trained on: its digest is {actual}, "
                f"not {release.digests['snapshot']}; write the archive again",
                code="release.archive_mismatch",
            )
        trial = run_niced(run_trial, bento, artifact)
        if not trial.passed:
            raise ReleaseError(
                f"the package in {file} does not predict here what it predicted when it was trained: "
                f"{trial.problems[0]}; train the model here with `evergreen run {release.model}`",
                code="release.trial_failed",
            )
        return _add_to_ledger(settings, ledger, file, folder, release, manifest["judged_against"], trial)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive into a folder; TarError when one is no plain file, or lies outside of it.

    Python before 3.11.4 has no filter that does so.
    """
    for member in archive:
        path = folder / member.name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise tarfile.TarError(f"{member.name!r} lies outside of it")
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as content, path.open("wb") as part:  # type: ignore[union-attr]
                copyfileobj(content, part)
            path.chmod(0o600 | (member.mode & 0o755))
        else:
            raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")


def _release_in(file: Path, manifest: Mapping[str, Any]) -> Release:
    """Return the row in a manifest, which anybody may have written: it names files here."""
    try:
        check_format(ARCHIVE, manifest.get("format"), f"archive {file}")
        release = Release(**manifest["release"])
        load_spec(release.model)
        digests = [release.digests[name] for name in ("snapshot", "spec", "code", "artifact", "bento")]
        if not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError("digests are 64 hexadecimal digits")
        if release.bento != f"{release.model}:{release.digests['artifact'][:16]}":
            raise ValueError(f"{release.bento} is not the package of artifact {release.digests['artifact']}")
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{file} does not hold a valid release: {type(error).__name__}: {error}; write the archive again",
            code="release.archive_invalid",
        ) from error
    return release


def _check_row(file: Path, release: Release, artifact: Artifact) -> None:
    """Raise ReleaseError unless the row agrees with the manifest of the artifact, whose digest was checked."""
    names = [name for name in ("verdict", "evaluation", "answers") if getattr(release, name) != artifact.manifest[name]]
    digests = artifact.manifest["digests"].items()
    names += [f"digest of the {name}" for name, value in digests if release.digests.get(name, value) != value]
    if names:
        raise ReleaseError(
            f"the {names[0]} in {file} is not that of its artifact, {artifact.digest[:12]}; write the archive again",
            code="release.archive_mismatch",
        )


def _check_new(ledger: Engine, release: Release) -> None:
    # The ledger refuses it as well, but when package and snapshot are there already.
    if held := releases.desired_state(ledger, release.model).held:
        raise ReleaseError(releases.hold_sentence(release.model, held), code="release.held")
    made, events = releases.history(ledger, release.model)
    states = releases.states(events)
    for known in made:
        state = states.get(known.number)
        if known.digests["artifact"] == release.digests["artifact"] and state in (
            "champion",
            releases.CANARY,
            releases.AWAITING,
        ):
            raise ReleaseError(
                f"it already is release {known.number} of {release.model} here: {state}; there is nothing to import",
                code="release.already_here",
            )
    if block := releases.blocked_by(ledger, release.model, release.digests):
        raise ReleaseError(
            f"its snapshot, spec and code are blocked here: {block.kind} {block.release}, {block.reason}; "
            "import a release of other rows or code",
            code="release.blocked",
        )


def _add_to_ledger(
    settings: Settings,
    ledger: Engine,
    file: Path,
    folder: Path,
    release: Release,
    judged_against: str | None,
    trial: Trial,
) -> ImportedRelease:
    model, home = release.model, settings.folder("bentoml")
    champion = releases.champion(ledger, model)
    kind, why = _how(model, champion, judged_against)
    reasons = (f"release {release.number} of another home, from {file.name}", *why, *release.verdict["reasons"])
    with package_lock(model, home):
        place = home / "bentos" / model / release.bento.partition(":")[2]
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            with whole_folder(place) as part:
                copytree(folder / "package", part, dirs_exist_ok=True)
        for name in (f"{release.digests['snapshot']}.parquet", f"{release.digests['snapshot']}.json"):
            kept = settings.folder("snapshots") / name
            if not kept.exists():
                with whole_file(kept) as part:
                    copyfile(folder / "snapshot" / name, part)
        made = releasing.release(
            ledger,
            home,
            replace(
                release,
                trial=trial.to_dict(),
                cause=IMPORT_CAUSE,
                reason="; ".join(reasons),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                replaced=champion.number if champion else None,
                canary=None,
            ),
            kind=kind,
        )
    _keep_report(settings, folder, made)
    return ImportedRelease(made, "champion" if kind == releases.RELEASED else kind, reasons)


def _how(model: str, champion: Release | None, judged_against: str | None) -> tuple[str, list[str]]:
    """Return how a release begins here, and why so."""
    if load_spec(model).approval == "manual":
        return releases.AWAITING, ["the spec wishes a person's approval"]
    if champion is None:
        return releases.RELEASED, ["there was no champion here"]
    if champion.digests["artifact"] == judged_against:
        return releases.RELEASED, [f"it was judged against what is release {champion.number} here"]
    return releases.AWAITING, [f"it was not judged against release {champion.number}, the champion here"]


def _keep_report(settings: Settings, folder: Path, made: Release) -> None:
    for run in folder.glob("run/*"):
        place = settings.folder("runs", made.model) / run.name
        if _RUN.fullmatch(run.name) and not place.exists():
            with whole_folder(place) as part:
                copytree(run, part, dirs_exist_ok=True)
                write_json(part / "outcome.json", {**read_json(run / "outcome.json"), "release": made.number})
