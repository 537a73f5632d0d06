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
"""Numbers are compared on a sample of this many rows per side: more rows cost more and give the same result."""
MIN_EFFECT_SIZE_ROWS = 2_000
"""With at least this many rows effect sizes are compared, with fewer significance tests. With fewer rows, chance alone
fills twenty bins so unevenly that one in a thousand comparisons exceeds the usual thresholds. With many rows, a test
finds every trifle: a p-value says how surely two sides differ, not by how much; for a million rows it is always 0."""
MAX_BARS = 20
"""Max bars of a histogram and max categories that are compared; the rarest categories are pooled."""
BINS = 10
FEW_NUMBERS = 10
"""Numbers with no more distinct values than this are compared as categories."""
MAX_SHOWN = 5
OTHERS = "(others)"


@dataclass(frozen=True)
class Histogram:
    """The distribution of a column's values, then and now.

    Attributes:
        bars: name of each bar: a category, or the middle of a range of numbers.
        then: share of the values in each bar when the champion was trained.
        now: share of the values in each bar today.
    """

    bars: tuple[str, ...]
    then: tuple[float, ...]
    now: tuple[float, ...]


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column moved.

    Attributes:
        column: its name.
        role: feature or target.
        test: the test or distance that compared the values; None if one side has no values.
        value: its result; None if one side has no values.
        threshold: the values drifted if `value` exceeds it.
        nulls_then: share of nulls when the champion was trained.
        nulls_now: share of nulls today.
        nulls_threshold: the column drifted if the share of nulls changed by more.
        new: number of categories that exist only now.
        lost: number of categories that existed only then.
        new_examples: some of the new categories; empty for a sensitive column.
        lost_examples: some of the lost categories; empty for a sensitive column.
        histogram: of a column that drifted; None for a sensitive column.
        drifted: whether values or nulls exceed their threshold; computed, whatever is passed.
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
        # A field rather than a property, so that asdict and JSON include it.
        beyond = abs(self.nulls_now - self.nulls_then) > self.nulls_threshold
        object.__setattr__(self, "drifted", bool(self.moved or beyond))

    @property
    def moved(self) -> bool:
        """Whether the distribution of its values changed, nulls aside."""
        return self.value is not None and self.threshold is not None and self.value > self.threshold


@dataclass(frozen=True)
class RowQuality:
    """Counts of suspicious rows of a table.

    Attributes:
        rows: number of rows.
        keys_twice: rows with the key of an earlier row.
        duplicate: rows that equal an earlier one in every feature and the target.
        conflicting: rows with the features of another row but another label; 0 for a regression.
    """

    rows: int
    keys_twice: int
    duplicate: int
    conflicting: int


