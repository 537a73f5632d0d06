"""Everything on one machine: a Prefect server, a worker for all schedules, and the endpoint of each released model.

Each is a process of its own, with its output in a file. One that ends is started anew after a pause, which grows while
it does not live long. All end with this one, however it ends.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from bentos.ledger import releases, runs
from bentos.ledger.database import open_ledger
from flows.cli.views import DeploymentView, ScheduleView
from flows.ops import prefect_server
from flows.ops.run_state import UP_PID_VARIABLE
from flows.reports import http
from pipeline.errors import ServerError
from pipeline.files import read_json, write_json
from pipeline.processes import stop_requested, supervised_child, wait_until
from pipeline.project import project_folder
from pipeline.settings import Settings
from pipeline.spec import model_names

TICK_INTERVAL = 0.5
POLL_INTERVAL = 10.0
"""How often it is asked for new releases, dead runs and next runs."""
MAX_BACKOFF = 60.0
"""The longest pause before a part is started anew; the first is a second."""
STABLE_SECONDS = 60.0
"""A part that lived for so long may be started anew at once, more or less."""
CLOCK_STEP_SECONDS = 60.0
"""What is no correction of the clock any more."""
FIRST_PORT = 3000
LOG_BYTES = 50_000_000
EVERGREEN = (sys.executable, "-c", "from flows.cli.main import main; main()")
FAIL_FAST_SETTINGS = {"PREFECT_CLIENT_MAX_RETRIES": "1", "PREFECT_API_REQUEST_TIMEOUT": "10"}
"""How this process asks the server: it must not wait for one that it has to start anew."""


@dataclass
class Part:
    """One process: what it is, the command, and how it fares."""

    name: str
    command: list[str]
    log: Path
    link: str = ""
    supervisor: ExitStack = field(default_factory=ExitStack)
    child: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    backoff: float = 1.0
    not_before: float = 0.0


@dataclass(frozen=True)
class PartShown:
    """A part of what is up: its name, whether it is up, and where it answers."""

    name: str
    up: bool
    link: str


@dataclass(frozen=True)
class DeploymentShown:
    """A deployment: its model, when it runs next (None: when asked to), the champion, and how the last run ended."""

    deployment: str
    model: str
    next: str | None
    release: int | None
    endpoint: str
    last_run: str | None


@dataclass(frozen=True)
class UpStatus:
    """What a person is shown: each part with its state and link, and each deployment with its next run."""

    parts: list[PartShown]
    models: list[DeploymentShown]


def up(settings: Settings, port: int, say: Callable[[str], None], show: Callable[[UpStatus], None]) -> None:
    """Keep everything up until SIGTERM or SIGINT. `say` is told what happens, `show` how everything is when it changes.

    Where PREFECT_API_URL is set, that server is used and none is started. Raises ServerError when it is up already, or
    the server does not start.
    """
    lock = FileLock(settings.folder("locks") / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ServerError(
            f"`evergreen up` is already running on {settings.folder()}; stop that one first",
            code="process.already_up",
        ) from None
    try:
        with stop_requested() as ending, ExitStack() as stack:
            _Up(settings, port, say, show, ending, stack).run()
    finally:
        lock.release()


class _Up:
    """The parts, in the order in which they start; they end in the other one."""

    def __init__(
        self,
        settings: Settings,
        port: int,
        say: Callable[[str], None],
        show: Callable[[UpStatus], None],
        ending: Callable[[], bool],
        stack: ExitStack,
    ) -> None:
        self.settings, self.port, self.say, self.show, self.ending = settings, port, say, show, ending
        self.ledger: Engine = open_ledger(settings.ledger_url)
        self.parts: list[Part] = []
        self.repackages: list[str] = []
        """Models whose packages are out of date; the first is being packaged."""
        self.repackaging: Part | None = None
        self.deployed: list[DeploymentView] = []
        self.verbose = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ
        self.env = prefect_server.prefect_environment(settings)
        self.own = "PREFECT_API_URL" not in self.env
        self.url = self.env.get("PREFECT_API_URL") or f"http://127.0.0.1:{port}/api"
        self.shown: UpStatus | None = None
        self.due: dict[str, str] = {}
        self.clock = _clock()
        self.planned = True
        self.pages = stack.enter_context(http.serving(settings.folder("runs"), port + 1)) if self.own else None
        stack.callback(self._end)

    def run(self) -> None:
        """Start everything and look after it."""
        if self.own:
            self._start_server()
        os.environ.update({**self.env, "PREFECT_API_URL": self.url, **FAIL_FAST_SETTINGS})
        if self.ending():
            return
        self.deployed = self._deploy()
        for note in (note for one in self.deployed for note in one.notes):
            self.say(note)
        self.repackages = sorted({one.model for one in self.deployed if one.package_outdated})
        self._look()
        from flows.ops import deploy

        self._add("worker", [sys.executable, "-m", "prefect", "worker", "start", *_worker(deploy.POOL)])
        looked = time.monotonic()
        while not self.ending():
            for part in self.parts:
                self._look_after(part)
            self._repackage()
            if time.monotonic() - looked > POLL_INTERVAL:
                self._look()
                looked = time.monotonic()
            time.sleep(TICK_INTERVAL)
        self.say("ending")

    def _start_server(self) -> None:
        part = self._add("server", prefect_server.server_command(self.port), link=f"http://127.0.0.1:{self.port}")
        self.say("the Prefect server is starting")
        assert part.child is not None
        if not wait_until(
            lambda: self.ending() or prefect_server.answers(self.url), part.child, prefect_server.START_TIMEOUT
        ):
            tail = part.log.read_text(errors="replace")[-2000:].strip()
            raise ServerError(
                f"the Prefect server did not start; {part.log} ends with: {tail}", code="process.prefect_not_started"
            )
        # Whoever runs a model by hand meanwhile reports to this server.
        there = {"pages": self.pages} if self.pages else {}
        write_json(self.settings.folder("prefect") / "server.json", {"url": self.url, **there})

    def _deploy(self) -> list[DeploymentView]:
        """Register the deployments, in a process that may import all models and ends again."""
        env = {**self.env, "PREFECT_API_URL": self.url}
        done = subprocess.run(
            [*EVERGREEN, "deploy", "--json"], env=env, cwd=project_folder(), capture_output=True, check=False
        )
        if self.ending():
            return []
        if done.returncode != 0:
            raise ServerError(
                "the deployments could not be registered; `evergreen deploy` shows the same error: "
                f"{(done.stdout or done.stderr).decode()[-2000:].strip()}",
                code="process.not_deployed",
            )
        deployed = [
            DeploymentView(**{**one, "schedule": one["schedule"] and ScheduleView(**one["schedule"])})
            for one in json.loads(done.stdout)["deployments"]
        ]
        return deployed

    def _add(self, name: str, command: list[str], link: str = "") -> Part:
        part = Part(name, command, self.settings.folder("up") / f"{name}.log", link)
        self.parts.append(part)
        self._start(part)
        return part

    def _start(self, part: Part) -> None:
        env = {**self.env, "PREFECT_API_URL": self.url, UP_PID_VARIABLE: str(os.getpid())}
        if part.name == "server":
            env = prefect_server.server_environment(self.settings, self.url)
        elif self.verbose:
            # Into a file: nobody is disturbed.
            env["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
        if part.name == "worker" and self.own:
            self._close_unstarted()
        part.supervisor = ExitStack()
        part.child = part.supervisor.enter_context(
            supervised_child(part.command, env, project_folder(), part.log, aside=True)
        )
        part.started = time.monotonic()

    def _close_unstarted(self) -> None:
        """No worker is up on a server of our own: what one had taken is nobody's."""
        from flows.ops import deploy, run_state

        try:
            if count := run_state.close_unstarted(deploy.POOL):
                self.say(f"{count} runs that a worker had taken and not begun are closed and asked for anew")
        except Exception as error:
            self.say(f"runs that a worker had taken cannot be looked for now: {type(error).__name__}: {error}")

    def _look_after(self, part: Part) -> None:
        now = time.monotonic()
        if part.child is None:
            if now >= part.not_before:
                self._start(part)
                self.say(f"{part.name} is started anew")
                self._tell()
            return
        code = part.child.poll()
        if code is None or self.ending():
            return
        if now - part.started > STABLE_SECONDS:
            part.backoff = 1.0
        part.supervisor.close()
        part.child = None
        part.not_before = now + part.backoff
        # The leash passes on -9 as 247.
        told = code - 256 if code > 127 else code
        self.say(f"{part.name} ended with code {told}; it is started anew in {part.backoff:g} s ({part.log} says why)")
        part.backoff = min(2 * part.backoff, MAX_BACKOFF)
        self._tell()

    def _repackage(self) -> None:
        """Package the champions again whose packages are out of date, one after the other, each once."""
        part = self.repackaging
        if part is None:
            if self.repackages:
                model = self.repackages[0]
                self.say(f"the package of {model} is out of date: its model is packaged again")
                log = self.settings.folder("up") / f"repackage {model}.log"
                self.repackaging = Part(f"repackage {model}", [*EVERGREEN, "repackage", model], log)
                self._start(self.repackaging)
        elif part.child is not None and (code := part.child.poll()) is not None:
            part.supervisor.close()
            model = self.repackages.pop(0)
            self.repackaging = None
            how = "is packaged again" if code == 0 else f"was not packaged again, code {code}"
            self.say(f"{model} {how} ({part.log} says more)")

    def _plan_anew(self) -> None:
        """Plan the schedules' runs anew when the clock was set back.

        A Prefect server has planned from the time that was wrong, its own work too, and would wait until then.
        """
        before, self.clock = self.clock, _clock()
        back = before - self.clock
        if back > CLOCK_STEP_SECONDS:
            self.say(f"the clock was set back by {timedelta(seconds=round(back))}: runs are planned anew")
            self.planned = False
            for part in self.parts:
                if part.name == "server":
                    part.supervisor.close()
                    self._start(part)
        if not self.planned and prefect_server.answers(self.url):
            try:
                self.deployed = self._deploy()
                self.planned = True
            except ServerError as error:
                self.say(str(error))

    def _look(self) -> None:
        """Close runs that died, serve what has its first release, and show what has changed."""
        from flows.ops import run_state

        self._plan_anew()
        try:
            for dead in run_state.close_crashed(self.settings, self.ledger):
                again = f"; it begins anew at {dead.again}" if dead.again else ""
                self.say(f"{dead.model}: {dead.sentence}: closed{again}")
        except Exception as error:
            self.say(f"runs that died cannot be looked for now: {type(error).__name__}: {error}")
        for part in self.parts:
            _shorten(part.log)
        for model in model_names():
            if f"endpoint {model}" not in {part.name for part in self.parts}:
                try:
                    released = releases.champion(self.ledger, model)
                except Exception as error:
                    self.say(f"the ledger cannot be asked now: {type(error).__name__}: {error}")
                    break
                if released:
                    port = self._port(model)
                    command = [*EVERGREEN, "serve", model, "--port", str(port)]
                    self._add(f"endpoint {model}", command, f"http://127.0.0.1:{port}")
                    self.say(f"{model} has release {released.number}: it is served on port {port}")
        self._tell()

    def _tell(self) -> None:
        """Show how everything is, if that is not what was shown last."""
        from flows.ops import deploy

        with suppress(Exception):
            self.due = deploy.next_runs()
        try:
            now = self._how_it_is()
        except Exception as error:
            self.say(f"the ledger cannot be asked now: {type(error).__name__}: {error}")
            return
        if now != self.shown:
            self.shown = now
            self.show(now)

    def _how_it_is(self) -> UpStatus:
        parts = [PartShown(part.name, part.child is not None, part.link) for part in self.parts]
        links = {part.name: part.link for part in self.parts}
        models = []
        for one in self.deployed:
            last = runs.last_run(self.ledger, one.model)
            champion = releases.champion(self.ledger, one.model)
            models.append(
                DeploymentShown(
                    deployment=one.deployment,
                    model=one.model,
                    next="paused" if one.paused else self.due.get(one.deployment),
                    release=champion.number if champion else None,
                    endpoint=links.get(f"endpoint {one.model}", ""),
                    last_run=f"{last.outcome}, {last.started}" if last else None,
                )
            )
        return UpStatus(parts, models)

    def _port(self, model: str) -> int:
        """Return the port of a model: the one it had before, else the first that is free."""
        path = self.settings.folder("up") / "ports.json"
        try:
            ports: dict[str, int] = read_json(path)
        except (OSError, ValueError):
            ports = {}
        if model not in ports:
            port = FIRST_PORT
            while port in ports.values() or not _free(port):
                port += 1
            ports[model] = port
            write_json(path, ports)
        return ports[model]

    def _end(self) -> None:
        """End all parts, the server last, so that it can be told how the others ended."""
        if self.repackaging:
            self.repackaging.supervisor.close()
        for part in reversed(self.parts):
            if part.name == "server":
                (self.settings.folder("prefect") / "server.json").unlink(missing_ok=True)
            part.supervisor.close()
            if part.name == "worker" and any(self.settings.folder("runs").glob("*/*/under-way.json")):
                from flows.ops import run_state

                # A run ends soon after its worker.
                time.sleep(1.5)
                with suppress(Exception):
                    run_state.close_crashed(self.settings, self.ledger)


def _worker(pool: str) -> list[str]:
    """Return the options of the worker: as many runs at once as there are processors, and two at least.

    A run that takes long holds back no other model's then.
    """
    return [
        "--pool",
        pool,
        "--type",
        "process",
        "--name",
        socket.gethostname(),
        "--limit",
        str(max(2, os.cpu_count() or 1)),
    ]


def _clock() -> float:
    """Return by how much the time of day is ahead of a clock that nobody sets."""
    return time.time() - time.monotonic()


def _shorten(log: Path) -> None:
    """Move a log that has grown long aside, in the place of the one before; the process goes on writing to its file."""
    if log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def _free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
