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
    """Predict a number.

    Attributes:
        unit: the unit of the target, such as "USD", for people.
    """

    unit: str = field(default="", metadata=of_kind("package"))
    kind: Kind = field(default="regression", init=False, metadata=of_kind("model"))


@dataclass(frozen=True, kw_only=True)
class BinaryClassification:
    """Predict one of two labels.

    Attributes:
        positive: the label that metrics and probabilities are about.
    """

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

    Set exactly one of `at_most` and `at_least`, the absolute threshold of the primary metric.

    Attributes:
        at_most: the threshold of a metric for which less is better.
        at_least: the threshold of a metric for which more is better.
        tolerance: how much worse than the champion the worse end of the paired interval may be, in units of the metric.
        slices: columns whose values are judged separately.
        slice_rows: min held-out rows of a value that is judged.
        slice_tolerance: a value refuses the challenger if even the better end of its interval is worse than the
            champion by more than this, in units of the metric.
    """

    at_most: float | None = field(default=None, metadata=of_kind("verdict"))
    at_least: float | None = field(default=None, metadata=of_kind("verdict"))
    tolerance: float = field(default=0.0, metadata=of_kind("verdict"))
    slices: tuple[str, ...] = field(default=(), metadata=of_kind("verdict"))
    slice_rows: int = field(default=30, metadata=of_kind("verdict"))
    slice_tolerance: float = field(default=0.0, metadata=of_kind("verdict"))

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            both = f"at_most is {self.at_most} and at_least is {self.at_least}"
            raise SpecError(
                f"gate: {both}; set exactly one of them, the threshold of the metric", code="spec.gate_threshold"
            )
        for name in ("tolerance", "slice_tolerance"):
            if getattr(self, name) < 0:
                raise _out_of_range("gate", name, getattr(self, name), "it is a distance, so set 0 or more")
        if self.slice_rows < 2:
            raise _out_of_range("gate", "slice_rows", self.slice_rows, "an interval needs at least 2 rows")
        _check_names("gate", "slices", self.slices)


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Which rows are held out of training, to judge the model on.

    Rows are selected by the hash of their key. If the spec has a time column, the newest rows are held out instead.

    Attributes:
        fraction: the part of the rows to hold out, between 0 and 1.
        days: hold out the newest days instead of a fraction; needs a time column.
    """

    fraction: float = field(default=0.2, metadata=of_kind("model"))
    days: float | None = field(default=None, metadata=of_kind("model"))

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise _out_of_range(
                "holdout", "fraction", self.fraction, "set a part of the rows, between 0 and 1, such as 0.2"
            )
        if self.days is not None and self.days <= 0:
            raise _out_of_range("holdout", "days", self.days, "set the length of the newest window, such as 90")


@dataclass(frozen=True, kw_only=True)
class BusinessValue:
    """What the predictions are worth to the business, reported beside the metrics.

    Attributes:
        function: takes `y_true` and `y_pred`, arrays of shape (n,), and returns the value.
        unit: the unit of that value, such as "USD".
    """

    function: Callable[[Any, Any], float] = field(metadata=of_kind("verdict"))
    unit: str = field(metadata=of_kind("verdict"))


