"""The trial finds what is wrong with a package, soon, and leaves no process behind."""

import json
import shutil
import signal
import site
import subprocess
import sys

import pytest
from packed import artifacts_of, copied, resealed
from project import copy_of_the_project
from serving import processes_with, until

from bentos.package import package
from bentos.trial import run_trial
from pipeline.artifact import load_artifact

LABELLED = '''
"""Is z of one sort or another?"""

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pipeline.sources import Function
from pipeline.spec import BinaryClassification, Gate, ModelSpec, MulticlassClassification


def rows():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=200), rng.normal(size=200)
    sort = (x + z > 0).astype(int) + (x + z > 1)
    labels = {labels}
    y = pd.Series(labels)[np.minimum(sort, len(labels) - 1)].to_numpy()
    return pd.DataFrame({{"id": range(200), "x": x, "z": np.where(x > 1.5, np.nan, z), "y": y}})


spec = ModelSpec(
    name="{name}",
    source=Function(rows),
    key=("id",),
    target="y",
    task={task},
    candidates={{"logistic": make_pipeline(SimpleImputer(), LogisticRegression())}},
    metric="accuracy",
    gate=Gate(at_least=0.5),
)
'''
LABELS = {
    "words": ("['so, so', '\"dear\"', 'Ärger']", "MulticlassClassification()"),
    "numbers": ("[10, 2, 1]", "MulticlassClassification()"),
    "truths": ("[False, True]", "BinaryClassification(positive=True)"),
}

TRIED = """
import json, sys
from pathlib import Path
from bentos.package import load_bento
from bentos.trial import run_trial
from pipeline.artifact import load_artifact

bento = load_bento(sys.argv[1], Path(sys.argv[2]))
print(json.dumps(run_trial(bento, load_artifact(bento.path / "src/artifact")).to_dict()))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a regression and three classifications, and an artifact of each by name."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), "")
    for name, (labels, task) in LABELS.items():
        project.write(f"pipeline/models/{name}.py", LABELLED.format(name=name, labels=labels, task=task))
    names = ["points", *LABELS]
    project.artifacts = dict(zip(names, artifacts_of(project, *names), strict=True))
    return project


@pytest.fixture(scope="module")
def whole(project, tmp_path_factory):
    """The regression's Bento, as it was packaged."""
    return package(project.artifacts["points"], project.folder, tmp_path_factory.mktemp("store"))


@pytest.fixture
def bento(whole, tmp_path):
    """A copy of the Bento, to be damaged."""
    return copied(whole, tmp_path / "bentos" / whole.tag.replace(":", "/"))


def test_a_whole_package_passes_timed_and_leaves_no_process_behind(project, whole):
    trial = run_trial(whole, project.artifacts["points"])

    assert (trial.passed, trial.problems) == (True, ())
    rows, _ = project.artifacts["points"].golden()
    assert trial.answers == 4 * len(rows)
    assert list(trial.milliseconds) == ["p50", "p95", "max"]
    assert 0 < trial.milliseconds["p50"] <= trial.milliseconds["p95"] <= trial.milliseconds["max"]
    assert processes_with(str(whole.path)) == []


@pytest.mark.parametrize("name", LABELS)
def test_a_classifier_whose_labels_are_words_numbers_or_truths_passes(project, name, tmp_path):
    artifact = project.artifacts[name]
    kind = {"words": str, "numbers": int, "truths": bool}[name]
    assert [type(label) for label in artifact.manifest["labels"]] == [kind] * len(artifact.manifest["labels"])

    trial = run_trial(package(artifact, project.folder, tmp_path), artifact)

    assert (trial.passed, trial.problems) == (True, ())
    assert trial.answers == 4 * len(artifact.golden()[0])


def test_a_package_with_another_artifact_is_not_even_started(project, bento):
    inside = bento.path / "src/artifact"
    shutil.rmtree(inside)
    shutil.copytree(project.artifacts["numbers"].folder, inside)

    trial = run_trial(bento, project.artifacts["points"])

    assert (trial.passed, trial.start_seconds, trial.answers) == (False, None, 0)
    (problem,) = trial.problems
    assert "artifact" in problem
    assert project.artifacts["points"].digest in problem


@pytest.mark.parametrize(("factor", "passed"), [(1 + 1e-9, False), (1 + 1e-14, True)], ids=["1e-9", "1e-14"])
def test_answers_may_differ_by_rounding_and_not_by_a_billionth(bento, factor, passed):
    golden = bento.path / "src/artifact/golden.json"
    said = json.loads(golden.read_text())
    predictions = said["answers"]["predictions"]
    largest = max(range(len(predictions)), key=lambda row: abs(predictions[row]))
    predictions[largest] *= factor
    golden.write_text(json.dumps(said))
    resealed(golden.parent)

    trial = run_trial(bento, load_artifact(bento.path / "src/artifact"))

    assert trial.passed == passed
    ways = ["as JSON, together", "as JSON, alone", "as CSV, together", "as CSV, alone"]
    assert [problem.partition(":")[0] for problem in trial.problems] == ([] if passed else ways)
    assert all(f"row {largest}: " in problem for problem in trial.problems)
    assert all(f"where the trained pipeline says {predictions[largest]!r}" in problem for problem in trial.problems)


def test_a_service_that_cannot_start_is_reported_with_the_end_of_its_log_and_not_waited_for(bento, monkeypatch):
    """Were a worker waited for that has ended, this would take the ten minutes."""
    monkeypatch.setattr("bentos.trial.START_TIMEOUT", 600)
    inside = bento.path / "src/artifact"
    (inside / "model.joblib").write_bytes(b"no pickle")
    resealed(inside)

    trial = run_trial(bento, load_artifact(inside))

    assert (trial.passed, trial.answers, trial.milliseconds) == (False, 0, None)
    (problem,) = trial.problems
    assert problem.startswith("the package did not become ready; its log ends: ")
    assert "load_estimator" in problem
    assert processes_with(str(bento.path)) == []


@pytest.fixture(scope="module")
def developer(project, tmp_path_factory):
    """A Python in which the project is importable from anywhere, as after `pip install --editable .`."""
    folder = tmp_path_factory.mktemp("developer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({place!r})" for place in site.getsitepackages()]
    (packages / "project.pth").write_text("\n".join([*lines, str(project.folder)]) + "\n")
    return folder / "bin/python"


@pytest.mark.parametrize("missing", ["pipeline/format_numbers.py", "pipeline"], ids=["a module", "a room"])
def test_what_a_package_lacks_is_not_made_up_for_by_the_checkout(bento, developer, missing, tmp_path):
    """By how the checkout is installed, the module is not found, or is found where it must not come from."""
    gone = bento.path / "src" / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()

    done = subprocess.run(
        [developer, "-c", TRIED, bento.tag, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    trial = json.loads(done.stdout)
    assert not trial["passed"]
    said = ("No module named 'pipeline.format_numbers'", "not from the Bento; the package is incomplete")
    assert any(sentence in problem for problem in trial["problems"] for sentence in said), trial["problems"]


def test_no_process_outlives_a_trial_whose_caller_was_killed(project, bento, tmp_path):
    caller = project.start(bento.tag, str(tmp_path), code=TRIED)
    try:
        assert until(lambda: processes_with(f"bentos.worker {bento.path}"))
    finally:
        caller.send_signal(signal.SIGKILL)
        project.finish(caller)

    assert until(lambda: processes_with(str(bento.path)) == [])
