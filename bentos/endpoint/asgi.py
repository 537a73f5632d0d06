"""The HTTP contract as an ASGI application around BentoML's, which answers the paths in BENTOML_PATHS.

A request to /predict goes through `Contract._predict`: media type, limits, body, canary, then `_answer_body`, which
lets `bentos.endpoint.model.ServedModel` parse, predict and write. Refusals are problem details. Every answer names its
release and request, is counted, and gets a line in the log, which never has a feature's value or a token.
"""

import asyncio
import hmac
import itertools
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos import logs
from bentos.endpoint import formats, page, problems
from bentos.endpoint.batching import MicroBatcher
from bentos.endpoint.endpoint import Endpoint
from bentos.endpoint.metrics import CLIENT_CLOSED_REQUEST
from bentos.endpoint.mirroring import Route
from bentos.endpoint.model import QUICK_BYTES, AnsweredBody, trace
from bentos.endpoint.problems import Problem

THREADS = 4
"""How many threads of a worker run slow predictions, so that the event loop stays free."""
FLUSH_INTERVAL = 0.25
"""How many seconds counts and log lines are gathered before they are written."""
BENTOML_PATHS = ("/livez", "/readyz", "/healthz", "/metrics", "/schema.json")
"""The paths that BentoML answers, besides /static_content/."""
PUBLIC_PATHS = ("/livez", "/readyz", "/trial", "/", "/page.js", "/page.css")
"""The paths that need no bearer token: the page asks the user for it; /trial has a token of its own."""
PROBE_PATHS = ("/livez", "/readyz", "/healthz", "/metrics")
"""The paths that are logged only if they fail, because probes ask them all day."""
UNAUTHORIZED = Problem(
    401, "A token is needed here: send it as `Authorization: Bearer ...`.", headers={"WWW-Authenticate": "Bearer"}
)
_READ = ("GET", "HEAD")
_MEDIA = {formats.JSON: b"application/json", formats.CSV: b"text/csv; charset=utf-8"}
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

