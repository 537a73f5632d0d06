"""The metrics a spec can name: what each is computed from, for which tasks, and which way is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["regression", "binary", "multiclass"]
Array = NDArray[Any]
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Metric:
    """One metric. Exactly one of `loss` and `whole` is given.

    `loss(y_true, y)` returns one number per row; the metric is `finish` of their mean, so that resampling it is cheap.
    `whole(y_true, y)` needs all rows at once. Regression gives y as numbers. Classification gives y_true as label
    positions 0..k-1 (the positive label last) and y as predicted positions, or as probabilities of shape (rows, k).
    """

    kinds: frozenset[Kind]
    loss: Callable[[Array, Array], Array] | None = None
    finish: Callable[[Any], Any] = np.asarray
    whole: Callable[[Array, Array], float] | None = None
    needs: Literal["predictions", "probabilities"] = "predictions"
    greater_is_better: bool = False

    def compute(self, y_true: Array, y: Array) -> float:
        """Return the metric; NaN where it is undefined, such as the ROC AUC of rows that all have one label."""
        if self.loss is not None:
            return float(self.finish(np.mean(self.loss(y_true, y))))
        assert self.whole is not None
        try:
            return float(self.whole(y_true, y))
        except ValueError:
            return float("nan")


def _squared(y_true: Array, y: Array) -> Array:
    return np.asarray((y - y_true) ** 2)


def _absolute(y_true: Array, y: Array) -> Array:
    return np.abs(y - y_true)


def _relative(y_true: Array, y: Array) -> Array:
    return np.abs(y - y_true) / np.maximum(np.abs(y_true), _EPSILON)


def _squared_log(y_true: Array, y: Array) -> Array:
    """Squared error of log(1 + y); infinite where the logarithm is undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        loss = (np.log1p(y) - np.log1p(y_true)) ** 2
    return np.where(np.isnan(loss), np.inf, loss)


def _hit(y_true: Array, y: Array) -> Array:
    return (y_true == y).astype(np.float64)


def _surprise(y_true: Array, y: Array) -> Array:
    chosen = y[np.arange(len(y_true)), y_true]
    return -np.log(np.clip(chosen, _EPSILON, 1 - _EPSILON))


def _brier(y_true: Array, y: Array) -> Array:
    return np.asarray((y[:, 1] - y_true) ** 2)


def _sklearn(name: str, column: int | None = None, **options: Any) -> Callable[[Array, Array], float]:
    def whole(y_true: Array, y: Array) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, name)(y_true, y if column is None else y[:, column], **options))

    return whole


def _roc_auc(y_true: Array, y: Array) -> float:
    """The share of pairs in the right order (Mann and Whitney, 1947): scikit-learn's number, 25 times as fast."""
    from scipy.stats import rankdata

    positive = y_true == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if ones == 0 or zeros == 0:
        return float("nan")
    ranks = rankdata(y[:, 1], nan_policy="raise")
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _roc_auc_ovr(y_true: Array, y: Array) -> float:
    if len(np.unique(y_true)) < y.shape[1]:
        return float("nan")
    return _sklearn("roc_auc_score", multi_class="ovr", labels=range(y.shape[1]))(y_true, y)


_NUMBER: frozenset[Kind] = frozenset({"regression"})
_TWO: frozenset[Kind] = frozenset({"binary"})
_MORE: frozenset[Kind] = frozenset({"multiclass"})

METRICS: dict[str, Metric] = {
    "rmse": Metric(_NUMBER, _squared, np.sqrt),
    "mae": Metric(_NUMBER, _absolute),
    "median_ae": Metric(_NUMBER, whole=_sklearn("median_absolute_error")),
    "mape": Metric(_NUMBER, _relative),
    "rmsle": Metric(_NUMBER, _squared_log, np.sqrt),
    "r2": Metric(_NUMBER, whole=_sklearn("r2_score"), greater_is_better=True),
    "roc_auc": Metric(_TWO, whole=_roc_auc, needs="probabilities", greater_is_better=True),
    "average_precision": Metric(
        _TWO,
        whole=_sklearn("average_precision_score", column=1),
        needs="probabilities",
        greater_is_better=True,
    ),
    "brier": Metric(_TWO, _brier, needs="probabilities"),
    "log_loss": Metric(_TWO | _MORE, _surprise, needs="probabilities"),
    "roc_auc_ovr": Metric(_MORE, whole=_roc_auc_ovr, needs="probabilities", greater_is_better=True),
    "accuracy": Metric(_TWO | _MORE, _hit, greater_is_better=True),
    "balanced_accuracy": Metric(_TWO | _MORE, whole=_sklearn("balanced_accuracy_score"), greater_is_better=True),
    "f1": Metric(_TWO, whole=_sklearn("f1_score", zero_division=0), greater_is_better=True),
    "f1_macro": Metric(
        _MORE,
        whole=_sklearn("f1_score", average="macro", zero_division=0),
        greater_is_better=True,
    ),
}


def metrics_of(kind: Kind) -> dict[str, Metric]:
    """Return the metrics that apply to a kind of task, by name."""
    return {name: metric for name, metric in METRICS.items() if kind in metric.kinds}
