"""The whole HTTP contract, of the folder that a Bento carries: under a worker of ours, and under `bentoml serve`."""

import asyncio
import csv
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from serving import client_of
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from bentos import workers
from bentos.package import LEFT_OUT, Bento
from pipeline.artifact import load_artifact, write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.packaged import write_protocol
from pipeline.snapshot import Stored, ingest
from pipeline.sources import Function
from pipeline.spec import BinaryClassification, Gate, Limits, ModelSpec, Regression
from pipeline.train import train

CHECKOUT = Path(__file__).parent.parent
FEATURES = ("area", "rooms", "town", "zone", "new", "sold")
HOUSE = {"area": 120, "rooms": 4, "town": "Ames", "zone": "A", "new": True, "sold": "2024-05-31T12:00:00"}
TOKEN = "let me see"


def houses() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = 150
    area = rng.uniform(50, 200, rows).round(1)
    rooms = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(1, 7, rows))
    town = rng.choice(["Ames", "Nevada", "Ürümqi"], rows)
    price = 1000 * area + 5000 * np.nan_to_num(rooms) + 20_000 * (town == "Ames") + rng.normal(0, 2000, rows)
    return pd.DataFrame(
        {
            "id": [f"{number:03}" for number in range(rows)],
            "area": area,
            "rooms": rooms,
            "town": town,
            "zone": rng.choice(["A", "B"], rows),
            "new": rng.random(rows) < 0.5,
            "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, rows), unit="D"),
            "agent": rng.choice(["x", "y"], rows),
            "price": price.round(),
            "dear": np.where(price > 140_000, "dear", "cheap"),
        }
    )


def prepared(*last: Any) -> Any:
    """A pipeline that ignores unseen towns and raises on unseen zones."""
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(add_indicator=True), ["area", "rooms", "new"]),
            ("time", FunctionTransformer(pd.DataFrame.astype, kw_args={"dtype": "int64"}), ["sold"]),
            ("towns", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
            ("zones", OneHotEncoder(handle_unknown="error", sparse_output=False), ["zone"]),
        ]
    )
    return make_pipeline(columns, StandardScaler(), *last)


@dataclass(frozen=True)
class Model:
    """What a trained model left behind: the folder that a Bento carries, and the estimator itself."""

    folder: Path
    estimator: Any
    snapshot: str