@dataclass(frozen=True)
class DriftReport:
    """What changed in the data since the champion was trained.

    Attributes:
        since: the champion's release; None if there is none.
        errors: sentences that reject the data.
        notes: sentences that are worth a look.
        columns: how far each column moved, the worst first.
        rows_then: suspicious rows in the champion's training data.
        rows_now: suspicious rows today.
        relabelled: rows of the champion's holdout that have another label now; None if not known.
        sampled: how many rows per side numbers were compared on; None if all.
        incomparable: why nothing was compared; None if it was.
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
        return [column for column in self.columns if column.drifted]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"passed": self.passed, **asdict(self)}


def compare(
    spec: "ModelSpec", then: "pyarrow.Table", now: "pyarrow.Table", since: int, rule: Rule | None
) -> DriftReport:
    """Compare a table with the one that the champion, release `since`, was trained on.

    `rule` is the champion's holdout rule; None if it is not known. A feature that is missing or changed its type is an
    error; with `drift.refuse` so is every drifted column. Numbers are compared on at most MAX_ROWS rows per side;
    categories, nulls and duplicate rows are counted in all rows.
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
    largest = max(then.num_rows, now.num_rows)
    return DriftReport(
        since=since,
        errors=tuple(errors + (drifted if spec.drift.refuse else [])),
        notes=tuple(notes if spec.drift.refuse else drifted + notes),
        columns=tuple(found),
        rows_then=before,
        rows_now=after,
        relabelled=relabelled,
        sampled=MAX_ROWS if largest > MAX_ROWS else None,
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
    # A column of nulls only is read as numbers, whatever values it will hold later.
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
    """Yield one sentence for the target and one for all features, so that a table gives two warnings at most."""
    way_out = "; if the world changed and the data is right, set drift= in the spec" if spec.drift.refuse else ""
    for role, subject in (("target", f"the target {spec.target!r}"), ("feature", "")):
        drifted = [column for column in found if column.role == role and column.drifted]
        if drifted:
            shown = "; ".join(f"{column.column}: {describe_drift(column)}" for column in drifted[:MAX_SHOWN])
            more = f" and {len(drifted) - MAX_SHOWN} more" if len(drifted) > MAX_SHOWN else ""
            count = f"{len(drifted)} of {sum(column.role == role for column in found)} features"
            yield f"{subject or count} drifted since release {since}: {shown}{more}{way_out}"


def describe_drift(column: ColumnDrift) -> str:
    """Return a phrase that says how far a column drifted, with its thresholds."""
    phrases = []
    if column.moved:
        phrases.append(f"{column.test} {format_number(column.value)}, over {format_number(column.threshold)}")
    if abs(column.nulls_now - column.nulls_then) > column.nulls_threshold:
        phrases.append(f"{column.nulls_now:.1%} null, were {column.nulls_then:.1%}")
    return " and ".join(phrases)


DRIFT_HEADINGS = ("column", "test", "value", "threshold", "nulls then", "nulls now", "new categories")
"""Headings of a table of columns, whose rows are `drift_cells`."""


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
    """Yield a sentence about new categories, which is a note only: the pipeline decides what to predict for them."""
    phrases = [
        f"{drift.new} of {drift.column}"
        + (f" ({', '.join(map(repr, drift.new_examples))})" if drift.new_examples else "")
        for drift in found
        if drift.new
    ]
    if phrases:
        more = f"; and of {len(phrases) - MAX_SHOWN} more columns" if len(phrases) > MAX_SHOWN else ""
        yield f"new categories since release {since}: {'; '.join(phrases[:MAX_SHOWN])}{more}"


def _row_sentences(spec: "ModelSpec", then: RowQuality, now: RowQuality, since: int) -> Iterator[str]:
    for count, was, what in (
        (now.duplicate, then.duplicate, "are the same as another one in every feature and the target"),
        (now.conflicting, then.conflicting, "have the features of another one and another label"),
    ):
        share, before = count / max(now.rows, 1), was / max(then.rows, 1)
        if share > before + spec.drift.duplicates:
            yield f"{count:,} rows ({share:.1%}) {what}; when release {since} was trained, {before:.1%} were"


def _badness(column: ColumnDrift) -> tuple[bool, bool, float]:
    """Return a sort key: drifted columns first, then the target, then by how far they exceed the threshold."""
    ratio = column.value / column.threshold if column.value is not None and column.threshold else 0.0
    return (not column.drifted, column.role == "feature", -ratio)


def _column(
    thresholds: "Drift",
    name: str,
    role: Role,
    columns: "tuple[pyarrow.ChunkedArray, pyarrow.ChunkedArray]",
    samples: tuple[Array | None, ...],
    *,
    sensitive: bool,
) -> ColumnDrift:
    """Return how far one column moved. `columns` are its values then and now, `samples` the rows to compare or None.

    Values are compared as categories if few are distinct, as numbers if many are, and texts with many by their lengths.
    """
    import pyarrow.compute as pc

    nulls = [column.null_count / max(len(column), 1) for column in columns]
    has_values = [column.null_count < len(column) for column in columns]
    facts: dict[str, Any] = {
        "column": name,
        "role": role,
        "nulls_then": nulls[0],
        "nulls_now": nulls[1],
        "nulls_threshold": max(thresholds.nulls, _chance_of_share(columns, thresholds.p)),
    }
    if not all(has_values):
        return ColumnDrift(test=None, value=None, threshold=None, **facts)
    column_type = logical_type(columns[0].type)
    if column_type in ("text", "boolean"):
        counts = [_count_values(column) for column in columns]
        if any(len(side) > MAX_CATEGORIES for side in counts):
            # Free text and identifiers: nearly every value is new, as expected. A broken export shows in the lengths.
            lengths = [
                _sampled_values(pc.utf8_length(column), rows) for column, rows in zip(columns, samples, strict=True)
            ]
            return _compare_numbers(thresholds, lengths, facts, " of the lengths", sensitive)
        lost, new = (sorted(set(side) - set(other)) for side, other in (counts, counts[::-1]))
        facts |= {"new": len(new), "lost": len(lost)}
        if not sensitive:
            facts |= {"new_examples": tuple(new[:MAX_SHOWN]), "lost_examples": tuple(lost[:MAX_SHOWN])}
        return _compare_categories(thresholds, counts, facts, sensitive)
    numbers = [_sampled_values(column, rows) for column, rows in zip(columns, samples, strict=True)]
    if column_type == "number" and _few_distinct(*numbers):
        return _compare_categories(thresholds, [_count_numbers(side) for side in numbers], facts, sensitive)
    return _compare_numbers(thresholds, numbers, facts, "", sensitive, times=column_type == "timestamp")


def _few_distinct(then: Array, now: Array) -> bool:
    # Sorting all of them costs more than the comparison; for nearly every column the first 1,000 already decide.
    return all(len(np.unique(np.concatenate([then[:rows], now[:rows]]))) <= FEW_NUMBERS for rows in (1000, MAX_ROWS))


def _count_numbers(numbers: Array) -> dict[str, int]:
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(map(format_number, values.tolist()), counts.tolist(), strict=True))


