"""The service inside every Bento: one model behind the whole HTTP contract, under plain `bentoml serve`.

Importing it does nothing heavy; the artifact beside the code is loaded when the service starts. The environment then
says: EVERGREEN_RELEASE, the ledger's number for what is served (absent: null); EVERGREEN_ARTIFACT, the digest that the
artifact must have, checked before anything is unpickled (absent: any); EVERGREEN_TRIAL, a token that opens GET /trial,
which tells the file of every loaded module of the project (absent: there is no such path); EVERGREEN_TOKENS, one or
more bearer tokens with blanks between them, one of which every request but for /livez and /readyz must bear (absent:
anybody may ask).
"""

import asyncio
import hmac
import json
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import bentoml
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos import page, problems, wire
from bentos.problems import Found, Problem
from pipeline.artifact import load_artifact
from pipeline.compiled import UnanswerableError, columns_of
from pipeline.errors import ServerError
from pipeline.predict import Answers, predict, taken
from pipeline.schema import to_frame, to_table

ARTIFACT = Path(__file__).resolve().parent.parent / "artifact"
THREADS = 4
"""How many requests a worker predicts at once; the others wait, and the event loop stays free."""
BLOCK = 16
"""Rows go to the estimator in whole blocks of this many, so that none is predicted otherwise for its company."""
_READ = ("GET", "HEAD")
_OPEN = ("/livez", "/readyz", "/trial")
"""What needs no token of EVERGREEN_TOKENS; the trial has one of its own."""
_UNAUTHORIZED = Problem(
    401, "A token is needed here: send it as `Authorization: Bearer ...`.", headers={"WWW-Authenticate": "Bearer"}
)

logger = logging.getLogger(__name__)


# BentoML's access log breaks the answer to a request whose Content-Type is not UTF-8, so it leaves that out.
@bentoml.service(envs=[{"name": "OMP_NUM_THREADS", "value": "1"}], logging={"access": {"request_content_type": False}})
class Endpoint:
    """The model of this Bento."""

    def __init__(self) -> None:
        release = os.environ.get("EVERGREEN_RELEASE") or None
        if release is not None and not release.isdecimal():
            raise ServerError(f"EVERGREEN_RELEASE is {release!r}; give the number of a release, or leave it out")
        self.release = None if release is None else int(release)
        self.trial_token = os.environ.get("EVERGREEN_TRIAL") or None
        artifact = load_artifact(ARTIFACT, expected=os.environ.get("EVERGREEN_ARTIFACT") or None)
        self.schema = artifact.schema
        self.artifact = artifact
        self.program = artifact.program()
        if self.program is None:
            self.estimator  # noqa: B018  loaded before the service says that it is ready
        self.tokens = tuple(os.environ.get("EVERGREEN_TOKENS", "").split())
        limits = artifact.manifest["limits"]
        self.most_rows: int = limits["rows"]
        self.most_bytes: int = limits["body_bytes"]
        self.most_at_once: int = limits["at_once"]
        self.seconds: float = limits["seconds"]
        self.example = artifact.golden()[0][0]
        self.card = _card(artifact.manifest, self.release)

    @cached_property
    def estimator(self) -> Any:
        """The trained pipeline; where a plan answers it is loaded only for rows that the plan leaves to it."""
        return self.artifact.estimator()

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict records, each an object of features by name; also as CSV, with a header row."""
        answer = self.answer(wire.JSON, json.dumps({"records": records}).encode())
        if isinstance(answer, Problem):
            raise bentoml.exceptions.InvalidArgument(answer.detail)
        answered: dict[str, Any] = json.loads(answer)
        return answered

    def answer(self, media: str, body: bytes) -> bytes | Problem:
        """Return the predictions of a body of JSON or CSV in the same form, or why it is refused."""
        read = wire.read_json if media == wire.JSON else wire.read_csv
        batch = read(body, self.schema, self.most_rows)
        if isinstance(batch, Problem):
            return batch
        answers = self._ask(batch.rows)
        if isinstance(answers, Problem):
            return answers
        for feature, count in wire.unseen(batch.rows, self.schema.features).items():
            _unseen_categories().labels(self.card["model"], feature).inc(count)
        if media == wire.JSON:
            return wire.write_json(answers, self.card["model"], self.release)
        return wire.write_csv(answers, batch.keys)

    def _ask(self, rows: Sequence[dict[str, Any]]) -> Answers | Problem:
        try:
            answers = self._predict(rows)
            bad = wire.unanswered(answers)
        except Exception as error:
            bad = self._refused(rows)
            if not bad:
                raise
            logger.warning("the model raised on %d rows of %d\n%s", len(bad), len(rows), _trace(error))
        found = Found()
        for row in bad:
            found.add(row, None, "the model has no answer for this row")
        return found.problem() or answers

    def _predict(self, rows: Sequence[dict[str, Any]]) -> Answers:
        if self.program is not None:
            with suppress(UnanswerableError):
                return self.program(*columns_of(rows, self.program.plan))
        # Linear algebra rounds the rows that fill no whole block of its kernels otherwise. What pads is cut off again.
        padded = [*rows, *[rows[-1]] * (-len(rows) % BLOCK)]
        answers = predict(self.estimator, to_frame(to_table(padded, self.schema.features), self.schema.features))
        return taken(answers, slice(len(rows)))

    def _refused(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Return the first rows that the estimator raises on when alone, found by halving."""
        bad: list[int] = []
        parts = [range(len(rows))]
        while parts and len(bad) < problems.MOST_LISTED:
            part = parts.pop()
            try:
                self._predict(rows[part.start : part.stop])
            except Exception:
                if len(part) == 1:
                    bad.append(part.start)
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        return bad


