"""A person's rows, taken out of the files that hold them."""

import json
import re
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from filelock import FileLock
from packed import artifacts_of
from project import copy_of_the_project, points
from sklearn.linear_model import Ridge

from bentos.ledger import releases, runs
from bentos.ledger.database import open_ledger
from flows.erase import erase, key_of
from pipeline import request_log
from pipeline.erase import check_whole, erase_from_snapshot
from pipeline.errors import ArtifactError, ReleaseError, SpecError
from pipeline.request_log import Counts
from pipeline.settings import Settings
from pipeline.snapshot import ingest, load_snapshot, set_aside
from pipeline.sources import Csv
from pipeline.spec import Gate, ModelSpec, Regression

SALES = pd.DataFrame(
    {
        "shop": ["a", "a", "b", "b"],
        "customer": [17, 170, 17, 18],
        "day": ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"],
        "price": [1.0, 2.0, 3.0, 4.0],
    }
)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def spec(key=("shop", "customer")):
    return ModelSpec(
        name="sales",
        source=Csv("sales.csv"),
        key=key,
        target="price",
        task=Regression(),
        candidates={"ridge": Ridge()},
        metric="rmse",
        gate=Gate(at_most=1.0),
    )


@pytest.fixture
def snapshot(tmp_path):
    SALES.to_csv(tmp_path / "sales.csv", index=False)
    (tmp_path / "home" / "snapshots").mkdir(parents=True)
    return ingest(Csv(str(tmp_path / "sales.csv")), tmp_path / "home" / "snapshots")


def left(path):
    return pyarrow.parquet.read_table(path).column("price").to_pylist()


def test_rows_with_a_key_leave_the_snapshot_and_what_is_left_keeps_its_order_types_and_name(snapshot):
    before = pyarrow.parquet.read_table(snapshot.path)

    removed = erase_from_snapshot(snapshot.path, {"customer": "17"}, "asked in a letter")

    assert removed.column("price").to_pylist() == [1.0, 3.0]
    after = load_snapshot(snapshot.path)
    assert (after.digest, after.rows) == (snapshot.digest, 2)
    assert pyarrow.parquet.read_table(after.path).schema == before.schema
    assert left(snapshot.path) == [2.0, 4.0]


