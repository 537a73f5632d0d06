import threading
import time
import traceback
from contextlib import nullcontext
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet
import pytest
from project import CHECKOUT

from pipeline.code import imported_packages, local_modules
from pipeline.errors import SourceError
from pipeline.snapshot import ingest
from pipeline.sources import Csv, JsonLines, Parquet, read, remote, retry
from pipeline.sources.retry import RetriesExhaustedError, nobody_waits

TABLE = b"id,a\n" + b"".join(b"%d,x\n" % number for number in range(20_000))
OTHER = TABLE.replace(b"x", b"y")
SECRET = "s3cret/p@ss word"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", (0.01, 0.02))
    monkeypatch.setattr(remote, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(remote, "CONNECT_TIMEOUT", 0.5)


class Server(ThreadingHTTPServer):
    """Answers each request as the next of `script` says, the last one again and again."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.script, self.asked = ["whole"], []
        self.content, self.tag = TABLE, '"one"'

    def url(self, path="x.csv", user=""):
        return f"http://{user}127.0.0.1:{self.server_address[1]}/{path}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        act = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        if isinstance(act, int):
            return self.send_error(act)
        if act == "hang":
            time.sleep(2)
            return None
        if self.headers.get("If-None-Match") == server.tag:
            self.send_response(304)
            return self.end_headers()
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        if act == "hang in the middle":
            self.wfile.write(server.content[: len(server.content) // 2])
            self.wfile.flush()
            time.sleep(2)
        elif act == "cut":
            self.wfile.write(server.content[: len(server.content) // 2])
        elif act == "cut and change":
            self.wfile.write(server.content[: len(server.content) // 2])
            server.content, server.tag = OTHER, '"two"'
        else:
            self.wfile.write(server.content)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("trouble", [500, 502, 503, 429, "hang", "hang in the middle", "cut"])
def test_what_fails_once_or_twice_is_asked_again(trouble, server):
    server.script = [trouble, trouble, "whole"]
    assert read(Csv(server.url())).num_rows == 20_000
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (503, "the server answered 503 Service Unavailable"),
        ("hang", "could not be read: "),
        ("cut", "could not be read: .*closed"),
    ],
)
def test_patience_has_an_end(trouble, sentence, server):
    server.script = [trouble]
    with pytest.raises(SourceError, match=sentence) as broken:
        read(Csv(server.url()))
    assert len(server.asked) == 3
    # It may heal: the run tries once more.
    assert broken.value.__cause__ is not None


def test_no_try_is_begun_after_the_overall_limit(server, monkeypatch):
    monkeypatch.setattr(retry, "RETRY_DEADLINE", 0.0)
    server.script = [503]
    with pytest.raises(SourceError):
        read(Csv(server.url()))
    assert len(server.asked) == 1


@pytest.mark.parametrize(("scheduled", "pauses"), [(False, [1.0, 2.0, 4.0, 8.0]), (True, [5.0, 30.0, 120.0, 600.0])])
def test_a_dead_source_is_asked_five_times_and_a_run_does_not_ask_it_again(server, monkeypatch, scheduled, pauses):
    monkeypatch.undo()
    slept = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    server.script = [503]
    with pytest.raises(SourceError) as broken, nobody_waits() if scheduled else nullcontext():
        read(Csv(server.url()))
    assert (len(server.asked), slept) == (5, pauses)
    assert isinstance(broken.value, RetriesExhaustedError)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_no_second_try_would_heal_is_asked_once(status, server):
    server.script = [status]
    with pytest.raises(
        SourceError, match=f"http://127.*/x.csv could not be read: the server answered {status}"
    ) as broken:
        read(Csv(server.url()))
    assert len(server.asked) == 1
    assert broken.value.__cause__ is None


def test_a_file_that_changes_while_it_is_read_is_read_as_it_is_then(server):
    server.script = ["cut and change", "whole"]
    assert read(Csv(server.url()))["a"].unique().to_pylist() == ["y"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "snapshots").mkdir()
    return tmp_path / "snapshots"


def test_an_unchanged_etag_saves_the_download_and_a_new_one_does_not(server, folder):
    source = Csv(server.url())
    first = ingest(source, folder)
    server.asked.clear()
    assert ingest(source, folder) == first
    assert [asked.get("if-none-match") for asked in server.asked] == ['"one"']
    server.content, server.tag = OTHER, '"two"'
    assert ingest(source, folder).digest != first.digest
    assert not [path for path in folder.iterdir() if path.name.startswith(".part-")]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_etag_everything_is_read_each_time(tag, server, folder):
    server.tag = tag
    first = ingest(Csv(server.url()), folder)
    server.content = OTHER
    assert ingest(Csv(server.url()), folder).digest != first.digest


def test_a_server_that_is_down_is_no_reason_to_believe_that_nothing_changed(server, folder):
    ingest(Csv(server.url()), folder)
    server.script = [503]
    with pytest.raises(SourceError):
        ingest(Csv(server.url()), folder)


def everything(error):
    """All that a traceback shows of an error, and the causes and contexts of it."""
    return "".join(traceback.format_exception(error)) + repr([error, error.__cause__, error.__context__])


@pytest.mark.parametrize("trouble", [401, 404, 503, "hang", "cut", "refused", "garbage", "whole"])
def test_what_the_environment_fills_in_is_sent_and_never_shown(trouble, server, folder, monkeypatch, caplog):
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    monkeypatch.setenv("SHOP_TOKEN", "t0ken")
    caplog.set_level("DEBUG")
    url = server.url("x.csv?sig=${SHOP_TOKEN}", "me:${SHOP_PASSWORD}@")
    if trouble == "refused":
        url = "http://me:${SHOP_PASSWORD}@127.0.0.1:1/x.csv?sig=${SHOP_TOKEN}"
    elif trouble == "garbage":
        server.content = b"a,b\n1\n"
    else:
        server.script = [trouble]
    shown = ""
    try:
        ingest(Csv(url), folder)
    except Exception as error:
        shown = everything(error)
        assert trouble != "whole"
    for path in folder.rglob("*.json"):
        shown += path.read_text()
    for secret in ("s3cret", "p%40ss", "p@ss", "t0ken", "czNjcmV0"):
        assert secret not in shown
        assert secret not in caplog.text
    if trouble != "refused":
        assert server.asked[0]["path"] == "/x.csv?sig=t0ken"
        assert server.asked[0]["authorization"].startswith("Basic ")


def test_a_name_that_the_environment_does_not_have_is_said(server, monkeypatch):
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    with pytest.raises(SourceError, match="SHOP_TOKEN is not set in the environment; set it"):
        read(Csv(server.url("x.csv?sig=${SHOP_TOKEN}")))


@pytest.fixture(scope="module")
def s3():
    """A local S3 server, spoken to over HTTP, with a bucket."""
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="shop")
        yield client
    server.stop()


def parquet(rows):
    buffer = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue().to_pybytes()


def test_object_storage_is_read_by_name_by_glob_and_by_partition(s3):
    for number, day in enumerate(["2024-01-01", "2024-01-02", "2024-01-03"]):
        s3.put_object(Bucket="shop", Key=f"sales/day={day}/x.parquet", Body=parquet([{"id": number}]))
    s3.put_object(Bucket="shop", Key="rows.jsonl", Body=b'{"id": 7}\n')
    assert read(JsonLines("s3://shop/rows.jsonl"))["id"].to_pylist() == [7]
    assert read(Parquet("s3://shop/sales/*/x.parquet"))["id"].to_pylist() == [0, 1, 2]
    table = read(Parquet("s3://shop/sales/day={day}/*.parquet", last=2))
    assert table.to_pydict() == {"id": [1, 2], "day": [datetime(2024, 1, 2), datetime(2024, 1, 3)]}


def test_an_object_that_did_not_change_is_not_fetched_again(s3, folder, monkeypatch):
    s3.put_object(Bucket="shop", Key="seen/x.csv", Body=TABLE)
    fetched, fetch = [], remote.fetch
    monkeypatch.setattr(remote, "fetch", lambda *given: fetched.append(given[0]) or fetch(*given))
    source = Csv("s3://shop/seen/*.csv")
    first = ingest(source, folder)
    assert ingest(source, folder) == first
    assert fetched == ["s3://shop/seen/x.csv"]
    s3.put_object(Bucket="shop", Key="seen/y.csv", Body=TABLE)
    assert ingest(source, folder).rows == 40_000


@pytest.mark.usefixtures("s3")
def test_what_object_storage_does_not_have_is_said():
    with pytest.raises(SourceError, match=r"s3://shop/none.csv could not be read: "):
        read(Csv("s3://shop/none.csv"))
    with pytest.raises(SourceError, match=r"nothing matches 's3://shop/none/\*.csv'"):
        read(Csv("s3://shop/none/*.csv"))


def test_object_storage_that_is_down_is_a_source_error_without_credentials(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    with pytest.raises(SourceError, match=r"s3://shop/x\.csv could not be read") as broken:
        read(Csv("s3://shop/x.csv"))
    assert "s3cret" not in everything(broken.value)


def test_a_protocol_that_nothing_reads_is_said():
    with pytest.raises(SourceError, match="nothing installed reads nothing://"):
        read(Csv("nothing://x/y.csv"))


def test_a_package_that_serves_asks_for_nothing_that_only_reading_needs():
    files = local_modules(["pipeline.artifact", "bentos.worker"], CHECKOUT)
    assert not {"duckdb", "s3fs", "fsspec", "boto3"} & imported_packages(files.values())
