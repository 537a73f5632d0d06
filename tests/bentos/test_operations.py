"""What who operates an endpoint relies on: counts, logs, ends, deaths, origins, tokens, HTTPS and batching."""

import fcntl
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import slowly
from house_endpoints import HOUSE, Model, Server, in_process, problem, serving, trained
from project import copy_of_the_project
from prometheus_client.parser import text_string_to_metric_families
from serving import processes_with, served, until
from slowly import Slowly
from test_hostile import BODY, Connection, get, post
from test_serve import ROWS, release

from bentos.package import Bento
from bentos.serving import processes
from pipeline.spec import Gate, Regression


@pytest.fixture
def model(house_model: Model) -> Model:
    return house_model


@pytest.fixture
def server(model: Model, tmp_path: Path) -> Iterator[Server]:
    """A worker that nobody asked anything yet."""
    yield from serving(model, tmp_path, EVERGREEN_RELEASE="7")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = trained(
        tmp_path_factory.mktemp("slow"),
        name="houses",
        target="price",
        task=Regression(),
        candidates={"slowly": Slowly()},
        metric="rmse",
        gate=Gate(at_most=1e9),
    )
    (made.folder / "slowly.py").write_bytes(Path(slowly.__file__).read_bytes())
    return made


@pytest.fixture
def slow(slow_model: Model, tmp_path: Path) -> Iterator[Server]:
    """A worker on a model that is not compiled and takes its time."""
    yield from serving(slow_model, tmp_path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory):
    """A project with a release."""
    made = copy_of_the_project(tmp_path_factory.mktemp("released"), "")
    (made.home / "bentoml").mkdir(parents=True)
    release(made, 1)
    return made


def counted(server: Server) -> dict[tuple[str, ...], float]:
    """What /metrics says of evergreen: by name and the values of its labels, but for the model's."""
    found = {}
    for family in text_string_to_metric_families(server.client.get("/metrics").text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in ("model", "pid")}
            if sample.name.startswith("evergreen_") and not sample.name.endswith("_created"):
                found[sample.name.removeprefix("evergreen_"), *labels.values()] = sample.value
    return found


def test_counts_are_of_just_what_was_sent(server):
    predicted = []
    for number in range(5):
        predicted += server.ask({**HOUSE, "area": 100 + number}, {**HOUSE, "rooms": None}).json()["predictions"]
    predicted += server.ask({**HOUSE, "town": "Rome", "rooms": None}).json()["predictions"]
    predicted += server.ask({**HOUSE, "town": "Oslo"}, {**HOUSE, "town": "Rome"}, HOUSE).json()["predictions"]
    problem(server.ask({**HOUSE, "town": 5, "rooms": None}), 400)
    problem(server.ask({**HOUSE, "zone": "never", "rooms": None}), 400)
    problem(server.send(b" " * 20_001), 413)
    problem(server.send(b"{}", "text/plain"), 415)
    problem(server.client.get("/predict"), 405)
    for path in ("/a", "/b", "/predict/", "/static_content/x"):
        problem(server.client.get(path), 404)
    server.client.get("/model")
    server.client.get("/livez")

    found = counted(server)
    # The request for the counts is itself in none of them yet.
    assert {key[1:]: value for key, value in found.items() if key[0] == "requests_total"} == {
        ("/predict", "200"): 7,
        ("/predict", "400"): 2,
        ("/predict", "413"): 1,
        ("/predict", "415"): 1,
        ("/predict", "405"): 1,
        ("/model", "200"): 1,
        ("/livez", "200"): 1,
        ("other", "404"): 4,
    }
    kinds = {key[1]: value for key, value in found.items() if key[0] == "errors_total"}
    too_large = next(kind for kind in kinds if kind.endswith("too-large"))
    assert kinds == {
        "bad-request": 2,
        too_large: 1,
        "unsupported-media-type": 1,
        "method-not-allowed": 1,
        "not-found": 4,
    }
    assert found[("rows_total",)] == len(predicted) == 14
    assert {key: value for key, value in found.items() if key[0] == "nulls_total"} == {("nulls_total", "rooms"): 6}
    unseen = {key: value for key, value in found.items() if key[0] == "unseen_categories_total"}
    assert unseen == {("unseen_categories_total", "town"): 3}
    assert found[("predict_seconds_count",)] == 12
    assert found[("prediction_count",)] == 14
    assert found[("prediction_sum",)] == pytest.approx(sum(predicted))
    bounds = [float(key[1]) for key in found if key[0] == "prediction_bucket"]
    assert len(bounds) > 3
    for bound in bounds:
        key = next(key for key in found if key[0] == "prediction_bucket" and float(key[1]) == bound)
        assert found[key] == sum(value <= bound for value in predicted)
    assert found[("batch_rows_sum",)] >= 14
    assert found[("release",)] == 7


