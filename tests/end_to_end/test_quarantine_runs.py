"""Quarantine in real runs: what is trained on, what is kept beside it, and what comes back to it later."""

import json

import numpy as np
import pyarrow.parquet
import pytest
from project import SUITE, copy_of_the_project, points

from pipeline import digest

QUARANTINE = SUITE.replace(
    "    ]\n)",
    "    ],\n"
    '    quarantine=[gxe.ExpectColumnValuesToBeBetween(column="z", max_value=50),\n'
    '                gxe.ExpectColumnValuesToNotBeNull(column="y")],\n'
    ")\n"
    'import pathlib\n\npathlib.Path("imported").touch()\n',
)


def with_bad_rows(*rows):
    """150 points, the rows with these numbers spoiled."""
    frame = points()
    frame.loc[[*rows], "z"] = 1_000.0
    return frame


@pytest.fixture(scope="module")
def project(tmp_path_factory, prefect_server):
    project = copy_of_the_project(tmp_path_factory.mktemp("quarantine"), prefect_server)
    project.write("expectations/suites/points.py", QUARANTINE)
    frame = with_bad_rows(3, 7)
    frame.loc[11, "y"] = np.nan
    frame.loc[7, "y"] = np.nan
    project.data(frame)
    project.first = project.json("run", "points")
    return project


@pytest.mark.slow
def test_a_run_goes_on_with_the_good_rows_and_keeps_the_others_with_their_reasons(project):
    code, said = project.first

    assert (code, said["outcome"], said["rows"]) == (0, "released", 147)
    assert said["warnings"][0].startswith("3 of 150 rows (2%) are set aside, in ")
    good = pyarrow.parquet.read_table(project.home / f"snapshots/{said['snapshot']}.parquet")
    assert digest.of_table(good) == said["snapshot"]
    (file,) = (project.home / f"snapshots/{said['snapshot']}.quarantine").iterdir()
    aside = pyarrow.parquet.read_table(file)
    assert aside["_row"].to_pylist() == [4, 8, 12]
    high, null = "z is at most 50", "y is not null"
    assert aside["_reasons"].to_pylist() == [[high], [high, null], [null]]
    raw = pyarrow.parquet.read_table(project.home / f"snapshots/{file.stem}.parquet")
    assert sorted(good["id"].to_pylist() + aside["id"].to_pylist()) == raw["id"].to_pylist()
    assert good["id"].to_pylist() == sorted(good["id"].to_pylist())


@pytest.mark.slow
def test_the_report_beside_the_run_is_a_page_and_json(project):
    (folder,) = (path.parent for path in (project.home / "runs/points").glob("*/validation.html"))
    assert "3 of 150 rows (2%) are set aside" in (folder / "validation.html").read_text()
    assert json.loads((folder / "validation.json").read_text())["quarantine"]["rows"] == 3


@pytest.mark.slow
def test_nothing_new_is_unchanged_before_anything_is_validated_or_imported_for_it(project):
    mark = project.folder / "imported"
    mark.unlink()
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "unchanged")
    assert "validate" not in said["seconds"]
    assert not mark.exists()


@pytest.mark.slow
def test_other_bad_rows_around_the_same_good_ones_train_nothing_again(project):
    project.data(points().drop([3, 7, 11]))
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (0, "unchanged")
    assert "train" not in said["seconds"]


@pytest.mark.slow
def test_a_release_without_the_bad_rows_is_reproduced_and_its_quarantine_outlives_gc(project):
    code, found = project.json("reproduce", "points", "1")
    assert (code, found["equal"]) == (0, True)
    project.json("gc")
    snapshot = project.first[1]["snapshot"]
    assert f"snapshots/{snapshot}.parquet" in project.files("snapshots/*.parquet")
    assert len(project.files("snapshots/*.quarantine/*.parquet")) == 1


@pytest.mark.slow
def test_too_many_bad_rows_are_rejected_and_a_release_stays(project):
    project.data(with_bad_rows(*range(20)))
    code, said = project.json("run", "points")
    assert (code, said["outcome"]) == (3, "data-rejected")
    assert said["reasons"][0] == "20 of 150 rows (13.3%) break quarantine rules, and at most 5% may be set aside"
    assert project.champion() == 1


@pytest.mark.slow
def test_validate_alone_says_what_would_be_set_aside_and_sets_nothing_aside(project, tmp_path):
    project.data(with_bad_rows(1), "new.csv")
    before = project.files("snapshots/**/*")
    code, said = project.json("validate", "points", "--data", "new.csv", "--html", str(tmp_path / "report.html"))
    assert (code, said["passed"], said["quarantine"]["rows"]) == (0, True, 1)
    assert said["warnings"][0] == "1 of 150 rows (0.7%) are set aside"
    assert "set aside" in (tmp_path / "report.html").read_text()
    assert project.files("snapshots/**/*") == before


@pytest.mark.slow
def test_a_validator_that_dies_is_a_broken_check_and_not_bad_data(project):
    project.write("expectations/suites/points.py", "import os\nos._exit(9)  # no quarantine")
    project.data(points(seed=5))
    code, said = project.json("run", "points")
    project.write("expectations/suites/points.py", QUARANTINE)
    assert (code, said["error"]["type"]) == (1, "CheckError")
    assert "ended with exit code 9, which says nothing about the data" in said["error"]["message"]
