import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

os.environ |= {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "true",
}


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
            env=os.environ | {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}"} | env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """The API address of one Prefect server for all tests; a run against it is four times cheaper."""
    from flows.server import start_server
    from pipeline.processes import free_port
    from pipeline.settings import Settings

    with start_server(Settings(home=tmp_path_factory.mktemp("prefect-server")), free_port()) as url:
        yield url


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
