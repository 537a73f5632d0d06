"""What hostile, broken and merely odd clients send: all of it is answered as the endpoint describes, or cut off."""

import csv
import gzip
import io
import json
import re
import select
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.message import Message
from http.client import parse_headers
from pathlib import Path
from typing import NamedTuple

import pytest
import schemathesis
from house_endpoints import (
    HOUSE,
    THREE_CSV,
    Model,
    Server,
    first_error,
    in_process,
    problem,
    serving,
)
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import processes_with, until

CONFORMS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
NO_ANSWER = "the model has no answer for this row"
LATER = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])


@pytest.fixture(scope="module")
def server(house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(house_model, tmp_path_factory.mktemp("home"), EVERGREEN_RELEASE="7")


@pytest.fixture(scope="module")
def endpoint(house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same in this process, for what no server has a part in."""
    with in_process(house_model, tmp_path_factory.mktemp("log") / "log", release=7) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def guarded(dear_house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A classifier that wants a token."""
    yield from serving(dear_house_model, tmp_path_factory.mktemp("home"), EVERGREEN_TOKENS="old new")


def described(server: Server, body: str = "application/json", **headers: str) -> schemathesis.BaseSchema:
    """What the running service says of itself, with bodies of one type, and the zones that do not make it raise."""
    document = server.client.get("/docs.json", headers=headers).json()
    document["components"]["schemas"]["Record"]["properties"]["zone"]["enum"] = ["A", "B"]
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    document["paths"]["/predict"]["post"]["requestBody"]["content"] = {body: content[body]}
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(server.client.base_url))
    return schema


def asked(schema, path, method, mode, cases, check, **headers: str) -> list[int]:
    """Ask an operation many times; each answer must be as described, and pass a check of its own."""
    statuses: list[int] = []

    @settings(LATER, max_examples=cases)
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        response = case.call(headers=headers, timeout=30)
        case.validate_response(response, checks=CONFORMS)
        statuses.append(response.status_code)
        check(case, response)

    ask()
    return statuses


def accepted(case, response):
    if response.status_code == 413:
        assert len(response.request.body) > 20_000
    elif response.status_code != 200:
        assert response.status_code == 400, response.text
        # In UTC some times of the first and last day that there is are in no year that there is.
        others = {error["problem"] for error in response.json()["errors"]} - {NO_ANSWER}
        assert all(re.match(r'"(0001-01-01|9999-12-31)', other) for other in others), (case.body, response.text)
    else:
        assert len(response.json()["predictions"]) == len(case.body["records"])


def refused(case, response):
    assert 400 <= response.status_code < 500, (case.body, response.text)


@pytest.mark.slow
def test_records_that_fit_the_description_are_predicted(server):
    statuses = asked(described(server), "/predict", "POST", GenerationMode.POSITIVE, 400, accepted)
    assert len(statuses) >= 400
    assert statuses.count(200) > 50


@pytest.mark.slow
def test_probabilities_are_as_described_too(guarded):
    schema = described(guarded, Authorization="Bearer old")
    statuses = asked(schema, "/predict", "POST", GenerationMode.POSITIVE, 100, accepted, Authorization="Bearer old")
    assert statuses.count(200) > 10


@pytest.mark.slow
def test_what_does_not_fit_the_description_is_refused(server):
    statuses = asked(described(server), "/predict", "POST", GenerationMode.NEGATIVE, 400, refused)
    assert len(statuses) >= 400


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_a_text_that_is_no_csv_is_refused(server, mode):
    asked(described(server, "text/csv"), "/predict", "POST", mode, 100, refused)


@pytest.mark.parametrize("path", ["/model", "/history", "/metrics", "/livez", "/readyz"])
def test_every_path_answers_as_described(server, path):
    def answered(_, response):
        assert response.status_code == 200

    asked(described(server), path, "GET", GenerationMode.POSITIVE, 20, answered)


@pytest.mark.parametrize(("path", "status"), [("/model", 401), ("/history", 401), ("/metrics", 401), ("/livez", 200)])
def test_a_token_is_described_where_one_is_needed(guarded, path, status):
    schema = described(guarded, Authorization="Bearer new")
    assert ("security" in schema.raw_schema["paths"][path]["get"]) == (status == 401)

    def answered(_, response):
        assert response.status_code == status

    asked(schema, path, "GET", GenerationMode.POSITIVE, 5, answered)


def test_without_tokens_none_is_described(endpoint):
    assert "bearer" not in endpoint.client.get("/docs.json").text


class Answer(NamedTuple):
    """An answer as it came over a connection."""

    status: int
    headers: Message
    body: bytes

    def problem(self):
        assert self.headers["content-type"] == "application/problem+json"
        said = json.loads(self.body)
        assert said["status"] == self.status
        return said["detail"]


class Connection:
    """A connection on which anything can be sent."""

    def __init__(self, server: Server, seconds: float = 30) -> None:
        url = server.client.base_url
        self.socket = socket.create_connection((url.host, url.port), timeout=seconds)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        _, status, _ = self.file.readline().split(b" ", 2)
        headers = parse_headers(self.file)
        length = 0 if method == "HEAD" else int(headers["content-length"] or 0)
        return Answer(int(status), headers, self.file.read(length))

    def ended(self) -> bool:
        """Whether the other end closed the connection, after nothing more than was read."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True


def told(server: Server, request: bytes, method: str = "GET") -> Answer:
    """The first answer to what is sent over a connection of its own."""
    with Connection(server) as connection:
        connection.send(request)
        return connection.answer(method)


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode("latin-1")


BODY = json.dumps({"records": [HOUSE]}).encode()


def post(*fields: str, body: bytes = BODY, length: bool = True) -> bytes:
    lengths = [f"Content-Length: {len(body)}"] if length else []
    return get("/predict", "Content-Type: application/json", *lengths, *fields, method="POST") + body


CHUNKED = post("Transfer-Encoding: chunked", body=b"", length=False)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def worker_of(server: Server) -> int:
    """The id of the process that answers."""
    (found,) = processes_with(str(server.model.folder.parent))
    return found[0]


def megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def answers_as_ever(server: Server) -> bool:
    return server.ask(HOUSE).status_code == 200


@pytest.mark.slow
def test_half_open_connections_hold_up_nobody_and_are_cut_off(server):
    silent = [Connection(server) for _ in range(150)]
    slow = [Connection(server) for _ in range(150)]
    behind = Connection(server)
    behind.send(get("/livez") + b"GET /mo")
    for connection in slow:
        connection.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-")
    assert behind.answer().status == 200
    begun, others = time.monotonic(), [*silent, *slow, behind]
    while time.monotonic() < begun + 12:
        assert answers_as_ever(server)
        for connection in slow[:10]:
            # One byte now and then does not prolong it.
            if not select.select([connection.socket], [], [], 0)[0]:
                connection.send(b"x")
        time.sleep(0.2)
    for connection in others:
        if connection in slow:
            answer = connection.answer()
            assert answer.status == 408
            assert "10 s" in answer.problem()
        assert connection.ended()
        connection.__exit__()


def test_a_body_that_is_too_slow_is_408(house_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hasty")
    hasty = with_limits(house_model, folder, timeout_seconds=1)
    for one in serving(hasty, folder):
        with Connection(one) as connection:
            connection.send(CHUNKED + chunk(b'{"records"'))
            assert "1 s" in connection.answer().problem()


def with_limits(model: Model, folder: Path, **limits) -> Model:
    """The same model with other limits."""
    shutil.copytree(model.folder, folder / "src")
    manifest = folder / "src" / "artifact" / "manifest.json"
    said = json.loads(manifest.read_text())
    said["limits"] |= limits
    manifest.write_text(json.dumps(said))
    return Model(folder / "src", model.estimator, model.snapshot)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n" + b"X: " + b"x" * 200_000,
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"GET /" + b"x" * 200_000,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        CHUNKED + chunk(b"{}") + b"0\r\n" + b"X: y\r\n" * 200_000,
        CHUNKED + b"2;" + b"x" * 200_000,
    ],
    ids=["one field", "many fields", "endless path", "long path", "trailers", "chunk extension"],
)
def test_a_head_without_an_end_is_431_and_cut_off(server, head):
    with Connection(server) as connection:
        with suppress(ConnectionError):
            connection.send(head)
        answer = connection.answer()
        assert answer.status == 431
        assert "65536" in answer.problem()
        assert connection.ended()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\nHost: x\n\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        get("/livez", "X : y"),
        get("/livez", "X: y\0"),
        get("/livez", "X: y", " z"),
        CHUNKED + b"zz\r\n",
    ],
)
def test_what_is_no_http_is_400_and_cut_off(server, garbage):
    with Connection(server) as connection:
        connection.send(garbage)
        answer = connection.answer()
        assert answer.status == 400
        assert answer.problem()
        assert connection.ended()
    assert answers_as_ever(server)


@pytest.mark.parametrize(
    "fields",
    [
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5, 5"],
        ["Content-Length: +5"],
        ["Content-Length: -5"],
        ["Content-Length: 0x5"],
        ["Content-Length: " + "9" * 5000],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding : chunked"],
    ],
)
def test_a_body_of_two_lengths_or_none_that_is_sure_is_400_and_nothing_behind_it_is_read(server, fields):
    with Connection(server) as connection:
        connection.send(post(*fields, body=b"0\r\n\r\n", length=False) + get("/model"))
        assert connection.answer().status == 400
        assert connection.ended()


def test_pipelined_requests_are_answered_in_order(server):
    with Connection(server) as connection:
        bad = post(body=b"{")
        asked = [get("/livez", "X-Request-ID: a"), post("X-Request-ID: b"), bad, get("/x"), get("/model")]
        connection.send(b"".join(asked) * 20)
        answers = [connection.answer() for _ in range(100)]
    assert [answer.status for answer in answers] == [200, 200, 400, 404, 200] * 20
    assert [answer.headers["x-request-id"] for answer in answers[:2]] == ["a", "b"]


def test_garbage_behind_a_request_is_not_taken_for_its_answer(server):
    with Connection(server) as connection:
        connection.send(get("/model") + post() + b"\1\2\3\r\n\r\n")
        assert [connection.answer().status, connection.answer().status] == [200, 200]
        assert connection.ended()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "part", "status"),
    [
        (post("Content-Length: 52428800", body=b"", length=False), b"x" * 65_536, 413),
        (CHUNKED, chunk(b"x" * 65_536), 413),
        (CHUNKED, chunk(b"x") * 10_000, 413),
        (get("/model", "Content-Length: 52428800"), b"x" * 65_536, 200),
        (post("Content-Encoding: gzip", "Content-Length: 52428800", body=b"", length=False), b"x" * 65_536, 415),
        (CHUNKED + chunk(b"{}") + b"0\r\n", b"X: y\r\n" * 10_000, 431),
        (b"", get("/livez") * 2_000, None),
    ],
    ids=["a length", "chunks", "tiny chunks", "GET", "gzip", "trailers", "pipelined"],
)
def test_50_megabytes_do_not_stay_in_memory(server, head, part, status):
    pid = worker_of(server)
    most = before = megabytes(pid)
    with Connection(server) as connection, suppress(ConnectionError):
        connection.send(head)
        for _ in range(52_428_800 // len(part)):
            connection.send(part)
            most = max(most, megabytes(pid))
    assert most - before < 30
    if status is not None:
        with Connection(server) as connection:
            with suppress(ConnectionError):
                connection.send(head + part * 4)
            assert connection.answer().status == status
    assert answers_as_ever(server)


@pytest.mark.parametrize(
    "body",
    [
        b'{"records": [' + b"[" * 9_000 + b"]" * 9_000 + b"]}",
        b'{"records": [{"area": ' + b'{"a":' * 3_000 + b"1" + b"}" * 3_000 + b"}]}",
        b'{"records": [' + BODY[13:-3] + b', "agent": ' + b"[" * 3_000 + b"]" * 3_000 + b"}]}",
        b'{"records": [{"area": ' + b"9" * 10_000 + b"}]}",
        b'{"records": [{"area": -1e' + b"9" * 10_000 + b"}]}",
        b'{"records": [{"area": 0.' + b"0" * 10_000 + b"1e-99999}]}",
        b'{"records": [{"\\ud800": 1}]}',
        b'{"records": [{"town": "\\udfff\\ud800"}]}',
        b'{"records": [{"town": "\xed\xa0\x80"}]}',
        b'{"records": [{"area": 1, "area": 2}]}',
        b'{"records": [], ' + BODY[1:],
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        BODY.decode().encode("utf-32"),
        BODY + b"\0",
        BODY + BODY,
        BODY[:-1] + b",}",
        b"// hello\n" + BODY,
        BODY.replace(b'"', b"'"),
        b'{"__proto__": {}, ' + BODY[1:],
        b"null",
        b'"records"',
        b"NaN",
    ],
)
def test_json_that_is_too_deep_too_large_twice_or_of_another_encoding_is_400(endpoint, body):
    assert problem(endpoint.send(body), 400)["detail"].isascii()


def test_a_body_that_says_twice_what_a_record_is_is_400_naming_it(endpoint):
    twice = BODY.replace(b'"area": 120', b'"area": 120, "\\u0061rea": 130')
    assert first_error(endpoint.send(twice)) == (0, "area")


def test_numbers_are_read_as_json_writes_them(endpoint):
    def predicted(word: bytes) -> float:
        return endpoint.send(BODY.replace(b"120", word)).json()["predictions"][0]

    expected = predicted(b"120")
    assert [predicted(word) for word in (b"120.0", b"1.2e2", b"1200000E-4", b"120." + b"0" * 1000)] == [expected] * 4
    assert predicted(b"-0") == predicted(b"0") == predicted(b"-0.0") == predicted(b"1e-400")


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        (THREE_CSV, "utf-16", "not UTF-8"),
        (THREE_CSV, "utf-16-le", "not UTF-8"),
        (THREE_CSV, "latin-1", "byte 0xDC"),
        (THREE_CSV.replace("area", "town"), "utf-8", "2 times in the header"),
        (THREE_CSV.replace("Nevada", 'Nev"ada"'), "utf-8", None),
        (THREE_CSV.replace("Nevada", '"Nev"ada'), "utf-8", "expected after"),
        (THREE_CSV.replace("Nevada", '"Nevada'), "utf-8", "quote left open"),
        (THREE_CSV.replace("Nevada", "Nevada,"), "utf-8", "has 9 fields, but the header has 8"),
        (THREE_CSV.replace("Nevada", "Nev\0ada"), "utf-8", "NUL byte"),
        (THREE_CSV.replace(",", ";"), "utf-8", "is not a column"),
        (THREE_CSV.replace(",", "\t"), "utf-8", "is not a column"),
    ],
)
def test_a_csv_of_another_encoding_or_form_is_400_saying_where(endpoint, text, encoding, said):
    response = endpoint.send(text.encode(encoding), "text/csv")
    if said is None:
        assert response.status_code == 200
    else:
        assert said in problem(response, 400)["detail"]


def test_a_csv_with_a_bom_quotes_and_lines_in_its_fields_is_read_and_its_keys_come_back(endpoint):
    header, first, *_ = THREE_CSV.splitlines()
    key = 'a "b",\r\nc\n'
    rows = [first.replace("007", f'"{key.replace(chr(34), 2 * chr(34))}"'), first.replace("Ames", '"Ames"')]
    sent = "\ufeff" + "\r\n".join([header, *rows])
    response = endpoint.send(sent.encode(), "text/csv")
    assert response.status_code == 200, response.text
    _, one, other = csv.reader(io.StringIO(response.text, newline=""))
    assert (one[0], other[0]) == (key, "007")
    assert one[1] == other[1]


def test_a_compressed_body_is_415(server):
    squeezed = gzip.compress(BODY)
    assert told(server, post("Content-Encoding: gzip", body=squeezed)).status == 415
    assert told(server, post("Content-Encoding: br", body=squeezed)).status == 415
    assert told(server, post("Content-Encoding: identity")).status == 200
    assert told(server, post(body=squeezed)).status == 400


def test_head_has_the_head_of_get_and_no_body(server):
    for path in ("/", "/model", "/docs", "/livez", "/nothing", "/predict"):
        with Connection(server) as connection:
            connection.send(get(path, method="HEAD") + get("/livez", "X-Request-ID: next"))
            head = connection.answer("HEAD")
            assert connection.answer().headers["x-request-id"] == "next"
        assert head.status == server.client.get(path).status_code
        assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("http://elsewhere.example/model?x=1", 200),
        ("/%6Dodel", 200),
        ("/model?records=1#x", 200),
        ("//model", 404),
        ("/%2fmodel", 404),
        ("/model%00", 404),
        ("/model/../model", 404),
        ("/static_content/../../artifact/manifest.json", 404),
        ("/static_content/%2e%2e/%2e%2e/artifact/manifest.json", 404),
        ("/static_content//etc/passwd", 404),
        ("/%ff%zz", 404),
        ("*", 404),
    ],
)
def test_a_path_is_what_it_is_whichever_way_it_is_written(server, path, status):
    assert told(server, get(path)).status == status


@pytest.mark.parametrize("sent", ["one", "a.b_c:d/e+f=g@h-1", "x" * 128])
def test_a_good_request_id_comes_back(server, sent):
    assert told(server, get("/livez", f"X-Request-ID: {sent}")).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\tb", 'a"b', "a,b", "<script>", "\xe9", "a%0d%0ab", "{}"])
def test_a_bad_request_id_is_replaced(server, sent):
    answer = told(server, get("/livez", f"X-Request-ID: {sent}"))
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", answer.headers["x-request-id"])


def test_a_client_that_waits_to_be_told_to_go_on_is_told_unless_it_is_refused(server):
    with Connection(server) as connection:
        connection.send(post("Expect: 100-continue", f"Content-Length: {len(BODY)}", body=b"", length=False))
        assert connection.answer().status == 100
        connection.send(BODY)
        assert connection.answer().status == 200
    assert told(server, post("Expect: 100-continue", "Content-Length: 99999", body=b"", length=False)).status == 413


@pytest.mark.parametrize("to", ["h2c", "websocket", "HTTP/2.0", "unheard-of"])
def test_a_request_that_offers_another_protocol_is_answered_in_this_one(server, to):
    offer = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {to}", "HTTP2-Settings: AAMAAABkAAQAAP__")
    with Connection(server) as connection:
        connection.send(post(*offer) + get("/livez", *offer))
        predicted = connection.answer()
        assert predicted.status == 200
        assert json.loads(predicted.body) == server.ask(HOUSE).json()
        assert connection.answer().status == 200
        connection.send(post(*offer)[:-20])
        connection.send(post(*offer)[-20:])
        assert connection.answer().status == 200


@pytest.mark.parametrize("to", ["elsewhere.example:443", "/predict"])
def test_nobody_is_connected_to_elsewhere(server, to):
    with Connection(server) as connection:
        connection.send(get(to, method="CONNECT") + get("/livez"))
        assert connection.answer().status in (400, 405)
        assert connection.ended()


def test_clients_that_go_harm_nobody_and_leave_nothing_behind(server):
    most = server.client.get("/model").json()["limits"]["max_concurrency"]
    before = gone(server)
    halves = [Connection(server) for _ in range(most)]
    for connection in halves:
        connection.send(post()[:-5])
    # A request in between would take the place of one of them.
    time.sleep(0.5)
    refused = until_refused(server)
    assert refused.headers["retry-after"] == "1"
    for number, connection in enumerate(halves):
        if number % 2:
            # With a reset, not an end.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.__exit__()
    assert until(lambda: answers_as_ever(server), 5)
    again = [Connection(server) for _ in range(most)]
    for connection in again:
        connection.send(post()[:-5])
    time.sleep(0.5)
    problem(until_refused(server), 429)
    for connection in again:
        connection.send(post()[-5:])
    assert [connection.answer().status for connection in again] == [200] * most
    for connection in again:
        connection.__exit__()
    assert until(lambda: gone(server) == before + most, 5)
    assert "Traceback" not in server.log()


def gone(server):
    """How many requests were counted whose client went."""
    name = 'evergreen_requests_total{model="houses",path="/predict",status="499"} '
    return sum(float(line.removeprefix(name)) for line in metrics(server) if line.startswith(name))


def metrics(server):
    return server.client.get("/metrics").text.splitlines()


def until_refused(server):
    """The answer to one request more, once those that were sent have been taken up."""
    answers = []
    assert until(lambda: answers.append(server.ask(HOUSE)) or answers[-1].status_code == 429, 5)
    return answers[-1]


def test_what_follows_a_refusal_is_let_go_and_the_connection_goes_on(server):
    with Connection(server) as connection:
        connection.send(post("Content-Length: 30000", body=b"", length=False))
        assert connection.answer().status == 413
        connection.send(b"x" * 30_000 + post())
        assert connection.answer().status == 200


def test_many_clients_with_odd_and_good_requests_each_get_their_own_answer(server):
    bodies = [BODY.replace(b"120", b"%d" % (50 + number)) for number in range(40)]
    expected = [server.send(body).json() for body in bodies]

    def ask(number: int) -> bool:
        with Connection(server) as connection:
            connection.send(post(body=bodies[number]) + post(body=b"{") + post(body=bodies[-number - 1]))
            first, bad, last = (connection.answer() for _ in range(3))
            found = (json.loads(first.body), bad.status, json.loads(last.body))
            return found == (expected[number], 400, expected[-number - 1])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, [*range(40)] * 5))
