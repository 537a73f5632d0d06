"""The rows of one request as columns, and counts of nulls and unseen values in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.compiled.operations import Coded
from pipeline.schema import Feature


@dataclass(frozen=True)
class Batch:
    """The rows of one request.

    Attributes:
        columns: the values of each feature; a null is None, or NaN in an array.
        size: the number of rows.
        keys: the key columns of a CSV as text; empty for JSON.
        broken: how many values broke a rule of the guard, by feature and rule.
    """

    columns: Mapping[str, Sequence[Any]]
    size: int
    keys: Mapping[str, list[str]] = field(default_factory=dict)
    broken: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, each with its features that are not null."""
        plain = {name: _plain(column) for name, column in self.columns.items()}
        return [
            {name: column[row] for name, column in plain.items() if column[row] is not None} for row in range(self.size)
        ]

    def part(self, start: int, stop: int) -> "Batch":
        """Return some of the rows, without keys."""
        return Batch({name: _plain(column)[start:stop] for name, column in self.columns.items()}, stop - start)


def of_rows(
    rows: Sequence[Mapping[str, Any]], features: Sequence[Feature], keys: Mapping[str, list[str]] | None = None
) -> Batch:
    """Return rows as a batch; what a row lacks is null."""
    columns = {feature.name: [row.get(feature.name) for row in rows] for feature in features}
    return Batch(columns, len(rows), keys or {})


def concat(batches: Sequence[Batch]) -> Batch:
    """Return the rows of several batches as one, in order, without keys."""
    names = batches[0].columns
    columns = {name: [value for batch in batches for value in _plain(batch.columns[name])] for name in names}
    return Batch(columns, sum(batch.size for batch in batches))


def _plain(column: Sequence[Any]) -> Sequence[Any]:
    if isinstance(column, np.ndarray):
        return [None if value != value else value for value in column.tolist()]
    return list(column) if isinstance(column, Coded) else column


def nulls_and_unseen(
    batch: Batch, categories: Mapping[str, frozenset[str]]
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Count the nulls of each feature, and the values that are none of its listed categories; zeros are left out."""
    nulls: dict[str, int] = {}
    unseen: dict[str, int] = {}
    if batch.size == 1:
        for name, (value,) in batch.columns.items():
            if value is None:
                nulls[name] = 1
            elif name in categories and value not in categories[name]:
                unseen[name] = 1
        return nulls, unseen
    for name, column in batch.columns.items():
        missing, strange = _counted(column, categories.get(name))
        if missing:
            nulls[name] = missing
        if strange:
            unseen[name] = strange
    return nulls, unseen


def _counted(column: Sequence[Any], known: frozenset[str] | None) -> tuple[int, int]:
    if isinstance(column, np.ndarray):
        return int(np.isnan(column).sum()), 0
    if isinstance(column, Coded):
        times = np.bincount(column.codes, minlength=len(column.distinct)).tolist()
        both = list(zip(column.distinct, times, strict=True))
        missing = sum(count for value, count in both if value is None)
        strange = sum(count for value, count in both if value is not None and known and value not in known)
        return missing, strange
    missing = column.count(None)
    return missing, 0 if known is None else len(column) - missing - sum(map(known.__contains__, column))
