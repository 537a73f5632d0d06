"""The JSON of each command as dataclasses: `--json` prints them, and flows.cli.render shows them in the terminal.

The functions at the end make those of `status`, `history` and `release` from the ledger's rows. `python -m
docs.generate` writes their JSON Schemas to docs/reference/schemas.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from flows.outcome import Outcome
from pipeline.spec import Canary, Cron, Gate, Holdout, Kind, Limits, Monitor, RequestLog, TriggerName
from pipeline.spec import Drift as DriftThresholds

if TYPE_CHECKING:
    from bentos.ledger.releases import DesiredState, Event, Release
    from bentos.ledger.runs import Run
    from bentos.ledger.servers import ServerEvent, ServerStatus, ServingInterval

Scores = dict[str, float | None]
"""Metrics by name; None if a metric is undefined on the rows."""


@dataclass(frozen=True)
class ErrorDetails:
    """An error.

    Attributes:
        code: names the error for programs, see docs/reference/errors.md.
        message: names the thing, the value found and the way out, for people.
        type: the name of the exception's class.
    """

    code: str
    message: str
    type: str


@dataclass(frozen=True)
class ErrorView:
    """What every command prints if it fails, or if its arguments are wrong."""

    error: ErrorDetails


@dataclass(frozen=True)
class Champion:
    """The champion of a model.

    Attributes:
        number: its release.
        bento: the tag of its package.
        created: when it was released.
        cause: what started the run that made it.
        metric: the primary metric.
        value: this metric on the held-out rows.
        snapshot: the digest of the rows it was trained on.
        answers: what computes its predictions: the compiled plan or the estimator.
        package_outdated: whether its package has older serving code than the project; `repackage` rebuilds it.
    """

    number: int
    bento: str
    created: str
    cause: str
    metric: str
    value: float | None
    snapshot: str
    answers: str
    package_outdated: bool


@dataclass(frozen=True)
class LastRun:
    """How the last run of a model ended.

    Attributes:
        started: when it began.
        outcome: how it ended, see the outcomes of a run.
        reasons: why it ended so.
        cause: what started it, such as "person", "schedule" or a trigger.
        why: the reason of that cause, if there is one.
    """

    started: str
    outcome: str
    reasons: list[str]
    cause: str
    why: str | None = None

    @classmethod
    def of(cls, run: "Run") -> "LastRun":
        """Return a run of the ledger."""
        return cls(run.started, run.outcome, run.reasons, run.cause, run.why)


@dataclass(frozen=True)
class CanaryView:
    """A release that answers a share of the requests.

    Attributes:
        number: the release.
        since: when it began.
        share: the share of the requests, from 0 to 1.
        minutes: how long it runs.
        shadow: whether it gets copies of requests only, while the champion answers all of them.
    """

    number: int
    since: str | None
    share: float
    minutes: float
    shadow: bool


@dataclass(frozen=True)
class Held:
    """A hold by a person: no run replaces the champion.

    Attributes:
        release: the champion that is held.
        since: when the hold began.
        reason: why.
    """

    release: int
    since: str
    reason: str


@dataclass(frozen=True)
class SentBack:
    """A canary that an alarm stopped.

    Attributes:
        release: the canary.
        at: when it was stopped.
        reason: the alarm.
    """

    release: int
    at: str
    reason: str


@dataclass(frozen=True)
class ServerView:
    """A server with a recent heartbeat.

    Attributes:
        server: its name.
        release: the release that it serves.
        state: its state, such as "serving" or "degraded".
        reason: why it is in that state.
    """

    server: str
    release: int | None
    state: str
    reason: str


@dataclass(frozen=True)
class ModelStatus:
    """The status of one model.

    Attributes:
        model: its name.
        release: the champion; None without one.
        last_run: how its last run ended; None before the first.
        canary: the release that answers a share of the requests now; None without one.
        held: the hold by a person; None without one.
        sent_back: the last canary, if an alarm stopped it and nothing was released since.
        awaiting_approval: the releases that wait for `promote`.
        reports: the report of the run that made each of these, as a path; None if it is gone.
        servers: the servers with a recent heartbeat.
    """

    model: str
    release: Champion | None
    last_run: LastRun | None
    canary: CanaryView | None
    held: Held | None
    sent_back: SentBack | None
    awaiting_approval: list[int]
    reports: dict[str, str | None]
    servers: list[ServerView]


@dataclass(frozen=True)
class StatusView:
    """What `status` prints.

    Attributes:
        models: the status of each model, sorted by name.
    """

    models: list[ModelStatus]


@dataclass(frozen=True)
class HistoryRelease:
    """A release in `history`.

    Attributes:
        number: counts the releases of the model from 1.
        bento: the tag of its package.
        created: when it was released.
        cause: what started the run that made it.
        reasons: what the gate's verdict says.
        replaced: the champion that it was evaluated against; None without one.
        metric: the primary metric.
        metrics: of "challenger", "champion" and "baseline", on the held-out rows.
        digests: of its snapshot, spec, code, artifact and package.
        trial: what the trial of its package found.
    """

    number: int
    bento: str
    created: str
    cause: str
    reasons: list[str]
    replaced: int | None
    metric: str
    metrics: dict[str, Scores | None]
    digests: dict[str, str]
    trial: dict[str, Any]


@dataclass(frozen=True)
class EventView:
    """A change of a release's state.

    Attributes:
        at: when.
        release: the release.
        event: the change, such as "released" or "rolled back to".
        cause: who or what caused it.
        reason: why.
    """

    at: str
    release: int
    event: str
    cause: str
    reason: str


@dataclass(frozen=True)
class ServedView:
    """A record of a server: it serves a release, or refused it.

    Attributes:
        at: when.
        server: its name.
        release: the release.
        event: what happened, such as "serves" or "refused".
        reason: why.
    """

    at: str
    server: str
    release: int
    event: str
    reason: str


@dataclass(frozen=True)
class SpanView:
    """An interval in which a server served a release.

    Attributes:
        server: its name.
        release: the release.
        since: when it began.
        until: when it ended; None while it lasts.
        end: what ended it.
    """

    server: str
    release: int
    since: str
    until: str | None
    end: str


@dataclass(frozen=True)
class HistoryView:
    """What `history` prints, each list with the oldest first.

    Attributes:
        model: its name.
        champion: the release that is champion; None without one.
        releases: all releases.
        events: their changes of state.
        served: the servers' records.
        spans: the intervals in which servers served a release.
    """

    model: str
    champion: int | None
    releases: list[HistoryRelease]
    events: list[EventView]
    served: list[ServedView]
    spans: list[SpanView]


@dataclass(frozen=True)
class Comparison:
    """The comparison of a release with the champion of that time, on the same held-out rows.

    Attributes:
        release: the champion of that time; None without one.
        rows: the number of held-out rows.
        metric: the primary metric.
        challenger: the metrics of the release.
        champion: the metrics of the champion.
        baseline: the metrics of always guessing.
    """

    release: int | None
    rows: int | None
    metric: str | None
    challenger: Scores | None
    champion: Scores | None
    baseline: Scores | None


@dataclass(frozen=True)
class CheckView:
    """One condition of the gate: whether it passed, and the sentence with its numbers."""

    passed: bool
    sentence: str


@dataclass(frozen=True)
class RowsView:
    """The rows of a release.

    Attributes:
        all: how many there are.
        origin: the source.
        ingested: when they were read.
        trained_on: how many it was trained on.
        held_out: how many it was evaluated on.
    """

    all: int | None
    origin: str | None
    ingested: str | None
    trained_on: int | None
    held_out: int | None


@dataclass(frozen=True)
class CodeView:
    """The code of a release: its estimator, and the folder of its package; None if that is gone."""

    estimator: str | None
    folder: str | None


@dataclass(frozen=True)
class ValidationSummary:
    """The validation before a release: the number of rules, the warnings, and the number of quarantined rows."""

    rules: int
    warnings: list[str]
    quarantined: int | None


@dataclass(frozen=True)
class GuardView:
    """A rule that the endpoint applies to requests: a feature's values are in a range or a set, or are not null."""

    feature: str
    kind: Literal["range", "set", "null"]
    refuse: bool = False
    minimum: float | str | None = None
    maximum: float | str | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    values: list[float | str] | None = None