logger = logging.getLogger("evergreen")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it is sent.

    Attributes:
        body: the bytes.
        media: the Content-Type.
        status: the HTTP status.
        headers: more headers.
    """

    body: bytes
    media: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Exchange:
    """One request and what became of it.

    Attributes:
        scope: the request, as ASGI has it.
        receive: receives the body.
        send: sends the answer.
        headers: the request's headers by lower-case name.
        id: the request's id, the client's or one of ours.
        release: the release that answers, as in the header Evergreen-Release.
        status: the status that was sent; 0 before that.
        rows: how many rows were predicted; None if none were.
    """

    scope: Scope
    receive: Receive
    send: Send
    headers: dict[bytes, bytes]
    id: bytes
    release: bytes
    status: int = 0
    rows: int | None = None


class Contract:
    """Answers requests to one endpoint according to the HTTP contract, and starts and closes the endpoint."""

    def __init__(self, app: ASGIApp, endpoint: Endpoint, log: logs.Lines | None = None) -> None:
        """`app` is BentoML's application; without a `log`, requests are logged to standard error."""
        self.app, self.endpoint = app, endpoint
        self.draining = False
        """Whether this worker is draining: every answer then asks its client to reconnect."""
        self.degraded: str | None = None
        """Why this server does not serve the release that it should, for /readyz; None if it does."""
        self.canary: Route | None = None
        """The canary that gets a share or copies of the requests; None if there is none."""
        self.in_flight = 0
        self.since: dict[object, float] = {}
        """When each prediction that runs in a thread started, by `time.monotonic`."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="predict")
        self._batcher = MicroBatcher(endpoint.served.predict_batched, self._threads, endpoint.metrics.together)
        own = secrets.token_hex(4).encode()
        self._ids = (b"%s-%x" % (own, number) for number in itertools.count(1))
        self._lines: list[str] = []
        self._log = log or logs.stderr()
        self._flushing = False
        self._routes: dict[str, tuple[tuple[str, ...], Callable[[Exchange], Awaitable[Reply | Problem]]]] = {
            "/predict": (("POST",), self._predict),
            "/model": (_READ, self._model),
            "/history": (_READ, self._history),
            "/docs": (_READ, self._docs),
            "/docs.json": (_READ, self._openapi),
            "/trial": (_READ, self._trial),
            **dict.fromkeys(page.FILES, (_READ, self._page)),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; an exception becomes a 500."""
        if scope["type"] == "lifespan":
            return await self._live(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = time.perf_counter()
        headers = dict(scope["headers"])
        sent_id = headers.get(b"x-request-id")
        known = sent_id is not None and _ID.fullmatch(sent_id)
        own = self.endpoint.release_mark
        exchange = Exchange(scope, receive, send, headers, sent_id if known else next(self._ids), own)  # type: ignore[arg-type]
        try:
            reply = await self._answer(exchange)
            if reply is not None:
                await self._send(exchange, reply)
        except ConnectionError:
            exchange.status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            logger.error("request %s: %s broke\n%s", exchange.id.decode(), scope["method"], trace(error))
            if exchange.status == 0:
                broke = Problem(500, "An internal error occurred; see the server's log for this request id.")
                await self._send(exchange, _refusal(broke))
        self._note(exchange, time.perf_counter() - begun)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start the endpoint before the server takes requests, and close it when the server has answered the last."""
        self.endpoint.start()

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.endpoint.close()
            return message

        await self.app(scope, receiving, send)

    async def _answer(self, exchange: Exchange) -> Reply | None:
        scope = exchange.scope
        path = scope["path"]
        if self.endpoint.tokens and path not in PUBLIC_PATHS and not self._bears_token(exchange):
            return _refusal(UNAUTHORIZED)
        if path == "/readyz" and self.degraded is not None:
            return _json({"status": "degraded", "reason": self.degraded})
        route = self._routes.get(path)
        if route is None or (path == "/trial" and not self._is_trial(exchange)):
            if path in BENTOML_PATHS or path.startswith("/static_content/"):
                return await self._pass(exchange)
            return _refusal(_not_found(path))
        methods, answer = route
        if scope["method"] not in methods:
            return _refusal(_not_allowed(scope["method"], ", ".join(methods)))
        reply = await answer(exchange)
        return _refusal(reply) if isinstance(reply, Problem) else reply

    async def _predict(self, exchange: Exchange) -> Reply | Problem:
        endpoint, headers = self.endpoint, exchange.headers
        media = formats.media_type(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
        if isinstance(media, Problem):
            return media
        limits = endpoint.limits
        if self.in_flight >= limits.max_concurrency:
            detail = f"The limit of {limits.max_concurrency} concurrent requests is reached; retry after one second."
            return Problem(429, detail, headers={"Retry-After": "1"})
        self.in_flight += 1
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                body = await _body(exchange, limits.max_body_bytes)
        except TimeoutError:
            return Problem(
                408, f"The body did not arrive within {limits.timeout_seconds:g} s; send it faster or in parts."
            )
        finally:
            self.in_flight -= 1
        if isinstance(body, Problem):
            return body
        if self.canary is not None and self.canary.selects():
            answer = await self.canary.forward(media, body, exchange.id)
            if answer is not None:
                exchange.release = answer.release
                return Reply(answer.body, answer.media, answer.status, answer.headers)
        reply = await self._answer_body(exchange, media, body)
        if self.canary is not None and isinstance(reply, Reply):
            self.canary.observe(media, body, exchange.id, reply.body)
        return reply

    async def _answer_body(self, exchange: Exchange, media: str, body: bytes) -> Reply | Problem:
        metrics = self.endpoint.metrics
        try:
            answered = await self._predict_body(media, body)
        except TimeoutError:
            seconds = self.endpoint.limits.timeout_seconds
            return Problem(504, f"The prediction took longer than {seconds:g} s; send fewer rows.")
        if answered.broken:
            metrics.broke(answered.broken)
        if isinstance(answered, Problem):
            return answered
        exchange.rows = len(answered.answers.predictions)
        if self.endpoint.served.program is not None:
            metrics.together(exchange.rows)
        metrics.asked(answered.nulls, answered.unseen)
        metrics.predicted(answered.answers)
        if self.endpoint.recorder is not None:
            self.endpoint.recorder.note(media, body, answered.answers, exchange.id)
        return Reply(answered.body, _MEDIA[media])

    async def _predict_body(self, media: str, body: bytes) -> AnsweredBody | Problem:
        """Return the answers to a body: inline if the compiled plan predicts a small body, otherwise in a thread."""
        served, small = self.endpoint.served, len(body) <= QUICK_BYTES
        if served.program is not None:
            answered = served.answer_inline(media, body) if small else None
            return answered or await self._in_thread(served.answer, media, body)
        batch = served.read(media, body) if small else await self._in_thread(served.read, media, body)
        if isinstance(batch, Problem):
            return batch
        answers = await self._with_timeout(self._batcher.predict(batch))
        if isinstance(answers, Exception):
            raise answers
        return (
            served.answer_body(media, batch, answers)
            if small
            else await self._in_thread(served.answer_body, media, batch, answers)
        )

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self._with_timeout(asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments))

    async def _with_timeout(self, work: "asyncio.Future[Any]") -> Any:
        """Return the result of work in a thread, or raise TimeoutError; late work runs on and counts as in flight."""
        self.in_flight += 1
        self.since[work] = time.monotonic()
        work.add_done_callback(self._ended)
        await asyncio.wait({work}, timeout=self.endpoint.limits.timeout_seconds)
        if not work.done():
            raise TimeoutError
        return work.result()

    def _ended(self, work: "asyncio.Future[Any]") -> None:
        self.in_flight -= 1
        self.since.pop(work, None)
        if not work.cancelled():
            work.exception()

    async def _model(self, _: Exchange) -> Reply:
        return _json(self.endpoint.card)

    async def _history(self, _: Exchange) -> Reply:
        return _json({"model": self.endpoint.served.name, "releases": self.endpoint.history()})

    async def _page(self, exchange: Exchange) -> Reply:
        file = page.FILES[exchange.scope["path"]]
        content = self.endpoint.page[file.name]
        headers = {**page.HEADERS, "ETag": content.etag, "Vary": "Accept-Encoding"}
        if exchange.headers.get(b"if-none-match") == content.etag.encode():
            return Reply(b"", file.media, 304, headers)
        if b"gzip" in exchange.headers.get(b"accept-encoding", b""):
            return Reply(content.gzipped, file.media, headers={**headers, "Content-Encoding": "gzip"})
        return Reply(content.plain, file.media, headers=headers)

    async def _docs(self, _: Exchange) -> Reply:
        return Reply(page.DOCS.encode(), b"text/html; charset=utf-8", headers=page.DOCS_HEADERS)

    async def _openapi(self, _: Exchange) -> Reply:
        return _json(self.endpoint.openapi)

    async def _trial(self, _: Exchange) -> Reply:
        modules = {
            # A folder of modules without an __init__.py, as a project's models may be, has no file.
            name: getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in ("pipeline", "bentos")
        }
        return _json({"modules": modules})

    def _bears_token(self, exchange: Exchange) -> bool:
        """Return whether a request has one of the tokens, in a time that does not depend on which."""
        scheme, _, sent = exchange.headers.get(b"authorization", b"").partition(b" ")
        same = [hmac.compare_digest(sent, token.encode()) for token in self.endpoint.tokens]
        return scheme.lower() == b"bearer" and any(same)

    def _is_trial(self, exchange: Exchange) -> bool:
        token = self.endpoint.trial_token
        sent = exchange.headers.get(b"authorization", b"")
        return token is not None and hmac.compare_digest(sent, f"Bearer {token}".encode())

    async def _pass(self, exchange: Exchange) -> Reply | None:
        """Let BentoML answer; return its errors as problem details instead of sending them."""
        if exchange.scope["path"] == "/metrics":
            self.endpoint.metrics.flush()
        refused: Problem | None = None

        async def sending(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = _bentoml_refusal(exchange.scope, message)
                if refused is None:
                    exchange.status = message["status"]
                    message = {**message, "headers": [*message["headers"], *self._marks(exchange)]}
            if refused is None:
                await exchange.send(message)

        await self.app(exchange.scope, exchange.receive, sending)
        return None if refused is None else _refusal(refused)

    async def _send(self, exchange: Exchange, reply: Reply) -> None:
        exchange.status = reply.status
        headers = [
            (b"content-type", reply.media),
            (b"content-length", b"%d" % len(reply.body)),
            *self._marks(exchange),
            *((name.lower().encode(), value.encode()) for name, value in reply.headers.items()),
        ]
        await exchange.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": reply.body})

    def _marks(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer has."""
        marks = [(b"evergreen-release", exchange.release), (b"x-request-id", exchange.id)]
        return [*marks, (b"connection", b"close")] if self.draining else marks

    def _note(self, exchange: Exchange, seconds: float) -> None:
        path, status = exchange.scope["path"], exchange.status
        known = path in self._routes or path in BENTOML_PATHS
        # The canary's worker counts what it answered.
        if exchange.release == self.endpoint.release_mark:
            self.endpoint.metrics.answered(path if known else "other", status, seconds)
        if path not in PROBE_PATHS or status >= 400:
            self._lines.append(_line(exchange, seconds))
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self.flush)

    def flush(self) -> None:
        """Write the counts and log lines that were gathered."""
        self._flushing = False
        self.endpoint.metrics.flush()
        if self._lines:
            self._log.write("".join(self._lines))
            self._lines.clear()


