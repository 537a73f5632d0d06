"""The command as a person and as a program meets it: real processes, what they print where, and how they exit."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from project import MODEL, SUITE, Project, copy_of_the_project

OPTIONS = {
    "init": ["--target", "--name", "--yes", "--force", "--json"],
    "spec": ["--json"],
    "run": ["--data", "--force", "--no-release", "--json"],
    "serve": ["--host", "--port", "--workers", "--ssl-certfile", "--ssl-keyfile", "--cors-origin"],
    "status": ["--json"],
    "history": ["--json"],
    "rollback": ["--to", "--why", "--json"],
    "promote": ["--why", "--json"],
    "hold": ["--why", "--json"],
    "unhold": ["--why", "--json"],
    "release": ["--html", "--json"],
    "export": ["--port", "--force", "--json"],
    "reproduce": ["--json"],
    "gc": ["--keep", "--dry-run", "--json"],
    "validate": ["--data", "--json"],
    "monitor": ["--json"],
    "triggers": ["--json"],
    "ui": ["--port"],
}
LOADED = """
import contextlib, io, json, sys
from flows.cli.main import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["evergreen", *arguments]
    code, out = 0, io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    heavy = {"prefect", "great_expectations", "bentoml", "sklearn", "pandas", "flows.retrain"}
    told.append((code, out.getvalue(), sorted(heavy & set(sys.modules))))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A project after its first run, which had no Prefect server at hand and an empty HOME."""
    folder = tmp_path_factory.mktemp("cold")
    project = copy_of_the_project(folder / "project", "")
    del project.env["PREFECT_API_URL"]
    for name in ("HOME", "TMPDIR"):
        (folder / name).mkdir()
        project.env[name] = str(folder / name)
    project.began = time.time()
    project.first = project.finish(project.start("run", "points", cold=True))
    return project


def loading(project, *commands):
    """Run commands one after the other in one process that imported nothing; of each its exit code, its stdout, and
    which heavy modules there were when it had ended."""
    code, out, err = project.finish(project.start(json.dumps(commands), code=LOADED, cold=True))
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.fixture(scope="module")
def helped(cold):
    """What the help of each verb says, and what it loaded."""
    return dict(zip(OPTIONS, loading(cold, *([verb, "--help"] for verb in OPTIONS)), strict=True))


@pytest.fixture
def project(cold, tmp_path):
    """A copy of the project after its first run."""
    shutil.copytree(cold.folder, tmp_path / "project")
    return Project(tmp_path / "project", cold.env)


@pytest.fixture
def new(project):
    """A copy of the project before its first run."""
    shutil.rmtree(project.home)
    return project


def broken(project, *arguments, exit_code=1):
    """Run a command with --json that breaks; return its error's code and message."""
    code, said = project.json(*arguments)
    assert code == exit_code
    assert set(said) == {"error"}
    assert set(said["error"]) == {"code", "message", "type"}
    return said["error"]["code"], said["error"]["message"]


def told(text):
    """The words of a usage error, out of its box."""
    return " ".join(word for word in text.split() if not set(word) <= set("│╭╮╰╯─"))


def test_a_run_shows_a_line_for_each_step_on_stderr_and_nothing_else_there(cold):
    code, _, err = cold.first

    assert code == 0, err
    lines = [re.fullmatch(r"✓ (\w+) +(\d+\.\d) s\s*(.*)", line) for line in err.splitlines()]
    assert all(lines), err
    names = [line[1] for line in lines]
    steps = ["ingest", "validate", "drift", "train", "evaluate", "gate", "artifact", "package", "trial", "release"]
    assert [name for name in names if name in steps] == steps
    said = {line[1]: line[3] for line in lines}
    assert said["ingest"].startswith("150 rows x 4 columns from points.csv")
    assert said["train"].startswith("ridge of 1 candidates")
    assert "118 rows" in said["train"]
    assert "answers exactly as trained" in said["trial"]


