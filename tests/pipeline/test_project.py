import sys

import pytest

from pipeline.errors import ProjectError, SpecError
from pipeline.processes import packaged_environment
from pipeline.project import (
    CODE_FOLDER,
    copy_room,
    find_module,
    find_project,
    from_here,
    new_project_folder,
    project_folder,
    project_path,
)
from pipeline.spec import load_spec, model_names

SPEC = """
from sklearn.linear_model import Ridge
from pipeline.sources import Csv
from pipeline.spec import Gate, ModelSpec, Regression

spec = ModelSpec(name="tiny", source=Csv("tiny.csv"), key=("id",), target="y", task=Regression(),
                 candidates={"ridge": Ridge()}, metric="rmse", gate=Gate(at_most=%s))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that holds one model; nothing in the environment names it."""
    monkeypatch.delenv("EVERGREEN_PROJECT", raising=False)
    folder = tmp_path / "project"
    (folder / "pipeline" / "models").mkdir(parents=True)
    (folder / "pipeline" / "models" / "tiny.py").write_text(SPEC % "1.0")
    (folder / "a" / "b").mkdir(parents=True)
    return folder


def test_the_nearest_folder_upwards_with_models_is_the_project(project, monkeypatch):
    monkeypatch.chdir(project / "a" / "b")
    assert project_folder() == project
    assert project_path("data/x.csv") == project / "data" / "x.csv"
    assert from_here("x.csv") == str(project / "a" / "b" / "x.csv")


def test_in_the_project_s_own_folder_relative_paths_stay_as_they_are(project, monkeypatch):
    monkeypatch.chdir(project)
    assert str(project_path("x.csv")) == from_here("x.csv") == "x.csv"


def test_the_environment_names_the_project(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERGREEN_PROJECT", str(project))
    assert project_folder() == project
    assert model_names() == ["tiny"]
    assert "EVERGREEN_PROJECT" not in packaged_environment()


def test_without_a_project_the_error_names_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("EVERGREEN_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_project() is None
    assert new_project_folder() == tmp_path
    with pytest.raises(
        ProjectError, match=rf"no pipeline/models in {tmp_path} or a folder above it; .*`evergreen init`"
    ):
        project_folder()
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path / "gone"))
    with pytest.raises(ProjectError, match=r"no pipeline/models in EVERGREEN_PROJECT \(.*gone\)"):
        project_folder()


def test_a_project_with_an_evergreen_of_its_own_is_refused_by_another(project, monkeypatch):
    (project / "pipeline" / "__init__.py").touch()
    monkeypatch.chdir(project)
    with pytest.raises(ProjectError, match=f"holds an evergreen of its own, but this one is in {CODE_FOLDER}"):
        project_folder()


def test_models_are_those_of_the_project_that_is_current(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    assert load_spec("tiny").gate.at_most == 1.0
    with pytest.raises(SpecError, match="no model 'house_prices'"):
        load_spec("house_prices")
    other = tmp_path / "other" / "pipeline" / "models"
    other.mkdir(parents=True)
    (other / "tiny.py").write_text(SPEC % "2.0")
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path / "other"))
    assert load_spec("tiny").gate.at_most == 2.0
    monkeypatch.setenv("EVERGREEN_PROJECT", str(CODE_FOLDER))
    assert load_spec("house_prices").name == "house_prices"
    assert "pipeline.models.tiny" not in sys.modules


def test_a_module_is_the_project_s_or_evergreen_s_and_never_a_library_beside_it(project):
    assert find_module("pipeline.models.tiny", project) == project / "pipeline" / "models" / "tiny.py"
    assert find_module("pipeline.train", project) == CODE_FOLDER / "pipeline" / "train.py"
    assert find_module("pipeline.models.house_prices", project) is None
    assert find_module("evergreen", project) is None
    assert find_module("pipeline.models.house_prices", CODE_FOLDER) is not None


def test_a_room_is_copied_with_the_project_s_models_in_the_place_of_the_examples(project, tmp_path):
    (project / "pipeline" / "prices.py").write_text("RATE = 2")
    copy_room("pipeline", project, tmp_path / "copy", ["__pycache__"])
    copied = tmp_path / "copy" / "pipeline"
    assert [path.name for path in (copied / "models").iterdir()] == ["tiny.py"]
    assert (copied / "prices.py").read_text() == "RATE = 2"
    assert (copied / "train.py").read_bytes() == (CODE_FOLDER / "pipeline" / "train.py").read_bytes()
