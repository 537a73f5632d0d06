"""A profile of a table: its columns, and the task, key, time and features of a model that they suggest."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import DataError, did_you_mean
from pipeline.init.sniff import words_of
from pipeline.metrics import Kind
from pipeline.sources import Files, logical_type
from pipeline.sources.parallel import in_order

if TYPE_CHECKING:
    import pyarrow

Role = Literal[
    "number",
    "skewed",
    "place",
    "boolean",
    "category",
    "many",
    "text",
    "date",
    "written date",
    "written number",
    "identifier",
    "constant",
]
"""`many`: too many categories for a column each. `place`: a latitude or longitude. `written ...`: stored as text."""
EXCLUDED_ROLES: tuple[Role, ...] = ("written number", "identifier", "constant")
"""The roles of columns that are not features."""
Ask = Callable[[str, Sequence[str]], str]
"""Takes a question and its possible answers, the most likely first; returns one of them."""

MIN_ROWS = 50
"""With fewer rows no model can be evaluated."""
MAX_FEW_CATEGORIES = 30
"""A text with more distinct values than this is one of many categories."""
MAX_LABELS = 50
"""A target with more distinct words than this is not a classification."""
SAMPLE = 30_000
"""Evenly spread rows from which quantiles and date formats come; counts, bounds and nulls come from all rows."""
POSITIVE = ("yes", "true", "positive", "malignant", "churned", "churn", "default", "fraud", "spam", "y", "t", "1")
DATE_FORMATS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y-%m-%d", "%Y.%m.%d"),
    *("%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y"),
)
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
"""A written date is one of DATE_FORMATS followed by one of these."""
LONGEST_DATE = 40
_GROUPED = r"\d{1,3}([.,'\s]\d{3})+"
WRITTEN_NUMBER = re.compile(rf"[+-]?\s?[$€£]?\s?[+-]?(({_GROUPED}|\d+)([.,]\d+)?|[.,]\d+)([eE][+-]?\d+)?\s?[$€£%]?")
"""A number with any thousands separator, a currency or a percent sign."""
MIN_LABEL_ROWS = 10
"""Min rows of the rarer of two labels: a fifth is held out, and the others make five folds."""
MAX_SHOWN = 60
_PERSON = {"birth", "birthday", "birthdate", "born", "dob", "due", "expiry", "expires", "end", "until", "planned"}
_IDS = {"id", "uuid", "guid", "key", "pid", "identifier"}
_COUNTS = {"order", "index", "idx", "row", "number", "no", "nr", "seq", "sequence"}


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """The facts about one column.

    Attributes:
        name: the column's name.
        role: how a model can use it.
        nulls: the fraction of rows that are null.
        distinct: the number of distinct values; of numbers and timestamps with many, the number in the sample.
        whole: whether it is a column of whole numbers.
        low: the smallest number; NaN if it does not hold numbers.
        high: the largest number; NaN if it does not hold numbers.
        first: the earliest timestamp.
        last: the latest timestamp.
        quantiles: of numbers, at 1, 25, 50, 75 and 99%.
        values: the distinct values if there are few, the most frequent first.
        least: how many rows have the second of `values`.
        form: the format of written dates, as for `strptime`.
        clock: whether dates have a time of day.
        why: why it is not a feature, or a remark on its dates.
    """

    name: str
    role: Role
    nulls: float
    distinct: int
    whole: bool = False
    low: float = float("nan")
    high: float = float("nan")
    first: datetime | None = None
    last: datetime | None = None
    quantiles: tuple[float, ...] = ()
    values: tuple[str | bool | float, ...] = ()
    least: int = 0
    form: str = ""
    clock: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A table and the model that it suggests.

    Attributes:
        source: where the table came from.
        rows: the number of rows.
        target: the column to predict.
        kind: the kind of task.
        positive: the positive label of a binary task.
        log: whether to learn the logarithm of a number.
        guess: the score of a trivial guess: the mean's RMSE or RMSLE, 0.5 for ROC AUC, or an accuracy.
        columns: all columns but the target.
        key: the column that identifies a row; None without one.
        time: the column of the time of a row; None without one.
        group: the column whose rows are held out together; None without one.
        notes: what was decided if the table left a choice.
    """

    source: Files
    rows: int
    target: ColumnProfile
    kind: Kind
    positive: str | int | bool | None
    log: bool
    guess: float
    columns: tuple[ColumnProfile, ...]
    key: str | None
    time: str | None
    group: str | None
    notes: tuple[str, ...] = ()

    def named(self, *roles: Role) -> tuple[str, ...]:
        """Return the features of some roles, in the table's order."""
        return tuple(column.name for column in self.features if column.role in roles)

    @property
    def features(self) -> tuple[ColumnProfile, ...]:
        """The columns to learn from."""
        outside = {self.key, self.group}
        return tuple(c for c in self.columns if c.role not in EXCLUDED_ROLES and c.name not in outside)

    @property
    def left_out(self) -> dict[str, str]:
        """Why each of the other columns, the key and the group aside, is not learned from."""
        return {
            column.name: column.why
            for column in self.columns
            if column.role in EXCLUDED_ROLES and column.name not in (self.key, self.group)
        }