def test_a_run_says_on_stdout_how_it_ended_why_with_which_numbers_how_long_it_took_and_what_is_next(cold):
    _, out, _ = cold.first

    lines = [line.rstrip() for line in out.strip().splitlines()]
    assert lines[0] == "points: released release 1"
    assert re.fullmatch(r"  rmse 0\.\d+ is at most the threshold 1, on 32 held-out rows", lines[1])
    assert lines[2].startswith("  better than always guessing: rmse 0.")
    assert [line.split()[0] for line in lines if re.match(r"  \w+ +\S+ +\S+$", line)][:2] == ["rmse", "mae"]
    (seconds,) = [line for line in lines if re.match(r"\d+\.\d s: ", line)]
    assert all(f"{step} " in seconds for step in ("validate", "train", "package", "trial"))
    (report,) = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")]
    assert (cold.folder / report).is_file()
    assert lines[-1] == "next: evergreen serve points, undo: evergreen rollback points"


def test_nothing_is_written_outside_of_evergreens_home(cold):
    for command in (["status"], ["history", "points"], ["validate", "points"]):
        assert cold.evergreen(*command)[0] == 0

    ours = {*cold.home.rglob("*"), *cold.folder.rglob("__pycache__/*.pyc")}
    written = {path for path in cold.folder.rglob("*") if path.is_file() and path.stat().st_mtime > cold.began}
    assert written - ours == set()
    assert [*Path(cold.env["HOME"]).iterdir(), *Path(cold.env["TMPDIR"]).iterdir()] == []


def test_show_says_what_a_spec_comes_to_with_the_types_that_the_last_run_saw(cold):
    code, found = cold.json("spec", "points")

    assert code == 0
    assert found["source"] == "Csv points.csv"
    assert found["features"] == [{"name": "x", "type": "number"}, {"name": "z", "type": "number"}]
    assert found["candidates"] == {"ridge": "SimpleImputer > Squares > Ridge"}
    assert (found["metric"], found["gate"]["at_most"], found["gate"]["tolerance"]) == ("rmse", 1.0, 0.1)
    assert found["suite"] == {"error": 2, "warn": 0, "quarantine": 0, "problem": None}
    lines = [line.split(maxsplit=1) for line in cold.evergreen("spec", "points")[1].splitlines()]
    assert ["source", "Csv points.csv"] in lines
    assert ["features", "2: x (number), z (number)"] in lines
    assert ["gate", "rmse at most 1, tolerance 0.1"] in lines
    assert ["suite", "2 rules that stop a run, 0 that warn"] in lines


def test_show_of_a_model_that_never_ran_leaves_open_what_only_the_data_tells(new):
    code, found = new.json("spec", "points")

    assert code == 0
    assert found["features"] is None
    assert found["snapshot"] is None


def test_help_names_every_verb_and_loads_nothing_heavy(cold):
    ((code, out, loaded),) = loading(cold, ["--help"])

    assert (code, loaded) == (0, [])
    assert [verb for verb in OPTIONS if f"│ {verb} " in out] == list(OPTIONS)


@pytest.mark.parametrize("verb", OPTIONS)
def test_the_help_of_a_verb_names_its_options_and_loads_nothing_heavy(helped, verb):
    code, out, loaded = helped[verb]

    assert (code, loaded) == (0, [])
    assert [option for option in OPTIONS[verb] if f" {option} " in out] == OPTIONS[verb]


def test_what_only_looks_loads_nothing_heavy(cold):
    looks = ("status", "status points --json", "history points", "history points --json", "triggers points")

    for look, (code, out, loaded) in zip(looks, loading(cold, *map(str.split, looks)), strict=True):
        assert (look, code, loaded) == (look, 0, [])
        assert "points" in out


def test_status_tells_the_champion_and_how_the_last_run_ended(cold):
    code, said = cold.json("status", "points")

    assert code == 0
    (points,) = said["models"]
    assert (points["model"], points["release"]["number"], points["release"]["metric"]) == ("points", 1, "rmse")
    assert points["release"]["value"] < 0.6
    assert points["last_run"]["outcome"] in ("released", "unchanged")
    _, out, err = cold.evergreen("status", "points")
    assert (out.splitlines()[0], err) == ("points", "")
    assert "release 1" in out
    assert points["release"]["bento"] in out


NOTHING = {
    "release": None,
    "last_run": None,
    "canary": None,
    "held": None,
    "sent_back": None,
    "awaiting_approval": [],
    "reports": {},
    "servers": [],
}


