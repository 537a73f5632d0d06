"""Serve the champion of a model: own the socket, keep workers on it, and follow the ledger without losing a request.

Workers are started from the released package, in processes of their own. Only when those of a new release have said
that they answer as they were trained are the old ones told to drain; the socket is never closed. A canary's worker
listens on a socket of its own, and the champion's workers hand it a share of what they are asked.

`bentos.serving.server_states` has the states of a server and what may follow what.
"""

import json
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname, socket
from threading import Thread
from typing import Any

from sqlalchemy import Engine

from bentos import logs
from bentos.canary import Counters, ShadowDiff, alarm, describe_share
from bentos.endpoint.metrics import SECONDS
from bentos.ledger import releases, servers
from bentos.ledger.releases import DesiredState, Release
from bentos.logs import say
from bentos.package import Bento, load_bento
from bentos.serving import processes
from bentos.serving.ledger_client import LedgerClient
from bentos.serving.processes import WorkerProcess, WorkerState
from bentos.serving.server_states import LifecycleEvent, ServerState, next_state
from bentos.worker import IDLE
from pipeline.errors import ReleaseError, ServerError
from pipeline.files import read_json, write_json
from pipeline.processes import stop_requested
from pipeline.spec import Canary

TICK_INTERVAL = 0.2
HEARTBEAT_INTERVAL = 15.0
"""How many seconds pass between two heartbeats of a server whose state stays."""
START_TIMEOUT = 120.0
"""How many seconds a worker may take to say that it is ready."""
WORKER_HEARTBEAT_TIMEOUT = 15.0
"""A worker that says nothing for so many seconds hangs."""
DRAIN_TIMEOUT = 40.0
"""How many seconds a worker that was told to drain may take."""
MIN_RESTART_BACKOFF = 0.5
MAX_RESTART_BACKOFF = 30.0
"""The first and the longest pause, in seconds, before a worker that died before it was ready is started again."""
WATCH_INTERVAL = 1.0
"""How many seconds pass between two looks at a canary."""
PROMOTION_BACKOFF = 5.0
"""How many seconds pass until a promotion that the ledger refused is tried again."""


