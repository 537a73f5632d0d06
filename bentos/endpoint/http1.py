"""HTTP/1.1 as a worker speaks it: uvicorn's, with an end to what is too slow or too much, and problems for garbage."""

import asyncio
import json
import time
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bentos.endpoint import problems
from bentos.endpoint.problems import Problem

HEADER_TIMEOUT = 10.0
"""How long a client may take to send the head of a request, from connecting or from its first byte on."""
MAX_HEADER_BYTES = 65_536
"""How long a head may be, and what is around the parts of a body and after it."""
BODY_DRAIN_TIMEOUT = 30.0
"""How long what is left of a body may go on to arrive once its request was answered."""
MAX_PIPELINED = 1000
"""How many requests a client may send before it has the answer to the first."""


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
        """Read, but neither more than MAX_HEADER_BYTES besides bodies nor more than MAX_PIPELINED requests."""
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
        if self.head_bytes > MAX_HEADER_BYTES:
            self._refuse(_TOO_LONG)
        elif len(self.pipeline) > MAX_PIPELINED:
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
            self.rest = self.loop.call_later(BODY_DRAIN_TIMEOUT, self.transport.close)

    def idles(self) -> bool:
        """Tell whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is no HTTP."""
        long = self.head is not None and self.head_bytes > MAX_HEADER_BYTES
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
        self.head = self.loop.call_later(HEADER_TIMEOUT, self._too_slow)

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
            self.head = self.loop.call_later(HEADER_TIMEOUT, self._too_slow)
        elif not self.head_bytes:
            # Browsers connect in advance, and would take an answer for that to their next request.
            self.transport.close()
        else:
            self._refuse(Problem(408, f"The head of the request did not arrive within {HEADER_TIMEOUT:g} s."))

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


_TOO_LONG = Problem(431, f"The head of the request is longer than {MAX_HEADER_BYTES} bytes.")
