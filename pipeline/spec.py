"""The spec: everything one model is, on one screen, checked when it is built."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import SpecError, did_you_mean
from pipeline.field_kinds import of_kind
from pipeline.metrics import METRICS, Kind, metrics_of
from pipeline.project import project_package
from pipeline.sources import Source


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Predict a number, in `unit`."""

    unit: str = field(default="", metadata=of_kind("package"))
    kind: Kind = field(default="regression", init=False, metadata=of_kind("model"))


@dataclass(frozen=True, kw_only=True)
class BinaryClassification:
    """Predict one of two labels; `positive` is the one that metrics and probabilities are about."""

    positive: str | int | bool = field(metadata=of_kind("model"))
    kind: Kind = field(default="binary", init=False, metadata=of_kind("model"))


@dataclass(frozen=True, kw_only=True)
class MulticlassClassification:
    """Predict one of three or more labels."""

    kind: Kind = field(default="multiclass", init=False, metadata=of_kind("model"))


Task = Regression | BinaryClassification | MulticlassClassification


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a challenger must show on held-out rows before it may be released.

    `at_most` (or `at_least`, for metrics where greater is better) is the absolute threshold of the primary metric.
    `tolerance`, in units of the metric, is how much worse than the champion the worse end of the paired interval may
    be. Each value of the columns in `slices` with at least `slice_rows` held-out rows is judged too: refused when the
    challenger is worse there than the champion by more than `slice_tolerance`, beyond doubt.
    """

    at_most: float | None = field(default=None, metadata=of_kind("verdict"))
    at_least: float | None = field(default=None, metadata=of_kind("verdict"))
    tolerance: float = field(default=0.0, metadata=of_kind("verdict"))
    slices: tuple[str, ...] = field(default=(), metadata=of_kind("verdict"))
    slice_rows: int = field(default=30, metadata=of_kind("verdict"))
    slice_tolerance: float = field(default=0.0, metadata=of_kind("verdict"))

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise SpecError("gate: give exactly one of at_most and at_least, the absolute threshold of the metric")
        for name in ("tolerance", "slice_tolerance"):
            if getattr(self, name) < 0:
                raise SpecError(f"gate: {name} is {getattr(self, name)}; it is a distance, so give 0 or more")
        if self.slice_rows < 2:
            raise SpecError(f"gate: slice_rows is {self.slice_rows}; an interval needs at least 2 rows")
        _check_names("gate", "slices", self.slices)


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Which rows are held out: a `fraction`, by hash of the key.

    With a time column they are the newest `fraction`, or those of the newest `days`.
    """

    fraction: float = field(default=0.2, metadata=of_kind("model"))
    days: float | None = field(default=None, metadata=of_kind("model"))

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise SpecError(
                f"holdout: fraction is {self.fraction}; give a part of the rows, between 0 and 1, such as 0.2"
            )
        if self.days is not None and self.days <= 0:
            raise SpecError(f"holdout: days is {self.days}; give the length of the newest window, such as 90")


@dataclass(frozen=True, kw_only=True)
class BusinessValue:
    """What the predictions are worth to the business: `function(y_true, y_pred)`, in `unit`, beside the metrics."""

    function: Callable[[Any, Any], float] = field(metadata=of_kind("verdict"))
    unit: str = field(metadata=of_kind("verdict"))


