"""What has a model retrained: decided from plain values; and the events that do it, on a real Prefect server."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from serving import until
from tiny import a_spec

from bentos.ledger import runs
from bentos.ledger.database import open_ledger
from bentos.ledger.runs import Observation, Run
from flows.monitoring import triggers
from flows.monitoring.report import (
    Inputs,
    MonitoringReport,
    NewData,
    ReleasePerformance,
    ReleaseTraffic,
    Traffic,
    Trigger,
    Unseen,
    Window,
)
from flows.monitoring.triggers import decide
from pipeline.drift import ColumnDrift, Histogram
from pipeline.errors import SpecError
from pipeline.sources import Csv
from pipeline.spec import Cron, Monitor, RequestLog

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LONG_AGO = "2026-03-01T00:00:00+00:00"
PERFORMANCE = ReleasePerformance(release=3, rows=400, value=1.05, low=0.95, high=1.15, released=1.0)


def column(drifted):
    return ColumnDrift("x", "feature", "Kolmogorov-Smirnov", 0.4 if drifted else 0.1, 0.2, 0.0, 0.0, 0.05)


QUIET = MonitoringReport(
    model="houses",
    at="2026-03-10T02:00:00+00:00",
    release=3,
    metric="rmse",
    schedule=None,
    monitor=Monitor(),
    window=Window("2026-03-03T02:00:00+00:00", 7.0),
    traffic=Traffic(),
    inputs=Inputs(900, (column(drifted=False),)),
    performance=(PERFORMANCE,),
    data=NewData(False, "nothing is new"),
)
DRIFTED = replace(QUIET, inputs=Inputs(900, (column(drifted=True),)))
LOST = (replace(PERFORMANCE, value=1.3, low=1.2, high=1.4),)
WORSE = replace(QUIET, performance=LOST)


def hours_ago(hours):
    return (NOW - timedelta(hours=hours)).isoformat(timespec="seconds")


def a_run(hours, outcome="kept"):
    return Run("houses", outcome, "schedule", [], {}, None, hours_ago(hours))


def a_look(hours, **told):
    """The report of a look so many hours ago, with what each trigger did then."""
    did = (Trigger(name.replace("_", "-"), None, None, "", **flags) for name, flags in told.items())
    return replace(QUIET, at=hours_ago(hours), triggers=tuple(did))


def decided(report, monitor=None, runs=(), looks=()):
    found = decide(replace(report, monitor=monitor or Monitor()), LONG_AGO, runs, looks, NOW)
    return {one.name: one for one in found}


def states(found):
    return {name: (one.due, one.tells, one.retrains) for name, one in found.items() if one.due}


def test_where_nothing_is_due_nothing_is_told():
    assert states(decided(QUIET)) == {}


def test_one_trigger_retrains_and_the_others_that_are_due_only_tell():
    found = decided(replace(DRIFTED, performance=LOST, data=NewData(True, "new")))
    assert states(found) == {
        "performance": (True, True, True),
        "drift": (True, True, False),
        "new-data": (True, True, False),
    }
    assert found["drift"].waits == "performance already retrains the model"
    reason = triggers.retrain_reason([*found.values()])
    assert reason.startswith("rmse 1.3 on 400 labelled rows, between 1.2 and 1.4; 1 when release 3 was evaluated; ")
    assert "1 of 1 columns drifted" in reason


@pytest.mark.parametrize(
    ("runs", "looks", "retrains"),
    [
        ([a_run(23)], [], False),
        ([a_run(25)], [], True),
        ([a_run(1, "unchanged")], [], True),
        ([a_run(1, "crashed")], [], False),
        ([], [a_look(23, performance={"tells": True, "retrains": True})], False),
        ([], [a_look(25, performance={"tells": True, "retrains": True})], True),
    ],
)
def test_nothing_retrains_within_the_cooldown_of_any_retraining(runs, looks, retrains):
    assert decided(DRIFTED, runs=runs, looks=looks)["drift"].retrains == retrains


def test_a_run_that_a_wrong_clock_put_far_ahead_holds_nothing_back_and_the_last_one_before_it_does():
    assert decided(DRIFTED, runs=[a_run(-9_600)])["drift"].retrains
    assert not decided(DRIFTED, runs=[a_run(-9_600), a_run(1)])["drift"].retrains


def test_what_stays_due_is_told_once_a_cooldown():
    before = [a_look(5, drift={"tells": True, "retrains": False})]
    assert states(decided(DRIFTED, runs=[a_run(6)], looks=before)) == {"drift": (True, False, False)}
    before = [
        a_look(30, drift={"tells": True, "retrains": False}),
        a_look(5, drift={"tells": False, "retrains": False}),
    ]
    assert states(decided(DRIFTED, runs=[a_run(6)], looks=before)) == {"drift": (True, True, False)}


def test_what_waited_for_the_cooldown_retrains_when_it_is_over_though_it_was_told_lately():
    before = [a_look(5, drift={"tells": True, "retrains": False})]
    assert states(decided(DRIFTED, runs=[a_run(25)], looks=before)) == {"drift": (True, True, True)}


def test_performance_is_lost_only_when_the_better_end_of_the_interval_is_beyond_the_tolerance():
    assert not decided(QUIET)["performance"].due
    assert decided(WORSE)["performance"].due
    assert not decided(WORSE, Monitor(tolerance=0.25))["performance"].due
    few = replace(WORSE, performance=(replace(LOST[0], rows=99),))
    assert decided(few)["performance"].sentence == "99 labelled rows, 100 are needed to compare"
    greater = replace(WORSE, metric="r2", performance=(replace(LOST[0], released=1.5),))
    assert decided(greater)["performance"].due
    assert not decided(replace(greater, performance=QUIET.performance), Monitor(tolerance=0.5))["performance"].due


def test_too_few_rows_are_no_drift():
    few = replace(DRIFTED, inputs=Inputs(3, why="3 rows are logged"))
    assert (decided(few)["drift"].due, decided(few)["drift"].sentence) == (False, "3 rows are logged")


def test_a_champion_is_stale_when_no_run_confirmed_or_replaced_it():
    monitor = Monitor(stale_days=5)
    assert decided(QUIET, monitor)["stale"].due
    assert decided(QUIET, monitor, runs=[a_run(48, "data-rejected")])["stale"].due
    kept = decided(QUIET, monitor, runs=[a_run(48, "unchanged")])["stale"]
    assert (kept.due, kept.value, kept.threshold) == (False, 2.0, 5)
    assert not decided(QUIET)["stale"].due


def test_what_the_spec_does_not_retrain_on_is_still_told():
    found = decided(DRIFTED, Monitor(retrain=("stale",)))
    assert states(found) == {"drift": (True, True, False)}
    assert found["drift"].waits == "it is not in the monitor's retrain"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"monitor": lambda: Monitor(retrain=("moon",))},
            "retrain lists 'moon', which is not a trigger; use some of performance, drift",
        ),
        ({"monitor": lambda: Monitor(cooldown_hours=0)}, "cooldown_hours is 0"),
        ({"labels": lambda: Csv("truth.csv")}, "labels is set but log is not; .*, so set log=RequestLog\\(\\)"),
        (
            {"labels": lambda: Csv("t.csv"), "log": lambda: RequestLog(), "sensitive": lambda: ("id",)},
            "'id' is sensitive",
        ),
        ({"log": lambda: RequestLog(sample_rate=0)}, "sample_rate is 0"),
    ],
)
def test_a_spec_that_cannot_be_watched_says_why(changes, said):
    with pytest.raises(SpecError, match=said):
        a_spec(**{name: make() for name, make in changes.items()})


def test_the_standing_counts_what_happened_since_the_last_look(home):
    ledger = open_ledger(f"sqlite:///{home.parent}/ledger.sqlite")
    assert triggers.current_triggers(ledger, "houses", NOW).looked is None
    monitor = Monitor(retrain=("drift", "new-data"))
    report = replace(DRIFTED, at=hours_ago(10), data=NewData(True, "new"), monitor=monitor)
    runs.add_observation(ledger, "houses", Observation(3, report.at, report.to_dict()), 400)

    said = {one.name: one for one in triggers.current_triggers(ledger, "houses", NOW).triggers}
    assert (said["drift"].due, said["drift"].retrains, said["new-data"].due) == (True, True, True)
    runs.add_run(ledger, a_run(2))
    said = {one.name: one for one in triggers.current_triggers(ledger, "houses", NOW).triggers}
    assert said["drift"].waits == "retrained 2.0 hours ago, cooldown is 24 hours"
    assert not said["new-data"].due


def test_a_report_that_was_stored_as_json_is_read_back_as_it_was():
    report = replace(
        DRIFTED,
        monitor=Monitor(schedule=Cron("0 3 * * 1"), retrain=("stale",)),
        by_release=(ReleaseTraffic(None, Traffic(requests=2)),),
        triggers=(Trigger("stale", 9.0, 5.0, "nobody came", due=True),),
        seconds={"look": 1.5},
    )
    assert MonitoringReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_the_ledger_keeps_what_the_next_look_needs_and_no_value_of_the_data():
    histogram = Histogram(("a", "b"), (1.0, 0.0), (0.0, 1.0))
    seen = replace(column(drifted=True), new_examples=("b",), histogram=histogram)
    report = replace(DRIFTED, inputs=Inputs(900, (seen,), (Unseen("x", 0.5),)), notes=("a note",))
    kept = report.for_ledger()
    assert (kept.inputs.columns, kept.inputs.unseen, kept.notes) == ((column(drifted=True),), (), ())
    assert (kept.release, kept.performance, kept.data) == (3, QUIET.performance, QUIET.data)


TELL = """
import sys
from uuid import UUID
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from flows.monitoring import triggers
from pipeline.spec import Monitor

