"""A copy of the project with the models that are measured, trained and released by `evergreen run`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.endpoint import pipelines
from pipeline.project import CODE_FOLDER

ROOMS = ("pipeline", "expectations", "bentos", "flows")
SHARED = Path("pipeline/endpoint_pipelines.py")
ONE_NUMBER, EIGHTY_COLUMNS = "nothing_of_one_number", "nothing_of_eighty_columns"

LEARNT = '''
"""{about}"""

from pipeline import endpoint_pipelines
from pipeline.sources import Csv
from pipeline.spec import Gate, Holdout, ModelSpec, Regression

spec = ModelSpec(
    name="{name}",
    source=Csv("{table}.csv"),
    key=("Id",),
    target="SalePrice",
    task=Regression(unit="USD"),
    candidates={{"{candidate}": endpoint_pipelines.{candidate}()}},
    metric="rmse",
    gate=Gate(at_most=1e9, tolerance=1e9),
    time={time},
    folds=2,
)
'''

SUITE = '''
"""Whatever has a key is good enough to be measured with."""

from great_expectations import expectations as gxe

from expectations.suite import Suite

suite = Suite(error=[gxe.ExpectColumnValuesToBeUnique(column="Id")])
'''

EVERGREEN = [sys.executable, "-c", "from flows.cli.main import main; main()"]


@dataclass(frozen=True)
class Project:
    """The copy, the environment of its commands, and what was released: the artifact's folder by model."""

    folder: Path
    env: dict[str, str]
    artifacts: dict[str, Path]


def build(folder: Path, env: dict[str, str]) -> Project:
    """Copy the project into a folder and release every model that is measured; RuntimeError when one is not."""
    for room in ROOMS:
        shutil.copytree(CODE_FOLDER / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(pipelines.__file__), folder / SHARED)
    pipelines.houses().to_csv(folder / "houses.csv", index=False)
    models = {name: (name, "houses") for name in ("ridge", "trees", "forest", "custom")}
    for name, features in {ONE_NUMBER: pipelines.NUMBERS[1:2], EIGHTY_COLUMNS: pipelines.FEATURES}.items():
        pipelines.nothing_to_learn(features).to_csv(folder / f"{name}.csv", index=False)
        models[name] = ("constant", name)
    env = env | {"EVERGREEN_HOME": str(folder / ".evergreen")}
    artifacts = {}
    for name, (candidate, table) in models.items():
        time = repr(pipelines.TIME) if candidate == "constant" else None
        module = LEARNT.format(about=f"{name}, to be measured.", name=name, table=table, candidate=candidate, time=time)
        (folder / "pipeline" / "models" / f"{name}.py").write_text(module)
        (folder / "expectations" / "suites" / f"{name}.py").write_text(SUITE)
        artifacts[name] = _released(name, folder, env)
    return Project(folder, env, artifacts)


def answers_by(project: Project, model: str) -> str:
    """Say what answers requests to a model, its compiled plan or the estimator, as its manifest does."""
    answers = json.loads((project.artifacts[model] / "manifest.json").read_text())["answers"]
    return "its compiled plan" if answers["by"] == "plan" else f"the estimator itself ({answers['why']})"


def _released(model: str, folder: Path, env: dict[str, str]) -> Path:
    done = subprocess.run(
        [*EVERGREEN, "run", model, "--json"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    outcome = json.loads(done.stdout or "{}")
    if outcome.get("outcome") != "released":
        raise RuntimeError(f"evergreen run {model}: {done.stdout[-1000:]} {done.stderr[-2000:]}")
    place, _, version = outcome["bento"].partition(":")
    return Path(env["EVERGREEN_HOME"]) / "bentoml" / "bentos" / place / version / "src" / "artifact"


def environment() -> dict[str, str]:
    """Return this process's environment without what the person has set for projects of their own, one BLAS thread."""
    theirs = ("EVERGREEN_", "PREFECT_", "BENTOML_", "GX_", "MLFLOW_", "MLSERVER_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return {**kept, **threads, **quiet, "MLFLOW_DISABLE_TELEMETRY": "true", "GX_ANALYTICS_ENABLED": "false"}
