"""Erase a person's rows from a home: from snapshots, quarantined rows and the log of requests."""

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
    """The result of an erasure.

    Attributes:
        removed: by kind of file, how many rows were erased from how many files.
        golden: by model and release, how many of these rows its package has as golden rows.
    """

    removed: Mapping[str, tuple[int, int]]
    golden: Mapping[str, Mapping[int, int]]

    def view(self, model: str) -> ErasedView:
        """Return what `evergreen erase --json` prints."""
        removed = {kind: ErasedRows(rows, count) for kind, (rows, count) in self.removed.items()}
        golden = {name: {str(number): rows for number, rows in counts.items()} for name, counts in self.golden.items()}
        return ErasedView(model, removed, golden)

    @property
    def sentences(self) -> list[str]:
        """The counts for people, such as "snapshots: 3 rows of 2 files"; without kinds of which no row was erased."""
        return [
            f"{kind}: {_count(rows, 'row')} of {_count(files, 'file')}"
            for kind, (rows, files) in self.removed.items()
            if rows
        ]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


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
    """Erase the rows with these values of key columns from everything stored for a model, and record that.

    Rewrites the snapshots that the ledger names for the model, the rows quarantined from them, and the log of requests.
    The ledger records the erasure first, for every model that was trained on one of these snapshots. It records a hash
    of the key only, so anyone who knows the key can check the erasure. Raises ReleaseError if one of these models has a
    run in progress, and SpecError if no snapshot could hold such a value.
    """
    home = settings.folder()
    snapshots = _snapshots(home, ledger, spec.name)
    sharing = {model: _snapshots(home, ledger, model) for model in releases.models(ledger)}
    models = sorted({spec.name} | {model for model, theirs in sharing.items() if theirs & snapshots})
    with ExitStack() as stack:
        for model in models:
            _lock_model(stack, home, model)
        return _erase(home, ledger, spec, models, sorted(snapshots), key, why, dry_run)


def _lock_model(stack: ExitStack, home: Path, model: str) -> None:
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
    quarantined = [file for path in snapshots for file in sorted(path.with_suffix(".quarantine").glob("*.parquet"))]
    logged = [path for _, path in files(home / "requests" / spec.name)]
    kinds = {"snapshots": (snapshots, ""), "set aside": (quarantined, ""), "requests": (logged, KEY)}
    matches = {
        kind: {path: rows for path in paths if len(rows := matching(path, key, prefix)[0])}
        for kind, (paths, prefix) in kinds.items()
    }
    training_rows = [
        row for kind in ("snapshots", "set aside") for rows in matches[kind].values() for row in rows.to_pylist()
    ]
    erased = Erased(
        removed={kind: (sum(map(len, by_path.values())), len(by_path)) for kind, by_path in matches.items()},
        golden={model: golden for model in models if (golden := _golden(home, ledger, model, training_rows))},
    )
    if erased.sentences and not dry_run:
        # Recorded first: if this process is killed, the person erases again, and fewer rows are found then.
        record = f"key {digest.of_value(dict(sorted(key.items())))[: digest.SHORT]}; {', '.join(erased.sentences)}"
        for model in models:
            releases.record_erasure(ledger, model, f"{record}; {why}" if why else record)
        for path in matches["snapshots"]:
            erase_from_snapshot(path, key, why)
        for path in matches["set aside"]:
            erase_from_file(path, key)
        for path in matches["requests"]:
            erase_from_file(path, key, KEY)
    return erased


def _snapshots(home: Path, ledger: Engine, model: str) -> set[Path]:
    """Return the existing files of the snapshots that a model's releases and runs name."""
    all_digests = [release.digests for release in releases.history(ledger, model)[0]]
    all_digests += [run.digests for run in runs.newest_runs(ledger, model)]
    names = {digests[name] for digests in all_digests for name in ("snapshot", "ingested") if name in digests}
    return {path for name in names if (path := home / "snapshots" / f"{name}.parquet").exists()}


def _golden(home: Path, ledger: Engine, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Return, for each release that still has its package, how many of its golden rows are among these rows."""
    counts = {}
    for release in releases.history(ledger, model)[0] if rows else ():
        version = release.bento.partition(":")[2]
        with suppress(ArtifactError):
            artifact = load_artifact(home / "bentoml" / "bentos" / model / version / "src" / "artifact")
            golden_rows = [_comparable(row) for row in artifact.golden_table().to_pylist()]
            names = [feature.name for feature in artifact.schema.features]
            erased_rows = [_comparable({name: row.get(name) for name in names}) for row in rows]
            if count := sum(row in erased_rows for row in golden_rows):
                counts[release.number] = count
    return counts


def _comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with None for NaN, so that missing values are equal to each other."""
    return {name: None if value != value else value for name, value in row.items()}
