"""Serve the champion of a model: own the socket, keep workers on it, and move to the next champion by itself.

Workers are started from the released package, in processes of their own. Only when those of a new release have said
that they answer as they were trained are the old ones told to drain; the socket is never closed, so no request is lost.
"""

import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from sqlalchemy import Engine

from bentos import logs, releases, workers
from bentos.package import Bento, load_bento
from bentos.releases import Release
from bentos.workers import Worker
from pipeline.errors import ReleaseError, ServerError

TICK_SECONDS = 0.2
FOLLOW_SECONDS = 0.5
"""How often the ledger is asked for the champion."""
START_SECONDS = 120.0
"""How long a worker may take to say that it is ready."""
SILENCE_SECONDS = 15.0
"""A worker that says nothing for so long hangs."""
DRAIN_SECONDS = 40.0
"""How long a worker that was told to drain may take."""
MOST_PAUSE = 30.0
"""The longest pause before a worker that died before it was ready is started anew; the first is half a second."""


@dataclass(frozen=True)
class Options:
    """How a model is served."""

    host: str
    port: int
    workers: int = 1
    certificate: Path | None = None
    key: Path | None = None
    cors: tuple[str, ...] = ()


def champion_bento(ledger: Engine, model: str, home: Path) -> tuple[Release, Bento]:
    """Return the champion of a model and its Bento, checked against the digest in the ledger.

    Raises ReleaseError when nothing was released yet, PackageError when the Bento is not what was released.
    """
    release = releases.champion(ledger, model)
    if release is None:
        raise ReleaseError(f"{model} has no release to serve; `evergreen run {model}` makes the first")
    return release, load_bento(release.bento, home, expected=release.digests["bento"])


def serve(ledger: Engine, model: str, home: Path, folder: Path, options: Options) -> None:
    """Serve the champion of a model, whichever it is, until SIGTERM or SIGINT; what is in flight then is answered.

    `home` is BentoML's, with the packages; `folder` is this server's own. Raises as `champion_bento`, and ServerError
    when it could not listen on the port or the first release could not be started.
    """
    release, bento = champion_bento(ledger, model, home)
    with workers.listen(options.host, options.port) as listener, _stopped() as stopped:
        shutil.rmtree(folder / "metrics", ignore_errors=True)
        server = Server(folder, options, listener, lambda served: _champion(ledger, model, home, served))
        server.go_to(release, bento)
        try:
            while not stopped():
                server.tick()
                # Of one that was killed the line is closed; the next tick buries it.
                lines = [worker.line for worker in server.workers if not worker.gone]
                select.select(lines, [], [], TICK_SECONDS)
        finally:
            server.stop()


def _champion(ledger: Engine, model: str, home: Path, served: int | None) -> tuple[Release, Bento] | None:
    """Return the champion where it is another than the release served, and None where it is the same or none."""
    release = releases.champion(ledger, model)
    if release is None or release.number == served:
        return None
    return release, load_bento(release.bento, home, expected=release.digests["bento"])


