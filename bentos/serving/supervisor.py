"""Serve the champion of a model: own the socket, keep workers on it, and follow the ledger without losing a request.

Workers are processes of the released package. The old ones drain only after the workers of a new release have proven
that they answer as they were trained; the socket is never closed. A canary's worker listens on a socket of its own,
and the champion's workers hand it a share of their requests.

`bentos.serving.server_states` has the states of a server and the transitions between them.
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
"""How many seconds pass between two heartbeats of a server whose state does not change."""
START_TIMEOUT = 120.0
"""How many seconds a worker may take to say that it is ready."""
WORKER_HEARTBEAT_TIMEOUT = 15.0
"""A worker that sends nothing for this many seconds hangs."""
DRAIN_TIMEOUT = 40.0
"""How many seconds a draining worker may take."""
MIN_RESTART_BACKOFF = 0.5
MAX_RESTART_BACKOFF = 30.0
"""The first and the longest pause, in seconds, before a worker that died while starting is restarted."""
WATCH_INTERVAL = 1.0
"""How many seconds pass between two comparisons of a canary with the champion."""
PROMOTION_BACKOFF = 5.0
"""How many seconds pass until a promotion that the ledger refused is retried."""


@dataclass(frozen=True)
class Options:
    """How a model is served.

    Attributes:
        host: The address to listen on.
        port: The port to listen on.
        workers: How many processes answer.
        certificate: A TLS certificate, for HTTPS.
        key: The certificate's key.
        cors: The origins whose pages may send requests.
        requests: The folder of the request log, for models whose spec has one.
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
    """A release and its package, checked on this machine.

    Attributes:
        release: The release, from the ledger.
        bento: Its package, whose digest is the one in the ledger.
    """

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
        watched: When it was last compared with the champion, by `time.monotonic`.
        promote_at: The earliest time of the next promotion, which is later after a refusal.
        promoting: Whether a promotion is being written to the ledger.
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
        """Retry the promotion after PROMOTION_BACKOFF."""
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
    """Serve the current champion of a model until SIGTERM or SIGINT, then answer the requests in flight.

    `home` is the BentoML home with the packages; `folder` is this server's own. `on_alarm` is called in a thread with
    the number of a canary that was stopped and the reason. Raises as `champion_bento`, and ServerError when the port is
    not available or the first release does not start.
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
    """The workers of a model and the release they serve; `tick` does what is due and never waits.

    Attributes:
        state: The state of this server, which heartbeats report.
        workers: All its processes, including the canary's and the draining ones.
        serving: The release that answers; None before the first one is ready.
        starting: The release that is being started to replace it; None if there is none.
        canary: The canary that is served; None if there is none.
        refused: The reason why a release cannot be served, by its number. The supervisor retries such a release only
            after the ledger has asked for another one in between.
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
        """Start workers of a release; the current release answers until they are ready."""
        self.starting = loaded
        say("info", f"starting release {loaded.number}", release=loaded.number, bento=loaded.bento.tag)
        self._write_history()
        for _ in range(self.options.workers):
            self.workers.append(self._start_worker(loaded, self.listener))

    def tick(self) -> None:
        """Read the workers' messages, replace dead and hung workers, follow the ledger, and check the canary."""
        for worker in self.workers:
            for message in worker.messages():
                self._receive(worker, message)
        for worker in [*self.workers]:
            self._check_health(worker)
        self._switch_when_ready()
        self._start_missing_workers()
        desired = self.ledger.desired_state()
        if desired is not None and self.serving is not None:
            self._follow(desired)
        if self.canary is not None:
            self._check_canary(self.canary)
        self._finish_change()
        self._report()

    def stop(self) -> None:
        """Let all workers answer the requests in flight, and end them."""
        self._enter(LifecycleEvent.STOPPED)
        self._report()
        if self.canary is not None:
            self._end_canary(self.canary)
        for worker in self.workers:
            worker.process.terminate()
        end = time.monotonic() + DRAIN_TIMEOUT
        for worker in self.workers:
            # A worker that was stopped (SIGSTOP) answers nothing and does not react to SIGTERM.
            worker.stop(0.0 if worker.stopped else max(0.0, end - time.monotonic()))
        self.ledger.deregister(self.serving.number if self.serving is not None else None)
        logs.stderr().flush()

    def _enter(self, event: LifecycleEvent) -> None:
        self.state = next_state(self.state, event)
        self._heartbeat_at = 0.0

    # Workers.

    def _receive(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if "tally" in message:
            worker.counters, worker.failed = Counters.of(message["tally"]), message["failed"]
            # Only workers that have a shadow report differences.
            worker.shadow_diff = ShadowDiff(**message["found"]) if message.get("found") else worker.shadow_diff
        if message["state"] == "ready" and worker.state == WorkerState.STARTING:
            worker.state = WorkerState.READY
            self._restarts = 0
            seconds = round(time.monotonic() - worker.started, 2)
            say("info", "worker is ready", release=worker.release, worker=worker.process.pid, seconds=seconds)
            if self.canary is not None and self.canary.since is not None and worker is not self.canary.worker:
                self._send_share(worker, self.canary)
        elif message["state"] == "stuck" and worker.state == WorkerState.READY:
            say("error", "worker hangs in a prediction, replacing it", worker=worker.process.pid)
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
            say("error", "worker did not become ready, killing it", worker=worker.process.pid)
            worker.kill()
        elif worker.state == WorkerState.READY and now - worker.last_heard > WORKER_HEARTBEAT_TIMEOUT:
            say("error", "worker sent no heartbeat, killing it", worker=worker.process.pid)
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
        """React to a worker that ended without being drained: alarm, refuse its release, or restart with backoff."""
        code = worker.process.returncode
        say("error", f"worker died while {worker.state}, with exit code {code}", worker=worker.process.pid)
        if self.canary is not None and worker is self.canary.worker:
            self._stop_canary(self.canary, f"its worker ended with code {code}; see the server's log")
        elif worker.state == WorkerState.STARTING:
            if self.starting is not None and worker.release == self.starting.number:
                why = f"its worker ended with code {code} before it was ready; see the server's log"
                self._refuse(self.starting.release, why)
            else:
                self._restart_at = time.monotonic() + min(MIN_RESTART_BACKOFF * 2**self._restarts, MAX_RESTART_BACKOFF)
                self._restarts += 1

    def _start_missing_workers(self) -> None:
        if time.monotonic() < self._restart_at:
            return
        # A ready worker of the next release may die before the others are ready. It must be replaced, or the switch,
        # which waits for all of them, would never come.
        for loaded in filter(None, (self.serving, self.starting)):
            present = self._workers_of(loaded.number, WorkerState.STARTING, WorkerState.READY)
            for _ in range(self.options.workers - len(present)):
                self.workers.append(self._start_worker(loaded, self.listener))

    def _workers_of(self, release: int, *states: WorkerState) -> list[WorkerProcess]:
        """Return the workers of a release on the clients' socket that are in one of the states."""
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
        # It may start slowly if other workers answer clients meanwhile; a canary's worker does not.
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

    def _follow(self, desired: DesiredState) -> None:
        """Take the next step from the current state to the ledger's desired state."""
        self._held = desired.held is not None
        self._clear_refusals(desired)
        if self.canary is not None and (desired.canary is None or desired.canary.number != self.canary.loaded.number):
            self._end_canary(self.canary)
            self._enter(LifecycleEvent.CANARY_ENDED)
        if desired.champion is not None:
            self._follow_champion(desired.champion)
        # A canary is compared with the champion, so it waits until the champion alone answers.
        if desired.canary is not None and self.state == ServerState.SERVING:
            loaded = self._load(desired.canary)
            if loaded is not None:
                self._start_canary(loaded)

    def _clear_refusals(self, desired: DesiredState) -> None:
        """Drop refusals of releases that the ledger no longer asks for; without any left the server has recovered."""
        wanted = {release.number for release in (desired.champion, desired.canary) if release is not None}
        self.refused = {number: why for number, why in self.refused.items() if number in wanted}
        if self.state == ServerState.DEGRADED and not self.refused:
            self._enter(LifecycleEvent.RECOVERED)

    def _follow_champion(self, champion: Release) -> None:
        assert self.serving is not None
        can_change = self.starting is None and self.state in (ServerState.SERVING, ServerState.CHANGING)
        if can_change and champion.number != self.serving.number:
            loaded = self._load(champion)
            if loaded is not None:
                self._enter(LifecycleEvent.CHAMPION_CHANGED)
                self.start(loaded)

    def _load(self, release: Release) -> Loaded | None:
        """Return a release with its package; refuse it and return None if the package is missing or damaged."""
        try:
            return Loaded(release, load_bento(release.bento, self.home, expected=release.digests["bento"]))
        except Exception as error:
            self._refuse(release, str(error))
            return None

    def _refuse(self, release: Release, why: str) -> None:
        """Keep serving the current release, because this one cannot be served: record it and kill its workers."""
        if self.serving is None:
            raise ServerError(
                f"release {release.number} of {release.model} cannot be served: {why}. Fix this, or "
                f"`evergreen rollback {release.model}`.",
                code="server.release_not_servable",
            )
        self.refused[release.number] = f"release {release.number} cannot be served: {why}"
        self.starting = None
        self.ledger.add_server_event(release.number, "refused", why)
        say("error", f"release {release.number} cannot be served: {why}", release=release.number)
        for worker in self._workers_of(release.number, WorkerState.STARTING, WorkerState.READY):
            worker.state = WorkerState.DRAINING
            worker.kill()
        self._enter(LifecycleEvent.REFUSED)

    def _switch_when_ready(self) -> None:
        """Switch to the next release once all its workers are ready, and drain the workers of the old one."""
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
        say("info", f"serving release {release.number}", release=release.number, bento=release.bento)
        self._enter(LifecycleEvent.READY)

    def _finish_change(self) -> None:
        """Record that one release alone answers, once the last worker of any other one has gone."""
        # Until then the previous release may still answer clients that keep their connection.
        if self.state != ServerState.CHANGING or self.starting is not None or self.serving is None:
            return
        number = self.serving.number
        if any(worker.release != number for worker in self.workers):
            return
        self.ledger.add_server_event(number, "alone", "the workers of other releases have ended")
        say("info", f"only release {number} answers now: the workers of other releases have ended", release=number)
        self._enter(LifecycleEvent.ALONE)

    def _write_history(self) -> None:
        self.ledger.read_later(lambda: write_json(self.folder / "history.json", self.ledger.history()))

    def _report(self) -> None:
        """Report the state of this server: to its workers, for /readyz, and as a heartbeat to the ledger when due."""
        reason = "; ".join(self.refused.values()) if self.state == ServerState.DEGRADED else ""
        self._report_to_workers(reason or None)
        now = time.monotonic()
        if self.serving is not None and now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_INTERVAL
            comparison = self._describe_shadow_diff() if self.state == ServerState.SHADOW else ""
            self.ledger.heartbeat(self.serving.number, self.state, reason or comparison)

    def _report_to_workers(self, degraded: str | None) -> None:
        for worker in self.workers:
            if worker.degraded != degraded:
                worker.degraded = degraded
                worker.send("degraded", why=degraded)

    # The canary.

    def _start_canary(self, loaded: Loaded) -> None:
        # The path of a socket must be short, and `folder` may be long. mkdtemp makes a folder only this user can enter.
        path = Path(tempfile.mkdtemp(prefix="evergreen-")) / "canary"
        listener = processes.listen_here(path)
        shadow = _is_shadow(loaded.release)
        # A shadow's answers do not count in /metrics.
        folder = self.folder / "shadow" if shadow else self.folder
        # It needs no token: its requests come from a worker that has checked theirs.
        worker = self._start_worker(loaded, listener, folder, EVERGREEN_TOKENS="", EVERGREEN_CORS="")
        self.workers.append(worker)
        self.canary = CanaryRun(loaded, listener, path, worker)
        self._write_history()
        say("info", f"starting release {loaded.number} as a canary", release=loaded.number, bento=loaded.bento.tag)
        self._enter(LifecycleEvent.SHADOW_STARTED if shadow else LifecycleEvent.CANARY_STARTED)

    def _check_canary(self, run: CanaryRun) -> None:
        """Start to send requests to a canary that is ready; then compare it with the champion once a second."""
        now = time.monotonic()
        if run.promoting or run.worker.state != WorkerState.READY or self.serving is None:
            return
        champions = self._workers_of(self.serving.number, WorkerState.READY)
        if run.since is None:
            self._start_sharing(run, champions)
        elif now - run.watched >= WATCH_INTERVAL:
            run.watched = now
            self._compare(run, champions)

    def _start_sharing(self, run: CanaryRun, champions: list[WorkerProcess]) -> None:
        run.since = time.monotonic()
        run.before = _sum(champions)
        for worker in champions:
            self._send_share(worker, run)
        number, share = run.loaded.number, describe_share(run.settings)
        self.ledger.add_server_event(number, "shadow" if run.shadow else "canary", share)
        say("info", f"release {number} {share}", release=number)

    def _compare(self, run: CanaryRun, champions: list[WorkerProcess]) -> None:
        """Stop a canary that does worse than the champion; promote one that ran its minutes without an alarm."""
        now = time.monotonic()
        failed = sum(worker.failed for worker in champions)
        answered = run.worker.counters + Counters(requests=failed, errors=failed)
        why = alarm(_sum(champions) - run.before, answered, run.settings, SECONDS)
        minutes = run.settings.minutes
        if why is not None:
            self._stop_canary(run, why)
        elif now - (run.since or now) > 60 * minutes and now >= run.promote_at and not self._held:
            quiet = f"no alarm for {minutes:g} minutes, in which it answered {answered.requests:,} requests"
            self._promote(run, f"{quiet}; {self._describe_shadow_diff()}" if run.shadow else quiet)

    def _promote(self, run: CanaryRun, why: str) -> None:
        run.promoting = True
        self.ledger.promote(run.loaded.number, why, run.promotion_refused)
        say("info", f"promoting release {run.loaded.number}: {why}", release=run.loaded.number)

    def _stop_canary(self, run: CanaryRun, why: str) -> None:
        """Let the champion answer all requests at once, then record it in the ledger and raise the alarm."""
        number = run.loaded.number
        why += f"; {self._describe_shadow_diff()}" if run.shadow else ""
        self._end_canary(run)
        self.refused[number] = f"the canary, release {number}, is stopped: {why}"
        self._enter(LifecycleEvent.ALARM)
        self.ledger.stop_canary(number, why)
        self.ledger.add_server_event(number, "alarm", why)
        say("error", self.refused[number], release=number)
        # In a thread, because the receiver may be slow.
        Thread(target=self._report_alarm, args=(number, why), daemon=True).start()

    def _report_alarm(self, release: int, why: str) -> None:
        try:
            self.on_alarm(release, why)
        except Exception as error:
            say("warning", f"the alarm could not be sent: {type(error).__name__}: {error}")

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

    def _send_share(self, worker: WorkerProcess, run: CanaryRun) -> None:
        worker.send("shadow" if run.shadow else "share", path=str(run.path), share=run.settings.share)

    def _describe_shadow_diff(self) -> str:
        """Describe how much a shadow differs from the champion, summed over the champion's workers."""
        differences = [worker.shadow_diff for worker in self.workers if not self._is_canary(worker)]
        return str(sum(differences, start=ShadowDiff()))


def _is_shadow(release: Release) -> bool:
    return bool((release.canary or {}).get("shadow"))


def _sum(champions: list[WorkerProcess]) -> Counters:
    return sum((worker.counters for worker in champions), start=Counters())


def _prediction_edges(bento: Bento) -> list[float]:
    """Return the edges of the buckets that the predictions of a package are counted in."""
    manifest: dict[str, Any] = read_json(bento.path / "src" / "artifact" / "manifest.json")
    edges: list[float] = manifest.get("target_quantiles") or []
    return edges
