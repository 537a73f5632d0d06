"""What the operations of estimators do at run time, in the order in which scikit-learn does it.

Every function takes an operation's parameters and returns it ready to run. Matrices have shape (rows, columns), and
positions of labels (rows, 1).
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.compiled.operations import of_a_row
from pipeline.compiled.plan import Array, Run, UnanswerableError, operation, total
from pipeline.compiled.products import product

LONG = 10_000
"""OpenBLAS gives the product of longer vectors to several threads, whose number then decides how it is rounded."""


@operation("float32")
def float32() -> Run:
    """A matrix as trees see it, in 32 bits; unanswerable where a number is beyond them."""

    def run(x: Array) -> Array:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        # A sum of squares is finite only if all values are.
        if not math.isfinite(np.vdot(x, x)) and np.isinf(x).any():
            raise UnanswerableError("a step refuses what reaches it: a number beyond those of 32 bits")
        return x

    return run


@operation("linear")
def linear(coef: Array, intercept: Array) -> Run:
    """x @ coef.T + intercept + what is summed already; a BLAS would round a row in a batch otherwise than alone.

    Unanswerable where x holds a missing or an infinite number.
    """

    # A product of matrices would round a row in a batch otherwise than alone. That of two vectors does not, in NumPy's
    # own OpenBLAS, while they are not so long that it is shared out.
    single = len(coef) == 1 and coef.shape[1] <= LONG
    intercept = of_a_row(intercept)
    constant: float = intercept.ravel()[0].item()

    def of_one(x: Array, *sums: Array) -> Array:
        # Python's floats and NumPy's matrices, added in the same order, round alike.
        out = np.vecdot(x, coef).item() + constant
        for one in sums:
            out += one.item()
        return refused(np.array([[out]]), x)

    def refused(out: Array, x: Array) -> Array:
        # A product with NaN or infinity is no finite number, whatever the coefficient.
        if not math.isfinite(total(out)) and not np.isfinite(x).all():
            raise UnanswerableError("a linear model refuses what reaches it: a missing or an infinite number")
        return out

    def run(x: Array, *sums: Array) -> Array:
        x = np.ascontiguousarray(x)
        if single and len(x) == 1:
            return of_one(x, *sums)
        out = np.vecdot(x, coef)[:, None] if single else np.einsum("ij,kj->ik", x, coef)
        out = out + intercept
        for one in sums:
            out = out + one
        return refused(out, x)

    return run


@operation("special")
def special(name: str) -> Run:
    """A universal function of scipy.special, by name."""
    function = getattr(importlib.import_module("scipy.special"), name)
    if not isinstance(function, np.ufunc):
        raise TypeError(f"scipy.special.{name} is not a universal function")
    return function


@operation("modified_huber")
def modified_huber() -> Run:
    """Scores between -1 and 1 as shares between 0 and 1: what SGDClassifier makes of that loss."""
    return lambda scores: (np.clip(scores, -1, 1) + 1) / 2


@operation("inverse_yeo_johnson")
def inverse_yeo_johnson(power: float) -> Run:
    """The inverse of Yeo and Johnson (2000), as scikit-learn writes it."""
    tiny = np.spacing(1.0)

    def run(x: Array) -> Array:
        high, low = np.maximum(x, 0), np.minimum(x, 0)
        high = np.exp(high) - 1 if abs(power) < tiny else np.power(high * power + 1, 1 / power) - 1
        low = 1 - (np.power(-(2 - power) * low + 1, 1 / (2 - power)) if abs(power - 2) > tiny else np.exp(-low))
        return np.where(x >= 0, high, low)

    return run


@operation("inverse_box_cox")
def inverse_box_cox(power: float) -> Run:
    """The inverse of Box and Cox (1964), by SciPy."""
    inverse = importlib.import_module("scipy.special").inv_boxcox
    return lambda x: inverse(x, power)


@operation("inverse_quantiles")
def inverse_quantiles(edges: Array, references: Array, normal: bool) -> Run:
    """What scikit-learn's QuantileTransformer maps to a share, or to the normal value below which such a share lies."""
    share = importlib.import_module("scipy.special").ndtr

    def run(x: Array) -> Array:
        if normal:
            x = share(x)
            low, high = x - 1e-7 < 0, x + 1e-7 > 1
        else:
            low, high = x == 0, x == 1
        return np.where(low, edges[0], np.where(high, edges[-1], np.interp(x, references, edges)))

    return run


