"""Fit a pipeline on more rows than fit into memory: its last step learns them in batches, by `partial_fit`."""

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
from pipeline.predict import target
from pipeline.schema import Feature, to_frame

if TYPE_CHECKING:
    import pyarrow

    from pipeline.snapshot import SnapshotFile
    from pipeline.spec import ModelSpec

Array = NDArray[Any]
FrameAndTarget = tuple[Any, Array]
"""Some rows' features, and their target."""

BATCH_ROWS = 10_000
"""So many rows are transformed, and learned, at a time."""
PART_ROWS, PART_CELLS = 400_000, 16_000_000
"""A part has about so many rows, or fewer where they have many features. One part is in memory at a time."""
MAX_PARTS = 128
"""All are open while they are written, and on some machines a process may have no more than 256 files open."""


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


def partial_fit_blocker(estimator: Any) -> str | None:
    """Return why the learner of an estimator cannot learn in batches; None where nothing is known that forbids it.

    >>> from sklearn.linear_model import Ridge
    >>> why_not(Ridge())
    'has no partial_fit'
    """
    last = learner(estimator)
    # A network that is fitted by L-BFGS forgets what it learned before; scikit-learn's MLPRegressor does not say so.
    if not hasattr(last, "partial_fit") or getattr(last, "solver", None) == "lbfgs":
        return "has no partial_fit"
    if getattr(last, "early_stopping", False):
        return "would stop by rows of its own, which batches have none of (early_stopping=True)"
    if getattr(last, "class_weight", None) == "balanced":
        return "weighs labels by counts of all rows (class_weight='balanced'), where batches need the weights"
    return None


