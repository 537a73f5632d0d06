"""A model looked at as it is served: a real release, a real server, real requests, late labels, real events."""

import csv
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pytest
from project import MODEL, copy_of_the_project, points
from serving import served, until
from tiny import a_spec

from flows.monitoring import observe
from pipeline import request_log
from pipeline.request_log import Counts
from pipeline.sources import Csv
from pipeline.spec import RequestLog

WATCHED = MODEL.replace("ModelSpec, Regression", "Cron, ModelSpec, Monitor, Regression, RequestLog").replace(
    '    metric="rmse",\n',
    '    metric="rmse",\n    log=RequestLog(sample_rate=1.0),\n    labels=Csv("truth.csv"),\n'
    "    monitor=Monitor(min_rows=200, min_labelled_rows=50, stale_days=30, cooldown_hours=1),\n"
    '    schedule=Cron("0 3 * * 1"),\n',
)


@pytest.fixture(scope="module")
def looked(tmp_path_factory, prefect_server):
    """A project whose release was asked about 300 rows that drifted; two looks at it, before and after labels came."""
    project = copy_of_the_project(tmp_path_factory.mktemp("watched"), prefect_server)
    project.write("pipeline/models/points.py", WATCHED)
    project.unseen = project.json("triggers", "points")
    project.released = project.json("run", "points")
    project.quiet = project.json("monitor", "points")
    asked = points(300, seed=3).assign(x=lambda rows: rows["x"] + 3, id=lambda rows: rows["id"] + 5000)
    asked["y"] += 6 * (asked["x"] - 3) + 15
    with served(project, "points", project.folder / "log") as server:
        for start in range(0, 300, 50):
            part = asked[start : start + 50].drop(columns="y")
            assert server.send(part.to_csv(index=False)).status_code == 200
        assert server.ask({"x": "far"}).status_code == 400
    # The truth is 40 more than what it was trained to say.
    asked.assign(y=lambda rows: rows["y"] + 40)[:200].to_csv(project.folder / "truth.csv", index=False)
    project.look = project.json("monitor", "points")
    project.again = project.json("monitor", "points")
    return project


def trigger(found, name):
    return next(one for one in found["triggers"] if one["name"] == name)


@pytest.mark.slow
def test_before_anything_was_asked_a_look_says_so_and_triggers_nothing(looked):
    code, found = looked.quiet
    assert (code, found["release"]) == (0, 1)
    assert found["inputs"]["why"] == "0 rows are logged in 7 days, 200 are needed to compare"
    assert found["unlabelled"] == "nothing is logged yet that a label could belong to"
    assert not any(one["due"] for one in found["triggers"])
    assert trigger(found, "new-data")["sentence"] == "points.csv has not changed since a run read it"


