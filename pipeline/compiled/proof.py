"""The proof that a compiled model predicts as its estimator: both predict thousands of rows, most of them hostile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bisect_rows import Refused, bisect_rows
from pipeline.compiled.columns import columns_of
from pipeline.compiled.plan import Array, CompiledModel, UnanswerableError
from pipeline.predict import Answers, concat, disagreements, predict, take
from pipeline.schema import MAX_CATEGORIES, Feature, to_frame, to_table

if TYPE_CHECKING:
    import pyarrow

UNSEEN = "a category never seen in training"
MAX_HELD_OUT = 2000
SHUFFLED = 1000
MAX_PROBLEMS = 20
TINY, HUGE = 5e-324, 1.7976931348623157e308
# The largest float32, what rounds to it and what does not; where float32 and float64 stop counting by ones.
FLOAT32 = (3.4028234663852886e38, 3.4028235677973362e38, 3.402823567797337e38, 1e39, 1.401298464324817e-45, 7e-46)
WHOLE = (16777215.0, 16777216.0, 16777217.0, 9007199254740992.0, 9007199254740994.0)
SIGNED = (TINY, 1e-300, 1e-8, 0.1, 1.0, 1e30, 1e154, 1e308, HUGE)
EXTREMES = (0.0, -0.0, *SIGNED, *(-value for value in SIGNED), *FLOAT32, *WHOLE)
"""Numbers that a request may hold and that are hard to compute with."""
WORDS = (UNSEEN, "", " ", "NA", "N/A", "nan", "NaN", "None", "null", "0", "\u00e9\U0001f600", "x" * 1000)
"""Words that are not a category, or that some libraries take for a missing value."""
EPOCH, TICK = datetime(1970, 1, 1), timedelta(microseconds=1)
EXACT = 2**53
"""A float64 is exact for this many microseconds before and after 1970."""
DATES = (
    "1970-01-01 1969-12-31 1900-02-28 1900-03-01 2000-02-29 2023-02-28 2024-02-29 2024-03-31 2024-06-30 2024-12-30 "
    "2020-12-31 2021-01-03 2021-01-04 2100-03-01 1685-01-01 2254-12-31"
)
"""Ends of months, leap or not, and days whose week belongs to the year before or after."""
MOMENTS = (
    *(datetime.fromisoformat(f"{day}{time}") for day in DATES.split() for time in ("", "T23:59:59.999999")),
    *(EPOCH + count * TICK for count in (-EXACT, 1 - EXACT, -1, 1, EXACT - 1, EXACT)),
    *(datetime.min, datetime.max),
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """The result of comparing an estimator with its compiled model.

    The compiled model must not predict a row that the estimator refuses, or for which its prediction is not finite. It
    may leave rows to the estimator.

    Attributes:
        passed: whether no row is wrong.
        rows: the number of rows that both predicted.
        unanswered: how many rows the compiled model left to the estimator.
        wrong: how many differences were found.
        problems: the first differences, one sentence each.
    """

    passed: bool
    rows: int
    unanswered: int
    wrong: int
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as JSON values."""
        return asdict(self)


def prove(
    estimator: Any,
    program: CompiledModel,
    table: "pyarrow.Table",
    features: Sequence[Feature],
    scale: float,
    seed: int = 0,
) -> Proof:
    """Compare an estimator and its compiled model on held-out rows and thousands of hostile rows made from them.

    `pipeline.predict.disagreements` defines agreement; `scale` is the spread of the target. The compiled model predicts
    every row alone, as in a request, and all rows together, as Arrow columns. Raises ValueError without rows.
    """
    if not table.num_rows:
        raise ValueError("a proof needs held-out rows")
    rng = np.random.default_rng(seed)
    held = table.select([feature.name for feature in features]).slice(0, MAX_HELD_OUT).to_pylist()
    rows = [(f"held-out row {place}", row) for place, row in enumerate(held)]
    return compare(estimator, program, [*rows, *hostile(held, features, program, rng)], features, scale)


def compare(
    estimator: Any, program: CompiledModel, rows: Sequence[tuple[str, Row]], features: Sequence[Feature], scale: float
) -> Proof:
    """Compare the predictions of an estimator and its compiled model for rows, each with a name for messages."""
    alone = [_answer(program, row) for _, row in rows]
    answered = [place for place, answer in enumerate(alone) if answer is not None]
    wrong = []
    if answered:
        table = to_table([rows[place][1] for place in answered], features)
        wanted, refused = _predict(lambda part: predict(estimator, to_frame(part, features)), table)
        for place, why in refused.items():
            wrong.append(f"{rows[answered[place]][0]}: the program answers where the trained pipeline {why}")
        kept = [place for place in range(len(answered)) if place not in refused]
        if wanted is not None:
            together = program(*columns_of(table.take(kept), program.plan))
            ones = concat([alone[answered[place]] for place in kept])  # type: ignore[misc]
            for how, got in (("", together), (", asked alone", ones)):
                for place, what in _differences(got, wanted, scale):
                    wrong.append(f"{rows[answered[kept[place]]][0]}{how}: {what}")
    return Proof(not wrong, len(rows), len(rows) - len(answered), len(wrong), tuple(wrong[:MAX_PROBLEMS]))


