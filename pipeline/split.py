"""Which rows are held out: the same ones in every run, so that no compared model was trained on them."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.schema import feature_names
from pipeline.snapshot import SnapshotFile

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Rule:
    """How rows were held out for one model.

    Attributes:
        model: its name, which seeds the hash.
        by: the columns whose values are hashed.
        share: rows whose hash is below this are held out, if there is no time column.
        time: the time column; None if rows are held out by hash.
        start: rows at or after this time are held out.
    """

    model: str
    by: tuple[str, ...]
    share: float
    time: str | None = None
    start: str | float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Rule":
        """Return the rule that `to_dict` wrote."""
        return cls(**{**value, "by": tuple(value["by"])})


def holdout_rule(spec: "ModelSpec", table: "pyarrow.Table") -> Rule:
    """Return the rule that holds out the spec's share of this table's rows.

    Without a time column it depends on the spec alone. With one, it holds out the newest rows: about the share of the
    spec, or those of the given number of days before the newest row.
    """
    by = (spec.group,) if spec.group else spec.key or feature_names(spec, table.column_names)
    if spec.time is None:
        return Rule(spec.name, by, spec.holdout.fraction)
    times = np.sort(_times(table, spec.time))
    if spec.holdout.days is not None:
        if times.dtype.kind != "M":
            raise DataError(
                f"holdout of {spec.name} is given in days, but time column {spec.time!r} does not hold timestamps; use "
                "fraction= instead of days=",
                code="data.time_type",
            )
        start = times[-1] - np.timedelta64(round(spec.holdout.days * 86_400_000_000), "us")
    else:
        start = times[int(len(times) * (1 - spec.holdout.fraction))]
    return Rule(spec.name, by, spec.holdout.fraction, spec.time, _plain(start))


def held_out(rule: Rule, table: "pyarrow.Table | SnapshotFile") -> NDArray[np.bool_]:
    """Return, per row, whether the rule holds it out; raises DataError if the time column changed its type."""
    if isinstance(table, SnapshotFile):
        return _of_snapshot(rule, table.path, table.num_rows)
    return _held_out(rule, table)


@lru_cache(maxsize=4)
def _of_snapshot(rule: Rule, path: Path, rows: int) -> NDArray[np.bool_]:
    """Return which rows of a snapshot's file are held out; cached, since every step of a run needs it.

    `rows` is part of the cache key, since a file has fewer rows after an erasure.
    """
    stored = SnapshotFile(path)
    stored.check(rows)
    mask = _held_out(rule, stored)
    mask.flags.writeable = False
    return mask


def _held_out(rule: Rule, table: "pyarrow.Table | SnapshotFile") -> NDArray[np.bool_]:
    if rule.time is None:
        return hash_share(rule.model, rule.by, table) < rule.share
    start = np.datetime64(rule.start, "us") if isinstance(rule.start, str) else rule.start
    times = _times(table, rule.time)
    if isinstance(start, np.datetime64) != (times.dtype.kind == "M"):
        raise DataError(
            f"time column {rule.time!r} holds values such as {times[0]}, but the holdout starts at {start}; use values "
            "of that type",
            code="data.time_type",
        )
    return np.asarray(times >= start)


def split(rule: Rule, table: "pyarrow.Table") -> NDArray[np.bool_]:
    """Return `held_out`; raises DataError if no rows are left to train on, or none are held out."""
    mask = held_out(rule, table)
    if mask.all() or not mask.any():
        side = "train on" if mask.all() else "hold out"
        raise DataError(
            f"{table.num_rows} rows leave none to {side}; use more rows, or another holdout", code="data.empty_split"
        )
    return mask


def hash_share(model: str, by: tuple[str, ...], table: "pyarrow.Table | SnapshotFile") -> NDArray[np.float64]:
    """Return, per row, a number in [0, 1) that depends on the model's name and the row's key alone."""
    seeded = hashlib.blake2b(key=model.encode(), digest_size=8)

    def digest(key: tuple[str, ...]) -> bytes:
        hashed = seeded.copy()
        hashed.update("\x1f".join(key).encode())
        return hashed.digest()

    # In batches, since without a key column the key is the whole table, as texts.
    names = list(by)
    tables = (
        table.groups(np.ones(table.num_rows, bool), names) if isinstance(table, SnapshotFile) else [table.select(names)]
    )
    digests = (
        b"".join(map(digest, zip(*map(_words, batch.columns), strict=True)))
        for part in tables
        for batch in part.to_batches(max_chunksize=2**16)
    )
    return np.concatenate([np.zeros(0), *(np.frombuffer(part, ">u8") / float(2**64) for part in digests)])


def _words(column: "pyarrow.Array") -> list[str]:
    """Return values as texts, converting each distinct value only once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(column.type) and all(abs(end or 0) < 2**53 for end in pc.min_max(column).as_py().values()):
        # The same as `_canonical`, many times as fast.
        words: list[str] = column.cast(pa.string()).fill_null("None").to_pylist()
        return words
    encoded = column.dictionary_encode(null_encoding="encode")
    known = np.array([_canonical(value) for value in encoded.dictionary.to_pylist()], object)
    return known[encoded.indices.to_numpy(zero_copy_only=False)].tolist()


def _canonical(value: Any) -> str:
    """Return a key value as text, the same whatever type its column was read as.

    One new row can turn a column of numbers into one of texts: 7 then becomes "007". Two keys may get the same text,
    which does no harm: either both are held out or neither.
    """
    if isinstance(value, str):
        value = _as_if_read(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_if_read(word: str) -> str | bool | float | datetime:
    """Return the value that a CSV's text has if all texts of its column are of the same type."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        return float(word)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(word)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        return word


def _times(table: "pyarrow.Table", name: str) -> NDArray[Any]:
    values = table.column(name).to_numpy()
    if values.dtype.kind not in "Mif":
        raise DataError(
            f"time column {name!r} holds values such as {values[0]!r}; use timestamps or numbers", code="data.time_type"
        )
    return values


def _plain(value: Any) -> str | float:
    return str(value) if isinstance(value, np.datetime64) else float(value)