@dataclass(frozen=True)
class Proofs:
    """The provenance of a release; a part that was removed, or that is in another home, is None.

    Attributes:
        rows: the rows it was trained and evaluated on.
        code: its estimator and its code.
        validation: the result of validation.
        guards: the rules that the endpoint applies to requests.
        unguarded: the rules of the suite that the endpoint does not apply to requests.
        report: the report of the run that made it, as a path.
    """

    rows: RowsView
    code: CodeView
    validation: ValidationSummary | None = None
    guards: list[GuardView] | None = None
    unguarded: list[str] | None = None
    report: str | None = None


@dataclass(frozen=True)
class ReleaseView:
    """What `release` prints: everything about one release.

    Attributes:
        model: its name.
        release: its number.
        state: its state now, such as "champion", "replaced" or "rolled back".
        bento: the tag of its package.
        created: when it was released.
        cause: what started the run that made it.
        reason: why it was released.
        replaced: the champion that it was evaluated against; None without one.
        digests: of its snapshot, spec, code, artifact and package.
        compared_with: its comparison with that champion.
        checks: the conditions of the gate.
        reasons: what the gate's verdict says.
        trial: what the trial of its package found.
        answers: what computes its predictions: the compiled plan or the estimator.
        canary: the settings of its canary; None if it was not one.
        events: the changes of state that it was part of.
        served: the servers' records of it.
        rows: the rows it was trained and evaluated on.
        code: its estimator and its code.
        validation: the result of validation.
        guards: the rules that the endpoint applies to requests.
        unguarded: the rules of the suite that the endpoint does not apply to requests.
        report: the report of the run that made it, as a path.
        card: its model card, as a path.
    """

    model: str
    release: int
    state: str
    bento: str
    created: str
    cause: str
    reason: str
    replaced: int | None
    digests: dict[str, str]
    compared_with: Comparison
    checks: list[CheckView]
    reasons: list[str]
    trial: dict[str, Any]
    answers: str
    canary: dict[str, float | bool] | None
    events: list[EventView]
    served: list[ServedView]
    rows: RowsView
    code: CodeView
    validation: ValidationSummary | None
    guards: list[GuardView] | None
    unguarded: list[str] | None
    report: str | None
    card: str | None = None


