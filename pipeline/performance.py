"""How well a model answers what it was really asked: by labels that arrived, or as far as it can be told before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, did_you_mean
from pipeline.evaluate import CONFIDENCE, inputs, score
from pipeline.metrics import METRICS
from pipeline.predict import Answers, Label, take, target
from pipeline.request_log import KEY, PROBABILITY
from pipeline.sources import logical_type

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec

Array = NDArray[Any]

DRAWS = 1000
ESTIMATES = 200


@dataclass(frozen=True)
class Estimate:
    """The primary metric on some rows.

    Attributes:
        rows: number of rows.
        value: the metric; None if it is undefined on these rows.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    rows: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Labelled:
    """Logged predictions whose labels have arrived.

    Attributes:
        y_true: the labels, shape (n,).
        answers: the predictions.
        days: when each was predicted, in days since 1970, shape (n,).
        logged: number of distinct keys in the log.
        unkeyed: number of logged rows without a key, which cannot get a label.
    """

    y_true: Array
    answers: Answers
    days: Array
    logged: int
    unkeyed: int


def join(spec: "ModelSpec", logged: "pyarrow.Table", labels: "pyarrow.Table", names: Mapping[str, Label]) -> Labelled:
    """Return the logged answers of one release to whose keys there is a label; `names` are its labels by their words.

    A key that was asked about more than once counts once, with its last answer; of several labels the last counts.
    Raises DataError when the labels lack the key or the target.
    """
    for name in (*spec.key, spec.target):
        if name not in labels.column_names:
            hint = did_you_mean(name, labels.column_names)
            raise DataError(
                f"the labels of {spec.name} have no column {name!r}; they need the key and the target{hint}",
                code="data.missing_column",
            )
    known = labels.filter(labels.column(spec.target).is_valid())
    truth: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(zip(*(_comparable(known.column(name)) for name in spec.key), strict=True)):
        truth[key] = row
    columns = [_as(known.column(name), logged.column(KEY + name).to_pylist()) for name in spec.key]
    last: dict[tuple[Any, ...], int] = {}
    order = np.argsort(logged.column("time").to_numpy(), kind="stable")
    keys = list(zip(*columns, strict=True))
    for row in order.tolist():
        if None not in keys[row]:
            last[keys[row]] = row
    both = [(truth[key], row) for key, row in last.items() if key in truth]
    theirs, ours = (np.array([pair[side] for pair in both], dtype=np.int64) for side in (0, 1))
    rows = logged.take(ours)
    y_true = target(spec.task.kind, known.column(spec.target).take(theirs)) if both else np.array([])
    days = rows.column("time").to_numpy().astype("datetime64[D]").astype(int)
    unkeyed = sum(None in key for key in keys)
    return Labelled(y_true, answers_of(rows, names), days, len(last), unkeyed)


def answers_of(logged: "pyarrow.Table", names: Mapping[str, Label]) -> Answers:
    """Return the answers that were logged; `names` are the labels of the release by their words, none of a number."""
    if not names:
        return Answers(logged.column("prediction").to_numpy().astype(np.float64))
    predictions = np.array([names[word] for word in logged.column("prediction").to_pylist()], dtype=object)
    columns = [logged.column(PROBABILITY + word) for word in names]
    known = all(column.null_count == 0 for column in columns)
    probabilities = np.column_stack([column.to_numpy() for column in columns]) if known else None
    return Answers(predictions, tuple(names.values()), probabilities)


def estimate(spec: "ModelSpec", y_true: Array, answers: Answers) -> Estimate:
    """Return the primary metric with its percentile bootstrap interval, seeded by the spec.

    As for the gate's intervals, but of one model alone (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13).
    """
    rows = len(y_true)
    value = score(spec.task, spec.metric, y_true, answers) if rows else np.nan
    if not np.isfinite(value):
        return Estimate(rows, None)
    metric, rng = METRICS[spec.metric], np.random.default_rng(spec.seed)
    y, said = inputs(spec.task, metric, y_true, answers)
    loss = metric.loss(y, said) if metric.loss is not None else None
    found = []
    for _ in range(int(np.clip(20_000_000 // rows, 200, DRAWS))):
        drawn = rng.integers(0, rows, rows)
        found.append(
            metric.compute(y[drawn], said[drawn]) if loss is None else float(metric.finish(loss[drawn].mean()))
        )
    return _interval(rows, value, found)


def by_day(spec: "ModelSpec", labelled: Labelled, least: int) -> list[tuple[int, Estimate]]:
    """Return the metric of the answers of each day, days since 1970, that has so many labelled rows at least."""
    found = []
    for day in np.unique(labelled.days).tolist():
        rows = labelled.days == day
        if rows.sum() >= least:
            found.append((day, estimate(spec, labelled.y_true[rows], take(labelled.answers, rows))))
    return found


def expected(spec: "ModelSpec", answers: Answers, y_held: Array, held: Answers) -> Estimate | None:
    """Return what the primary metric of a two-class classifier is likely to be before labels arrive.

    Confidence-based performance estimation: probabilities are calibrated on the held-out rows (isotonic regression),
    then labels are drawn by them and the metric is computed, `ESTIMATES` times; the mean and the percentiles of that.
    It holds while the relation of features and label stays what it was: it sees what moved in the features alone. None
    for other tasks, without probabilities, or without both labels among the held-out rows.
    """
    if spec.task.kind != "binary" or answers.probabilities is None or held.probabilities is None or not len(y_held):
        return None
    from sklearn.isotonic import IsotonicRegression

    positive = spec.task.positive  # type: ignore[union-attr]
    truth = np.array([label == positive for label in y_held.tolist()])
    if truth.all() or not truth.any() or len(answers.labels) != 2:
        return None
    place, other = answers.labels.index(positive), 1 - answers.labels.index(positive)
    calibrated = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    calibrated.fit(held.probabilities[:, held.labels.index(positive)], truth.astype(float))
    p = calibrated.predict(answers.probabilities[:, place])
    rng = np.random.default_rng(spec.seed)
    values = np.empty(2, dtype=object)
    values[:] = [answers.labels[other], positive]
    drawn = (values[(rng.random(len(p)) < p).astype(int)] for _ in range(ESTIMATES))
    found = [one for labels in drawn if np.isfinite(one := score(spec.task, spec.metric, labels, answers))]
    return _interval(len(p), float(np.mean(found)), found) if found else None


def _interval(rows: int, value: float, found: Sequence[float]) -> Estimate:
    finite = [one for one in found if np.isfinite(one)]
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(rows, float(value), float(low), float(high))


def _comparable(column: "pyarrow.ChunkedArray") -> list[Any]:
    """Return the keys of labels as values that keys of requests can be compared with."""
    if logical_type(column.type) == "number":
        return [None if value is None else float(value) for value in column.to_pylist()]
    return column.to_pylist()


def _as(column: "pyarrow.ChunkedArray", words: Sequence[str | None]) -> list[Any]:
    """Return keys, which are logged as text, as what the key of the labels holds; None where one is no such value."""
    from datetime import datetime

    kind = logical_type(column.type)

    def read(word: str) -> Any:
        if kind == "number":
            return float(word)
        if kind == "boolean":
            return {"true": True, "false": False}[word.lower()]
        if kind == "timestamp":
            time = datetime.fromisoformat(word)
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        return word

    found: list[Any] = []
    for word in words:
        try:
            found.append(None if word is None else read(word))
        except (ValueError, KeyError):
            found.append(None)
    return found
