"""Training: cross-validate the candidates on the training rows alone, and fit the best one, the challenger."""

import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import digest
from pipeline.errors import ArtifactError, DataError, TrainingError
from pipeline.evaluate import score
from pipeline.files import (
    open_checked,
    pickle_bytes,
    read_json,
    scratch_folder,
    space_for,
    whole_folder,
    write_bytes,
    write_json,
)
from pipeline.predict import predict, target
from pipeline.processes import exit_with_parent
from pipeline.project import find_project, project_package
from pipeline.sample import stratified_sample
from pipeline.schema import describe, to_frame
from pipeline.snapshot import Snapshot, SnapshotFile
from pipeline.split import Rule, holdout_rule, split

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from pipeline.spec import ModelSpec, Task

Array = NDArray[Any]

MAX_BYTES = 3 * 2**30
"""Rough limit of the memory of all folds that are fitted at the same time."""
COPIES = 4
"""Rough number of copies of its rows that a fold holds: the rows, a scaler's output and a solver's working copies."""


@dataclass(frozen=True)
class Candidate:
    """The result of a candidate in cross-validation.

    Attributes:
        name: its name in the spec.
        scores: the primary metric of each fold; empty if it raised.
        seconds: time of all its folds.
        error: why it was left out; None if it was not.
        notes: warnings that it gave.
    """

    name: str
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the folds; None when the candidate was left out."""
        return float(np.mean(self.scores)) if self.error is None else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the metric over the folds; None when the candidate was left out."""
        return float(np.std(self.scores)) if self.error is None else None


@dataclass(frozen=True)
class Trained:
    """A trained challenger on disk.

    Attributes:
        folder: where its files are.
        chosen: the name of the best candidate.
        candidates: the results of all candidates.
        rule: which rows were held out.
        training_rows: number of rows it was trained on.
        holdout_rows: number of rows held out.
        model_digest: digest of the file of the pickled estimator.
        created: when it was trained, in UTC.
        sampled_from: number of rows that the training rows were sampled from; None without a sample.
        epochs: how often it learned all training rows in batches; None without batches.
        compared_on: with epochs, the number of rows that candidates were compared on.
    """

    folder: Path
    chosen: str
    candidates: tuple[Candidate, ...]
    rule: Rule
    training_rows: int
    holdout_rows: int
    model_digest: str
    created: str
    sampled_from: int | None = None
    epochs: int | None = None
    compared_on: int | None = None

    @property
    def rows(self) -> dict[str, int]:
        """The numbers of rows as manifests hold them: training, holdout, and those of the others that are not None."""
        facts = {name: getattr(self, name) for name in ("sampled_from", "epochs", "compared_on")}
        known = {name: value for name, value in facts.items() if value is not None}
        return {"training": self.training_rows, "holdout": self.holdout_rows} | known

    def estimator(self) -> Any:
        """Load the fitted estimator; raises ArtifactError if its file has changed."""
        return load_estimator(self.folder / "model.joblib", self.model_digest)


