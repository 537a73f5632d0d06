"""Move a release from one home to another: `pack` writes one file, `unpack` checks it and adds the release.

The file is a tar archive. It holds the release's row of the ledger, its package, its snapshot and the report of the run
that made it. A manifest seals it by digests, and signs them if there is a key.
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
    """An imported release.

    Attributes:
        release: its row in this home's ledger.
        state: "champion" or "awaiting-approval".
        reasons: why it has this state, and what its verdict says.
    """

    release: Release
    state: str
    reasons: tuple[str, ...]


def pack(settings: Settings, ledger: Engine, release: Release, file: Path) -> None:
    """Write a release, its package, snapshot and report into `file`, completely or not at all; replaces the file.

    Raises PackageError or ArtifactError if its package or its snapshot is not what was released.
    """
    check_makeable(file.absolute().parent)
    bento = package_of(ledger, release, settings.folder("bentoml"))
    artifact_of(release, bento)
    rows = settings.folder("snapshots") / f"{release.digests['snapshot']}.parquet"
    check_whole(rows)
    _check_rows(release, rows)
    opponent = release.replaced and releases.get_release(ledger, release.model, release.replaced)
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
            "judged_against": opponent and opponent.digests["artifact"],
        }
        seal(folder, facts)
        with whole_file(file) as part, tarfile.open(part, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)


def _check_rows(release: Release, rows: Path) -> None:
    """Raise ArtifactError unless the snapshot at `rows` has exactly the values that a release was trained on."""
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
    """Add a release of another home to this one's ledger, after everything in its archive was checked.

    Checks the digest of each file, the signature of the manifest if there is a key, the values of the snapshot, and the
    predictions of the started package for its golden rows. The release becomes champion if it was evaluated against
    this home's champion, or if there is none. Otherwise, or if the spec asks for approval, it awaits approval. Raises
    ArtifactError, PackageError or ReleaseError if a check fails, and then changes nothing.
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
    """Write the files of an archive into a folder; TarError if one is not a plain file, or lies outside the folder.

    Python before 3.11.4 has no filter for that.
    """
    for member in archive:
        path = folder / member.name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise tarfile.TarError(f"{member.name!r} lies outside the folder")
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
    """Return the row in a manifest, after checking it: anybody may have written it, and it names files of this home."""
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
    """Raise ReleaseError if the release cannot be added: it is here already, blocked, or the model is held."""
    # The ledger would refuse it too, but only after package and snapshot were copied.
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
    kind, reason = _first_state(model, champion, judged_against)
    reasons = (f"imported release {release.number} of another home, from {file.name}", reason)
    reasons = (*reasons, *release.verdict["reasons"])
    with package_lock(model, home):
        package_folder = home / "bentos" / model / release.bento.partition(":")[2]
        package_folder.parent.mkdir(parents=True, exist_ok=True)
        if not package_folder.exists():
            with whole_folder(package_folder) as part:
                copytree(folder / "package", part, dirs_exist_ok=True)
        for name in (f"{release.digests['snapshot']}.parquet", f"{release.digests['snapshot']}.json"):
            snapshot_file = settings.folder("snapshots") / name
            if not snapshot_file.exists():
                with whole_file(snapshot_file) as part:
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


def _first_state(model: str, champion: Release | None, judged_against: str | None) -> tuple[str, str]:
    """Return the first state of a release in this home, and why."""
    if load_spec(model).approval == "manual":
        return releases.AWAITING, "the spec asks for a person's approval"
    if champion is None:
        return releases.RELEASED, "there was no champion here"
    if champion.digests["artifact"] == judged_against:
        return releases.RELEASED, f"it was evaluated against the champion here, release {champion.number}"
    return releases.AWAITING, f"it was not evaluated against the champion here, release {champion.number}"


def _keep_report(settings: Settings, folder: Path, made: Release) -> None:
    for run in folder.glob("run/*"):
        target = settings.folder("runs", made.model) / run.name
        if _RUN.fullmatch(run.name) and not target.exists():
            with whole_folder(target) as part:
                copytree(run, part, dirs_exist_ok=True)
                write_json(part / "outcome.json", {**read_json(run / "outcome.json"), "release": made.number})
