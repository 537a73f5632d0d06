"""Serve the champion of a model: own the socket, keep workers on it, and follow the ledger without losing a request.

Workers are started from the released package, in processes of their own. Only when those of a new release have said
that they answer as they were trained are the old ones told to drain; the socket is never closed. A canary's worker
listens on a socket of its own, and the champion's workers hand it a share of what they are asked.
"""

import json
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from socket import gethostname, socket
from threading import Event, Thread
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from bentos import canary, logs, releases, servers, workers
from bentos.canary import Differences, Tally
from bentos.metrics import SECONDS
from bentos.package import Bento, load_bento
from bentos.releases import Release, Wish
from bentos.worker import IDLE
from bentos.workers import Worker
from pipeline.errors import LedgerError, OvertakenError, ReleaseError, ServerError, StorageError
from pipeline.files import read_json, write_json
from pipeline.processes import asked_to_end

TICK_SECONDS = 0.2
FOLLOW_SECONDS = 0.5
"""How often the ledger is asked what is wished."""
TELL_SECONDS = 15.0
"""How often the ledger is told that this server is there."""
RETRY_SECONDS = 2.0
"""How long until the ledger is told again what it could not be told."""
LEAVE_SECONDS = 5.0
"""How long the end of a server waits for the ledger."""
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
    requests: Path | None = None
    """The folder of the log of requests, for models whose spec asks for one."""


@dataclass
class Baking:
    """A canary that is served: its worker, and since when, with what the champion had answered before."""

    release: Release
    bento: Bento
    listener: socket
    path: str
    worker: Worker | None = None
    since: float | None = None
    before: Tally = field(default_factory=Tally)
    told: float = 0.0
    over: bool = False
    """Whether the ledger was told how it ended."""

    @property
    def shadow(self) -> bool:
        """Whether nobody sees what it answers."""
        return bool((self.release.canary or {}).get("shadow"))


def champion_bento(ledger: Engine, model: str, home: Path) -> tuple[Release, Bento]:
    """Return the champion of a model and its Bento, checked against the digest in the ledger.

    Raises ReleaseError when nothing was released yet, PackageError when the Bento is not what was released.
    """
    release = releases.champion(ledger, model)
    if release is None:
        raise ReleaseError(f"{model} has no release to serve; {releases.next_champion(ledger, model)}")
    return release, _bento(release, home)


def _bento(release: Release, home: Path) -> Bento:
    return load_bento(release.bento, home, expected=release.digests["bento"])


def serve(
    ledger: Engine, model: str, home: Path, folder: Path, options: Options, on_alarm: Callable[[int, str], None]
) -> None:
    """Serve the champion of a model, whichever it is, until SIGTERM or SIGINT; what is in flight then is answered.

    `home` is BentoML's, with the packages; `folder` is this server's own. `on_alarm` is told, in a thread, which canary
    was sent back, and why. Raises as `champion_bento`, and ServerError
    when it could not listen on the port or the first release could not be started.
    """
    release, bento = champion_bento(ledger, model, home)
    with workers.listen(options.host, options.port) as listener, asked_to_end() as stopped:
        shutil.rmtree(folder / "metrics", ignore_errors=True)
        # Servers of other machines may be in the same ledger.
        book = Book(ledger, model, f"{options.host}:{options.port} on {gethostname()}")
        server = Server(book, home, folder, options, listener, on_alarm)
        server.go_to(release, bento)
        try:
            while not stopped():
                server.tick()
                # Of one that was killed the line is closed; the next tick buries it.
                lines = [worker.line for worker in server.workers if not worker.gone]
                select.select(lines, [], [], TICK_SECONDS)
        finally:
            server.stop()


