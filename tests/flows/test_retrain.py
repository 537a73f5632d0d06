"""The promise, step by step, with real runs: real Prefect, real Great Expectations, real BentoML, real processes."""

import json
import re
import sqlite3
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from project import MODEL, copy_of_the_project, points, shuffled

from flows.retrain import ingest_rows
from pipeline.errors import SourceError
from pipeline.sources.retry import RetriesExhaustedError


@pytest.fixture
def project(tmp_path, prefect_server):
    return copy_of_the_project(tmp_path, prefect_server)


@pytest.fixture
def released(first_release):
    """A project whose first run released: what it said, not to be changed."""
    return first_release


@pytest.fixture
def after_release(released, tmp_path):
    return released.copied(tmp_path / "project")


def test_a_first_run_releases_what_passed_and_says_all_of_it(released):
    code, said = released.first

    assert code == 0
    assert (said["outcome"], said["release"], said["rows"]) == ("released", 1, 150)
    assert said["bento"].startswith("points:")
    assert len(said["snapshot"]) == 64
    assert said["metrics"]["challenger"]["rmse"] < 0.6
    assert said["metrics"]["champion"] is None
    assert {"ingest", "validate", "train", "evaluate", "gate", "package", "trial", "release"} <= set(said["seconds"])
    assert released.champion() == 1


def test_the_package_answers_from_its_own_code_with_a_transformer_of_the_models_own(released):
    """The trial asks for every module's file and ran outside the checkout; the class is in the package's copy."""
    _, history = released.json("history", "points")

    (release,) = history["releases"]
    assert release["trial"]["passed"]
    assert release["trial"]["answers"] > 100
    _, _, version = release["bento"].partition(":")
    packed = released.home / "bentoml/bentos/points" / version / "src/pipeline/models/points.py"
    assert packed.read_text() == MODEL
    assert not (packed.parents[2] / "bentos/ledger/releases.py").exists()


def test_a_run_on_unchanged_data_is_unchanged_and_trains_nothing(after_release):
    before = after_release.files("trained/**/*")

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"], said["release"]) == (0, "unchanged", None)
    assert "train" not in said["seconds"]
    assert "validate" not in said["seconds"]
    assert after_release.files("trained/**/*") == before


def test_force_retrains_what_is_unchanged_and_skips_no_gate(after_release):
    code, said = after_release.json("run", "points", "--force")

    assert (code, said["outcome"], said["release"]) == (0, "released", 2)
    assert any("the champion, release 1" in reason for reason in said["reasons"])


def test_rejected_data_trains_nothing_and_is_exit_3(project):
    project.data(points().assign(x=lambda frame: frame["x"] * 1000))

    code, said = project.json("run", "points")

    assert (code, said["outcome"], said["metrics"]) == (3, "data-rejected", None)
    assert "'x'" in said["reasons"][0] or "x " in said["reasons"][0]
    assert "train" not in said["seconds"]
    assert not project.files("trained/**/model.joblib")
    assert project.champion() is None


def test_a_missing_target_is_named_with_what_was_meant(project):
    project.data(points().rename(columns={"y": "Y "}))

    code, said = project.json("run", "points")

    assert code == 3
    assert said["reasons"][0] == (
        "column 'y' is the target of points but the data has no such column; did you mean 'Y '?"
    )


def test_a_ragged_file_is_exit_3_and_leaves_nothing_behind(project):
    with (project.folder / "points.csv").open("a") as file:
        file.write("151,0.5\n")

    code, said = project.json("run", "points")

    assert code == 3
    assert said["reasons"] == [
        "points.csv, line 152: 2 fields where the header has 4; the file is ragged or was cut short"
    ]
    assert project.files("snapshots/*") == []


@pytest.mark.parametrize(("kind", "retried"), [(RetriesExhaustedError, False), (SourceError, True)])
def test_a_run_retries_what_the_source_has_not_retried_itself(kind, retried):
    error = kind("it failed")
    error.__cause__ = ConnectionError("refused")
    state = SimpleNamespace(result=lambda **_: error)
    assert ingest_rows.retry_condition_fn(None, None, state) is retried


def test_an_unreachable_source_is_exit_1_and_names_it(project):
    _, _, err = project.evergreen("run", "points", "--data", "nowhere.csv")
    assert "error: there is no file 'nowhere.csv'" in err
    assert "Traceback" not in err
    code, said = project.json("run", "points", "--data", "nowhere.csv")

    assert code == 1
    assert said["error"]["type"] == "SourceError"
    assert "nowhere.csv" in said["error"]["message"]


def test_shuffled_labels_are_refused_and_the_first_model_is_never_waved_through(project):
    project.data(shuffled(points()))

    code, said = project.json("run", "points")

    assert (code, said["outcome"]) == (5, "model-rejected")
    assert any(reason.startswith("not surely better than always guessing") for reason in said["reasons"])
    assert project.champion() is None


def test_a_worse_challenger_is_kept_out_and_the_champion_stays(after_release):
    after_release.data(shuffled(points()))

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"], said["release"]) == (0, "kept", None)
    assert any("the champion, release 1" in reason for reason in said["reasons"])
    assert said["metrics"]["champion"] is not None
    assert after_release.champion() == 1
    assert not after_release.files("artifacts/points/*/manifest.json")[1:]


