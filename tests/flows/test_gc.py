"""What is kept, what is removed, and what a kill in the middle of that leaves."""

import json
import os
import shutil
import signal
import sqlite3
import time
from contextlib import suppress
from socket import gethostname

import pytest
from filelock import FileLock
from project import copy_of_the_project, points
from serving import served, until
from test_faults import small_disk

from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from bentos.ledger.releases import Event, Release
from bentos.package import package_lock
from flows.gc import releases_to_keep
from pipeline.errors import PackageError


def a_release(number, replaced=None):
    nothing = {}
    return Release("m", number, f"m:{number}", nothing, nothing, nothing, nothing, "person", "", "", replaced)


def events(*said):
    return [Event(place, release, kind, "person", "", "") for place, (release, kind) in enumerate(said, start=1)]


TEN = [a_release(number, number - 1 or None) for number in range(1, 11)]
RELEASED = [(number, "released") for number in range(1, 11)]


@pytest.mark.parametrize(
    ("said", "keep", "needed"),
    [
        (RELEASED, 3, {10: "champion", 9: "champion before", 8: "one of the newest 3"}),
        (RELEASED, 1, {10: "champion", 9: "champion before"}),
        ([*RELEASED, (4, "rolled back to")], 1, {10: "champion before", 4: "champion", 3: "champion before"}),
        ([*RELEASED, (10, "retired")], 1, {10: "retired last", 9: "champion before"}),
        ([*RELEASED[:9], (10, "canary")], 1, {10: "canary", 9: "champion", 8: "champion before"}),
        ([*RELEASED[:9], (10, "canary"), (10, "canary stopped")], 1, {10: "one", 9: "champion", 8: "champion before"}),
        ([*RELEASED[:9], (10, "awaiting-approval")], 1, {10: "awaiting-approval", 9: "champion", 8: "champion before"}),
        # What was judged against a champion of before is not promoted any more.
        ([*RELEASED[:2], (3, "awaiting-approval"), *RELEASED[3:]], 1, {10: "champion", 9: "champion before"}),
        ([*RELEASED, (10, "held"), (10, "unheld")], 1, {10: "champion", 9: "champion before"}),
        ([*RELEASED[:9], (10, "what a later version may say")], 1, {10: "what", 9: "champion", 8: "champion before"}),
    ],
)
def test_what_may_be_served_again_is_needed_and_nothing_else(said, keep, needed):
    found = releases_to_keep(TEN, events(*said), keep)
    assert list(found) == list(needed)
    assert all(found[number].startswith(why) for number, why in needed.items())


def test_all_are_needed_while_there_are_no_more_than_are_kept():
    assert list(releases_to_keep(TEN[:3], events(*RELEASED[:3]), 5)) == [3, 2, 1]
    assert releases_to_keep([], [], 5) == {}


@pytest.fixture(scope="module")
def three(tmp_path_factory, prefect_server):
    """A project with three releases, each of rows of its own, and runs that nobody else looks at: `gc` removes them."""
    project = copy_of_the_project(tmp_path_factory.mktemp("three"), prefect_server)
    for rows in (150, 160, 170):
        project.data(points(rows=rows))
        assert project.json("run", "points")[1]["outcome"] == "released"
    return project


@pytest.fixture
def mine(three, tmp_path):
    shutil.copytree(three.folder, tmp_path / "project")
    return type(three)(tmp_path / "project", dict(three.env))


def left(project):
    """How many there are of each kind."""
    patterns = {
        "snapshots": "snapshots/*.parquet",
        "trained": "trained/points/*",
        "artifacts": "artifacts/points/*",
        "bentos": "bentoml/bentos/points/*/bento.yaml",
        "runs": "runs/points/*",
    }
    return {kind: len(project.files(pattern)) for kind, pattern in patterns.items()}


def runs_in_prefect(project, names):
    import httpx

    found = [httpx.get(f"{project.env['PREFECT_API_URL']}/flow_runs/{name}", trust_env=False) for name in names]
    return [response.status_code for response in found]