@dataclass(frozen=True)
class Cron:
    """When to do something regularly.

    Attributes:
        expression: a cron expression of five fields, such as "0 3 * * 1".
        timezone: the IANA name of the time zone it is in.
    """

    expression: str = field(metadata=of_kind("operations"))
    timezone: str = field(default="UTC", metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise SpecError(
                f"schedule: {self.expression!r} is not a cron expression; give five fields, such as '0 3 * * 1'",
                code="spec.invalid_cron",
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SpecError(
                f"schedule: {self.timezone!r} is not a time zone; give an IANA name, such as 'America/Chicago'",
                code="spec.unknown_time_zone",
            ) from None


@dataclass(frozen=True, kw_only=True)
class Canary:
    """How a new release proves itself on real requests before it answers all of them.

    Servers roll the release back as soon as it exceeds one of the limits.

    Attributes:
        share: the part of the requests that the release answers; at most 0.5, in shadow mode 1.
        minutes: how long the canary runs.
        min_requests: requests that both sides must have answered before the limits apply.
        max_error_increase: how much its share of errors may exceed the champion's.
        max_null_increase: how much its nulls per row may exceed the champion's.
        max_unseen_increase: how much its categories per row that were not in training may exceed the champion's.
        max_latency_ratio: how many times the champion's the 95th percentile of its latency may be.
        max_psi: the max population stability index of its predictions against the champion's.
        shadow: the champion answers every request, and the release gets a copy of its share. Nobody sees its
            predictions; evergreen reports how much they differ from the champion's.
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
        max_share = 1.0 if self.shadow else 0.5
        if not 0 < self.share <= max_share:
            raise _out_of_range(
                "canary", "share", self.share, f"set more than 0 and at most {max_share:g}, such as 0.1"
            )
        if self.min_requests < 1:
            raise _out_of_range("canary", "min_requests", self.min_requests, "set 1 or more")
        for name in (
            "minutes",
            "max_error_increase",
            "max_null_increase",
            "max_unseen_increase",
            "max_latency_ratio",
            "max_psi",
        ):
            if not getattr(self, name) > 0:
                raise _out_of_range("canary", name, getattr(self, name), "set more than 0")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a column may differ from the champion's training data before it counts as drifted.

    Attributes:
        psi: the max population stability index of numbers; 0 is no change.
        jensen_shannon: the max Jensen-Shannon distance of categories; 0 is no change.
        p: with fewer than 2,000 rows evergreen uses significance tests instead; this is the probability that they
            report drift if there is none.
        nulls: how much the share of nulls may change.
        duplicates: how much the share of duplicate or of conflicting rows may grow.
        refuse: reject drifted data; otherwise drift is only reported.
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
                raise _out_of_range("drift", name, getattr(self, name), "set more than 0")
        if not 0 < self.p < 1:
            raise _out_of_range("drift", "p", self.p, "set a probability, between 0 and 1, such as 0.001")


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Notify people by a POST of JSON with model, subject and text.

    Attributes:
        url_env: the environment variable that holds the address.
    """

    url_env: str = field(metadata=of_kind("operations"))


@dataclass(frozen=True, kw_only=True)
class Slack:
    """Notify people in Slack.

    Attributes:
        url_env: the environment variable that holds the address of the incoming webhook.
    """

    url_env: str = field(metadata=of_kind("operations"))


@dataclass(frozen=True, kw_only=True)
class Email:
    """Notify people by e-mail, through SendGrid.

    Attributes:
        to: addresses of the recipients.
        sender: address of the sender.
        key_env: the environment variable that holds the SendGrid key.
    """

    to: tuple[str, ...] = field(metadata=of_kind("operations"))
    sender: str = field(metadata=of_kind("operations"))
    key_env: str = field(default="SENDGRID_API_KEY", metadata=of_kind("operations"))

    def __post_init__(self) -> None:
        _check_names("Email", "to", self.to, "addresses", "team@example.com")


Channel = Webhook | Slack | Email


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the endpoint accepts.

    Attributes:
        max_rows: max rows of one request.
        max_body_bytes: max bytes of the body of one request.
        max_concurrency: max requests in flight at the same time.
        timeout_seconds: max seconds to send one request, and max seconds to answer it; at most 60.
    """

    max_rows: int = field(default=10_000, metadata=of_kind("package"))
    max_body_bytes: int = field(default=16 * 2**20, metadata=of_kind("package"))
    max_concurrency: int = field(default=64, metadata=of_kind("package"))
    timeout_seconds: float = field(default=30.0, metadata=of_kind("package"))

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_body_bytes", "max_concurrency"):
            if getattr(self, name) < 1:
                raise _out_of_range("limits", name, getattr(self, name), "set 1 or more")
        if not 0 < self.timeout_seconds <= 60:
            raise _out_of_range(
                "limits", "timeout_seconds", self.timeout_seconds, "set more than 0 and at most 60, BentoML's maximum"
            )


@dataclass(frozen=True, kw_only=True)
class RequestLog:
    """Which requests the endpoint logs: key, prediction, and the features that are not `sensitive`.

    Attributes:
        sample_rate: the part of the requests to log.
        max_bytes: max size of a model's log on each machine that serves it; the oldest files are deleted first.
        retention_days: how many days entries are kept.
    """

    sample_rate: float = field(default=0.1, metadata=of_kind("package"))
    max_bytes: int = field(default=10**9, metadata=of_kind("package"))
    retention_days: float = field(default=30.0, metadata=of_kind("package"))

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise _out_of_range(
                "log", "sample_rate", self.sample_rate, "set a part of the requests, more than 0 and at most 1"
            )
        for name in ("max_bytes", "retention_days"):
            if not getattr(self, name) > 0:
                raise _out_of_range("log", name, getattr(self, name), "set more than 0")


TriggerName = Literal["performance", "drift", "new-data", "stale"]


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """When the served model is monitored, and which findings retrain it.

    Monitoring compares the logged requests of the last `days` with the champion's training data.

    Attributes:
        schedule: when to monitor; None: only on `evergreen monitor`.
        days: the window of logged requests, in days.
        min_rows: minimum logged rows before drift is computed.
        min_labelled_rows: minimum rows with labels before performance is computed.
        min_drifted_columns: number of drifted columns (predictions count as one) that triggers `drift`.
        tolerance: `performance` triggers if even the better end of the metric's interval is worse than at the
            release's evaluation by more than this, in units of the metric.
        stale_days: `stale` triggers if no run has confirmed or replaced the champion for this many days; None: never.
        retrain: the triggers that retrain the model.
        cooldown_hours: minimum hours since the last retraining before the next.
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
                raise _out_of_range("monitor", name, getattr(self, name), "set more than 0")
        if self.tolerance < 0:
            raise _out_of_range("monitor", "tolerance", self.tolerance, "it is a distance, so set 0 or more")
        if self.stale_days is not None and not self.stale_days > 0:
            raise _out_of_range("monitor", "stale_days", self.stale_days, "set more than 0, or None for never")
        _check_names("monitor", "retrain", self.retrain, "triggers", "drift")
        if unknown := [name for name in self.retrain if name not in get_args(TriggerName)]:
            raise SpecError(
                f"monitor: retrain lists {unknown[0]!r}, which is not a trigger; use some of "
                f"{', '.join(get_args(TriggerName))}",
                code="spec.unknown_trigger",
            )


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything one model is.

    Raises SpecError, naming the field and the way out, if a field is invalid or contradicts another one.

    Attributes:
        name: the name of the model and of its module in `pipeline/models`.
        source: where the rows come from.
        key: the columns that identify a row; if empty, all features together do.
        target: the column to predict.
        task: regression, or binary or multiclass classification.
        candidates: unfitted scikit-learn estimators by name; pipelines and searches are allowed.
        metric: the primary metric, which chooses the candidate and which the gate compares.
        gate: what a challenger must show before it may be released.
        features: the columns to predict from; None: every column that is not key, target, time or group.
        time: a column of times; the newest rows are held out, and folds never train on later rows than they score.
        group: a column whose groups are held out and folded as a whole.
        nullable: features that a request may leave null although they were never null in training.
        required: the only features that a request may not leave null; None: those that were never null in training.
        sensitive: columns whose values are never shown: no example, no category, no histogram.
        drift: how far a column may move before it counts as drifted.
        holdout: which rows are held out.
        sample: train on a stratified sample of this many rows, if training is slow or the data exceeds memory.
        epochs: fit the chosen candidate's transformers on the sample, then train its last step on all training rows
            this many times, in batches, by `partial_fit`. Candidates are compared on the sample.
        folds: the number of cross-validation folds.
        value: what the predictions are worth to the business; None: not computed.
        schedule: when to retrain; None: only on `evergreen run` and by triggers.
        limits: what the endpoint accepts.
        canary: how a release proves itself on real requests; None: it answers all of them at once.
        log: which requests are logged; None: none.
        labels: the source of true labels of logged requests: rows with the key and the target, however late.
        monitor: when the served model is monitored, and which findings retrain it.
        approval: with "manual", a release that passed its trial waits for `evergreen promote`.
        seed: the seed of everything random.
        keep_releases: how many of the newest releases are kept; the champion and the release it replaced always are.
        time_limit: a run that takes longer is stopped, and the champion stays.
        notify: where to send notifications: rejected data, failed trials, alarms, drift, repeated refusals.
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
                f"name: {self.name!r} cannot name a model; use lower-case letters, digits and _, as in 'house_prices'",
                code="spec.invalid_name",
            )
        for field_name in ("key", "features", "nullable", "required", "sensitive"):
            _check_names(self.name, field_name, getattr(self, field_name))
        if not isinstance(self.task, Task):
            raise SpecError(
                f"{self.name}: task is {self.task!r:.80}; use Regression(), BinaryClassification(positive=...) or "
                "MulticlassClassification()",
                code="spec.invalid_task",
            )
        self._check_columns()
        self._check_candidates()
        self._check_metric()
        if self.time and self.group:
            raise SpecError(
                f"{self.name}: time={self.time!r} and group={self.group!r} exclude each other, since the newest window "
                "cannot hold out whole groups; set only one of them",
                code="spec.time_and_group",
            )
        if self.holdout.days is not None and not self.time:
            raise SpecError(
                f"{self.name}: holdout has days={self.holdout.days} but there is no time column; set time=, or use "
                "fraction= instead of days=",
                code="spec.days_without_time",
            )
        if self.labels is not None:
            self._check_labels()
        if self.approval not in ("none", "manual"):
            raise SpecError(
                f"{self.name}: approval is {self.approval!r}; use 'none' or 'manual'", code="spec.invalid_approval"
            )
        if self.keep_releases < 1:
            way_out = "the newest release is always kept, so set 1 or more"
            raise _out_of_range(self.name, "keep_releases", self.keep_releases, way_out)
        if self.time_limit <= timedelta(0):
            raise _out_of_range(self.name, "time_limit", self.time_limit, "set how long a run may take, more than 0")
        if not isinstance(self.notify, tuple) or not all(isinstance(channel, Channel) for channel in self.notify):
            raise SpecError(
                f"{self.name}: notify is {self.notify!r:.80}; use a tuple, such as (Slack(url_env='...'),)",
                code="spec.invalid_notify",
            )
        for channel in self.notify:
            self._check_environment_variable(channel.key_env if isinstance(channel, Email) else channel.url_env)
        if self.folds < 2:
            raise _out_of_range(self.name, "folds", self.folds, "cross-validation needs 2 or more")
        if self.sample is not None and self.sample < 10 * self.folds:
            way_out = f"set the number of rows to train on, {10 * self.folds} or more"
            raise _out_of_range(self.name, "sample", self.sample, way_out)
        if self.epochs is not None:
            self._check_epochs(self.epochs)

    def _check_environment_variable(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # The value is not quoted: it may be the secret itself.
            raise SpecError(
                f"{self.name}: notify has a text that is not the name of an environment variable; set the name of the "
                "variable, not its value",
                code="spec.invalid_environment_variable",
            )

    def _check_epochs(self, epochs: int) -> None:
        from pipeline.learner import learner, partial_fit_blocker

        if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
            raise _out_of_range(self.name, "epochs", repr(epochs), "set how often all rows are learned, 1 or more")
        if self.sample is None:
            raise SpecError(
                f"{self.name}: epochs is {epochs} but there is no sample to compare candidates and fit transformers "
                "on; set sample=",
                code="spec.epochs_without_sample",
            )
        for name, estimator in self.candidates.items():
            if reason := partial_fit_blocker(estimator):
                raise SpecError(
                    f"{self.name}: epochs is {epochs}, but candidate {name!r} ends in {learner(estimator)!r:.80}, "
                    f"which {reason}; remove the candidate, or drop epochs to train all candidates on the sample",
                    code="spec.no_partial_fit",
                )

    def _check_columns(self) -> None:
        if self.features == ():
            raise SpecError(
                f"{self.name}: features is empty; name some, or leave it out to use every other column",
                code="spec.no_features",
            )
        for role, column in {"time": self.time, "group": self.group}.items():
            if column == self.target:
                raise SpecError(
                    f"{self.name}: {role} is {column!r}, which is the target; name another column",
                    code="spec.column_in_two_roles",
                )
        outside = {
            "target": (self.target,),
            "key": self.key,
            "group": (self.group,) if self.group else (),
        }
        for role, columns in outside.items():
            for column in columns:
                if column in (self.features or ()):
                    raise SpecError(
                        f"{self.name}: features lists {column!r}, which is the {role}; remove it from features",
                        code="spec.column_in_two_roles",
                    )
        if self.target in self.key:
            raise SpecError(
                f"{self.name}: key lists {self.target!r}, which is the target; remove it from key",
                code="spec.column_in_two_roles",
            )
        if self.required is not None and self.nullable:
            raise SpecError(
                f"{self.name}: set either `nullable` or `required`, not both", code="spec.nullable_and_required"
            )
        for role, columns in {
            "nullable": self.nullable,
            "required": self.required or (),
        }.items():
            for column in columns:
                others = {*self.key, self.target, self.time, self.group}
                if column in others if self.features is None else column not in self.features:
                    hint = did_you_mean(column, self.features or ())
                    raise SpecError(
                        f"{self.name}: {role} lists {column!r}, which is not a feature{hint}",
                        code="spec.unknown_feature",
                    )

    def _check_labels(self) -> None:
        why = "labels are joined to the request log by the key"
        if self.log is None:
            raise SpecError(
                f"{self.name}: labels is set but log is not; {why}, so set log=RequestLog()",
                code="spec.labels_without_log",
            )
        if not self.key:
            raise SpecError(
                f"{self.name}: labels is set but key is empty; {why}, so name the key, or leave labels out",
                code="spec.labels_without_key",
            )
        if hidden := [name for name in self.key if name in self.sensitive]:
            raise SpecError(
                f"{self.name}: labels is set but the key column {hidden[0]!r} is sensitive and never logged; {why}, so "
                "remove it from sensitive, or leave labels out",
                code="spec.sensitive_key",
            )

    def _check_candidates(self) -> None:
        if not isinstance(self.candidates, Mapping):
            raise SpecError(
                f"{self.name}: candidates is a {type(self.candidates).__name__}; use a dict, such as {{'ridge': ...}}",
                code="spec.invalid_candidates",
            )
        if not self.candidates:
            raise SpecError(
                f"{self.name}: candidates is empty; add at least one unfitted scikit-learn estimator",
                code="spec.invalid_candidates",
            )
        for name, estimator in self.candidates.items():
            if isinstance(estimator, type) or not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
                raise SpecError(
                    f"{self.name}: candidate {name!r} is {estimator!r:.80}; use an unfitted scikit-learn estimator, "
                    "such as Ridge()",
                    code="spec.invalid_candidates",
                )

    def _check_metric(self) -> None:
        known = metrics_of(self.task.kind)
        if self.metric not in known:
            hint = did_you_mean(self.metric, METRICS)
            raise SpecError(
                f"{self.name}: metric {self.metric!r} is not one of the {self.task.kind} metrics "
                f"{', '.join(known)}{hint}",
                code="spec.unknown_metric",
            )
        greater = known[self.metric].greater_is_better
        if greater and self.gate.at_least is None:
            raise SpecError(
                f"{self.name}: for {self.metric} more is better; set at_least in the gate, not at_most",
                code="spec.threshold_direction",
            )
        if not greater and self.gate.at_most is None:
            raise SpecError(
                f"{self.name}: for {self.metric} less is better; set at_most in the gate, not at_least",
                code="spec.threshold_direction",
            )

    @property
    def greater_is_better(self) -> bool:
        """Whether a greater value of the primary metric is better."""
        return METRICS[self.metric].greater_is_better


def _out_of_range(owner: str, field_name: str, value: object, way_out: str) -> SpecError:
    return SpecError(f"{owner}: {field_name} is {value}; {way_out}", code="spec.out_of_range")


def _check_names(owner: str, field_name: str, names: object, what: str = "column names", example: str = "Id") -> None:
    """Raise SpecError unless `names` is None or a tuple of distinct, non-empty strings."""
    if names is None:
        return
    if isinstance(names, str) or not isinstance(names, tuple):
        raise SpecError(
            f"{owner}: {field_name} is {names!r}; use a tuple of {what}, such as ({example!r},)",
            code="spec.invalid_names",
        )
    for name in names:
        if not isinstance(name, str) or not name:
            raise SpecError(
                f"{owner}: {field_name} has {name!r}; {what} are non-empty strings", code="spec.invalid_names"
            )
        if names.count(name) > 1:
            raise SpecError(f"{owner}: {field_name} lists {name!r} twice; list it once", code="spec.repeated_name")


def model_names() -> list[str]:
    """Return the names of all models of this project, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(project_package("pipeline").__path__)
        if not module.name.startswith("_")
    )


def check_name(name: str) -> None:
    """Raise SpecError, listing the models there are, if there is no model of that name."""
    known = model_names()
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise SpecError(f"there is no model {name!r} in pipeline/models{hint}", code="spec.unknown_model")


def load_spec(name: str) -> ModelSpec:
    """Import the model's module and return its spec.

    Raises SpecError if there is no such model, or its module has no spec of that name.
    """
    check_name(name)
    spec = getattr(importlib.import_module(f"pipeline.models.{name}"), "spec", None)
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"pipeline/models/{name}.py has no `spec = ModelSpec(...)`; add it", code="spec.missing")
    if spec.name != name:
        raise SpecError(
            f"pipeline/models/{name}.py holds the spec of {spec.name!r}; give file and model the same name",
            code="spec.name_mismatch",
        )
    return spec
