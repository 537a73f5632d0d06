"""What a person decides about releases: hold, approve, go back; each is said, kept, and undone by a command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from project import points, shuffled
from test_retrain import after_release, project, released  # noqa: F401  fixtures

from bentos.ledger import releases
from bentos.ledger.database import open_ledger


def events(project):  # noqa: F811
    return [(one["event"], one["release"], one["reason"]) for one in project.json("history", "points")[1]["events"]]


def test_what_is_held_stays_champion_and_the_next_run_after_the_hold_takes_the_matter_up(after_release):  # noqa: F811
    project = after_release  # noqa: F811
    assert project.json("hold", "points", "--why", "audit")[1] == {"model": "points", "held": 1, "release": 1}
    project.data(points(rows=300, seed=5))
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "kept")
    assert "points is held at release 1 since" in said["reasons"][0]
    assert "audit" in said["reasons"][0]
    (status,) = project.json("status", "points")[1]["models"]
    assert status["held"]["release"] == 1
    assert "held      at release 1" in project.evergreen("status", "points")[1]
    assert project.json("unhold", "points")[0] == 0
    assert project.json("run", "points")[1]["outcome"] == "released"


def test_a_release_that_needs_approval_waits_for_it_with_its_trial_done(after_release):  # noqa: F811
    project = after_release  # noqa: F811
    model = project.folder / "pipeline/models/points.py"
    model.write_text(model.read_text().replace('    metric="rmse",', '    metric="rmse",\n    approval="manual",'))
    project.data(points(rows=300, seed=5))
    code, said = project.json("run", "points")
    assert (code, said["outcome"], said["release"]) == (0, "awaiting-approval", 2)
    assert project.json("run", "points")[1]["outcome"] == "unchanged"
    (status,) = project.json("status", "points")[1]["models"]
    assert (status["release"]["number"], status["awaiting_approval"]) == (1, [2])
    assert Path(status["reports"]["2"]).read_text().startswith("#")
    explained = project.json("release", "points", "2")[1]
    assert (explained["state"], explained["replaced"], explained["trial"]["passed"]) == ("awaiting-approval", 1, True)
    package = package_folder(project, 2)
    package.rename(project.folder / "aside")
    gone = project.json("promote", "points", "2")[1]["error"]["message"]
    assert gone.startswith("the package of release 2 of points cannot be used: there is no Bento points:")
    assert gone.endswith("; restore it from a copy")
    assert project.champion() == 1
    (project.folder / "aside").rename(package)
    assert project.json("promote", "points", "2", "--why", "read the report")[1]["release"] == 2
    kind, number, reason = events(project)[-1]
    assert (kind, number) == ("promoted", 2)
    assert reason.endswith(": read the report")
    assert project.json("status", "points")[1]["models"][0]["release"]["number"] == 2


def test_a_first_release_that_needs_approval_is_made_once_and_what_is_asked_for_says_what_approves_it(project):  # noqa: F811
    model = project.folder / "pipeline/models/points.py"
    model.write_text(model.read_text().replace('    metric="rmse",', '    metric="rmse",\n    approval="manual",'))
    assert project.json("run", "points")[1]["outcome"] == "awaiting-approval"
    assert project.json("run", "points")[1]["outcome"] == "unchanged"
    code, out, err = project.evergreen("history", "points")
    assert (code, err) == (0, "")
    assert "awaiting-approval 1 by person" in out
    out = project.evergreen("status", "points")[1]
    assert "champion  none; one awaits approval" in out
    assert "evergreen promote points 1" in out
    way_out = "release 1 awaits approval, and `evergreen promote points 1` makes it champion"
    for command in ("serve", "rollback", "hold"):
        code, _, err = project.evergreen(command, "points")
        assert (code, err.count(way_out)) == (1, 1)


def test_what_another_champion_was_promoted_past_is_taken_up_again(after_release):  # noqa: F811
    project = after_release  # noqa: F811
    model = project.folder / "pipeline/models/points.py"
    model.write_text(model.read_text().replace('    metric="rmse",', '    metric="rmse",\n    approval="manual",'))
    for number, seed in ((2, 5), (3, 6)):
        project.data(points(rows=300, seed=seed))
        assert project.json("run", "points")[1]["release"] == number
    assert project.json("promote", "points", "2")[1] == {
        "model": "points",
        "release": 2,
        "bento": project.json("release", "points", "2")[1]["bento"],
        "state": "champion",
    }
    # Release 3 was judged against release 1, and cannot be promoted; its rows are judged against release 2 now.
    assert project.json("run", "points")[1]["outcome"] in ("awaiting-approval", "kept")


def test_a_rollback_tries_the_earlier_package_first_and_changes_nothing_where_that_fails(second_release, tmp_path):
    project = second_release.copied(tmp_path / "project")  # noqa: F811
    first = project.json("release", "points", "1")[1]
    source = project.home / f"bentoml/bentos/{first['bento'].replace(':', '/')}/src"
    file = source / "bentos/endpoint/formats.py"
    whole = file.read_bytes()
    file.write_bytes(whole + b"\nraise SystemExit\n")
    code, out, err = project.evergreen("rollback", "points")
    assert (code, out) == (1, "")
    assert "is not what was released" in err
    assert project.json("status", "points")[1]["models"][0]["release"]["number"] == 2

    file.write_bytes(whole)
    assert project.json("rollback", "points", "--why", "complaints")[1]["release"] == 1
    assert events(project)[-1] == ("rolled back to", 1, "instead of release 2: complaints")


def test_only_where_the_champions_package_is_gone_or_damaged_withdrawing_is_said_to_be_a_way_out(
    second_release, tmp_path
):
    project = second_release.copied(tmp_path / "project")  # noqa: F811
    packages = {number: package_folder(project, number) for number in (1, 2)}
    golden = packages[1] / "src/artifact/golden.json"
    golden.write_text(golden.read_text() + " ")
    shutil.rmtree(packages[2])

    for verb in (["rollback", "--to", "1"], ["export", "1", "out"], ["archive", "1", "1.tar"]):
        code, out, err = project.evergreen(verb[0], "points", *verb[1:])
        assert (code, out) == (1, "")
        assert err.startswith("error: the package of release 1 of points cannot be used: Bento points:"), err
        assert f"({golden} has changed since it was written: its digest is " in err
        assert err.endswith("; restore it from a copy\n")
    assert "; restore it from a copy" in project.json("reproduce", "points", "1")[1]["error"]["message"]

    for verb in (["export", "out"], ["reproduce", "2"], ["release", "2", "--html", "card.html"]):
        said = project.json(verb[0], "points", *verb[1:])[1]["error"]["message"]
        assert said.startswith("the package of release 2 of points cannot be used: there is no Bento points:")
        assert said.endswith("; restore it from a copy, or `evergreen retire points`")
    assert project.champion() == 2


def package_folder(project, number):  # noqa: F811
    bento = project.json("release", "points", str(number))[1]["bento"]
    return project.home / "bentoml/bentos" / bento.replace(":", "/")


def test_a_key_refuses_what_was_released_without_one_and_the_way_out_it_names_ends_in_a_signed_release(after_release):  # noqa: F811
    project = after_release  # noqa: F811
    # Another dictionary: the tests' projects share theirs.
    project.env = {**project.env, "EVERGREEN_SIGNING_KEY": "ours"}
    project.data(points(rows=300, seed=5), "newer.csv")
    refused = [project.json("run", "points", "--data", "newer.csv")[1]["error"]["message"]]
    assert project.json("retire", "points")[0] == 0
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (4, "trial-failed")
    refused += said["reasons"]
    for sentence in refused:
        assert "is not signed: manifest.sig cannot be read" in sentence
        assert (
            "sign a new one by `evergreen run MODEL --force`, after `evergreen retire MODEL` if this is the cham"
            in sentence
        )
    code, said = project.json("run", "points", "--force")
    assert (code, said["outcome"], said["release"]) == (0, "released", 2)
    assert (package_folder(project, 2) / "src/artifact/manifest.sig").exists()


def test_what_was_rolled_back_is_not_released_again_unless_a_person_forces_it(second_release, tmp_path):
    project = second_release.copied(tmp_path / "project")  # noqa: F811
    project.json("rollback", "points", "--why", "complaints")
    # Another run in between: what is barred is no longer what the last run saw.
    project.data(shuffled(points()))
    assert project.json("run", "points")[1]["outcome"] == "kept"
    project.data(points(rows=300, seed=5))
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "unchanged")
    assert "blocked: rolled back to 1, instead of release 2: complaints" in said["reasons"][0]
    assert project.json("run", "points", "--force")[1]["outcome"] == "released"


def test_everything_about_a_release_is_told(after_release):  # noqa: F811
    said = after_release.json("release", "points", "1")[1]
    assert (said["release"], said["state"], said["cause"]) == (1, "champion", "person")
    assert said["compared_with"]["rows"] > 0
    assert all(check["passed"] for check in said["checks"])
    assert {"snapshot", "spec", "code", "verdict", "package", "serving", "artifact", "bento"} == set(said["digests"])
    rows = said["rows"]
    assert (rows["all"], rows["origin"], rows["trained_on"] + rows["held_out"]) == (150, "points.csv", 150)
    assert (said["code"]["estimator"], Path(said["code"]["folder"], "pipeline/models/points.py").exists()) == (
        "ridge",
        True,
    )
    assert said["validation"] == {"rules": 2, "warnings": [], "quarantined": None}
    assert Path(said["report"]).read_text().startswith("#")
    out = after_release.evergreen("release", "points", "1")[1]
    assert "points release 1: champion" in out
    assert said["digests"]["artifact"] in out
    code, said = after_release.json("release", "points", "7")
    assert code == 1
    assert said["error"]["message"] == "points has no release 7; there are: 1"
    assert json.loads(after_release.evergreen("promote", "points", "1", "--json")[1])["error"]["type"] == "ReleaseError"


def test_a_run_shows_the_alarm_that_sent_a_canary_back_since_the_last_one(after_release):  # noqa: F811
    project = after_release  # noqa: F811
    ledger = open_ledger(f"sqlite:///{project.home}/ledger.sqlite")
    first = releases.get_release(ledger, "points", 1)
    releases.add_release(ledger, replace(first, replaced=1), kind=releases.CANARY)
    releases.stop_canary(ledger, "points", 2, "canary", "errors: 5.0% of its requests ended in an error")

    report = Path(project.json("run", "points")[1]["report"]).read_text()

    assert "## Since the last run" in report
    assert "**Release 2 of points was a canary and was sent back**: errors: 5.0% of its requests" in report
    assert "## Since the last run" not in Path(project.json("run", "points")[1]["report"]).read_text()
