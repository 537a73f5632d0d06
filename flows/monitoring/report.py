"""The monitoring report of a served model: plain values that the flow decides on, stores, prints and draws."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pipeline.drift import ColumnDrift
from pipeline.spec import Cron, Monitor, TriggerName

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Window:
    """The time that a report is about.

    Attributes:
        since: when it begins, ISO 8601; it ends at the time of the report.
        days: its length.
    """

    since: str
    days: float


@dataclass(frozen=True)
class Traffic:
    """Requests, counted.

    Attributes:
        requests: how many there were.
        refused: how many were answered with a status from 400 on.
        errors: how many of these were the server's fault, a status from 500 on.
        rows: the rows of all requests.
        nulls: null values in these rows.
        unseen: category values in these rows that training never saw.
        logged: rows in the request log.
        dropped: rows that should be in the log and are not, since its queue or its disk was full.
        p50_ms: the median time to answer, as the upper edge of its bucket; None without a request.
        p95_ms: the same of the 95th percentile.
        p99_ms: the same of the 99th percentile.
    """

    requests: int = 0
    refused: int = 0
    errors: int = 0
    rows: int = 0
    nulls: int = 0
    unseen: int = 0
    logged: int = 0
    dropped: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True)
class ReleaseTraffic:
    """The requests that one release answered.

    Attributes:
        release: its number; None for requests that no release answered.
        traffic: what was counted.
    """

    release: int | None
    traffic: Traffic


@dataclass(frozen=True)
class PeriodTraffic:
    """The requests of one hour or one day.

    Attributes:
        at: when the period begins, ISO 8601.
        traffic: what was counted.
    """

    at: str
    traffic: Traffic


@dataclass(frozen=True)
class ServerState:
    """A server of the model, as of its last heartbeat.

    Attributes:
        server: its name.
        release: the release that it serves; None before its first.
        state: such as "serving" or "degraded".
        reason: why it is in that state, if that needs one.
        seen: time of its last heartbeat, in seconds since 1970.
    """

    server: str
    release: int | None
    state: str
    reason: str
    seen: int


@dataclass(frozen=True)
class Unseen:
    """A category column with logged values that training never saw.

    Attributes:
        column: its name.
        share: the share of its values that training never saw, from 0 to 1.
    """

    column: str
    share: float


@dataclass(frozen=True)
class Inputs:
    """Logged requests to the champion, compared with its training data.

    Attributes:
        rows: the logged rows of the window.
        columns: drift of each feature and of the predictions, largest first; None if nothing was compared.
        unseen: the columns with values that training never saw.
        why: why nothing was compared; None if something was.
    """

    rows: int
    columns: tuple[ColumnDrift, ...] | None = None
    unseen: tuple[Unseen, ...] = ()
    why: str | None = None

    @property
    def drifted(self) -> list[ColumnDrift]:
        """The columns that drifted; none if nothing was compared."""
        return [column for column in self.columns or () if column.drifted]


@dataclass(frozen=True)
class ExpectedMetric:
    """An estimate of the metric before labels arrive.

    Attributes:
        rows: the logged rows that it was estimated on.
        value: the estimate.
        low: the lower end of its 95% interval.
        high: the upper end of its 95% interval.
    """

    rows: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DayPerformance:
    """The metric on the requests of one day.

    Attributes:
        day: the day, ISO 8601.
        rows: the labelled rows of that day.
        value: the metric; None if it is undefined on these rows.
        low: the lower end of its 95% interval.
        high: the upper end of its 95% interval.
    """

    day: str
    rows: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ReleasePerformance:
    """The metric of one release on the logged rows whose labels have arrived.

    Attributes:
        release: its number.
        rows: the labelled rows.
        value: the metric; None if it is undefined on these rows.
        low: the lower end of its 95% interval.
        high: the upper end of its 95% interval.
        released: the metric on the held-out rows, when the release was evaluated.
        logged: the distinct keys in its logged requests.
        unkeyed: the logged rows without a key, which can have no label.
        by_day: the same for each day that has enough labelled rows.
    """

    release: int
    rows: int
    value: float | None
    low: float | None = None
    high: float | None = None
    released: float | None = None
    logged: int = 0
    unkeyed: int = 0
    by_day: tuple[DayPerformance, ...] = ()


@dataclass(frozen=True)
class NewData:
    """Whether the source has rows that the last run did not read.

    Attributes:
        new: whether it has; None if only a run can find out.
        sentence: the same in words.
    """

    new: bool | None
    sentence: str


@dataclass(frozen=True)
class Trigger:
    """The state of one trigger.

    Attributes:
        name: which one.
        value: the measured value, if it is a number.
        threshold: the value from which it is due, if that is a number.
        sentence: its state in words.
        due: whether its condition holds.
        tells: whether an event reports it now.
        retrains: whether that event retrains the model.
        waits: why it does not retrain although it is due.
    """

    name: TriggerName
    value: float | None
    threshold: float | None
    sentence: str
    due: bool = False
    tells: bool = False
    retrains: bool = False
    waits: str | None = None


@dataclass(frozen=True)
class MonitoringReport:
    """One observation of a served model.

    Attributes:
        model: its name.
        at: the time of the observation, ISO 8601.
        release: the champion; None without one.
        metric: the primary metric of the spec.
        schedule: the retraining schedule of the spec.
        monitor: the spec's thresholds.
        window: the time that the report is about.
        traffic: all requests of the window.
        by_release: the same by release.
        over_time: the same by hour, or by day in a long window.
        servers: the servers with a recent heartbeat.
        inputs: logged requests compared with the training data.
        expected: the metric to be expected before labels arrive; None if it cannot be estimated.
        performance: the metric on labelled rows, by release; None if the spec has no labels.
        unlabelled: why there is no performance.
        data: whether the source has new rows.
        notes: what could not be measured, and why.
        triggers: the state of each trigger, most important first.
        seconds: how long each step took.
    """

    model: str
    at: str
    release: int | None
    metric: str
    schedule: Cron | None
    monitor: Monitor
    window: Window
    traffic: Traffic
    inputs: Inputs
    data: NewData
    by_release: tuple[ReleaseTraffic, ...] = ()
    over_time: tuple[PeriodTraffic, ...] = ()
    servers: tuple[ServerState, ...] = ()
    expected: ExpectedMetric | None = None
    performance: tuple[ReleasePerformance, ...] | None = None
    unlabelled: str | None = None
    notes: tuple[str, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    seconds: Mapping[str, float] | None = None

    @property
    def of_champion(self) -> ReleasePerformance | None:
        """The performance of the champion; None if no label of its answers has arrived."""
        return next((entry for entry in self.performance or () if entry.release == self.release), None)

    @property
    def due(self) -> list[Trigger]:
        """The triggers that are due, most important first."""
        return [trigger for trigger in self.triggers if trigger.due]

    def for_ledger(self) -> "MonitoringReport":
        """Return what later observations and plots need; the rest is in the folder of the run."""
        columns = self.inputs.columns and tuple(
            replace(column, new_examples=(), lost_examples=(), histogram=None) for column in self.inputs.columns
        )
        performance = self.performance and tuple(replace(release, by_day=()) for release in self.performance)
        return replace(
            self,
            by_release=(),
            over_time=(),
            servers=(),
            expected=None,
            notes=(),
            inputs=replace(self.inputs, columns=columns, unseen=()),
            performance=performance,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "MonitoringReport":
        """Return the report that `to_dict` wrote."""
        return _adapter().validate_python(value)


@cache
def _adapter() -> "TypeAdapter[MonitoringReport]":
    from pydantic import TypeAdapter

    return TypeAdapter(MonitoringReport)