@pytest.mark.parametrize(
    ("key", "stay"),
    [
        ({"shop": "a", "customer": "17"}, [2.0, 3.0, 4.0]),
        ({"day": "2026-01-02"}, [1.0, 3.0, 4.0]),
        ({"price": "4"}, [1.0, 2.0, 3.0]),
        ({"customer": "nobody"}, [1.0, 2.0, 3.0, 4.0]),
        ({"shop": "A"}, [1.0, 2.0, 3.0, 4.0]),
        ({"colour": "red"}, [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_all_the_values_given_must_hold_each_in_the_type_of_its_column(snapshot, key, stay):
    erase_from_snapshot(snapshot.path, key, "")
    assert left(snapshot.path) == stay


def test_the_record_says_how_many_when_and_why_but_not_whose(snapshot):
    erase_from_snapshot(snapshot.path, {"customer": "170"}, "asked in a letter")
    erase_from_snapshot(snapshot.path, {"shop": "b"}, "")

    record = json.loads(snapshot.path.with_suffix(".forgotten").read_text())

    assert [(one["rows"], one["why"]) for one in record.values()] == [(1, "asked in a letter"), (2, "")]
    assert "170" not in json.dumps([*record.values()])
    with pytest.raises(ArtifactError, match=r"3 rows of snapshot [0-9a-f]{12} were erased, the last on 20\d\d-"):
        check_whole(snapshot.path)


def test_a_snapshot_that_nothing_was_taken_out_of_is_whole_and_untouched(snapshot):
    before = snapshot.path.read_bytes()
    erase_from_snapshot(snapshot.path, {"customer": "19"}, "")
    check_whole(snapshot.path)
    assert snapshot.path.read_bytes() == before


def test_a_kill_after_the_record_was_written_is_made_good_by_the_same_again(snapshot, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.erase.erase_from_file", killed)
        with pytest.raises(KeyboardInterrupt):
            erase_from_snapshot(snapshot.path, {"customer": "17"}, "")
    assert pyarrow.parquet.read_metadata(snapshot.path).num_rows == 4

    erase_from_snapshot(snapshot.path, {"customer": "17"}, "")

    assert (load_snapshot(snapshot.path).rows, left(snapshot.path)) == (2, [2.0, 4.0])
    with pytest.raises(ArtifactError, match="2 rows of snapshot"):
        check_whole(snapshot.path)


def test_an_ingest_of_the_rows_after_such_a_kill_makes_a_whole_snapshot_of_it(snapshot, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.erase.erase_from_file", killed)
    with pytest.raises(KeyboardInterrupt):
        erase_from_snapshot(snapshot.path, {"customer": "17"}, "")

    again = ingest(Csv(str(tmp_path / "sales.csv")), snapshot.path.parent)

    assert (again.digest, again.rows) == (snapshot.digest, 4)
    check_whole(again.path)


def test_what_the_source_still_holds_comes_back_whole_with_the_next_ingest(snapshot, tmp_path):
    erase_from_snapshot(snapshot.path, {"customer": "17"}, "")

    again = ingest(Csv(str(tmp_path / "sales.csv")), snapshot.path.parent)

    assert (again.digest, again.rows, left(again.path)) == (snapshot.digest, 4, [1.0, 2.0, 3.0, 4.0])
    check_whole(again.path)


def release(model, snapshot, bento="sales:none"):
    return releases.Release(model, 0, bento, {"snapshot": snapshot}, {}, {}, {}, "person", "", "")


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "home").mkdir(exist_ok=True)
    ledger = open_ledger(f"sqlite:///{tmp_path}/home/ledger.sqlite")
    yield ledger
    ledger.dispose()


def test_the_models_snapshots_what_was_set_aside_and_its_log_of_requests_lose_the_rows_and_the_ledger_says_so(
    snapshot, ledger, tmp_path
):
    settings = Settings(home=tmp_path / "home", database_url="")
    good, aside = set_aside(snapshot, {"too dear": SALES["price"].gt(2).to_numpy()})
    SALES.assign(price=9.0).to_csv(tmp_path / "others.csv", index=False)
    others = ingest(Csv(str(tmp_path / "others.csv")), snapshot.path.parent)
    releases.add_release(ledger, release("sales", good.digest))
    runs.add_run(ledger, runs.Run("sales", "kept", "person", [], {"ingested": snapshot.digest}, None, "", {}))
    releases.add_release(ledger, release("others", others.digest))
    logs = settings.folder("requests", "sales")
    asked = pa.table(
        {"time": pa.array([datetime(2026, 3, 1)] * 3, pa.timestamp("us")), "key.customer": ["17", "1", None]}
    )
    counts = Counts(release=1, began=0.0, ended=1e9, requests=3, logged=3)
    request_log.write(logs, asked, counts)

    dry = erase(settings, ledger, spec(), {"customer": "17"}, "asked in a letter", dry_run=True)
    assert left(snapshot.path) == [1.0, 2.0, 3.0, 4.0]
    found = erase(settings, ledger, spec(), {"customer": "17"}, "asked in a letter")

    assert dry == found
    assert found.removed == {"snapshots": (3, 2), "set aside": (1, 1), "requests": (1, 1)}
    assert (left(snapshot.path), left(good.path), left(others.path)) == ([2.0, 4.0], [2.0], [9.0] * 4)
    assert pyarrow.parquet.read_table(aside).column("price").to_pylist() == [4.0]
    log = request_log.read(logs, LONG_AGO)
    assert log.tables[1].column("key.customer").to_pylist() == ["1", None]
    assert log.counts == (counts,)
    made, events = releases.history(ledger, "sales")
    said = events[-1].reason
    assert (events[-1].kind, events[-1].release) == ("rows forgotten", made[0].number)
    assert re.fullmatch(
        "key [0-9a-f]{12}; snapshots: 3 rows of 2 files, set aside: 1 row of 1 file, requests: 1 row of 1 file; "
        "asked in a letter",
        said,
    )
    assert releases.states(events) == {made[0].number: "champion"}
    assert erase(settings, ledger, spec(), {"customer": "17"}, "").removed["snapshots"] == (0, 0)
    assert len(releases.history(ledger, "sales")[1]) == len(events)


def test_a_release_that_carries_such_a_row_as_a_golden_one_is_named(tmp_path, ledger):
    project = copy_of_the_project(tmp_path / "project", "")
    (artifact,) = artifacts_of(project, "points")
    package = tmp_path / "home" / "bentoml" / "bentos" / "points" / "v1" / "src"
    package.mkdir(parents=True)
    (package / "artifact").symlink_to(artifact.folder)
    snapshots = tmp_path / "home" / "snapshots"
    snapshots.mkdir()
    frozen = ingest(Csv(str(project.folder / "points.csv")), snapshots)
    releases.add_release(ledger, release("points", frozen.digest, "points:v1"))
    # The first one is there again, made hostile.
    golden = artifact.golden()[0][1]
    rows = points()
    number = int(rows.index[rows["x"].eq(golden["x"])][0])
    one = ModelSpec(**{**vars(spec()), "name": "points", "key": ("id",)})

    found = erase(Settings(home=tmp_path / "home", database_url=""), ledger, one, {"id": str(number)}, "")

    assert found.view("points").golden == {"points": {"1": 1}}


def test_a_model_that_was_trained_on_the_same_snapshot_waits_as_well_and_is_told(snapshot, ledger, tmp_path):
    settings = Settings(home=tmp_path / "home", database_url="")
    releases.add_release(ledger, release("sales", snapshot.digest))
    releases.add_release(ledger, release("returns", snapshot.digest))
    (tmp_path / "home" / "locks").mkdir()
    with (
        FileLock(tmp_path / "home" / "locks" / "returns.lock"),
        pytest.raises(ReleaseError, match="returns has a run in progress"),
    ):
        erase(settings, ledger, spec(), {"customer": "17"}, "")
    assert len(left(snapshot.path)) == 4

    erase(settings, ledger, spec(), {"customer": "17"}, "")

    assert [releases.history(ledger, model)[1][-1].kind for model in ("sales", "returns")] == ["rows forgotten"] * 2


def test_a_kill_while_files_are_written_leaves_what_the_ledger_says_and_the_same_again_ends_it(
    snapshot, ledger, tmp_path, monkeypatch
):
    settings = Settings(home=tmp_path / "home", database_url="")
    releases.add_release(ledger, release("sales", snapshot.digest))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flows.erase.erase_from_snapshot", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(settings, ledger, spec(), {"customer": "17"}, "")
    assert releases.history(ledger, "sales")[1][-1].kind == "rows forgotten"

    assert erase(settings, ledger, spec(), {"customer": "17"}, "").removed["snapshots"] == (2, 1)
    assert left(snapshot.path) == [2.0, 4.0]


def test_a_value_that_no_snapshot_could_hold_is_said(snapshot, ledger, tmp_path):
    releases.add_release(ledger, release("sales", snapshot.digest))
    with pytest.raises(SpecError, match="no snapshot of sales has a column 'customer' that could hold 'seventeen'"):
        erase(Settings(home=tmp_path / "home", database_url=""), ledger, spec(), {"customer": "seventeen"}, "")


def test_while_a_run_goes_on_nothing_is_touched(ledger, tmp_path):
    (tmp_path / "home" / "locks").mkdir()
    with (
        FileLock(tmp_path / "home" / "locks" / "sales.lock"),
        pytest.raises(ReleaseError, match="sales has a run in progress; try again when it has ended"),
    ):
        erase(Settings(home=tmp_path / "home", database_url=""), ledger, spec(), {"customer": "17"}, "")


def test_values_are_named_by_key_columns():
    assert key_of(spec(), ["customer=17", "shop=a=b"]) == {"customer": "17", "shop": "a=b"}
    for given, said in [
        (["17"], r"--key '17' has no value; write it as shop=VALUE"),
        (
            ["custmer=1"],
            "'custmer' is not a key column of sales; its key columns are: shop, customer; did you mean 'customer'",
        ),
    ]:
        with pytest.raises(SpecError, match=said):
            key_of(spec(), given)
    with pytest.raises(SpecError, match=r"sales has no key column, .*; set `key` in the spec"):
        key_of(spec(key=()), ["customer=17"])
