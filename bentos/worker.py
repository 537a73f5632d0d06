"""A process that answers requests on a socket it was given: `python -m bentos.worker` in the folder of a package.

What it does is in `bentos.endpoint.uvicorn_worker`, whose imports are most of a start; this file imports next to
nothing. With EVERGREEN_IDLE in the environment they, and the loading of the model, are done while nothing else wants
the processor: that is for a start in no hurry, since others answer meanwhile.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bentos import logs
from pipeline.processes import run_idle

IDLE = "EVERGREEN_IDLE"
IDLE_START_TIMEOUT = 5.0
"""How long a start waits for idle time. On a machine that has none it then begins anew, in a hurry as any other."""


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
    log = logs.to_stderr()
    loaded = threading.Event()
    threading.Thread(target=_exit_with_supervisor, args=(line, loaded), daemon=True).start()
    if os.environ.pop(IDLE, None):
        try:
            serve, app = run_idle(_what_serves, IDLE_START_TIMEOUT)
        except TimeoutError:
            log.flush()
            os.execv(sys.executable, [sys.executable, "-m", "bentos.worker", *sys.argv[1:]])
    else:
        serve, app = _what_serves()
    loaded.set()
    serve(app, listener, line, given.ssl_certfile, given.ssl_keyfile)
    log.flush()
    # What is left to do is Python's own end, which takes longer than a release has time for.
    os._exit(0)


def _exit_with_supervisor(line: socket.socket, loaded: threading.Event) -> None:
    """End this process when who started it has gone before the model was loaded; afterwards `serve` listens."""
    while not loaded.wait(0.5):
        with suppress(BlockingIOError):
            if not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                os._exit(1)


def _what_serves() -> tuple[Callable[..., None], Any]:
    from bentos.endpoint.uvicorn_worker import application, serve

    return serve, application()


if __name__ == "__main__":
    main()