class Book:
    """The ledger as one server uses it, in two threads: what cannot be read or written now holds up nothing else."""

    def __init__(self, ledger: Engine, model: str, server: str) -> None:
        self.ledger, self.model, self.server = ledger, model, server
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._asking: Future[Wish] | None = None
        self._asked = 0.0
        self.trouble: str | None = None
        self._said: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._states = 0
        self._leaving = Event()
        # A daemon: this process ends even where a transaction of another one does not.
        self._writer = Thread(target=self._write, name="ledger-writer", daemon=True)
        self._writer.start()
        self._do(servers.register, ledger, model, server)

    def wish(self) -> Wish | None:
        """Return what is wished, when there is an answer; asks again when it is time to."""
        now = time.monotonic()
        if self._asking is None:
            if now - self._asked > (FOLLOW_SECONDS if self.trouble is None else MOST_PAUSE / 6):
                self._asked = now
                self._asking = self._reader.submit(releases.wished, self.ledger, self.model)
            return None
        if not self._asking.done():
            return None
        asked, self._asking = self._asking, None
        error = asked.exception()
        if error is not None:
            if self.trouble is None:
                say("error", f"the ledger cannot be asked: {type(error).__name__}: {error}")
            self.trouble = type(error).__name__
            return None
        self.trouble = None
        return asked.result()

    def serves(self, release: int, kind: str, reason: str) -> None:
        """Record that this server serves a release, or refused it."""
        self._do(servers.add_served, self.ledger, self.model, self.server, release, kind, reason)

    def tell(self, release: int | None, state: str, reason: str) -> None:
        """Say how this server is."""
        self._states += 1
        self._do(self._tell, self._states, release, state, reason)

    def promote(self, release: int, why: str, refused: Callable[[], None]) -> None:
        """Make a canary champion; `refused` is called where the ledger refuses that, as during a hold."""

        def promote() -> None:
            try:
                releases.promote(self.ledger, self.model, release, "canary", why)
            except OvertakenError:
                raise
            except ReleaseError:
                refused()
                raise

        self._do(promote)

    def stop_canary(self, release: int, why: str) -> None:
        """Let the champion answer everything again."""
        self._do(releases.stop_canary, self.ledger, self.model, release, "canary", why)

    def history(self) -> list[dict[str, Any]]:
        """Return the releases as GET /history tells them, the newest first."""
        made, events = releases.history(self.ledger, self.model)
        states = releases.states(events)
        return [
            {
                "release": one.number,
                "created": one.created,
                "state": states.get(one.number, "unknown"),
                "reason": next((event.reason for event in reversed(events) if event.release == one.number), ""),
                "metrics": one.evaluation["challenger"],
            }
            for one in reversed(made)
        ]

    def later(self, work: Callable[[], None]) -> None:
        """Read something from the ledger when what was asked before is answered."""
        self._reader.submit(work).add_done_callback(_warn)

    def leave(self, release: int | None) -> None:
        """Say what is left to be said, and that this server has ended, which served a release."""
        if release is not None:
            self.serves(release, servers.ENDED, "")
        self._do(servers.deregister, self.ledger, self.model, self.server)
        self._said.put(None)
        self._leaving.set()
        self._writer.join(LEAVE_SECONDS)
        if self._writer.is_alive():
            say("warning", "the ledger was not told that this server ends: it cannot be written to")
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _do(self, work: Callable[..., Any], *given: Any) -> None:
        self._said.put(lambda: work(*given))

    def _tell(self, number: int, release: int | None, state: str, reason: str) -> None:
        # What had to wait, and is no longer so, need not be said.
        if number == self._states:
            said = servers.Server(self.server, release, state, reason, int(time.time()))
            servers.heartbeat(self.ledger, self.model, said)

    def _write(self) -> None:
        """Tell the ledger one thing after the other, each again until it is taken, refused, or this server ends."""
        for work in iter(self._said.get, None):
            said = False
            while (trouble := _told(work)) is not None:
                if not said:
                    say("warning", f"the ledger cannot be written to: {trouble}")
                said = True
                if self._leaving.wait(RETRY_SECONDS):
                    break


