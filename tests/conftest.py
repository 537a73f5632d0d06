import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
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


@pytest.fixture
def houses():
    """Six rows with every logical type, and a null in each column that may have one."""
    return pd.DataFrame(
        {
            "id": [1, 2, 3, 4, 5, 6],
            "area": [50.5, 80.0, None, 120.0, 95.0, 70.0],
            "street": ["Pave", "Grvl", "Pave", None, "Pave", "Grvl"],
            "garden": pd.array([True, False, None, True, True, False], dtype="boolean"),
            "sold": pd.to_datetime(["2024-01-01", "2024-02-01", None, "2024-04-01", "2024-05-01", "2024-06-01"]),
            "price": [100, 150, 120, 240, 190, 140],
        }
    )


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory):
    """The API address of one Prefect server for all tests; a run against it is four times cheaper."""
    from flows.server import start_server
    from pipeline.processes import free_port
    from pipeline.settings import Settings

    with start_server(Settings(home=tmp_path_factory.mktemp("prefect-server")), free_port()) as url:
        yield url