def profile(table: "pyarrow.Table", source: Files, target: str, ask: Ask) -> Profile:
    """Return the profile of a table, asking what the table leaves open.

    Raises DataError, naming the column and the way out, if no model can be made of the table.
    """
    notes: list[str] = []
    if len(table) < MIN_ROWS:
        raise DataError(
            f"{source.path}: {len(table)} rows are too few to learn from and to judge by; give {MIN_ROWS} or more",
            code="data.too_few_rows",
        )
    target = _target_name(table, source, target, notes)
    places = np.unique(np.linspace(0, len(table) - 1, min(len(table), SAMPLE)).astype(np.int64))
    sample = table if len(places) == len(table) else table.take(places)

    def profile_column(name: str) -> ColumnProfile:
        # Digits in a column that is declared text are codes, not numbers written as words.
        return _column(name, table.column(name), sample.column(name), declared=name in source.types)

    names = table.column_names
    profiles = dict(zip(names, in_order(profile_column, names, os.cpu_count() or 1), strict=True))
    target_profile = profiles.pop(target)
    kind, positive, log = _task(target_profile, table.column(target), source, ask, notes)
    columns = _with_id_categories(_with_places([*profiles.values()]))
    _note_dates(columns, notes)
    key = _key(columns, table, ask, notes)
    time = _time(columns, sample, ask, notes)
    group = None
    for column in columns:
        if column.name != key and _repeats(column, len(table)):
            if time is None and group is None:
                group = column.name
                notes.append(f"rows with the same {group!r} are held out together: group={group!r}")
            columns = [
                replace(other, role="identifier", why=_group_reason(other)) if other is column else other
                for other in columns
            ]
    result = Profile(
        source=source,
        rows=len(table),
        target=target_profile,
        kind=kind,
        positive=positive,
        log=log,
        guess=_guess(kind, log, table.column(target)),
        columns=tuple(columns),
        key=key,
        time=time,
        group=group,
        notes=tuple(notes),
    )
    if not result.features:
        why = "; ".join(f"{name!r} {reason}" for name, reason in result.left_out.items())
        raise DataError(
            f"{source.path}: besides the target there is nothing to learn from: {why or 'no column is left'}",
            code="data.no_features",
        )
    return result


def _target_name(table: "pyarrow.Table", source: Files, target: str, notes: list[str]) -> str:
    if target in table.column_names:
        return target
    close = [name for name in table.column_names if name.strip().casefold() == target.strip().casefold()]
    if len(close) != 1:
        hint = did_you_mean(target, table.column_names)
        raise DataError(
            f"column {target!r} is to be the target but {source.path} has no such column{hint}", code="data.no_target"
        )
    notes.append(f"the target is the column {close[0]!r}")
    return close[0]


# One column.