def _line(exchange: Exchange, seconds: float) -> str:
    """Return the log line of a request; what the client chose is escaped as JSON."""
    now, scope = time.time(), exchange.scope
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
    path = json.dumps(scope["path"][:200])
    rows = "null" if exchange.rows is None else exchange.rows
    return (
        f'{{"time": "{stamp}", "level": "info", "event": "request", "request": "{exchange.id.decode()}", '
        f'"method": {json.dumps(scope["method"][:20])}, "path": {path}, "status": {exchange.status}, '
        f'"milliseconds": {seconds * 1000:.3f}, "rows": {rows}, "release": "{exchange.release.decode()}"}}\n'
    )


async def _body(exchange: Exchange, max_bytes: int) -> bytes | Problem:
    """Return the body of a request, or its refusal as soon as it is known to be longer than `max_bytes`."""
    refused = Problem(413, f"The body is longer than the limit of {max_bytes} bytes; send the rows in parts.")
    length = exchange.headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > max_bytes:
        return refused
    body = bytearray()
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        part = message.get("body", b"")
        if len(body) + len(part) > max_bytes:
            return refused
        if not message.get("more_body"):
            return bytes(body + part) if body else part
        body += part


def _json(value: Any) -> Reply:
    return Reply(json.dumps(value, ensure_ascii=False).encode(), b"application/json")


def _refusal(problem: Problem) -> Reply:
    return Reply(problem.body(), problems.MEDIA_TYPE.encode(), problem.status, problem.headers)


def _not_found(path: str) -> Problem:
    return Problem(404, f"There is no {path[:100]} here; /docs lists the paths.")


def _not_allowed(method: str, allowed: str) -> Problem:
    return Problem(405, f"This path does not allow {method[:20]}; use {allowed}.", headers={"Allow": allowed})


def _bentoml_refusal(scope: Scope, start: Message) -> Problem | None:
    """Return an error of BentoML as a problem; None if it is none. A redirect to a path with a slash is a 404."""
    status = start["status"]
    if status in (307, 404):
        return _not_found(scope["path"])
    if status == 405:
        allowed = dict(start["headers"]).get(b"allow", b"GET, HEAD").decode()
        return _not_allowed(scope["method"], ", ".join(sorted(allowed.split(", "))))
    return Problem(status, "The server cannot answer this request now; try again later.") if status >= 400 else None