def test_predicted_labels_are_counted(dear_house_model, tmp_path):
    with in_process(dear_house_model, tmp_path / "log") as server:
        said = server.ask(HOUSE, {**HOUSE, "area": 51}, {**HOUSE, "area": 199}).json()["predictions"]
        metrics = server.endpoint.metrics
        metrics.flush()
    for label in ("cheap", "dear"):
        assert metrics.all.labels.labels("dear_houses", label)._value.get() == said.count(label)
    assert metrics.all.predictions is None


def logged(server: Server) -> list[dict]:
    return [json.loads(line) for line in server.log().split("\n") if line]


def test_every_request_is_a_line_of_json_without_a_value_or_a_token(model, tmp_path):
    marked, token = "XYZZY7", "PLUGH8"
    with in_process(model, tmp_path / "log", tokens=("other", token)) as server:
        server.client.headers["Authorization"] = f"Bearer {token}"
        asked = [
            ({**HOUSE, "town": marked}, 200),
            ({**HOUSE, "zone": marked}, 400),
            ({**HOUSE, "sold": marked}, 400),
            ({**HOUSE, "area": 198_765.25}, None),
            ({**HOUSE, marked: 1}, 400),
            ({**HOUSE, "agent": marked}, 200),
        ]
        ids = []
        for number, (record, status) in enumerate(asked):
            ids.append(f"asked-{number}")
            response = server.client.post("/predict", json={"records": [record]}, headers={"X-Request-ID": ids[-1]})
            assert status in (None, response.status_code)
        server.send(f"{marked},area\n{marked},5".encode(), "text/csv")
        server.client.get(f"/model?token={marked}", headers={"X-Request-ID": "card"})
        refused = server.client.get("/model", headers={"Authorization": f"Bearer {marked}", "X-Request-ID": "refused"})
        problem(refused, 401)
        odd = server.client.get('/"\\\u2028')
        assert odd.headers["x-request-id"] in server.log()

        lines = {line["request"]: line for line in logged(server) if line["event"] == "request"}
        assert {*ids, "card", "refused"} <= set(lines)
        assert (lines["asked-0"]["status"], lines["asked-1"]["status"], lines["refused"]["status"]) == (200, 400, 401)
        assert (lines["asked-0"]["method"], lines["asked-0"]["path"], lines["asked-0"]["rows"]) == (
            "POST",
            "/predict",
            1,
        )
        assert lines["card"]["release"] == "none"
        assert lines[odd.headers["x-request-id"]]["path"] == '/"\\\u2028'
        assert server.log().count('"event": "request"') == 10
        for secret in (marked, token, "198765", "Ames"):
            assert secret not in server.log()


def test_a_log_that_nobody_reads_holds_up_nothing_and_says_later_what_is_lacking(model, tmp_path):
    reading, writing = os.pipe()
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 4096)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags)
    with processes.listen("127.0.0.1", 0) as listener, open(writing, "wb") as out, open(reading, "rb") as log:
        worker = processes.start(Bento("", model.folder.parent, ""), None, listener, tmp_path, {}, log=out)
        out.close()
        try:
            assert worker.becomes_ready(60)
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
                for _ in range(300):
                    assert client.post("/predict", json={"records": [HOUSE]}).status_code == 200
            read: list[bytes] = []
            reader = threading.Thread(target=lambda: read.append(log.read()))
            reader.start()
            worker.process.terminate()
            assert worker.process.wait(20) == 0
            reader.join(10)
        finally:
            worker.kill()
        lines = [json.loads(line) for line in read[0].splitlines() if line]
        assert sum(line["event"] == "request" for line in lines) == 300