def _column(name: str, column: "pyarrow.ChunkedArray", sample: "pyarrow.ChunkedArray", declared: bool) -> ColumnProfile:
    import pyarrow.compute as pc

    nulls = column.null_count / len(column)
    if column.null_count == len(column):
        return ColumnProfile(name=name, role="constant", nulls=1.0, distinct=0, why="is null in every row")
    logical = logical_type(column.type)
    sample = sample.drop_null()
    if not len(sample):
        sample = column.drop_null().slice(0, SAMPLE)
    if logical == "number":
        return _number(name, column, sample, nulls)
    if logical == "timestamp":
        distinct = pc.count_distinct(sample).as_py()
        if distinct <= MAX_FEW_CATEGORIES:
            distinct = pc.count_distinct(column).as_py()
        bounds = pc.min_max(column).as_py()
        clock = bool(pc.any(pc.not_equal(pc.floor_temporal(column, unit="day"), column)).as_py())
        first, last = bounds["min"], bounds["max"]
        return _constant(
            ColumnProfile(name=name, role="date", nulls=nulls, distinct=distinct, first=first, last=last, clock=clock)
        )
    if logical == "boolean":
        distinct, values, second = _frequent(column, 2)
        return _constant(
            ColumnProfile(name=name, role="boolean", nulls=nulls, distinct=distinct, values=values, least=second)
        )
    return _constant(_text(name, column, sample, nulls, declared))


def _constant(column: ColumnProfile) -> ColumnProfile:
    if column.distinct > 1:
        return column
    held = repr(column.values[0]) if column.values else str(column.first if column.first else column.low)
    held = held if len(held) <= MAX_SHOWN else f"{held[:MAX_SHOWN]}..."
    only = f"is {held} in every row" if not column.nulls else f"is {held} or null"
    # Whether the value is null may be informative, but such columns are rare enough to leave out.
    return replace(column, role="constant", why=only)


def _number(name: str, column: "pyarrow.ChunkedArray", sample: "pyarrow.ChunkedArray", nulls: float) -> ColumnProfile:
    import pyarrow as pa
    import pyarrow.compute as pc

    bounds = pc.min_max(column).as_py()
    if not np.isfinite([float(bounds["min"]), float(bounds["max"])]).all():
        row = pc.index(pc.is_inf(column), True).as_py() + 1
        raise DataError(
            f"column {name!r} holds an infinity in row {row}, which no request to a model may hold; write what it "
            "stands for, or leave it empty",
            code="data.infinity",
        )
    sampled = sample.to_numpy().astype(np.float64)
    quantiles = tuple(float(quantile) for quantile in np.quantile(sampled, [0.01, 0.25, 0.5, 0.75, 0.99]))
    whole = pa.types.is_integer(column.type)
    values: tuple[str | bool | float, ...] = ()
    # Whole numbers may be too large for a float to be exact.
    distinct = pc.count_distinct(sample).as_py() if whole else len(np.unique(sampled))
    second = 0
    # Count all rows if the sample does not show whether values repeat, are few, or name things.
    if distinct <= MAX_FEW_CATEGORIES:
        distinct, values, second = _frequent(column, MAX_FEW_CATEGORIES)
    elif whole and (distinct == len(sampled) or _has_id_name(name)):
        distinct = pc.count_distinct(column, mode="only_valid").as_py()
    role: Role = "skewed" if distinct > MAX_FEW_CATEGORIES and _skewed(sampled) else "number"
    return _constant(
        ColumnProfile(
            name=name,
            role=role,
            nulls=nulls,
            distinct=distinct,
            whole=whole,
            low=float(bounds["min"]),
            high=float(bounds["max"]),
            quantiles=quantiles,
            values=values,
            least=second,
        )
    )


def _skewed(values: np.ndarray) -> bool:
    """Return whether one tail is far longer than the other: the skewness is above 2 or below -2."""
    spread = values.std()
    return bool(spread > 0 and abs(np.mean(((values - values.mean()) / spread) ** 3)) > 2)


