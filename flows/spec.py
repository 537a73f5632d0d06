"""Show a model's spec with its defaults filled in, and the types of its features if a run has seen them."""

from dataclasses import asdict
from itertools import groupby
from typing import Any

from flows.cli.views import FeatureView, SpecView, SuiteView, TaskView
from pipeline import sources
from pipeline.errors import ArtifactError, CheckError
from pipeline.schema import feature_names
from pipeline.settings import Settings
from pipeline.snapshot import load_snapshot
from pipeline.spec import ModelSpec


def resolved(spec: ModelSpec, snapshot: str | None, settings: Settings) -> SpecView:
    """Return a spec with its defaults filled in; `snapshot` is the digest of the last run's rows."""
    columns = _columns(snapshot, settings)
    names = spec.features or (feature_names(spec, [*columns]) if columns else None)
    return SpecView(
        model=spec.name,
        source=f"{type(spec.source).__name__} {sources.origin(spec.source)}",
        key=list(spec.key),
        target=spec.target,
        task=TaskView(**asdict(spec.task)),
        features=None if names is None else [FeatureView(name, columns.get(name)) for name in names],
        time=spec.time,
        group=spec.group,
        sensitive=list(spec.sensitive),
        drift=spec.drift,
        snapshot=snapshot if columns else None,
        candidates={name: steps(estimator) for name, estimator in spec.candidates.items()},
        metric=spec.metric,
        gate=spec.gate,
        holdout=spec.holdout,
        sample=spec.sample,
        epochs=spec.epochs,
        folds=spec.folds,
        value=spec.value.unit if spec.value else None,
        limits=spec.limits,
        canary=spec.canary,
        approval=spec.approval,
        log=spec.log,
        labels=f"{type(spec.labels).__name__} {sources.origin(spec.labels)}" if spec.labels else None,
        monitor=spec.monitor,
        schedule=spec.schedule,
        seed=spec.seed,
        keep=spec.keep_releases,
        notify=[type(channel).__name__ for channel in spec.notify],
        time_limit=str(spec.time_limit),
        suite=_suite(spec.name),
    )


def steps(estimator: Any) -> str:
    """Return the names of an estimator's steps.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> steps(make_pipeline(StandardScaler(), Ridge()))
    'StandardScaler > Ridge'
    """
    name = type(estimator).__name__
    if isinstance(estimator, str):
        return estimator
    if hasattr(estimator, "steps"):
        groups = [(name, len([*equal])) for name, equal in groupby(steps(step) for _, step in estimator.steps)]
        return " > ".join(f"{name} x{times}" if times > 1 else name for name, times in groups)
    for attribute in ("transformers", "transformer_list", "estimators"):
        if parts := getattr(estimator, attribute, None):
            return f"{name}({', '.join(dict.fromkeys(steps(part[1]) for part in parts))})"
    for attribute in ("regressor", "estimator"):
        if (inner := getattr(estimator, attribute, None)) is not None:
            return f"{name}({steps(inner)})"
    return name


def _columns(snapshot: str | None, settings: Settings) -> dict[str, str]:
    if snapshot is None:
        return {}
    try:
        return load_snapshot(settings.folder("snapshots") / f"{snapshot}.parquet").columns
    except ArtifactError:
        return {}


def _suite(model: str) -> SuiteView:
    """Return the number of rules in a model's suite, or the error that it raises."""
    from expectations.suite import load_suite

    try:
        suite = load_suite(model)
    except CheckError as error:
        return SuiteView(None, None, None, str(error))
    return SuiteView(len(suite.error), len(suite.warn), len(suite.quarantine), None)
