"""What a fitted estimator answers, the same way for evaluation, for the golden rows and for the endpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import to_frame

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from pipeline.metrics import Kind
    from pipeline.schema import Feature

FRAME_ROWS = 100_000
"""So many rows are answered at a time, with a frame of them and what a pipeline makes of it."""
Label = str | int | float | bool


@dataclass(frozen=True)
class Answers:
    """Predictions of n rows, shape (n,); for classifiers also probabilities of the k `labels`, shape (n, k)."""

    predictions: NDArray[Any]
    labels: tuple[Label, ...] = ()
    probabilities: NDArray[np.float64] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answers as JSON values; `from_dict` takes them back, to the last bit."""
        return {
            "predictions": self.predictions.tolist(),
            "labels": list(self.labels),
            "probabilities": None if self.probabilities is None else self.probabilities.tolist(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Answers":
        """Return the answers that `to_dict` wrote."""
        labels, probabilities = tuple(value["labels"]), value["probabilities"]
        return cls(
            np.array(value["predictions"], dtype=object if labels else np.float64),
            labels,
            None if probabilities is None else np.array(probabilities),
        )


def predict(estimator: Any, frame: "pandas.DataFrame | NDArray[Any]") -> Answers:
    """Return what a fitted estimator answers for a frame; probabilities where it has `predict_proba`."""
    predictions = np.asarray(estimator.predict(frame)).reshape(len(frame))
    if not hasattr(estimator, "classes_"):
        return Answers(predictions.astype(np.float64))
    labels = tuple(np.asarray(estimator.classes_).tolist())
    probabilities = np.asarray(estimator.predict_proba(frame)) if hasattr(estimator, "predict_proba") else None
    return Answers(predictions, labels, probabilities)


def predict_rows(estimator: Any, rows: "pyarrow.Table", features: "Sequence[Feature]") -> Answers:
    """Return what a fitted estimator answers to the rows of a table, some of which are a frame at a time."""
    return in_parts(lambda part: predict(estimator, to_frame(part, features)), rows)


def in_parts(ask: "Callable[[pyarrow.Table], Answers]", rows: "pyarrow.Table") -> Answers:
    """Return the answers to the rows of a table, so many of which are asked for at a time."""
    starts = range(0, max(rows.num_rows, 1), FRAME_ROWS)
    return concat([ask(rows.slice(start, FRAME_ROWS)) for start in starts])


def concat(parts: Sequence[Answers]) -> Answers:
    """Return the answers of several parts of rows as one, in order."""
    known = [part.probabilities for part in parts if part.probabilities is not None]
    probabilities = np.concatenate(known) if len(known) == len(parts) else None
    return Answers(np.concatenate([part.predictions for part in parts]), parts[0].labels, probabilities)


def take(answers: Answers, rows: "slice | NDArray[Any]") -> Answers:
    """Return the answers to some of the rows."""
    probabilities = None if answers.probabilities is None else answers.probabilities[rows]
    return Answers(answers.predictions[rows], answers.labels, probabilities)


def target(kind: "Kind", column: "pyarrow.ChunkedArray") -> NDArray[Any]:
    """Return the target as estimators are given it: float64 to regress on, else the labels as they are."""
    if kind == "regression":
        return column.to_numpy().astype(np.float64)
    coded = column.combine_chunks().dictionary_encode()
    labels = coded.dictionary.to_pylist()
    # A label is one object, however many rows have it.
    values: NDArray[Any] = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    return values[coded.indices.to_numpy()]


def disagreements(answers: Answers, expected: Answers, scale: float) -> list[str]:
    """Return a sentence for every row whose answer is not the expected one, within rounding.

    Numbers a and b agree when |a - b| <= 1e-12 max(|a|, scale); labels must be equal unless their two best
    probabilities tie; a missing answer agrees with nothing.
    """
    problems = []
    if len(answers.predictions) != len(expected.predictions):
        return [f"{len(answers.predictions)} answers to {len(expected.predictions)} rows"]
    if expected.labels:
        far = _far(answers.probabilities, expected.probabilities, 1.0)
        for row, (got, want) in enumerate(zip(answers.predictions, expected.predictions, strict=True)):
            if got != want and not _tied(expected.probabilities, row):
                problems.append(f"row {row}: label {got!r} where the trained pipeline says {want!r}")
            elif far is not None and far[row]:
                problems.append(
                    f"row {row}: probabilities {_row(answers.probabilities, row)} where the trained pipeline says "
                    f"{_row(expected.probabilities, row)}"
                )
        return problems
    far = _far(answers.predictions[:, None], expected.predictions[:, None], scale)
    for row in np.flatnonzero(far if far is not None else []).tolist():
        got, want = answers.predictions[row], expected.predictions[row]
        problems.append(f"row {row}: {float(got)!r} where the trained pipeline says {float(want)!r}")
    return problems


def _far(got: NDArray[Any] | None, want: NDArray[Any] | None, scale: float) -> NDArray[np.bool_] | None:
    if want is None:
        return None
    if got is None or got.shape != want.shape:
        return np.ones(len(want), dtype=bool)
    got = got.astype(np.float64)
    near = np.abs(got - want) <= 1e-12 * np.maximum(np.abs(want), scale)
    return ~near.all(axis=1)


def _tied(probabilities: NDArray[Any] | None, row: int) -> bool:
    if probabilities is None:
        return False
    second, first = np.sort(probabilities[row])[-2:]
    return bool(first - second <= 1e-12)


def _row(values: NDArray[Any] | None, row: int) -> Sequence[float] | None:
    return None if values is None else values[row].tolist()
