"""Requests are spans of their callers' traces where a collector is named, with no value in them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from house_endpoints import HOUSE, in_process
from serving import until
from starlette.middleware.cors import CORSMiddleware

from bentos.endpoint.asgi import Contract
from bentos.endpoint.tracing import Traced, traced


@pytest.fixture
def collector():
    """The address of what takes spans, what it was sent, and the headers of that."""
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()


def spans(taken):
    return [
        {**one, "attributes": {fact["key"]: next(iter(fact["value"].values())) for fact in one["attributes"]}}
        for _, _, body in taken
        for one in body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]


RECORDS = [HOUSE, {**HOUSE, "town": "Nevada"}]


def test_a_request_is_a_span_of_its_callers_trace_and_bears_no_value(house_model, collector, tmp_path, monkeypatch):
    url, taken = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=abc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "houses")
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with in_process(house_model, tmp_path / "log", traced, release=2) as server:
        headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "mine"}
        asked = server.client.post("/predict?token=XYZZY", json={"records": RECORDS}, headers=headers)
        assert asked.status_code == 200
        assert until(lambda: any(one["traceId"] == trace for one in spans(taken)), 10)
        assert server.client.post("/predict", json={}).status_code == 400
    (span,) = [one for one in spans(taken) if one["traceId"] == trace]
    assert (span["name"], span["kind"], span["parentSpanId"]) == ("POST /predict", 2, parent)
    assert span["attributes"] == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "http.response.status_code": 200,
        "evergreen.release": "2",
        "evergreen.request": "mine",
    }
    assert 0 < int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) < 10**10
    # What was asked just before the end is sent as well.
    assert 400 in [one["attributes"]["http.response.status_code"] for one in spans(taken)]
    assert {path for path, _, _ in taken} == {"/v1/traces"}
    assert {headers["Key"] for _, headers, _ in taken} == {"abc"}
    resource = taken[0][2]["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "houses"}} in resource
    assert "XYZZY" not in json.dumps([body for _, _, body in taken])


def test_a_collector_that_is_gone_costs_no_answer(house_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with in_process(house_model, tmp_path / "log", traced) as server:
        assert server.ask(*RECORDS).status_code == 200
        assert until(lambda: "spans were not taken by http://127.0.0.1:9/v1/traces" in server.log(), 10)
        assert server.ask(*RECORDS).status_code == 200


@pytest.mark.parametrize("collector", ["http://127.0.0.1:9", ""])
def test_the_service_traces_around_all_else_where_a_collector_is_named(house_model, monkeypatch, collector):
    from bentos import service

    monkeypatch.setattr(service, "ARTIFACT", house_model.folder / "artifact")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
    monkeypatch.setenv("EVERGREEN_CORS", "https://a.example")
    app = service.EndpointService.to_asgi()
    kinds = []
    while not kinds or kinds[-1] is not Contract:
        kinds.append(type(app))
        app = app.app
    assert kinds == [*([Traced] if collector else []), CORSMiddleware, Contract]
