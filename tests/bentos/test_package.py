"""Artifact in, Bento out: what is in the Bento, what is refused, and what a kill leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from packed import artifacts_of, copied
from project import CHECKOUT, MODEL, SUITE, copy_of_the_project
from serving import ready

from bentos.package import bentoml_environment, carried_modules, load_bento, package
from pipeline import digest
from pipeline.artifact import load_artifact
from pipeline.code import local_modules
from pipeline.errors import PackageError
from pipeline.files import sweep
from pipeline.processes import free_port, supervised_child, wait_until

CURVES = MODEL.replace('name="points"', 'name="curves"').replace("Ridge()", "Ridge(alpha=1000)")

# Packages an artifact, and dies when a function is called that packaging needs, or when it has returned.
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from bentos.package import package
from pipeline.artifact import load_artifact

module, name, when, artifact, home = sys.argv[1:]
module = importlib.import_module(module)
called = getattr(module, name)
def dying(*args):
    if when == "after":
        called(*args)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, dying)
package(load_artifact(Path(artifact)), Path.cwd(), Path(home))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two models, and an artifact of each."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), "")
    project.write("pipeline/models/curves.py", CURVES)
    project.write("expectations/suites/curves.py", SUITE)
    project.artifacts = artifacts_of(project, "points", "curves")
    return project


@pytest.fixture(scope="module")
def bentos(project, tmp_path_factory):
    """The two models' Bentos, packaged one after the other by this process, into one store."""
    store = tmp_path_factory.mktemp("store")
    return [package(artifact, project.folder, store) for artifact in project.artifacts]


def facts(bento):
    return yaml.safe_load((bento.path / "bento.yaml").read_text())


def bentoml(store, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        env=bentoml_environment(store),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_of_two_models_packaged_by_one_process_each_bento_carries_its_own(project, bentos):
    for model, artifact, bento in zip(("points", "curves"), project.artifacts, bentos, strict=True):
        assert bento.tag == f"{model}:{artifact.digest[:16]}"
        packed = load_artifact(bento.path / "src" / "artifact", expected=artifact.digest)
        assert packed.manifest["model"] == model
        assert facts(bento)["name"] == model
    golden = [artifact.golden()[1].predictions.tolist() for artifact in project.artifacts]
    assert golden[0] != golden[1]


def test_a_bento_carries_what_its_entry_points_import_as_it_was_and_nothing_else(project, bentos):
    source = bentos[0].path / "src"
    assert {path.name for path in source.iterdir() if path.is_dir()} == {"pipeline", "bentos", "artifact"}
    carried = {path.relative_to(project.folder) for path in carried_modules("points", project.folder).values()}
    data = {Path("bentos/static", name) for name in ("index.html", "page.js", "page.css")}
    found = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and "artifact" not in path.parts}
    assert {path for path in found if path.suffix == ".py"} == carried
    assert data <= found
    assert all((source / path).read_bytes() == (project.folder / path).read_bytes() for path in carried | data)
    assert Path("pipeline/models/points.py") in carried
    assert Path("pipeline/models/curves.py") not in carried


def test_what_is_carried_imports_only_what_is_carried():
    carried = carried_modules("house_prices", CHECKOUT)
    for name, path in carried.items():
        imported = {*local_modules([name], CHECKOUT)}
        assert imported <= carried.keys(), f"{path} imports {sorted(imported - carried.keys())}"


@pytest.mark.parametrize(
    "name",
    [f"bentos.{name}" for name in ("package", "trial", "releasing", "serving.supervisor", "serving.processes")]
    + [f"bentos.ledger.{name}" for name in ("database", "releases", "servers", "runs", "packages")]
    + [f"pipeline.{name}" for name in ("init.profile", "init.scaffold", "init.sniff", "backtest", "settings")]
    + ["pipeline.models.breast_cancer"],
)
def test_a_bento_does_not_carry_what_cannot_be_used_inside_of_one(name):
    assert CHECKOUT.joinpath(*name.split(".")).with_suffix(".py").exists()
    assert name not in carried_modules("house_prices", CHECKOUT)


def test_every_module_inside_a_bento_can_be_imported_there(bentos, run_python):
    source = bentos[0].path / "src"
    files = [path.relative_to(source) for room in ("pipeline", "bentos") for path in (source / room).rglob("*.py")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = """
import importlib, sys
print({importlib.import_module(name).__file__.startswith(sys.argv[1]) for name in sys.argv[2:]})
"""
    assert run_python(code, source, *names, cwd=source, PYTHONPATH=str(source)) == "{True}"


def test_every_requirement_is_pinned_and_none_is_of_training_or_the_ledger(bentos):
    lines = (bentos[0].path / "env/python/requirements.txt").read_text().split("\n")
    pins = [line.strip() for line in lines if line.strip()]

    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][^ ;]*", pin) for pin in pins)
    names = {pin.partition("==")[0] for pin in pins}
    assert {"bentoml", "scikit-learn", "pandas", "numpy", "pyarrow", "joblib", "starlette"} <= names
    assert not {"prefect", "great-expectations", "sqlalchemy", "matplotlib", "typer", "pytest", "evergreen"} & names
    assert len(names) == len(set(pins))


