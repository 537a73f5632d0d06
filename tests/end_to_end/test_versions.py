"""What a pickle needs, and what still answers when it is not there: two versions of scikit-learn, side by side."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from feature_engine.imputation import MeanMedianImputer
from packed import artifacts_of, resealed
from project import MODEL, SUITE, copy_of_the_project, points
from serving import served
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from test_artifact import Bomb

from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError
from pipeline.pickle_requirements import pickle_requirements, unmet_requirements
from pipeline.processes import free_port

OTHER = "1.8.0"
PLAIN = MODEL.replace('name="points"', 'name="plain"').replace("Squares(), ", "").replace("at_most=1.0", "at_most=2.0")


def test_a_pickle_needs_the_packages_of_the_classes_in_it_and_no_others():
    fitted = make_pipeline(MeanMedianImputer(), Ridge()).fit(points()[["x", "z"]], points()["y"])
    needed = pickle_requirements(fitted)
    assert needed["scikit-learn"] == sklearn.__version__
    assert {"feature-engine", "numpy"} <= {name.replace("_", "-") for name in needed}
    assert not {"bentoml", "pyarrow", "matplotlib", "pytest", "evergreen"} & set(needed)
    assert {name.replace("_", "-") for name in pickle_requirements(Ridge().fit([[1.0], [2.0]], [1, 2]))} == {
        "scikit-learn",
        "numpy",
    }


def test_another_version_is_named_and_numpy_reads_what_an_earlier_one_of_its_major_version_wrote():
    assert unmet_requirements({"scikit-learn": sklearn.__version__, "numpy": np.__version__}) == []
    assert unmet_requirements({"scikit-learn": "1.2.3"}) == [f"with scikit-learn 1.2.3, here is {sklearn.__version__}"]
    assert unmet_requirements({"no-such-package": "1.0"}) == ["with no-such-package 1.0, here is none"]
    major = int(np.__version__.partition(".")[0])
    assert unmet_requirements({"numpy": f"{major}.0.0"}) == []
    assert unmet_requirements({"numpy": f"{major - 1}.26.0"}) == [
        f"with numpy {major - 1}.26.0, here is {np.__version__}"
    ]
    assert unmet_requirements({"numpy": f"{major}.999"}) == [f"with numpy {major}.999, here is {np.__version__}"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """The artifacts of a model that is compiled and of one that is not."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), "")
    project.write("pipeline/models/plain.py", PLAIN)
    return artifacts_of(project, "points", "plain")


def test_a_pickle_of_another_version_is_refused_before_anything_in_it_runs_and_the_plan_still_answers(
    artifacts, tmp_path
):
    _, compiled = artifacts
    assert compiled.manifest["answers"]["by"] == "plan"
    bomb = compiled.folder / "model.joblib"
    bomb.unlink()
    bomb.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    artifact = load_artifact(compiled.folder, resealed(compiled.folder, pickle={"scikit-learn": "1.2.3"}))

    with pytest.raises(ArtifactError) as refused:
        artifact.estimator()

    assert str(refused.value) == (
        f"plain was trained with scikit-learn 1.2.3, here is {sklearn.__version__}; its pickle loads only under "
        "the versions it was trained with: install those, or train it again"
    )
    assert not (tmp_path / "ran").exists()
    rows, answers = artifact.golden()
    matrix = np.array([[row[name] for name in artifact.compiled_model().plan.numbers] for row in rows], dtype=float)
    assert artifact.compiled_model()(matrix, []).predictions == pytest.approx(answers.predictions, rel=1e-12, abs=1e-12)


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """A Python that has all that this one has, but another scikit-learn."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages]
    done = subprocess.run([*install, f"scikit-learn=={OTHER}"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"scikit-learn {OTHER} cannot be had here: {done.stderr.strip()[-300:]}")
    ours = [place for place in sys.path if place.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    python = str(folder / "bin/python")
    said = subprocess.run(
        [python, "-c", "import sklearn; print(sklearn.__version__)"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == OTHER
    return python


@pytest.mark.slow
def test_a_compiled_release_is_served_compared_and_rolled_back_to_with_another_scikit_learn(
    other_python, prefect_server, tmp_path
):
    project = copy_of_the_project(tmp_path / "project", prefect_server)
    project.write("pipeline/models/plain.py", PLAIN)
    project.write("expectations/suites/plain.py", SUITE)
    project.data(points(rows=300))
    for model in ("plain", "points"):
        assert project.json("run", model)[1]["release"] == 1
    (artifact,) = project.home.glob("bentoml/bentos/plain/*/src/artifact")
    rows, golden = load_artifact(artifact).golden()
    project.python = other_python

    with served(project, "plain", tmp_path / "log") as server:
        said = server.ask(*rows).json()
    assert said["release"] == 1
    assert said["predictions"] == pytest.approx(golden.predictions.tolist(), rel=1e-12, abs=1e-12)

    code, outcome = project.json("run", "plain")
    assert (code, outcome["outcome"], outcome["release"]) == (0, "released", 2), outcome
    assert outcome["metrics"]["champion"]["rmse"] == pytest.approx(outcome["metrics"]["challenger"]["rmse"])

    assert project.json("rollback", "plain")[1]["release"] == 1
    with served(project, "plain", tmp_path / "log") as server:
        said = server.ask(*rows).json()
    assert said["release"] == 1
    assert said["predictions"] == pytest.approx(golden.predictions.tolist(), rel=1e-12, abs=1e-12)

    sentence = f"points was trained with scikit-learn {sklearn.__version__}, here is {OTHER}; its pickle loads only"
    code, outcome = project.json("run", "points")
    assert (code, outcome["outcome"]) == (0, "kept")
    assert sentence in outcome["reasons"][0]
    code, _, err = project.evergreen("serve", "points", "--port", str(free_port()))
    assert code == 1
    assert sentence in err
