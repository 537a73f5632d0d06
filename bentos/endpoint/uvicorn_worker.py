"""One worker process: it answers requests on a socket that it was given, and talks with its supervisor.

The line to the supervisor is a second socket with one JSON object a line. The worker sends
- {"state": "ready"} once it answers its golden rows as it was trained,
- {"state": "alive", ...} every second, with its counters,
- {"state": "stuck", ...} if a prediction does not end.
The supervisor sends
- {"do": "drain"}: accept no new connections, answer the existing ones until they close, and end,
- {"do": "degraded", "why": ...}: report this reason at /readyz,
- {"do": "share", "path": socket, "share": s}: let another worker answer a share of the requests; without a path, none,
- {"do": "shadow", ...}: the same with copies of the requests.
When the supervisor's end closes, the worker ends: it never outlives its supervisor.
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
"""How many seconds a connection may idle: longer than common proxies wait, so that the proxy closes it first."""
DRAIN_TIMEOUT = 30.0
"""How many seconds a draining worker waits for its connections to close."""
IDLE_DRAIN_TIMEOUT = 5.0
"""How many seconds it waits for a request on an idle connection."""
ROUTES = {"share": Route, "shadow": Shadow}
STUCK_FACTOR = 3.0
"""A prediction that takes this many times the timeout of a request counts as stuck."""


class UvicornWorker:
    """The server of one process, and its line to the supervisor."""

    def __init__(self, contract: Callable[..., Any], server: uvicorn.Server, line: socket.socket) -> None:
        self.server, self.line = server, line
        # The middleware of CORS and tracing may be around the contract.
        inner: Any = contract
        while not isinstance(inner, Contract):
            inner = inner.app
        self.contract = inner

    async def run(self, listener: socket.socket) -> None:
        """Serve until the supervisor or a signal ends it."""
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
        for order in orders(self.line):
            if order["do"] == "drain":
                asyncio.run_coroutine_threadsafe(self._drain(), loop)
            elif order["do"] == "degraded":
                self.contract.degraded = order["why"]
            elif order["do"] in ROUTES:
                path = order["path"]
                route = ROUTES[order["do"]](path, order["share"]) if path else None
                asyncio.run_coroutine_threadsafe(self._set_route(route), loop)
        # The supervisor is gone: answer the requests in flight, but do not wait for those that hang.
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

    async def _set_route(self, route: Route | None) -> None:
        before, self.contract.canary = self.contract.canary, route
        if before is not None:
            # Wait for the requests that it has not answered yet.
            await asyncio.sleep(FORWARD_TIMEOUT)
            await before.close()

    async def _drain(self) -> None:
        """Accept no new connections, answer on the others with `Connection: close`, and end when all are closed."""
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

    def _send(self, **message: object) -> None:
        try:
            self.line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.server.should_exit = True


def orders(line: socket.socket) -> Any:
    """Yield the orders of the supervisor until it closes its end."""
    with line.makefile("rb") as lines:
        for text in lines:
            yield json.loads(text)


def application() -> Any:
    """Return the application, after the slow work: BentoML is imported and the model loaded.

    It starts no thread that lives on, because the caller may run at idle priority, which such a thread would keep.
    """
    return EndpointService.to_asgi()  # type: ignore[attr-defined]


def serve(app: Any, listener: socket.socket, line: socket.socket, certificate: str | None, key: str | None) -> None:
    """Answer requests on a listening socket until the line or a signal ends it."""
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
