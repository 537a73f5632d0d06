"""The ledger as one server uses it: a ledger that is slow or down delays nothing else."""

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
"""How many seconds pass between two reads of the desired state."""
POLL_BACKOFF = 5.0
"""The same after a read that failed."""
WRITE_BACKOFF = 2.0
"""How many seconds pass before a failed write is retried."""
DEREGISTER_TIMEOUT = 5.0
"""How many seconds the end of a server waits for its last writes."""


class LedgerClient:
    """Reads and writes the ledger for one server in two threads; no call waits for the ledger.

    Writes are made in order, and each is retried until the ledger accepts or refuses it. `home` is the BentoML home
    with the packages.
    """

    def __init__(self, ledger: Engine, home: Path, model: str, server: str) -> None:
        self.ledger, self.home, self.model, self.server = ledger, home, model, server
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._pending_read: Future[DesiredState] | None = None
        self._read_at = 0.0
        self._unreadable = False
        self._writes: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._heartbeats = 0
        self._ending = Event()
        # A daemon thread, so that this process ends even if another one holds the ledger.
        self._writer = Thread(target=self._write, name="ledger-writer", daemon=True)
        self._writer.start()
        self._write_later(servers.register, ledger, model, server)

    def desired_state(self) -> DesiredState | None:
        """Return the desired state if a read has finished, otherwise None; start the next read when it is due."""
        now = time.monotonic()
        if self._pending_read is None:
            if now - self._read_at > (POLL_BACKOFF if self._unreadable else POLL_INTERVAL):
                self._read_at = now
                self._pending_read = self._reader.submit(releases.desired_state, self.ledger, self.model)
            return None
        if not self._pending_read.done():
            return None
        read, self._pending_read = self._pending_read, None
        error = read.exception()
        if error is not None:
            if not self._unreadable:
                say("error", f"the ledger cannot be read: {type(error).__name__}: {error}")
            self._unreadable = True
            return None
        self._unreadable = False
        return read.result()

    def heartbeat(self, release: int | None, state: ServerState, reason: str) -> None:
        """Write the state of this server."""
        self._heartbeats += 1
        self._write_later(self._write_heartbeat, self._heartbeats, release, state, reason)

    def add_server_event(self, release: int, kind: str, reason: str) -> None:
        """Record that this server serves a release, or refused it."""
        self._write_later(servers.add_server_event, self.ledger, self.model, self.server, release, kind, reason)

    def promote(self, release: int, why: str, refused: Callable[[], None]) -> None:
        """Make a canary champion; call `refused` if the ledger refuses, as during a hold or for a damaged package."""

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
        """Record that the champion answers all requests again, and why."""
        self._write_later(releasing.stop_canary, self.ledger, self.model, release, "canary", why)

    def history(self) -> list[dict[str, Any]]:
        """Return the releases as GET /history shows them, the newest first."""
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
        """Run `work`, which reads the ledger, after earlier reads; a failure is only logged."""
        self._reader.submit(work).add_done_callback(_log_failure)

    def deregister(self, release: int | None) -> None:
        """Finish the writes, record that this server ended and what release it served, and remove its heartbeat."""
        if release is not None:
            self.add_server_event(release, servers.ENDED, "")
        self._write_later(servers.deregister, self.ledger, self.model, self.server)
        self._writes.put(None)
        self._ending.set()
        self._writer.join(DEREGISTER_TIMEOUT)
        if self._writer.is_alive():
            say("warning", "the end of this server was not recorded: the ledger cannot be written to")
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _write_later(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._writes.put(lambda: work(*arguments))

    def _write_heartbeat(self, number: int, release: int | None, state: ServerState, reason: str) -> None:
        # If a later heartbeat waits already, this one need not be written.
        if number == self._heartbeats:
            server = servers.ServerStatus(self.server, release, state, reason, int(time.time()))
            servers.heartbeat(self.ledger, self.model, server)

    def _write(self) -> None:
        """Make the writes in order; retry each until the ledger accepts or refuses it, or this server ends."""
        for work in iter(self._writes.get, None):
            logged = False
            while (problem := _try_to_write(work)) is not None:
                if not logged:
                    say("warning", f"the ledger cannot be written to, retrying: {problem}")
                logged = True
                if self._ending.wait(WRITE_BACKOFF):
                    break


def _try_to_write(work: Callable[[], Any]) -> str | None:
    """Return why the ledger cannot be written to now; None if the write was made or refused."""
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