def _card(manifest: dict[str, Any], release: int | None) -> dict[str, Any]:
    """Return the model card; to the contract's fields it adds what the task says of itself, and its labels."""
    task = dict(manifest["task"])
    return {
        "model": manifest["model"],
        "release": release,
        "task": task.pop("kind"),
        **task,
        "target": manifest["target"],
        **({"labels": manifest["labels"]} if manifest["labels"] else {}),
        "features": manifest["schema"]["features"],
        "metrics": manifest["evaluation"]["challenger"],
        "snapshot": manifest["digests"]["snapshot"],
        "created": manifest["created"],
    }


@cache
def _unseen_categories() -> Any:
    # BentoML says where workers keep their counts after this module is imported, and prometheus_client asks on import.
    from prometheus_client import Counter

    what = "Values of features that training never saw"
    return Counter("evergreen_unseen_categories_total", what, ["model", "feature"])


class Contract:
    """Answers requests as the contract says; what is BentoML's own passes through, its errors turned into problems."""

    def __init__(self, app: ASGIApp, endpoint: Callable[[], Any] = bentoml.get_current_service) -> None:
        self.app = app
        self.endpoint = endpoint
        self.threads = anyio.CapacityLimiter(THREADS)
        self.under_way = 0
        self.routes: dict[str, tuple[tuple[str, ...], Callable[[Request], Awaitable[Response | Problem]]]] = {
            "/predict": (("POST",), self._predict),
            "/model": (_READ, self._model),
            "/": (_READ, self._page),
            "/docs": (_READ, self._docs),
            "/docs.json": (_READ, self._openapi),
            "/trial": (_READ, self._trial),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if not self._may(Request(scope)):
                await _refusal(_UNAUTHORIZED)(scope, receive, sending)
            elif scope["path"] in self.routes:
                response = await self._answer(Request(scope, receive))
                await response(scope, receive, sending)
            else:
                await self._pass(scope, receive, sending)
        except ClientDisconnect:
            pass
        except Exception as error:
            logger.error("%s %r broke\n%s", scope["method"], scope["path"], _trace(error))
            if not started:
                await _refusal(Problem(500, "Something broke here; the server's log says what."))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        methods, answer = self.routes[path]
        if path == "/trial" and not self._is_trial(request):
            return _refusal(_not_found(path))
        if request.method not in methods:
            return _refusal(_not_allowed(request.method, ", ".join(methods)))
        response = await answer(request)
        return _refusal(response) if isinstance(response, Problem) else response

    async def _predict(self, request: Request) -> Response | Problem:
        endpoint = self.endpoint()
        headers = request.headers
        media = wire.media_type(headers.get("content-type", ""), headers.get("content-encoding", ""))
        if isinstance(media, Problem):
            return media
        if self.under_way >= endpoint.most_at_once:
            said = f"{endpoint.most_at_once} requests are under way, which is the most at once; ask again in a second."
            return Problem(429, said, headers={"Retry-After": "1"})
        self.under_way += 1
        body: bytes | Problem = Problem(408, f"The body did not arrive within {endpoint.seconds:g} s.")
        try:
            with anyio.move_on_after(endpoint.seconds):
                body = await _body(request, endpoint.most_bytes)
        finally:
            self.under_way -= 1
        if isinstance(body, Problem):
            return body
        answer = await self._in_time(partial(endpoint.answer, media, body), endpoint.seconds)
        if isinstance(answer, Problem):
            return answer
        release = "none" if endpoint.release is None else str(endpoint.release)
        return Response(answer, media_type=media, headers={"Evergreen-Release": release})

    async def _in_time(self, work: Callable[[], bytes | Problem], seconds: float) -> bytes | Problem:
        """Do work in a thread and return its result, or a 504; a thread that is late cannot be stopped, and counts."""
        self.under_way += 1
        task = asyncio.ensure_future(anyio.to_thread.run_sync(work, limiter=self.threads))
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            return Problem(504, f"The prediction took longer than {seconds:g} s; send fewer rows.")
        return task.result()

    def _ended(self, task: "asyncio.Future[bytes | Problem]") -> None:
        self.under_way -= 1
        if not task.cancelled():
            task.exception()

    async def _model(self, _: Request) -> Response:
        return JSONResponse(self.endpoint().card)

    async def _page(self, request: Request) -> Response:
        endpoint = self.endpoint()
        url = f"{request.scope['scheme']}://{request.headers.get('host', 'localhost')}/predict"
        return HTMLResponse(page.html(endpoint.card, endpoint.example, url), headers=page.HEADERS)

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(page.DOCS, headers=page.DOCS_HEADERS)

    async def _openapi(self, _: Request) -> Response:
        endpoint = self.endpoint()
        others = [*endpoint.schema.key, *endpoint.schema.ignored]
        return JSONResponse(
            page.openapi(endpoint.bento_service.openapi_spec.asdict(), endpoint.card, others, endpoint.example)
        )

    async def _trial(self, _: Request) -> Response:
        modules = {
            name: getattr(module, "__file__", None)
            for name, module in list(sys.modules.items())
            if name.partition(".")[0] in ("pipeline", "bentos")
        }
        return JSONResponse({"modules": modules})

    def _may(self, request: Request) -> bool:
        """Tell whether a request bears one of the tokens, where there are some, in a time that does not tell which."""
        tokens = self.endpoint().tokens
        if not tokens or request.scope["path"] in _OPEN:
            return True
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        same = [hmac.compare_digest(sent.encode(), token.encode()) for token in tokens]
        return kind.lower() == "bearer" and any(same)

    def _is_trial(self, request: Request) -> bool:
        token = self.endpoint().trial_token
        sent = request.headers.get("authorization", "")
        return token is not None and hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Problem | None = None

        async def sending(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = _theirs(scope, message)
            if refused is None:
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                await _refusal(refused)(scope, receive, send)

        await self.app(scope, receive, sending)


Endpoint.add_asgi_middleware(Contract)  # type: ignore[attr-defined]  # mypy takes no class decorators


async def _body(request: Request, most: int) -> bytes | Problem:
    """Return the body of a request, or its refusal as soon as it is known to be longer than `most` bytes."""
    refused = Problem(413, f"The body is longer than {most} bytes, which is the most; send the rows in parts.")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        return refused
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > most:
            return refused
        body += part
    return bytes(body)


def _refusal(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=problems.MEDIA_TYPE)


def _not_found(path: str) -> Problem:
    return Problem(404, f"There is no {path[:100]} here; / says what there is.")


def _not_allowed(method: str, allowed: str) -> Problem:
    return Problem(405, f"{method[:20]} is not for this path; use {allowed}.", headers={"Allow": allowed})


def _theirs(scope: Scope, start: Message) -> Problem | None:
    """Return BentoML's own refusal as a problem; None when it is none. A redirect to a path with a slash is a 404."""
    status = start["status"]
    if status in (307, 404):
        return _not_found(scope["path"])
    if status == 405:
        allowed = dict(start["headers"]).get(b"allow", b"GET, HEAD").decode()
        return _not_allowed(scope["method"], ", ".join(sorted(allowed.split(", "))))
    return Problem(status, "The server cannot answer this now.") if status >= 400 else None


def _trace(error: BaseException) -> str:
    """Return an exception's frames and type; its message may quote values of a request, which no log should carry."""
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
