"""Data against what the champion was trained on, with real runs."""

import json
import re

import pytest
from PIL import Image
from project import MODEL, SUITE, points
from serving import served, until
from test_retrain import after_release, released  # noqa: F401  fixtures


def far(rows=150):
    """Points whose x is far from where it was, on the same plane, with a column more."""
    frame = points(rows, seed=5).assign(x=lambda one: one["x"] + 3, town="Ames")
    return frame.assign(y=lambda one: (2 * one["x"] + one["x"] ** 2 - 3 * one["z"].fillna(0)).round(3))


def report_of(project):
    newest = max((project.home / "runs/points").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return newest, (newest / "report.md").read_text()


def test_drift_is_told_with_its_histograms_and_refuses_nothing_unless_the_spec_says_so(after_release):  # noqa: F811
    after_release.data(far(), "far.csv")

    code, said = after_release.json("validate", "points", "--data", "far.csv")

    assert (code, said["passed"]) == (0, True)
    found = {one["column"]: one for one in said["drift"]["columns"]}
    assert {name: one["drifted"] for name, one in found.items()} == {"x": True, "z": False, "y": True}
    assert found["x"]["value"] > found["x"]["threshold"]
    assert found["x"]["histogram"]["bars"]
    assert "column 'town' is new since release 1, and is a feature now" in said["drift"]["notes"]

    model = MODEL.replace("Gate, ModelSpec", "Drift, Gate, ModelSpec")
    model = model.replace('key=("id",),', 'key=("id",),\n    drift=Drift(refuse=True),')
    after_release.write("pipeline/models/points.py", model)
    code, said = after_release.json("run", "points", "--data", "far.csv")

    assert (code, said["outcome"]) == (3, "data-rejected")
    assert said["reasons"][0].startswith("the target 'y' drifted since release 1: y: Kolmogorov-Smirnov 0.")
    assert "train" not in said["seconds"]
    folder, report = report_of(after_release)
    assert "| **x** | Kolmogorov-Smirnov | **0." in report
    assert "![histograms then and now](drift.png)" in report
    assert Image.open(folder / "drift.png").size[0] > 600
    assert json.loads((folder / "drift.json").read_text())["since"] == 1


def test_a_run_on_drifted_data_goes_on_and_warns(after_release):  # noqa: F811
    after_release.data(far().drop(columns="town"))

    code, said = after_release.json("run", "points")

    assert code == 0
    assert any("'y' drifted since release 1" in warning for warning in said["warnings"])
    assert "drift" in said["seconds"]


@pytest.mark.slow
def test_a_lost_feature_rejects_data_that_the_suite_lets_pass(after_release):  # noqa: F811
    after_release.data(points().rename(columns={"z": "Z"}))

    code, said = after_release.json("run", "points")

    assert (code, said["outcome"]) == (3, "data-rejected")
    assert said["reasons"] == [
        "column 'z', which release 1 of points was trained on, is missing from the data; did you mean 'Z'?; "
        "restore it, or remove it from the spec's features, or run `evergreen retire points`"
    ]
    assert after_release.json("retire", "points")[0] == 0
    assert after_release.json("validate", "points")[0] == 0


def test_where_the_champions_snapshot_is_gone_nothing_is_compared_and_why_is_said(after_release):  # noqa: F811
    (snapshot,) = after_release.home.glob("snapshots/*.parquet")
    snapshot.unlink()

    code, said = after_release.json("validate", "points")

    assert (code, said["passed"], said["drift"]["columns"]) == (0, True, [])
    assert said["drift"]["incomparable"].startswith("what release 1 was trained on cannot be compared with: ")
    assert snapshot.name in said["drift"]["incomparable"]


def test_rows_that_the_champion_was_judged_by_and_that_have_another_label_are_told(after_release):  # noqa: F811
    after_release.data(points().assign(y=lambda one: one["y"] + 0.001))

    _, said = after_release.json("validate", "points")

    # A fifth of the rows was held out: as many as the first run said.
    assert said["drift"]["relabelled"] == 32
    assert "32 rows that release 1 was judged by have another 'y' now" in said["drift"]["notes"]


@pytest.mark.slow
def test_a_rule_that_refuses_is_held_by_the_endpoint_and_shown_by_explain(after_release, tmp_path):  # noqa: F811
    suite = SUITE.replace("max_value=100)", 'max_value=100, meta={"refuse": True})')
    suite = suite.replace(
        "    ]\n", '        gxe.ExpectColumnValuesToBeBetween(column="z", min_value=-1, mostly=0.1),\n    ]\n'
    )
    after_release.write("expectations/suites/points.py", suite)

    assert after_release.json("run", "points")[1]["outcome"] == "unchanged"
    code, said = after_release.json("run", "points", "--force")
    assert (code, said["outcome"], said["release"]) == (0, "released", 2)

    code, told = after_release.json("release", "points", "2")
    assert [guard["refuse"] for guard in told["guards"]] == [True, False]
    assert told["unguarded"] == []
    assert "rejects   requests unless x is from -100 to 100" in after_release.evergreen("release", "points", "2")[1]
    assert after_release.json("release", "points", "1")[1]["guards"][0]["refuse"] is False
    with served(after_release, "points", tmp_path / "log") as server:
        answer = server.ask({"x": 1, "z": 0}, {"x": 100.5, "z": 0})
        assert (answer.status_code, answer.json()["errors"]) == (
            400,
            [{"row": 1, "field": "x", "problem": "100.5 is out of range; give a number from -100 to 100"}],
        )
        assert server.send("x,z\n-1000,0\n").status_code == 400
        assert server.ask({"x": 1, "z": -5}, {"x": 2, "z": -7}).status_code == 200
        (x, _) = server.client.get("/model").json()["features"]
        assert (x["minimum"], x["maximum"]) == (-100, 100)
        record = server.client.get("/docs.json").json()["components"]["schemas"]["Record"]["properties"]
        assert (record["x"]["minimum"], record["x"]["maximum"], "minimum" in record["z"]) == (-100, 100, False)
        until(lambda: 'feature="z"' in server.client.get("/metrics").text)
        counts = [line for line in server.client.get("/metrics").text.splitlines() if "broken_rules_total{" in line]
        assert sorted((re.search('rule="([^"]*)"', line)[1], float(line.split()[-1])) for line in counts) == [
            ("x is from -100 to 100", 2.0),
            ("z is at least -1", 2.0),
        ]