@dataclass(frozen=True)
class TriggerView:
    """The state of one trigger, with the name of its event; see MonitoringReport's triggers."""

    name: TriggerName
    value: float | None
    threshold: float | None
    sentence: str
    due: bool
    tells: bool
    retrains: bool
    waits: str | None
    event: str


@dataclass(frozen=True)
class TriggersView:
    """What `triggers` prints: what would retrain a model next.

    Attributes:
        model: its name.
        release: the champion; None without one.
        last_run: how its last run ended; None before the first.
        looked: when it was monitored last; None before the first `monitor`.
        schedule: the schedule of its runs; None without one.
        triggers: the state of each trigger.
    """

    model: str
    release: int | None
    last_run: LastRun | None
    looked: str | None = None
    schedule: Cron | None = None
    triggers: tuple[TriggerView, ...] = ()


@dataclass(frozen=True)
class TaskView:
    """The task.

    Attributes:
        kind: regression, or binary or multiclass classification.
        unit: the unit of the number, for a regression.
        positive: the positive label, for a binary classification.
    """

    kind: Kind
    unit: str | None = None
    positive: str | int | bool | None = None


@dataclass(frozen=True)
class FeatureView:
    """A feature, and its type; None before the first run."""

    name: str
    type: str | None


@dataclass(frozen=True)
class SuiteView:
    """The number of rules of each severity in a model's suite; None, with the problem, if it cannot be loaded."""

    error: int | None
    warn: int | None
    quarantine: int | None
    problem: str | None