def _compare_numbers(
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


def _compare_categories(
    thresholds: "Drift", counts: Sequence[Mapping[str, int]], facts: dict[str, Any], sensitive: bool
) -> ColumnDrift:
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2, chi2_contingency

    rows = [sum(side.values()) for side in counts]
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
    """Return the difference that two shares of nulls with the same true rate exceed by chance, with probability `p`."""
    from scipy.stats import norm

    rows = [max(len(column), 1) for column in columns]
    rate = sum(column.null_count for column in columns) / sum(rows)
    return float(norm.isf(p / 2) * np.sqrt(rate * (1 - rate) * sum(1 / count for count in rows)))


def _sample(rows: int, seed: int) -> Array | None:
    if rows <= MAX_ROWS:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))


def _sampled_values(column: "pyarrow.ChunkedArray", rows: Array | None) -> Array:
    """Return the values of the sampled rows (None: all) as floats, without nulls; a time in microseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    values = column.to_numpy().astype(float)
    values = values if rows is None else values[rows]
    return values[~np.isnan(values)]


def _count_values(column: "pyarrow.ChunkedArray") -> dict[str, int]:
    """Return how often each value occurs; of at most MAX_CATEGORIES + 1 values, which shows that there are too many."""
    counted = column.drop_null().value_counts()[: MAX_CATEGORIES + 1]
    values, counts = (counted.field(name).to_pylist() for name in ("values", "counts"))
    return {str(value): count for value, count in zip(values, counts, strict=True)}


def _named(counts: Sequence[Mapping[str, int]]) -> list[str]:
    """Return the categories of both sides, the most common first."""
    both = {*counts[0], *counts[1]}
    return sorted(both, key=lambda name: (-counts[0].get(name, 0) - counts[1].get(name, 0), name))


def _pooled(counts: Sequence[Mapping[str, int]], least: float = 0) -> Array:
    """Return the counts of both sides by category, shape (2, categories), at most MAX_BARS; the rarest are pooled.

    Categories that occur fewer than `least` times on both sides together are pooled, too.
    """
    names = _named(counts)
    table = np.array([[side.get(name, 0) for name in names] for side in counts])
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
    """Return bars of equal width between the 1st and 99th percentile of both sides; the last ones hold the rest."""
    low, high = np.quantile(np.concatenate([then, now]), [0.01, 0.99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, MAX_BARS + 1)
    shares = [np.histogram(np.clip(side, low, high), edges)[0] / len(side) for side in (then, now)]
    middles = (edges[:-1] + edges[1:]) / 2
    bars = [
        str(np.datetime64(int(middle), "us").astype("datetime64[D]")) if times else format_number(middle)
        for middle in middles
    ]
    return Histogram(tuple(bars), tuple(shares[0].tolist()), tuple(shares[1].tolist()))


def _rows(spec: "ModelSpec", table: "pyarrow.Table", columns: Sequence[str]) -> RowQuality:
    """Count suspicious rows by hashes of their columns."""
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
        # Among the distinct pairs of features and label, those whose features occur more than once are in conflict.
        _, first, occurrences = np.unique(whole, return_index=True, return_counts=True)
        _, group = np.unique(features[first], return_inverse=True)
        conflicting = int(occurrences[np.bincount(group)[group] > 1].sum())
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
    """Return 64-bit hashes of rows: a column mixed into the hashes `seen` of the columns before it.

    Each round is one of splitmix64 (Steele, Lea and Flood, OOPSLA 2014). In a table of a million rows, two different
    rows have the same hash with a probability of 1 in 40 million.
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
        # Whole numbers with nulls become floats, as in pandas; keys have no nulls and are compared exactly.
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
    """Count the rows of the champion's holdout whose label changed; None if the rows cannot be matched by key."""
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
        rule_columns = [name for name in (*rule.by, rule.time) if name and name not in spec.key]
        if rule_columns:
            changed = changed.join(then.select([*spec.key, *rule_columns]), [*spec.key], join_type="inner")
        return int(held_out(rule, changed).sum()) if changed.num_rows else 0
    except (pa.ArrowException, DataError, KeyError):
        return None


def _with_unique_key(table: "pyarrow.Table", key: Sequence[str]) -> "pyarrow.Table":
    """Return the rows whose key is unique."""
    import pyarrow.compute as pc

    counted = table.group_by([*key]).aggregate([([], "count_all")])
    doubled = counted.filter(pc.greater(counted.column("count_all"), 1)).select([*key])
    return table.join(doubled, [*key], join_type="left anti") if doubled.num_rows else table
