"""Kills and full disks while something is written: nothing half written is seen, and the next run works."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from packed import MAKE, artifacts_of
from project import copy_of_the_project, points
from serving import processes_with, until
from sklearn.linear_model import SGDRegressor
from tiny import a_snapshot, a_spec, a_table

from bentos.ledger.database import open_ledger
from bentos.ledger.releases import Release, add_release, champion
from bentos.package import package
from flows.ops.prefect_server import start_server
from pipeline.artifact import load_artifact
from pipeline.errors import StorageError
from pipeline.files import sweep, whole_file, whole_folder
from pipeline.processes import free_port
from pipeline.settings import Settings
from pipeline.train import train

# Kills the process when a function is called for the nth time, or when it has returned.
DYING = """
import importlib, os, signal, sys
from pathlib import Path
def die(module, name, nth, when):
    owner = Path if module == "Path" else importlib.import_module(module)
    real, calls = getattr(owner, name), []
    def dying(*args, **kwargs):
        calls.append(args)
        if len(calls) < nth:
            return real(*args, **kwargs)
        if when == "after":
            real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dying)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project and the artifact of its model."""
    project = copy_of_the_project(tmp_path_factory.mktemp("project"), "")
    artifacts_of(project, "points")
    return project


@pytest.fixture
def mine(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "project")
    return type(trained)(tmp_path / "project", dict(trained.env))


KILLS = [
    ("pipeline.artifact", "_golden", 1, "after"),
    ("pipeline.artifact", "link_or_copy", 1, "before"),
    ("pipeline.artifact", "seal", 1, "before"),
    ("pipeline.artifact", "seal", 1, "after"),
    ("pipeline.manifest", "write_json", 1, "after"),
]


@pytest.mark.parametrize("there", [False, True], ids=["the first", "over another"])
@pytest.mark.parametrize(("module", "name", "nth", "when"), KILLS)
def test_a_kill_while_an_artifact_is_written_leaves_none_or_the_one_before(mine, module, name, nth, when, there):
    folder = mine.home / "artifacts" / "points"
    before = load_artifact(folder).digest
    if not there:
        shutil.rmtree(folder)
    code = f"{DYING}\ndie({module!r}, {name!r}, {nth}, {when!r})\n{MAKE}"
    assert mine.finish(mine.start("points", code=code))[0] == -signal.SIGKILL

    assert folder.exists() == there
    if there:
        assert load_artifact(folder).digest == before
    sweep(mine.home)
    assert mine.files("**/.part-*") == []
    (again,) = artifacts_of(mine, "points")
    assert load_artifact(again.folder, again.digest).golden()[0]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_inside_the_transaction_of_a_release_releases_nothing_and_the_next_run_does(
    tmp_path, prefect_server, when
):
    project = copy_of_the_project(tmp_path, prefect_server)
    code = f"{DYING}\nimport bentos.ledger.releases\ndie('bentos.ledger.releases', '_add_event', 1, {when!r})\n"
    code += "from flows.cli.main import main\nmain()\n"
    assert project.finish(project.start("run", "points", code=code))[0] == -signal.SIGKILL
    assert project.champion() is None
    assert project.json("history", "points")[1]["releases"] == []

    code, said = project.json("run", "points")

    assert (code, said["outcome"], said["release"]) == (0, "released", 1)
    assert said["seconds"]["train"] < 1
    assert project.files("**/.part-*") == []


HELD = """
import sqlite3, threading, time
from contextlib import closing
from flows.ops.warmup import launch
from pipeline.settings import settings

