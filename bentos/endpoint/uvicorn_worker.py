"""The work of one process that answers requests on a socket it was given, and what it says to who started it.

It reports over a second socket, a JSON object a line: {"state": "ready"} once it answers as it was trained;
{"state": "alive", ...} every second, with what it counted; {"state": "stuck"} when a prediction never ends.
There it is told {"do": "drain"}: answer what comes on the connections there are until they are gone, and end;
{"do": "degraded", "why": ...}: say so at /readyz; {"do": "share", "path": socket, "share": s}: let another worker
answer a share of the requests, or none where there is no path; {"do": "shadow", ...}: ask that one a copy of them.
When the other end closes, it ends: it never outlives who started it.
"""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import uvicorn

from bentos.endpoint.asgi import Contract
from bentos.endpoint.http1 import Protocol
from bentos.endpoint.mirroring import FORWARD_TIMEOUT, Route, Shadow
from bentos.service import EndpointService

KEEP_ALIVE_TIMEOUT = 75
"""How long a connection may idle; longer than the proxies before it wait, so that it is they who close it."""
DRAIN_TIMEOUT = 30.0
"""How long a worker that is to end waits for its connections."""
IDLE_DRAIN_TIMEOUT = 5.0
"""How long it waits for a request on those that are idle."""
ROUTES = {"share": Route, "shadow": Shadow}
STUCK_FACTOR = 3.0
"""A prediction that takes so many times the seconds a request may take will not end."""


class UvicornWorker:
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
        time.sleep(IDLE_DRAIN_TIMEOUT)
        os._exit(1)

    async def _report(self) -> None:
        while not self.server.started:
            await asyncio.sleep(0.01)
        self._send(state="ready")
        while True:
            await asyncio.sleep(1.0)
            oldest = max((time.monotonic() - begun for begun in self.contract.since.values()), default=0.0)
            stuck = oldest > STUCK_FACTOR * self.contract.endpoint.limits.timeout_seconds + 1.0
            route, tally = self.contract.canary, self.contract.endpoint.metrics.counters()
            found = asdict(route.found) if isinstance(route, Shadow) else None
            counts = {"tally": tally, "failed": route.failed if route else 0, "found": found}
            self._send(state="stuck" if stuck else "alive", oldest=round(oldest, 1), **counts)

    async def _share(self, route: Route | None) -> None:
        before, self.contract.canary = self.contract.canary, route
        if before is not None:
            # What it was asked and has not answered yet.
            await asyncio.sleep(FORWARD_TIMEOUT)
            await before.close()

    async def _drain(self) -> None:
        """Take no new connection, answer what comes on the others, asking them to close, and end when they are gone."""
        self.contract.draining = True
        for server in self.server.servers:
            server.close()
        end = time.monotonic() + DRAIN_TIMEOUT
        connections = self.server.server_state.connections
        while connections and time.monotonic() < end:
            await asyncio.sleep(0.05)
            for connection in list(connections):
                if isinstance(connection, Protocol) and connection.idles():
                    idle = time.monotonic() - connection.idle_since
                    if idle > IDLE_DRAIN_TIMEOUT:
                        connection.transport.close()
        self.server.should_exit = True

    def _send(self, **said: object) -> None:
        try:
            self.line.sendall(json.dumps(said).encode() + b"\n")
        except OSError:
            self.server.should_exit = True


def orders(line: socket.socket) -> Any:
    """Yield what the other end says, until it closes."""
    with line.makefile("rb") as lines:
        for one in lines:
            yield json.loads(one)


def application() -> Any:
    """Return what answers requests, with what takes long done: BentoML is imported, and the model read.

    It begins no thread that lives on, as a prediction may: who calls this may be in no hurry, and so would they be.
    """
    return EndpointService.to_asgi()  # type: ignore[attr-defined]


def serve(app: Any, listener: socket.socket, line: socket.socket, certificate: str | None, key: str | None) -> None:
    """Answer requests on a listening socket until told to end over the line."""
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
        timeout_keep_alive=KEEP_ALIVE_TIMEOUT,
        timeout_graceful_shutdown=int(DRAIN_TIMEOUT),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(UvicornWorker(app, server, line).run(listener))