@pytest.mark.slow
def test_a_look_finds_the_drift_the_traffic_and_the_performance_on_labels(looked):
    code, found = looked.look
    assert code == 0, found
    drifted = {one["column"] for one in found["inputs"]["columns"] if one["drifted"]}
    assert drifted == {"x", "predicted y"}
    assert found["traffic"]["requests"] == 7
    assert (found["traffic"]["refused"], found["traffic"]["errors"], found["traffic"]["rows"]) == (1, 0, 300)
    assert found["traffic"]["p95_ms"] > 0
    (performance,) = found["performance"]
    assert (performance["release"], performance["rows"], performance["logged"]) == (1, 200, 300)
    # By an independent computation, from the log and the file of the labels.
    table = request_log.read(looked.home / "requests/points", datetime(2000, 1, 1, tzinfo=UTC)).tables[1]
    said = dict(zip(table["key.id"].to_pylist(), table["prediction"].to_pylist(), strict=True))
    with open(looked.folder / "truth.csv") as file:
        errors = [float(row["y"]) - said[row["id"]] for row in csv.DictReader(file)]
    assert performance["value"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert performance["low"] < performance["value"] < performance["high"]
    assert performance["released"] == pytest.approx(looked.released[1]["metrics"]["challenger"]["rmse"])
    assert sum(day["rows"] for day in performance["by_day"]) == 200


@pytest.mark.slow
def test_what_is_due_waits_for_the_cooldown_and_is_told_once(looked):
    _, found = looked.look
    performance, drift = trigger(found, "performance"), trigger(found, "drift")
    assert performance["due"]
    assert drift["due"]
    # The release is minutes old, and the spec says an hour.
    assert "cooldown is 1 hours" in performance["waits"]
    assert (performance["tells"], performance["retrains"]) == (True, False)
    assert not any(one["tells"] for one in looked.again[1]["triggers"])


@pytest.mark.slow
def test_events_reach_prefect_with_the_reason_and_a_report_is_on_the_runs_page(looked, prefect_server):
    def events():
        asked = {"filter": {"event": {"prefix": ["evergreen."]}, "resource": {"id": ["evergreen.model.points"]}}}
        answer = httpx.post(f"{prefect_server}/events/filter", json=asked, timeout=30)
        return {one["event"]: one for one in answer.json()["events"]}

    assert until(lambda: {"evergreen.drift", "evergreen.performance"} <= set(events()))
    told = events()["evergreen.drift"]
    assert told["resource"]["evergreen.model"] == "points"
    assert told["resource"]["evergreen.retrains"] == "no"
    assert "x" in told["payload"]["why"]
    asked = {"artifacts": {"key": {"any_": ["points-monitor"]}}, "sort": "CREATED_DESC"}
    (newest, *_) = httpx.post(f"{prefect_server}/artifacts/filter", json=asked, timeout=30).json()
    assert "## Performance" in newest["data"]
    assert "data:image/png" in newest["data"]
    run = httpx.get(f"{prefect_server}/flow_runs/{newest['flow_run_id']}", timeout=30).json()
    assert run["state_name"] == "Performance"
    folder = looked.home / "runs/points.monitor" / newest["flow_run_id"]
    assert json.loads((folder / "monitor.json").read_text())["release"] == 1
    assert {path.name for path in folder.iterdir()} == {
        *("monitor.json", "report.md", "traffic.png", "drift.png", "performance.png", "histograms.png")
    }


@pytest.mark.slow
def test_why_says_what_would_trigger_next_and_how_far_it_is(looked):
    assert looked.unseen[1]["looked"] is None
    code, said = looked.json("triggers", "points")
    assert (code, said["release"], said["last_run"]["outcome"]) == (0, 1, "released")
    assert said["schedule"] == {"expression": "0 3 * * 1", "timezone": "UTC"}
    stale = trigger(said, "stale")
    assert (stale["due"], stale["threshold"], stale["event"]) == (False, 30, "evergreen.stale")
    assert stale["value"] < 1
    assert trigger(said, "drift")["due"]
    _, words, _ = looked.evergreen("triggers", "points")
    assert "drift: due" in words


@pytest.mark.slow
def test_a_damaged_snapshot_is_not_compared_with_and_holds_nothing_else_back(looked):
    (path,) = (looked.home / "snapshots").glob("*.parquet")
    whole = path.read_bytes()
    # Its end, which tells where what is, stays readable; its columns are not.
    path.write_bytes(b"PAR1" + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    code, found = looked.json("monitor", "points")
    path.write_bytes(whole)
    assert code == 0, found
    assert found["inputs"]["why"].startswith(f"not compared: snapshot {path.name} cannot be read")
    assert found["inputs"]["columns"] is None
    assert found["traffic"]["requests"] == 7
    assert found["performance"][0]["rows"] == 200


@pytest.mark.slow
def test_a_retraining_stores_its_reason(looked):
    code = (
        "from flows.ops.warmup import launch\n"
        "from pipeline.settings import settings\n"
        "launch(settings(), lambda step: None, model='points', force=True, cause='drift', why='x drifted')\n"
    )
    assert looked.finish(looked.start(code=code))[0] == 0
    _, said = looked.json("triggers", "points")
    assert (said["last_run"]["cause"], said["last_run"]["why"]) == ("drift", "x drifted")
    _, history = looked.json("history", "points")
    assert history["events"][-1]["reason"].startswith("x drifted; ")


def test_labels_that_cannot_be_read_hold_nothing_else_back():
    spec = a_spec(log=RequestLog(), labels=Csv("nowhere.csv"))
    made, logged = [SimpleNamespace(number=1)], pa.table({"time": [], "key.id": [], "prediction": []})
    found, why = observe._performance(spec, made, {1: {"labels": []}}, {1: logged})
    assert found == ()
    assert why.startswith("the labels cannot be read: ")
    assert "nowhere.csv" in why


def counts(at, seconds=(0, 0), **more):
    return Counts(1, at - 60, at, seconds=seconds, edges=(0.01,), **more)


def test_traffic_is_added_up_by_hour_with_the_latencies_of_all():
    some = [
        counts(7200.0, (95, 5), requests=100, refused=4, errors=1),
        counts(7300.0, (0, 100), requests=100),
        counts(20_000.0),
    ]
    first, second = observe._over_time(some, timedelta(hours=1))
    assert (first.at, first.traffic.requests, first.traffic.refused, first.traffic.errors) == (
        "1970-01-01T02:00:00+00:00",
        200,
        4,
        1,
    )
    # 95 of 200 are within 10 ms, the others beyond the last edge.
    assert (first.traffic.p50_ms, first.traffic.p95_ms) == (20.0, 20.0)
    assert (second.traffic.requests, second.traffic.p50_ms) == (0, None)
    assert observe._traffic(some[:1]).p95_ms == 10.0