def _text(
    name: str,
    column: "pyarrow.ChunkedArray",
    sample: "pyarrow.ChunkedArray",
    nulls: float,
    declared: bool,
) -> ColumnProfile:
    distinct, values, second = _frequent(column, 200)
    words = sample.slice(0, 20_000).unique().to_pylist()[:1_000]
    if forms := _date_forms(words):
        other = f"; {forms[1]} would fit as well" if len(forms) > 1 else ""
        clock = "%M" in forms[0]
        return ColumnProfile(
            name=name, role="written date", nulls=nulls, distinct=distinct, form=forms[0], clock=clock, why=other
        )
    result = ColumnProfile(name=name, role="many", nulls=nulls, distinct=distinct, values=values, least=second)
    if distinct <= MAX_FEW_CATEGORIES:
        return replace(result, role="category")
    numbers = [] if declared else [word for word in words if WRITTEN_NUMBER.fullmatch(word.strip())]
    if len(numbers) > len(words) * 0.9:
        why = f"holds numbers that are written as words, such as {numbers[0]!r}: write them as plain numbers to use it"
        return replace(result, role="written number", why=why)
    if sum(len(word.split()) >= 4 for word in words) > len(words) / 2:
        return replace(result, role="text")
    if distinct > len(column.drop_null()) / 2:
        return replace(result, role="identifier", why="has a word of its own in nearly every row")
    return result


def _frequent(column: "pyarrow.ChunkedArray", limit: int) -> tuple[int, tuple[str | bool | float, ...], int]:
    """Return the number of distinct values, the values, and how many rows have the second of them.

    The most frequent values come first. With more than `limit` values, none are returned.
    """
    value_counts = column.drop_null().value_counts()
    if len(value_counts) > limit:
        return len(value_counts), (), 0
    counts = [(row["values"], row["counts"]) for row in value_counts.to_pylist()]
    counts.sort(key=lambda pair: (-pair[1], str(pair[0])))
    return len(counts), tuple(value for value, _ in counts), counts[1][1] if len(counts) > 1 else 0


def _date_forms(words: Sequence[str]) -> list[str]:
    """Return the formats in which all of these words are dates; formats with the day first come first."""
    if not words or not any(character.isdigit() for character in words[0]) or not 6 <= len(words[0]) <= LONGEST_DATE:
        return []

    def fits(form: str) -> bool:
        try:
            return all(1800 <= datetime.strptime(word, form).year <= 2200 for word in words)
        except ValueError:
            return False

    return [form for form in (day + clock for clock in TIME_FORMATS for day in DATE_FORMATS) if fits(form)]


# All columns.


def _note_dates(columns: Sequence[ColumnProfile], notes: list[str]) -> None:
    for column in columns:
        if column.role == "written date":
            notes.append(f"{column.name!r} holds dates, written as {column.form}{column.why}")


