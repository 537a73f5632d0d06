"""`evergreen up`, with its real server, worker, schedule and endpoint, and kills of all of them."""

import json
import signal
import time

import httpx
import psutil
import pytest
import sqlalchemy as sa
from project import MODEL, copy_of_the_project
from test_releases import postgres  # noqa: F401

from bench.soak.clock import build, environment, turn
from pipeline.processes import free_port

EVERY_MINUTE = MODEL.replace("    gate=", '    schedule=Cron("* * * * *"),\n    gate=').replace(
    "import Gate,", "import Cron, Gate,"
)
RECORD = {"records": [{"x": 1.0, "z": 0.5}]}


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


class Up:
    """The command on a free port, and what is asked of it."""

    def __init__(self, project):
        self.project = project
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.process = project.start("up", "--port", str(port), cold=True)

    def ask(self, path, **body):
        try:
            answer = httpx.post(f"{self.api}{path}", json=body, timeout=30, trust_env=False)
        except httpx.HTTPError:
            return []
        return answer.json() if answer.is_success else []

    def runs(self, *states):
        """The flow runs in states of some names."""
        return self.ask("/flow_runs/filter", flow_runs={"state": {"name": {"any_": list(states)}}})

    def begin(self):
        """Ask for a run, as a person does in the Prefect UI; None while that is not possible."""
        deployments = self.ask("/deployments/filter")
        made = self.ask(f"/deployments/{deployments[0]['id']}/create_flow_run") if deployments else {}
        return made and made["id"]

    def state(self, id):
        (run,) = self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [id]}}) or [{}]
        return run and run["state"]["name"]

    def predicts(self):
        try:
            ports = json.loads((self.project.home / "up" / "ports.json").read_text())
            address = f"http://127.0.0.1:{ports['points']}/predict"
            return httpx.post(address, json=RECORD, timeout=5, trust_env=False).status_code == 200
        except (OSError, httpx.HTTPError):
            return False

    def part(self, *words):
        """The process of one of the parts, by words of its command; not its leash."""
        found = [one for one in processes_of(self.project) if all(word in " ".join(one.cmdline()) for word in words)]
        return next(one for one in found if "processes.py" not in " ".join(one.cmdline()))

    def end(self, kind=signal.SIGINT):
        self.process.send_signal(kind)
        _, err = self.process.communicate(timeout=60)
        return err

    def told(self):
        """All that was said, for a test that fails."""
        logs = {path.name: path.read_text()[-2000:] for path in (self.project.home / "up").glob("*.log")}
        return "\n".join([self.end(), *(f"== {name}\n{text}" for name, text in logs.items())])


def processes_of(project):
    """Processes that run in or for the project now."""
    found = []
    for process in psutil.process_iter():
        try:
            in_it = str(project.folder) in " ".join([process.cwd(), *process.cmdline()])
            if in_it and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def started(folder, **env):
    project = copy_of_the_project(folder, "")
    project.env |= env
    # A server of its own, not the one of the tests.
    del project.env["PREFECT_API_URL"]
    project.write("pipeline/models/points.py", EVERY_MINUTE)
    for other in ("breast_cancer", "house_prices"):
        (project.folder / f"pipeline/models/{other}.py").unlink()
    return Up(project)


@pytest.fixture
def up(tmp_path):
    up = started(tmp_path)
    yield up
    up.process.kill()
    up.process.wait()


@pytest.fixture
def up_on_postgresql(tmp_path, postgres):  # noqa: F811
    """The same with Prefect's history in PostgreSQL; the ledger stays in SQLite."""
    up = started(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=postgres.replace("+psycopg", "+asyncpg"))
    yield up
    up.process.kill()
    up.process.wait()


@pytest.mark.slow
def test_one_command_runs_the_schedule_and_serves_what_it_releases_and_starts_anew_what_is_killed(up):
    assert until(lambda: up.project.champion() == 1, 240), up.told()
    (run,) = until(lambda: up.runs("Released"), 60)
    assert run["created_by"]["type"] == "SCHEDULE"
    assert run["parameters"]["cause"] == "schedule"
    assert until(up.predicts, 60), up.told()

    for words in (("prefect", "server", "start"), ("prefect", "worker", "start"), ("serve", "points")):
        up.part(*words).kill()
    assert until(lambda: not up.predicts(), 10)
    assert until(up.predicts, 60), up.told()
    id = until(up.begin, 60)
    assert until(lambda: up.state(id) in ("Unchanged", "Skipped"), 150), up.told()

    err = up.end()
    assert up.process.returncode == 0, err
    for part in ("server", "worker", "endpoint points"):
        assert f"{part} ended with code -9; it will be restarted in 1 s" in err
    assert "points has release 1: serving it on port" in err
    assert processes_of(up.project) == []


@pytest.fixture
def clock(tmp_path):
    """A clock that can be set for the processes that go by it."""
    return build(tmp_path) or pytest.skip("no C compiler is at hand: a clock cannot be set for some processes alone")


@pytest.mark.slow
def test_schedules_go_on_when_a_clock_that_was_a_year_ahead_is_set_right(clock, tmp_path):
    turn(clock, 365 * 86_400)
    up = started(tmp_path, **environment(clock))
    try:
        assert until(lambda: up.project.champion() == 1, 240), up.told()
        assert until(up.predicts, 60), up.told()
        before = {run["id"] for run in up.runs("Scheduled", "Late")}
        # A minute may have passed since the release, and a run ended so already.
        ended = {run["id"] for run in up.runs("Unchanged")}
        turn(clock, 0)
        assert until(lambda: {run["id"] for run in up.runs("Unchanged")} - ended - before, 180), up.told()
        # Those that were planned for next year are not waited for.
        assert until(lambda: not before & {run["id"] for run in up.runs("Scheduled", "Late")}, 60), up.told()
        assert up.predicts()
        assert "the clock was set back by 365 days, 0:00:00: rescheduling all runs" in " ".join(up.end().split())
    finally:
        up.process.kill()


@pytest.mark.slow
def test_kill_9_of_the_command_in_the_midst_of_a_run_leaves_nothing_and_the_next_closes_the_run_and_goes_on(
    up_on_postgresql,
    postgres,  # noqa: F811
):
    up = up_on_postgresql
    assert until(up.begin, 240), up.told()
    assert until(lambda: up.project.files("trained/points/*/trained.json"), 120), up.told()
    up.end(signal.SIGKILL)
    assert until(lambda: processes_of(up.project) == [], 30), processes_of(up.project)
    assert up.project.champion() is None
    (id,) = [name.split("/")[2] for name in up.project.files("runs/points/*/under-way.json")]

    again = Up(up.project)
    try:
        assert until(lambda: up.project.champion() == 1, 240), again.told()
        (crashed,) = again.runs("Crashed")
        assert crashed["id"] == id
        assert "died" in crashed["state"]["message"]
        (released,) = until(lambda: again.runs("Released"), 60)
        assert "resumed: " in released["state"]["message"]
        assert again.runs("Running", "Pending") == []
    finally:
        again.end(signal.SIGTERM)
    assert processes_of(up.project) == []
    history = sa.create_engine(postgres)
    with history.connect() as connection:
        names = connection.execute(sa.text("SELECT state_name FROM flow_run ORDER BY created LIMIT 1")).scalars()
        assert [*names] == ["Crashed"]
    history.dispose()
    assert up.project.files("prefect/prefect.db") == []