def hold(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(20)
        connection.execute("ROLLBACK")
    print(f"{path.name} was held")

def listen(step):
    if step.name == "train" and step.seconds is not None:
        for path in (settings().folder("prefect") / "prefect.db", settings().folder() / "ledger.sqlite"):
            threading.Thread(target=hold, args=(path,)).start()

print(launch(settings(), listen, model="points").state)
"""


@pytest.mark.slow
def test_a_run_whose_databases_are_both_held_by_somebody_else_for_20_seconds_waits_and_releases(tmp_path):
    project = copy_of_the_project(tmp_path, "")
    # A server for this run, on a database of the project's own.
    del project.env["PREFECT_API_URL"]

    code, out, err = project.finish(project.start(code=HELD))

    assert code == 0, err
    assert sorted(out.split("\n")) == ["", "Released", "ledger.sqlite was held", "prefect.db was held"], err
    assert "locked" not in err
    assert project.champion() == 1


@pytest.mark.slow
def test_a_run_waits_for_a_prefect_server_that_is_killed_in_its_midst_and_started_anew_and_releases(tmp_path):
    here, port = Settings(home=tmp_path / "server", database_url=""), free_port()
    project = copy_of_the_project(tmp_path / "project", f"http://127.0.0.1:{port}/api")
    with start_server(here, port):
        run = project.start("run", "points", "--json")
        assert until(lambda: project.files("trained/points/*/trained.json"), 120)
        for pid, command in processes_with(f"--port {port}"):
            if "processes.py" not in command:
                os.kill(pid, signal.SIGKILL)
    # In the middle of what comes after training, which takes about as long.
    assert run.poll() is None
    time.sleep(10)
    assert run.poll() is None

    with start_server(here, port):
        code, out, err = project.finish(run)

    assert (code, json.loads(out)["outcome"]) == (0, "released"), err
    assert project.champion() == 1


@contextmanager
def small_disk(folder, kilobytes):
    """A file system of its own, of so many KB, at a folder that has what was in it; where that is allowed."""
    kept = folder.with_name(f"{folder.name}-kept")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, kept)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        shutil.rmtree(kept)
        shutil.copytree(folder, kept)
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
        shutil.move(kept, folder)


def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing(tmp_path):
    with small_disk(tmp_path / "small", 64):
        for written in (whole_file, whole_folder):
            place = tmp_path / "small" / "x"
            said = pytest.raises(StorageError, match=rf"no space left to write {place}; nothing of it was written")
            with said, written(place) as part:
                (part / "y" if part.is_dir() else part).write_bytes(os.urandom(100_000))
            assert list((tmp_path / "small").iterdir()) == []


def test_a_full_disk_while_rows_are_written_to_be_learned_in_batches_is_said_and_leaves_nothing(tmp_path):
    spec = a_spec(candidates={"sgd": SGDRegressor(eta0=1e-6)}, sample=60, epochs=1)
    snapshot = a_snapshot(a_table(20_000), tmp_path)
    with small_disk(tmp_path / "small", 64):
        place = tmp_path / "small" / "trained"
        with pytest.raises(StorageError, match=rf"no space left to write {place}; nothing of it was written"):
            train(spec, snapshot, place, workers=1)
        assert list((tmp_path / "small").iterdir()) == []


def test_a_ledger_on_a_full_disk_says_so_stays_readable_and_takes_releases_when_there_is_space(tmp_path):
    with small_disk(tmp_path / "small", 512):
        ledger = open_ledger(f"sqlite:///{tmp_path}/small/ledger.sqlite")
        made = add_release(ledger, Release("m", 0, "m:1", {}, {}, {}, {}, "person", "", ""))
        with suppress(OSError), (tmp_path / "small" / "filling").open("wb", buffering=0) as filling:
            while filling.write(bytes(1024)):
                pass
        large = replace(made, replaced=1, reason="x" * 100_000)
        with pytest.raises(StorageError, match=r"no space left to write .*ledger.sqlite; .* no champion has changed"):
            add_release(ledger, large)
        assert champion(ledger, "m").number == 1
        (tmp_path / "small" / "filling").unlink()
        assert add_release(ledger, large).number == 2
        ledger.dispose()


def test_a_file_larger_than_is_allowed_is_said_in_a_sentence_and_leaves_nothing(tmp_path, run_python):
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline.errors import StorageError\n"
        "from pipeline.files import whole_file\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with whole_file(Path(sys.argv[1])) as part:\n"
        "        part.write_bytes(bytes(2000))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    assert run_python(code, tmp_path / "x").startswith(f"no space left to write {tmp_path / 'x'}; ")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_packaging_is_said_and_the_store_is_as_before(mine, tmp_path):
    artifact, store = load_artifact(mine.home / "artifacts" / "points"), tmp_path / "store"
    for kilobytes in (200, 900, 1500):
        with small_disk(store, kilobytes):
            with pytest.raises(StorageError, match="no space left to write"):
                package(artifact, mine.folder, store)
            assert [path for path in store.rglob("*") if path.is_file()] == []
    assert package(artifact, mine.folder, store).tag == f"points:{artifact.digest[:16]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kilobytes"), [("snapshots", 12), ("trained", 8), ("artifacts", 24), ("bentoml", 1400)]
)
def test_a_full_disk_ends_a_run_with_a_sentence_and_the_next_one_releases(tmp_path, first_release, kind, kilobytes):
    project = first_release.copied(tmp_path / "project")
    project.data(points(rows=400))
    before = project.files(f"{kind}/**/*")

    with small_disk(project.home / kind, kilobytes):
        code, said = project.json("run", "points")
        assert (code, said.get("error", said)["type"]) == (1, "StorageError"), said
        assert "no space left to write" in said["error"]["message"]
        assert project.champion() == 1
        assert [name for name in project.files(f"{kind}/**/*") if name not in before and ".json" in name] == []

    assert project.files("**/.part-*") == []
    code, said = project.json("run", "points")
    assert (code, said["outcome"], said["release"]) == (0, "released", 2)
