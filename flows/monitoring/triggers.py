"""The triggers that retrain a model besides schedules and people: decided from reports, sent to Prefect as events.

If a trigger is due, the flow emits the event `evergreen.<trigger>`. The automations of `automations` then retrain, and
others may notify. This module and not Prefect decides whether an event retrains, so a lasting condition does not flap:
one trigger at a time retrains, and none within the cooldown.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args
from uuid import UUID

from bentos.ledger import releases, runs
from bentos.ledger.runs import VERDICTS, Run
from flows.cli.views import LastRun, TriggersView, TriggerView
from flows.monitoring.report import Inputs, MonitoringReport, NewData, Trigger
from pipeline.format_numbers import format_number
from pipeline.metrics import METRICS
from pipeline.spec import Monitor, TriggerName

if TYPE_CHECKING:
    from prefect.automations import Automation
    from prefect.client.orchestration import SyncPrefectClient
    from sqlalchemy import Engine

MAX_LOOKS = 400
"""Number of past observations that cooldowns and plots use."""
MAX_RUNS = 100
CONFIRMING_OUTCOMES = (*VERDICTS, "unchanged")
"""Outcomes of a run that confirm that the champion is as good as the data allows."""
RETRAIN_LABEL = "evergreen.retrains"
"""The label of an event's resource that is "yes" if the event retrains the model."""


def decide(
    report: MonitoringReport,
    created: str | None,
    runs: Sequence[Run],
    before: Sequence[MonitoringReport],
    now: datetime,
) -> list[Trigger]:
    """Return all triggers of a model from its report, most important first.

    `created` is when the champion was released, None without one. `runs` are the newest runs and `before` the reports
    before this one, both oldest first.
    """
    monitor = report.monitor
    decided: list[Trigger] = []
    held = _held(monitor, runs, before, now)
    candidates = (
        _performance(monitor, report),
        _drift(monitor, report),
        Trigger("new-data", None, None, report.data.sentence, due=bool(report.data.new)),
        _stale(monitor, created, runs, now),
    )
    for trigger in candidates:
        if not trigger.due:
            decided.append(trigger)
            continue
        waits = held
        if trigger.name not in monitor.retrain:
            waits = "it is not in the monitor's retrain"
        elif waits is None and (first := next((other.name for other in decided if other.retrains), None)):
            waits = f"{first} already retrains the model"
        again = _hours_since(_last_emitted(before, trigger.name), now) >= monitor.cooldown_hours
        retrains = waits is None
        decided.append(replace(trigger, tells=retrains or again, retrains=retrains, waits=waits))
    return decided


def current_triggers(ledger: "Engine", model: str, now: datetime) -> TriggersView:
    """Return the current triggers, from the newest report and the time since.

    Before the first report there are no triggers: only people and schedules retrain.
    """
    observations = runs.observations(ledger, model, MAX_LOOKS)
    recent = runs.newest_runs(ledger, model, MAX_RUNS)
    champion = releases.champion(ledger, model)
    view = TriggersView(
        model=model,
        release=champion.number if champion else None,
        last_run=LastRun.of(recent[-1]) if recent else None,
    )
    if not observations:
        return view
    *before, report = [MonitoringReport.from_dict(observation.found) for observation in observations]
    if champion and report.release != champion.number:
        # The report is about another release.
        since = f"release {champion.number} became champion since the last look"
        report = replace(report, inputs=Inputs(0, why=since), performance=None, unlabelled=since)
    if recent and _time(recent[-1].started) > _time(report.at):
        report = replace(report, data=NewData(False, "a run has read the source since the last look"))
    decided = decide(report, champion.created if champion else None, recent, [*before, report], now)
    return replace(
        view,
        looked=report.at,
        schedule=report.schedule,
        triggers=tuple(TriggerView(**asdict(trigger), event=f"evergreen.{trigger.name}") for trigger in decided),
    )


def retrain_reason(decided: Sequence[Trigger]) -> str:
    """Return the reason for retraining: the sentences of all triggers that are due."""
    return "; ".join(trigger.sentence for trigger in decided if trigger.due)


def emit_events(model: str, decided: Sequence[Trigger]) -> None:
    """Emit an event for each trigger with `tells`; call it in a flow."""
    from prefect.events import emit_event

    reason = retrain_reason(decided)
    for trigger in decided:
        if trigger.tells:
            emit_event(
                f"evergreen.{trigger.name}",
                resource={
                    "prefect.resource.id": f"evergreen.model.{model}",
                    "prefect.resource.name": model,
                    "evergreen.model": model,
                    RETRAIN_LABEL: "yes" if trigger.retrains else "no",
                },
                payload={
                    "model": model,
                    "why": reason if trigger.retrains else trigger.sentence,
                    "waits": trigger.waits,
                },
            )


