"""`evergreen deploy` and `prefect worker start`: what is registered, and that plain workers run it."""

import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import yaml
from project import MODEL, copy_of_the_project, points

from pipeline.processes import supervised_child

SECRET = "/hook-4711-geheim"
TOLD = (
    MODEL.replace(
        "    gate=",
        '    schedule=Cron("0 3 * * 1", timezone="America/Chicago"),\n    notify=(Webhook(url_env="POINTS_HOOK"), '
        'Slack(url_env="POINTS_SLACK"), Email(to=("a@b.example",), sender="c@d.example", key_env="POINTS_KEY")),\n'
        "    gate=",
    )
    .replace("import Gate,", "import Cron, Email, Gate,")
    .replace("Regression\n", "Regression, Slack, Webhook\n", 1)
)
SECRETS = {"POINTS_SLACK": "https://hooks.slack.com/services/T0/B0/geheim", "POINTS_KEY": "SG.geheim"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, prefect_server):
    """A project with one model, which has a schedule and says whom to tell, deployed."""
    project = copy_of_the_project(tmp_path_factory.mktemp("deployed"), prefect_server)
    project.write("pipeline/models/points.py", TOLD)
    for other in ("breast_cancer", "house_prices"):
        (project.folder / f"pipeline/models/{other}.py").unlink()
    project.env |= SECRETS
    project.env["PREFECT_HOME"] = str(project.folder / "prefect")
    code, project.deployed = project.json("deploy")
    assert code == 0, project.deployed
    return project


def ask(project, path, **body):
    answer = httpx.post(f"{project.env['PREFECT_API_URL']}{path}", json=body, timeout=30, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def get(project, path):
    return httpx.get(f"{project.env['PREFECT_API_URL']}{path}", timeout=30, trust_env=False).raise_for_status().json()


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


def runs(project, *states):
    chosen = {"state": {"name": {"any_": list(states)}}} if states else {}
    deployed = {"id": {"any_": [project.deployed["deployments"][0]["id"]]}}
    return ask(project, "/flow_runs/filter", flow_runs=chosen, deployments=deployed)


def begin(project, when=None, **parameters):
    """Ask for a run of the deployment; as one that was due before, if `when` says so."""
    (deployment,) = project.deployed["deployments"]
    details = {"state_details": {"scheduled_time": when.isoformat()}} if when else {}
    state = {"state": {"type": "SCHEDULED", **details}}
    return ask(project, f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters, **state)["id"]


@contextmanager
def worker(project):
    """`prefect worker start`, from somewhere else."""
    elsewhere = project.folder.parent / f"elsewhere-{time.monotonic_ns()}"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "evergreen"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | project.env
    with supervised_child(command, env | {"PREFECT_WORKER_QUERY_SECONDS": "2"}, elsewhere, elsewhere / "log") as child:
        child.log = elsewhere / "log"
        yield child


def test_a_deployment_says_what_the_spec_says(project):
    (said,) = project.deployed["deployments"]
    assert (said["deployment"], said["schedule"]["cron"]) == ("retrain/points", "0 3 * * 1")
    found = get(project, f"/deployments/{said['id']}")

    assert found["work_pool_name"] == "evergreen"
    assert get(project, "/work_pools/evergreen")["type"] == "process"
    assert found["schedules"][0]["schedule"]["timezone"] == "America/Chicago"
    assert (found["parameters"], found["schedules"][0]["parameters"]) == ({"model": "points"}, {"cause": "schedule"})
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert "regression of `y`" in found["description"]
    assert found["tags"] == ["evergreen", "points"]
    # The server plans runs ahead by itself: this is what breaks with a SQLAlchemy it does not know.
    assert until(lambda: [run for run in runs(project, "Scheduled") if run["auto_scheduled"]], 30)


def test_deploying_again_changes_nothing_keeps_what_a_person_paused_and_removes_what_is_no_more(project):
    (said,) = project.deployed["deployments"]
    (schedule,) = get(project, f"/deployments/{said['id']}")["schedules"]
    address = f"{project.env['PREFECT_API_URL']}/deployments/{said['id']}/schedules/{schedule['id']}"
    httpx.patch(address, json={"active": False}, trust_env=False).raise_for_status()
    gone = project.folder / "pipeline/models/gone.py"
    gone.write_text(MODEL.replace('name="points"', 'name="gone"'))
    code, both = project.json("deploy")
    assert (code, len(both.get("deployments", ()))) == (0, 2), both
    gone.unlink()

    code, again = project.json("deploy")

    assert (code, [one["id"] for one in again["deployments"]]) == (0, [said["id"]])
    assert again["deployments"][0]["paused"]
    names = [one["name"] for one in ask(project, "/deployments/filter", deployments={"tags": {"all_": ["evergreen"]}})]
    assert names == ["points"]
    (schedule,) = get(project, f"/deployments/{said['id']}")["schedules"]
    assert not schedule["active"]


@pytest.mark.slow
def test_prefects_own_deploy_registers_the_same_from_the_prefect_yaml_that_is_printed(project):
    (said,) = project.deployed["deployments"]
    before = get(project, f"/deployments/{said['id']}")
    code, printed, _ = project.evergreen("deploy", "--yaml")
    assert code == 0
    assert yaml.safe_load(printed)["deployments"][0]["name"] == "points"
    project.write("prefect.yaml", printed)

    done = project.finish(project.start("--no-prompt", "deploy", "--all", code="from prefect.cli import app; app()"))

    assert done[0] == 0, done
    after = get(project, f"/deployments/{said['id']}")
    for field in ("entrypoint", "parameters", "pull_steps", "tags", "description", "work_pool_name"):
        assert after[field] == before[field], field
    project.json("deploy")


@pytest.mark.slow
def test_late_runs_collapse_into_one_which_a_plain_worker_runs_and_what_is_asked_for_otherwise_stays(project):
    hours = [datetime.now(UTC) - timedelta(hours=hours) for hours in (3, 2, 1)]
    late = [begin(project, when, cause="schedule") for when in hours]
    forced = begin(project, hours[0], force=True)
    with worker(project) as child:
        states = lambda: {run["id"]: run["state"]["name"] for run in runs(project)}  # noqa: E731
        done = ("Released", "Unchanged", "Kept", "Skipped")
        ended = until(lambda: all(states()[id] in done for id in (*late, forced)), 240)
    assert ended, (states(), child.log.read_text()[-3000:])
    assert sorted(states()[id] for id in late) in (
        ["Released", "Skipped", "Skipped"],
        ["Skipped", "Skipped", "Unchanged"],
    )
    assert states()[forced] == "Released"
    assert project.champion() is not None


@pytest.mark.slow
def test_a_run_that_is_killed_under_a_worker_is_crashed_and_the_next_goes_on_and_says_so(project):
    project.data(points(rows=170))
    with worker(project) as child:
        id = begin(project)
        mark = project.home / "runs" / "points" / id / "under-way.json"
        known = set(project.files("trained/points/*/trained.json"))
        assert until(lambda: set(project.files("trained/points/*/trained.json")) - known), child.log.read_text()
        os.kill(json.loads(mark.read_text())["pid"], 9)
        assert until(lambda: id in {run["id"] for run in runs(project, "Crashed")}, 60)
        before = project.champion()
        code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "released")
    assert said["release"] == (before or 0) + 1
    assert said["resumed"].startswith("resumed: the process of the run of")
    history = [run for run in runs(project) if run["state"]["name"] in ("Running", "Pending")]
    assert history == []


