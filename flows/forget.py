"""A person's rows, taken out of what a model's home holds of them: snapshots, rows set aside, logs of requests."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from bentos import releases
from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError, ReleaseError, SpecError, did_you_mean
from pipeline.forget import forget_in_file, forget_in_snapshot, matching
from pipeline.recorded import KEY, files
from pipeline.settings import Settings
from pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Forgotten:
    """How many rows were taken out of how many files, by what they are, and what still holds some of them."""

    removed: Mapping[str, tuple[int, int]]
    golden: Mapping[int, int]
    """By release: how many of these rows its package answers as golden rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        removed = {kind: {"rows": rows, "files": files} for kind, (rows, files) in self.removed.items()}
        return {"removed": removed, "golden": {str(number): rows for number, rows in self.golden.items()}}


def key_of(spec: ModelSpec, given: Sequence[str]) -> dict[str, str]:
    """Return the values of key columns that `NAME=VALUE` words name; SpecError when one is none."""
    if not spec.key:
        raise SpecError(f"{spec.name} has no key, so nothing tells whose a row is")
    key = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals:
            raise SpecError(f"--key {word!r} names no value: write it as {spec.key[0]}=VALUE")
        if name not in spec.key:
            known = ", ".join(spec.key)
            raise SpecError(f"{name!r} is no key column of {spec.name}, {known} is{did_you_mean(name, spec.key)}")
        key[name] = value
    return key


def forget(
    settings: Settings, ledger: Engine, spec: ModelSpec, key: Mapping[str, str], why: str, dry_run: bool = False
) -> Forgotten:
    """Take the rows with these values of key columns out of all that was frozen for a model, and record that.

    Snapshots that the ledger names for the model, the rows set aside beside them, and the log of requests are written
    anew. The ledger and the record beside each snapshot keep the reason, and whose rows they were by a digest alone.
    Raises ReleaseError when a run of the model is going on.
    """
    home = settings.folder()
    (home / "locks").mkdir(exist_ok=True)
    try:
        with FileLock(home / "locks" / f"{spec.name}.lock").acquire(timeout=0):
            return _forget(home, ledger, spec, key, why, dry_run)
    except Timeout:
        raise ReleaseError(f"a run of {spec.name} is going on; try again when it has ended") from None


def _forget(home: Path, ledger: Engine, spec: ModelSpec, key: Mapping[str, str], why: str, dry_run: bool) -> Forgotten:
    snapshots = _snapshots(home, ledger, spec.name)
    aside = [file for path in snapshots for file in sorted(path.with_suffix(".quarantine").glob("*.parquet"))]
    logged = [path for _, path in files(home / "requests" / spec.name)]
    rows = [row for path in (*snapshots, *aside) for row in matching(path, key)[0].to_pylist()]
    golden = _golden(home, ledger, spec.name, rows)
    removed = {}
    for kind, paths, prefix in (("snapshots", snapshots, ""), ("set aside", aside, ""), ("requests", logged, KEY)):
        counts = []
        for path in paths:
            rows = matching(path, key, prefix)[0].num_rows
            if rows and not dry_run:
                if kind == "snapshots":
                    forget_in_snapshot(path, key, why)
                else:
                    forget_in_file(path, key, prefix)
            counts.append(rows)
        removed[kind] = (sum(counts), sum(rows > 0 for rows in counts))
    found = Forgotten(removed, golden)
    if not dry_run and any(rows for rows, _ in removed.values()):
        said = ", ".join(f"{rows} rows of {files} {kind}" for kind, (rows, files) in removed.items() if rows)
        releases.forgot(ledger, spec.name, f"{said}: {why}" if why else said)
    return found


def _snapshots(home: Path, ledger: Engine, model: str) -> list[Path]:
    """Return the files of the snapshots that a model's releases and runs name, where they are still there."""
    made = [release.digests for release in releases.history(ledger, model)[0]]
    made += [run.digests for run in releases.runs(ledger, model)]
    names = sorted({digests[name] for digests in made for name in ("snapshot", "ingested") if name in digests})
    return [path for name in names if (path := home / "snapshots" / f"{name}.parquet").exists()]


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