@dataclass(frozen=True)
class SpecView:
    """What `spec` prints: a spec with its defaults filled in. docs/reference has the meaning of each field."""

    model: str
    source: str
    key: list[str]
    target: str
    task: TaskView
    features: list[FeatureView] | None
    time: str | None
    group: str | None
    sensitive: list[str]
    drift: DriftThresholds
    snapshot: str | None
    candidates: dict[str, str]
    metric: str
    gate: Gate
    holdout: Holdout
    sample: int | None
    epochs: int | None
    folds: int
    value: str | None
    limits: Limits
    canary: Canary | None
    approval: str | None
    log: RequestLog | None
    labels: str | None
    monitor: Monitor
    schedule: Cron | None
    seed: int
    keep: int
    notify: list[str]
    time_limit: str
    suite: SuiteView


@dataclass(frozen=True)
class RuleView:
    """The result of one rule of a suite; see `expectations.report.RuleResult`."""

    rule: str
    expectation: str
    column: str | None
    severity: Literal["error", "warn", "quarantine"]
    passed: bool
    reason: str | None
    observed: Any
    unexpected_count: int | None
    unexpected_share: float | None
    examples: list[Any]
    threshold: Any


@dataclass(frozen=True)
class QuarantineView:
    """The rows that break a quarantine rule.

    Attributes:
        rows: how many there are.
        share: their share of all rows, from 0 to 1.
        at_most: the max share that may be quarantined.
        reasons: the rules that they break.
        file: the path of these rows; None if they are not kept.
        snapshot: the digest of the other rows; None if they are not kept.
    """

    rows: int
    share: float
    at_most: float
    reasons: list[str]
    file: str | None
    snapshot: str | None


@dataclass(frozen=True)
class HistogramView:
    """The share of the values in each bar, then and now."""

    bars: list[str]
    then: list[float]
    now: list[float]


@dataclass(frozen=True)
class ColumnDriftView:
    """The drift of one column since the champion was trained; see `pipeline.drift.ColumnDrift`."""

    column: str
    role: Literal["feature", "target"]
    test: str | None
    value: float | None
    threshold: float | None
    nulls_then: float
    nulls_now: float
    nulls_threshold: float
    new: int
    lost: int
    new_examples: list[str]
    lost_examples: list[str]
    histogram: HistogramView | None
    drifted: bool


@dataclass(frozen=True)
class RowQualityView:
    """Counts: rows with the key of an earlier row, duplicate rows, and rows with equal features and unequal labels."""

    rows: int
    keys_twice: int
    duplicate: int
    conflicting: int


@dataclass(frozen=True)
class DriftView:
    """What changed since the champion was trained; see `pipeline.drift.DriftReport`."""

    passed: bool
    since: int | None
    errors: list[str]
    notes: list[str]
    columns: list[ColumnDriftView]
    rows_then: RowQualityView | None
    rows_now: RowQualityView | None
    relabelled: int | None
    sampled: int | None
    incomparable: str | None


@dataclass(frozen=True)
class ValidationView:
    """What `validate` prints.

    Attributes:
        model: its name.
        passed: whether a run would train on the data.
        rows: how many there are; None if they could not be read as a table.
        columns: how many there are.
        quarantine: the rows that would be quarantined; None without quarantine rules.
        reasons: why the data is rejected.
        warnings: findings that a person should review.
        rules: the result of each rule.
        drift: what changed since the champion was trained; None if the rules reject the data.
    """

    model: str
    passed: bool
    rows: int | None
    columns: int | None
    quarantine: QuarantineView | None
    reasons: list[str]
    warnings: list[str]
    rules: list[RuleView]
    drift: DriftView | None


