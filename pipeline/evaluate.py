"""Challenger, champion and a dummy baseline, compared on held-out rows that none of them was trained on."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, ServerError, TrainingError
from pipeline.metrics import METRICS, Metric, metrics_of
from pipeline.predict import Answers, Label, predict, predict_rows, take, target
from pipeline.schema import describe
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec, Task

Array = NDArray[Any]
CONFIDENCE = 0.95
RESAMPLES = 2000
ROUNDING = 1e-12
"""Metrics that differ by less than this share of their size are equal: the rest is rounding."""


@dataclass(frozen=True)
class Champion:
    """The champion, as far as a comparison needs it.

    Attributes:
        release: its number.
        predict: returns its answers to the rows of a table.
        required: the features that it cannot do without.
        rule: which rows were held out from its training.
    """

    release: int
    predict: Callable[["pyarrow.Table"], Answers]
    required: tuple[str, ...]
    rule: Rule


@dataclass(frozen=True)
class Interval:
    """A paired bootstrap interval of a difference of the metric, challenger minus other.

    Attributes:
        difference: the difference on all rows, in units of the metric.
        low: lower end of the interval.
        high: upper end of the interval.
        confidence: the probability that the interval covers the true difference.
    """

    difference: float
    low: float
    high: float
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Slice:
    """The primary metric on the rows that have one value in one column.

    Attributes:
        column: the column.
        value: the value as text, or a range of numbers.
        rows: number of these rows.
        challenger: the challenger's metric; None if it is undefined.
        champion: the champion's metric; None if it is undefined or there is no champion.
        interval: of the difference to the champion; None if there are too few rows to judge.
    """

    column: str
    value: str
    rows: int
    challenger: float | None
    champion: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics on the held-out rows that no compared model was trained on, and their differences.

    Attributes:
        metric: the primary metric.
        greater_is_better: whether a greater value of it is better.
        rows: number of held-out rows that were used.
        challenger: every metric of the challenger by name; None if undefined.
        baseline: every metric of a dummy that always guesses the same.
        against_baseline: interval of the challenger minus the baseline.
        champion: every metric of the champion; None if it was not compared.
        champion_release: its release; None if there is no champion.
        against_champion: interval of the challenger minus the champion.
        incomparable: why a champion could not be compared; None if it was, or there is none.
        slices: the primary metric on each slice of the gate.
        value: the business value of each model by name, and its `unit`; None if the spec has none.
    """

    metric: str
    greater_is_better: bool
    rows: int
    challenger: dict[str, float | None]
    baseline: dict[str, float | None]
    against_baseline: Interval | None
    champion: dict[str, float | None] | None = None
    champion_release: int | None = None
    against_champion: Interval | None = None
    incomparable: str | None = None
    slices: tuple[Slice, ...] = ()
    value: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        return asdict(self)


def score(task: "Task", metric: str, y_true: Array, answers: Answers) -> float:
    """Return one metric of answers against the truth; ValueError if it needs probabilities and there are none."""
    return METRICS[metric].compute(*inputs(task, METRICS[metric], y_true, answers))


def evaluate(
    spec: "ModelSpec",
    table: "pyarrow.Table",
    rule: Rule,
    challenger: Any,
    champion: Champion | None,
) -> Evaluation:
    """Compare challenger, champion and a dummy baseline on the held-out rows of a table.

    The dummy predicts the training mean, or the training shares of the labels. If the champion had another holdout
    rule, only rows that both rules hold out are used. Raises TrainingError if the challenger cannot predict.
    """
    ours, features = held_out(rule, table), describe(spec, table).features
    mask, incomparable = (ours, None) if champion is None else _comparable(spec, rule, champion, table)
    dummy = _baseline(spec, target(spec.task.kind, table.column(spec.target).filter(~ours)), int(mask.sum()))
    rows = table.filter(mask)
    y_true = target(spec.task.kind, rows.column(spec.target))
    try:
        answers = predict_rows(challenger, rows, features)
    except Exception as error:
        raise TrainingError(
            f"the challenger of {spec.name} cannot predict the held-out rows: {type(error).__name__}: {error}; they "
            "may hold values that no training row has, such as nulls or new categories: let the pipeline handle those",
            code="training.holdout_not_predicted",
        ) from error
    theirs = None
    if champion is not None and incomparable is None:
        theirs, incomparable = _predict(spec, champion, rows, y_true)
    by_model = {"challenger": answers, "champion": theirs, "baseline": dummy}
    scores = {
        name: _all_metrics(spec, y_true, predicted) if predicted else None for name, predicted in by_model.items()
    }
    return Evaluation(
        metric=spec.metric,
        greater_is_better=spec.greater_is_better,
        rows=rows.num_rows,
        challenger=scores["challenger"] or {},
        baseline=scores["baseline"] or {},
        champion=scores["champion"],
        champion_release=champion.release if champion else None,
        against_baseline=interval(spec, y_true, answers, dummy),
        against_champion=interval(spec, y_true, answers, theirs) if theirs else None,
        incomparable=incomparable,
        slices=tuple(_slices(spec, rows, y_true, answers, theirs)),
        value=_value(spec, y_true, by_model),
    )


