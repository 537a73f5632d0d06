"""What hostile, broken and merely odd clients send: all of it is answered as the endpoint describes, or cut off."""

import re
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_service import Model, Server, classification, regression, serving

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
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return regression(tmp_path_factory.mktemp("houses"))


@pytest.fixture(scope="module")
def server(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serving(model, tmp_path_factory.mktemp("home"), EVERGREEN_RELEASE="7")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A classifier that wants a token."""
    model = classification(tmp_path_factory.mktemp("dear"))
    yield from serving(model, tmp_path_factory.mktemp("home"), EVERGREEN_TOKENS="old new")


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


def test_without_tokens_none_is_described(server):
    assert "bearer" not in server.client.get("/docs.json").text
