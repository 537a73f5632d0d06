"""The log of requests, of real workers: what is in it, what is not, and that nobody waits for it."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from house_endpoints import HOUSE, THREE_CSV, bentoml_serving, in_process, serving, trained
from house_endpoints import prepared as pipeline_of
from serving import until
from sklearn.linear_model import LogisticRegression, Ridge

from bentos.endpoint import request_log as record
from pipeline import request_log as recorded
from pipeline.request_log import Counts
from pipeline.spec import BinaryClassification, Gate, Regression, RequestLog

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAD = " " * 16_000


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A regression whose requests are all logged, but for the number of rooms."""
    return trained(
        tmp_path_factory.mktemp("houses"),
        name="houses",
        target="price",
        task=Regression(),
        candidates={"ridge": pipeline_of(Ridge())},
        metric="rmse",
        gate=Gate(at_most=1e6),
        sensitive=("rooms",),
        log=RequestLog(sample_rate=1.0, max_bytes=10**7),
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A classifier, one in ten of whose requests is logged."""
    return trained(
        tmp_path_factory.mktemp("dear"),
        name="dear_houses",
        target="dear",
        task=BinaryClassification(positive="dear"),
        candidates={"logistic": pipeline_of(LogisticRegression())},
        metric="roc_auc",
        gate=Gate(at_least=0.5),
        log=RequestLog(),
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "requests"


def read(folder):
    return recorded.read(folder, LONG_AGO)


def serve(model, home, folder, start=serving, **environment):
    home.mkdir()
    return start(model, home, EVERGREEN_REQUESTS=str(folder), EVERGREEN_RELEASE="7", **environment)


def ended(servers):
    """Let a server's generator end it."""
    assert next(servers, None) is None


def test_what_was_asked_and_answered_is_in_the_log_with_its_key_but_nothing_that_is_sensitive(logged, folder, tmp_path):
    with in_process(logged, tmp_path / "log", release=7, request_log=folder) as server:
        answered = server.ask({**HOUSE, "id": 5, "agent": "x"}, {**HOUSE, "area": 60, "id": 6.0}, HOUSE)
        server.client.post("/predict", content=THREE_CSV, headers={"Content-Type": "text/csv", "X-Request-ID": "mine"})
        assert server.ask({**HOUSE, "area": "large"}).status_code == 400

    (table,), (counts,) = list(read(folder).tables.values()), read(folder).counts
    assert [*read(folder).tables] == [7]
    names = {"area", "town", "zone", "new", "sold"}
    assert {*table.column_names} == {"time", "request", "row", "release", "prediction", "key.id"} | {
        f"feature.{name}" for name in names
    }
    rows = table.to_pylist()
    assert [row["key.id"] for row in rows] == ["5", "6", None, "007", "1,5", "NA"]
    assert [row["row"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert [row["request"] for row in rows[3:]] == ["mine"] * 3
    assert [row["prediction"] for row in rows[:3]] == answered.json()["predictions"]
    assert (rows[0]["feature.area"], rows[0]["feature.new"]) == (120.0, True)
    assert rows[0]["feature.sold"] == datetime(2024, 5, 31, 12)
    assert abs(rows[0]["time"].replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=2)
    said = (counts.release, counts.requests, counts.refused, counts.errors, counts.rows, counts.logged, counts.dropped)
    assert said == (7, 3, 1, 0, 6, 6, 0)
    assert sum(counts.seconds) == 3


@pytest.mark.slow
@pytest.mark.parametrize("start", [serving, bentoml_serving], ids=["worker", "bentoml serve"])
def test_a_real_server_writes_what_was_asked_when_it_ends(logged, folder, tmp_path, start):
    servers = serve(logged, tmp_path / "home", folder, start)
    server = next(servers)
    answered = server.ask({**HOUSE, "id": 5}).json()["predictions"]
    ended(servers)

    (row,) = read(folder).tables[7].to_pylist()
    assert (row["key.id"], [row["prediction"]]) == ("5", answered)
    assert [one.requests for one in read(folder).counts] == [1]


def test_a_share_of_the_requests_is_logged_with_the_labels_probabilities_and_all_are_counted(
    labelled, folder, tmp_path
):
    with in_process(labelled, tmp_path / "log", release=7, request_log=folder) as server:
        with ThreadPoolExecutor(32) as pool:
            assert {answer.status_code for answer in pool.map(server.ask, [HOUSE] * 400)} == {200}
        answer = server.ask(HOUSE).json()

    table = read(folder).tables[7]
    (counts,) = read(folder).counts
    # 401 draws with p = 0.1: a count outside of these comes once in 10⁹.
    assert 8 < table.num_rows < 90
    assert (counts.requests, counts.rows, counts.logged) == (401, 401, table.num_rows)
    row = table.to_pylist()[0]
    assert row["prediction"] == answer["predictions"][0]
    assert row["probability.dear"] == pytest.approx(answer["probabilities"][0]["dear"])
    assert row["key.id"] is None


def test_nothing_is_logged_where_no_folder_is_named_nor_on_trial(logged, tmp_path):
    for settings in ({}, {"request_log": tmp_path, "trial_token": "see"}):
        with in_process(logged, tmp_path / "log", **settings) as server:
            assert server.ask(HOUSE).status_code == 200
    assert not [*tmp_path.rglob("*.parquet")]


@pytest.mark.slow
def test_after_a_kill_the_files_that_were_written_are_whole_and_the_next_worker_sweeps(logged, folder, tmp_path):
    servers = serve(logged, tmp_path / "home", folder)
    server = next(servers)
    # As much as makes the worker write at once, and a little more that waits when it is killed.
    for _ in range(record.WRITE_BYTES // len(PAD) + 1):
        server.send(json.dumps({"records": [HOUSE]}) + PAD)
    assert until(lambda: read(folder).counts)
    server.ask(HOUSE)
    (folder / ".part-999999-left.parquet").write_bytes(b"half")
    pid = re.match(r"\d{8}T[\d.]+Z-(\d+)-", next(folder.glob("2*.parquet")).name)[1]
    os.kill(int(pid), signal.SIGKILL)
    ended(servers)

    found = read(folder)
    assert found.unreadable == ()
    # Each was written when so many bytes were there; the last of all waited, and is lost.
    assert 0 < found.tables[7].num_rows <= record.WRITE_BYTES // len(PAD) + 1
    servers = serve(logged, tmp_path / "again", folder)
    next(servers).ask(HOUSE)
    ended(servers)
    assert not [*folder.glob(".part-*")]
    assert len(read(folder).counts) == len(found.counts) + 1


@pytest.fixture
def small(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_on_a_full_disk_requests_are_answered_and_what_is_not_logged_is_counted(logged, small, tmp_path):
    (small / "ballast").write_bytes(bytes(60_000))
    servers = serve(logged, tmp_path / "home", small / "requests")
    server = next(servers)

    def dropped():
        found = re.search(
            r'evergreen_log_dropped_requests_total\{.*reason="disk"\} (\S+)', server.client.get("/metrics").text
        )
        return float(found[1]) if found else 0.0

    sent = record.WRITE_BYTES // len(PAD) + 1
    for _ in range(sent):
        assert server.send(json.dumps({"records": [HOUSE]}) + PAD).status_code == 200
    assert until(dropped)
    assert "the request log cannot be written: StorageError" in server.log()
    assert not [*(small / "requests").iterdir()]

    (small / "ballast").unlink()
    server.ask({**HOUSE, "id": "after"})
    ended(servers)
    found = read(small / "requests")
    assert found.tables[7].column("key.id").to_pylist()[-1] == "after"
    # The counts of what could not be written are those of the file that could.
    assert sum(one.requests for one in found.counts) == sent + 1
    assert sum(one.dropped + one.logged for one in found.counts) == sent + 1


class _Stuck:
    """A disk that takes nothing until it is let go."""

    def __init__(self):
        self.go = threading.Event()

    def write(self, *_):
        self.go.wait(30)


def test_with_a_disk_that_hangs_the_queue_stays_bounded_and_no_request_waits(logged, folder, monkeypatch):
    from bentos.endpoint import formats
    from bentos.endpoint.metrics import Metrics
    from bentos.endpoint.model import ServedModel
    from pipeline.artifact import load_artifact

    disk = _Stuck()
    monkeypatch.setattr(recorded, "write", disk.write)
    monkeypatch.setattr(record, "WRITE_BYTES", 1)
    monkeypatch.setattr(record, "MAX_BYTES", 10_000)
    served = ServedModel(load_artifact(logged.folder / "artifact"), 7)
    metrics = Metrics("houses", 7, ())
    recorder = record.Recorder(served, metrics, folder, served.artifact.manifest["log"])
    body = json.dumps({"records": [HOUSE]}).encode()
    answers = served.answer(formats.JSON, body).answers
    for _ in range(1000):
        recorder.note(formats.JSON, body, answers, b"id")

    assert len(recorder._waiting) <= 10_000 // len(body) + 1
    assert metrics._counts[metrics.all.dropped, ("queue",)] >= 1000 - 10_000 // len(body) - 1
    disk.go.set()
    recorder.close()


def test_only_the_newest_days_and_bytes_stay(tmp_path):
    table = pa.table({"time": pa.array([], pa.timestamp("us"))})
    now = time.time()
    ages = {days: recorded.write(tmp_path, table, Counts(1, 0.0, now - days * 86_400)) for days in (40, 3, 2, 1)}
    size = ages[1].stat().st_size
    (tmp_path / "notes.parquet").write_bytes(b"a person's")

    recorded.prune(tmp_path, 10**9, 30)
    assert {days for days, path in ages.items() if path.exists()} == {3, 2, 1}
    recorded.prune(tmp_path, int(2.5 * size), 30)
    assert {days for days, path in ages.items() if path.exists()} == {2, 1}
    assert Path(tmp_path, "notes.parquet").exists()


def test_a_damaged_file_is_named_and_spoils_no_other(tmp_path):
    table = pa.table({"time": pa.array([datetime(2026, 3, 1)], pa.timestamp("us"))})
    written = [recorded.write(tmp_path, table, Counts(1, 0.0, NOW.timestamp() + second)) for second in range(2)]
    written[0].write_bytes(written[0].read_bytes()[:100])

    found = recorded.read(tmp_path, LONG_AGO)
    assert found.unreadable == (written[0].name,)
    assert found.tables[1].num_rows == 1
    assert recorded.read(tmp_path, NOW + timedelta(days=1)).counts == ()