@pytest.mark.slow
def test_no_release_does_everything_up_to_the_trial_and_a_run_then_releases(project):
    code, said = project.json("run", "points", "--no-release")
    assert (code, said["outcome"], said["release"]) == (0, "tried", None)
    assert "trial" in said["seconds"]
    assert project.champion() is None

    code, said = project.json("run", "points")
    assert (code, said["outcome"], said["release"]) == (0, "released", 1)


def test_a_pipeline_that_answers_differently_when_served_fails_the_trial(after_release):
    """The transformer behaves otherwise outside the checkout, as one does that reads a file or a setting there."""
    after_release.write(
        "pipeline/models/points.py",
        MODEL.replace("import numpy as np\n", "import os\n\nimport numpy as np\n", 1).replace(
            "return np.hstack([X, X**2])", "return np.hstack([X, X**2 + 1e-9 * ('EVERGREEN_TRIAL' in os.environ)])"
        ),
    )

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"]) == (4, "trial-failed")
    assert "where the trained pipeline says" in said["reasons"][0]
    assert after_release.champion() == 1


@pytest.mark.slow
def test_a_package_that_needs_what_only_the_checkout_has_fails_the_trial(project):
    project.write(
        "pipeline/models/points.py",
        MODEL.replace("import numpy as np\n", "from pathlib import Path\n\nimport numpy as np\n", 1).replace(
            "return np.hstack([X, X**2])", "assert Path('points.csv').exists()\n        return np.hstack([X, X**2])"
        ),
    )

    code, said = project.json("run", "points")

    assert (code, said["outcome"]) == (4, "trial-failed")
    assert project.champion() is None


def test_the_champion_is_judged_by_the_code_it_was_released_with(after_release):
    """Were it unpickled here, the new transformer would answer in its name, and badly."""
    spoiled = MODEL.replace("np.hstack([X, X**2])", "np.hstack([X, np.abs(X)])")
    after_release.write("pipeline/models/points.py", spoiled)

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"]) == (0, "kept")
    assert said["metrics"]["champion"]["rmse"] < 0.6
    assert said["metrics"]["challenger"]["rmse"] > said["metrics"]["champion"]["rmse"]


@pytest.mark.slow
def test_rollback_makes_the_earlier_release_champion_and_the_next_run_does_not_undo_that(after_release):
    assert after_release.json("run", "points", "--force")[1]["release"] == 2

    code, said = after_release.json("rollback", "points")
    assert (code, said["release"], said["instead_of"]) == (0, 1, 2)
    assert after_release.champion() == 1

    assert after_release.json("run", "points")[1]["outcome"] == "unchanged"
    assert after_release.champion() == 1


def test_two_runs_at_once_release_once(project):
    both = [project.start("run", "points", "--json") for _ in range(2)]
    results = [project.finish(process) for process in both]

    assert [code for code, _, _ in results] == [0, 0]
    assert sorted(json.loads(out)["outcome"] for _, out, _ in results) == ["released", "unchanged"]
    _, history = project.json("history", "points")
    assert len(history["releases"]) == 1


def test_a_run_killed_before_its_release_leaves_the_champion_and_the_next_closes_it_goes_on_and_says_so(
    after_release, prefect_server
):
    after_release.data(points(rows=170))
    after_release.killed_at("trial", "begin")
    assert after_release.champion() == 1
    (mark,) = after_release.home.glob("runs/points/*/under-way.json")

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"], said["release"]) == (0, "released", 2)
    assert said["seconds"]["train"] < 1
    assert re.match(
        "resumed: the process of the run of .* died during trial, after it",
        said["resumed"],
    )
    assert said["resumed"] in Path(said["report"]).read_text()
    state = httpx.get(f"{prefect_server}/flow_runs/{mark.parent.name}", trust_env=False).json()["state"]
    assert (state["type"], "during trial" in state["message"]) == ("CRASHED", True)
    assert not mark.exists()


@pytest.mark.slow
def test_of_two_machines_on_one_ledger_the_later_is_kept_and_has_reached_no_verdict(tmp_path, prefect_server):
    """The lock holds on one machine only; on two, the ledger decides."""
    here, there = (copy_of_the_project(tmp_path / name, prefect_server) for name in ("here", "there"))
    for project in (here, there):
        project.env["EVERGREEN_DATABASE_URL"] = f"sqlite:///{tmp_path}/shared.sqlite"
    there.data(points(rows=170))
    late = here.start(
        str(tmp_path),
        code="import sys, time\n"
        "from pathlib import Path\n"
        "from flows.ops.warmup import launch\n"
        "from pipeline.settings import settings\n"
        "at, go = Path(sys.argv[1]) / 'at', Path(sys.argv[1]) / 'go'\n"
        "def listen(step):\n"
        "    if step.name == 'release' and step.seconds is None:\n"
        "        at.touch()\n"
        "        while not go.exists():\n"
        "            time.sleep(0.1)\n"
        "print(launch(settings(), listen, model='points').outcome)\n",
    )
    while not (tmp_path / "at").exists():
        assert late.poll() is None
        time.sleep(0.1)
    assert there.json("run", "points")[1]["release"] == 1
    (tmp_path / "go").touch()

    assert here.finish(late)[1].strip() == "kept"

    _, said = here.json("status", "points")
    assert said["models"][0]["release"]["number"] == 1
    assert "another run finished first" in said["models"][0]["last_run"]["reasons"][0]
    assert here.json("run", "points")[1].get("outcome") != "unchanged"