def trained(folder: Path, **parts: Any) -> Model:
    """Train on the houses with the real functions, and lay the artifact beside the code as a Bento does."""
    spec = ModelSpec(
        source=Function(houses, nulls=("NA", "")),
        key=("id",),
        features=FEATURES,
        limits=Limits(rows=50, body_bytes=20_000),
        folds=2,
        **parts,
    )
    snapshot = ingest(spec.source, folder)
    challenger = train(spec, snapshot, folder / "trained", workers=1)
    evaluation = evaluate(spec, Stored(snapshot.path), challenger.rule, challenger.estimator(), None)
    source = folder / "src"
    source.mkdir()
    digests = {"snapshot": snapshot.digest, "spec": "s", "code": "c"}
    verdict = decide(evaluation, spec.gate)
    write_artifact(spec, snapshot, challenger, evaluation, verdict, digests, (), source / "artifact")
    write_protocol(source)
    for package in ("pipeline", "bentos"):
        shutil.copytree(CHECKOUT / package, source / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (source / "bentofile.yaml").write_text('service: "bentos.service:Endpoint"\n')
    return Model(source, challenger.estimator(), snapshot.digest)


def regression(folder: Path) -> Model:
    return trained(
        folder,
        name="houses",
        target="price",
        task=Regression(unit="USD"),
        candidates={"ridge": TransformedTargetRegressor(prepared(Ridge()), func=np.log, inverse_func=np.exp)},
        metric="rmse",
        gate=Gate(at_most=1e6),
    )


def classification(folder: Path) -> Model:
    return trained(
        folder,
        name="dear_houses",
        target="dear",
        task=BinaryClassification(positive="dear"),
        candidates={"logistic": prepared(LogisticRegression())},
        metric="roc_auc",
        gate=Gate(at_least=0.5),
    )


class Server:
    """A running service: its client, its model and its log."""

    def __init__(self, model: Model, client: httpx.Client, log: Path) -> None:
        self.model, self.client, self._log = model, client, log

    def ask(self, *records: dict[str, Any]) -> httpx.Response:
        return self.client.post("/predict", json={"records": records})

    def send(self, body: Any, content_type: str | None = "application/json") -> httpx.Response:
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.client.post("/predict", content=body, headers=headers)

    def log(self) -> str:
        return self._log.read_text()


def serving(model: Model, home: Path, **environment: str) -> Iterator[Server]:
    """A worker of evergreen's on the model."""
    log = home / "log"
    with workers.listen("127.0.0.1", 0) as listener, log.open("wb") as out:
        port = listener.getsockname()[1]
        bento = Bento("", model.folder.parent, "")
        worker = workers.start(bento, None, listener, home, environment, log=out)
        try:
            with client_of(port) as client:
                assert worker.becomes_ready(60), log.read_text()
                yield Server(model, client, log)
        finally:
            worker.stop(10)


def bentoml_serving(model: Model, home: Path, **environment: str) -> Iterator[Server]:
    """Plain `bentoml serve` on the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", str(port)],
            cwd=model.folder,
            env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with client_of(port) as client:
            for _ in range(300):
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield Server(model, client, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return regression(tmp_path_factory.mktemp("houses"))


@pytest.fixture(scope="module", params=[serving, bentoml_serving], ids=["worker", "bentoml serve"])
def server(model: Model, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    named = load_artifact(model.folder / "artifact").digest
    home = tmp_path_factory.mktemp("home")
    yield from request.param(model, home, EVERGREEN_RELEASE="7", EVERGREEN_TRIAL=TOKEN, EVERGREEN_ARTIFACT=named)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(classification(tmp_path_factory.mktemp("dear")), tmp_path_factory.mktemp("home"))


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = response.json()
    assert said["status"] == status
    assert said["type"]
    assert said["title"]
    assert said["detail"]
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return said


def first_error(response: httpx.Response) -> tuple[Any, Any]:
    error = problem(response, 400)["errors"][0]
    return error["row"], error["field"]


def near(values: Any) -> Any:
    return pytest.approx(values.tolist(), rel=1e-12, abs=1e-12)


def frame(*rows: tuple[float, float, Any, str, float, str]) -> pd.DataFrame:
    """The frame that the rows are, made by hand: NaN for missing, as in training."""
    area, rooms, town, zone, new, sold = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "area": np.array(area, dtype=float),
            "rooms": np.array(rooms, dtype=float),
            "town": pd.Series(town, dtype="str"),
            "zone": pd.Series(zone, dtype="str"),
            "new": np.array(new, dtype=float),
            "sold": np.array(sold, dtype="datetime64[us]"),
        }
    )


THREE = frame(
    (120, 4, "Ames", "A", 1.0, "2024-05-31T12:00:00"),
    (75.5, np.nan, "Nevada", "B", 0.0, "2021-01-01T00:00:00"),
    (60, 2, "Ürümqi", "A", 1.0, "2020-02-29T22:30:00"),
)
THREE_RECORDS = (
    HOUSE,
    {"area": 75.5, "rooms": None, "town": "Nevada", "zone": "B", "new": False, "sold": "2021-01-01"},
    {"area": 60, "rooms": 2, "town": "Ürümqi", "zone": "A", "new": True, "sold": "2020-03-01T00:30:00+02:00"},
)
THREE_CSV = """\
new,agent,sold,zone,town,rooms,area,id
true,x,2024-05-31T12:00:00,A,Ames,4,120,007
false,NA,2021-01-01,B,Nevada,NA,75.5,"1,5"
TRUE,,2020-03-01T00:30:00+02:00,A,"Ürümqi",2.0,6e1,NA
"""


def test_json_records_are_answered_as_the_estimator_answers_them(server):
    response = server.ask(*THREE_RECORDS)
    assert response.status_code == 200, response.text
    expected = near(server.model.estimator.predict(THREE))
    assert response.json() == {"predictions": expected, "model": "houses", "release": 7}


def test_csv_rows_in_any_column_order_are_answered_one_row_each_with_the_keys_first(server):
    response = server.send(THREE_CSV.encode(), "text/csv; charset=utf-8")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(response.text))
    assert header == ["id", "prediction"]
    assert [row[0] for row in rows] == ["007", "1,5", "NA"]
    assert [float(row[1]) for row in rows] == near(server.model.estimator.predict(THREE))
    assert [float(row[1]) for row in rows] == server.ask(*THREE_RECORDS).json()["predictions"]


def test_a_feature_that_is_null_or_absent_is_predicted_as_in_training_alone_and_in_a_batch(server):
    null = {**HOUSE, "rooms": None, "town": None}
    absent = {name: value for name, value in HOUSE.items() if name != "rooms"} | {"town": "Nevada"}
    rows = frame(
        (120, np.nan, "Nevada", "A", 1.0, "2024-05-31T12:00:00"),
        (120, 4, "Ames", "A", 1.0, "2024-05-31T12:00:00"),
    )
    expected = server.model.estimator.predict(rows)
    assert first_error(server.ask(null)) == (0, "town")
    alone = server.ask({**null, "town": "Nevada"}).json()["predictions"]
    assert alone == near(expected[:1])
    assert server.ask(absent).json()["predictions"] == alone
    together = server.ask(absent, HOUSE).json()["predictions"]
    assert together == near(expected)
    assert together[:1] == alone


def alone_and_together(server):
    """The answers to rows asked one by one, and at once."""
    rows = [
        {**HOUSE, "area": area, "rooms": None if area % 3 else area % 7, "town": town}
        for area, town in zip(range(50, 79), itertools.cycle(["Ames", "Nevada", "Rome"]), strict=False)
    ]
    assert len(rows) == 29
    return [server.ask(row).json() for row in rows], server.ask(*rows).json()


def test_a_row_is_predicted_alone_exactly_as_in_a_batch(server):
    alone, together = alone_and_together(server)
    assert [one["predictions"][0] for one in alone] == together["predictions"]


def test_a_row_has_the_same_probabilities_alone_as_in_a_batch(classifier):
    alone, together = alone_and_together(classifier)
    assert [one["probabilities"][0] for one in alone] == together["probabilities"]


def test_key_target_and_ignored_columns_are_accepted_and_never_reach_the_model(server):
    plain = server.ask(HOUSE).json()
    assert server.ask({**HOUSE, "id": 5, "price": "a lot", "agent": None}).json() == plain


def test_a_category_never_seen_in_training_is_predicted_and_counted(server):
    text = 'evergreen_unseen_categories_total{feature="town",model="houses"}'

    def counted() -> float:
        lines = [line for line in server.client.get("/metrics").text.splitlines() if line.startswith(text)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    before = counted()
    expected = near(server.model.estimator.predict(frame((120, 4, "Rome", "A", 1.0, "2024-05-31T12:00:00"))))
    assert server.ask({**HOUSE, "town": "Rome"}).json()["predictions"] == expected
    assert server.ask(HOUSE, {**HOUSE, "town": "Oslo"}).status_code == 200
    assert counted() == before + 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"records": [', "application/json"),
        (b"[" * 15_000, "application/json"),
        (b"", "application/json"),
        (b"\xff", "application/json"),
        (b'area,town\n1,"x', "text/csv"),
        (b"", "text/csv"),
        (b"\0", "text/csv"),
    ],
)
def test_malformed_json_or_csv_is_400(server, body, content_type):
    problem(server.send(body, content_type), 400)


def test_empty_records_are_400(server):
    assert "records" in problem(server.send(b'{"records": []}'), 400)["detail"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_400_naming_row_and_field(server, word):
    record = json.dumps({**HOUSE, "area": 0}).replace('"area": 0', f'"area": {word}')
    assert first_error(server.send(f'{{"records": [{json.dumps(HOUSE)}, {record}]}}'.encode())) == (1, "area")


@pytest.mark.parametrize(
    ("field", "value"),
    [("area", "120"), ("area", True), ("town", 5), ("new", "true"), ("new", 1), ("sold", 20240531), ("sold", "noon")],
)
def test_a_value_of_another_type_is_400_naming_row_and_field(server, field, value):
    assert first_error(server.ask(HOUSE, {**HOUSE, field: value})) == (1, field)


def test_a_missing_required_feature_is_400_naming_row_and_field(server):
    lacking = {name: value for name, value in HOUSE.items() if name != "sold"}
    assert first_error(server.ask(HOUSE, HOUSE, lacking)) == (2, "sold")


def test_a_name_the_snapshot_does_not_have_is_400_with_the_name_that_was_meant(server):
    response = server.ask({**HOUSE, "aera": 1})
    assert first_error(response) == (0, "aera")
    assert "did you mean 'area'?" in response.json()["detail"]


def test_a_bad_csv_field_is_400_naming_row_and_field(server):
    assert first_error(server.send(THREE_CSV.replace("75.5", "1_000").encode(), "text/csv")) == (1, "area")


def test_a_row_that_the_estimator_raises_on_is_400_naming_the_row(server):
    response = server.ask(HOUSE, {**HOUSE, "zone": "never"}, HOUSE, {**HOUSE, "zone": "seen"})
    said = problem(response, 400)
    assert [(error["row"], error["problem"]) for error in said["errors"]] == [
        (1, "the model has no answer for this row"),
        (3, "the model has no answer for this row"),
    ]
    assert "never" not in server.log()


def test_rows_that_all_make_the_estimator_raise_are_400_naming_them_all(server):
    said = problem(server.ask(*[{**HOUSE, "zone": "never"}] * 3), 400)
    assert [error["row"] for error in said["errors"]] == [0, 1, 2]


def test_a_row_whose_prediction_is_infinite_is_400_naming_the_row(server):
    assert first_error(server.ask(HOUSE, {**HOUSE, "area": 1e300})) == (1, None)


def test_a_body_over_the_limit_is_413(server):
    problem(server.send(b" " * 20_001), 413)


def test_a_chunked_body_over_the_limit_is_413(server):
    problem(server.send(b" " * 5_000 for _ in range(5)), 413)


def test_a_body_of_just_the_limit_is_read(server):
    body = json.dumps({"records": [HOUSE]}).encode()
    assert server.send(body + b" " * (20_000 - len(body))).status_code == 200


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_rows_over_the_limit_are_413(server, kind):
    header, row = THREE_CSV.splitlines()[:2]
    if kind == "json":
        assert "50" in problem(server.send(b'{"records": [' + b",".join([b"{}"] * 51) + b"]}"), 413)["detail"]
    else:
        problem(server.send("\n".join([header, *[row] * 51]).encode(), "text/csv"), 413)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/vnd.bentoml+pickle",
        "text/csv; charset=latin-1",
    ],
)
def test_another_content_type_is_415(server, content_type):
    problem(server.send(b"{}", content_type), 415)


def test_a_content_type_that_is_no_text_is_415(server):
    problem(server.client.post("/predict", content=b"{}", headers=[(b"Content-Type", b"\xff\xfe")]), 415)


@pytest.mark.parametrize("path", ["/nothing", "/predict/", "/predict/x", "/model/", "/trials", "/%00%0a"])
def test_an_unknown_path_is_404(server, path):
    problem(server.client.get(path), 404)
    problem(server.client.post(path), 404)


def test_an_unknown_static_file_is_404(server):
    problem(server.client.get("/static_content/x"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("POST", "/model", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("POST", "/schema.json", "GET, HEAD"),
    ],
)
def test_another_method_is_405_with_allow(server, method, path, allow):
    response = server.client.request(method, path)
    problem(response, 405)
    assert response.headers["allow"] == allow


def test_the_model_card_says_what_the_model_is(server):
    card = server.client.get("/model").json()
    manifest = json.loads((server.model.folder / "artifact" / "manifest.json").read_text())
    assert (card["model"], card["release"], card["target"]) == ("houses", 7, "price")
    assert (card["task"], card["unit"]) == ("regression", "USD")
    assert card["features"] == [
        {"name": "area", "type": "number", "required": True},
        {"name": "rooms", "type": "number", "required": False},
        {"name": "town", "type": "text", "required": True, "categories": ["Ames", "Nevada", "Ürümqi"]},
        {"name": "zone", "type": "text", "required": True, "categories": ["A", "B"]},
        {"name": "new", "type": "boolean", "required": True},
        {"name": "sold", "type": "timestamp", "required": True},
    ]
    assert card["metrics"]["rmse"] > 0
    assert (card["snapshot"], card["created"]) == (server.model.snapshot, manifest["created"])


def test_the_openapi_page_is_at_docs_and_needs_no_other_host(server):
    page = server.client.get("/docs")
    assert "swagger-ui" in page.text
    assert "http" not in page.text + server.client.get("/docs.json").text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert server.client.get("/static_content/swagger-ui-bundle.js").status_code == 200


def test_the_openapi_description_has_predict_and_model_and_an_example_that_works(server):
    paths = server.client.get("/docs.json").json()["paths"]
    assert list(paths["/model"]) == ["get"]
    body = paths["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "text/csv"}
    assert server.client.post("/predict", json=body["application/json"]["example"]).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_bentomls_own_paths_answer(server, path):
    assert server.client.get(path).status_code == 200


def test_bentomls_own_client_predicts(server):
    from bentoml import SyncHTTPClient

    with SyncHTTPClient(str(server.client.base_url)) as client:
        answer = client.predict(records=list(THREE_RECORDS))
    assert answer["predictions"] == near(server.model.estimator.predict(THREE))


def test_the_trial_is_told_where_the_code_came_from(server):
    modules = server.client.get("/trial", headers={"Authorization": f"Bearer {TOKEN}"}).json()["modules"]
    assert {"bentos.service", "bentos.wire", "pipeline.artifact"} <= set(modules)
    assert all(Path(file).is_relative_to(server.model.folder) for file in modules.values())
    never = {"releases", "server", "trial", "package"}
    assert not never & {name.removeprefix("bentos.") for name in modules if name.startswith("bentos.")}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}])
def test_without_its_token_there_is_no_trial(server, headers):
    problem(server.client.get("/trial", headers=headers), 404)


def test_one_bad_request_never_spoils_another(server):
    expected = server.ask(HOUSE).json()["predictions"]
    bad = {**HOUSE, "zone": "never"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.ask, [HOUSE, bad] * 20))
    assert [answer.status_code for answer in answers] == [200, 400] * 20
    assert all(answer.json()["predictions"] == expected for answer in answers[::2])


def test_a_classifier_answers_with_labels_and_their_probabilities(classifier):
    response = classifier.ask(*THREE_RECORDS)
    assert response.status_code == 200, response.text
    estimator = classifier.model.estimator
    answer = response.json()
    probabilities = answer.pop("probabilities")
    assert answer == {"predictions": estimator.predict(THREE).tolist(), "model": "dear_houses", "release": None}
    assert [list(row) for row in probabilities] == [["cheap", "dear"]] * 3
    assert [list(row.values()) for row in probabilities] == [near(row) for row in estimator.predict_proba(THREE)]
    header, *rows = csv.reader(io.StringIO(classifier.send(THREE_CSV.encode(), "text/csv").text))
    assert header == ["id", "prediction", "probability_cheap", "probability_dear"]
    assert [row[1] for row in rows] == estimator.predict(THREE).tolist()
    assert [[float(word) for word in row[2:]] for row in rows] == [list(row.values()) for row in probabilities]


def test_without_an_environment_there_is_no_release_and_no_trial(classifier):
    assert classifier.client.get("/model").json()["release"] is None
    problem(classifier.client.get("/trial", headers={"Authorization": "Bearer None"}), 404)


@pytest.fixture
def endpoint(model, monkeypatch):
    """The endpoint of the served artifact, in this process."""
    from bentos import service

    monkeypatch.setattr(service, "ARTIFACT", model.folder / "artifact")
    return service.Endpoint()


def in_process(endpoint):
    """A client of the contract in this process, with nothing of BentoML's behind it."""
    from starlette.applications import Starlette

    from bentos.contract import Contract

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(Contract(Starlette(), lambda: endpoint)), base_url="http://test"
    )


