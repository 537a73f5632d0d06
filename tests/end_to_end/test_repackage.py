"""What a run does when only a verdict, a package, operations or the code that answers changed: real runs."""

import json

import pytest
from project import MODEL, copy_of_the_project


@pytest.fixture(scope="module")
def project(tmp_path_factory, prefect_server):
    """A project with a release, that the tests of this module change one after the other."""
    project = copy_of_the_project(tmp_path_factory.mktemp("repackaged"), prefect_server)
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "released")
    return project


def with_fields(text, tolerance=0.1):
    changed = MODEL.replace(
        "gate=Gate(at_most=1.0, tolerance=0.1),", f"gate=Gate(at_most=1.0, tolerance={tolerance}),{text}"
    )
    return changed.replace("import Gate, ModelSpec", "import Cron, Gate, Limits, ModelSpec, RequestLog")


def manifest(project, tag):
    _, _, version = tag.partition(":")
    return json.loads((project.home / f"bentoml/bentos/points/{version}/src/artifact/manifest.json").read_text())


def test_operations_and_words_change_nothing_a_gate_judges_again_and_limits_package_again(project):
    operations = 'schedule=Cron("0 3 * * 1"), keep_releases=7,'
    project.write("pipeline/models/points.py", with_fields(operations).replace('"""Points near', '"""Spots near'))
    _, said = project.json("run", "points")
    assert said["outcome"] == "unchanged", said
    assert said["reasons"][0].startswith("nothing that decides a model has changed since the run of ")

    project.write("pipeline/models/points.py", with_fields(operations, tolerance=0.2))
    _, said = project.json("run", "points")
    assert said["outcome"] == "kept", said
    assert said["reasons"][0] == "the champion, release 1, already is this model and passes the current gate"
    assert said["resumed"].endswith("is evaluated again; nothing is trained")
    assert project.json("run", "points")[1]["outcome"] == "unchanged"

    project.write("pipeline/models/points.py", with_fields(operations + "limits=Limits(max_rows=77),", tolerance=0.2))
    _, said = project.json("run", "points")
    assert (said["outcome"], said["release"]) == ("released", 2), said
    assert said["reasons"] == ["repackaged the model of release 1: package fields of the spec changed"]
    assert set(said["seconds"]).isdisjoint({"validate", "train", "evaluate", "gate"})
    (second, first) = sorted(project.json("history", "points")[1]["releases"], key=lambda one: -one["number"])
    before, after = (manifest(project, release["bento"]) for release in (first, second))
    assert after["limits"]["max_rows"] == 77
    assert after["files"] == before["files"]
    assert after["digests"]["model"] == before["digests"]["model"]
    assert project.json("run", "points")[1]["outcome"] == "unchanged"
    assert len(project.files("trained/points/*/trained.json")) == 1


def test_other_code_that_answers_is_packaged_again_by_the_command_and_a_rollback_of_that_stays(project):
    path = project.folder / "bentos" / "endpoint" / "formats.py"
    path.write_text(path.read_text() + "\n\nSAFER = True\n")
    before = project.json("status", "points")[1]["models"][0]["release"]
    assert before["package_outdated"]

    _, said = project.json("repackage", "points")

    assert said["outcome"] == "released", said
    assert said["reasons"] == [f"repackaged the model of release {before['number']}: serving code changed"]
    assert set(said["seconds"]).isdisjoint({"ingest", "train"})
    assert not project.json("status", "points")[1]["models"][0]["release"]["package_outdated"]

    assert project.json("rollback", "points", "--why", "slower")[1]["release"] == before["number"]
    _, said = project.json("repackage", "points")
    assert said["outcome"] == "unchanged"
    assert said["reasons"][0].startswith(f"the package is blocked: rolled back to {before['number']}")
    assert project.json("run", "points")[1]["outcome"] == "unchanged"
