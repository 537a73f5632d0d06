"""Which rows a model is trained on, where they are more than it is to be trained on: a stratified, seeded sample."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow

    from pipeline.snapshot import SnapshotFile
    from pipeline.spec import ModelSpec

STRATA = 10
"""A target that is a number is cut into so many parts of about equal size."""


def stratified_sample(
    spec: "ModelSpec", table: "pyarrow.Table | SnapshotFile", rows: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return `spec.sample` of some rows, or all of them where there are no more.

    Each label, or each tenth of the values of a number, keeps its share of the rows (Cochran, Sampling Techniques,
    1977, section 5.5), but no label has fewer rows than there are folds, where it has that many. The spec's seed
    decides which rows they are.
    """
    most, places = spec.sample, np.flatnonzero(rows)
    if most is None or len(places) <= most:
        return rows
    strata = _strata(spec, table.column(spec.target).filter(rows))
    drawn = _shares(np.bincount(strata), most, spec.folds if spec.task.kind != "regression" else 0)
    rng, mask = np.random.default_rng(spec.seed), np.zeros(len(rows), dtype=bool)
    # One stratum after the other: a number or two for each of very many rows is what fits into memory.
    for stratum, count in enumerate(drawn.tolist()):
        within = np.flatnonzero(strata == stratum)
        mask[places[within[rng.choice(len(within), count, replace=False)]]] = True
    return mask


def sample_rows(most: int, rows: NDArray[np.bool_], seed: int = 0) -> NDArray[np.bool_]:
    """Return so many of some rows, drawn at random by the seed, or all of them where there are no more."""
    places = np.flatnonzero(rows)
    if len(places) <= most:
        return rows
    mask = np.zeros(len(rows), dtype=bool)
    mask[np.random.default_rng(seed).choice(places, most, replace=False)] = True
    return mask


def _strata(spec: "ModelSpec", target: "pyarrow.ChunkedArray") -> NDArray[Any]:
    """Return the number of each row's stratum, from 0, none of which is empty."""
    if spec.task.kind == "regression":
        values = target.to_numpy()
        inner = np.quantile(values, np.linspace(0, 1, STRATA + 1)[1:-1])
        # As one byte each, and those that are none of equal inner edges numbered without a gap.
        tenths = np.concatenate([np.searchsorted(inner, part.to_numpy()).astype(np.uint8) for part in target.chunks])
        place = np.cumsum(np.bincount(tenths, minlength=STRATA) > 0) - 1
        return place.astype(np.uint8)[tenths]
    codes: NDArray[Any] = target.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _shares(sizes: NDArray[Any], most: int, least: int) -> NDArray[Any]:
    """Return how many rows of each stratum are drawn, `most` together: by largest remainder, then at least `least`."""
    wanted = sizes * most / sizes.sum()
    drawn = np.floor(wanted).astype(int)
    drawn[np.argsort(drawn - wanted, kind="stable")[: most - drawn.sum()]] += 1
    drawn = np.maximum(drawn, np.minimum(sizes, least))
    while (over := drawn.sum() - most) > 0:
        largest = int(np.argmax(drawn))
        spare = drawn[largest] - max(least, 1)
        if spare <= 0:
            break
        drawn[largest] -= min(over, spare)
    return drawn