def test_the_labels_are_the_manifests_facts(project, bentos):
    artifact, labels = project.artifacts[0], facts(bentos[0])["labels"]

    assert labels == {
        "model": "points",
        "estimator": "ridge",
        "created": artifact.manifest["created"],
        "training_rows": "118",
        "holdout_rows": "32",
        **{f"{name}_digest": artifact.manifest["digests"][name][:32] for name in artifact.manifest["digests"]},
    }


@pytest.mark.parametrize("path", ["pipeline/models/points.py", "pipeline/predict.py"])
def test_code_that_changed_after_training_is_not_packaged(project, path, tmp_path):
    for room in ("pipeline", "bentos"):
        shutil.copytree(project.folder / room, tmp_path / "changed" / room)
    with (tmp_path / "changed" / path).open("a") as file:
        file.write("CHANGED = True\n")
    store = tmp_path / "store"
    store.mkdir()

    with pytest.raises(PackageError, match=r"the code (of|that serves) points changed .*; run again"):
        package(project.artifacts[0], tmp_path / "changed", store)

    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_the_same_artifact_is_packaged_once(project, bentos):
    store = bentos[0].path.parents[2]
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}

    assert package(project.artifacts[0], project.folder, store) == bentos[0]

    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


@pytest.mark.parametrize(
    "path",
    [
        "artifact/model.joblib",
        "pipeline/predict.py",
        "bentos/service.py",
        "../env/docker/Dockerfile",
        "../env/python/requirements.txt",
    ],
)
def test_a_bento_with_one_changed_byte_is_refused(bentos, path, tmp_path):
    whole = bentos[0]
    store = tmp_path / "store"
    damaged = copied(whole, store / "bentos" / whole.tag.replace(":", "/"))
    assert load_bento(whole.tag, store, expected=whole.digest).digest == whole.digest
    file = damaged.path / "src" / path
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(
        PackageError, match=f"{whole.tag} is not what was released: its digest is [0-9a-f]{{64}}, not"
    ) as error:
        load_bento(whole.tag, store, expected=whole.digest)
    assert (f"({file} has changed since it was written" in str(error.value)) == path.startswith("artifact")


def test_a_bento_of_before_is_known_by_the_digest_of_its_sources(bentos):
    store, sources = bentos[0].path.parents[2], digest.of_folder(bentos[0].path / "src")
    assert load_bento(bentos[0].tag, store, expected=sources).digest == sources
    assert bentos[0].digest != sources


def test_a_bento_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PackageError, match=r"there is no Bento points:abc in .*; restore it.* if it is the ch"):
        load_bento("points:abc", tmp_path)
    with pytest.raises(PackageError, match=r"there is no Bento points:abc in .*; restore it from a copy$"):
        load_bento("points:abc", tmp_path, way_out="restore it from a copy")


@pytest.mark.parametrize(
    ("module", "name", "when", "whole"),
    [
        ("bentos.package", "_build", "after", False),
        ("pipeline.files", "_flush", "before", False),
        ("bentos.package", "write_text", "before", True),
    ],
    ids=["built", "half written", "in place"],
)
def test_a_kill_leaves_no_half_bento_and_the_next_packages_the_same(
    project, bentos, module, name, when, whole, tmp_path
):
    artifact, undisturbed = project.artifacts[0], bentos[0]
    killed = project.start(module, name, when, str(artifact.folder), str(tmp_path), code=KILLED)
    assert project.finish(killed)[0] == -signal.SIGKILL

    if whole:
        assert load_bento(undisturbed.tag, tmp_path).digest == undisturbed.digest
    else:
        with pytest.raises(PackageError):
            load_bento(undisturbed.tag, tmp_path)
    bentoml(tmp_path, "list", cwd=tmp_path)
    sweep(tmp_path)
    again = package(artifact, project.folder, tmp_path)

    assert (again.tag, again.digest) == (undisturbed.tag, undisturbed.digest)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_the_store_is_one_that_bentoml_itself_lists_and_serves_with_release_null(project, bentos, tmp_path):
    store = bentos[0].path.parents[2]
    listed = json.loads(bentoml(store, "list", "-o", "json", cwd=tmp_path))
    assert {one["tag"] for one in listed} == {bento.tag for bento in bentos}

    rows, answers = project.artifacts[0].golden()
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", bentos[0].tag, "--host", "127.0.0.1", "--port", str(port)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"BENTOML_HOME": str(store)}
    (tmp_path / "empty").mkdir()
    with (
        supervised_child(command, env, tmp_path / "empty", tmp_path / "log") as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        assert wait_until(lambda: ready(client), server, 60), (tmp_path / "log").read_text()
        said = client.post("/predict", json={"records": rows}).json()

    assert (said["model"], said["release"]) == ("points", None)
    assert said["predictions"] == pytest.approx(answers.predictions.tolist(), rel=1e-12, abs=1e-12)
