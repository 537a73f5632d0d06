"""Fit a pipeline on more rows than fit into memory: its last step, the learner, trains in batches by `partial_fit`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from pipeline.files import arrow_writer
from pipeline.learner import partial_fit_blocker
from pipeline.predict import target
from pipeline.schema import Feature, to_frame

if TYPE_CHECKING:
    import pyarrow

    from pipeline.snapshot import SnapshotFile
    from pipeline.spec import ModelSpec

Array = NDArray[Any]
FrameAndTarget = tuple[Any, Array]
"""Features of some rows, and their target."""

BATCH_ROWS = 10_000
"""Rows that are transformed and learned at a time."""
PART_ROWS, PART_CELLS = 400_000, 16_000_000
"""The rough size of a part: rows, or cells if there are many features. One part is in memory at a time."""
MAX_PARTS = 128
"""All parts are open while they are written, and some systems allow a process only 256 open files."""


def shuffle_to_disk(
    spec: "ModelSpec", table: "SnapshotFile", rows: Array, features: Sequence[Feature], folder: Path
) -> "list[Callable[[], pyarrow.Table]]":
    """Write each masked row of a snapshot into a random one of several files; return a reader for each file.

    Reading the files in random order, and the rows of each in random order, shuffles all rows, even of a sorted table.
    The order depends on the spec's seed alone, not on how the snapshot's file was written.
    """
    import pyarrow as pa

    count = int(rows.sum())
    size = max(BATCH_ROWS, min(PART_ROWS, PART_CELLS // len(features)))
    parts = min(-(-count // size), MAX_PARTS)
    if parts == 0:
        return []
    names = [*(feature.name for feature in features), spec.target]
    part_of_row = np.random.default_rng(spec.seed).integers(0, parts, count, dtype=np.uint16)
    schema = pa.schema([table.schema.field(name) for name in names])
    paths = [folder / f"{part}.arrow" for part in range(parts)]
    writers = [arrow_writer(path, schema) for path in paths]
    try:
        start = 0
        for group in table.groups(rows, names):
            part_numbers = part_of_row[start : start + len(group)]
            start += len(group)
            ordered = group.take(np.argsort(part_numbers, kind="stable"))
            ends = np.cumsum(np.bincount(part_numbers, minlength=parts)).tolist()
            for writer, first, end in zip(writers, [0, *ends], ends, strict=False):
                if end > first:
                    writer.write_table(ordered.slice(first, end - first))
    finally:
        for writer in writers:
            writer.close()

    def reader(path: Path) -> "Callable[[], pyarrow.Table]":
        return lambda: pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    return [reader(path) for path in paths]


def fit_in_batches(
    spec: "ModelSpec",
    estimator: Any,
    frame: pd.DataFrame,
    y: Array,
    parts: "Sequence[Callable[[], pyarrow.Table]]",
    features: Sequence[Feature],
) -> Any:
    """Fit an estimator's transformers on a frame, then train its learner on the frame and the parts. Return it.

    The learner sees all rows `epochs` times, each time in another order. The rows of the frame, which no part has, are
    spread evenly over the parts. For a classifier, the frame must have all the labels.
    """
    fitted = fit_transformers(estimator, frame, y)
    labels = {"classes": np.unique(y)} if is_classifier(fitted.learner) else {}
    rng = np.random.default_rng(spec.seed)
    for _ in range(spec.epochs or 1):
        frame_shares = np.array_split(rng.permutation(len(y)), max(len(parts), 1))
        shuffled = [parts[number] for number in rng.permutation(len(parts)).tolist()]
        for part, frame_rows in zip_longest(shuffled, frame_shares):
            part_batches = _part_batches(spec, fitted, part, features, rng) if part else ()
            for batch, truth in chain(_frame_batches(fitted, frame_rows), part_batches):
                fitted.learner.partial_fit(batch, truth, **labels)
    return fitted.estimator


@dataclass(frozen=True)
class PartiallyFitted:
    """An estimator that is fitted except for its learner.

    Attributes:
        estimator: the whole estimator, which contains the learner.
        learner: its last step, not yet trained.
        features: the rows it was fitted on, transformed as the learner takes them.
        target: their target, transformed in the same way; shape (n,).
        transforms: functions that transform the features and target of other rows, in this order.
    """

    estimator: Any
    learner: Any
    features: Any
    target: Array
    transforms: tuple[Callable[[Any, Array], FrameAndTarget], ...] = ()

    def transform(self, features: Any, y: Array) -> FrameAndTarget:
        """Return other rows as the learner takes them."""
        for transform in self.transforms:
            features, y = transform(features, y)
        return features, y


def fit_transformers(estimator: Any, features: Any, y: Array) -> PartiallyFitted:
    """Fit an estimator on some rows, except for its learner.

    Each kind of estimator fits its own part and leaves the rest to a recursive call. A search finds its parameters on
    these rows, as it does without batches. Raises ValueError if the learner cannot be trained in batches.
    """
    if isinstance(estimator, Pipeline):
        return _fit_pipeline(estimator, features, y)
    if isinstance(estimator, TransformedTargetRegressor):
        return _fit_transformed_target(estimator, features, y)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        estimator.fit(features, y)
        fitted = fit_transformers(clone(estimator.best_estimator_), features, y)
        estimator.best_estimator_ = fitted.estimator
        return replace(fitted, estimator=estimator)
    if reason := partial_fit_blocker(estimator):
        raise ValueError(f"the search chose {estimator!r:.80}, which {reason}")
    return PartiallyFitted(estimator, estimator, features, y)


def _fit_pipeline(pipeline: Pipeline, features: Any, y: Array) -> PartiallyFitted:
    *transformers, (name, last) = pipeline.steps
    if transformers:
        # Not fit, then transform: a target encoder leaves out a row's own target when it transforms its training rows.
        before = pipeline[:-1]
        features = before.fit_transform(features, y)
        transformers = before.steps
    fitted = fit_transformers(last, features, y)
    pipeline.steps = [*transformers, (name, fitted.estimator)]
    steps = [step for _, step in transformers if step is not None and step != "passthrough"]

    def transform(features: Any, y: Array) -> FrameAndTarget:
        for step in steps:
            features = step.transform(features)
        return features, y

    return replace(fitted, estimator=pipeline, transforms=(transform, *fitted.transforms))


def _fit_transformed_target(estimator: TransformedTargetRegressor, features: Any, y: Array) -> PartiallyFitted:
    regressor = estimator.regressor
    # With a dummy in place of the regressor, `fit` fits the target's transformer and nothing else.
    estimator.set_params(regressor=DummyRegressor()).fit(features, y)
    estimator.set_params(regressor=regressor)
    fitted = fit_transformers(clone(regressor), features, _transform_target(estimator, y))
    estimator.regressor_ = fitted.estimator

    def transform(features: Any, y: Array) -> FrameAndTarget:
        return features, _transform_target(estimator, y)

    return replace(fitted, estimator=estimator, transforms=(transform, *fitted.transforms))


def _transform_target(estimator: TransformedTargetRegressor, y: Array) -> Array:
    """Return a target as a TransformedTargetRegressor passes it to its regressor."""
    transformed: Array = estimator.transformer_.transform(y.reshape(-1, 1))
    return transformed.squeeze(axis=1) if transformed.ndim == 2 and transformed.shape[1] == 1 else transformed


def _frame_batches(fitted: PartiallyFitted, positions: Array) -> Iterator[FrameAndTarget]:
    """Yield the rows at some positions of the frame that the transformers were fitted on, in this order."""
    rows = getattr(fitted.features, "iloc", fitted.features)
    for start in range(0, len(positions), BATCH_ROWS):
        batch = positions[start : start + BATCH_ROWS]
        yield rows[batch], fitted.target[batch]


def _part_batches(
    spec: "ModelSpec",
    fitted: PartiallyFitted,
    part: "Callable[[], pyarrow.Table]",
    features: Sequence[Feature],
    rng: np.random.Generator,
) -> Iterator[FrameAndTarget]:
    """Yield the rows of a part in random order, as the learner takes them."""
    table = part()
    shuffled = rng.permutation(len(table))
    for start in range(0, len(shuffled), BATCH_ROWS):
        rows = table.take(shuffled[start : start + BATCH_ROWS])
        yield fitted.transform(to_frame(rows, features), target(spec.task.kind, rows.column(spec.target)))
