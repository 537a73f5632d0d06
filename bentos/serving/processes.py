"""Starting the processes that answer requests, and hearing from them; what they say is in
`bentos.endpoint.uvicorn_worker`."""

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
"""A client that takes nothing of its answer for so long is cut off."""
MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
"""glibc keeps the memory of a large request for the next: asking the system anew cost a third of 1,000 rows of CSV."""


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
        heard: When it said something last, by the same clock.
        tally: What it has answered.
        failed: How many copies or shares of requests its canary could not answer.
        found: How a shadow's predictions differ from its own.
        degraded: The reason that it was told to give at /readyz, None for none.
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
        """Whether somebody stopped the process (SIGSTOP), where the system tells: it can neither answer nor end."""
        try:
            # As `4711 (python) T 1 ...`; the name may hold anything.
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what it said since it was last listened to; does not wait."""
        # Nothing more to read, or the line is closed: this one was killed.
        with suppress(OSError):
            while part := self.line.recv(65_536):
                self._buffer += part
        *lines, self._buffer = self._buffer.split(b"\n")
        for one in lines:
            self.last_heard = time.monotonic()
            yield json.loads(one)

    def becomes_ready(self, seconds: float) -> bool:
        """Wait until it says that it is ready; False when it ended or the time is over before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.gone:
            select.select([self.line], [], [], 1.0)
            if any(said["state"] == "ready" for said in self.messages()):
                self.state = WorkerState.READY
                return True
        return False

    def send(self, do: Order, **what: object) -> None:
        """Tell it to do something, if its package knows how."""
        if do in self.orders:
            with suppress(OSError):
                self.line.sendall(json.dumps({"do": do, **what}).encode() + b"\n")

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()

    def stop(self, seconds: float) -> None:
        """Let it answer what is in flight, and end."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, which workers share; ServerError when that cannot be."""
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
        # Connections have it from their listener. Nothing else ends one whose answer waits in a buffer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT * 1000)
    return listener


def listen_here(path: Path) -> socket.socket:
    """Return a socket that listens for processes of this user alone."""
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
    """Start a process that serves a package on a listening socket, with the package's own code and nothing else's.

    `folder` is the home of BentoML and of counts that workers share; `env` says what is served, as `bentos.service`
    has it; what is logged goes to `log`, or to where this process logs.
    """
    protocol = protocol_of(bento.path / "src")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    counts = folder / "metrics"
    counts.mkdir(parents=True, exist_ok=True)
    # More threads than cores in each worker only take turns: measured 73 against 203 requests a second.
    settled = {"PROMETHEUS_MULTIPROC_DIR": str(counts), "OMP_NUM_THREADS": "1", **MEMORY}
    with theirs:
        numbers = [listener.fileno(), theirs.fileno()]
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", protocol.modules["worker"]),
                *(str(bento.path), "--listener", str(numbers[0]), "--line", str(numbers[1])),
                *options,
            ],
            cwd=bento.path / "src",
            env={**bentoml_environment(folder), **settled, **env},
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=log or sys.stderr.fileno(),
            stderr=log or sys.stderr.fileno(),
            # Ctrl-C is for who started it. Not a session of its own: Linux may share the processor among sessions
            # first, whatever the priority of what is in them, and a new worker would take as much as the old one.
            process_group=0,
        )
    return WorkerProcess(process, ours, release, protocol.orders)
