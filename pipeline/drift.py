"""Two snapshots compared: how far the data has moved since the champion was trained, column by column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, did_you_mean
from pipeline.format_numbers import format_number
from pipeline.population_stability import population_stability
from pipeline.schema import MAX_CATEGORIES, feature_names
from pipeline.sources import logical_type
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import Drift, ModelSpec

Array = NDArray[Any]
Role = Literal["feature", "target"]

MAX_ROWS = 100_000
"""Numbers are compared on a sample of so many rows of either side: more would tell the same, and cost more."""
MIN_EFFECT_SIZE_ROWS = 2_000
"""From so many rows on, effect sizes are compared; below, tests. With fewer, chance alone fills twenty bins so unevenly
that the usual thresholds are crossed in one of a thousand comparisons. With many, a test finds each trifle: a p-value
says how surely two sides differ, not by how much, and of a million rows it is always 0."""
MAX_BARS = 20
"""A histogram has so many bars at most, and so many categories are compared; the rarest are one together."""
BINS = 10
FEW_NUMBERS = 10
"""Numbers with no more distinct values than this are compared as categories."""
MAX_SHOWN = 5
OTHERS = "(others)"


@dataclass(frozen=True)
class Histogram:
    """The share of the values in each bar, then and now; a bar of numbers is named by its middle."""

    bars: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float, ...]


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column moved: it drifted when `value` is more than `threshold`, or `nulls` moved too far.

    `test` and `value` are None where one side has no values. Of a category column, `new` and `lost` are how many there
    are only now and only then. Examples and the histogram are there for what drifted, and never for a sensitive column.
    `drifted` follows from the other fields, whatever is given for it.
    """

    column: str
    role: Role
    test: str | None
    value: float | None
    threshold: float | None
    nulls_then: float
    nulls_now: float
    nulls_threshold: float
    new: int = 0
    lost: int = 0
    new_examples: tuple[str, ...] = ()
    lost_examples: tuple[str, ...] = ()
    histogram: Histogram | None = None
    drifted: bool = False

    def __post_init__(self) -> None:
        # A field, so that JSON has it: its values or its share of nulls moved beyond their thresholds.
        beyond = abs(self.nulls_now - self.nulls_then) > self.nulls_threshold
        object.__setattr__(self, "drifted", bool(self.moved or beyond))

    @property
    def moved(self) -> bool:
        """Whether its values are distributed otherwise."""
        return self.value is not None and self.threshold is not None and self.value > self.threshold


@dataclass(frozen=True)
class RowQuality:
    """What is odd about the rows of a table: how many have the key of an earlier one, are the same as an earlier one
    in features and target, or have the features of another one and another label (of a classification).
    """

    rows: int
    keys_twice: int
    duplicate: int
    conflicting: int


