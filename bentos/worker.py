"""A process that answers requests on a socket it was given: `python -m bentos.worker` in the folder of a package.

The work is in `bentos.endpoint.uvicorn_worker`, whose imports take most of a start; this file imports next to nothing.
With EVERGREEN_IDLE in the environment, imports and the loading of the model run only while the processor is idle. The
supervisor sets it when other workers answer meanwhile.
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
"""How many seconds a start waits for idle time; after that the process restarts itself at normal priority."""


def main() -> None:
    """Read the descriptors of the two sockets from the command line, and serve."""
    parser = argparse.ArgumentParser(prog="bentos.worker")
    parser.add_argument("package", help="shown in process lists; the package is the working directory")
    parser.add_argument("--listener", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--ssl-certfile")
    parser.add_argument("--ssl-keyfile")
    arguments = parser.parse_args()
    # Ctrl-C reaches every process of a terminal; the supervisor decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener, line = socket.socket(fileno=arguments.listener), socket.socket(fileno=arguments.line)
    log = logs.to_stderr()
    loaded = threading.Event()
    threading.Thread(target=_exit_with_supervisor, args=(line, loaded), daemon=True).start()
    if os.environ.pop(IDLE, None):
        try:
            serve, app = run_idle(_load, IDLE_START_TIMEOUT)
        except TimeoutError:
            log.flush()
            os.execv(sys.executable, [sys.executable, "-m", "bentos.worker", *sys.argv[1:]])
    else:
        serve, app = _load()
    loaded.set()
    serve(app, listener, line, arguments.ssl_certfile, arguments.ssl_keyfile)
    log.flush()
    # Skip the shutdown of the interpreter, which would delay the end of a release's change.
    os._exit(0)


def _exit_with_supervisor(line: socket.socket, loaded: threading.Event) -> None:
    """End this process if its supervisor ends before the model is loaded; afterwards `serve` watches the line."""
    while not loaded.wait(0.5):
        with suppress(BlockingIOError):
            if not line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                os._exit(1)


def _load() -> tuple[Callable[..., None], Any]:
    from bentos.endpoint.uvicorn_worker import application, serve

    return serve, application()


if __name__ == "__main__":
    main()