class Broken:
    """An estimator that answers any row and raises on a large batch, as out of memory might."""

    def predict(self, rows):
        if len(rows) > 30:
            raise OSError("/secret/path: " + str(rows.iloc[0].to_dict()))
        return np.ones(len(rows))


def test_a_crash_is_500_without_a_trace_a_path_or_data_and_the_log_has_the_trace(endpoint, caplog):
    endpoint.served.program, endpoint.served.estimator = None, Broken()

    async def asked() -> httpx.Response:
        async with in_process(endpoint) as client:
            return await client.post("/predict", json={"records": [HOUSE] * 31})

    response = asyncio.run(asked())
    problem(response, 500)
    assert "secret" not in response.text
    assert "Ames" not in response.text
    assert "in predict" in caplog.text
    assert "OSError" in caplog.text
    assert "Ames" not in caplog.text


class Slow:
    """An estimator that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.told = threading.Event(), threading.Event()

    def predict(self, rows):
        self.asked.set()
        assert self.told.wait(10)
        return np.ones(len(rows))


def test_other_requests_are_answered_while_a_prediction_runs(endpoint):
    slow = endpoint.served.estimator = Slow()
    endpoint.served.program = None

    async def asked() -> list[int]:
        async with in_process(endpoint) as client:
            waiting = asyncio.create_task(client.post("/predict", json={"records": [HOUSE]}))
            while not slow.asked.is_set():
                await asyncio.sleep(0.01)
            meanwhile = await client.get("/model")
            assert not waiting.done()
            slow.told.set()
            return [meanwhile.status_code, (await waiting).status_code]

    assert asyncio.run(asked()) == [200, 200]


def test_a_prediction_that_takes_too_long_is_504_and_others_are_answered(endpoint):
    slow = endpoint.served.estimator = Slow()
    endpoint.served.program, endpoint.seconds = None, 0.2

    async def asked() -> list[httpx.Response]:
        async with in_process(endpoint) as client:
            late = await client.post("/predict", json={"records": [HOUSE]})
            slow.told.set()
            return [late, await client.post("/predict", json={"records": [HOUSE]})]

    late, after = asyncio.run(asked())
    assert "0.2 s" in problem(late, 504)["detail"]
    assert after.status_code == 200


def test_a_body_that_does_not_arrive_is_408(endpoint):
    endpoint.seconds = 0.1

    async def half() -> AsyncIterator[bytes]:
        yield b'{"records": ['
        await asyncio.sleep(5)

    async def asked() -> httpx.Response:
        async with in_process(endpoint) as client:
            return await client.post("/predict", content=half(), headers={"Content-Type": "application/json"})

    problem(asyncio.run(asked()), 408)


def test_more_at_once_than_the_limit_are_429_and_told_when_to_come_back(endpoint):
    slow = endpoint.served.estimator = Slow()
    endpoint.served.program, endpoint.most_at_once = None, 1

    async def asked() -> list[httpx.Response]:
        async with in_process(endpoint) as client:
            waiting = asyncio.create_task(client.post("/predict", json={"records": [HOUSE]}))
            while not slow.asked.is_set():
                await asyncio.sleep(0.01)
            refused = await client.post("/predict", json={"records": [HOUSE]})
            slow.told.set()
            return [refused, await waiting, await client.post("/predict", json={"records": [HOUSE]})]

    refused, first, after = asyncio.run(asked())
    problem(refused, 429)
    assert refused.headers["retry-after"] == "1"
    assert [first.status_code, after.status_code] == [200, 200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Basic new"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer old"}, 200),
        ({"Authorization": "bearer new"}, 200),
    ],
)
def test_where_tokens_are_configured_one_of_them_is_needed(endpoint, sent, status):
    endpoint.tokens = ("old", "new")

    async def asked() -> list[httpx.Response]:
        async with in_process(endpoint) as client:
            return [
                await client.post("/predict", json={"records": [HOUSE]}, headers=sent),
                await client.get("/model", headers=sent),
                await client.get("/livez", headers=sent),
            ]

    predicted, card, alive = asyncio.run(asked())
    assert (predicted.status_code, card.status_code) == (status, status)
    assert alive.status_code == 404, "it reached what is behind the contract, which in this test has no such path"
    if status == 401:
        problem(predicted, 401)
        assert predicted.headers["www-authenticate"] == "Bearer"


def test_every_answer_bears_its_release(server):
    assert server.ask(HOUSE).headers["evergreen-release"] == str(server.ask(HOUSE).json()["release"])


def test_an_artifact_of_another_digest_is_refused_before_it_is_loaded(model, monkeypatch):
    from bentos import service
    from pipeline.errors import ArtifactError

    monkeypatch.setattr(service, "ARTIFACT", model.folder / "artifact")
    monkeypatch.setenv("EVERGREEN_ARTIFACT", "0" * 64)
    with pytest.raises(ArtifactError, match="not 0000"):
        service.Endpoint()


def test_a_release_that_is_no_number_is_refused(monkeypatch):
    from bentos import service
    from pipeline.errors import ServerError

    monkeypatch.setenv("EVERGREEN_RELEASE", "latest")
    with pytest.raises(ServerError, match="'latest'"):
        service.Endpoint()


def test_importing_the_service_loads_no_model_and_nothing_that_a_bento_lacks():
    banned = {"prefect", "great_expectations", "sqlalchemy", "pydantic_settings", "expectations", "flows", "sklearn"}
    banned |= {"bentos.releases", "bentos.server", "bentos.trial", "bentos.package", "pipeline.settings"}
    code = f"import sys, bentos.service; print(sorted({banned!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