@dataclass(frozen=True)
class ScoresView:
    """What `score` prints.

    Attributes:
        model: its name.
        release: the champion, which scored.
        bento: the tag of its package.
        source: what was read.
        out: what was written.
        rows: the rows that were read.
        scored: the rows that were scored.
        rejected: the rows that the endpoint would reject.
        resumed: the rows that an interrupted run had scored.
        rejected_file: the rejected rows with their reasons, as a path; None without any.
        seconds: how long each step took.
        of_score: how long each part of the scoring took.
    """

    model: str
    release: int
    bento: str
    source: str
    out: str
    rows: int
    scored: int
    rejected: int
    resumed: int
    rejected_file: str | None
    seconds: dict[str, float]
    of_score: dict[str, float]


@dataclass(frozen=True)
class MonthView:
    """One month of a backtest; see `pipeline.backtest.Month`."""

    month: str
    rows: int
    outcome: str
    reasons: list[str]
    metrics: Scores
    pooled: Scores


@dataclass(frozen=True)
class IntervalView:
    """A difference of the metric with its interval."""

    difference: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class BacktestView:
    """What `backtest` prints: see `pipeline.backtest.Backtest`; `said` is the result in sentences, `report` a path."""

    model: str
    metric: str
    greater_is_better: bool
    trained_before: str
    months: list[MonthView]
    rows: int
    overall: Scores
    releases: dict[str, int]
    differences: dict[str, IntervalView | None]
    notes: list[str]
    by: Literal["month"]
    said: list[str]
    report: str


@dataclass(frozen=True)
class ReproductionView:
    """What `reproduce` prints: see `pipeline.reproduce.Reproduction`."""

    model: str
    release: int
    equal: bool
    rows: int
    largest: float | None
    reasons: list[str]
    changes: list[str]


@dataclass(frozen=True)
class RemovedView:
    """What `gc` removed of one kind."""

    count: int
    mb: float


@dataclass(frozen=True)
class CollectedView:
    """What `gc` prints.

    Attributes:
        dry_run: whether nothing was removed.
        removed: what was removed, or would be, by kind.
        mb: how many MB that frees.
        kept: the releases that are kept and why, by model.
        archived: the releases whose package was removed, by model.
        notes: what was left alone because it is in use.
    """

    dry_run: bool
    removed: dict[str, RemovedView]
    mb: float
    kept: dict[str, dict[str, str]]
    archived: dict[str, list[int]]
    notes: list[str]


@dataclass(frozen=True)
class RollbackView:
    """What `rollback` prints.

    Attributes:
        model: its name.
        release: the champion now.
        bento: the tag of its package.
        instead_of: the release that it replaced.
        served: by server, the seconds until it served the release; None if it does not yet.
    """

    model: str
    release: int
    bento: str
    instead_of: int | None
    served: dict[str, float | None]


@dataclass(frozen=True)
class PromotionView:
    """What `promote` prints: the release, and whether it is champion or canary now."""

    model: str
    release: int
    bento: str
    state: Literal["champion", "canary"]


@dataclass(frozen=True)
class HoldView:
    """What `hold` and `unhold` print: the release that is held, None after `unhold`, and the champion."""

    model: str
    held: int | None
    release: int | None


@dataclass(frozen=True)
class RetiredView:
    """What `retire` prints: the release that was champion."""

    model: str
    retired: int
    bento: str


@dataclass(frozen=True)
class ExportView:
    """What `export` prints: the release, and the folder of the deployment."""

    model: str
    release: int
    bento: str
    folder: str


@dataclass(frozen=True)
class ArchiveView:
    """What `archive` prints: the release, and the file that holds it."""

    model: str
    release: int
    bento: str
    file: str


@dataclass(frozen=True)
class ImportView:
    """What `import` prints: the number of the release here, its state, and why it has that state."""

    model: str
    release: int
    bento: str
    state: str
    reasons: list[str]


@dataclass(frozen=True)
class ErasedRows:
    """The rows that were erased from files of one kind."""

    rows: int
    files: int


