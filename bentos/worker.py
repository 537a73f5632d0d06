"""One process that answers requests on a socket it was given: `python -m bentos.worker` in the folder of a package.

It reports to who started it over a second socket, a JSON object a line: {"state": "ready"} once it answers as it was
trained; {"state": "alive", ...} every second, with what it counted; {"state": "stuck"} when a prediction never ends.
There it is told {"do": "drain"}: answer what comes on the connections there are until they are gone, and end;
{"do": "degraded", "why": ...}: say so at /readyz; {"do": "share", "path": socket, "share": s}: let another worker
answer a share of the requests, or none where there is no path; {"do": "shadow", ...}: ask that one a copy of them.
When the other end closes, it ends: it never outlives who started it.
"""

import argparse
import asyncio
import importlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bentos import logs, problems
from bentos.contract import Contract
from bentos.forward import FORWARD_SECONDS, Route, Shadow
from bentos.problems import Problem
from pipeline.processes import gently, promptly

HEADER_SECONDS = 10.0
"""How long a client may take to send the head of a request, from connecting or from its first byte on."""
HEADER_BYTES = 65_536
"""How long a head may be, and what is around the parts of a body and after it."""
REST_SECONDS = 30.0
"""How long what is left of a body may go on to arrive once its request was answered."""
MOST_PIPELINED = 1000
"""How many requests a client may send before it has the answer to the first."""
KEEP_ALIVE_SECONDS = 75
"""How long a connection may idle; longer than the proxies before it wait, so that it is they who close it."""
DRAIN_SECONDS = 30.0
"""How long a worker that is to end waits for its connections."""
DRAIN_IDLE_SECONDS = 5.0
"""How long it waits for a request on those that are idle."""
ROUTES = {"share": Route, "shadow": Shadow}
STUCK_FACTOR = 3.0
"""A prediction that takes so many times the seconds a request may take will not end."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, with an end to what is too slow or too much, and problems for garbage."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.head: asyncio.TimerHandle | None = None
        self.rest: asyncio.TimerHandle | None = None
        self.head_bytes = 0
        """How many bytes came since the last that belong to a body, or to a whole head."""
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        self.idle_since = time.monotonic()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._have_head()
        self._have_rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, but neither more than HEADER_BYTES besides bodies nor more than MOST_PIPELINED requests."""
        self._unset_keepalive_if_required()
        self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")
        if self.transport.is_closing():
            return
        if self.head_bytes > HEADER_BYTES:
            self._refuse(_TOO_LONG)
        elif len(self.pipeline) > MOST_PIPELINED:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the head of another request."""
        super().on_message_begin()
        if self.head is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Wait no more; a request to change to another protocol waits for `_stay`."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.head_bytes = 0
        self._have_head()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self.head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is whole."""
        if not self.parser.should_upgrade():
            self._have_rest()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note since when the connection idles; let go what is left of a body, but not for ever."""
        self.idle_since = time.monotonic()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self.rest = self.loop.call_later(REST_SECONDS, self.transport.close)

    def idles(self) -> bool:
        """Tell whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is no HTTP."""
        long = self.head is not None and self.head_bytes > HEADER_BYTES
        self._refuse(_TOO_LONG if long else Problem(400, "The request is not HTTP/1.1."))

    def _stay(self, rest: bytes) -> None:
        """Read a request to change to another protocol as if it were none, as HTTP allows.

        The parser takes all that follows such a head for the other protocol, the body of the request, too.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(Problem(405, "CONNECT is for proxies, and this is none."))
            return
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"%s %s HTTP/%s\r\n%s\r\n%s" % (method, self.url, version, fields, rest))

    def _await_head(self) -> None:
        self.head_bytes = 0
        self.head = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _have_head(self) -> None:
        if self.head is not None:
            self.head.cancel()
            self.head = None

    def _have_rest(self) -> None:
        if self.rest is not None:
            self.rest.cancel()
            self.rest = None

    def _too_slow(self) -> None:
        self.head = None
        if self.transport.is_closing():
            return
        if not self.idles():
            # Nothing can be said before the answer to the request before.
            self.head = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        elif not self.head_bytes:
            # Browsers connect in advance, and would take an answer for that to their next request.
            self.transport.close()
        else:
            self._refuse(Problem(408, f"The head of the request did not arrive within {HEADER_SECONDS:g} s."))

    def _refuse(self, problem: Problem) -> None:
        self._have_head()
        if self.pipeline or not (self.idles() or self.cycle.more_body):
            # What was asked before is answered, and nothing after it: the refusal would be taken for that answer.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if self.rest is None:
            body = problem.body()
            phrase = json.loads(body)["title"].encode()
            head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (problem.status, phrase, problems.MEDIA_TYPE.encode(), len(body)) + body)
        self.transport.close()


