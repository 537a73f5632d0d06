"""Everything on one machine: a Prefect server, a worker for all schedules, and an endpoint for each released model.

Each is a child process with a log file. A process that ends is restarted with exponential backoff. All of them end
with this process, however it ends.
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
"""Seconds between two checks of the processes."""
POLL_INTERVAL = 10.0
"""Seconds between two queries for new releases, crashed runs and next runs."""
MAX_BACKOFF = 60.0
"""The longest delay in seconds before a process is restarted; the first is 1."""
STABLE_SECONDS = 60.0
"""The backoff of a process that ran for longer than this starts at 1 second again."""
CLOCK_STEP_SECONDS = 60.0
"""If the clock was set back by more seconds than this, the schedules are planned again."""
FIRST_PORT = 3000
"""The port of the first endpoint."""
LOG_BYTES = 50_000_000
"""The size at which a log file is rotated."""
EVERGREEN = (sys.executable, "-c", "from flows.cli.main import main; main()")
"""The command `evergreen`, with this interpreter."""
FAIL_FAST_SETTINGS = {"PREFECT_CLIENT_MAX_RETRIES": "1", "PREFECT_API_REQUEST_TIMEOUT": "10"}
"""Prefect's settings of this process: it must not wait for a server that it has to restart itself."""


@dataclass
class Part:
    """One child process.

    Attributes:
        name: such as "server", "worker" or "endpoint MODEL".
        command: the command line.
        log: the file of its output.
        link: the address where it answers; empty without one.
        supervisor: ends the process when it is closed.
        child: the process; None while it waits to be restarted.
        started: when it started, in seconds of the monotonic clock.
        backoff: the delay in seconds before its next restart.
        not_before: when it may be restarted, in seconds of the monotonic clock.
    """

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
    """A process as people see it.

    Attributes:
        name: such as "server".
        up: whether it is running.
        link: the address where it answers; empty without one.
    """

    name: str
    up: bool
    link: str


@dataclass(frozen=True)
class DeploymentShown:
    """A deployment as people see it.

    Attributes:
        deployment: its name in Prefect.
        model: its model.
        next: when it runs next, ISO 8601, or "paused"; None if it is not scheduled.
        release: the champion of the model; None without one.
        endpoint: the address of the model's endpoint; empty without one.
        last_run: the outcome and the start of the last run; None before the first.
    """

    deployment: str
    model: str
    next: str | None
    release: int | None
    endpoint: str
    last_run: str | None


@dataclass(frozen=True)
class UpStatus:
    """The status that `up` shows to people: its processes, and the deployments with their next runs."""

    parts: list[PartShown]
    models: list[DeploymentShown]