def hostile(
    held: Sequence[Row], features: Sequence[Feature], program: CompiledModel, rng: np.random.Generator
) -> Iterator[tuple[str, Row]]:
    """Yield descriptions and rows: real rows with some values replaced by hostile ones."""
    numbers = [feature.name for feature in features if feature.type == "number"]
    times = [feature.name for feature in features if feature.type == "timestamp"]
    nullable = [feature.name for feature in features if not feature.required]
    values = {feature.name: sorted({row[feature.name] for row in held} - {None}) for feature in features}

    def random_row() -> Row:
        return dict(held[int(rng.integers(len(held)))])

    for feature in features:
        for value in _hostile_values(feature, values[feature.name]):
            yield f"{feature.name} is {str(value)[:40]!r}", random_row() | {feature.name: value}
    for name in nullable:
        for _ in range(4):
            yield f"{name} is null", random_row() | {name: None}
    for _ in range(20):
        yield "all that may be null is null", random_row() | dict.fromkeys(nullable)
    for share in rng.uniform(0, 1, 100):
        chosen = [name for name in nullable if rng.random() < share]
        yield f"null: {', '.join(chosen)}", random_row() | dict.fromkeys(chosen)
    for _ in range(200):
        yield "extremes", random_row() | {name: float(rng.choice(EXTREMES)) for name in numbers}
    for _ in range(SHUFFLED if times else 0):
        moments = [EPOCH + count * TICK for count in rng.integers(1 - EXACT, EXACT, len(times)).tolist()]
        yield "any moments", random_row() | dict(zip(times, moments, strict=True))
    # A plan's numbers include thresholds of trees and edges of bins; values next to them distinguish < from <=.
    edges = _numbers_of(program)
    for _ in range(SHUFFLED):
        yield "values at thresholds", random_row() | {name: _edge(edges, values[name], rng) for name in numbers}
    for _ in range(SHUFFLED):
        yield "values of other rows", {feature.name: random_row()[feature.name] for feature in features}


def _hostile_values(feature: Feature, known: Sequence[Any]) -> list[Any]:
    if feature.type == "text":
        # People often get case and blanks wrong.
        near = [word for value in known[:3] for word in (value.lower(), value.upper(), f"{value} ", f" {value}")]
        spread = known[:: 1 + len(known) // MAX_CATEGORIES]
        return list(dict.fromkeys([*WORDS, *near, *spread, *(feature.categories or ())]))
    if feature.type == "boolean":
        return [True, False]
    if feature.type == "timestamp":
        return [*MOMENTS, *(known[place] for place in (0, -1) if known)]
    if not known:
        return list(EXTREMES)
    low, high = float(known[0]), float(known[-1])
    ends = (np.nextafter(low, -np.inf), low, low - 1, low - 0.5, high, np.nextafter(high, np.inf), high + 1, high * 10)
    return [*EXTREMES, *map(float, ends)]


def _numbers_of(program: CompiledModel) -> Array:
    arrays: list[Array] = []

    def walk(value: Any) -> None:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            arrays.append(value.ravel().astype(np.float64))
        elif isinstance(value, Mapping):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    for operation in program.plan.operations:
        walk(operation.parameters)
    numbers = np.unique(np.concatenate([*arrays, np.zeros(1)]))
    return numbers[np.isfinite(numbers)]


def _edge(edges: Array, known: Sequence[Any], rng: np.random.Generator) -> float:
    """Return one of the edges within the range of the known values, or a number next to it; else a known value."""
    if not known:
        return 0.0
    low, high = np.searchsorted(edges, [float(known[0]), float(known[-1])])
    value = float(edges[rng.integers(low, high)]) if low < high else float(known[int(rng.integers(len(known)))])
    beside = float(rng.choice([-np.inf, np.inf]))
    nexts = (value, np.nextafter(value, beside), float(np.nextafter(np.float32(value), np.float32(beside))))
    return float(nexts[rng.integers(3)])


def _answer(program: CompiledModel, row: Row) -> Answers | None:
    try:
        return program(*columns_of({name: (row.get(name),) for name in program.plan.features}, program.plan))
    except UnanswerableError:
        return None


def _predict(ask: Callable[["pyarrow.Table"], Answers], rows: "pyarrow.Table") -> tuple[Answers | None, dict[int, str]]:
    """Return the predictions of the rows that have one, None if none has, and the reasons for the others."""
    refused: dict[int, str] = {}
    parts: list[Answers] = []
    for part in bisect_rows(lambda start, stop: ask(rows.slice(start, stop - start)), rows.num_rows):
        if isinstance(part, Refused):
            refused[part.row] = f"refuses ({type(part.error).__name__})"
            continue
        answers, size = part.result, part.stop - part.start
        finite = np.isfinite(answers.predictions) if not answers.labels else np.ones(size, dtype=bool)
        if answers.probabilities is not None:
            finite = np.isfinite(answers.probabilities).all(axis=1)
        refused.update({part.start + place: "says nothing finite" for place in np.flatnonzero(~finite).tolist()})
        if finite.any():
            parts.append(take(answers, finite))
    return concat(parts) if parts else None, refused


def _differences(got: Answers, wanted: Answers, scale: float) -> list[tuple[int, str]]:
    """Return the rows that differ, each with a sentence on the difference."""
    if not disagreements(got, wanted, scale):
        return []
    differences = []
    for row in range(len(wanted.predictions)):
        only = slice(row, row + 1)
        sentences = disagreements(take(got, only), take(wanted, only), scale)
        differences += [(row, sentence.removeprefix("row 0: ")) for sentence in sentences]
    return differences