def test_status_without_a_model_tells_of_all_and_what_never_ran_is_null(cold):
    _, said = cold.json("status")

    found = {one["model"]: one for one in said["models"]}
    assert list(found) == ["breast_cancer", "house_prices", "points"]
    assert found["breast_cancer"] == {"model": "breast_cancer", **NOTHING}
    assert "evergreen run breast_cancer makes one" in cold.evergreen("status")[1]


def test_the_status_of_an_empty_home_names_the_models_and_how_to_begin(new):
    assert new.json("status")[1] == {
        "models": [{"model": name, **NOTHING} for name in ("breast_cancer", "house_prices", "points")]
    }
    said = " ".join(new.evergreen("status", "points")[1].split())
    assert said == "points champion none; evergreen run points makes one"


def test_history_tells_each_release_with_its_reasons_numbers_and_digests(cold):
    code, said = cold.json("history", "points")

    assert (code, said["model"], said["champion"]) == (0, "points", 1)
    (release,) = said["releases"]
    assert (release["number"], release["replaced"], release["cause"]) == (1, None, "person")
    assert {"snapshot", "spec", "code", "verdict", "package", "serving", "artifact", "bento"} == set(release["digests"])
    assert release["metrics"]["challenger"]["rmse"] < 0.6 < release["metrics"]["baseline"]["rmse"]
    assert [(one["release"], one["event"]) for one in said["events"]] == [(1, "released")]
    _, out, _ = cold.evergreen("history", "points")
    assert "release 1 (champion) by person" in out
    assert all(reason in out for reason in release["reasons"])


def test_the_history_of_what_was_never_released_is_empty_and_says_how_to_begin(cold):
    assert cold.json("history", "breast_cancer") == (
        0,
        {"model": "breast_cancer", "champion": None, "releases": [], "events": [], "served": [], "spans": []},
    )
    _, out, _ = cold.evergreen("history", "breast_cancer")
    assert out == "breast_cancer has no release yet; evergreen run breast_cancer makes one\n"


def test_validate_passes_good_data_and_trains_nothing(new):
    code, said = new.json("validate", "points")

    assert (code, said["model"], said["passed"]) == (0, "points", True)
    assert (said["rows"], said["columns"], said["reasons"]) == (150, 4, [])
    assert [rule["passed"] for rule in said["rules"]] == [True, True]
    assert said["drift"]["incomparable"] == "there is no champion to compare with"
    # As after `status`: the ledger was asked, and is made when it is.
    assert {file.partition("-")[0] for file in new.files("**/*")} == {"ledger.sqlite"}


def test_validate_rejects_other_data_with_exit_3_and_reasons(project):
    frame = (project.folder / "points.csv").read_text().splitlines()
    (project.folder / "next.csv").write_text("\n".join([*frame, frame[1], "151,1000,0,0"]))

    code, said = project.json("validate", "points", "--data", "next.csv")

    assert (code, said["passed"], said["rows"], len(said["reasons"])) == (3, False, 152, 2)
    assert any("x" in reason and "1000" in reason for reason in said["reasons"])
    assert any("id" in reason for reason in said["reasons"])
    code, out, _ = project.evergreen("validate", "points", "--data", "next.csv")
    assert (code, out.splitlines()[0]) == (3, "rejected: 0 of 2 rules passed, 152 rows x 4 columns")
    assert all(reason in out for reason in said["reasons"])


def test_a_file_that_is_no_table_is_rejected_with_the_same_json_and_no_rules(project):
    (project.folder / "cut.csv").write_text("id,x,z,y\n1,2\n")

    code, said = project.json("validate", "points", "--data", "cut.csv")

    assert code == 3
    assert (said["passed"], said["rows"], said["columns"], said["rules"], said["warnings"]) == (
        False,
        None,
        None,
        [],
        [],
    )
    assert "cut.csv, line 2" in said["reasons"][0]


def test_an_unreachable_source_is_one_json_object_and_exit_1(cold):
    error, message = broken(cold, "validate", "points", "--data", "nowhere.csv")

    assert error == "source.no_such_file"
    assert "nowhere.csv" in message
    code, out, err = cold.evergreen("validate", "points", "--data", "nowhere.csv")
    assert (code, out, err) == (1, "", f"error: {message}\n")


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_broken_suite_is_one_json_object_and_exit_1_and_never_bad_data(new, verb, prefect_server):
    new.write("expectations/suites/points.py", SUITE.replace("column=", "colunm="))
    project = Project(new.folder, new.env | {"PREFECT_API_URL": prefect_server})

    error, message = broken(project, verb, "points")

    assert error == "check.suite_broken"
    assert "expectations/suites/points.py is broken, which says nothing about the data" in message