def up(settings: Settings, port: int, say: Callable[[str], None], show: Callable[[UpStatus], None]) -> None:
    """Keep everything up until SIGTERM or SIGINT. Calls `say` with each log line, and `show` when the status changes.

    If PREFECT_API_URL is set, that server is used and none is started. Raises ServerError if `up` is already running on
    this home, or the server does not start.
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
    """The processes, in the order in which they start; they end in reverse order."""

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
        """Models whose package is out of date; the first one is being repackaged."""
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
        """Start everything, and supervise it until the process is asked to stop."""
        if self.own:
            self._start_server()
        os.environ.update({**self.env, "PREFECT_API_URL": self.url, **FAIL_FAST_SETTINGS})
        if self.ending():
            return
        self.deployed = self._deploy()
        for note in (note for deployment in self.deployed for note in deployment.notes):
            self.say(note)
        self.repackages = sorted({deployment.model for deployment in self.deployed if deployment.package_outdated})
        self._poll()
        from flows.ops import deploy

        self._add("worker", [sys.executable, "-m", "prefect", "worker", "start", *_worker_options(deploy.POOL)])
        polled = time.monotonic()
        while not self.ending():
            for part in self.parts:
                self._check_part(part)
            self._repackage()
            if time.monotonic() - polled > POLL_INTERVAL:
                self._poll()
                polled = time.monotonic()
            time.sleep(TICK_INTERVAL)
        self.say("stopping")

    def _start_server(self) -> None:
        part = self._add("server", prefect_server.server_command(self.port), link=f"http://127.0.0.1:{self.port}")
        self.say("starting the Prefect server")
        assert part.child is not None
        if not wait_until(
            lambda: self.ending() or prefect_server.answers(self.url), part.child, prefect_server.START_TIMEOUT
        ):
            tail = part.log.read_text(errors="replace")[-2000:].strip()
            raise ServerError(
                f"the Prefect server did not start; {part.log} ends with: {tail}", code="process.prefect_not_started"
            )
        # Runs that a person starts in a terminal report to this server too.
        pages = {"pages": self.pages} if self.pages else {}
        write_json(self.settings.folder("prefect") / "server.json", {"url": self.url, **pages})

    def _deploy(self) -> list[DeploymentView]:
        """Register the deployments in a child process, so that this one need not import the models."""
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
        return [
            DeploymentView(**{**fields, "schedule": fields["schedule"] and ScheduleView(**fields["schedule"])})
            for fields in json.loads(done.stdout)["deployments"]
        ]

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
            # The output goes to a log file, so it may be verbose.
            env["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
        if part.name == "worker" and self.own:
            self._close_unstarted()
        part.supervisor = ExitStack()
        part.child = part.supervisor.enter_context(
            supervised_child(part.command, env, project_folder(), part.log, aside=True)
        )
        part.started = time.monotonic()

    def _close_unstarted(self) -> None:
        """Reschedule runs that an earlier worker accepted and did not begin; on our own server no other worker runs."""
        from flows.ops import deploy, run_state

        try:
            if count := run_state.close_unstarted(deploy.POOL):
                self.say(f"rescheduled {count} runs that a worker had accepted but not started")
        except Exception as error:
            self.say(f"could not check for unstarted runs: {type(error).__name__}: {error}")

    def _check_part(self, part: Part) -> None:
        """Restart a process that has ended, when its backoff is over."""
        now = time.monotonic()
        if part.child is None:
            if now >= part.not_before:
                self._start(part)
                self.say(f"{part.name} restarted")
                self._show_status()
            return
        code = part.child.poll()
        if code is None or self.ending():
            return
        if now - part.started > STABLE_SECONDS:
            part.backoff = 1.0
        part.supervisor.close()
        part.child = None
        part.not_before = now + part.backoff
        # The supervising process passes on -9 as 247.
        signed = code - 256 if code > 127 else code
        self.say(f"{part.name} ended with code {signed}; it will be restarted in {part.backoff:g} s (see {part.log})")
        part.backoff = min(2 * part.backoff, MAX_BACKOFF)
        self._show_status()

    def _repackage(self) -> None:
        """Repackage the champions whose package is out of date, one after the other, each once."""
        part = self.repackaging
        if part is None:
            if self.repackages:
                model = self.repackages[0]
                self.say(f"the package of {model} is out of date; repackaging it")
                log = self.settings.folder("up") / f"repackage {model}.log"
                self.repackaging = Part(f"repackage {model}", [*EVERGREEN, "repackage", model], log)
                self._start(self.repackaging)
        elif part.child is not None and (code := part.child.poll()) is not None:
            part.supervisor.close()
            model = self.repackages.pop(0)
            self.repackaging = None
            result = "repackaged" if code == 0 else f"not repackaged, exit code {code}"
            self.say(f"{model}: {result} (see {part.log})")

    def _reschedule_after_clock_step(self) -> None:
        """Restart our server and register the schedules again if the clock was set back.

        The Prefect server has planned runs, and its own work, from the time that was wrong. It would wait until then.
        """
        before, self.clock = self.clock, _clock()
        back = before - self.clock
        if back > CLOCK_STEP_SECONDS:
            self.say(f"the clock was set back by {timedelta(seconds=round(back))}: rescheduling all runs")
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

    def _poll(self) -> None:
        """Close crashed runs, rotate logs, serve models that have their first release, and show what has changed."""
        from flows.ops import run_state

        self._reschedule_after_clock_step()
        try:
            for crashed in run_state.close_crashed(self.settings, self.ledger):
                restart = f"; it restarts at {crashed.restart}" if crashed.restart else ""
                self.say(f"{crashed.model}: {crashed.sentence}; closed it{restart}")
        except Exception as error:
            self.say(f"could not check for crashed runs: {type(error).__name__}: {error}")
        for part in self.parts:
            _rotate(part.log)
        for model in model_names():
            if f"endpoint {model}" not in {part.name for part in self.parts}:
                try:
                    champion = releases.champion(self.ledger, model)
                except Exception as error:
                    self.say(f"ledger query failed: {type(error).__name__}: {error}")
                    break
                if champion:
                    port = self._port(model)
                    command = [*EVERGREEN, "serve", model, "--port", str(port)]
                    self._add(f"endpoint {model}", command, f"http://127.0.0.1:{port}")
                    self.say(f"{model} has release {champion.number}: serving it on port {port}")
        self._show_status()

    def _show_status(self) -> None:
        """Show the status if it differs from the one shown last."""
        from flows.ops import deploy

        with suppress(Exception):
            self.due = deploy.next_runs()
        try:
            status = self._status()
        except Exception as error:
            self.say(f"ledger query failed: {type(error).__name__}: {error}")
            return
        if status != self.shown:
            self.shown = status
            self.show(status)

    def _status(self) -> UpStatus:
        parts = [PartShown(part.name, part.child is not None, part.link) for part in self.parts]
        links = {part.name: part.link for part in self.parts}
        models = []
        for deployment in self.deployed:
            last = runs.last_run(self.ledger, deployment.model)
            champion = releases.champion(self.ledger, deployment.model)
            models.append(
                DeploymentShown(
                    deployment=deployment.deployment,
                    model=deployment.model,
                    next="paused" if deployment.paused else self.due.get(deployment.deployment),
                    release=champion.number if champion else None,
                    endpoint=links.get(f"endpoint {deployment.model}", ""),
                    last_run=f"{last.outcome}, {last.started}" if last else None,
                )
            )
        return UpStatus(parts, models)

    def _port(self, model: str) -> int:
        """Return the port of a model's endpoint: the one it had before, else the first free one."""
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
        """End all processes, the server last, so that the others can report to it how they ended."""
        if self.repackaging:
            self.repackaging.supervisor.close()
        for part in reversed(self.parts):
            if part.name == "server":
                (self.settings.folder("prefect") / "server.json").unlink(missing_ok=True)
            part.supervisor.close()
            if part.name == "worker" and any(self.settings.folder("runs").glob("*/*/under-way.json")):
                from flows.ops import run_state

                # Runs end within about a second after their worker.
                time.sleep(1.5)
                with suppress(Exception):
                    run_state.close_crashed(self.settings, self.ledger)


def _worker_options(pool: str) -> list[str]:
    """Return the options of the worker: one run per processor at the same time, and at least two.

    With two, a long run does not delay the runs of other models.
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
    """Return the difference of wall clock and monotonic clock in seconds; it falls when the wall clock is set back."""
    return time.time() - time.monotonic()


def _rotate(log: Path) -> None:
    """Copy a long log to `NAME.1` and empty it; the process keeps writing to the same file."""
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