_TOO_LONG = Problem(431, f"The head of the request is longer than {HEADER_BYTES} bytes.")


class Worker:
    """The server of one process, and its line to who started it."""

    def __init__(self, contract: Callable[..., Any], server: uvicorn.Server, line: socket.socket) -> None:
        self.server, self.line = server, line
        # Around the contract there may be what answers for other origins, and what traces.
        inner: Any = contract
        while not isinstance(inner, Contract):
            inner = inner.app
        self.contract = inner

    async def run(self, listener: socket.socket) -> None:
        """Serve until told to end."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(loop,), name="line", daemon=True).start()
        report = loop.create_task(self._report())
        # uvicorn has its own handler while it serves, and then raises the signal again: too soon for the last lines.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await self.server.serve(sockets=[listener])
        report.cancel()
        if self.contract.canary is not None:
            await self.contract.canary.close()
        self.contract.flush()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        for told in orders(self.line):
            if told["do"] == "drain":
                asyncio.run_coroutine_threadsafe(self._drain(), loop)
            elif told["do"] == "degraded":
                self.contract.degraded = told["why"]
            elif told["do"] in ROUTES:
                path = told["path"]
                route = ROUTES[told["do"]](path, told["share"]) if path else None
                asyncio.run_coroutine_threadsafe(self._share(route), loop)
        # The other end is gone. What is in flight is answered; what hangs is left behind.
        loop.call_soon_threadsafe(setattr, self.server, "should_exit", True)
        time.sleep(DRAIN_IDLE_SECONDS)
        os._exit(1)

    async def _report(self) -> None:
        while not self.server.started:
            await asyncio.sleep(0.01)
        self._say(state="ready")
        while True:
            await asyncio.sleep(1.0)
            oldest = max((time.monotonic() - begun for begun in self.contract.since.values()), default=0.0)
            stuck = oldest > STUCK_FACTOR * self.contract.endpoint.seconds + 1.0
            route, tally = self.contract.canary, self.contract.endpoint.metrics.tally()
            found = asdict(route.found) if isinstance(route, Shadow) else None
            counts = {"tally": tally, "failed": route.failed if route else 0, "found": found}
            self._say(state="stuck" if stuck else "alive", oldest=round(oldest, 1), **counts)

    async def _share(self, route: Route | None) -> None:
        before, self.contract.canary = self.contract.canary, route
        if before is not None:
            # What it was asked and has not answered yet.
            await asyncio.sleep(FORWARD_SECONDS)
            await before.close()

    async def _drain(self) -> None:
        """Take no new connection, answer what comes on the others, asking them to close, and end when they are gone."""
        self.contract.draining = True
        for server in self.server.servers:
            server.close()
        end = time.monotonic() + DRAIN_SECONDS
        connections = self.server.server_state.connections
        while connections and time.monotonic() < end:
            await asyncio.sleep(0.05)
            for connection in list(connections):
                if isinstance(connection, Protocol) and connection.idles():
                    idle = time.monotonic() - connection.idle_since
                    if idle > DRAIN_IDLE_SECONDS:
                        connection.transport.close()
        self.server.should_exit = True

    def _say(self, **said: object) -> None:
        try:
            self.line.sendall(json.dumps(said).encode() + b"\n")
        except OSError:
            self.server.should_exit = True


def orders(line: socket.socket) -> Any:
    """Yield what the other end says, until it closes."""
    with line.makefile("rb") as lines:
        for one in lines:
            yield json.loads(one)


def serve(listener: socket.socket, line: socket.socket, certificate: str | None, key: str | None) -> None:
    """Answer requests on a listening socket until told to end over the line."""
    log = logs.to_stderr()
    # Its imports take most of a start. What answers on this machine meanwhile goes first.
    Endpoint = gently(importlib.import_module, "bentos.service").Endpoint
    app = Endpoint.to_asgi()
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(DRAIN_SECONDS),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)
    promptly()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(Worker(app, server, line).run(listener))
    log.flush()


def main() -> None:
    """Read the numbers of the two sockets from the command line, and serve."""
    parser = argparse.ArgumentParser(prog="bentos.worker")
    parser.add_argument("package", help="for people who look at processes; it is the folder this starts in that counts")
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--ssl-certfile")
    parser.add_argument("--ssl-keyfile")
    given = parser.parse_args()
    # Ctrl-C reaches every process of a terminal; the one that started this says when it is to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener, line = socket.socket(fileno=given.listener), socket.socket(fileno=given.line)
    serve(listener, line, given.ssl_certfile, given.ssl_keyfile)
    # What is left to do is Python's own end, which takes longer than a release has time for.
    os._exit(0)


if __name__ == "__main__":
    main()