def automations(model: str, monitor: Monitor, deployment: UUID) -> "list[Automation]":
    """Return the Prefect automations that retrain a model by the deployment of its flow, one for each trigger."""
    from prefect.automations import Automation, EventTrigger, Posture
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.events import ResourceSpecification

    return [
        Automation(
            name=_automation(model, name),
            description=f"Retrains {model} when `evergreen monitor` says `evergreen.{name}`, by its cooldown.",
            tags=["evergreen", model],
            trigger=EventTrigger(
                expect={f"evergreen.{name}"},
                match=ResourceSpecification({"prefect.resource.id": f"evergreen.model.{model}", RETRAIN_LABEL: "yes"}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=deployment,
                    job_variables=None,
                    parameters={
                        "model": model,
                        "cause": name,
                        "why": {"__prefect_kind": "jinja", "template": "{{ event.payload['why'] }}"},
                    },
                )
            ],
        )
        for name in monitor.retrain
    ]


def register(client: "SyncPrefectClient", model: str, monitor: Monitor, deployment: UUID) -> None:
    """Create the automations of a model again and delete the old ones; without a monitoring schedule there are none.

    They are not updated in place: the server refuses what the client of the same version sends for that.
    """
    from prefect.events.schemas.automations import AutomationCore

    before = [
        automation
        for name in get_args(TriggerName)
        for automation in client.read_automations_by_name(_automation(model, name))
    ]
    for automation in automations(model, monitor, deployment) if monitor.schedule else ():
        client.create_automation(AutomationCore(**automation.model_dump(exclude={"id"})))
    for old in before:
        client.delete_automation(old.id)


def _automation(model: str, trigger: str) -> str:
    return f"{model}: retrain on {trigger}"


def _drift(monitor: Monitor, report: MonitoringReport) -> Trigger:
    inputs = report.inputs
    if inputs.columns is None:
        return Trigger("drift", None, monitor.min_drifted_columns, inputs.why or "nothing was compared")
    drifted = [column.column for column in inputs.drifted]
    names = f": {', '.join(drifted[:5])}{' and more' if len(drifted) > 5 else ''}" if drifted else ""
    sentence = (
        f"{len(drifted)} of {len(inputs.columns)} columns drifted since release {report.release} was trained, "
        f"due from {monitor.min_drifted_columns} on{names}"
    )
    return Trigger(
        "drift", len(drifted), monitor.min_drifted_columns, sentence, due=len(drifted) >= monitor.min_drifted_columns
    )


def _performance(monitor: Monitor, report: MonitoringReport) -> Trigger:
    metric, now = report.metric, report.of_champion
    if now is None:
        return Trigger("performance", None, None, report.unlabelled or "no label of a logged prediction has arrived")
    then, greater = now.released, METRICS[metric].greater_is_better
    best = now.high if greater else now.low
    if now.rows < monitor.min_labelled_rows or best is None or then is None:
        return Trigger(
            "performance",
            None,
            then,
            f"{now.rows:,} labelled rows, {monitor.min_labelled_rows:,} are needed to compare",
        )
    threshold = then - monitor.tolerance if greater else then + monitor.tolerance
    due = best < threshold if greater else best > threshold
    sentence = (
        f"{metric} {format_number(now.value)} on {now.rows:,} labelled rows, between {format_number(now.low)} and "
        f"{format_number(now.high)}; {format_number(then)} when release {report.release} was evaluated"
    )
    return Trigger("performance", best, threshold, sentence, due=due)


def _stale(monitor: Monitor, created: str | None, runs: Sequence[Run], now: datetime) -> Trigger:
    if created is None:
        return Trigger("stale", None, monitor.stale_days, "there is no champion")
    confirmed = [created, *(run.started for run in runs if run.outcome in CONFIRMING_OUTCOMES)]
    days = _hours_since(confirmed, now) / 24
    sentence = f"the champion was released or confirmed {days:.1f} days ago"
    if monitor.stale_days is None:
        return Trigger("stale", round(days, 2), None, f"{sentence}; the spec sets no stale_days")
    sentence += f", at most {monitor.stale_days:g} are allowed"
    return Trigger("stale", round(days, 2), monitor.stale_days, sentence, due=days >= monitor.stale_days)


def _held(monitor: Monitor, runs: Sequence[Run], before: Sequence[MonitoringReport], now: datetime) -> str | None:
    """Return why no trigger may retrain now: the last retraining was within the cooldown; None if it was not."""
    trained = [run.started for run in runs if run.outcome != "unchanged"]
    triggered = [report.at for report in before if any(trigger.retrains for trigger in report.triggers)]
    hours = _hours_since([*trained, *triggered], now)
    if hours >= monitor.cooldown_hours:
        return None
    return f"retrained {hours:.1f} hours ago, cooldown is {monitor.cooldown_hours:g} hours"


def _last_emitted(before: Sequence[MonitoringReport], name: str) -> list[str]:
    return [
        report.at for report in before if any(trigger.name == name and trigger.tells for trigger in report.triggers)
    ]


def _hours_since(times: Sequence[str], now: datetime) -> float:
    """Return the hours between now and the time nearest to it; infinity if there are no times.

    A time in the future comes from a wrong clock. If it is further away than the cooldown, it is ignored.
    """
    return min((abs(now - _time(time)) / timedelta(hours=1) for time in times), default=math.inf)


def _time(iso: str) -> datetime:
    time = datetime.fromisoformat(iso)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
