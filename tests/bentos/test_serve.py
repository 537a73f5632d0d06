"""`evergreen serve`: the champion over HTTP with its number, or a sentence why not; it ends whole."""

import csv
import io
import os
import shutil
import signal

import numpy as np
import pytest
from packed import artifacts_of
from project import Project, copy_of_the_project, points
from serving import processes_with, served, until

from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from bentos.package import package
from bentos.trial import run_trial
from pipeline.artifact import load_artifact

ROWS = [{"x": 1.0, "z": 0.5}, {"x": -2.0, "z": None}, {"x": 0.0, "z": -1.0}]
CSV = "id,x,z\n7,1.0,0.5\n8,-2.0,\n9,0.0,-1.0\n"


def release(project, number):
    """Package what the project's data makes of its model, and release it."""
    (artifact,) = artifacts_of(project, "points")
    bento = package(artifact, project.folder, project.home / "bentoml")
    digests = {**artifact.manifest["digests"], "artifact": artifact.digest, "bento": bento.digest}
    made = releases.Release(
        model="points",
        number=0,
        bento=bento.tag,
        digests=digests,
        verdict=artifact.manifest["verdict"],
        evaluation=artifact.manifest["evaluation"],
        trial={},
        cause="person",
        reason="",
        created="2026-01-01T00:00:00+00:00",
        replaced=number - 1 or None,
    )
    engine = ledger(project)
    assert releases.add_release(engine, made).number == number
    # Else its connections are closed, and SQLite's files beside the ledger removed, while somebody copies the folder.
    engine.dispose()
    return bento


def ledger(project):
    return open_ledger(f"sqlite:///{project.home}/ledger.sqlite")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A project with two releases of one model, trained on different rows."""
    project = copy_of_the_project(tmp_path_factory.mktemp("released"), "")
    (project.home / "bentoml").mkdir(parents=True)
    project.bentos = [release(project, 1)]
    project.data(points(rows=300, seed=5))
    project.bentos.append(release(project, 2))
    return project


@pytest.fixture
def project(released, tmp_path):
    """A copy of the project with its releases."""
    shutil.copytree(released.folder, tmp_path / "project")
    return Project(tmp_path / "project", released.env)


@pytest.fixture(scope="module")
def server(released, tmp_path_factory):
    """The champion, release 2, served by two workers; ended by SIGTERM."""
    with served(released, "points", tmp_path_factory.mktemp("log") / "log", "--workers", "2") as server:
        yield server
        workers = server.workers()
    assert server.process.returncode is not None
    assert until(lambda: not any(pid in workers for pid, _ in processes_with("bentos.worker")), 5)


def requests_counted(server):
    lines = server.client.get("/metrics").text.splitlines()
    counted = 'evergreen_requests_total{model="points",path="/predict",status="200"}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))


def plane(row):
    """What y is of x and z, apart from noise; a missing z is predicted as an average one, 0."""
    return 2 * row["x"] + row["x"] ** 2 - 3 * (row["z"] or 0)


def test_json_and_csv_are_answered_with_the_releases_number_and_the_same_predictions(server):
    said = server.ask(*ROWS).json()

    assert (said["model"], said["release"]) == ("points", 2)
    assert said["predictions"] == pytest.approx([plane(row) for row in ROWS], abs=0.7)
    table = list(csv.DictReader(io.StringIO(server.send(CSV).text)))
    assert [row["id"] for row in table] == ["7", "8", "9"]
    assert [float(row["prediction"]) for row in table] == said["predictions"]
    assert server.client.get("/model").json()["release"] == 2


def test_as_many_processes_answer_as_were_asked_for_with_the_priority_that_the_server_has(server):
    assert until(lambda: len(server.workers()) == 2)
    ours = os.getpriority(os.PRIO_PROCESS, server.process.pid)
    assert [os.getpriority(os.PRIO_PROCESS, worker) for worker in server.workers()] == [ours] * 2


def test_neither_a_trial_nor_a_second_server_on_the_port_empties_the_metrics_of_a_running_server(released, server):
    server.ask(*ROWS)
    counted = requests_counted(server)
    assert counted >= 1
    bento = released.bentos[0]

    assert run_trial(bento, load_artifact(bento.path / "src/artifact")).passed
    code, out, err = released.evergreen("serve", "points", "--port", str(server.port))

    assert (code, out) == (1, "")
    assert f"cannot listen on 127.0.0.1, port {server.port}: Address already in use; give another host or port" in err
    assert "Traceback" not in err
    server.ask(*ROWS)
    assert requests_counted(server) == counted + 1


def test_a_host_that_is_not_this_machines_is_a_sentence(released):
    code, _, err = released.evergreen("serve", "points", "--host", "203.0.113.1")

    assert code == 1
    assert "cannot listen on 203.0.113.1, port 3000" in err


def test_a_server_started_after_a_rollback_answers_as_the_earlier_release_and_ctrl_c_ends_it(project, server, tmp_path):
    assert project.json("rollback", "points")[1]["release"] == 1

    with served(project, "points", tmp_path / "log", end=signal.SIGINT) as earlier:
        said = earlier.ask(*ROWS).json()
        newer = server.ask(*ROWS).json()
        workers = earlier.workers()
        assert len(workers) == 1

    assert (said["release"], newer["release"]) == (1, 2)
    assert said["predictions"] == pytest.approx([plane(row) for row in ROWS], abs=0.7)
    assert not np.allclose(said["predictions"], newer["predictions"], rtol=1e-6)
    assert until(lambda: not any(pid in workers for pid, _ in processes_with("bentos.worker")), 5)


def test_what_was_never_released_cannot_be_served_and_the_command_that_makes_it_is_named(released):
    code, out, err = released.evergreen("serve", "breast_cancer")

    assert (code, out) == (1, "")
    assert err == ("error: breast_cancer has no release to serve; `evergreen run breast_cancer` makes one\n")


@pytest.mark.parametrize("damage", ["one byte", "gone"])
def test_a_damaged_package_is_refused_with_a_sentence(project, released, damage):
    (model,) = project.home.glob(f"bentoml/bentos/{released.bentos[1].tag.replace(':', '/')}/src/artifact/model.joblib")
    if damage == "gone":
        shutil.rmtree(model.parents[2])
    else:
        model.write_bytes(model.read_bytes()[:-1] + b"?")

    code, out, err = project.evergreen("serve", "points")

    assert (code, out) == (1, "")
    tag = released.bentos[1].tag
    sentence = f"Bento {tag} is not what was released" if damage == "one byte" else f"there is no Bento {tag}"
    assert err.startswith("error: ")
    assert sentence in err
    assert len(err.splitlines()) == 1