def test_gc_says_what_it_would_remove_then_removes_that_and_what_is_kept_still_serves(mine, tmp_path):
    before = left(mine)
    assert before == dict.fromkeys(before, 3)
    whole = mine.files("**/*")
    names = sorted(path.name for path in mine.home.glob("runs/points/*"))

    code, would = mine.json("gc", "--keep", "1", "--dry-run")
    assert (code, would["dry_run"]) == (0, True)
    assert [name for name in mine.files("**/*") if "locks" not in name] == [one for one in whole if "locks" not in one]
    code, did = mine.json("gc", "--keep", "1")

    assert code == 0
    assert did == would | {"dry_run": False}
    assert did["kept"] == {"points": {"3": "champion", "2": "champion before"}}
    assert {kind: removed["count"] for kind, removed in did["removed"].items()} == dict.fromkeys(before, 1) | {
        "serving": 0
    }
    assert did["mb"] == pytest.approx(sum(removed["mb"] for removed in did["removed"].values()), abs=0.01)
    assert did["archived"] == {"points": [1]}
    assert mine.json("release", "points", "1")[1]["state"] == "archived"
    assert (
        "release 1 of points is archived: `evergreen gc` removed its package"
        in mine.evergreen("rollback", "points", "--to", "1")[2]
    )
    assert did["removed"]["bentos"]["mb"] > 0.1
    assert left(mine) == dict.fromkeys(before, 2)
    assert not [name for name in mine.files("**/*") if ".part-" in name]
    kept = {path.name for path in mine.home.glob("runs/points/*")}
    assert runs_in_prefect(mine, [name for name in names if name not in kept]) == [404]
    assert runs_in_prefect(mine, sorted(kept)) == [200] * 2

    assert mine.json("gc", "--keep", "1")[1]["mb"] == 0
    assert mine.json("reproduce", "points", "3")[1]["equal"]
    with served(mine, "points", tmp_path / "log") as server:
        assert server.ask({"x": 1.0, "z": 0.0}).json()["release"] == 3
        assert mine.json("rollback", "points")[1]["release"] == 2
    with served(mine, "points", tmp_path / "log") as server:
        assert server.ask({"x": 1.0, "z": 0.0}).json()["release"] == 2


def test_a_dry_run_leaves_what_a_kill_left_and_says_what_gc_does_after_it_was_swept_away(mine):
    code, would = mine.json("gc", "--keep", "1", "--dry-run")
    # What was half written names its snapshot, too, and no process has this number.
    (artifact,) = [one.parent for one in mine.home.glob("artifacts/points/*/manifest.json") if rows_of(one) == 150]
    shutil.copytree(artifact, artifact.with_name(f".part-{2**30}-artifact"))
    (mine.home / "snapshots" / f".part-{2**30}-rows.parquet").write_bytes(b"half")
    left = [f"artifacts/points/.part-{2**30}-artifact", f"snapshots/.part-{2**30}-rows.parquet"]

    assert mine.json("gc", "--keep", "1", "--dry-run") == (code, would)
    assert mine.files("**/.part-*") == left
    assert mine.json("gc", "--keep", "1")[1] == would | {"dry_run": False}
    assert mine.files("**/.part-*") == []


def rows_of(manifest):
    return sum(json.loads(manifest.read_text())["rows"].values())


def test_reproduce_says_that_a_release_is_equal_that_it_is_none_or_that_its_snapshot_is_gone(mine):
    code, said = mine.json("reproduce", "points", "2")
    assert (code, said["model"], said["release"], said["equal"]) == (0, "points", 2, True)
    assert 0 <= said["largest"] < 1e-12
    code, out, _ = mine.evergreen("reproduce", "points", "2")
    equal = f"release 2 of points, trained again: equal on all {said['rows']} golden rows, by at most "
    assert (code, out.startswith(equal)) == (0, True), out

    code, said = mine.json("reproduce", "points", "9")
    assert (code, said["error"]["message"]) == (1, "points has no release 9; there are: 1, 2, 3")

    with sqlite3.connect(mine.home / "ledger.sqlite") as ledger:
        (digests,) = ledger.execute("select digests from releases where number = 2").fetchone()
    (mine.home / "snapshots" / f"{json.loads(digests)['snapshot']}.parquet").unlink()
    code, said = mine.json("reproduce", "points", "2")
    assert code == 1
    assert (
        f"snapshot {json.loads(digests)['snapshot']}.parquet of release 2 of points is missing"
        in said["error"]["message"]
    )


def test_while_a_run_goes_on_nothing_of_its_model_and_no_snapshot_is_removed(mine):
    before = left(mine)
    with FileLock(mine.home / "locks" / "points.lock"):
        code, said = mine.json("gc", "--keep", "1")
    assert (code, said["mb"]) == (0, 0)
    assert "a run or a rollback of points is in progress: nothing of it is removed" in said["notes"]
    assert left(mine) == before


def test_a_rollback_waits_for_gc_and_gc_leaves_a_model_alone_that_is_being_rolled_back(mine):
    before, home = left(mine), mine.home / "bentoml"
    with package_lock("points", home):
        assert mine.json("gc", "--keep", "1")[1]["mb"] == 0
        going = mine.start("rollback", "points", "--to", "1", "--json")
        time.sleep(3)
        assert (going.poll(), mine.champion()) == (None, 3)
    assert mine.finish(going)[0] == 0
    assert (mine.champion(), left(mine)) == (1, before)
    with package_lock("points", home), package_lock("points", home, seconds=0):
        """The process that holds the lock may take it again."""
    busy = pytest.raises(PackageError, match=r"another process has been changing the packages of points .*; try again")
    # A lock of its own, as another process has it.
    with FileLock(home / "locks" / "points.lock"), busy as caught, package_lock("points", home, seconds=0):
        pass
    assert caught.value.code == "package.locked"


