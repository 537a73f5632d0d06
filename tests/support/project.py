"""A copy of the project with a tiny model of its own, as a team would have it, and the command run in it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import warm

CHECKOUT = Path(__file__).resolve().parents[2]


@cache
def schema(name):
    """The checked-in JSON Schema of a command, or `error`, or an answer of the endpoint, such as `http/model`."""
    path = CHECKOUT / "docs/reference/schemas" / f"{name}.json"
    assert path.exists(), f"{name} has no schema: add its type to flows.cli.views.by_command"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def validate(found, name):
    """Fail unless JSON is as the schema of a command says, or, when it broke, that of an error."""
    schema("error" if "error" in found else name).validate(found)


MODEL = '''
"""Points near a plane, with a transformer of the model's own."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from pipeline.sources import Csv
from pipeline.spec import Gate, ModelSpec, Regression


class Squares(TransformerMixin, BaseEstimator):
    """Adds the square of every number."""

    def fit(self, X, y=None):
        self.columns_ = X.shape[1]
        return self

    def transform(self, X):
        return np.hstack([X, X**2])


spec = ModelSpec(
    name="points",
    source=Csv("points.csv"),
    key=("id",),
    target="y",
    task=Regression(),
    candidates={"ridge": make_pipeline(SimpleImputer(), Squares(), Ridge())},
    metric="rmse",
    gate=Gate(at_most=1.0, tolerance=0.1),
)
'''

SUITE = """
from great_expectations import expectations as gxe

from expectations.suite import Suite

suite = Suite(
    error=[
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=-100, max_value=100),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
    ]
)
"""


def points(rows=150, seed=0):
    """Rows of id, x, z (null in every tenth) and y = 2 x + x² - 3 z + noise of deviation 0.3."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(0, 1, rows).round(3), rng.normal(0, 1, rows).round(3)
    y = 2 * x + x**2 - 3 * z + rng.normal(0, 0.3, rows)
    z[::10] = np.nan
    y[::10] = (2 * x + x**2)[::10]
    return pd.DataFrame({"id": np.arange(rows), "x": x, "z": z, "y": y.round(3)})


def shuffled(frame, seed=1):
    """The same rows with each other's targets."""
    return frame.assign(y=np.random.default_rng(seed).permutation(frame["y"]))


@dataclass
class Project:
    """A project's folder, and what its commands are run with."""

    folder: Path
    env: dict = field(default_factory=dict)
    python: str = sys.executable

    @property
    def home(self):
        return self.folder / ".evergreen"

    def write(self, path, text):
        (self.folder / path).write_text(text)

    def data(self, frame, name="points.csv"):
        path = self.folder / name
        frame.to_csv(path, index=False)
        # A file that changed within the last 2 seconds is read again: by its time alone it is not surely the same.
        written = path.stat().st_mtime_ns - 10**10
        os.utime(path, ns=(written, written))

    def start(self, *arguments, code="from flows.cli.main import main; main()", cold=False):
        """Start the command, or other code, in the project; with `cold`, as a process that imported nothing yet."""
        dropped = ("EVERGREEN_", "PYTHONPATH")
        return (subprocess.Popen if cold else warm.popen())(
            [self.python, "-c", code, *arguments],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if not name.startswith(dropped)} | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process):
        """Wait for a command; return its exit code, stdout and stderr."""
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def evergreen(self, *arguments):
        """Run the command to its end; return its exit code, stdout and stderr."""
        return self.finish(self.start(*arguments))

    def json(self, *arguments):
        """Run the command with --json; return its exit code and the one JSON object it prints, as its schema says."""
        code, out, err = self.evergreen(*arguments, "--json")
        try:
            found = json.loads(out)
        except ValueError as error:
            raise AssertionError(f"stdout: {out!r}\nstderr: {err}") from error
        validate(found, arguments[0])
        return code, found

    def killed_at(self, step, when="end"):
        """Run the flow and kill the process with -9 when a step begins or ends."""
        code = (
            "import os, signal, sys\n"
            "from flows.ops.warmup import launch\n"
            "from pipeline.settings import settings\n"
            "name, when = sys.argv[1:]\n"
            "def listen(step):\n"
            "    if step.name == name and (step.seconds is None) == (when == 'begin'):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "launch(settings(), listen, model='points')\n"
        )
        returned, _, err = self.finish(self.start(step, when, code=code))
        assert returned == -signal.SIGKILL, err

    def copied(self, folder):
        """A copy of the project in a new folder, with its history."""
        shutil.copytree(self.folder, folder)
        return Project(folder, dict(self.env))

    def champion(self):
        """The number of the release that is champion, as `status` says; None without one."""
        release = self.json("status", "points")[1]["models"][0]["release"]
        return release and release["number"]

    def files(self, pattern):
        return sorted(path.relative_to(self.home).as_posix() for path in self.home.glob(pattern))


def copy_of_the_project(folder, url):
    """Copy the four rooms into a folder, and give them the tiny model, its suite and its data."""
    for room in ("pipeline", "expectations", "bentos", "flows"):
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("web"))
    project = Project(folder, {"PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"})
    project.write("pipeline/models/points.py", MODEL)
    project.write("expectations/suites/points.py", SUITE)
    project.data(points())
    return project