@operation("at_least")
def at_least(threshold: float, above: int) -> Run:
    """Position `above`, 0 or 1, where a score is at least the threshold, the other elsewhere."""
    return lambda scores: (scores >= threshold) == bool(above)


@operation("first_greatest")
def first_greatest() -> Run:
    """The position of the greatest value of each row, the first of several."""
    return lambda values: values.argmax(axis=1)[:, None]


@operation("both_sides")
def both_sides() -> Run:
    """The probabilities of two labels, from that of the second."""
    return lambda second: np.concatenate([1 - second, second], axis=1)


@operation("softmax")
def softmax() -> Run:
    """exp(x) / sum(exp(x)), as scikit-learn keeps it from overflowing."""

    def run(x: Array) -> Array:
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    return run


@operation("exp_normalized")
def exp_normalized() -> Run:
    """exp(x - log(sum(exp(x)))): probabilities from joint log likelihoods."""

    def run(x: Array) -> Array:
        most = x.max(axis=1, keepdims=True)
        return np.exp(x - (np.log(np.exp(x - most).sum(axis=1, keepdims=True)) + most))

    return run


@operation("shares")
def shares() -> Run:
    """Each value's share of its row's sum; the same for all where the sum is 0."""

    def run(x: Array) -> Array:
        total = x.sum(axis=1, keepdims=True)
        return np.where(total == 0, 1 / x.shape[1], x / np.where(total == 0, 1, total))

    return run


@operation("gaussian_log_likelihood")
def gaussian_log_likelihood(mean: Array, variance: Array, log_prior: Array) -> Run:
    """Log of prior times density, by label (a row of `mean` and `variance` each)."""
    first = log_prior - 0.5 * np.log(2.0 * np.pi * variance).sum(axis=1)

    def run(x: Array) -> Array:
        return first - 0.5 * ((x[:, None, :] - mean) ** 2 / variance).sum(axis=2)

    return run


@operation("kernel")
def kernel(
    kernel: str,
    vectors: Array,
    weights: Array,
    intercept: Array,
    gamma: float,
    degree: float,
    coef0: float,
    expand: bool,
    ordered: bool,
) -> Run:
    """Sums of weight * kernel(x, vector), a row of weights each, and an intercept.

    `expand` has squared distances from norms and products; `ordered` adds one by one as libsvm does, so that a sum that
    should be 0 is 0, on which a label may hang.
    """
    center = vectors.mean(axis=0)
    doubled = np.ascontiguousarray(-2 * (vectors - center).T)
    squares = ((vectors - center) ** 2).sum(axis=1)

    def distances(x: Array) -> Array:
        if not expand:
            return np.stack([np.einsum("ij,ij->i", away, away) for away in (row - vectors for row in x)])
        x = x - center
        out = product(x, doubled)
        out += squares
        out += np.einsum("ij,ij->i", x, x)[:, None]
        return out

    def similarity(x: Array) -> Array:
        if kernel == "rbf":
            return np.exp(-gamma * distances(x))
        products = product(x, vectors.T)
        if kernel == "linear":
            return products
        products = gamma * products + coef0
        return np.tanh(products) if kernel == "sigmoid" else products**degree

    across = np.ascontiguousarray(weights.T)

    def part(x: Array) -> Array:
        similar = similarity(x)
        if not ordered:
            return product(similar, across) + intercept
        return np.stack([np.add.accumulate(similar * one, axis=1)[:, -1] for one in weights], axis=1) + intercept

    def run(x: Array) -> Array:
        # The similarities of a few rows at a time stay in the cache.
        return part(x) if len(x) <= 64 else np.concatenate([part(x[cut : cut + 64]) for cut in range(0, len(x), 64)])

    return run


def won(decisions: Array, labels: int) -> Array:
    """Return how many decisions between two labels each label won, the first where it is above 0."""
    first, second = np.triu_indices(labels, k=1)
    return np.eye(labels)[np.where(decisions > 0, first, second)].sum(axis=1)