def test_what_a_worker_took_and_never_began_is_closed_and_asked_for_anew_with_the_same_parameters(project):
    id = begin(project, cause="drift", why="x has moved")
    taken = {"state": {"type": "PENDING", "name": "Pending"}, "force": True}
    address = f"{project.env['PREFECT_API_URL']}/flow_runs/{id}/set_state"
    httpx.post(address, json=taken, timeout=30, trust_env=False).raise_for_status()
    close = "from flows.ops.run_state import close_unstarted; print(close_unstarted('evergreen'))"

    assert [project.finish(project.start(code=close))[1].strip() for _ in range(2)] == ["1", "0"]

    (closed,) = runs(project, "Crashed")
    assert (closed["id"], closed["state"]["message"]) == (id, "its worker ended before the run began")
    (anew,) = [run for run in runs(project, "Scheduled", "Late") if not run["auto_scheduled"]]
    assert anew["parameters"] == {"model": "points", "cause": "drift", "why": "x has moved"}
    httpx.delete(f"{project.env['PREFECT_API_URL']}/flow_runs/{anew['id']}", trust_env=False).raise_for_status()


@contextmanager
def listening():
    """A server that takes whatever is posted."""
    posted = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{SECRET}", posted
    finally:
        server.shutdown()


def test_people_are_told_of_rejected_data_by_the_channels_of_the_spec_and_secrets_stay_secret(project):
    (said,) = project.deployed["deployments"]
    assert said["notes"] == ["points: POINTS_HOOK is not set in the environment, so nothing is sent to this channel"]
    with listening() as (url, posted):
        project.env["POINTS_HOOK"] = url
        code, again = project.json("deploy")
        assert (code, again["deployments"][0]["notes"]) == (0, [])
        project.data(points().assign(x=1000.0), "bad.csv")

        assert project.json("run", "points", "--data", "bad.csv")[1]["outcome"] == "data-rejected"

        assert until(lambda: posted, 60)
    path, told = posted[0]
    assert path == SECRET
    assert (told["model"], told["subject"]) == ("points", "points: data-rejected")
    assert "x" in told["text"]
    blocks = ask(project, "/block_documents/filter", include_secrets=False)
    kinds = {block["name"]: block["block_type"]["slug"] for block in blocks if block["name"].startswith("evergreen-")}
    assert kinds == {
        "evergreen-points-1": "custom-webhook",
        "evergreen-points-2": "slack-webhook",
        "evergreen-points-3": "sendgrid-email",
    }
    assert "geheim" not in json.dumps(blocks)
    assert "geheim" not in json.dumps(ask(project, "/automations/filter")) + json.dumps(again)


def test_a_deployment_without_a_server_says_what_to_do(tmp_path):
    project = copy_of_the_project(tmp_path, "http://127.0.0.1:9/api")
    code, said = project.json("deploy")
    assert code == 1
    assert "no Prefect server answers" in said["error"]["message"]