@dataclass(frozen=True)
class Options:
    """How a model is served.

    Attributes:
        host: The address to listen on.
        port: The port to listen on.
        workers: How many processes answer.
        certificate: A TLS certificate, for HTTPS.
        key: The certificate's key.
        cors: The origins whose pages may ask.
        requests: The folder of the log of requests, for models whose spec asks for one.
    """

    host: str
    port: int
    workers: int = 1
    certificate: Path | None = None
    key: Path | None = None
    cors: tuple[str, ...] = ()
    requests: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A release and its package, which is on this machine and has the digest of the ledger."""

    release: Release
    bento: Bento

    @property
    def number(self) -> int:
        """The number of the release."""
        return self.release.number


@dataclass
class CanaryRun:
    """A canary that is served.

    Attributes:
        loaded: The release and its package.
        listener: The socket that its worker listens on.
        path: Where that socket is.
        worker: Its process.
        since: Since when it answers, by `time.monotonic`; None before its worker is ready.
        before: What the champion's workers had answered until then.
        watched: When it was compared with the champion last.
        promote_at: The earliest time to promote it: after a refusal it is tried again later.
        promoting: Whether the ledger was told to promote it.
    """

    loaded: Loaded
    listener: socket
    path: Path
    worker: WorkerProcess
    since: float | None = None
    before: Counters = field(default_factory=Counters)
    watched: float = 0.0
    promote_at: float = 0.0
    promoting: bool = False

    @property
    def settings(self) -> Canary:
        """The settings of its spec."""
        return self.loaded.release.canary_settings

    @property
    def shadow(self) -> bool:
        """Whether nobody sees what it answers."""
        return _is_shadow(self.loaded.release)

    def promotion_refused(self) -> None:
        """Try again later."""
        self.promote_at = time.monotonic() + PROMOTION_BACKOFF
        self.promoting = False


def champion_bento(ledger: Engine, model: str, home: Path) -> tuple[Release, Bento]:
    """Return the champion of a model and its Bento, checked against the digest in the ledger.

    Raises ReleaseError when nothing was released yet, PackageError when the Bento is not what was released.
    """
    release = releases.champion(ledger, model)
    if release is None:
        raise ReleaseError(
            f"{model} has no release to serve; {releases.next_champion(ledger, model)}", code="release.none"
        )
    return release, load_bento(release.bento, home, expected=release.digests["bento"])


def serve(
    ledger: Engine, model: str, home: Path, folder: Path, options: Options, on_alarm: Callable[[int, str], None]
) -> None:
    """Serve the champion of a model, whichever it is, until SIGTERM or SIGINT; what is in flight then is answered.

    `home` is the BentoML home with the packages; `folder` is this server's own. `on_alarm` is told, in a thread, which
    canary was stopped, and why. Raises as `champion_bento`, and ServerError when it could not listen on the port or the
    first release could not be started.
    """
    release, bento = champion_bento(ledger, model, home)
    with processes.listen(options.host, options.port) as listener, stop_requested() as stopped:
        shutil.rmtree(folder / "metrics", ignore_errors=True)
        # Servers of other machines may be in the same ledger.
        client = LedgerClient(ledger, home, model, f"{options.host}:{options.port} on {gethostname()}")
        supervisor = Supervisor(client, home, folder, options, listener, on_alarm)
        supervisor.start(Loaded(release, bento))
        try:
            while not stopped():
                supervisor.tick()
                # The line of a killed worker is closed; the next tick removes it.
                lines = [worker.line for worker in supervisor.workers if not worker.gone]
                select.select(lines, [], [], TICK_INTERVAL)
        finally:
            supervisor.stop()


class Supervisor:
    """The workers of a model, and the release they serve; `tick` does what is due, and never waits.

    Attributes:
        state: What this server does, which is what it reports.
        workers: All its processes, the canary's and those that drain included.
        serving: What answers; None before the first release is ready.
        starting: What is being started to answer alone.
        canary: The canary that is served.
        refused: By release that the ledger asks for and that cannot be served, why. None of them is tried again before
            the ledger stops asking for it.
    """

    def __init__(
        self,
        ledger: LedgerClient,
        home: Path,
        folder: Path,
        options: Options,
        listener: socket,
        on_alarm: Callable[[int, str], None],
    ) -> None:
        self.ledger, self.home, self.folder, self.options, self.listener = ledger, home, folder, options, listener
        self.on_alarm = on_alarm
        self.state = ServerState.STARTING
        self.workers: list[WorkerProcess] = []
        self.serving: Loaded | None = None
        self.starting: Loaded | None = None
        self.canary: CanaryRun | None = None
        self.refused: dict[int, str] = {}
        # A canary that was quiet while a person holds the champion is promoted when the hold ends.
        self._held = False
        self._restarts = 0
        self._restart_at = 0.0
        self._heartbeat_at = 0.0

    def start(self, loaded: Loaded) -> None:
        """Start workers of a release; what is served now answers until they are ready."""
        self.starting = loaded
        say("info", f"release {loaded.number} is starting", release=loaded.number, bento=loaded.bento.tag)
        self._write_history()
        for _ in range(self.options.workers):
            self.workers.append(self._start_worker(loaded, self.listener))

    def tick(self) -> None:
        """Hear what workers say, replace the dead and the hung, follow the ledger, and watch the canary."""
        for worker in self.workers:
            for message in worker.messages():
                self._hear(worker, message)
        for worker in [*self.workers]:
            self._check_health(worker)
        self._switch_when_ready()
        self._start_missing_workers()
        wish = self.ledger.desired_state()
        if wish is not None and self.serving is not None:
            self._follow(wish)
        if self.canary is not None:
            self._watch(self.canary)
        self._finish_change()
        self._report()

    def stop(self) -> None:
        """Let all workers answer what is in flight, and end them."""
        self._enter(LifecycleEvent.STOPPED)
        self._report()
        if self.canary is not None:
            self._end_canary(self.canary)
        for worker in self.workers:
            worker.process.terminate()
        end = time.monotonic() + DRAIN_TIMEOUT
        for worker in self.workers:
            # What was stopped answers nothing, and would not hear that it is to end.
            worker.stop(0.0 if worker.stopped else max(0.0, end - time.monotonic()))
        self.ledger.deregister(self.serving.number if self.serving is not None else None)
        logs.stderr().flush()

    def _enter(self, event: LifecycleEvent) -> None:
        self.state = next_state(self.state, event)
        self._heartbeat_at = 0.0

    # Workers.

    def _hear(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if "tally" in message:
            worker.counters, worker.failed = Counters.of(message["tally"]), message["failed"]
            # It says nothing of differences before there is a shadow, and afterwards.
            worker.shadow_diff = ShadowDiff(**message["found"]) if message.get("found") else worker.shadow_diff
        if message["state"] == "ready" and worker.state == WorkerState.STARTING:
            worker.state = WorkerState.READY
            self._restarts = 0
            seconds = round(time.monotonic() - worker.started, 2)
            say("info", "a worker is ready", release=worker.release, worker=worker.process.pid, seconds=seconds)
            if self.canary is not None and self.canary.since is not None and worker is not self.canary.worker:
                self._share(worker, self.canary)
        elif message["state"] == "stuck" and worker.state == WorkerState.READY:
            say("error", "a worker hangs in a prediction and is replaced", worker=worker.process.pid)
            self._drain(worker)

    def _check_health(self, worker: WorkerProcess) -> None:
        """Remove a worker that has ended; kill one that hangs, which the next tick removes."""
        now = time.monotonic()
        seconds = now - worker.started
        if worker.gone:
            self._remove(worker)
        elif worker.state == WorkerState.STARTING and (
            seconds > START_TIMEOUT or (seconds > WORKER_HEARTBEAT_TIMEOUT and worker.stopped)
        ):
            say("error", "a worker did not become ready and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == WorkerState.READY and now - worker.last_heard > WORKER_HEARTBEAT_TIMEOUT:
            say("error", "a worker hangs and is killed", worker=worker.process.pid)
            worker.kill()
        elif worker.state == WorkerState.DRAINING and seconds > DRAIN_TIMEOUT:
            worker.kill()

    def _remove(self, worker: WorkerProcess) -> None:
        worker.kill()
        self.workers.remove(worker)
        for gauges in (self.folder / "metrics").glob(f"gauge_live*_{worker.process.pid}.db"):
            gauges.unlink(missing_ok=True)
        if worker.state != WorkerState.DRAINING:
            self._after_death(worker)

    def _after_death(self, worker: WorkerProcess) -> None:
        """Do what follows from the end of a worker that nobody had told to end."""
        code = worker.process.returncode
        say("error", f"a worker died, {worker.state}, with code {code}", worker=worker.process.pid)
        if self.canary is not None and worker is self.canary.worker:
            self._alarm(self.canary, f"its worker ended with code {code}; the log says why")
        elif worker.state == WorkerState.STARTING:
            if self.starting is not None and worker.release == self.starting.number:
                why = f"its worker ended with code {code} before it was ready; the log says why"
                self._refuse(self.starting.release, why)
            else:
                self._restart_at = time.monotonic() + min(MIN_RESTART_BACKOFF * 2**self._restarts, MAX_RESTART_BACKOFF)
                self._restarts += 1

    def _start_missing_workers(self) -> None:
        if time.monotonic() < self._restart_at:
            return
        # A worker of the next release may die ready, before the others are: without another it would never be served.
        for loaded in filter(None, (self.serving, self.starting)):
            present = self._workers_of(loaded.number, WorkerState.STARTING, WorkerState.READY)
            for _ in range(self.options.workers - len(present)):
                self.workers.append(self._start_worker(loaded, self.listener))

    def _workers_of(self, release: int, *states: WorkerState) -> list[WorkerProcess]:
        """Return the workers of a release on the socket that clients ask, in one of the states."""
        return [
            worker
            for worker in self.workers
            if worker.release == release and worker.state in states and not self._is_canary(worker)
        ]

    def _is_canary(self, worker: WorkerProcess) -> bool:
        return self.canary is not None and worker is self.canary.worker

    def _start_worker(
        self, loaded: Loaded, listener: socket, folder: Path | None = None, **environment: str
    ) -> WorkerProcess:
        edges = _prediction_edges((self.serving or loaded).bento)
        env = {
            "EVERGREEN_RELEASE": str(loaded.number),
            "EVERGREEN_ARTIFACT": loaded.release.digests["artifact"],
            "EVERGREEN_CORS": " ".join(self.options.cors),
            "EVERGREEN_EDGES": json.dumps(edges),
            "EVERGREEN_REQUESTS": str(self.options.requests or ""),
            "EVERGREEN_HISTORY": str(self.folder / "history.json"),
            "EVERGREEN_TRIAL": "",
        }
        # It may start slowly when others answer clients meanwhile, which a canary's worker does not.
        if any(worker.state == WorkerState.READY and not self._is_canary(worker) for worker in self.workers):
            env[IDLE] = "1"
        options: list[str] = []
        if listener is self.listener:
            options += ["--ssl-certfile", str(self.options.certificate)] if self.options.certificate else []
            options += ["--ssl-keyfile", str(self.options.key)] if self.options.key else []
        return processes.start(loaded.bento, loaded.number, listener, folder or self.folder, env | environment, options)

    def _drain(self, worker: WorkerProcess) -> None:
        if worker.state != WorkerState.DRAINING:
            worker.state, worker.started = WorkerState.DRAINING, time.monotonic()
            worker.send("drain")

    # Releases.

    def _follow(self, wish: DesiredState) -> None:
        """Bring what is served closer to what the ledger asks for."""
        self._held = wish.held is not None
        self._forget_refusals(wish)
        if self.canary is not None and (wish.canary is None or wish.canary.number != self.canary.loaded.number):
            self._end_canary(self.canary)
            self._enter(LifecycleEvent.CANARY_ENDED)
        if wish.champion is not None:
            self._follow_champion(wish.champion)
        # A canary is compared with the champion, so it waits until the champion alone answers.
        if wish.canary is not None and self.state == ServerState.SERVING:
            loaded = self._load(wish.canary)
            if loaded is not None:
                self._start_canary(loaded)

    def _forget_refusals(self, wish: DesiredState) -> None:
        wanted = {release.number for release in (wish.champion, wish.canary) if release is not None}
        self.refused = {number: why for number, why in self.refused.items() if number in wanted}
        if self.state == ServerState.DEGRADED and not self.refused:
            self._enter(LifecycleEvent.RECOVERED)

    def _follow_champion(self, champion: Release) -> None:
        assert self.serving is not None
        free = self.starting is None and self.state in (ServerState.SERVING, ServerState.CHANGING)
        if free and champion.number != self.serving.number:
            loaded = self._load(champion)
            if loaded is not None:
                self._enter(LifecycleEvent.CHAMPION_CHANGED)
                self.start(loaded)

    def _load(self, release: Release) -> Loaded | None:
        """Return a release with its package; None when the package is not what was released, which is refused."""
        try:
            return Loaded(release, load_bento(release.bento, self.home, expected=release.digests["bento"]))
        except Exception as error:
            self._refuse(release, str(error))
            return None

    def _refuse(self, release: Release, why: str) -> None:
        """Leave what is served as it is, because another release cannot be."""
        if self.serving is None:
            raise ServerError(
                f"release {release.number} of {release.model} cannot be served: {why}. Fix this, or "
                f"`evergreen rollback {release.model}`.",
                code="server.release_not_servable",
            )
        self.refused[release.number] = f"release {release.number} cannot be served: {why}"
        self.starting = None
        self.ledger.add_server_event(release.number, "refused", why)
        say("error", f"release {release.number} is refused: {why}", release=release.number)
        for worker in self._workers_of(release.number, WorkerState.STARTING, WorkerState.READY):
            worker.state = WorkerState.DRAINING
            worker.kill()
        self._enter(LifecycleEvent.REFUSED)

    def _switch_when_ready(self) -> None:
        """Let the workers of the next release answer alone, once all of them are ready."""
        if self.starting is None:
            return
        if len(self._workers_of(self.starting.number, WorkerState.READY)) < self.options.workers:
            return
        self.serving, self.starting = self.starting, None
        release = self.serving.release
        for worker in self.workers:
            if worker.release != release.number:
                self._drain(worker)
        self.ledger.add_server_event(release.number, servers.SERVING, release.bento)
        say("info", f"release {release.number} is served", release=release.number, bento=release.bento)
        self._enter(LifecycleEvent.READY)

    def _finish_change(self) -> None:
        """Note that one release alone answers, once every worker of another has gone."""
        # Until then a client that kept its connection may be answered by the release before.
        if self.state != ServerState.CHANGING or self.starting is not None or self.serving is None:
            return
        number = self.serving.number
        if any(worker.release != number for worker in self.workers):
            return
        self.ledger.add_server_event(number, "alone", "no worker of another release is left")
        say("info", f"release {number} alone answers: no worker of another release is left", release=number)
        self._enter(LifecycleEvent.ALONE)

    def _write_history(self) -> None:
        self.ledger.read_later(lambda: write_json(self.folder / "history.json", self.ledger.history()))

    def _report(self) -> None:
        """Say how this server is: to its workers, for /readyz, and to the ledger, when that is due."""
        refusals = "; ".join(self.refused.values()) if self.state == ServerState.DEGRADED else ""
        self._report_to_workers(refusals or None)
        now = time.monotonic()
        if self.serving is not None and now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL
            compared = self._differences() if self.state == ServerState.SHADOW else ""
            self.ledger.heartbeat(self.serving.number, self.state, refusals or compared)

    def _report_to_workers(self, degraded: str | None) -> None:
        for worker in self.workers:
            if worker.degraded != degraded:
                worker.degraded = degraded
                worker.send("degraded", why=degraded)

    # The canary.

    def _start_canary(self, loaded: Loaded) -> None:
        # Names of sockets are short, the folder's may be long; nobody else may enter this one.
        path = Path(tempfile.mkdtemp(prefix="evergreen-")) / "canary"
        listener = processes.listen_here(path)
        shadow = _is_shadow(loaded.release)
        # What a shadow answers is not counted as answered.
        folder = self.folder / "shadow" if shadow else self.folder
        # What reaches it came through a worker that has looked at the token.
        worker = self._start_worker(loaded, listener, folder, EVERGREEN_TOKENS="", EVERGREEN_CORS="")
        self.workers.append(worker)
        self.canary = CanaryRun(loaded, listener, path, worker)
        self._write_history()
        say("info", f"release {loaded.number} is starting as a canary", release=loaded.number, bento=loaded.bento.tag)
        self._enter(LifecycleEvent.SHADOW_STARTED if shadow else LifecycleEvent.CANARY_STARTED)

    def _watch(self, run: CanaryRun) -> None:
        """Begin to share requests with a canary that is ready; then compare it with the champion, once a second."""
        now = time.monotonic()
        if run.promoting or run.worker.state != WorkerState.READY or self.serving is None:
            return
        champions = self._workers_of(self.serving.number, WorkerState.READY)
        if run.since is None:
            self._begin_sharing(run, champions)
        elif now - run.watched >= WATCH_INTERVAL:
            run.watched = now
            self._compare(run, champions)

    def _begin_sharing(self, run: CanaryRun, champions: list[WorkerProcess]) -> None:
        run.since = time.monotonic()
        run.before = _sum(champions)
        for worker in champions:
            self._share(worker, run)
        number, share = run.loaded.number, describe_share(run.settings)
        self.ledger.add_server_event(number, "shadow" if run.shadow else "canary", share)
        say("info", f"release {number} {share}", release=number)

    def _compare(self, run: CanaryRun, champions: list[WorkerProcess]) -> None:
        """Stop a canary that does worse than the champion; promote one that was quiet for its time."""
        now = time.monotonic()
        failed = sum(worker.failed for worker in champions)
        answered = run.worker.counters + Counters(requests=failed, errors=failed)
        why = alarm(_sum(champions) - run.before, answered, run.settings, SECONDS)
        minutes = run.settings.minutes
        if why is not None:
            self._alarm(run, why)
        elif now - (run.since or now) > 60 * minutes and now >= run.promote_at and not self._held:
            quiet = f"quiet for {minutes:g} minutes, in which it answered {answered.requests:,} requests"
            self._promote(run, f"{quiet}; {self._differences()}" if run.shadow else quiet)

    def _promote(self, run: CanaryRun, why: str) -> None:
        run.promoting = True
        self.ledger.promote(run.loaded.number, why, run.promotion_refused)
        say("info", f"release {run.loaded.number} is promoted: {why}", release=run.loaded.number)

    def _alarm(self, run: CanaryRun, why: str) -> None:
        """Let the champion answer everything at once, then tell the ledger."""
        number = run.loaded.number
        why += f"; {self._differences()}" if run.shadow else ""
        self._end_canary(run)
        self.refused[number] = f"the canary, release {number}, is stopped: {why}"
        self._enter(LifecycleEvent.ALARM)
        self.ledger.stop_canary(number, why)
        self.ledger.add_server_event(number, "alarm", why)
        say("error", self.refused[number], release=number)
        # Whoever is told may take their time.
        Thread(target=self._pass_on, args=(number, why), daemon=True).start()

    def _pass_on(self, release: int, why: str) -> None:
        try:
            self.on_alarm(release, why)
        except Exception as error:
            say("warning", f"the alarm was not passed on: {error}")

    def _end_canary(self, run: CanaryRun) -> None:
        self.canary = None
        for worker in self.workers:
            if worker is not run.worker:
                worker.send("share", path=None, share=0.0)
                worker.failed, worker.shadow_diff = 0, ShadowDiff()
        run.listener.close()
        shutil.rmtree(run.path.parent, ignore_errors=True)
        if not run.worker.gone:
            self._drain(run.worker)

    def _share(self, worker: WorkerProcess, run: CanaryRun) -> None:
        worker.send("shadow" if run.shadow else "share", path=str(run.path), share=run.settings.share)

    def _differences(self) -> str:
        """Say how much a shadow differs from the champion, from what the champion's workers have found."""
        champions = [worker.shadow_diff for worker in self.workers if not self._is_canary(worker)]
        return str(sum(champions, start=ShadowDiff()))


def _is_shadow(release: Release) -> bool:
    return bool((release.canary or {}).get("shadow"))


def _sum(champions: list[WorkerProcess]) -> Counters:
    return sum((worker.counters for worker in champions), start=Counters())


def _prediction_edges(bento: Bento) -> list[float]:
    """Return the edges of the buckets that the predictions of a package are counted in."""
    manifest: dict[str, Any] = read_json(bento.path / "src" / "artifact" / "manifest.json")
    edges: list[float] = manifest.get("target_quantiles") or []
    return edges
