"""The pages that runs leave, model cards and validation reports, over HTTP on this machine.

A link in the Prefect UI to a file leads nowhere, since browsers open none from a page; so `evergreen ui` serves them.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.files import read_json
from pipeline.settings import Settings

CARD, VALIDATION = "card.html", "validation.html"
PORT = 4201
_PATH = re.compile(rf"/([a-z][a-z0-9_]*)/([0-9a-f-]{{36}})/({re.escape(CARD)}|{re.escape(VALIDATION)})")
_HERE = ("127.0.0.1", "localhost", "[::1]")
"""By these names alone: what another site's name leads to is not for its pages to read."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def links(settings: Settings, run: Path) -> dict[str, str]:
    """Return, by what it is, the address of each page that a run has left in its folder.

    They are at `EVERGREEN_PAGES_URL`, where a team has its runs' folders on a server of its own, or else where
    `evergreen ui` serves them. Empty where neither can be told: for a Prefect server elsewhere.
    """
    there = {"model card": CARD, "validation report": VALIDATION}
    found = {what: name for what, name in there.items() if (run / name).exists()}
    base = settings.pages_url or _local(settings)
    return {what: f"{base.rstrip('/')}/{run.parent.name}/{run.name}/{name}" for what, name in found.items() if base}


@contextmanager
def serving(runs: Path, port: int = PORT) -> Iterator[str | None]:
    """Serve the pages in the folder of all runs while the block lasts; yield their address, None when it is taken."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match = _PATH.fullmatch(urlsplit(self.path).path)
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            try:
                page = runs.joinpath(*match.groups()).read_bytes() if match and host in _HERE else None
            except OSError:
                page = None
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Type", "text/plain" if page is None else "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(b"There is no such page; `evergreen gc` may have removed it." if page is None else page)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal is for other news."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Pages)
    except OSError:
        yield None
        return
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _local(settings: Settings) -> str:
    api = os.environ.get("PREFECT_API_URL", "")
    if api and urlsplit(api).hostname not in ("127.0.0.1", "localhost", "::1"):
        return ""
    try:
        return str(read_json(settings.folder("prefect") / "server.json")["pages"])
    except (OSError, ValueError, KeyError):
        return f"http://127.0.0.1:{PORT}"