@dataclass(frozen=True)
class DriftReport:
    """What changed since the champion, release `since`, was trained; `incomparable` says why nothing was compared.

    `errors` refuse the data, `notes` are worth a look. `sampled` says how many rows of a side numbers were compared
    on, where they are not all.
    """

    since: int | None
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    rows_then: RowQuality | None = None
    rows_now: RowQuality | None = None
    relabelled: int | None = None
    sampled: int | None = None
    incomparable: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the data may be trained on."""
        return not self.errors

    @property
    def drifted(self) -> list[ColumnDrift]:
        """The columns that drifted, the target first, then those farthest beyond their threshold."""
        return [one for one in self.columns if one.drifted]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"passed": self.passed, **asdict(self)}


def compare(
    spec: "ModelSpec", then: "pyarrow.Table", now: "pyarrow.Table", since: int, rule: Rule | None
) -> DriftReport:
    """Compare a table with the one that the champion, release `since`, was trained on.

    `rule` is how rows were held out from it (None: not known). A feature that is lost or holds another type is an
    error, and with `drift.refuse` so is all that drifted. The cost is bounded by MAX_ROWS, but for counts of
    categories, nulls and rows that occur twice.
    """
    columns = [*feature_names(spec, then.column_names), spec.target]
    shared = [name for name in columns if name in then.column_names and name in now.column_names]
    retyped = [name for name in shared if _retyped(name, then, now)]
    errors = [*_lost(spec, columns, then, now, since), *(_type_sentence(name, then, now, since) for name in retyped)]
    sides = tuple(_sample(table.num_rows, spec.seed) for table in (then, now))
    found = [
        _column(
            spec.drift,
            name,
            "target" if name == spec.target else "feature",
            (then.column(name), now.column(name)),
            sides,
            sensitive=name in spec.sensitive,
        )
        for name in shared
        if name not in retyped
    ]
    found.sort(key=_badness)
    before, after = _rows(spec, then, columns), _rows(spec, now, columns)
    drifted = [*_drift_sentences(spec, found, since), *_row_sentences(spec, before, after, since)]
    relabelled = _count_relabelled(spec, rule, then, now)
    notes = [*_schema_notes(spec, then, now, since), *_news(found, since)]
    if after.keys_twice:
        notes.append(f"{after.keys_twice:,} rows have the key of an earlier row, and a key should name one row")
    if relabelled:
        notes.append(f"{relabelled:,} rows that release {since} was judged by have another {spec.target!r} now")
    most = max(then.num_rows, now.num_rows)
    return DriftReport(
        since=since,
        errors=tuple(errors + (drifted if spec.drift.refuse else [])),
        notes=tuple(notes if spec.drift.refuse else drifted + notes),
        columns=tuple(found),
        rows_then=before,
        rows_now=after,
        relabelled=relabelled,
        sampled=MAX_ROWS if most > MAX_ROWS else None,
    )


def column_drift(
    spec: "ModelSpec", name: str, role: Role, then: "pyarrow.ChunkedArray", now: "pyarrow.ChunkedArray"
) -> ColumnDrift:
    """Return how far one column moved, its values then and now in any number of rows."""
    sides = tuple(_sample(len(column), spec.seed) for column in (then, now))
    return _column(spec.drift, name, role, (then, now), sides, sensitive=name in spec.sensitive)


def _lost(
    spec: "ModelSpec", columns: Sequence[str], then: "pyarrow.Table", now: "pyarrow.Table", since: int
) -> Iterator[str]:
    added = set(now.column_names) - set(then.column_names)
    for name in columns:
        if name in then.column_names and name not in now.column_names:
            hint = did_you_mean(name, added)
            yield (
                f"column {name!r}, which release {since} of {spec.name} was trained on, is missing from the data{hint}"
                f"; restore it, or remove it from the spec's features, or run `evergreen retire {spec.name}`"
            )


def _retyped(name: str, then: "pyarrow.Table", now: "pyarrow.Table") -> bool:
    kinds = {logical_type(table.schema.field(name).type) for table in (then, now)}
    # What is null throughout is read as numbers, whatever it will hold one day.
    return len(kinds) > 1 and all(table.column(name).null_count < table.num_rows for table in (then, now))


def _type_sentence(name: str, then: "pyarrow.Table", now: "pyarrow.Table", since: int) -> str:
    was, holds = (logical_type(table.schema.field(name).type) for table in (then, now))
    return (
        f"column {name!r} changed type from {was} to {holds} since release {since}; fix the data, or set "
        f"types={{{name!r}: ...}} on the source"
    )


def _schema_notes(spec: "ModelSpec", then: "pyarrow.Table", now: "pyarrow.Table", since: int) -> Iterator[str]:
    features = feature_names(spec, now.column_names)
    for name in now.column_names:
        if name not in then.column_names:
            what = "a feature now" if name in features else "not used"
            yield f"column {name!r} is new since release {since}, and is {what}"
    for name in then.column_names:
        if name not in now.column_names and name not in (*feature_names(spec, then.column_names), spec.target):
            yield f"column {name!r}, which is not used, is gone since release {since}"
    shared = {*then.column_names} & {*now.column_names}
    orders = [[name for name in table.column_names if name in shared] for table in (then, now)]
    if orders[0] != orders[1]:
        yield f"the columns are in another order than when release {since} was trained"


def _drift_sentences(spec: "ModelSpec", found: Sequence[ColumnDrift], since: int) -> Iterator[str]:
    """Yield a sentence for the target and one for all features, so that a drifted table is not a page of warnings."""
    way_out = "; if the world changed and the data is right, set drift= in the spec" if spec.drift.refuse else ""
    for role, subject in (("target", f"the target {spec.target!r}"), ("feature", "")):
        drifted = [one for one in found if one.role == role and one.drifted]
        if drifted:
            told = "; ".join(f"{one.column}: {describe_drift(one)}" for one in drifted[:MAX_SHOWN])
            more = f" and {len(drifted) - MAX_SHOWN} more" if len(drifted) > MAX_SHOWN else ""
            count = f"{len(drifted)} of {sum(one.role == role for one in found)} features"
            yield f"{subject or count} drifted since release {since}: {told}{more}{way_out}"


def describe_drift(one: ColumnDrift) -> str:
    """Say by how much a column drifted, with its thresholds."""
    said = []
    if one.moved:
        said.append(f"{one.test} {format_number(one.value)}, over {format_number(one.threshold)}")
    if abs(one.nulls_now - one.nulls_then) > one.nulls_threshold:
        said.append(f"{one.nulls_now:.1%} null, were {one.nulls_then:.1%}")
    return " and ".join(said)


DRIFT_HEADINGS = ("column", "test", "value", "threshold", "nulls then", "nulls now", "new categories")
"""Of a table of columns, with `drift_cells` below."""


def drift_cells(column: ColumnDrift) -> tuple[str, ...]:
    """Return how far a column moved as the cells of a table, plain text in the order of `DRIFT_HEADINGS`."""
    compared = column.test is not None
    return (
        column.column,
        column.test or "no values to compare",
        format_number(column.value) if compared else "",
        format_number(column.threshold) if compared else "",
        f"{column.nulls_then:.1%}",
        f"{column.nulls_now:.1%}",
        f"{column.new:,}" if column.new else "",
    )


def _news(found: Sequence[ColumnDrift], since: int) -> Iterator[str]:
    """Yield a sentence about new categories, which refuse nothing: a model answers them as its pipeline does."""
    told = [
        f"{one.new} of {one.column}" + (f" ({', '.join(map(repr, one.new_examples))})" if one.new_examples else "")
        for one in found
        if one.new
    ]
    if told:
        more = f"; and of {len(told) - MAX_SHOWN} more columns" if len(told) > MAX_SHOWN else ""
        yield f"new categories since release {since}: {'; '.join(told[:MAX_SHOWN])}{more}"


def _row_sentences(spec: "ModelSpec", then: RowQuality, now: RowQuality, since: int) -> Iterator[str]:
    for count, was, what in (
        (now.duplicate, then.duplicate, "are the same as another one in every feature and the target"),
        (now.conflicting, then.conflicting, "have the features of another one and another label"),
    ):
        share, before = count / max(now.rows, 1), was / max(then.rows, 1)
        if share > before + spec.drift.duplicates:
            yield f"{count:,} rows ({share:.1%}) {what}; when release {since} was trained, {before:.1%} were"


def _badness(one: ColumnDrift) -> tuple[bool, bool, float]:
    beyond = one.value / one.threshold if one.value is not None and one.threshold else 0.0
    return (not one.drifted, one.role == "feature", -beyond)


def _column(
    thresholds: "Drift",
    name: str,
    role: Role,
    columns: "tuple[pyarrow.ChunkedArray, pyarrow.ChunkedArray]",
    sides: tuple[Array | None, ...],
    *,
    sensitive: bool,
) -> ColumnDrift:
    import pyarrow.compute as pc

    nulls = [column.null_count / max(len(column), 1) for column in columns]
    known = [len(column) - column.null_count for column in columns]
    facts: dict[str, Any] = {
        "column": name,
        "role": role,
        "nulls_then": nulls[0],
        "nulls_now": nulls[1],
        "nulls_threshold": max(thresholds.nulls, _chance_of_share(columns, thresholds.p)),
    }
    if not all(known):
        return ColumnDrift(test=None, value=None, threshold=None, **facts)
    kind = logical_type(columns[0].type)
    if kind in ("text", "boolean"):
        counts = [_counts(column) for column in columns]
        if any(len(one) > MAX_CATEGORIES for one in counts):
            # Free text and identifiers: nearly every value is new, which is no news; a broken export shows in lengths.
            numbers = [_picked(pc.utf8_length(column), rows) for column, rows in zip(columns, sides, strict=True)]
            return _of_numbers(thresholds, numbers, facts, " of the lengths", sensitive)
        only = [sorted(set(one) - set(other)) for one, other in (counts, counts[::-1])]
        facts |= {"new": len(only[1]), "lost": len(only[0])}
        if not sensitive:
            facts |= {"new_examples": tuple(only[1][:MAX_SHOWN]), "lost_examples": tuple(only[0][:MAX_SHOWN])}
        return _of_categories(thresholds, counts, facts, sensitive)
    numbers = [_picked(column, rows) for column, rows in zip(columns, sides, strict=True)]
    if kind == "number" and _few(*numbers):
        distinct = [np.unique(one, return_counts=True) for one in numbers]
        counts = [
            dict(zip(map(format_number, values.tolist()), count.tolist(), strict=True)) for values, count in distinct
        ]
        return _of_categories(thresholds, counts, facts, sensitive)
    return _of_numbers(thresholds, numbers, facts, "", sensitive, times=kind == "timestamp")


def _few(then: Array, now: Array) -> bool:
    # To sort all of them costs more than the comparison; the first tell for nearly every column.
    return all(len(np.unique(np.concatenate([then[:most], now[:most]]))) <= FEW_NUMBERS for most in (1000, MAX_ROWS))


def _of_numbers(
    thresholds: "Drift", sides: Sequence[Array], facts: dict[str, Any], of: str, sensitive: bool, times: bool = False
) -> ColumnDrift:
    from scipy.stats import ks_2samp, kstwobign

    then, now = sides
    if min(len(then), len(now)) < MIN_EFFECT_SIZE_ROWS:
        test, value = "Kolmogorov-Smirnov", float(ks_2samp(then, now, method="asymp").statistic)
        # The two-sample test's critical distance for many rows, which is a little too large for few.
        threshold = float(kstwobign.isf(thresholds.p)) * np.sqrt(1 / len(then) + 1 / len(now))
    else:
        edges = np.unique(np.quantile(then, np.linspace(0, 1, BINS + 1)[1:-1]))
        counts = [np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) for side in sides]
        test, value, threshold = "population stability index", population_stability(*counts), thresholds.psi
    drift = ColumnDrift(test=test + of, value=value, threshold=float(threshold), **facts)
    return drift if sensitive or not drift.drifted else replace(drift, histogram=_histogram(then, now, times))


def _of_categories(
    thresholds: "Drift", counts: Sequence[Mapping[str, int]], facts: dict[str, Any], sensitive: bool
) -> ColumnDrift:
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2, chi2_contingency

    rows = [sum(one.values()) for one in counts]
    if min(rows) < MIN_EFFECT_SIZE_ROWS:
        # Cochran (1954): the statistic follows its distribution where five of each are expected on either side.
        pooled = _pooled(counts, least=5 * sum(rows) / min(rows))
        several = pooled.shape[1] > 1
        test, value = "chi-squared", float(chi2_contingency(pooled, correction=False).statistic) if several else 0.0
        threshold = float(chi2.isf(thresholds.p, max(pooled.shape[1] - 1, 1)))
    else:
        pooled = _pooled(counts)
        test, value = "Jensen-Shannon distance", float(jensenshannon(*pooled, base=2))
        threshold = thresholds.jensen_shannon
    drift = ColumnDrift(test=test, value=value, threshold=threshold, **facts)
    if sensitive or not drift.drifted:
        return drift
    names, bars = _named(counts), _pooled(counts)
    shares = bars / np.array(rows)[:, None]
    labels = [*names[: bars.shape[1]]] if len(names) <= MAX_BARS else [*names[: MAX_BARS - 1], OTHERS]
    histogram = Histogram(tuple(labels), tuple(shares[0].tolist()), tuple(shares[1].tolist()))
    return replace(drift, histogram=histogram)


def _chance_of_share(columns: "Sequence[pyarrow.ChunkedArray]", p: float) -> float:
    """Return how much two shares of nulls of one rate differ by chance, but for a probability of `p`."""
    from scipy.stats import norm

    rows = [max(len(column), 1) for column in columns]
    rate = sum(column.null_count for column in columns) / sum(rows)
    return float(norm.isf(p / 2) * np.sqrt(rate * (1 - rate) * sum(1 / count for count in rows)))


def _sample(rows: int, seed: int) -> Array | None:
    if rows <= MAX_ROWS:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))


def _picked(column: "pyarrow.ChunkedArray", rows: Array | None) -> Array:
    """Return the values of the sampled rows as floats, without nulls; a time as its microseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    values = column.to_numpy().astype(float)
    values = values if rows is None else values[rows]
    return values[~np.isnan(values)]