@pytest.mark.parametrize(
    ("arguments", "url", "sentence"),
    [
        (["status"], "sqlite:////nowhere/at/all.sqlite", "unable to open database file"),
        (["history", "points"], "sqlite:////nowhere/at/all.sqlite", "unable to open database file"),
        (["rollback", "points"], "nonsense", "Could not parse SQLAlchemy URL"),
    ],
    ids=["status", "history", "rollback"],
)
def test_a_ledger_that_cannot_be_opened_is_one_json_object_and_exit_1(cold, arguments, url, sentence):
    project = Project(cold.folder, cold.env | {"EVERGREEN_DATABASE_URL": url})

    assert sentence in broken(project, *arguments)[1]


def test_a_broken_model_is_one_json_object_and_exit_1(project):
    project.write("pipeline/models/points.py", MODEL.replace('metric="rmse"', 'metric="rsme"'))

    error, message = broken(project, "validate", "points")

    assert error == "spec.unknown_metric"
    assert "'rsme'" in message
    assert "did you mean 'rmse'?" in message


@pytest.mark.parametrize("verb", ["run", "status", "history", "rollback", "validate"])
def test_an_unknown_model_is_a_usage_error_with_what_was_meant(cold, verb):
    sentence = "there is no model 'pionts' in pipeline/models; did you mean 'points'?"
    assert broken(cold, verb, "pionts", exit_code=2) == ("spec.unknown_model", sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "points", "--forse"], "No such option: --forse"),
        (["retrain", "points"], "No such command 'retrain'"),
        (["run"], "Missing argument"),
        (["run", "pionts"], "there is no model 'pionts' in pipeline/models; did you mean 'points'?"),
        (["serve", "pionts"], "there is no model 'pionts' in pipeline/models; did you mean 'points'?"),
        (["serve", "points", "--port", "http"], "valid integer"),
        (["serve", "points", "--port", "70000"], "less than or equal to 65535"),
        (["serve", "points", "--workers", "0"], "greater than or equal to 1"),
        (["rollback", "points", "--to", "first"], "valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_said_wrongly_is_exit_2_and_nothing_on_stdout(cold, arguments, sentence):
    code, out, err = cold.evergreen(*arguments)

    assert (code, out) == (2, "")
    assert sentence in told(err), err


@pytest.mark.parametrize(
    ("arguments", "expected_code"),
    [
        (["points"], "release.no_rollback_target"),
        (["points", "--to", "1"], "release.already_champion"),
        (["points", "--to", "7"], "release.unknown"),
        (["breast_cancer"], "release.none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_rollback_to_nothing_is_one_json_object_and_exit_1(cold, arguments, expected_code):
    assert broken(cold, "rollback", *arguments)[0] == expected_code


def test_a_rollback_to_nothing_is_a_sentence_and_the_champion_stays(cold):
    sentence = "release 1 of points did not replace another release, so a rollback has no target"
    code, out, err = cold.evergreen("rollback", "points")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {sentence}")
    assert cold.json("history", "points")[1]["champion"] == 1


def test_what_a_models_own_code_prints_goes_to_stderr_so_that_stdout_holds_one_json_object(new, prefect_server):
    """From this process and from the workers that train, through Python and past it."""
    chatty = MODEL.replace(
        "        return np.hstack([X, X**2])",
        "        print('chatter')\n        os.system('echo more')\n        return np.hstack([X, X**2])",
    ).replace("import numpy as np\n", "import os\n\nimport numpy as np\n\nprint('hello')\n", 1)
    new.write("pipeline/models/points.py", chatty.replace("at_most=1.0", "at_most=0.001"))
    project = Project(new.folder, new.env | {"PREFECT_API_URL": prefect_server, "LOKY_MAX_CPU_COUNT": "2"})

    code, out, err = project.evergreen("run", "points", "--json")

    assert (code, json.loads(out)["outcome"]) == (5, "model-rejected")
    assert {"hello", "chatter", "more"} <= set(err.split())
    code, out, err = project.evergreen("validate", "points", "--json")
    assert (code, json.loads(out)["passed"]) == (0, True)
    assert "hello" in err