@dataclass(frozen=True)
class ErasedView:
    """What `erase` prints.

    Attributes:
        model: its name.
        removed: the erased rows, by kind of file.
        golden: by model and release, how many of these rows its package still has as golden rows.
    """

    model: str
    removed: dict[str, ErasedRows]
    golden: dict[str, dict[str, int]]


@dataclass(frozen=True)
class ScheduleView:
    """When a deployment runs: a cron expression in a time zone."""

    cron: str
    timezone: str


@dataclass(frozen=True)
class DeploymentView:
    """One deployment at the Prefect server."""

    deployment: str
    id: str
    model: str
    schedule: ScheduleView | None
    paused: bool
    notes: list[str]
    package_outdated: bool = False


@dataclass(frozen=True)
class DeployedView:
    """What `deploy` prints: the Prefect server, the work pool, and the deployments."""

    url: str
    pool: str
    deployments: list[DeploymentView]


@dataclass(frozen=True)
class InitView:
    """What `init` prints.

    Attributes:
        model: its name.
        created: the folders that were created.
        files: the files that were written.
        rows: the rows of the table.
        target: the column to predict.
        task: the kind of task.
        key: the key column, if one was found.
        time: the time column, if one was found.
        group: the group column, if one was found.
        features: the features by role.
        left_out: the columns that are not features, and why.
        decided: the decisions, as sentences.
    """

    model: str
    created: list[str]
    files: list[str]
    rows: int
    target: str
    task: str
    key: list[str]
    time: str | None
    group: str | None
    features: dict[str, list[str]]
    left_out: dict[str, str]
    decided: list[str]


def by_command() -> dict[str, type]:
    """Return the view that each command prints with --json; any of them prints `error` if it fails."""
    from flows.monitoring.report import MonitoringReport

    return {
        "archive": ArchiveView,
        "backtest": BacktestView,
        "deploy": DeployedView,
        "error": ErrorView,
        "release": ReleaseView,
        "export": ExportView,
        "erase": ErasedView,
        "gc": CollectedView,
        "history": HistoryView,
        "hold": HoldView,
        "import": ImportView,
        "init": InitView,
        "monitor": MonitoringReport,
        "promote": PromotionView,
        "repackage": Outcome,
        "reproduce": ReproductionView,
        "rollback": RollbackView,
        "run": Outcome,
        "score": ScoresView,
        "spec": SpecView,
        "status": StatusView,
        "unhold": HoldView,
        "validate": ValidationView,
        "triggers": TriggersView,
        "retire": RetiredView,
    }