def _counts(column: "pyarrow.ChunkedArray") -> dict[str, int]:
    """Return how often there is each value; of too many values only so many that they are known to be too many."""
    counted = column.drop_null().value_counts()[: MAX_CATEGORIES + 1]
    values, counts = (counted.field(name).to_pylist() for name in ("values", "counts"))
    return {str(value): count for value, count in zip(values, counts, strict=True)}


def _named(counts: Sequence[Mapping[str, int]]) -> list[str]:
    """Return the categories of both sides, the most common first."""
    both = {*counts[0], *counts[1]}
    return sorted(both, key=lambda name: (-counts[0].get(name, 0) - counts[1].get(name, 0), name))


def _pooled(counts: Sequence[Mapping[str, int]], least: float = 0) -> Array:
    """Return the counts of both sides by category, shape (2, categories), at most BARS; the rest are one together.

    Pooled are also those that occur fewer than `least` times on both sides together.
    """
    names = _named(counts)
    table = np.array([[one.get(name, 0) for name in names] for one in counts])
    kept = int((table.sum(axis=0) >= least).sum())
    if len(names) > MAX_BARS:
        kept = min(kept, MAX_BARS - 1)
    if kept == len(names):
        return table
    rest = table[:, kept:].sum(axis=1, keepdims=True)
    if rest.sum() < least and kept:
        table[:, kept - 1 : kept] += rest
        return table[:, :kept]
    return np.hstack([table[:, :kept], rest])