@contextmanager
def _stopped() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether this process was asked to end."""
    asked: list[int] = []
    before = {kind: signal.signal(kind, lambda kind, _: asked.append(kind)) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class Server:
    """The workers of a model, and the release they serve; `tick` does what is due, and never waits."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        listener: socket,
        follow: Callable[[int | None], tuple[Release, Bento] | None],
    ) -> None:
        self.folder, self.options, self.listener, self.follow = folder, options, listener, follow
        self.workers: list[Worker] = []
        self.serving: tuple[Release, Bento] | None = None
        self.coming: tuple[Release, Bento] | None = None
        self.refused: int | None = None
        """A release that could not be started; it is not tried again until another was champion."""
        self._failures = 0
        self._not_before = 0.0
        self._asking: Future[tuple[Release, Bento] | None] | None = None
        self._asked = 0.0
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    def go_to(self, release: Release, bento: Bento) -> None:
        """Start workers of a release; what is served now goes on until they are ready."""
        self.coming = release, bento
        self._say("info", f"release {release.number} is starting", release=release.number, bento=release.bento)
        for _ in range(self.options.workers):
            self._start(release, bento)

    def tick(self) -> None:
        """Hear what workers say, replace the dead and the hung, and go on to the next release."""
        for worker in self.workers:
            for said in worker.messages():
                self._hear(worker, said)
        for worker in [*self.workers]:
            self._look_after(worker)
        self._move()
        self._fill()
        self._follow()

    def stop(self) -> None:
        """Let all workers answer what is in flight, and end them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            worker.process.terminate()
        end = time.monotonic() + DRAIN_SECONDS
        for worker in self.workers:
            worker.stop(max(0.0, end - time.monotonic()))
        logs.stderr().flush()

    def _hear(self, worker: Worker, said: dict[str, object]) -> None:
        if said["state"] == "ready" and worker.state == "starting":
            worker.state = "ready"
            self._failures = 0
            seconds = round(time.monotonic() - worker.started, 2)
            self._say("info", "a worker is ready", release=worker.release, worker=worker.process.pid, seconds=seconds)
        elif said["state"] == "stuck" and worker.state == "ready":
            self._say("error", "a worker hangs in a prediction and is replaced", worker=worker.process.pid)
            self._drain(worker)

    def _look_after(self, worker: Worker) -> None:
        now = time.monotonic()
        if worker.gone:
            self._bury(worker)
        elif worker.state == "starting" and now - worker.started > START_SECONDS:
            self._say("error", "a worker did not become ready and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == "ready" and now - worker.heard > SILENCE_SECONDS:
            self._say("error", "a worker hangs and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == "draining" and now - worker.started > DRAIN_SECONDS:
            worker.kill()

    def _bury(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        for counts in (self.folder / "metrics").glob(f"gauge_live*_{worker.process.pid}.db"):
            counts.unlink(missing_ok=True)
        if worker.state == "draining":
            if not any(one.state == "draining" for one in self.workers):
                self._say("info", "the last worker of the release before has gone", release=worker.release)
            return
        code = worker.process.returncode
        self._say("error", f"a worker died, {worker.state}, with code {code}", worker=worker.process.pid)
        if worker.state == "ready":
            return
        if self.coming is not None and worker.release == self.coming[0].number:
            self._refuse(f"its worker ended with code {code} before it was ready; the log says why")
        else:
            self._failures += 1
            self._not_before = time.monotonic() + min(0.25 * 2**self._failures, MOST_PAUSE)

    def _refuse(self, why: str) -> None:
        """Leave what is served as it is, because the next release cannot be."""
        assert self.coming is not None
        release, _ = self.coming
        if self.serving is None:
            raise ServerError(f"release {release.number} of {release.model} cannot be served: {why}")
        self.coming, self.refused = None, release.number
        self._say("error", f"release {release.number} is refused: {why}", release=release.number)
        for worker in self.workers:
            if worker.release == release.number:
                worker.state = "draining"
                worker.kill()
            else:
                worker.tell(do="degraded", why=f"release {release.number} cannot be served: {why}")

    def _move(self) -> None:
        """Let the workers of the next release answer alone, once all of them are ready."""
        if self.coming is None:
            return
        release, _ = self.coming
        if self._count("ready", release.number) < self.options.workers:
            return
        self.serving, self.coming = self.coming, None
        for worker in self.workers:
            if worker.release != release.number:
                self._drain(worker)
        self._say("info", f"release {release.number} is served", release=release.number, bento=release.bento)

    def _drain(self, worker: Worker) -> None:
        if worker.state != "draining":
            worker.state, worker.started = "draining", time.monotonic()
            worker.tell(do="drain")

    def _fill(self) -> None:
        if time.monotonic() < self._not_before:
            return
        # A worker of the next release may die ready, before the others are: without another it would never be served.
        for release, bento in filter(None, (self.serving, self.coming)):
            running = self._count("starting", release.number) + self._count("ready", release.number)
            for _ in range(self.options.workers - running):
                self._start(release, bento)

    def _follow(self) -> None:
        """Ask the ledger for the champion, in a thread: a database that is away holds up nothing."""
        now = time.monotonic()
        if self._asking is None:
            if self.serving is not None and self.coming is None and now - self._asked > FOLLOW_SECONDS:
                self._asked = now
                self._asking = self._threads.submit(self.follow, self.serving[0].number)
        elif self._asking.done():
            asked, self._asking = self._asking, None
            try:
                found = asked.result()
            except Exception as error:
                self._say("error", f"the next release cannot be told: {type(error).__name__}: {error}")
                self._asked = now + MOST_PAUSE / 2
                return
            if found is None:
                self.refused = None
            elif found[0].number != self.refused:
                self.go_to(*found)

    def _start(self, release: Release, bento: Bento) -> None:
        env = {
            "EVERGREEN_RELEASE": str(release.number),
            "EVERGREEN_ARTIFACT": release.digests["artifact"],
            "EVERGREEN_CORS": " ".join(self.options.cors),
            "EVERGREEN_TRIAL": "",
        }
        options: list[str] = []
        if self.options.certificate is not None:
            options += ["--ssl-certfile", str(self.options.certificate)]
        if self.options.key is not None:
            options += ["--ssl-keyfile", str(self.options.key)]
        self.workers.append(workers.start(bento, release.number, self.listener, self.folder, env, options))

    def _count(self, state: str, release: int) -> int:
        return sum(worker.state == state and worker.release == release for worker in self.workers)

    def _say(self, level: str, message: str, **facts: object) -> None:
        logs.stderr().write(logs.line(level, "server", message=message, **facts))
