"""The population stability index: how far two distributions over the same bins lie apart."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SMOOTHING = 0.5
"""So many rows are added to each bin, since the index of an empty one is infinite.

Half a row is Jeffreys' prior for shares (1946): it weighs less the more rows there are, where a fixed least share would
weigh the same in a hundred rows as in a million.
"""


def population_stability(then: "ArrayLike", now: "ArrayLike") -> float:
    """Return the population stability index of two counts by bin: sum((q - p) ln(q / p)), p and q the shares.

    Below 0.1 is called stable, above 0.2 or 0.25 another population (Siddiqi, Credit Risk Scorecards, 2006, chapter 9).
    It is the sum of both Kullback-Leibler divergences, so it is the same from either side.
    """
    p, q = _shares(then), _shares(now)
    return float(np.sum((q - p) * np.log(q / p)))


def _shares(counts: "ArrayLike") -> Any:
    smoothed = np.asarray(counts) + SMOOTHING
    return smoothed / smoothed.sum()
