"""The HTTP contract, in this process through ASGI; and what only a Bento's folder shows, served by real servers.

The real servers are a worker of ours and `bentoml serve`.
"""

import asyncio
import csv
import io
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from house_endpoints import (
    CHECKOUT,
    HOUSE,
    THREE_CSV,
    THREE_RECORDS,
    EndpointInProcess,
    Model,
    Server,
    bentoml_serving,
    first_error,
    in_process,
    problem,
    serving,
    with_limits,
)

from bentos.endpoint.endpoint import Endpoint, EndpointSettings
from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError, ServerError

TOKEN = "let me see"


@pytest.fixture(scope="module")
def server(house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointInProcess]:
    """The regression, in this process."""
    with in_process(house_model, tmp_path_factory.mktemp("log") / "log", release=7) as server:
        yield server


@pytest.fixture(scope="module")
def classifier(dear_house_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointInProcess]:
    """The classifier, in this process, told nothing."""
    with in_process(dear_house_model, tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture(scope="module", params=[serving, bentoml_serving], ids=["worker", "bentoml serve"])
def real(
    house_model: Model, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """The regression, on trial, under a real server."""
    named = load_artifact(house_model.folder / "artifact").digest
    home = tmp_path_factory.mktemp("home")
    yield from request.param(house_model, home, EVERGREEN_RELEASE="7", EVERGREEN_TRIAL=TOKEN, EVERGREEN_ARTIFACT=named)


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


def test_json_records_are_answered_as_the_estimator_answers_them(server):
    response = server.ask(*THREE_RECORDS)
    assert response.status_code == 200, response.text
    expected = near(server.model.estimator.predict(THREE))
    assert response.json() == {"predictions": expected, "model": "houses", "release": 7}


def test_a_real_server_answers_as_the_endpoint_in_process(real, server):
    assert real.ask(*THREE_RECORDS).json() == server.ask(*THREE_RECORDS).json()
    theirs, ours = (one.send(THREE_CSV.encode(), "text/csv; charset=utf-8") for one in (real, server))
    assert (theirs.status_code, theirs.headers["content-type"], theirs.text) == (
        200,
        "text/csv; charset=utf-8",
        ours.text,
    )
    refused = {**HOUSE, "zone": "never"}
    assert problem(real.ask(HOUSE, refused), 400) == problem(server.ask(HOUSE, refused), 400)
    assert "never" not in real.log()
    problem(real.send(b" " * 5_000 for _ in range(5)), 413)
    assert real.ask(HOUSE).headers["evergreen-release"] == "7"


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
    def counted() -> float:
        server.endpoint.metrics.flush()
        return server.endpoint.metrics.all.unseen.labels("houses", "town")._value.get()

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


def test_an_unknown_static_file_is_404(real):
    problem(real.client.get("/static_content/x"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("POST", "/model", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_another_method_is_405_with_allow(server, method, path, allow):
    response = server.client.request(method, path)
    problem(response, 405)
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/schema.json"])
def test_another_method_for_a_path_of_bentomls_is_405_with_allow(real, path):
    response = real.client.post(path)
    problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD"


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


def test_the_openapi_page_finds_its_script(real):
    assert "static_content/swagger-ui-bundle.js" in real.client.get("/docs").text
    assert real.client.get("/static_content/swagger-ui-bundle.js").status_code == 200


def test_the_openapi_description_has_predict_and_model_and_an_example_that_works(server):
    paths = server.client.get("/docs.json").json()["paths"]
    assert list(paths["/model"]) == ["get"]
    body = paths["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "text/csv"}
    assert server.client.post("/predict", json=body["application/json"]["example"]).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_bentomls_own_paths_answer(real, path):
    assert real.client.get(path).status_code == 200


def test_bentomls_own_client_predicts(real):
    from bentoml import SyncHTTPClient

    with SyncHTTPClient(str(real.client.base_url)) as client:
        answer = client.predict(records=list(THREE_RECORDS))
    assert answer["predictions"] == near(real.model.estimator.predict(THREE))


def test_the_trial_is_told_where_the_code_came_from(real):
    modules = real.client.get("/trial", headers={"Authorization": f"Bearer {TOKEN}"}).json()["modules"]
    assert {"bentos.service", "bentos.endpoint.formats", "pipeline.artifact"} <= set(modules)
    assert all(Path(file).is_relative_to(real.model.folder) for file in modules.values())
    never = {"releases", "server", "trial", "package"}
    assert not never & {name.removeprefix("bentos.") for name in modules if name.startswith("bentos.")}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}])
def test_without_its_token_there_is_no_trial(real, headers):
    problem(real.client.get("/trial", headers=headers), 404)


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
def own(house_model: Model, tmp_path: Path) -> Iterator[EndpointInProcess]:
    """An endpoint of the regression that a test may change."""
    with in_process(house_model, tmp_path / "log") as server:
        yield server


def client_of(server: EndpointInProcess) -> httpx.AsyncClient:
    """A client in the event loop of a test, for what happens at the same time."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(server.contract), base_url="http://test")


class Broken:
    """An estimator that answers any row and raises on a large batch, as out of memory might."""

    def predict(self, rows):
        if len(rows) > 30:
            raise OSError("/secret/path: " + str(rows.iloc[0].to_dict()))
        return np.ones(len(rows))


def test_a_crash_is_500_without_a_trace_a_path_or_data_and_the_log_has_the_trace(own, caplog):
    own.endpoint.served.compiled_model, own.endpoint.served.estimator = None, Broken()

    async def asked() -> httpx.Response:
        async with client_of(own) as client:
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


def test_other_requests_are_answered_while_a_prediction_runs(own):
    slow = own.endpoint.served.estimator = Slow()
    own.endpoint.served.compiled_model = None

    async def asked() -> list[int]:
        async with client_of(own) as client:
            waiting = asyncio.create_task(client.post("/predict", json={"records": [HOUSE]}))
            while not slow.asked.is_set():
                await asyncio.sleep(0.01)
            meanwhile = await client.get("/model")
            assert not waiting.done()
            slow.told.set()
            return [meanwhile.status_code, (await waiting).status_code]

    assert asyncio.run(asked()) == [200, 200]


def test_a_prediction_that_takes_too_long_is_504_and_others_are_answered(own):
    slow = own.endpoint.served.estimator = Slow()
    own.endpoint.served.compiled_model = None
    with_limits(own.endpoint, timeout_seconds=0.2)

    async def asked() -> list[httpx.Response]:
        async with client_of(own) as client:
            late = await client.post("/predict", json={"records": [HOUSE]})
            slow.told.set()
            return [late, await client.post("/predict", json={"records": [HOUSE]})]

    late, after = asyncio.run(asked())
    assert "0.2 s" in problem(late, 504)["detail"]
    assert after.status_code == 200


def test_a_body_that_does_not_arrive_is_408(own):
    with_limits(own.endpoint, timeout_seconds=0.1)

    async def half() -> AsyncIterator[bytes]:
        yield b'{"records": ['
        await asyncio.sleep(5)

    async def asked() -> httpx.Response:
        async with client_of(own) as client:
            return await client.post("/predict", content=half(), headers={"Content-Type": "application/json"})

    problem(asyncio.run(asked()), 408)


def test_more_at_once_than_the_limit_are_429_and_told_when_to_come_back(own):
    slow = own.endpoint.served.estimator = Slow()
    own.endpoint.served.compiled_model = None
    with_limits(own.endpoint, max_concurrency=1)

    async def asked() -> list[httpx.Response]:
        async with client_of(own) as client:
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
def test_where_tokens_are_configured_one_of_them_is_needed(own, sent, status):
    own.endpoint.tokens = ("old", "new")

    async def asked() -> list[httpx.Response]:
        async with client_of(own) as client:
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


def test_an_artifact_of_another_digest_is_refused_before_it_is_loaded(house_model):
    with pytest.raises(ArtifactError, match="not 0000"):
        Endpoint.load(house_model.folder / "artifact", EndpointSettings(artifact_digest="0" * 64))


def test_a_release_that_is_no_number_is_refused():
    with pytest.raises(ServerError, match="'latest'"):
        EndpointSettings.from_environment({"EVERGREEN_RELEASE": "latest"})


def test_the_environment_says_what_an_endpoint_is_told():
    assert EndpointSettings.from_environment({}) == EndpointSettings()
    told = {
        "EVERGREEN_RELEASE": "7",
        "EVERGREEN_ARTIFACT": "abc",
        "EVERGREEN_TRIAL": "see",
        "EVERGREEN_TOKENS": "old  new",
        "EVERGREEN_EDGES": "[1, 2.5]",
        "EVERGREEN_REQUESTS": "/requests",
        "EVERGREEN_HISTORY": "/history.json",
    }
    assert EndpointSettings.from_environment(told) == EndpointSettings(
        release=7,
        artifact_digest="abc",
        trial_token="see",
        tokens=("old", "new"),
        tally_edges=(1.0, 2.5),
        request_log=Path("/requests"),
        history=Path("/history.json"),
    )
    assert EndpointSettings.from_environment(dict.fromkeys(told, "")) == EndpointSettings()


def test_two_endpoints_of_two_models_answer_beside_each_other_in_one_process(server, classifier):
    with ThreadPoolExecutor(4) as pool:
        ours = pool.map(server.ask, [HOUSE] * 20)
        theirs = pool.map(classifier.ask, [HOUSE] * 20)
    said = [answer.json() for answer in ours]
    assert {(one["model"], one["release"]) for one in said} == {("houses", 7)}
    assert {(one["model"], one["release"]) for one in (answer.json() for answer in theirs)} == {("dear_houses", None)}
    assert said[0]["predictions"] == near(server.model.estimator.predict(THREE[:1]))
    cards = [one.client.get("/model").json() for one in (server, classifier)]
    assert [card["model"] for card in cards] == ["houses", "dear_houses"]
    documents = [one.client.get("/docs.json").text for one in (server, classifier)]
    assert ["probabilities" in document for document in documents] == [False, True]


def test_two_endpoints_in_one_process_share_no_count_no_token_no_limit_and_no_log(
    house_model, dear_house_model, tmp_path
):
    with (
        in_process(house_model, tmp_path / "one", tokens=("secret",)) as one,
        in_process(dear_house_model, tmp_path / "two") as two,
    ):
        with_limits(two.endpoint, max_body_bytes=10)
        assert one.ask(HOUSE).status_code == 401
        assert two.ask(HOUSE).status_code == 413
        one.client.headers["Authorization"] = "Bearer secret"
        assert one.ask(HOUSE, HOUSE).status_code == 200
        logged = [[json.loads(line)["status"] for line in server.log().splitlines()] for server in (one, two)]
        one.endpoint.metrics.flush()
        two.endpoint.metrics.flush()
        counts = [server.endpoint.metrics.counters()["rows"] for server in (one, two)]
    assert logged == [[401, 200], [413]]
    assert counts == [2, 0]


def test_importing_the_service_loads_no_model_and_nothing_that_a_bento_lacks():
    banned = {"prefect", "great_expectations", "sqlalchemy", "pydantic_settings", "expectations", "flows", "sklearn"}
    banned |= {
        "bentos.ledger.releases",
        "bentos.serving.supervisor",
        "bentos.trial",
        "bentos.package",
        "pipeline.settings",
    }
    code = f"import sys, bentos.service; print(sorted({banned!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