@pytest.mark.slow
def test_a_run_killed_between_any_two_steps_leaves_the_champion_and_the_next_finishes(after_release):
    # With workers that train, which must not outlive it.
    after_release.env["LOKY_MAX_CPU_COUNT"] = "2"
    steps = ["ingest", "validate", "drift", "train", "evaluate", "gate", "artifact", "package", "trial"]
    for step in steps:
        after_release.data(points(rows=170, seed=0))
        after_release.killed_at(step)
        assert after_release.champion() == 1, step
        assert not _orphans(after_release), step

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"], said["release"]) == (0, "released", 2)
    assert not [name for name in after_release.files("**/*") if ".part-" in name or ".building-" in name]


@pytest.mark.slow
def test_a_run_killed_after_its_release_is_not_done_again(after_release):
    after_release.data(points(rows=170))
    after_release.killed_at("release")
    assert after_release.champion() == 2

    assert after_release.json("run", "points")[1]["outcome"] == "unchanged"
    assert len(after_release.json("history", "points")[1]["releases"]) == 2


def test_the_flow_run_ends_in_a_state_named_after_its_outcome(released, prefect_server):
    (folder,) = (released.home / "runs/points").iterdir()

    run = httpx.get(f"{prefect_server}/flow_runs/{folder.name}", trust_env=False).raise_for_status().json()

    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Released")
    assert (folder / "report.md").read_text().startswith("#")


@pytest.mark.slow
def test_a_snapshot_that_was_cut_on_disk_is_ingested_anew(after_release):
    (snapshot,) = after_release.home.glob("snapshots/*.parquet")
    snapshot.write_bytes(snapshot.read_bytes()[:-100])

    assert after_release.json("run", "points", "--force")[1]["outcome"] == "released"


@pytest.mark.slow
def test_a_champion_whose_package_was_damaged_is_not_compared_with_but_named(after_release):
    (model,) = after_release.home.glob("bentoml/bentos/points/*/src/artifact/model.joblib")
    model.write_bytes(model.read_bytes()[:-1])
    after_release.data(points(rows=170))

    code, said = after_release.json("run", "points")

    assert code == 1
    assert said["error"]["type"] == "PackageError"
    assert "is not what was released" in said["error"]["message"]
    assert "`evergreen retire points`" in said["error"]["message"]

    assert after_release.json("retire", "points")[1]["retired"] == 1
    assert after_release.champion() is None
    _, said = after_release.json("run", "points")
    assert (said["outcome"], said["release"], said["metrics"]["champion"]) == ("released", 2, None)


@pytest.mark.slow
def test_the_ledger_may_be_elsewhere(project, tmp_path):
    project.env["EVERGREEN_DATABASE_URL"] = f"sqlite:///{tmp_path}/elsewhere.sqlite"

    assert project.json("run", "points")[1]["outcome"] == "released"

    assert not (project.home / "ledger.sqlite").exists()
    with sqlite3.connect(tmp_path / "elsewhere.sqlite") as ledger:
        assert ledger.execute("select number from releases").fetchall() == [(1,)]


def test_a_run_is_named_by_what_it_came_to_tagged_by_its_model_and_shows_it(released, prefect_server):
    """The name while it runs is the model and the date; the release links to the card, which anybody can write anew."""
    import httpx

    (folder,) = (released.home / "runs/points").iterdir()
    run = httpx.get(f"{prefect_server}/flow_runs/{folder.name}", trust_env=False).raise_for_status().json()
    assert re.fullmatch(r"points \d{4}-\d\d-\d\d -> released 1", run["name"])
    assert run["tags"] == ["points"]
    query = {"artifacts": {"flow_run_id": {"any_": [folder.name]}}}
    found = httpx.post(f"{prefect_server}/artifacts/filter", json=query, trust_env=False).raise_for_status().json()
    shown = {one["key"]: one for one in found}
    assert shown["points-outcome"]["description"] == "**points: released as 1**"
    for what in ("card", "validation"):
        assert f"/points/{folder.name}/{what}.html)" in shown["points-release"]["data"]
        assert f"({what}.html)" in (folder / "report.md").read_text()

    card = (folder / "card.html").read_text()
    assert "<h1>points, release 1</h1>" in card
    written = released.folder / "card.html"
    code, said = released.json("release", "points", "1", "--html", str(written))
    assert (code, said["card"]) == (0, str(written))
    assert written.read_text() == card.replace(' <a href="validation.html">The whole validation report</a>.', "")


def _orphans(project):
    """Processes that still run in or on the project."""
    found = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(project.home) in line]
