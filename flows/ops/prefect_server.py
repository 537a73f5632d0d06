"""The Prefect server that runs report to: one that is already running, or one that lives as long as the run."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock

from flows.reports import http
from pipeline.errors import ServerError
from pipeline.files import write_json
from pipeline.processes import free_port, supervised_child, wait_until
from pipeline.settings import Settings

START_TIMEOUT = 180.0


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of processes that run Prefect: its home below ours, no telemetry, no lines on stdout.

    Variables that are already set, such as the address of another server, are kept.
    """
    home = settings.folder("prefect")
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # The command shows the steps itself; Prefect's own lines are kept by the server.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        "PREFECT_CLI_PROMPT": "false",
        # A restarted server must know which runs hold a deployment's slot, or it ends them.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Clients retry for some minutes while the server restarts or its database is busy.
        "PREFECT_CLIENT_MAX_RETRIES": "7",
        "MPLCONFIGDIR": str(settings.folder("matplotlib")),
    }
    return {**defaults, **os.environ}


@contextmanager
def prefect_server(settings: Settings, meanwhile: Callable[[bool], object]) -> Iterator[str]:
    """Point this process at a Prefect server during the block; yield a sentence that names the server.

    It is the one at `PREFECT_API_URL` if that is set, else the one of `evergreen ui` or `up` on the same home, else a
    new one that ends with the block. `meanwhile` is called before the block, with True if a server is starting at the
    same time. Enter the block before Prefect is imported, because Prefect reads its settings then.
    """
    env = prefect_environment(settings)
    os.environ.update(env)
    if url := env.get("PREFECT_API_URL") or _running(settings):
        os.environ["PREFECT_API_URL"] = url
        meanwhile(False)
        yield f"the run reports to {url}"
        return
    port = free_port()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    try:
        with start_server(settings, port, lambda: meanwhile(True)):
            yield "a server for this run; `evergreen ui` shows its history"
    finally:
        del os.environ["PREFECT_API_URL"]


@contextmanager
def start_server(settings: Settings, port: int, meanwhile: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Start a Prefect server on the home's history, and yield its API address when it answers.

    The server ends with the block, or with this process, however that ends. `meanwhile` is called while it starts.
    Raises ServerError if it does not start within `START_TIMEOUT` seconds.
    """
    home = settings.folder("prefect")
    url = f"http://127.0.0.1:{port}/api"
    env, command = server_environment(settings, url), server_command(port)
    # Two servers must not create the tables of a new home at the same time.
    with FileLock(home / "start.lock") as starting, supervised_child(command, env, home, home / "server.log") as server:
        meanwhile()
        if not wait_until(lambda: answers(url), server, START_TIMEOUT):
            tail = (home / "server.log").read_text(errors="replace")[-2000:]
            raise ServerError(
                f"the Prefect server did not start; {home / 'server.log'} ends with: {tail}",
                code="process.prefect_not_started",
            )
        starting.release()
        yield url


def server_command(port: int) -> list[str]:
    """Return the command that starts a Prefect server on a port of this machine."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def server_environment(settings: Settings, url: str) -> dict[str, str]:
    """Return the environment of a Prefect server on the home's history, with `url` as the address of its API."""
    env = {name: value for name, value in prefect_environment(settings).items() if name != "PREFECT_API_URL"}
    return env | {"PREFECT_UI_API_URL": url}


@contextmanager
def announced(settings: Settings, port: int) -> Iterator[None]:
    """Start a Prefect server that all runs on this home report to during the block, and serve their report pages."""
    path = settings.folder("prefect") / "server.json"
    with start_server(settings, port) as url, http.serving(settings.folder("runs"), port + 1) as pages:
        write_json(path, {"url": url, **({"pages": pages} if pages else {})})
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def reachable(settings: Settings, patience: float = 0.0) -> str | None:
    """Return the API address of the running Prefect server that runs on this home report to; None without one.

    A server that does not answer may be busy: it is retried for `patience` seconds.
    """
    url = prefect_environment(settings).get("PREFECT_API_URL")
    end = time.monotonic() + patience
    while True:
        reached = (url if answers(url) else None) if url else _running(settings)
        if reached or time.monotonic() >= end:
            return reached
        time.sleep(0.5)


def _running(settings: Settings) -> str | None:
    """Return the address of the server of `evergreen ui` or `up` on this home, if it answers."""
    path = settings.folder("prefect") / "server.json"
    try:
        url = str(json.loads(path.read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None
    return url if answers(url) else None


def answers(url: str) -> bool:
    """Tell whether a Prefect server is healthy at an API address."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