@operation("duels")
def duels(labels: int) -> Run:
    """The label that wins most of the decisions between two labels each, the first of several."""
    return lambda decisions: won(decisions, labels).argmax(axis=1)[:, None]


@operation("duel_scores")
def duel_scores(labels: int) -> Run:
    """Scores by label from decisions between two: how many it won, and a part of 1 for how clearly."""
    sides = np.zeros((labels * (labels - 1) // 2, labels))
    for pair, (first, second) in enumerate(zip(*np.triu_indices(labels, k=1), strict=True)):
        sides[pair, first], sides[pair, second] = 1.0, -1.0

    def run(decisions: Array) -> Array:
        clearly = np.einsum("ij,jk->ik", decisions, sides)
        # Here a decision of exactly 0 is for the first label.
        return won(np.where(decisions == 0, 1.0, decisions), labels) + clearly / (3 * (np.abs(clearly) + 1))

    return run


@operation("constant")
def constant(row: Array) -> Run:
    """The same row for every row."""
    return lambda x: np.broadcast_to(row, (len(x), len(row)))


@operation("average")
def average(weights: Sequence[float] | None) -> Run:
    """The mean of matrices, weighted where there are weights, summed one after the other."""

    def run(*parts: Array) -> Array:
        if weights is None:
            return sum(parts[1:], start=parts[0]) / len(parts)
        weighted = [part * weight for part, weight in zip(parts, weights, strict=True)]
        return sum(weighted[1:], start=weighted[0]) / np.sum(weights)

    return run


@operation("votes")
def votes(labels: int, weights: Sequence[float] | None) -> Run:
    """How many positions, or what weight of them, are for each label."""
    position = np.arange(labels)

    def run(*parts: Array) -> Any:
        each = weights or [1.0] * len(parts)
        votes = [(part == position) * weight for part, weight in zip(parts, each, strict=True)]
        return sum(votes[1:], start=votes[0])

    return run


@operation("labels")
def labels(labels: Array) -> Run:
    """The labels, numbers, at positions."""
    return lambda positions: labels.take(positions.astype(np.intp))


@operation("capped")
def capped() -> Run:
    """Probabilities that rounding took above 1, back at 1."""
    return lambda x: np.where((x > 1.0) & (x <= 1.0 + 1e-5), 1.0, x)


@operation("sigmoid")
def sigmoid(slope: float, intercept: float) -> Run:
    """Platt's calibration: 1 / (1 + exp(slope x + intercept))."""
    expit = importlib.import_module("scipy.special").expit
    return lambda x: expit(-(slope * x + intercept))


@operation("interpolate")
def interpolate(x: Array, y: Array) -> Run:
    """Isotonic calibration: the line through points, level beyond the first and the last."""
    return lambda values: np.asarray(np.interp(values, x, y))


@operation("weighted_median")
def weighted_median(weights: Array) -> Run:
    """Of columns with a weight each, the first in order of value that brings the weight to half (AdaBoost.R2)."""

    def run(*parts: Array) -> Array:
        predictions = np.concatenate(parts, axis=1)
        order = predictions.argsort(axis=1)
        below = weights[order].cumsum(axis=1)
        middle = (below >= 0.5 * below[:, -1:]).argmax(axis=1)[:, None]
        return np.take_along_axis(predictions, np.take_along_axis(order, middle, axis=1), axis=1)

    return run


@operation("boosted_votes")
def boosted_votes(labels: int, weights: Array, total: float) -> Run:
    """AdaBoost's scores: weights for the label voted for, against all others; one score for two labels."""
    position = np.arange(labels)

    def run(*parts: Array) -> Array:
        votes = sum(
            np.where(part == position, weight, -1 / (labels - 1) * weight)
            for part, weight in zip(parts, weights, strict=True)
        )
        votes = votes / total
        return votes[:, 1:] - votes[:, :1] if labels == 2 else votes

    return run


@operation("boosted_scores")
def boosted_scores(labels: int) -> Run:
    """What AdaBoost takes the softmax of."""
    if labels == 2:
        return lambda x: np.concatenate([-x, x], axis=1) / 2
    return lambda x: x / (labels - 1)
