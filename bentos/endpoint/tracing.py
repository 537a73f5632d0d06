"""Traces for OpenTelemetry: a span for each request, within the caller's trace, sent to a collector as OTLP in JSON.

Only where OTEL_EXPORTER_OTLP_ENDPOINT says where the collector is; OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and
OTEL_TRACES_SAMPLER mean what they mean everywhere. Else nothing here is imported, and no request takes another way. A
span bears method, path, status, release and the request's id, never a value.
"""

import asyncio
import json
import logging
import os
import urllib.request
from collections.abc import Sequence
from typing import Any

from opentelemetry import propagate
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORT_TIMEOUT = 5.0
EXPORT_INTERVAL_MS = 1000

logger = logging.getLogger("evergreen")


class Traced:
    """An application each of whose requests is a span."""

    def __init__(self, app: ASGIApp, exporter: SpanExporter, facts: dict[str, str]) -> None:
        self.app = app
        self._provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        self._exporter = exporter
        self._tracer = self._provider.get_tracer("evergreen")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within a span; send them while the server lives, and when it ends what is left."""
        if scope["type"] == "lifespan":
            # Its thread begins with the server: what made this may have been in no hurry.
            spans = BatchSpanProcessor(self._exporter, schedule_delay_millis=EXPORT_INTERVAL_MS)
            self._provider.add_span_processor(spans)
            await self.app(scope, receive, send)
            await asyncio.to_thread(self._provider.shutdown)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = propagate.extract({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        path = scope["path"][:200]
        facts = {"http.request.method": scope["method"], "url.path": path}
        named = f"{scope['method']} {path}"
        with self._tracer.start_as_current_span(named, caller, SpanKind.SERVER, facts) as span:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    said = {name.lower(): value.decode("latin-1") for name, value in message["headers"]}
                    span.set_attribute("http.response.status_code", message["status"])
                    span.set_attribute("evergreen.release", said.get(b"evergreen-release", "none"))
                    span.set_attribute("evergreen.request", said.get(b"x-request-id", ""))
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await self.app(scope, receive, sent)


def traced(app: ASGIApp) -> Traced:
    """Return an application whose requests are traced to the collector that the environment names."""
    pairs = (one.partition("=") for one in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if one)
    exporter = Collector(os.environ[COLLECTOR], {name.strip(): value.strip() for name, _, value in pairs})
    return Traced(app, exporter, {"service.version": os.environ.get("EVERGREEN_RELEASE") or "none"})


class Collector(SpanExporter):
    """Where spans are sent: OTLP over HTTP in JSON (opentelemetry.io/docs/specs/otlp); it needs no further package."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = f"{url.rstrip('/')}/v1/traces"
        self.headers = {"Content-Type": "application/json", **headers}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; what a collector does not take is lost, and said."""
        try:
            request = urllib.request.Request(self.url, json.dumps(in_otlp(spans)).encode(), self.headers)
            with urllib.request.urlopen(request, timeout=EXPORT_TIMEOUT):
                return SpanExportResult.SUCCESS
        except (OSError, ValueError) as error:
            logger.warning("%d spans were not taken by %s: %s", len(spans), self.url, error)
            return SpanExportResult.FAILURE


def in_otlp(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Return spans of one process as an ExportTraceServiceRequest in JSON: ids in hexadecimal, times in nanoseconds."""
    found = []
    for span in spans:
        context = span.context
        one: dict[str, Any] = {
            "traceId": f"{context.trace_id:032x}",
            "spanId": f"{context.span_id:016x}",
            "name": span.name,
            # OTLP counts from 1, the SDK from 0.
            "kind": span.kind.value + 1,
            "startTimeUnixNano": str(span.start_time),
            "endTimeUnixNano": str(span.end_time),
            "attributes": _attributes(span.attributes or {}),
            "status": {"code": span.status.status_code.value},
        }
        found.append(one | ({"parentSpanId": f"{span.parent.span_id:016x}"} if span.parent else {}))
    resource = {"attributes": _attributes(spans[0].resource.attributes)} if spans else {}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "evergreen"}, "spans": found}]}]}


def _attributes(facts: Any) -> list[dict[str, Any]]:
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [
        {"key": name, "value": {kinds.get(type(value), "stringValue"): value if type(value) in kinds else str(value)}}
        for name, value in facts.items()
    ]
