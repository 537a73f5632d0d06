"""Start worker processes of a package, and exchange messages with them.

`bentos.endpoint.uvicorn_worker` is the other end of the line and describes the messages.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from bentos.canary import Counters, ShadowDiff
from bentos.package import Bento, bentoml_environment
from pipeline.errors import ServerError
from pipeline.run_in_package import Order, protocol_of

BACKLOG = 2048
UNREAD_TIMEOUT = 60
"""The connection of a client that reads nothing of its answer for this many seconds is closed."""
MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
"""glibc keeps the memory of a large request for the next one: allocating it again took a third of the time of 1,000
rows of CSV."""


class WorkerState(StrEnum):
    """What a worker does."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass
class WorkerProcess:
    """One process of a package.

    Attributes:
        process: The process.
        line: The socket on which it and this process talk; see `bentos.endpoint.uvicorn_worker` for what they say.
        release: The number of the release it serves, None in a trial.
        orders: The orders that its package understands, see `pipeline.run_in_package`.
        state: What it does.
        started: When it entered its state, by `time.monotonic`.
        last_heard: When its last message came, by the same clock.
        counters: What it has answered.
        failed: How many requests or copies of them its canary could not answer.
        shadow_diff: How a shadow's predictions differ from its own.
        degraded: The reason that it gives at /readyz; None if there is none.
    """

    process: "subprocess.Popen[bytes]"
    line: socket.socket
    release: int | None
    orders: tuple[str, ...]
    state: WorkerState = WorkerState.STARTING
    started: float = field(default_factory=time.monotonic)
    last_heard: float = field(default_factory=time.monotonic)
    counters: Counters = field(default_factory=Counters)
    failed: int = 0
    shadow_diff: ShadowDiff = field(default_factory=ShadowDiff)
    degraded: str | None = None
    _buffer: bytes = b""

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped (SIGSTOP) and can neither answer nor end; False if the system does not say."""
        try:
            # As `4711 (python) T 1 ...`; the name may hold anything.
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have come since the last call; does not wait."""
        # Nothing more to read, or the line is closed because the worker was killed.
        with suppress(OSError):
            while part := self.line.recv(65_536):
                self._buffer += part
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self.last_heard = time.monotonic()
            yield json.loads(line)

    def becomes_ready(self, seconds: float) -> bool:
        """Wait until it is ready; return False if it ends or `seconds` pass before that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.gone:
            select.select([self.line], [], [], 1.0)
            if any(message["state"] == "ready" for message in self.messages()):
                self.state = WorkerState.READY
                return True
        return False

    def send(self, do: Order, **what: object) -> None:
        """Send it an order, if its package understands that order."""
        if do in self.orders:
            with suppress(OSError):
                self.line.sendall(json.dumps({"do": do, **what}).encode() + b"\n")

    def kill(self) -> None:
        """Kill it and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()

    def stop(self, seconds: float) -> None:
        """Let it answer the requests in flight for at most `seconds`, then kill it."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket for workers to share; ServerError if the address or port is not available."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"cannot listen on {host}, port {port}: {error.strerror}; give another host or port",
            code="server.cannot_listen",
        ) from error
    listener.setblocking(False)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it from the listener. Nothing else ends one whose answer waits in a buffer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT * 1000)
    return listener


def listen_here(path: Path) -> socket.socket:
    """Return a listening Unix socket that only processes of this user can connect to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def start(
    bento: Bento,
    release: int | None,
    listener: socket.socket,
    folder: Path,
    env: Mapping[str, str],
    options: Sequence[str] = (),
    log: BinaryIO | None = None,
) -> WorkerProcess:
    """Start a process that serves a package on a listening socket, with only the package's own code.

    `folder` is the home of BentoML and of the counts that workers share; `env` has the variables that `bentos.service`
    lists. The process logs to `log`, or to this process's standard error.
    """
    protocol = protocol_of(bento.path / "src")
    our_end, worker_end = socket.socketpair()
    our_end.setblocking(False)
    counts = folder / "metrics"
    counts.mkdir(parents=True, exist_ok=True)
    # More threads than cores only take turns: measured 73 against 203 requests a second.
    limits = {"PROMETHEUS_MULTIPROC_DIR": str(counts), "OMP_NUM_THREADS": "1", **MEMORY}
    with worker_end:
        descriptors = [listener.fileno(), worker_end.fileno()]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", protocol.modules["worker"]),
                *(str(bento.path), "--listener", str(descriptors[0]), "--line", str(descriptors[1])),
                *options,
            ],
            cwd=bento.path / "src",
            env={**bentoml_environment(folder), **limits, **env},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=log or sys.stderr.fileno(),
            stderr=log or sys.stderr.fileno(),
            # The supervisor handles Ctrl-C. A group, not a session: Linux may first divide the processor among
            # sessions, whatever their priorities, and a new worker would take as much as the old one.
            process_group=0,
        )
    return WorkerProcess(process, our_end, release, protocol.orders)
