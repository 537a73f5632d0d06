"""The ledger as one server uses it: a ledger that cannot be read or written now holds up nothing else."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from bentos import releasing
from bentos.ledger import releases, servers
from bentos.ledger.releases import DesiredState
from bentos.logs import say
from bentos.serving.server_states import ServerState
from pipeline.errors import ArtifactError, LedgerError, OvertakenError, PackageError, ReleaseError, StorageError

POLL_INTERVAL = 0.5
"""How many seconds pass between two questions what is wanted."""
POLL_BACKOFF = 5.0
"""The same after a question that the ledger could not answer."""
WRITE_BACKOFF = 2.0
"""How many seconds pass until the ledger is told again what it could not be told."""
LEAVE_TIMEOUT = 5.0
"""How many seconds the end of a server waits for the ledger."""


class LedgerClient:
    """Reads and writes the ledger for one server, in two threads; no call waits for the ledger.

    What is to be written is written in order, each thing again until the ledger takes or refuses it. `home` is the
    BentoML home with the packages.
    """

    def __init__(self, ledger: Engine, home: Path, model: str, server: str) -> None:
        self.ledger, self.home, self.model, self.server = ledger, home, model, server
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._answer: Future[DesiredState] | None = None
        self._asked = 0.0
        self._unreadable = False
        self._writes: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._heartbeats = 0
        self._leaving = Event()
        # A daemon: this process ends even when a transaction of another one does not.
        self._writer = Thread(target=self._write, name="ledger-writer", daemon=True)
        self._writer.start()
        self._write_later(servers.register, ledger, model, server)

    def desired_state(self) -> DesiredState | None:
        """Return what should be served, if an answer of the ledger has come; ask again when it is time to."""
        now = time.monotonic()
        if self._answer is None:
            if now - self._asked > (POLL_BACKOFF if self._unreadable else POLL_INTERVAL):
                self._asked = now
                self._answer = self._reader.submit(releases.desired_state, self.ledger, self.model)
            return None
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        error = answer.exception()
        if error is not None:
            if not self._unreadable:
                say("error", f"the ledger cannot be read: {type(error).__name__}: {error}")
            self._unreadable = True
            return None
        self._unreadable = False
        return answer.result()

    def heartbeat(self, release: int | None, state: ServerState, reason: str) -> None:
        """Say how this server is."""
        self._heartbeats += 1
        self._write_later(self._heartbeat, self._heartbeats, release, state, reason)

    def add_server_event(self, release: int, kind: str, reason: str) -> None:
        """Record that this server serves a release, or refused it."""
        self._write_later(servers.add_server_event, self.ledger, self.model, self.server, release, kind, reason)

    def promote(self, release: int, why: str, refused: Callable[[], None]) -> None:
        """Make a canary champion; `refused` is called if that is refused, as during a hold or for a damaged package."""

        def promote() -> None:
            try:
                releasing.promote(self.ledger, self.home, self.model, release, "canary", why)
            except OvertakenError:
                raise
            except (ReleaseError, PackageError, ArtifactError):
                refused()
                raise

        self._write_later(promote)

    def stop_canary(self, release: int, why: str) -> None:
        """Let the champion answer everything again."""
        self._write_later(releasing.stop_canary, self.ledger, self.model, release, "canary", why)

    def history(self) -> list[dict[str, Any]]:
        """Return the releases as GET /history tells them, the newest first."""
        made, events = releases.history(self.ledger, self.model)
        states = releases.states(events)
        return [
            {
                "release": release.number,
                "created": release.created,
                "state": states.get(release.number, "unknown"),
                "reason": next((event.reason for event in reversed(events) if event.release == release.number), ""),
                "metrics": release.evaluation["challenger"],
            }
            for release in reversed(made)
        ]

    def read_later(self, work: Callable[[], None]) -> None:
        """Do something that reads the ledger, once earlier questions are answered; a failure is only logged."""
        self._reader.submit(work).add_done_callback(_log_failure)

    def deregister(self, release: int | None) -> None:
        """Say what is left to be said, and that this server has ended, which served a release."""
        if release is not None:
            self.add_server_event(release, servers.ENDED, "")
        self._write_later(servers.deregister, self.ledger, self.model, self.server)
        self._writes.put(None)
        self._leaving.set()
        self._writer.join(LEAVE_TIMEOUT)
        if self._writer.is_alive():
            say("warning", "the ledger was not told that this server ends: it cannot be written to")
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _write_later(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._writes.put(lambda: work(*arguments))

    def _heartbeat(self, number: int, release: int | None, state: ServerState, reason: str) -> None:
        # A heartbeat that had to wait, and that a later one overtook, need not be written.
        if number == self._heartbeats:
            server = servers.ServerStatus(self.server, release, state, reason, int(time.time()))
            servers.heartbeat(self.ledger, self.model, server)

    def _write(self) -> None:
        """Write one thing after the other, each again until it is taken or refused, or this server ends."""
        for work in iter(self._writes.get, None):
            logged = False
            while (trouble := _try_to_write(work)) is not None:
                if not logged:
                    say("warning", f"the ledger cannot be written to: {trouble}")
                logged = True
                if self._leaving.wait(WRITE_BACKOFF):
                    break


def _try_to_write(work: Callable[[], Any]) -> str | None:
    """Return why the ledger could not be written to now, None when it was, or refused what was to be written."""
    try:
        work()
    except (LedgerError, StorageError, OvertakenError, OperationalError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        say("warning", f"the ledger refused a write: {type(error).__name__}: {error}")
    return None


def _log_failure(done: "Future[Any]") -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        say("warning", f"ledger query failed: {type(error).__name__}: {error}")
