"""A person's rows, taken out of what a model's home holds of them: snapshots, rows set aside, logs of requests."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from bentos.ledger import releases, runs
from flows.cli.views import ErasedRows, ErasedView
from pipeline import digest
from pipeline.artifact import load_artifact
from pipeline.erase import can_hold, erase_from_file, erase_from_snapshot, matching
from pipeline.errors import ArtifactError, ReleaseError, SpecError, did_you_mean
from pipeline.request_log import KEY, files
from pipeline.settings import Settings
from pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Erased:
    """How many rows were taken out of how many files, by what they are, and what still holds some of them.

    `golden` has, by model and release, how many of these rows its package answers as golden rows.
    """

    removed: Mapping[str, tuple[int, int]]
    golden: Mapping[str, Mapping[int, int]]

    def view(self, model: str) -> ErasedView:
        """Return what `evergreen erase --json` prints."""
        removed = {kind: ErasedRows(rows, count) for kind, (rows, count) in self.removed.items()}
        golden = {name: {str(number): rows for number, rows in found.items()} for name, found in self.golden.items()}
        return ErasedView(model, removed, golden)

    @property
    def words(self) -> list[str]:
        """Say what was taken out of what."""
        return [
            f"{kind}: {_some(rows, 'row')} of {_some(count, 'file')}"
            for kind, (rows, count) in self.removed.items()
            if rows
        ]


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def key_of(spec: ModelSpec, options: Sequence[str]) -> dict[str, str]:
    """Return the value of each key column that `COLUMN=VALUE` options give.

    Raises SpecError if the model has no key, or an option names no key column or gives no value.
    """
    if not spec.key:
        raise SpecError(
            f"{spec.name} has no key column, so evergreen cannot tell whose row is whose; set `key` in the spec",
            code="spec.no_key",
        )
    key = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise SpecError(
                f"--key {option!r} has no value; write it as {spec.key[0]}=VALUE", code="spec.key_without_value"
            )
        if name not in spec.key:
            raise SpecError(
                f"{name!r} is not a key column of {spec.name}; its key columns are: {', '.join(spec.key)}"
                f"{did_you_mean(name, spec.key)}",
                code="spec.unknown_key_column",
            )
        key[name] = value
    return key


def erase(
    settings: Settings, ledger: Engine, spec: ModelSpec, key: Mapping[str, str], why: str, dry_run: bool = False
) -> Erased:
    """Take the rows with these values of key columns out of all that was frozen for a model, and record that.

    Snapshots that the ledger names for the model, the rows set aside beside them, and the log of requests are written
    anew. The ledger says so first, for every model that was trained on one of these snapshots; whose rows they were it
    tells by a digest alone. Raises ReleaseError while one of these models has a run, and SpecError where no snapshot
    could hold such a value.
    """
    home = settings.folder()
    snapshots = _snapshots(home, ledger, spec.name)
    sharing = {model: _snapshots(home, ledger, model) for model in releases.models(ledger)}
    models = sorted({spec.name} | {model for model, theirs in sharing.items() if theirs & snapshots})
    with ExitStack() as stack:
        for model in models:
            _package_locks(stack, home, model)
        return _erase(home, ledger, spec, models, sorted(snapshots), key, why, dry_run)


def _package_locks(stack: ExitStack, home: Path, model: str) -> None:
    (home / "locks").mkdir(exist_ok=True)
    try:
        stack.enter_context(FileLock(home / "locks" / f"{model}.lock").acquire(timeout=0))
    except Timeout:
        raise ReleaseError(
            f"{model} has a run in progress; try again when it has ended", code="release.run_in_progress"
        ) from None


def _erase(
    home: Path,
    ledger: Engine,
    spec: ModelSpec,
    models: Sequence[str],
    snapshots: Sequence[Path],
    key: Mapping[str, str],
    why: str,
    dry_run: bool,
) -> Erased:
    for name, value in key.items():
        if snapshots and not any(can_hold(path, name, value) for path in snapshots):
            raise SpecError(
                f"no snapshot of {spec.name} has a column {name!r} that could hold {value!r}; "
                "check the name of the column and the type of the value",
                code="spec.key_not_in_snapshots",
            )
    aside = [file for path in snapshots for file in sorted(path.with_suffix(".quarantine").glob("*.parquet"))]
    logged = [path for _, path in files(home / "requests" / spec.name)]
    kinds = {"snapshots": (snapshots, ""), "set aside": (aside, ""), "requests": (logged, KEY)}
    found = {
        kind: {path: rows for path in paths if len(rows := matching(path, key, prefix)[0])}
        for kind, (paths, prefix) in kinds.items()
    }
    frozen = [row for kind in ("snapshots", "set aside") for rows in found[kind].values() for row in rows.to_pylist()]
    forgotten = Erased(
        removed={kind: (sum(map(len, by.values())), len(by)) for kind, by in found.items()},
        golden={model: golden for model in models if (golden := _golden(home, ledger, model, frozen))},
    )
    if forgotten.words and not dry_run:
        # First: whoever is killed while files are written does the same again, and finds fewer.
        said = f"key {digest.of_value(dict(sorted(key.items())))[: digest.SHORT]}; {', '.join(forgotten.words)}"
        for model in models:
            releases.record_erasure(ledger, model, f"{said}; {why}" if why else said)
        for path in found["snapshots"]:
            erase_from_snapshot(path, key, why)
        for path in found["set aside"]:
            erase_from_file(path, key)
        for path in found["requests"]:
            erase_from_file(path, key, KEY)
    return forgotten


def _snapshots(home: Path, ledger: Engine, model: str) -> set[Path]:
    """Return the files of the snapshots that a model's releases and runs name, where they are still there."""
    made = [release.digests for release in releases.history(ledger, model)[0]]
    made += [run.digests for run in runs.newest_runs(ledger, model)]
    names = {digests[name] for digests in made for name in ("snapshot", "ingested") if name in digests}
    return {path for name in names if (path := home / "snapshots" / f"{name}.parquet").exists()}


def _golden(home: Path, ledger: Engine, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return, by release whose package is there, how many of these rows it carries as golden rows."""
    found = {}
    for release in releases.history(ledger, model)[0] if rows else ():
        version = release.bento.partition(":")[2]
        with suppress(ArtifactError):
            artifact = load_artifact(home / "bentoml" / "bentos" / model / version / "src" / "artifact")
            carried = [_values(row) for row in artifact.golden_table().to_pylist()]
            names = [feature.name for feature in artifact.schema.features]
            theirs = [_values({name: row.get(name) for name in names}) for row in rows]
            if count := sum(row in theirs for row in carried):
                found[release.number] = count
    return found


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose missing values are equal to each other."""
    return {name: None if value != value else value for name, value in row.items()}
