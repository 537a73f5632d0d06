"""Fit a pipeline on more rows than fit into memory: its last step learns them in batches, by `partial_fit`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from pipeline.predict import target
from pipeline.schema import Feature, to_frame

if TYPE_CHECKING:
    from pipeline.snapshot import Stored
    from pipeline.spec import ModelSpec

Array = NDArray[Any]
Rows = tuple[pd.DataFrame, Array]
"""Some rows' features, and their target."""
Block = Callable[[], Rows]
"""Reads the rows of one part of a table."""

BATCH_ROWS = 10_000
"""So many rows are transformed, and learned, at a time."""
BLOCKS = 4
"""So many blocks are in memory at a time, and their rows in one random order."""
BLOCK_ROWS, BLOCK_CELLS = 100_000, 4_000_000
"""A block has so many rows, or fewer where they have many features: a number of its own takes up 8 bytes."""


def learner(estimator: Any) -> Any:
    """Return what learns at the end of an estimator that was not fitted: of a pipeline, a search or a changed target.

    >>> from sklearn.linear_model import SGDRegressor
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> learner(make_pipeline(StandardScaler(), SGDRegressor()))
    SGDRegressor()
    """
    if isinstance(estimator, Pipeline):
        return learner(estimator.steps[-1][1])
    if isinstance(estimator, TransformedTargetRegressor):
        return learner(estimator.regressor)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return learner(estimator.estimator)
    return estimator


def fit_in_batches(
    estimator: Any, frame: pd.DataFrame, y: Array, blocks: Sequence[Block], epochs: int, seed: int
) -> Any:
    """Fit an estimator on some rows but for its learner, and have that learn the rows of some blocks; return it.

    Of a classifier the first rows have all the labels.
    """
    labels = np.unique(y) if is_classifier(learner(estimator)) else None
    begun = begin(estimator, frame, y)
    for part, truth in batches(blocks, epochs, seed):
        learn(begun, part, truth, labels)
    return begun


def begin(estimator: Any, frame: pd.DataFrame, y: Array) -> Any:
    """Fit an estimator on some rows but for its learner, which has learned nothing then; return it.

    A search finds its best parameters on these rows.
    """
    if isinstance(estimator, Pipeline):
        *before, (name, last) = estimator.steps
        if before:
            transformers = estimator[:-1]
            frame = transformers.fit_transform(frame, y)
            before = transformers.steps
        estimator.steps = [*before, (name, begin(last, frame, y))]
    elif isinstance(estimator, TransformedTargetRegressor):
        regressor = estimator.regressor
        # What changes the target is fitted by it alone.
        estimator.set_params(regressor=DummyRegressor()).fit(frame, y)
        estimator.set_params(regressor=regressor)
        estimator.regressor_ = begin(clone(regressor), frame, _changed(estimator, y))
    elif isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        estimator.fit(frame, y)
        estimator.best_estimator_ = begin(clone(estimator.best_estimator_), frame, y)
    return estimator


def learn(estimator: Any, frame: Any, y: Array, labels: Array | None) -> None:
    """Have the learner of an estimator that was begun learn some rows; `labels` are all there are, for classifiers."""
    if isinstance(estimator, Pipeline):
        *before, (_, last) = estimator.steps
        learn(last, estimator[:-1].transform(frame) if before else frame, y, labels)
    elif isinstance(estimator, TransformedTargetRegressor):
        learn(estimator.regressor_, frame, _changed(estimator, y), labels)
    elif isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        learn(estimator.best_estimator_, frame, y, labels)
    elif labels is None:
        estimator.partial_fit(frame, y)
    else:
        estimator.partial_fit(frame, y, classes=labels)


def _changed(estimator: Any, y: Array) -> Array:
    """Return a target as a TransformedTargetRegressor gives it to its regressor."""
    changed: Array = estimator.transformer_.transform(y.reshape(-1, 1))
    return changed.squeeze(axis=1) if changed.ndim == 2 and changed.shape[1] == 1 else changed


def stored(spec: "ModelSpec", table: "Stored", rows: Array, features: Sequence[Feature]) -> list[Block]:
    """Return what reads the masked rows of a snapshot's file, a block at a time.

    Where a block begins depends on the table alone, not on how its file was written.
    """
    size = max(1, min(BLOCK_ROWS, BLOCK_CELLS // len(features)))
    names = [*(feature.name for feature in features), spec.target]

    def read(start: int) -> Rows:
        part = table.slice(start, size, names).filter(rows[start : start + size])
        return to_frame(part, features), target(spec.task.kind, part.column(spec.target))

    return [partial(read, start) for start in range(0, table.num_rows, size) if rows[start : start + size].any()]


def batches(blocks: Sequence[Block], epochs: int, seed: int) -> Iterator[Rows]:
    """Yield all rows `epochs` times over, each time in another order that the seed decides.

    Blocks come in a random order, some at a time, and the rows of these in a random order: near enough to one of all
    rows, also where the table is sorted (Xu et al., In-Database Machine Learning with CorgiPile, 2022).
    """
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(blocks))
        for first in range(0, len(order), BLOCKS):
            frames, targets = zip(*(blocks[place]() for place in order[first : first + BLOCKS]), strict=True)
            frame, y = pd.concat(frames), np.concatenate(targets)
            shuffled = rng.permutation(len(y))
            for start in range(0, len(y), BATCH_ROWS):
                places = shuffled[start : start + BATCH_ROWS]
                yield frame.iloc[places], y[places]