@flow(name="retrain-of-a-test")
def retrain(model: str, cause: str = "person", why: str = ""):
    pass

with get_client(sync_client=True) as client:
    deployment = client.create_deployment(flow_id=client.create_flow(retrain), name="houses", parameters={})
for one in triggers.automations("houses", Monitor(retrain=("drift", "stale")), deployment):
    one.create()
print(deployment)
"""

EMIT = """
from prefect.events.worker import EventsWorker
from flows.monitoring import triggers
from flows.monitoring.report import Trigger
triggers.emit_events("houses", [Trigger("stale", 9, 5, "nobody came", due=True, tells=True, retrains=False),
                         Trigger("drift", 2, 1, "x {{ drifted }} 'far'", due=True, tells=True, retrains=True)])
EventsWorker.drain_all(timeout=10)
"""


@pytest.mark.slow
def test_an_event_that_retrains_starts_the_deployment_with_its_cause_and_reason_and_no_other_does(
    prefect_server, run_python
):
    import httpx

    deployment = run_python(TELL, PREFECT_API_URL=prefect_server).splitlines()[-1]
    asked = {"deployments": {"id": {"any_": [deployment]}}}

    def started():
        return httpx.post(f"{prefect_server}/flow_runs/filter", json=asked, timeout=30).json()

    # The server takes up a new automation a little later.
    def emitted():
        run_python(EMIT, PREFECT_API_URL=prefect_server)
        return until(started, 10)

    (run, *others) = until(emitted, 60)
    said = {"model": "houses", "cause": "drift", "why": "nobody came; x {{ drifted }} 'far'"}
    assert run["parameters"] == said
    assert all(other["parameters"] == said for other in others)