def interval(
    spec: "ModelSpec",
    y_true: Array,
    answers: Answers,
    others: Answers,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return the paired percentile bootstrap interval of the primary metric's difference, seeded by the spec.

    Rows are drawn with replacement, the same rows for both sides (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). None when the metric is undefined on these rows.
    """
    metric = METRICS[spec.metric]
    # Each side may have labels that the other lacks; a position must mean the same label on both.
    y, a = inputs(spec.task, metric, y_true, answers, others.labels)
    _, b = inputs(spec.task, metric, y_true, others, answers.labels)
    ours, theirs = (metric.compute(y, a), metric.compute(y, b)) if len(y) else (np.nan, np.nan)
    if not np.isfinite(ours - theirs):
        return None
    resampled = np.array([value for value in _resampled(metric, y, a, b, spec.seed) if np.isfinite(value)])
    if len(resampled) == 0:
        return None
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    scale = max(abs(ours), abs(theirs))
    difference, low, high = (_beyond_rounding(value, scale) for value in (ours - theirs, low, high))
    return Interval(difference, low, high, confidence)


def gap(a: float, b: float) -> float:
    """Return how much one value of a metric exceeds another; 0 if the difference is only rounding."""
    return _beyond_rounding(a - b, max(abs(a), abs(b)))


def _beyond_rounding(difference: float, scale: float) -> float:
    return 0.0 if abs(difference) <= ROUNDING * scale else float(difference)


def _resampled(metric: Metric, y: Array, a: Array, b: Array, seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    # A large holdout has a narrow interval; fewer draws place its ends well enough and keep the cost bounded.
    draws = int(np.clip(50_000_000 // len(y), 200, RESAMPLES))
    losses = (metric.loss(y, a), metric.loss(y, b)) if metric.loss is not None else None
    for _ in range(draws):
        drawn = rng.integers(0, len(y), len(y))
        if losses is not None:
            yield float(metric.finish(losses[0][drawn].mean()) - metric.finish(losses[1][drawn].mean()))
        else:
            yield metric.compute(y[drawn], a[drawn]) - metric.compute(y[drawn], b[drawn])


def inputs(
    task: "Task", metric: Metric, y_true: Array, answers: Answers, labels: tuple[Label, ...] = ()
) -> tuple[Array, Array]:
    """Return truth and answers as a metric takes them: labels as positions, the positive one last.

    `labels` are additional labels that need a position.
    """
    if task.kind == "regression":
        return y_true, answers.predictions
    positive = getattr(task, "positive", None)
    known = {*y_true.tolist(), *answers.labels, *labels}
    position = {label: i for i, label in enumerate(sorted(known, key=lambda label: (label == positive, str(label))))}
    truth = np.array([position[label] for label in y_true.tolist()], dtype=int)
    if metric.needs == "predictions":
        return truth, np.array([position[label] for label in answers.predictions.tolist()], dtype=int)
    if answers.probabilities is None:
        raise ValueError("the metric needs probabilities, but the estimator has no predict_proba")
    probabilities = np.zeros((len(truth), len(position)))
    probabilities[:, [position[label] for label in answers.labels]] = answers.probabilities
    return truth, probabilities


def _comparable(spec: "ModelSpec", rule: Rule, champion: Champion, table: "pyarrow.Table") -> tuple[Array, str | None]:
    """Return the rows that neither model was trained on, and why they are unknown or too few; None if they are not."""
    ours, name = held_out(rule, table), f"release {champion.release}"
    lacking = [
        column for column in (*champion.rule.by, champion.rule.time) if column and column not in table.column_names
    ]
    if lacking:
        columns = ", ".join(repr(column) for column in lacking)
        return ours, f"the data has no column {columns}, which the holdout of {name} needs"
    if rule.time is not None and champion.rule.time != rule.time:
        return ours, f"{name} was trained on rows of the newest window, which is held out now"
    try:
        both = ours & held_out(champion.rule, table)
    except DataError as error:
        return ours, f"the holdout of {name} cannot be computed: {error}"
    if both.sum() < min(ours.sum(), spec.gate.slice_rows):
        return ours, f"only {both.sum()} rows are held out both now and when {name} was trained"
    return both, None


def _predict(
    spec: "ModelSpec", champion: Champion, rows: "pyarrow.Table", y_true: Array
) -> tuple[Answers | None, str | None]:
    """Return the champion's answers, or why it has none: the data or the spec may have changed since its training."""
    lacking = [name for name in champion.required if name not in rows.column_names]
    if lacking:
        names = ", ".join(repr(name) for name in lacking)
        return None, f"release {champion.release} requires {names}, which the data no longer has"
    try:
        answers = champion.predict(rows)
        score(spec.task, spec.metric, y_true, answers)
        return answers, None
    except ServerError:
        raise
    except Exception as error:
        return None, f"release {champion.release} cannot be evaluated on these rows: {type(error).__name__}: {error}"


def _baseline(spec: "ModelSpec", trained_on: Array, rows: int) -> Answers:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    dummy = DummyRegressor() if spec.task.kind == "regression" else DummyClassifier(strategy="prior")
    # The dummy ignores features; broadcasting spares memory, since real zeros would be as large as the target.
    return predict(dummy.fit(np.broadcast_to(0.0, (len(trained_on), 1)), trained_on), np.broadcast_to(0.0, (rows, 1)))


def _all_metrics(spec: "ModelSpec", y_true: Array, answers: Answers) -> dict[str, float | None]:
    values = {}
    for name, metric in metrics_of(spec.task.kind).items():
        if metric.needs == "predictions" or answers.probabilities is not None:
            values[name] = _finite(score(spec.task, name, y_true, answers))
    return values


def _value(spec: "ModelSpec", y_true: Array, by_model: dict[str, Answers | None]) -> dict[str, Any] | None:
    if spec.value is None:
        return None
    function = spec.value.function
    values = {
        name: _finite(float(function(y_true, answers.predictions))) for name, answers in by_model.items() if answers
    }
    return {"unit": spec.value.unit, **values}


def _slices(
    spec: "ModelSpec",
    rows: "pyarrow.Table",
    y_true: Array,
    answers: Answers,
    theirs: Answers | None,
) -> Iterator[Slice]:
    """Yield every slice. With k of them judged, each interval is widened (Bonferroni) so that all hold together."""
    slices = [
        (column, f"value {number}" if column in spec.sensitive else value, mask)
        for column in spec.gate.slices
        for number, (value, mask) in enumerate(_values(rows.column(column)), start=1)
    ]
    judged = sum(mask.sum() >= spec.gate.slice_rows for _, _, mask in slices)
    confidence = 1 - (1 - CONFIDENCE) / max(judged, 1)
    for column, value, mask in slices:
        mine, other = take(answers, mask), take(theirs, mask) if theirs else None
        enough = other is not None and mask.sum() >= spec.gate.slice_rows
        yield Slice(
            column=column,
            value=value,
            rows=int(mask.sum()),
            challenger=_finite(score(spec.task, spec.metric, y_true[mask], mine)),
            champion=_finite(score(spec.task, spec.metric, y_true[mask], other)) if other else None,
            interval=interval(spec, y_true[mask], mine, other, confidence) if other and enough else None,
        )


def _values(column: "pyarrow.ChunkedArray") -> Iterator[tuple[str, Array]]:
    """Yield each value of a column with a mask of its rows; for numbers with many values, each quarter of them."""
    values = np.array(column.to_pylist(), dtype=object)
    missing = np.array([value is None for value in values])
    known = values[~missing]
    distinct = set(known.tolist())
    if len(distinct) > 20 and all(isinstance(value, int | float) for value in distinct):
        edges = np.quantile(known.astype(float), [0, 0.25, 0.5, 0.75, 1])
        quarter = np.full(len(values), -1)
        quarter[~missing] = np.clip(np.searchsorted(edges, known.astype(float), side="right") - 1, 0, 3)
        # A very common number fills more than a quarter, so other quarters may have no rows.
        for number in np.unique(quarter[~missing]).tolist():
            yield f"{edges[number]:g} to {edges[number + 1]:g}", quarter == number
    else:
        for value in sorted(distinct, key=str):
            yield str(value), np.asarray(values == value)
    if missing.any():
        yield "(missing)", missing


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
