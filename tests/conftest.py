import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock
from project import Project, copy_of_the_project, points

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHONPATH = os.pathsep.join(
    [str(CHECKOUT), *(str(room) for room in sorted((CHECKOUT / "tests").iterdir()) if room.is_dir())]
)

os.environ |= {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "true",
    # Two tests run at a time on two cores: more threads and processes only take longer to start.
    "LOKY_MAX_CPU_COUNT": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
SERVERS = {
    f"test_{name}.py" for name in ("canary", "handover", "hostile", "operations", "page", "serve", "service", "trial")
}
"""The files that start servers, and take the longest after those with real runs."""


def pytest_collection_modifyitems(items):
    """Files with real runs first: they take longest, and the workers are to end together."""
    real = {item.path for item in items if {"prefect_server", "up"} & set(getattr(item, "fixturenames", ()))}
    items.sort(key=lambda item: (item.path not in real, item.path.name not in SERVERS))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty EVERGREEN_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EVERGREEN_HOME", str(folder))
    monkeypatch.delenv("EVERGREEN_DATABASE_URL", raising=False)
    return folder


@pytest.fixture
def run_python():
    """Run lines of Python in a process of their own, from the checkout; return what they print."""

    def run(code, *arguments, cwd=CHECKOUT, **env):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": PYTHONPATH} | env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that the workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def prefect_server(shared):
    """The API address of one Prefect server for all tests; a run against it is four times cheaper.

    The worker that needs it first starts it, and ends it when no other one has use for it.
    """
    from flows.ops.prefect_server import start_server
    from pipeline.processes import alive, free_port
    from pipeline.settings import Settings

    address, users = shared / "prefect-address", shared / "prefect-users"
    users.mkdir(exist_ok=True)
    mine = users / str(os.getpid())
    with ExitStack() as stack:
        with FileLock(shared / "prefect.lock"):
            mine.touch()
            if not address.exists():
                server = start_server(Settings(home=shared / "prefect-server"), free_port())
                address.write_text(stack.enter_context(server))
                stack.callback(wait_for, lambda: not any(alive(int(user.name)) for user in users.iterdir()))
                stack.callback(mine.unlink)
            else:
                stack.callback(mine.unlink)
        yield address.read_text()


@pytest.fixture(scope="session")
def first_release(shared, prefect_server):
    """A project whose first run released, and what that said; tests that go on from there copy it."""

    def make(folder):
        return copy_of_the_project(folder, prefect_server)

    return released(shared / "first-release", make, 1)


@pytest.fixture(scope="session")
def second_release(shared, first_release):
    """The same after a second run, on other and more rows of `points`, which released, too."""

    def make(folder):
        project = first_release.copied(folder)
        project.data(points(rows=300, seed=5))
        return project

    return released(shared / "second-release", make, 2)


def released(folder, make, number):
    """A project that one of the workers made and ran its model in, which was to release as a number."""
    said = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not said.exists():
            # What another worker began is not gone on with.
            shutil.rmtree(folder, ignore_errors=True)
            project = make(folder)
            found = project.json("run", "points")
            assert found[1].get("release") == number, found
            said.write_text(json.dumps([*found, project.env]))
    *first, env = json.loads(said.read_text())
    project = Project(folder, env)
    project.first = first
    return project


def wait_for(condition):
    while not condition():
        time.sleep(0.1)


@pytest.fixture(scope="session")
def house_model(tmp_path_factory):
    """A trained regression of house prices, as a Bento carries it; for tests that do not change it."""
    from house_endpoints import regression

    return regression(tmp_path_factory.mktemp("houses"))


@pytest.fixture(scope="session")
def dear_house_model(tmp_path_factory):
    """A trained classifier of houses, as a Bento carries it; for tests that do not change it."""
    from house_endpoints import classification

    return classification(tmp_path_factory.mktemp("dear"))
