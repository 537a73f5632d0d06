"""A release trained again from what was kept of it."""

import json
import shutil

import pytest
from packed import artifacts_of, copied
from project import MODEL, copy_of_the_project

from bentos.package import package
from pipeline.errors import ArtifactError
from pipeline.reproduce import reproduce

FOREST = (
    MODEL.replace('name="points"', 'name="forest"')
    .replace("import Ridge", "import Ridge\nfrom sklearn.ensemble import RandomForestRegressor")
    .replace("Ridge()", "RandomForestRegressor(n_estimators=5, n_jobs=-1)")
    .replace("at_most=1.0", "at_most=9.0")
)
# Draws from the system's own randomness, which no seed reaches.
LUCK = (
    MODEL.replace('name="points"', 'name="luck"')
    .replace("import numpy as np\n", "import secrets\n\nimport numpy as np\n", 1)
    .replace("self.columns_ = X.shape[1]", "self.luck_ = secrets.randbelow(10**6) / 1e6")
    .replace("X**2])", "X**2 * np.cos(self.luck_ * X)])")
    .replace("at_most=1.0", "at_most=9.0")
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Of each model its package and its snapshot."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), "")
    project.write("pipeline/models/forest.py", FOREST)
    project.write("pipeline/models/luck.py", LUCK)
    names = ["points", "forest", "luck"]
    made = artifacts_of(project, *names)
    store = tmp_path_factory.mktemp("store")
    (snapshot,) = project.home.glob("snapshots/*.parquet")
    return {
        name: (package(one, project.folder, store), one.digest, snapshot) for name, one in zip(names, made, strict=True)
    }


@pytest.mark.parametrize("model", ["points", "forest"])
def test_a_release_trained_again_from_its_package_answers_the_very_same(packages, model):
    bento, digest, snapshot = packages[model]
    found = reproduce(bento.path / "src", digest, snapshot)
    assert (found.equal, found.reasons, found.changes) == (True, (), ())
    # A row predicted in other company may differ in the last bit.
    assert 0 <= found.largest < 1e-12
    assert found.rows > 20


def test_what_no_seed_reaches_is_said_to_differ_and_by_how_much(packages):
    bento, digest, snapshot = packages["luck"]
    found = reproduce(bento.path / "src", digest, snapshot)
    assert not found.equal
    assert found.largest > 1e-6
    assert "where the trained pipeline says" in found.reasons[0]
    assert found.changes == ()


def test_a_snapshot_with_other_rows_is_refused(packages, tmp_path):
    bento, digest, snapshot = packages["points"]
    for suffix in (".parquet", ".json"):
        shutil.copy(snapshot.with_suffix(suffix), tmp_path / f"other{suffix}")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.parquet.read_table(snapshot).slice(1), tmp_path / "other.parquet")
    with pytest.raises(ArtifactError, match=r"other.parquet is not the snapshot of points: its digest is"):
        reproduce(bento.path / "src", digest, tmp_path / "other.parquet")


def test_versions_that_are_others_than_they_were_are_named(packages, tmp_path):
    from packed import resealed

    bento, _, snapshot = packages["points"]
    mine = copied(bento, tmp_path / "bento")
    inside = mine.path / "src/artifact"
    pins = json.loads((inside / "manifest.json").read_text())["requirements"]
    others = ["scikit-learn==0.1" if pin.startswith("scikit-learn==") else pin for pin in pins] + ["gone==1.0"]
    found = reproduce(mine.path / "src", resealed(inside, requirements=others), snapshot)
    assert found.equal
    assert [change.split(" is ")[0] for change in found.changes] == ["scikit-learn", "gone"]
    assert found.changes[1] == "gone is not here, and was 1.0"


def test_a_damaged_package_trains_nothing(packages, tmp_path):
    bento, digest, snapshot = packages["points"]
    mine = copied(bento, tmp_path / "bento")
    (mine.path / "src/artifact/golden.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"golden.json has changed since it was written"):
        reproduce(mine.path / "src", digest, snapshot)