def _with_id_categories(columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    """Return the columns; whole numbers that name things, such as a shop, become categories."""
    return [
        replace(column, role="category" if column.distinct <= MAX_FEW_CATEGORIES else "many")
        if column.role in ("number", "skewed") and _is_id(column)
        else column
        for column in columns
    ]


def _with_places(columns: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    """Return the columns; latitudes and longitudes become places if there are both."""

    def is_angle(column: ColumnProfile, words: set[str], limit: float) -> bool:
        return (
            column.role in ("number", "skewed")
            and not words.isdisjoint(words_of(column.name))
            and -limit <= column.low <= column.high <= limit
        )

    latitudes = [c.name for c in columns if is_angle(c, {"lat", "latitude"}, 90)]
    longitudes = [c.name for c in columns if is_angle(c, {"lon", "lng", "long", "longitude"}, 180)]
    if not latitudes or not longitudes:
        return list(columns)
    names = {*latitudes, *longitudes}
    return [replace(column, role="place") if column.name in names else column for column in columns]


def _is_id(column: ColumnProfile) -> bool:
    """Return whether a column names things, such as shops, by its name and the type of its values."""
    words = column.role in ("identifier", "many", "category", "text", "written number")
    return _has_id_name(column.name) and (column.whole or words)


def _has_id_name(name: str) -> bool:
    words = words_of(name)
    return bool(words) and (words[-1] in _IDS or words[0] in _IDS)


def _counts_up(column: ColumnProfile, table: "pyarrow.Table") -> bool:
    """Return whether a column counts rows: by its name, and because each value is greater than the one before."""
    if not column.whole or words_of(column.name)[-1:] not in [[word] for word in _COUNTS]:
        return False
    values = table.column(column.name).to_numpy()
    return bool((values[1:] > values[:-1]).all())


def _key(columns: list[ColumnProfile], table: "pyarrow.Table", ask: Ask, notes: list[str]) -> str | None:
    """Return the column that identifies a row, None without one; similar columns become identifiers."""
    scores: dict[str, float] = {}
    for place, column in enumerate(columns):
        if column.nulls or column.distinct != len(table):
            continue
        words = words_of(column.name)
        # A count of the rows is a key, unless it is the only feature.
        numbered = len(columns) > 1 and column.whole and column.high == column.low + len(table) - 1
        if _is_id(column):
            scores[column.name] = 4 + (len(words) == 1)
        elif column.role == "identifier":
            scores[column.name] = 3
        elif numbered and len(table) > 20:
            scores[column.name] = 2
        elif len(columns) > 1 and _counts_up(column, table):
            scores[column.name] = 1
        if column.name in scores:
            columns[place] = replace(column, role="identifier", why="names the row, as the key does")
    if not scores:
        notes.append("no column tells one row from another, so all features together do: key=()")
        return None
    best = sorted(scores, key=lambda name: -scores[name])
    ties = [name for name in best if scores[name] == scores[best[0]]]
    key = best[0] if len(ties) == 1 else ask("Which column tells one row from another?", ties)
    others = [name for name in best if name != key]
    notes.append(f"{key!r} tells one row from another: key" + (f" (so would {', '.join(others)})" if others else ""))
    return key


def _repeats(column: ColumnProfile, rows: int) -> bool:
    """Return whether a column names something that several rows share, such as a customer."""
    return _is_id(column) and max(100, rows * 0.05) <= column.distinct < rows


def _group_reason(column: ColumnProfile) -> str:
    return f"names what rows are about: {column.distinct:,} values"


def _time(columns: Sequence[ColumnProfile], sample: "pyarrow.Table", ask: Ask, notes: list[str]) -> str | None:
    """Return the column of the time at which a row came to be; None without one."""
    dates = [
        column.name
        for column in columns
        if column.role == "date"
        and not column.nulls
        and column.distinct > 5
        and _PERSON.isdisjoint(words_of(column.name))
    ]
    if not dates:
        return None
    if len(dates) > 1:
        ordered = [name for name in dates if _ordered(sample.column(name))]
        first = ordered[0] if ordered else dates[0]
        dates = [first, *(name for name in dates if name != first)]
        time = ask("Which column says when a row came to be, so that the newest rows are held out?", [*dates, "none"])
        if time == "none":
            return None
        notes.append(f"of the dates {', '.join(dates)}, {time!r} is taken for when a row came to be: time={time!r}")
        return time
    notes.append(f"{dates[0]!r} says when a row came to be, so the newest rows are held out: time={dates[0]!r}")
    return dates[0]


def _ordered(column: "pyarrow.ChunkedArray") -> bool:
    values = column.to_numpy().astype(np.int64)
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


# The target.


def _task(
    column: ColumnProfile, values: "pyarrow.ChunkedArray", source: Files, ask: Ask, notes: list[str]
) -> tuple[Kind, str | int | bool | None, bool]:
    """Return the kind of task, the positive label of two, and whether to learn a number's logarithm."""
    name = column.name
    if values.null_count:
        row = values.is_null().index(True).as_py() + 1
        raise DataError(
            f"column {name!r}, the target, is null in {values.null_count:,} of {len(values):,} rows, first row {row}; "
            "leave such rows out of the table, since there is nothing to learn from them",
            code="data.target_has_nulls",
        )
    if column.distinct < 2:
        raise DataError(
            f"column {name!r}, the target, {column.why}; there is nothing to predict",
            code="data.constant_target",
        )
    if column.role in ("date", "written date"):
        raise DataError(
            f"column {name!r}, the target, holds dates; give one of numbers or of words", code="data.target_is_date"
        )
    if column.quantiles:
        return _numeric_task(column, len(values), ask, notes)
    if column.role != "boolean":
        _check_labels(column, source)
    if column.distinct > 2:
        return "multiclass", None, False
    _check_rarer(column, len(values))
    return "binary", _positive(column, ask, notes), False


def _numeric_task(
    column: ColumnProfile, rows: int, ask: Ask, notes: list[str]
) -> tuple[Kind, str | int | bool | None, bool]:
    if column.distinct == 2 and column.whole:
        _check_rarer(column, rows)
        notes.append(f"{column.name!r} is {column.low:g} or {column.high:g}: two classes, {column.high:g} the positive")
        return "binary", int(column.high), False
    coded = column.whole and column.low in (0, 1) and column.high - column.low == column.distinct - 1
    if coded and column.distinct <= 20:
        question = f"{column.name!r} is a whole number from {column.low:g} to {column.high:g}. What is to be predicted?"
        if ask(question, ["a class", "a number"]) == "a class":
            notes.append(f"{column.name!r} is one of {column.distinct} whole numbers: taken for classes, not numbers")
            return "multiclass", None, False
    log = _spreads(column)
    if log:
        notes.append(f"{column.name!r} has a long tail upwards: its logarithm is learned, and errors are relative")
    return "regression", None, log


def _spreads(column: ColumnProfile) -> bool:
    """Return whether a number is above 0 and its upper half is more than twice as wide as its lower half.

    The halves reach from the median to the quantiles at 1% and 99%.
    """
    low, _, median, _, high = column.quantiles
    return column.low > 0 and column.distinct > MAX_FEW_CATEGORIES and high - median > 2 * (median - low)


def _check_rarer(column: ColumnProfile, rows: int) -> None:
    if column.least < MIN_LABEL_ROWS:
        label = f"{column.values[1]:g}" if column.quantiles else repr(column.values[1])
        raise DataError(
            f"column {column.name!r}, the target, is {label} in only {column.least} of {rows:,} rows; "
            f"give a table with {MIN_LABEL_ROWS} or more of them, since some are held out to judge by",
            code="data.too_few_rows_of_a_label",
        )


def _check_labels(column: ColumnProfile, source: Files) -> None:
    if column.role == "written number":
        raise DataError(f"column {column.name!r}, the target, {column.why}", code="data.target_is_written_number")
    if column.distinct > MAX_LABELS:
        reason = column.why or f"has {column.distinct:,} different words"
        raise DataError(
            f"column {column.name!r}, the target, {reason}: too many to be classes, and not numbers; "
            f"give a target with at most {MAX_LABELS} classes",
            code="data.too_many_labels",
        )
    plain: dict[str, str] = {}
    for value in map(str, column.values):
        other = plain.setdefault(value.strip().casefold(), value)
        if other != value:
            raise DataError(
                f"column {column.name!r}, the target, holds {other!r} and {value!r}, which blanks or case alone tell "
                f"apart; write {source.path} again with one of them",
                code="data.similar_labels",
            )


def _positive(column: ColumnProfile, ask: Ask, notes: list[str]) -> str | bool:
    if column.role == "boolean":
        return True
    labels = [str(value) for value in column.values]
    known = [label for label in labels if label.strip().casefold() in POSITIVE]
    if len(known) == 1:
        return known[0]
    rare = labels[1]
    answer = ask("Which label is the positive one, that probabilities are about?", [rare, labels[0]])
    notes.append(f"{answer!r} is the positive label" + (", the rarer one" if answer == rare else ""))
    return answer


def _guess(kind: Kind, log: bool, target: "pyarrow.ChunkedArray") -> float:
    """Return the score of a trivial guess: the mean's RMSE or RMSLE, 0.5 (ROC AUC), or an accuracy."""
    if kind == "binary":
        return 0.5
    if kind == "multiclass":
        counts = [row["counts"] for row in target.value_counts().to_pylist()]
        return float(max(counts) / sum(counts))
    values = target.to_numpy().astype(np.float64)
    if log:
        return float(np.sqrt(np.mean((np.log1p(values) - np.log1p(values.mean())) ** 2)))
    return float(values.std())