def test_a_worker_that_is_told_to_end_answers_what_it_predicts_and_logs_it(slow_model, tmp_path):
    for server in serving(slow_model, tmp_path):
        with Connection(server) as busy, Connection(server) as idle:
            idle.send(get("/livez"))
            assert idle.answer().status == 200
            busy.send(post("X-Request-ID: last", body=BODY.replace(b"120", b"2000")))
            assert until(lambda server=server: "predict called" in server.log(), 5)
            (pid, _), *_ = processes_with(str(slow_model.folder.parent))
            os.kill(pid, signal.SIGTERM)
            answer = busy.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert json.loads(answer.body)["predictions"] == [2000.0]
            assert idle.ended()
        assert until(lambda: not processes_with(str(slow_model.folder.parent)), 10)
        assert '"request": "last"' in server.log()


def test_a_server_that_is_told_to_end_reads_a_body_that_still_arrives_and_answers_it(project, tmp_path):
    body = json.dumps({"records": ROWS}).encode()
    with served(project, "points", tmp_path / "log") as server, Connection(server) as connection:
        head = post("Expect: 100-continue", f"Content-Length: {len(body)}", body=b"", length=False)
        connection.send(head)
        assert connection.answer().status == 100
        connection.send(body[:10])
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        connection.send(body[10:])
        answer = connection.answer()
        assert answer.status == 200
        assert json.loads(answer.body)["release"] == 1
        assert connection.ended()
        assert server.process.wait(10) == 0
    assert f'"request": "{answer.headers["x-request-id"]}"' in server.log.read_text()


def asks(server) -> int:
    """The status of a request over a connection of its own."""
    return httpx.post(f"{server.client.base_url}/predict", json={"records": ROWS}, trust_env=False).status_code


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced_and_meanwhile_the_other_answers(project, tmp_path, sent):
    with served(project, "points", tmp_path / "log", "--workers", "2") as server:
        ready = re.compile(r'"worker is ready".*"worker": ([0-9]+)')
        if sent == signal.SIGSTOP:
            assert until(lambda: len(ready.findall(server.log.read_text())) == 2)
        before = server.workers()
        assert len(before) == 2
        # The first that is ready: where it is killed, the other is still starting.
        before.sort(key=lambda pid: str(pid) != ready.findall(server.log.read_text())[0])
        os.kill(before[0], sent)
        # What it took up before it stopped is lost with it.
        time.sleep(0.5)

        def replaced() -> bool:
            assert asks(server) == 200
            now = server.workers()
            return len(now) == 2 and before[0] not in now and before[1] in now

        assert until(replaced, 40)
        assert until(lambda: server.log.read_text().count("worker is ready") == 3, 20)
        assert asks(server) == 200