def schema_of(view: type, sparse: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a view: all fields are required, no others are allowed, and each has its description.

    With `sparse`, a field that has a default is not required.
    """
    from pydantic import TypeAdapter

    schema: dict[str, Any] = TypeAdapter(view).json_schema(mode="serialization")
    _close(schema, sparse)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _close(schema: Any, sparse: bool) -> None:
    """Allow no other fields in objects, and move each field's line of the docstring to the field."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(part, sparse)
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return
    about, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    lines = re.sub(r"\n {6,}", " ", attributes).splitlines()
    described = dict(line.strip().split(": ", 1) for line in lines if ": " in line)
    for name, field_schema in schema["properties"].items():
        field_schema.pop("default", None)
        field_schema.pop("title", None)
        if name in described:
            field_schema["description"] = described[name]
    required = schema.get("required", []) if sparse else schema["properties"]
    schema |= {"description": about, "required": sorted(required), "additionalProperties": False}


def status_of(
    model: str,
    wanted: "DesiredState",
    last: "Run | None",
    servers: Sequence["ServerStatus"],
    awaiting: Mapping[int, str | None],
    package_outdated: bool = False,
) -> ModelStatus:
    """Return the status of a model.

    Args:
        model: its name.
        wanted: its champion, canary and hold.
        last: its last run.
        servers: its servers with a recent heartbeat.
        awaiting: the releases that await approval, with the reports of their runs.
        package_outdated: whether the champion's package has older serving code than the project.
    """
    held, stopped = wanted.held, wanted.stopped
    return ModelStatus(
        model=model,
        release=_champion(wanted.champion, package_outdated) if wanted.champion else None,
        last_run=LastRun.of(last) if last else None,
        canary=_canary(wanted.canary, wanted.since) if wanted.canary else None,
        held=Held(held.release, held.at, held.reason) if held else None,
        sent_back=SentBack(stopped.release, stopped.at, stopped.reason) if stopped else None,
        awaiting_approval=list(awaiting),
        reports={str(number): report for number, report in awaiting.items()},
        servers=[ServerView(server.server, server.release, server.state, server.reason) for server in servers],
    )


def _champion(release: "Release", package_outdated: bool) -> Champion:
    from bentos.ledger.releases import answered_by

    metric = release.evaluation["metric"]
    return Champion(
        number=release.number,
        bento=release.bento,
        created=release.created,
        cause=release.cause,
        metric=metric,
        value=release.evaluation["challenger"].get(metric),
        snapshot=release.digests["snapshot"],
        answers=answered_by(release),
        package_outdated=package_outdated,
    )


def _canary(release: "Release", since: str | None) -> CanaryView:
    settings = release.canary_settings
    return CanaryView(release.number, since, settings.share, settings.minutes, settings.shadow)


def history_of(
    model: str,
    champion: "Release | None",
    made: Sequence["Release"],
    events: Sequence["Event"],
    served: Sequence["ServerEvent"] = (),
    spans: Sequence["ServingInterval"] = (),
) -> HistoryView:
    """Return the releases of a model and their changes of state, each list with the oldest first.

    `served` are the servers' records, and `spans` the intervals in which they served a release.
    """
    return HistoryView(
        model=model,
        champion=champion.number if champion else None,
        releases=[_of_history(release) for release in made],
        events=[_event(event) for event in events],
        served=[_served(event) for event in served],
        spans=[SpanView(**asdict(span)) for span in spans],
    )


def _of_history(release: "Release") -> HistoryRelease:
    return HistoryRelease(
        number=release.number,
        bento=release.bento,
        created=release.created,
        cause=release.cause,
        reasons=release.verdict["reasons"],
        replaced=release.replaced,
        metric=release.evaluation["metric"],
        metrics={who: release.evaluation[who] for who in ("challenger", "champion", "baseline")},
        digests=release.digests,
        trial=release.trial,
    )


def _event(event: "Event") -> EventView:
    return EventView(event.at, event.release, event.kind, event.cause, event.reason)


def _served(event: "ServerEvent") -> ServedView:
    return ServedView(event.at, event.server, event.release, event.kind, event.reason)


def release_of(
    release: "Release",
    events: Sequence["Event"],
    served: Sequence["ServerEvent"],
    proofs: Proofs,
    card: str | None = None,
) -> ReleaseView:
    """Return everything about one release; `events` and `served` are those of all releases of its model."""
    from bentos.ledger.releases import answered_by, states

    evaluation = release.evaluation
    return ReleaseView(
        model=release.model,
        release=release.number,
        state=states(events).get(release.number, "unknown"),
        bento=release.bento,
        created=release.created,
        cause=release.cause,
        reason=release.reason,
        replaced=release.replaced,
        digests=release.digests,
        compared_with=Comparison(
            release=evaluation.get("champion_release"),
            rows=evaluation.get("rows"),
            metric=evaluation.get("metric"),
            challenger=evaluation.get("challenger"),
            champion=evaluation.get("champion"),
            baseline=evaluation.get("baseline"),
        ),
        checks=[CheckView(**check) for check in release.verdict.get("checks", [])],
        reasons=release.verdict.get("reasons", []),
        trial=release.trial,
        answers=answered_by(release),
        canary=release.canary,
        events=[_event(event) for event in events if release.number in (event.release, event.instead)],
        served=[_served(event) for event in served if event.release == release.number],
        rows=proofs.rows,
        code=proofs.code,
        validation=proofs.validation,
        guards=proofs.guards,
        unguarded=proofs.unguarded,
        report=proofs.report,
        card=card,
    )