def _histogram(then: Array, now: Array, times: bool) -> Histogram:
    """Return bars of equal width; what is beyond the outermost hundredth of both sides is in the outermost bars."""
    low, high = np.quantile(np.concatenate([then, now]), [0.01, 0.99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, MAX_BARS + 1)
    shares = [np.histogram(np.clip(side, low, high), edges)[0] / len(side) for side in (then, now)]
    middles = (edges[:-1] + edges[1:]) / 2
    bars = [
        str(np.datetime64(int(one), "us").astype("datetime64[D]")) if times else format_number(one) for one in middles
    ]
    return Histogram(tuple(bars), tuple(shares[0].tolist()), tuple(shares[1].tolist()))


def _rows(spec: "ModelSpec", table: "pyarrow.Table", columns: Sequence[str]) -> RowQuality:
    """Count what is odd about rows by their hashes, column after column."""
    present = [name for name in columns if name in table.column_names and name != spec.target]
    features = np.zeros(table.num_rows, dtype=np.uint64)
    for name in present:
        features = mix_hashes(features, table.column(name))
    whole = mix_hashes(features, table.column(spec.target)) if spec.target in table.column_names else features
    keys = np.zeros(table.num_rows, dtype=np.uint64)
    for name in spec.key:
        keys = mix_hashes(keys, table.column(name)) if name in table.column_names else keys
    conflicting = 0
    if spec.task.kind != "regression":
        # Each row once by its features and label; features that are there with several labels are in conflict.
        _, first, times = np.unique(whole, return_index=True, return_counts=True)
        _, group = np.unique(features[first], return_inverse=True)
        conflicting = int(times[np.bincount(group)[group] > 1].sum())
    return RowQuality(
        rows=table.num_rows,
        keys_twice=_repeated(keys) if spec.key and set(spec.key) <= set(table.column_names) else 0,
        duplicate=_repeated(whole),
        conflicting=conflicting,
    )


def _repeated(hashes: Array) -> int:
    """Count the rows that have the hash of an earlier one; sorting is several times faster than np.unique."""
    hashes = np.sort(hashes)
    return int((hashes[1:] == hashes[:-1]).sum())


def mix_hashes(seen: Array, column: "pyarrow.ChunkedArray") -> Array:
    """Return hashes of 64 bits of rows, a column mixed into those of the columns before.

    Each round is one of splitmix64 (Steele, Lea and Flood, OOPSLA 2014). Among a million rows two that differ have the
    same hash once in 40 million tables.
    """
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        column = column.combine_chunks()
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        codes = column.indices.fill_null(-1).to_numpy()
        bits = codes.astype(np.int64).view(np.uint64)
    else:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        # Whole numbers among which there are nulls are floats, as pandas has them; keys have none, and differ exactly.
        exact = not column.null_count and (pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type))
        if pa.types.is_timestamp(column.type) or exact:
            column = column.cast(pa.int64())
        # A zero may be stored with a sign.
        numbers = column.to_numpy() if exact else (column.to_numpy() + 0.0).astype(np.float64, copy=False)
        bits = numbers.view(np.uint64)
    # In place, since new memory costs more than the arithmetic.
    mixed = np.bitwise_xor(seen, bits)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _count_relabelled(spec: "ModelSpec", rule: Rule | None, then: "pyarrow.Table", now: "pyarrow.Table") -> int | None:
    """Count the rows held out by the champion's rule whose label is another now; None when keys cannot be compared."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [*spec.key, spec.target]
    if rule is None or not spec.key or any(name not in table.column_names for name in names for table in (then, now)):
        return None
    try:
        before, after = (_with_unique_key(table.select(names), spec.key) for table in (then, now))
        after = after.cast(before.schema).rename_columns([*spec.key, "now"])
        before = before.append_column("then", before.column(spec.target)).drop([spec.target])
        both = before.join(after, [*spec.key], join_type="inner")
        changed = both.filter(pc.not_equal(both.column("then"), both.column("now"))).select([*spec.key])
        told = [name for name in (*rule.by, rule.time) if name and name not in spec.key]
        if told:
            changed = changed.join(then.select([*spec.key, *told]), [*spec.key], join_type="inner")
        return int(held_out(rule, changed).sum()) if changed.num_rows else 0
    except (pa.ArrowException, DataError, KeyError):
        return None


def _with_unique_key(table: "pyarrow.Table", key: Sequence[str]) -> "pyarrow.Table":
    """Return the rows whose key no other row has."""
    import pyarrow.compute as pc

    counted = table.group_by([*key]).aggregate([([], "count_all")])
    doubled = counted.filter(pc.greater(counted.column("count_all"), 1)).select([*key])
    return table.join(doubled, [*key], join_type="left anti") if doubled.num_rows else table