def shuffle_to_disk(
    spec: "ModelSpec", table: "SnapshotFile", rows: Array, features: Sequence[Feature], folder: Path
) -> "list[Callable[[], pyarrow.Table]]":
    """Write the masked rows of a snapshot into files, each row into a random one; return what reads each of them.

    With the rows of one file in a random order, and the files in one, that is a random order of all, also where the
    table is sorted. The spec's seed decides it, and nothing of how the snapshot's file was written.
    """
    import pyarrow as pa

    count = int(rows.sum())
    size = max(BATCH_ROWS, min(PART_ROWS, PART_CELLS // len(features)))
    parts = min(-(-count // size), MAX_PARTS)
    if parts == 0:
        return []
    names = [*(feature.name for feature in features), spec.target]
    numbers = np.random.default_rng(spec.seed).integers(0, parts, count, dtype=np.uint16)
    schema = pa.schema([table.schema.field(name) for name in names])
    paths = [folder / f"{part}.arrow" for part in range(parts)]
    writers = [arrow_writer(path, schema) for path in paths]
    try:
        start = 0
        for group in table.groups(rows, names):
            of = numbers[start : start + len(group)]
            start += len(group)
            ordered = group.take(np.argsort(of, kind="stable"))
            ends = np.cumsum(np.bincount(of, minlength=parts)).tolist()
            for writer, first, end in zip(writers, [0, *ends], ends, strict=False):
                if end > first:
                    writer.write_table(ordered.slice(first, end - first))
    finally:
        for writer in writers:
            writer.close()

    def reading(path: Path) -> "Callable[[], pyarrow.Table]":
        return lambda: pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    return [reading(path) for path in paths]


def fit_in_batches(
    spec: "ModelSpec",
    estimator: Any,
    frame: pd.DataFrame,
    y: Array,
    parts: "Sequence[Callable[[], pyarrow.Table]]",
    features: Sequence[Feature],
) -> Any:
    """Fit an estimator on the rows of a frame but for its learner; that learns them and those of some parts.

    It learns all of them as often as the spec's `epochs` say, each time in another order: of the frame's rows, which no
    part has, so many with each part. Of a classifier the frame has all the labels. Returns the estimator.
    """
    begun = fit_transformers(estimator, frame, y)
    labels = {"classes": np.unique(y)} if is_classifier(begun.learner) else {}
    rng = np.random.default_rng(spec.seed)
    for _ in range(spec.epochs or 1):
        pieces = np.array_split(rng.permutation(len(y)), max(len(parts), 1))
        shuffled = [parts[place] for place in rng.permutation(len(parts)).tolist()]
        for part, piece in zip_longest(shuffled, pieces):
            of_part = _of_part(spec, begun, part, features, rng) if part else ()
            for batch, truth in chain(_of_frame(begun, piece), of_part):
                begun.learner.partial_fit(batch, truth, **labels)
    return begun.estimator


@dataclass(frozen=True)
class PartiallyFitted:
    """An estimator that is fitted but for its learner, and what it was fitted on, as the learner is to be given it.

    `changes` are what other rows go through before they are learned.
    """

    estimator: Any
    learner: Any
    features: Any
    target: Array
    changes: tuple[Callable[[Any, Array], FrameAndTarget], ...] = ()

    def changed(self, features: Any, y: Array) -> FrameAndTarget:
        """Return other rows as the learner is given them."""
        for change in self.changes:
            features, y = change(features, y)
        return features, y


def fit_transformers(estimator: Any, features: Any, y: Array) -> PartiallyFitted:
    """Fit an estimator on some rows but for its learner.

    A search finds its parameters on these rows, as it does without batches. What a transformer makes of the rows that
    it is fitted on is not always what it makes of others: a target encoder leaves out the row itself.
    """
    if isinstance(estimator, Pipeline):
        *before, (name, last) = estimator.steps
        if before:
            transformers = estimator[:-1]
            features = transformers.fit_transform(features, y)
            before = transformers.steps
        begun = fit_transformers(last, features, y)
        estimator.steps = [*before, (name, begun.estimator)]
        steps = [step for _, step in before if step is not None and step != "passthrough"]

        def transform(features: Any, y: Array) -> FrameAndTarget:
            for step in steps:
                features = step.transform(features)
            return features, y

        return replace(begun, estimator=estimator, changes=(transform, *begun.changes))
    if isinstance(estimator, TransformedTargetRegressor):
        regressor = estimator.regressor
        # What changes the target is fitted by it alone.
        estimator.set_params(regressor=DummyRegressor()).fit(features, y)
        estimator.set_params(regressor=regressor)
        begun = fit_transformers(clone(regressor), features, _changed(estimator, y))
        estimator.regressor_ = begun.estimator
        changes = (lambda features, y: (features, _changed(estimator, y)), *begun.changes)
        return replace(begun, estimator=estimator, changes=changes)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        estimator.fit(features, y)
        begun = fit_transformers(clone(estimator.best_estimator_), features, y)
        estimator.best_estimator_ = begun.estimator
        return replace(begun, estimator=estimator)
    if reason := partial_fit_blocker(estimator):
        raise ValueError(f"the search chose {estimator!r:.80}, which {reason}")
    return PartiallyFitted(estimator, estimator, features, y)


def _changed(estimator: Any, y: Array) -> Array:
    """Return a target as a TransformedTargetRegressor gives it to its regressor."""
    changed: Array = estimator.transformer_.transform(y.reshape(-1, 1))
    return changed.squeeze(axis=1) if changed.ndim == 2 and changed.shape[1] == 1 else changed


def _of_frame(begun: PartiallyFitted, places: Array) -> Iterator[FrameAndTarget]:
    """Yield some of the rows that all but the learner was fitted on, in the order of `places`."""
    rows = getattr(begun.features, "iloc", begun.features)
    for start in range(0, len(places), BATCH_ROWS):
        some = places[start : start + BATCH_ROWS]
        yield rows[some], begun.target[some]


def _of_part(
    spec: "ModelSpec",
    begun: PartiallyFitted,
    part: "Callable[[], pyarrow.Table]",
    features: Sequence[Feature],
    rng: np.random.Generator,
) -> Iterator[FrameAndTarget]:
    """Yield the rows of a part in a random order, as the learner is given them."""
    table = part()
    shuffled = rng.permutation(len(table))
    for start in range(0, len(shuffled), BATCH_ROWS):
        rows = table.take(shuffled[start : start + BATCH_ROWS])
        yield begun.changed(to_frame(rows, features), target(spec.task.kind, rows.column(spec.target)))