def _told(work: Callable[[], Any]) -> str | None:
    """Return why the ledger could not be told something now, None where it was, or refused it."""
    try:
        work()
    except (LedgerError, StorageError, OvertakenError, OperationalError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        say("warning", f"the ledger did not take what it was told: {type(error).__name__}: {error}")
    return None


def _warn(done: "Future[Any]") -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        say("warning", f"the ledger was asked in vain: {type(error).__name__}: {error}")


class Server:
    """The workers of a model, and the release they serve; `tick` does what is due, and never waits."""

    def __init__(
        self,
        book: Book,
        home: Path,
        folder: Path,
        options: Options,
        listener: socket,
        on_alarm: Callable[[int, str], None],
    ) -> None:
        self.on_alarm = on_alarm
        self.book, self.home, self.folder, self.options, self.listener = book, home, folder, options, listener
        self.workers: list[Worker] = []
        self.serving: tuple[Release, Bento] | None = None
        self.coming: tuple[Release, Bento] | None = None
        self.baking: Baking | None = None
        self.refused: dict[int, str] = {}
        """Releases that could not be started, and why; none is tried again while it stays wished."""
        self._held = False
        """Whether a person holds the champion: a canary then goes on, and is promoted when the hold ends."""
        self._failures = 0
        self._not_before = 0.0
        self._told = 0.0

    def go_to(self, release: Release, bento: Bento) -> None:
        """Start workers of a release; what is served now goes on until they are ready."""
        self.coming = release, bento
        say("info", f"release {release.number} is starting", release=release.number, bento=release.bento)
        self._tell_history()
        for _ in range(self.options.workers):
            self.workers.append(self._start(release, bento, self.listener))

    def tick(self) -> None:
        """Hear what workers say, replace the dead and the hung, follow the ledger, and watch the canary."""
        for worker in self.workers:
            for said in worker.messages():
                self._hear(worker, said)
        for worker in [*self.workers]:
            self._look_after(worker)
        self._move()
        self._fill()
        wish = self.book.wish()
        if wish is not None and self.serving is not None:
            self._follow(wish)
        if self.baking is not None:
            self._watch(self.baking)
        self._tell()

    def stop(self) -> None:
        """Let all workers answer what is in flight, and end them."""
        if self.baking is not None:
            self._end_baking(self.baking)
        for worker in self.workers:
            worker.process.terminate()
        end = time.monotonic() + DRAIN_SECONDS
        for worker in self.workers:
            # What was stopped answers nothing, and would not hear that it is to end.
            worker.stop(0.0 if worker.stopped else max(0.0, end - time.monotonic()))
        self.book.leave(self.serving[0].number if self.serving is not None else None)
        logs.stderr().flush()

    # Workers.

    def _hear(self, worker: Worker, said: dict[str, Any]) -> None:
        if "tally" in said:
            worker.tally, worker.failed = Tally.of(said["tally"]), said["failed"]
            # It says nothing of it before there is a shadow, and afterwards.
            worker.found = Differences(**said["found"]) if said.get("found") else worker.found
        if said["state"] == "ready" and worker.state == "starting":
            worker.state = "ready"
            self._failures = 0
            seconds = round(time.monotonic() - worker.started, 2)
            say("info", "a worker is ready", release=worker.release, worker=worker.process.pid, seconds=seconds)
            if self.baking is not None and self.baking.since is not None and self.baking.worker is not worker:
                self._share(worker, self.baking)
        elif said["state"] == "stuck" and worker.state == "ready":
            say("error", "a worker hangs in a prediction and is replaced", worker=worker.process.pid)
            self._drain(worker)

    def _look_after(self, worker: Worker) -> None:
        now = time.monotonic()
        if worker.gone:
            self._bury(worker)
        elif worker.state == "starting" and (
            now - worker.started > START_SECONDS or (now - worker.started > SILENCE_SECONDS and worker.stopped)
        ):
            say("error", "a worker did not become ready and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == "ready" and now - worker.heard > SILENCE_SECONDS:
            say("error", "a worker hangs and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == "draining" and now - worker.started > DRAIN_SECONDS:
            worker.kill()

    def _bury(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        for counts in (self.folder / "metrics").glob(f"gauge_live*_{worker.process.pid}.db"):
            counts.unlink(missing_ok=True)
        if worker.state == "draining":
            if not any(one.state == "draining" for one in self.workers) and self.serving is not None:
                release = self.serving[0].number
                say("info", f"release {release} alone answers: the last worker of another has gone", release=release)
                self._told = 0.0
                self.book.serves(release, "alone", f"the last worker of release {worker.release} has gone")
            return
        code = worker.process.returncode
        say("error", f"a worker died, {worker.state}, with code {code}", worker=worker.process.pid)
        if self.baking is not None and worker is self.baking.worker:
            self._alarm(self.baking, f"its worker ended with code {code}; the log says why")
        elif worker.state == "starting" and self.coming is not None and worker.release == self.coming[0].number:
            self._refuse(self.coming[0], f"its worker ended with code {code} before it was ready; the log says why")
        elif worker.state == "starting":
            self._failures += 1
            self._not_before = time.monotonic() + min(0.25 * 2**self._failures, MOST_PAUSE)

    def _fill(self) -> None:
        if time.monotonic() < self._not_before:
            return
        # A worker of the next release may die ready, before the others are: without another it would never be served.
        for release, bento in filter(None, (self.serving, self.coming)):
            for _ in range(self.options.workers - len(self._answering(release.number, "starting", "ready"))):
                self.workers.append(self._start(release, bento, self.listener))

    def _answering(self, release: int, *states: str) -> list[Worker]:
        """Return the workers of a release on the socket that all ask, in one of the states."""
        baker = self.baking.worker if self.baking is not None else None
        return [one for one in self.workers if one.release == release and one.state in states and one is not baker]

    def _start(
        self, release: Release, bento: Bento, listener: socket, folder: Path | None = None, **more: str
    ) -> Worker:
        env = {
            "EVERGREEN_RELEASE": str(release.number),
            "EVERGREEN_ARTIFACT": release.digests["artifact"],
            "EVERGREEN_CORS": " ".join(self.options.cors),
            "EVERGREEN_EDGES": json.dumps(_edges((self.serving or (release, bento))[1])),
            "EVERGREEN_REQUESTS": str(self.options.requests or ""),
            "EVERGREEN_HISTORY": str(self.folder / "history.json"),
            "EVERGREEN_TRIAL": "",
        }
        # A canary's worker answers nobody but the champion's.
        baker = self.baking.worker if self.baking is not None else None
        if any(one.state == "ready" and one is not baker for one in self.workers):
            env[IDLE] = "1"
        options: list[str] = []
        if listener is self.listener:
            options += ["--ssl-certfile", str(self.options.certificate)] if self.options.certificate else []
            options += ["--ssl-keyfile", str(self.options.key)] if self.options.key else []
        return workers.start(bento, release.number, listener, folder or self.folder, env | more, options)

    def _drain(self, worker: Worker) -> None:
        if worker.state != "draining":
            worker.state, worker.started = "draining", time.monotonic()
            worker.tell(do="drain")

    # Releases.

    def _follow(self, wish: Wish) -> None:
        assert self.serving is not None
        self._held = wish.held is not None
        wanted = {one.number for one in (wish.champion, wish.canary) if one is not None}
        self.refused = {number: why for number, why in self.refused.items() if number in wanted}
        release = wish.champion
        if release is not None and self.coming is None and release.number not in self.refused:
            if release.number != self.serving[0].number:
                self._try(release, lambda bento: self.go_to(release, bento))
            elif not self.refused:
                self._say_degraded(None)
        if self.baking is not None and (wish.canary is None or wish.canary.number != self.baking.release.number):
            self._end_baking(self.baking)
        baked = wish.canary
        if baked is not None and self.baking is None and self.coming is None and baked.number not in self.refused:
            self._try(baked, lambda bento: self._bake(baked, bento))

    def _try(self, release: Release, start: Callable[[Bento], None]) -> None:
        try:
            bento = _bento(release, self.home)
        except Exception as error:
            self._refuse(release, str(error))
        else:
            start(bento)

    def _refuse(self, release: Release, why: str) -> None:
        """Leave what is served as it is, because another release cannot be."""
        if self.serving is None:
            raise ServerError(f"release {release.number} of {release.model} cannot be served: {why}")
        self.refused[release.number] = why
        self.book.serves(release.number, "refused", why)
        say("error", f"release {release.number} is refused: {why}", release=release.number)
        if self.coming is not None and self.coming[0].number == release.number:
            self.coming = None
        for worker in self._answering(release.number, "starting", "ready"):
            worker.state = "draining"
            worker.kill()
        self._say_degraded(f"release {release.number} cannot be served: {why}")

    def _say_degraded(self, why: str | None) -> None:
        for worker in self.workers:
            if worker.degraded != why:
                worker.degraded = why
                worker.tell(do="degraded", why=why)
                self._told = 0.0

    def _move(self) -> None:
        """Let the workers of the next release answer alone, once all of them are ready."""
        if self.coming is None:
            return
        release, _ = self.coming
        if len(self._answering(release.number, "ready")) < self.options.workers:
            return
        self.serving, self.coming = self.coming, None
        for worker in self.workers:
            if worker.release != release.number:
                self._drain(worker)
        self.book.serves(release.number, servers.SERVING, release.bento)
        self._told = 0.0
        say("info", f"release {release.number} is served", release=release.number, bento=release.bento)

    def _tell_history(self) -> None:
        self.book.later(lambda: write_json(self.folder / "history.json", self.book.history()))

    def _tell(self) -> None:
        now = time.monotonic()
        if self.serving is not None and now - self._told > TELL_SECONDS:
            self._told = now
            number = self.serving[0].number
            others = self.baking is None and any(one.release != number for one in self.workers)
            state = "degraded" if self.refused else "canary" if self.baking is not None else "serving"
            # Until then a client that kept its connection may be answered by the release before.
            state = "changing" if others and state == "serving" else state
            why = [*self.refused.values()]
            if self.baking is not None and self.baking.shadow:
                state = "shadow" if state == "canary" else state
                why.append(self._differences(self.baking))
            self.book.tell(number, state, "; ".join(why))

    # The canary.

    def _bake(self, release: Release, bento: Bento) -> None:
        # Names of sockets are short, the folder's may be long; nobody else may enter this one.
        path = Path(tempfile.mkdtemp(prefix="evergreen-")) / "canary"
        listener = workers.listen_here(path)
        self.baking = Baking(release, bento, listener, str(path))
        # What reaches it came through a worker that has looked at the token.
        # What a shadow answers is not counted as answered.
        folder = self.folder / "shadow" if self.baking.shadow else self.folder
        self.baking.worker = self._start(release, bento, listener, folder, EVERGREEN_TOKENS="", EVERGREEN_CORS="")
        self.workers.append(self.baking.worker)
        self._tell_history()
        say("info", f"release {release.number} is starting as a canary", release=release.number, bento=release.bento)

    def _watch(self, baking: Baking) -> None:
        now = time.monotonic()
        if baking.over or baking.worker is None or baking.worker.state != "ready" or self.serving is None:
            return
        settings = baking.release.canary or {}
        champions = self._answering(self.serving[0].number, "ready")
        if baking.since is None:
            baking.since = now
            baking.before = _sum(champions)
            for worker in champions:
                self._share(worker, baking)
            self._told = 0.0
            share = canary.share_in_words(settings)
            self.book.serves(baking.release.number, "shadow" if baking.shadow else "canary", share)
            say("info", f"release {baking.release.number} {share}", release=baking.release.number)
            return
        if now - baking.told < 1.0:
            return
        baking.told = now
        ours, theirs = _sum(champions) - baking.before, baking.worker.tally
        failed = sum(worker.failed for worker in champions)
        theirs = theirs + Tally(requests=failed, errors=failed)
        why = canary.alarm(ours, theirs, settings, SECONDS)
        if why is not None:
            self._alarm(baking, why)
        elif now - baking.since > 60 * settings["minutes"] and not self._held:
            quiet = f"quiet for {settings['minutes']:g} minutes, in which it answered {theirs.requests:,} requests"
            quiet += f"; {self._differences(baking)}" if baking.shadow else ""
            baking.over = True
            self.book.promote(baking.release.number, quiet, lambda: setattr(baking, "over", False))
            say("info", f"release {baking.release.number} is promoted: {quiet}", release=baking.release.number)

    def _alarm(self, baking: Baking, why: str) -> None:
        """Let the champion answer everything at once, then tell the ledger."""
        why += f"; {self._differences(baking)}" if baking.shadow else ""
        self._end_baking(baking)
        self.refused[baking.release.number] = why
        self.book.stop_canary(baking.release.number, why)
        self.book.serves(baking.release.number, "alarm", why)
        say("error", f"the canary, release {baking.release.number}, is stopped: {why}", release=baking.release.number)
        # Whoever is told may take their time.
        Thread(target=self._pass_on, args=(baking.release.number, why), daemon=True).start()

    def _pass_on(self, release: int, why: str) -> None:
        try:
            self.on_alarm(release, why)
        except Exception as error:
            say("warning", f"the alarm was not passed on: {error}")

    def _end_baking(self, baking: Baking) -> None:
        self.baking = None
        self._told = 0.0
        for worker in self.workers:
            if worker is not baking.worker:
                worker.tell(do="share", path=None, share=0.0)
                worker.failed, worker.found = 0, Differences()
        baking.listener.close()
        shutil.rmtree(Path(baking.path).parent, ignore_errors=True)
        if baking.worker is not None and not baking.worker.gone:
            self._drain(baking.worker)

    def _share(self, worker: Worker, baking: Baking) -> None:
        # Packages of before know no shadows: to them this must say nothing.
        do = "shadow" if baking.shadow else "share"
        worker.tell(do=do, path=baking.path, share=(baking.release.canary or {})["share"])

    def _differences(self, baking: Baking) -> str:
        """Say how much a shadow differs from the champion, from what the champion's workers have found."""
        return str(sum((one.found for one in self.workers if one is not baking.worker), start=Differences()))


def _sum(found: list[Worker]) -> Tally:
    return sum((worker.tally for worker in found), start=Tally())


def _edges(bento: Bento) -> list[float]:
    """Return what the predictions of a package are counted by."""
    manifest: dict[str, Any] = read_json(bento.path / "src" / "artifact" / "manifest.json")
    edges: list[float] = manifest.get("target_quantiles") or []
    return edges


def say(level: str, message: str, **facts: object) -> None:
    """Log a line."""
    logs.stderr().write(logs.line(level, "server", message=message, **facts))