def test_gc_makes_space_on_a_disk_that_is_full(mine):
    used = sum(path.stat().st_size for path in mine.home.rglob("*") if path.is_file())
    with small_disk(mine.home, 2 * used // 1024):
        with suppress(OSError), (mine.home / "filling").open("wb", buffering=0) as filling:
            while filling.write(bytes(1024)):
                pass
        said = mine.json("gc", "--keep", "1")[1]
        assert said["archived"] == {"points": [1]}
        assert mine.json("release", "points", "1")[1]["state"] == "archived"
        assert left(mine) == dict.fromkeys(left(mine), 2)


def test_where_no_prefect_server_is_up_gc_starts_one_and_runs_are_forgotten(mine):
    del mine.env["PREFECT_API_URL"]
    said = mine.json("gc", "--keep", "1")[1]
    assert (said["removed"]["runs"]["count"], said["notes"]) == (1, [])
    assert left(mine)["runs"] == 2


def test_a_package_that_is_still_served_stays_although_no_release_needs_it(mine, tmp_path):
    ledger = open_ledger(f"sqlite:///{mine.home}/ledger.sqlite")
    assert mine.json("rollback", "points", "--to", "1")[1]["release"] == 1
    (first,) = [one["bento"] for one in mine.json("history", "points")[1]["releases"] if one["number"] == 1]
    with served(mine, "points", tmp_path / "log") as server:
        assert until(lambda: mine.json("status", "points")[1]["models"][0]["servers"])
        # Not while it writes to the ledger: what is stopped then holds up everybody.
        time.sleep(1)
        # As when the champions since could not be started.
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            for to in (3, 2, 3):
                releases.rollback(ledger, "points", to, "person")
            said = mine.json("gc", "--keep", "1")[1]
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        kept = {"3": "champion", "2": "champion before", "1": f"served by 127.0.0.1:{server.port} on {gethostname()}"}
        assert said["kept"] == {"points": kept}
        assert said["removed"]["serving"]["count"] == 0
        assert left(mine)["bentos"] == 3
        assert (mine.home / "bentoml/bentos" / first.replace(":", "/") / "bento.yaml").exists()
    said = mine.json("gc", "--keep", "1")[1]
    assert (said["removed"]["serving"]["count"], left(mine)["bentos"]) == (1, 2)


def test_a_ledger_that_knows_nothing_of_a_home_takes_no_package_from_it(mine, tmp_path):
    before = left(mine)
    mine.env["EVERGREEN_DATABASE_URL"] = f"sqlite:///{tmp_path}/other.sqlite"
    said = mine.json("gc", "--keep", "9")[1]
    assert said["mb"] == 0
    assert "the ledger has no release of points: only reports of its runs are removed" in said["notes"]
    assert left(mine) == before


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
name, nth = sys.argv.pop(), int(sys.argv.pop())
owner = {"rename": Path, "rmtree": shutil}[name]
real, calls = getattr(owner, name), []
def dying(path, *args, **kwargs):
    calls.append(path)
    if len(calls) == nth:
        if name == "rmtree":
            # Half of it is gone.
            files = [one for one in Path(path).rglob("*") if one.is_file()]
            for file in files[: len(files) // 2]:
                os.unlink(file)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, *args, **kwargs)
import flows.gc
setattr(owner, name, dying)
from flows.cli.main import main
main()
"""


@pytest.mark.parametrize(("name", "nth"), [("rename", 1), ("rename", 3), ("rename", 6), ("rmtree", 2), ("rmtree", 6)])
def test_a_kill_in_the_middle_leaves_nothing_half_removed_and_the_next_gc_finishes(mine, name, nth):
    killed = mine.start("gc", "--keep", "1", "--json", str(nth), name, code=KILLED)
    assert mine.finish(killed)[0] == -signal.SIGKILL

    for manifest in ("artifacts/points/*", "bentoml/bentos/points/*/src/artifact"):
        assert all((folder / "manifest.json").exists() for folder in mine.home.glob(manifest))
    assert mine.champion() == 3
    assert mine.json("gc", "--keep", "1")[0] == 0
    assert left(mine) == dict.fromkeys(left(mine), 2)
    assert not [one for one in mine.files("**/*") if ".part-" in one]
    assert mine.json("reproduce", "points", "2")[1]["equal"]


def test_a_released_run_keeps_as_many_releases_as_the_spec_says(mine):
    path = mine.folder / "pipeline/models/points.py"
    assert mine.json("run", "points")[1]["outcome"] == "unchanged"
    path.write_text(path.read_text().replace('    key=("id",),', '    key=("id",),\n    keep_releases=2,'))
    mine.data(points(rows=180))

    assert mine.json("run", "points")[1]["release"] == 4

    # Of the newest two runs one was unchanged; that of the release before stays with it.
    assert left(mine) == dict.fromkeys(left(mine), 2) | {"runs": 3}
    for _ in range(2):
        assert mine.json("run", "points")[1]["outcome"] == "unchanged"
    assert left(mine)["runs"] == 4