def train(spec: "ModelSpec", snapshot: Snapshot, folder: Path, workers: int | None = None) -> Trained:
    """Cross-validate every candidate, fit the best on all training rows, and write it to `folder`, whole or not at all.

    Every `random_state` that is None becomes the spec's seed, every `n_jobs` becomes 1 and linear algebra runs on one
    thread, so the same snapshot and spec give the same predictions. Memory holds only the training rows, or with
    `epochs` the sample and one part of the others. If folds are large, fewer are fitted at a time. A candidate that
    raises is reported and left out. Raises TrainingError, with all reasons, if every candidate raises.
    """
    from pipeline.incremental import fit_in_batches, shuffle_to_disk

    table = SnapshotFile(snapshot.path)
    rule = holdout_rule(spec, table)
    mask = split(rule, table)
    rows = stratified_sample(spec, table, ~mask)
    features, beside = describe(spec, table).features, {spec.target, spec.time, spec.group} - {None}
    frame = to_frame(table.filter(rows, [feature.name for feature in features]), features)
    training = table.filter(rows, [name for name in table.column_names if name in beside])
    y = target(spec.task.kind, training.column(spec.target))
    candidates = _cross_validate(spec, frame, y, _folds(spec, training, y), workers or _workers(frame))
    if spec.epochs:
        with space_for(folder), scratch_folder(folder.parent) as scratch:
            parts = shuffle_to_disk(spec, table, ~mask & ~rows, features, scratch)
            chosen, pickled, candidates = _fit_best(
                spec, candidates, lambda estimator: fit_in_batches(spec, estimator, frame, y, parts, features)
            )
    else:
        chosen, pickled, candidates = _fit_best(spec, candidates, lambda estimator: estimator.fit(frame, y))
    compared, left = int(rows.sum()), int((~mask).sum())
    with whole_folder(folder) as part:
        write_bytes(part / "model.joblib", pickled)
        facts = {
            "chosen": chosen,
            "candidates": [asdict(candidate) for candidate in candidates],
            "rule": rule.to_dict(),
            "training_rows": left if spec.epochs else compared,
            "holdout_rows": int(mask.sum()),
            "sampled_from": left if compared < left and not spec.epochs else None,
            "epochs": spec.epochs,
            "compared_on": compared if spec.epochs else None,
            "model_digest": digest.of_file(part / "model.joblib"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(part / "trained.json", facts)
    return load_trained(folder)


def load_trained(folder: Path) -> Trained:
    """Return what `train` wrote to a folder; raises ArtifactError if it is missing or incomplete."""
    try:
        facts = read_json(folder / "trained.json")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{folder} holds no trained model ({error}); run again to train it", code="artifact.not_trained"
        ) from error
    candidates = tuple(
        Candidate(
            **{
                **candidate,
                "scores": tuple(candidate["scores"]),
                "notes": tuple(candidate["notes"]),
            }
        )
        for candidate in facts.pop("candidates")
    )
    return Trained(
        folder=folder,
        candidates=candidates,
        rule=Rule.from_dict(facts.pop("rule")),
        **facts,
    )


def load_estimator(path: Path, expected: str) -> Any:
    """Check the digest of an estimator's file, then unpickle it; raises ArtifactError if the digest is another one."""
    import joblib

    with open_checked(path, expected) as file:
        return joblib.load(file)


def _folds(spec: "ModelSpec", training: "pyarrow.Table", y: Array) -> list[tuple[Array, Array]]:
    """Return (training rows, scored rows) per fold, as positions among the training rows."""
    from sklearn import model_selection as ms

    if spec.task.kind == "binary":
        _check_rarer(spec, y)
    classes = spec.task.kind != "regression"
    shuffled: dict[str, Any] = {
        "n_splits": spec.folds,
        "shuffle": True,
        "random_state": spec.seed,
    }
    groups = None
    order = np.arange(len(y))
    if spec.time:
        order = np.argsort(training.column(spec.time).to_numpy(), kind="stable")
        folds: Any = ms.TimeSeriesSplit(n_splits=spec.folds)
    elif spec.group:
        groups = np.array([str(value) for value in training.column(spec.group).to_pylist()])
        folds = ms.StratifiedGroupKFold(**shuffled) if classes else ms.GroupKFold(**shuffled)
    else:
        folds = ms.StratifiedKFold(**shuffled) if classes else ms.KFold(**shuffled)
    try:
        return [(order[fit], order[scored]) for fit, scored in folds.split(order, y, groups)]
    except ValueError as error:
        raise DataError(
            f"{len(y)} training rows of {spec.name} cannot be split into {spec.folds} folds: {error}; use more rows, "
            "or fewer folds",
            code="data.too_few_rows",
        ) from error


def _check_rarer(spec: "ModelSpec", y: Array) -> None:
    """Raise DataError if a fold would lack one of two labels, since metrics are undefined on it."""
    labels, counts = np.unique(y, return_counts=True)
    rarer = int(counts.argmin())
    if len(labels) < 2 or counts[rarer] < spec.folds:
        held = f"in {counts[rarer]} of {len(y):,}" if len(labels) > 1 else f"in each of {len(y):,}"
        raise DataError(
            f"the target {spec.target!r} is {labels.tolist()[rarer]!r} {held} training rows of {spec.name}, which "
            f"cannot be split into {spec.folds} folds with both labels; use more rows of the rarer, or fewer folds",
            code="data.rare_label",
        )


def _workers(frame: "pandas.DataFrame") -> int:
    """Return how many folds to fit at a time: one per core, or fewer if their copies would exceed MAX_BYTES."""
    import joblib

    size = max(int(frame.memory_usage(deep=False).sum()), 1)
    return max(1, min(joblib.cpu_count(), MAX_BYTES // (COPIES * size)))


def _cross_validate(
    spec: "ModelSpec",
    frame: "pandas.DataFrame",
    y: Array,
    folds: list[tuple[Array, Array]],
    workers: int,
) -> list[Candidate]:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    tasks = [(name, fold) for name in spec.candidates for fold in range(len(folds))]
    # A worker unpickles estimators whose classes may be in the model's module, so it needs the project's import path.
    initializer = {"initializer": project_package, "initargs": ("pipeline",)} if find_project() else {}
    with joblib.parallel_config("loky", **initializer):
        results = joblib.Parallel(n_jobs=min(workers, len(tasks)))(
            joblib.delayed(_score_fold)(
                os.getpid(), spec.task, spec.metric, spec.seed, spec.candidates[name], frame, y, *folds[fold]
            )
            for name, fold in tasks
        )
    # Idle workers would otherwise keep their memory for minutes.
    get_reusable_executor().shutdown(wait=True)
    by_name: dict[str, list[Candidate]] = {name: [] for name in spec.candidates}
    for (name, _), result in zip(tasks, results, strict=True):
        by_name[name].append(result)
    return [_merge_folds(name, folds) for name, folds in by_name.items()]


def _merge_folds(name: str, folds: list[Candidate]) -> Candidate:
    return Candidate(
        name=name,
        scores=tuple(value for fold in folds for value in fold.scores),
        seconds=round(sum(fold.seconds for fold in folds), 3),
        error=next((fold.error for fold in folds if fold.error), None),
        notes=tuple(sorted({note for fold in folds for note in fold.notes})),
    )


def _score_fold(
    run: int,
    task: "Task",
    metric: str,
    seed: int,
    estimator: Any,
    frame: "pandas.DataFrame",
    y: Array,
    fit: Array,
    scored: Array,
) -> Candidate:
    """Return one fold's score or error, as a candidate without a name."""
    exit_with_parent(run)
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with _repeatable(seed):
                fitted = prepare(estimator, seed).fit(frame.iloc[fit], y[fit])
            value = score(task, metric, y[scored], predict(fitted, frame.iloc[scored]))
            error = None if np.isfinite(value) else f"its {metric} is {value}, which cannot be ranked"
        except Exception as raised:
            value, error = float("nan"), f"{type(raised).__name__}: {raised}"
    notes = tuple({f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}" for warning in caught})
    scores = () if error else (value,)
    return Candidate("", scores, time.perf_counter() - started, error, notes)


def _fit_best(
    spec: "ModelSpec",
    candidates: list[Candidate],
    fit: Callable[[Any], Any],
) -> tuple[str, bytes, list[Candidate]]:
    """Fit the best candidate with `fit` and pickle it; if it raises only now, try the next best."""
    sign = -1.0 if spec.greater_is_better else 1.0
    usable = [candidate for candidate in candidates if candidate.error is None]
    failed: dict[str, str] = {}
    for candidate in sorted(usable, key=lambda scored: sign * (scored.mean or 0.0)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with _repeatable(spec.seed):
                    estimator = fit(prepare(spec.candidates[candidate.name], spec.seed))
                pickled = pickle_bytes(estimator)
        except Exception as raised:
            before = ", its transformers fitted on the sample" if spec.epochs else ""
            failed[candidate.name] = f"on all training rows{before}: {type(raised).__name__}: {raised}"
            continue
        results = [replace(result, error=failed.get(result.name, result.error)) for result in candidates]
        return candidate.name, pickled, results
    reasons = "; ".join(f"{result.name}: {failed.get(result.name, result.error)}" for result in candidates)
    raise TrainingError(
        f"no candidate of {spec.name} could be trained: {reasons}", code="training.all_candidates_failed"
    )


def prepare(estimator: Any, seed: int) -> Any:
    """Return a clone whose unset `random_state`s are the seed and whose `n_jobs` are 1.

    A forest's parallel sum is not repeatable, and candidates already run in parallel.
    """
    from sklearn.base import clone

    copy = clone(estimator)
    changes: dict[str, Any] = {}
    for name, value in copy.get_params(deep=True).items():
        last = name.rpartition("__")[2]
        if last == "random_state" and value is None:
            changes[name] = seed
        elif last == "n_jobs" and value not in (None, 1):
            changes[name] = 1
    return copy.set_params(**changes)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed the global random generators, which a transformer may use, and run linear algebra on one thread."""
    from threadpoolctl import threadpool_limits

    random.seed(seed)
    np.random.seed(seed)
    with threadpool_limits(1):
        yield