@dataclass(frozen=True)
class Cron:
    """When to retrain: a five-field cron expression, in a time zone."""

    expression: str = field(metadata=of_kind("operations"))
    timezone: str = field(default="UTC", metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise SpecError(
                f"schedule: {self.expression!r} is no cron expression; give five fields, such as '0 3 * * 1'"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SpecError(
                f"schedule: {self.timezone!r} is no time zone; give an IANA name, such as 'America/Chicago'"
            ) from None


@dataclass(frozen=True, kw_only=True)
class Canary:
    """How a release proves itself on real requests before it answers all of them.

    It answers a `share` of the requests for so many `minutes`. It is sent back when, after both sides have answered
    `min_requests`, its share of errors, its nulls or its never-seen values a row exceed the champion's by more than
    `max_error_increase`, `max_null_increase` or `max_unseen_increase`; when the 95th percentile of its latency exceeds
    `max_latency_ratio` times the champion's; or when the population stability index of its predictions against the
    champion's exceeds `max_psi`.

    With `shadow` the champion answers all requests, and the release is asked a copy of its share: nobody sees what it
    answers, and how much that differs from the champion's answers is reported.
    """

    share: float = field(default=0.1, metadata=of_kind("operations"))
    minutes: float = field(default=30.0, metadata=of_kind("operations"))
    min_requests: int = field(default=100, metadata=of_kind("operations"))
    max_error_increase: float = field(default=0.01, metadata=of_kind("operations"))
    max_null_increase: float = field(default=0.5, metadata=of_kind("operations"))
    max_unseen_increase: float = field(default=0.1, metadata=of_kind("operations"))
    max_latency_ratio: float = field(default=3.0, metadata=of_kind("operations"))
    max_psi: float = field(default=0.25, metadata=of_kind("operations"))
    shadow: bool = field(default=False, metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        most = 1.0 if self.shadow else 0.5
        if not 0 < self.share <= most:
            raise SpecError(f"canary: share is {self.share}; give more than 0 and at most {most:g}, such as 0.1")
        if self.min_requests < 1:
            raise SpecError(f"canary: min_requests is {self.min_requests}; give 1 or more")
        for name in (
            "minutes",
            "max_error_increase",
            "max_null_increase",
            "max_unseen_increase",
            "max_latency_ratio",
            "max_psi",
        ):
            if not getattr(self, name) > 0:
                raise SpecError(f"canary: {name} is {getattr(self, name)}; give more than 0")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a column may move from what the champion was trained on before it is said to have drifted.

    `psi` is the most for the population stability index of numbers, `jensen_shannon` for the distance of categories; 0
    is no change. Fewer than 2,000 rows are compared by tests that data which did not drift fails with probability `p`.
    `nulls` is by how much the share of nulls may change, `duplicates` by how much the share of duplicate or of
    conflicting rows may grow. What drifted is reported; with `refuse` the data is rejected.
    """

    psi: float = field(default=0.2, metadata=of_kind("operations"))
    jensen_shannon: float = field(default=0.1, metadata=of_kind("operations"))
    p: float = field(default=0.001, metadata=of_kind("operations"))
    nulls: float = field(default=0.05, metadata=of_kind("operations"))
    duplicates: float = field(default=0.01, metadata=of_kind("operations"))
    refuse: bool = field(default=False, metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        for name in ("psi", "jensen_shannon", "nulls", "duplicates"):
            if not getattr(self, name) > 0:
                raise SpecError(f"drift: {name} is {getattr(self, name)}; give more than 0")
        if not 0 < self.p < 1:
            raise SpecError(f"drift: p is {self.p}; give a probability, between 0 and 1, such as 0.001")


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Tell people of a model by a POST of JSON to the address in an environment variable: model, subject, text."""

    url_env: str = field(metadata=of_kind("operations"))


@dataclass(frozen=True, kw_only=True)
class Slack:
    """Tell people of a model in Slack, by the incoming webhook in an environment variable."""

    url_env: str = field(metadata=of_kind("operations"))


@dataclass(frozen=True, kw_only=True)
class Email:
    """Tell people of a model by e-mail, through SendGrid with the key in an environment variable."""

    to: tuple[str, ...] = field(metadata=of_kind("operations"))
    sender: str = field(metadata=of_kind("operations"))
    key_env: str = field(default="SENDGRID_API_KEY", metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        _check_names("Email", "to", self.to)


Channel = Webhook | Slack | Email


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the endpoint accepts.

    Attributes:
        max_rows: rows of one request.
        max_body_bytes: bytes of the body of one request.
        max_concurrency: requests that are in flight at the same time.
        timeout_seconds: seconds to send one request, and seconds to answer it.
    """

    max_rows: int = field(default=10_000, metadata=of_kind("package"))
    max_body_bytes: int = field(default=16 * 2**20, metadata=of_kind("package"))
    max_concurrency: int = field(default=64, metadata=of_kind("package"))
    timeout_seconds: float = field(default=30.0, metadata=of_kind("package"))

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_body_bytes", "max_concurrency"):
            if getattr(self, name) < 1:
                raise SpecError(f"limits: {name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.timeout_seconds <= 60:
            raise SpecError(
                f"limits: timeout_seconds is {self.timeout_seconds}; give more than 0 and at most 60, as BentoML does"
            )


@dataclass(frozen=True, kw_only=True)
class RequestLog:
    """Which part of the requests the endpoint keeps a log of, with features that are not `sensitive`, key and answer.

    The log of a model takes up `max_bytes`, on each machine that serves it, and goes back `retention_days`.
    """

    sample_rate: float = field(default=0.1, metadata=of_kind("package"))
    max_bytes: int = field(default=10**9, metadata=of_kind("package"))
    retention_days: float = field(default=30.0, metadata=of_kind("package"))

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise SpecError(
                f"log: sample_rate is {self.sample_rate}; give a part of the requests, more than 0 and at most 1"
            )
        for name in ("max_bytes", "retention_days"):
            if not getattr(self, name) > 0:
                raise SpecError(f"log: {name} is {getattr(self, name)}; give more than 0")


TriggerName = Literal["performance", "drift", "new-data", "stale"]


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """When the served model is observed, and what has it retrained.

    The logged requests of the last `days` are compared with what the champion was trained on. Performance is lost when
    the better end of the metric's interval on labelled rows is worse than when the release was evaluated, by more than
    `tolerance`. A champion is stale when no run has confirmed or replaced it for `stale_days`.

    Attributes:
        schedule: when to observe it; None: only by `evergreen monitor`.
        days: the window of logged requests.
        min_rows: with fewer logged rows nothing is said of drift.
        min_labelled_rows: with fewer rows whose labels have arrived nothing is said of performance.
        min_drifted_columns: there is drift when at least so many columns drifted; predictions count as one.
        tolerance: how much worse the metric may be.
        stale_days: after so many days a champion is stale; None: never.
        retrain: the triggers that have the model retrained.
        cooldown_hours: no sooner than this after the last retraining.
    """

    schedule: Cron | None = field(default=None, metadata=of_kind("operations"))
    days: float = field(default=7.0, metadata=of_kind("operations"))
    min_rows: int = field(default=500, metadata=of_kind("operations"))
    min_labelled_rows: int = field(default=100, metadata=of_kind("operations"))
    min_drifted_columns: int = field(default=1, metadata=of_kind("operations"))
    tolerance: float = field(default=0.0, metadata=of_kind("operations"))
    stale_days: float | None = field(default=None, metadata=of_kind("operations"))
    retrain: tuple[TriggerName, ...] = field(
        default=("performance", "drift", "new-data", "stale"), metadata=of_kind("operations")
    )
    cooldown_hours: float = field(default=24.0, metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        for name in ("days", "min_rows", "min_labelled_rows", "min_drifted_columns", "cooldown_hours"):
            if not getattr(self, name) > 0:
                raise SpecError(f"monitor: {name} is {getattr(self, name)}; give more than 0")
        if self.tolerance < 0:
            raise SpecError(f"monitor: tolerance is {self.tolerance}; it is a distance, so give 0 or more")
        if self.stale_days is not None and not self.stale_days > 0:
            raise SpecError(f"monitor: stale_days is {self.stale_days}; give more than 0, or leave it out")
        _check_names("monitor", "retrain", self.retrain)
        if unknown := [name for name in self.retrain if name not in get_args(TriggerName)]:
            raise SpecError(f"monitor: retrain has {unknown[0]!r}; there are {', '.join(get_args(TriggerName))}")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything one model is.

    `key` names the columns that tell one row from another; where it is empty, all features together do.
    `features` defaults to every column of the snapshot that is neither key, target, time nor group.
    A feature is required in a request when it was never null in training. `nullable` names features that may be null
    all the same; `required`, instead, names the only ones that may not.
    With `approval="manual"` a release waits for `evergreen promote`, its trial done.
    Of `sensitive` columns no value is ever shown: no example, no category, no histogram.
    With `sample`, so many training rows are drawn, stratified by the target: for what takes too long or does not fit.
    With `epochs`, too, candidates are compared on the sample as without; what comes before the last step of the chosen
    one is fitted on it, and that step learns all training rows in batches, so many times over, by its `partial_fit`.
    `labels` is where the truth about logged requests arrives: rows with the key and the target, however late.
    `keep_releases` is how many of its newest releases are kept, however old; the champion and the release it replaced
    always are.
    A run that takes longer than `time_limit` is ended; the champion stays.
    `notify` says where people are told of rejected data, failed trials, alarms, drift, and what is kept too often.
    `candidates` are unfitted scikit-learn estimators: pipelines and search objects included.
    Raises SpecError, naming the field and the way out, when a part contradicts another.
    """

    name: str = field(metadata=of_kind("model"))
    source: Source = field(metadata=of_kind("operations"))
    key: tuple[str, ...] = field(metadata=of_kind("model"))
    target: str = field(metadata=of_kind("model"))
    task: Task = field(metadata=of_kind("model"))
    candidates: Mapping[str, Any] = field(metadata=of_kind("model"))
    metric: str = field(metadata=of_kind("model"))
    gate: Gate = field(metadata=of_kind("verdict"))
    features: tuple[str, ...] | None = field(default=None, metadata=of_kind("model"))
    time: str | None = field(default=None, metadata=of_kind("model"))
    group: str | None = field(default=None, metadata=of_kind("model"))
    nullable: tuple[str, ...] = field(default=(), metadata=of_kind("model"))
    required: tuple[str, ...] | None = field(default=None, metadata=of_kind("model"))
    sensitive: tuple[str, ...] = field(default=(), metadata=of_kind("package"))
    drift: Drift = field(default=Drift(), metadata=of_kind("operations"))
    holdout: Holdout = field(default=Holdout(), metadata=of_kind("model"))
    sample: int | None = field(default=None, metadata=of_kind("model"))
    epochs: int | None = field(default=None, metadata=of_kind("model"))
    folds: int = field(default=5, metadata=of_kind("model"))
    value: BusinessValue | None = field(default=None, metadata=of_kind("verdict"))
    schedule: Cron | None = field(default=None, metadata=of_kind("operations"))
    limits: Limits = field(default=Limits(), metadata=of_kind("package"))
    canary: Canary | None = field(default=None, metadata=of_kind("operations"))
    log: RequestLog | None = field(default=None, metadata=of_kind("package"))
    labels: Source | None = field(default=None, metadata=of_kind("operations"))
    monitor: Monitor = field(default_factory=Monitor, metadata=of_kind("operations"))
    approval: Literal["none", "manual"] = field(default="none", metadata=of_kind("operations"))
    seed: int = field(default=0, metadata=of_kind("model"))
    keep_releases: int = field(default=5, metadata=of_kind("operations"))
    time_limit: timedelta = field(default=timedelta(hours=6), metadata=of_kind("operations"))
    notify: tuple[Channel, ...] = field(default=(), metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.name):
            raise SpecError(
                f"name: {self.name!r} cannot name a model; use lower-case letters, digits and _, as in 'house_prices'"
            )
        for field_name in ("key", "features", "nullable", "required", "sensitive"):
            _check_names(self.name, field_name, getattr(self, field_name))
        if not isinstance(self.task, Task):
            raise SpecError(
                f"{self.name}: task is {self.task!r:.80}; give Regression(), BinaryClassification(positive=...) or "
                "MulticlassClassification()"
            )
        self._check_columns()
        self._check_candidates()
        self._check_metric()
        if self.time and self.group:
            raise SpecError(
                f"{self.name}: time={self.time!r} and group={self.group!r} exclude each other, since the newest window "
                "cannot hold out whole groups; give one of them"
            )
        if self.holdout.days is not None and not self.time:
            raise SpecError(
                f"{self.name}: holdout has days={self.holdout.days} but there is no time column; give time="
            )
        if self.labels is not None:
            self._check_labels()
        if self.approval not in ("none", "manual"):
            raise SpecError(f"{self.name}: approval is {self.approval!r}; give 'none' or 'manual'")
        if self.keep_releases < 1:
            raise SpecError(
                f"{self.name}: keep_releases is {self.keep_releases}; the newest release is always kept, "
                "so give 1 or more"
            )
        if self.time_limit <= timedelta(0):
            raise SpecError(f"{self.name}: time_limit is {self.time_limit}; give how long a run may take")
        if not isinstance(self.notify, tuple) or not all(isinstance(one, Channel) for one in self.notify):
            raise SpecError(
                f"{self.name}: notify is {self.notify!r:.80}; give a tuple, such as (Slack(url_env='...'),)"
            )
        for variable in (one.key_env if isinstance(one, Email) else one.url_env for one in self.notify):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                raise SpecError(f"{self.name}: notify names no environment variable; give its name, not what is in it")
        if self.folds < 2:
            raise SpecError(f"{self.name}: folds is {self.folds}; cross-validation needs 2 or more")
        if self.sample is not None and self.sample < 10 * self.folds:
            raise SpecError(
                f"{self.name}: sample is {self.sample}; give the number of rows to train on, {10 * self.folds} or more"
            )

        if self.epochs is not None:
            self._check_epochs(self.epochs)

    def _check_epochs(self, epochs: int) -> None:
        from pipeline.incremental import learner, partial_fit_blocker

        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
            raise SpecError(f"{self.name}: epochs is {epochs!r}; give how often all rows are learned, 1 or more")
        if self.sample is None:
            raise SpecError(
                f"{self.name}: epochs is {epochs} but there is no sample, on which candidates are compared and their "
                "transformers fitted; give sample="
            )
        for name, estimator in self.candidates.items():
            if reason := partial_fit_blocker(estimator):
                raise SpecError(
                    f"{self.name}: epochs is {epochs}, but candidate {name!r} ends in {learner(estimator)!r:.80}, "
                    f"which {reason}; take it out, or leave out epochs and all are trained on the sample"
                )

    def _check_columns(self) -> None:
        if self.features == ():
            raise SpecError(f"{self.name}: features is empty; name some, or leave it out to take every other column")
        for role, found in {"time": self.time, "group": self.group}.items():
            if found == self.target:
                raise SpecError(f"{self.name}: {role} is {found!r}, which is the target; name another column")
        outside = {
            "target": (self.target,),
            "key": self.key,
            "group": (self.group,) if self.group else (),
        }
        for role, columns in outside.items():
            for column in columns:
                if column in (self.features or ()):
                    raise SpecError(
                        f"{self.name}: features has {column!r}, which is the {role}; take it out of features"
                    )
        if self.target in self.key:
            raise SpecError(f"{self.name}: key has {self.target!r}, which is the target; take it out of key")
        if self.required is not None and self.nullable:
            raise SpecError(f"{self.name}: nullable and required say the same from two ends; give one of them")
        for role, columns in {
            "nullable": self.nullable,
            "required": self.required or (),
        }.items():
            for column in columns:
                others = {*self.key, self.target, self.time, self.group}
                if column in others if self.features is None else column not in self.features:
                    hint = did_you_mean(column, self.features or ())
                    raise SpecError(f"{self.name}: {role} has {column!r}, which is no feature{hint}")

    def _check_labels(self) -> None:
        way_out = "labels are joined to the log of requests by the key"
        if self.log is None:
            raise SpecError(f"{self.name}: labels is given but no log; {way_out}, so give log=RequestLog()")
        if not self.key:
            raise SpecError(f"{self.name}: labels is given but no key; {way_out}, so name one, or leave labels out")
        if hidden := [name for name in self.key if name in self.sensitive]:
            raise SpecError(f"{self.name}: {way_out}, but its {hidden[0]!r} is sensitive and never logged")

    def _check_candidates(self) -> None:
        if not isinstance(self.candidates, Mapping):
            raise SpecError(
                f"{self.name}: candidates is a {type(self.candidates).__name__}; give names: {{'ridge': ...}}"
            )
        if not self.candidates:
            raise SpecError(f"{self.name}: candidates is empty; give at least one unfitted scikit-learn estimator")
        for name, estimator in self.candidates.items():
            if isinstance(estimator, type) or not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
                raise SpecError(
                    f"{self.name}: candidate {name!r} is {estimator!r:.80}, not an unfitted scikit-learn estimator"
                )

    def _check_metric(self) -> None:
        known = metrics_of(self.task.kind)
        if self.metric not in known:
            hint = did_you_mean(self.metric, METRICS)
            raise SpecError(
                f"{self.name}: metric {self.metric!r} is none of the {self.task.kind} metrics {', '.join(known)}{hint}"
            )
        greater = known[self.metric].greater_is_better
        if greater and self.gate.at_least is None:
            raise SpecError(f"{self.name}: of {self.metric} more is better, so the gate takes at_least, not at_most")
        if not greater and self.gate.at_most is None:
            raise SpecError(f"{self.name}: of {self.metric} less is better, so the gate takes at_most, not at_least")

    @property
    def greater_is_better(self) -> bool:
        """Which way the primary metric improves."""
        return METRICS[self.metric].greater_is_better


def _check_names(owner: str, field_name: str, names: object) -> None:
    if names is None:
        return
    if isinstance(names, str) or not isinstance(names, tuple):
        raise SpecError(f"{owner}: {field_name} is {names!r}; give a tuple of column names, such as ('Id',)")
    for name in names:
        if not isinstance(name, str) or not name:
            raise SpecError(f"{owner}: {field_name} has {name!r}; column names are non-empty strings")
        if names.count(name) > 1:
            raise SpecError(f"{owner}: {field_name} names {name!r} twice; name it once")


def model_names() -> list[str]:
    """Return the names of all models of this project, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(project_package("pipeline").__path__)
        if not module.name.startswith("_")
    )


def check_name(name: str) -> None:
    """Raise SpecError, with the way out, when there is no model of that name."""
    known = model_names()
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise SpecError(f"there is no model {name!r} in pipeline/models{hint}")


def load_spec(name: str) -> ModelSpec:
    """Import the model's module and return its spec.

    Raises SpecError when there is no such model, or its module holds no spec of that name.
    """
    check_name(name)
    spec = getattr(importlib.import_module(f"pipeline.models.{name}"), "spec", None)
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"pipeline/models/{name}.py has no `spec = ModelSpec(...)`; add it")
    if spec.name != name:
        raise SpecError(f"pipeline/models/{name}.py holds the spec of {spec.name!r}; file and model share one name")
    return spec
