"""What a model answers on average as one feature changes: partial dependence on held-out rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.predict import Answers, take
from pipeline.schema import Feature

if TYPE_CHECKING:
    import pyarrow

MAX_ROWS = 100
MAX_VALUES = 12


def dependence(
    rows: "pyarrow.Table",
    features: Sequence[Feature],
    ask: Callable[["pyarrow.Table"], Answers],
    summary: Callable[[Answers], float],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return, by feature, some of its `values` in order and the `answers` that the model gives in the mean for each.

    Every row is asked with each value in the place of its own (Friedman, Greedy Function Approximation: A Gradient
    Boosting Machine, 2001, section 8.2). Values are quantiles of what the rows hold, or their most frequent texts, most
    frequent first; None is a missing one. `summary` makes one number of the answers to all rows. A feature whose values
    the model refuses among such rows is left out.
    """
    rng = np.random.default_rng(seed)
    sample = rows.take(np.sort(rng.permutation(rows.num_rows)[:MAX_ROWS])).combine_chunks()
    values = {feature.name: _values(feature, rows.column(feature.name)) for feature in features}
    asked = {name: _asked(sample, name, some) for name, some in values.items() if some}
    found = []
    for name, answers in _answered(asked, ask).items():
        each = [slice(start, start + len(sample)) for start in range(0, len(asked[name]), len(sample))]
        means = [summary(take(answers, part)) for part in each]
        if np.isfinite(means).all():
            kind = next(feature.type for feature in features if feature.name == name)
            found.append({"feature": name, "type": kind, "values": values[name], "answers": means})
    return found


def _answered(asked: "Mapping[str, pyarrow.Table]", ask: Callable[["pyarrow.Table"], Answers]) -> dict[str, Answers]:
    """Return the answers to each table, all asked at once, since asking may start a process."""
    import pyarrow as pa

    if not asked:
        return {}
    try:
        answers, start, found = ask(pa.concat_tables(asked.values())), 0, {}
        for name, table in asked.items():
            found[name] = take(answers, slice(start, start + len(table)))
            start += len(table)
        return found
    except Exception:
        if len(asked) == 1:
            return {}
        # A pipeline may refuse values that never came together; those of other features are worth showing.
        return {name: one for each in asked for name, one in _answered({each: asked[each]}, ask).items()}


def _asked(sample: "pyarrow.Table", name: str, values: Sequence[Any]) -> "pyarrow.Table":
    """Return the sample as often as there are values, each time with one of them in the column."""
    import pyarrow as pa

    place, kind = sample.column_names.index(name), sample.schema.field(name).type
    column = pa.array([value for value in values for _ in range(len(sample))]).cast(kind, safe=False)
    repeated = sample.take(np.tile(np.arange(len(sample)), len(values)))
    return repeated.set_column(place, pa.field(name, kind), column)


def _values(feature: Feature, column: "pyarrow.ChunkedArray") -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = column.drop_null()
    if feature.type == "timestamp":
        return _quantiles(known.cast(pa.timestamp("us")).to_numpy())
    if feature.type == "number":
        return _quantiles(known.to_numpy())
    counts = sorted(pc.value_counts(known).to_pylist(), key=lambda one: (-one["counts"], str(one["values"])))
    values = [one["values"] for one in counts[:MAX_VALUES]]
    if feature.type == "boolean":
        return sorted(values)
    return [*values, None] if column.null_count else values


def _quantiles(values: NDArray[Any]) -> list[Any]:
    """Return all values where they are few, else such that lie at even steps among the rows."""
    if len(values) == 0:
        return []
    values = np.sort(values)
    distinct = np.unique(values)
    if len(distinct) > MAX_VALUES:
        inner = slice(len(values) // 50, len(values) - len(values) // 50)
        places = np.linspace(0, len(values[inner]) - 1, MAX_VALUES).round().astype(int)
        distinct = np.unique(values[inner][places])
    kept: list[Any] = distinct.tolist()
    return kept
