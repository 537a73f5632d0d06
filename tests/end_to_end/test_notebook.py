"""The notebook of the tutorial, run cell by cell in a project with its model, as a reader would."""

import json
import shutil

import pytest
from project import CHECKOUT

NOTEBOOK = CHECKOUT / "docs" / "tutorial" / "notebook.ipynb"


def cells():
    """The source of each code cell, in order."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert [cell["outputs"] for cell in found["cells"] if cell["cell_type"] == "code"] == [[] for _ in cells()]


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(tmp_path, prefect_server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for name in ("EVERGREEN_HOME", "EVERGREEN_PROJECT", "EVERGREEN_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for path in ("pipeline/models/breast_cancer.py", "expectations/suites/breast_cancer.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(CHECKOUT / path, tmp_path / path)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells()):
        exec(compile(cell, f"cell {number}", "exec"), names)