@pytest.mark.slow
def test_a_worker_that_is_stopped_while_it_starts_is_replaced_and_none_holds_up_the_end(project, tmp_path):
    with served(project, "points", tmp_path / "log") as server:
        (first,) = server.workers()
        os.kill(first, signal.SIGKILL)
        assert until(lambda: server.workers() not in ([], [first]), 10)
        (second,) = server.workers()
        os.kill(second, signal.SIGSTOP)
        assert until(lambda: server.workers() not in ([], [second]), 30)
        (third,) = server.workers()
        os.kill(third, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_no_worker_outlives_a_server_that_is_killed(project, tmp_path):
    with served(project, "points", tmp_path / "log", "--workers", "2") as server:
        assert until(lambda: len(server.workers()) == 2)
        left = server.workers()
        server.process.kill()
        assert until(lambda: not any(pid in left for pid, _ in processes_with("bentos.worker")), 15)


ORIGIN = {"Origin": "https://a.example"}


def test_pages_of_the_origins_that_are_named_may_ask_and_no_others(model, tmp_path):
    for server in serving(model, tmp_path, EVERGREEN_CORS="https://a.example https://b.example"):
        preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        allowed = server.client.options("/predict", headers={**ORIGIN, **preflight})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "POST" in allowed.headers["access-control-allow-methods"]
        answer = server.client.post("/predict", json={"records": [HOUSE]}, headers=ORIGIN)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "Evergreen-Release" in answer.headers["access-control-expose-headers"]
        bad = server.client.post("/predict", json={"records": []}, headers={"Origin": "https://b.example"})
        assert bad.headers["access-control-allow-origin"] == "https://b.example"
        for origin in ("https://c.example", "null", "http://a.example"):
            sent = {"Origin": origin}
            refused = server.client.options("/predict", headers={**sent, **preflight})
            assert "access-control-allow-origin" not in refused.headers
            answer = server.client.post("/predict", json={"records": [HOUSE]}, headers=sent)
            assert "access-control-allow-origin" not in answer.headers


def test_without_named_origins_none_may_ask(server):
    assert not any(name.startswith("access-control") for name in server.client.get("/model", headers=ORIGIN).headers)
    problem(server.client.options("/predict", headers=ORIGIN), 405)


def test_where_tokens_are_configured_only_the_page_and_the_probes_are_open(model, tmp_path):
    for server in serving(model, tmp_path, EVERGREEN_TOKENS="old new"):
        for path in ("/", "/page.js", "/page.css", "/livez", "/readyz"):
            assert server.client.get(path).status_code == 200
        closed = (
            "/model",
            "/history",
            "/docs",
            "/docs.json",
            "/metrics",
            "/schema.json",
            "/nothing",
            "/static_content/x",
        )
        for path in closed:
            refused = server.client.get(path)
            problem(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
        problem(server.ask(HOUSE), 401)
        problem(server.send(b" " * 20_001), 401)
        for token in ("old", "new"):
            server.client.headers["Authorization"] = f"Bearer {token}"
            assert server.ask(HOUSE).status_code == 200
            assert server.client.get("/docs.json").status_code == 200
        for token in ("ol", "old new", "oldnew", "é"):
            server.client.headers["Authorization"] = f"Bearer {token}"
            problem(server.ask(HOUSE), 401)


def test_with_a_certificate_a_model_is_served_over_https(project, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    options = ("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    with served(project, "points", tmp_path / "log", *options, certificate=certificate) as server:
        assert server.client.base_url.scheme == "https"
        assert server.ask(*ROWS).json()["release"] == 1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/livez", trust_env=False)


def test_requests_at_once_are_predicted_together_each_with_its_own_answer(slow):
    def ask(area: int) -> httpx.Response:
        return httpx.post(f"{slow.client.base_url}/predict", json={"records": [{**HOUSE, "area": area}]}, timeout=30)

    assert ask(100).json()["predictions"] == [100.0]
    before, calls = counted(slow), slow.log().count("predict called")
    areas = [*range(700, 763), -1]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, areas))
    for area, answer in zip(areas[:-1], answers[:-1], strict=True):
        assert answer.json()["predictions"] == [float(area)]
    assert [error["row"] for error in problem(answers[-1], 400)["errors"]] == [0]
    assert slow.log().count("predict called") - calls < 32
    after = counted(slow)
    assert after[("batch_rows_count",)] - before[("batch_rows_count",)] < 16
    assert after[("batch_rows_sum",)] - before[("batch_rows_sum",)] == 64


def test_a_lone_request_is_predicted_at_once_and_alone(slow):
    before, calls = counted(slow), slow.log().count("predict called")
    for area in (10, 20, 30):
        assert slow.ask({**HOUSE, "area": area}).json()["predictions"] == [float(area)]
    after = counted(slow)
    assert after[("batch_rows_count",)] - before.get(("batch_rows_count",), 0) == 3
    assert slow.log().count("predict called") - calls == 3
