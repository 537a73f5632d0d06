"""evergreen installed with pip into an empty environment, and a project that holds only what is its own."""

import json
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from project import CHECKOUT, points

SOURCES = ("pipeline", "expectations", "bentos", "flows")
FILES = ("evergreen.py", "pyproject.toml", "requirements.in", "requirements-dev.in", "requirements.txt", "README.md")
LOAD = """
import json, sys
import pandas as pd
import evergreen, pipeline
model = evergreen.load("points")
predictions = model.predict(pd.read_csv("points.csv")).tolist()
print(json.dumps({"code": pipeline.__file__, "release": model.release, "predictions": len(predictions)}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with evergreen; what that requires is borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for room in SOURCES:
        shutil.copytree(CHECKOUT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in (*FILES, "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    place = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    # The folder alone: the .pth files in it, which may lead to this checkout, are not read.
    Path(place, "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--ignore-installed", source], check=True)
    return python


def run(python, folder, *command):
    done = subprocess.run(
        [python, *command], cwd=folder, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_pip_installed_evergreen_starts_a_project_releases_a_model_and_loads_it(python, tmp_path):
    evergreen, sub = python.with_name("evergreen"), tmp_path / "notebooks"
    sub.mkdir()
    points().to_csv(tmp_path / "points.csv", index=False)
    begun = run(
        python, tmp_path, evergreen, "init", "points.csv", "--target", "y", "--name", "points", "--yes", "--json"
    )
    assert begun["created"] == ["pipeline/models", "expectations/suites"]
    assert run(python, sub, evergreen, "run", "points", "--json")["outcome"] == "released"
    assert (tmp_path / ".evergreen" / "ledger.sqlite").exists()
    found = run(python, tmp_path, "-c", LOAD)
    assert found["release"] == 1
    assert found["predictions"] == len(points())
    assert Path(found["code"]).is_relative_to(python.parents[1])
    run(python, tmp_path, evergreen, "export", "points", str(tmp_path / "exported"), "--json")
    project = tmp_path / "exported" / "project"
    assert {"pyproject.toml", "requirements.txt", "evergreen.py", "flows"} <= {path.name for path in project.iterdir()}
    assert [path.name for path in (project / "pipeline" / "models").iterdir()] == ["points.py"]
