"""Every server that is compared: its command, its configuration, and how long it takes to be ready."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from bench.endpoint.project import EVERGREEN, Project
from bench.endpoint.wrk import SERVERS_CORE, pinned
from pipeline.processes import free_port, supervised_child
from pipeline.project import CODE_FOLDER

PEERS = Path(__file__).with_name("peers")
PYTHON = CODE_FOLDER / ".venv-bench" / "bin" / "python"
PYTHON_UVICORN = CODE_FOLDER / ".venv-bench-uvicorn" / "bin" / "python"
START_TIMEOUT = 120.0
MEGABYTE = 1e6


@dataclass(frozen=True)
class PeerServer:
    """How to start a server, `{port}` standing for its port, and where it says that it is ready and takes requests."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    folder: Path
    ready: str
    path: str
    about: str = ""


@dataclass
class Running:
    """A server that is ready: its port, the leash that holds it, and the seconds it took from its start."""

    server: PeerServer
    port: int
    supervisor: int
    ready_seconds: float
    client: httpx.Client = field(repr=False)

    @property
    def url(self) -> str:
        """Where it takes requests."""
        return f"http://127.0.0.1:{self.port}{self.server.path}"

    def ask(self, media: str, body: bytes) -> httpx.Response:
        """Send one body."""
        return self.client.post(self.url, content=body, headers={"Content-Type": media})

    def worker_megabytes(self) -> float:
        """Return the memory of the process that works: of all that the server started, the one with most CPU time."""
        processes = psutil.Process(self.supervisor).children(recursive=True)
        worker = max(processes, key=lambda process: sum(process.cpu_times()[:2]))
        return float(worker.memory_info().rss) / MEGABYTE


def evergreen(project: Project, model: str, name: str) -> PeerServer:
    """`evergreen serve`, as a user runs it."""
    command = [*EVERGREEN, "serve", model, "--port", "{port}"]
    return PeerServer(name, command, project.env, project.folder, "/readyz", "/predict", "`evergreen serve MODEL`")


def bento(service: str, name: str, about: str, env: Mapping[str, str], folder: Path) -> PeerServer:
    """`bentoml serve`, in its default configuration."""
    command = [str(PYTHON), "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", "{port}"]
    home = folder / f"bentoml-{service.replace(':', '-')}"
    return PeerServer(name, command, {**env, "BENTOML_HOME": str(home)}, PEERS, "/readyz", "/predict", about)


def mlflow(saved: Path, env: Mapping[str, str]) -> PeerServer:
    """`mlflow models serve`: its own server, in the environment that is there, with one worker."""
    command = [str(PYTHON), "-m", "mlflow", "models", "serve", "--model-uri", str(saved), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
    # It starts uvicorn by its bare name.
    path = {"PATH": f"{PYTHON.parent}:{env['PATH']}"}
    about = "`mlflow models serve --env-manager local --workers 1`, a model with a signature"
    return PeerServer("mlflow models serve", command, {**env, **path}, saved.parent, "/ping", "/invocations", about)


def mlserver(joblib: Path, env: Mapping[str, str], folder: Path) -> PeerServer:
    """`mlserver start`, its scikit-learn runtime and its pandas codec; without a pool of workers beside its server."""
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    model = {
        "name": "ridge",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(joblib), "content_type": "pd"},
    }
    (place / "model-settings.json").write_text(json.dumps(model))
    ports = {"parallel_workers": 0, "http_port": "{port}", "grpc_port": free_port(), "metrics_port": free_port()}
    (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "debug": False}))
    env = {**env, **{f"MLSERVER_{name.upper()}": str(port) for name, port in ports.items()}}
    command = [str(PYTHON_UVICORN.parent / "mlserver"), "start", str(place)]
    about = "`mlserver start`, mlserver-sklearn, content type `pd`, `parallel_workers` 0: one process answers"
    return PeerServer("MLServer", command, env, place, "/v2/models/ridge/ready", "/v2/models/ridge/infer", about)


def uvicorn(app: str, name: str, about: str, ready: str, env: Mapping[str, str]) -> PeerServer:
    """`uvicorn`, with uvloop and httptools, one worker."""
    command = [str(PYTHON_UVICORN), "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "{port}"]
    return PeerServer(name, command, env, PEERS, ready, "/predict", about)


@contextmanager
def running(server: PeerServer, logs: Path) -> Iterator[Running]:
    """Start a server on a free port and its core, and stop it after the block; RuntimeError when it is never ready."""
    port = free_port()
    command = [word.replace("{port}", str(port)) for word in server.command]
    env = {name: value.replace("{port}", str(port)) for name, value in server.env.items()}
    log = logs / f"{server.name.replace(' ', '-').replace('/', '-')}-{port}.log"
    with (
        supervised_child(pinned(SERVERS_CORE, command), env, server.folder, log) as leash,
        httpx.Client(timeout=60.0, trust_env=False) as client,
    ):
        end = time.monotonic() + START_TIMEOUT
        while not _ready(client, f"http://127.0.0.1:{port}{server.ready}"):
            if time.monotonic() > end or leash.poll() is not None:
                raise RuntimeError(f"{server.name} is not ready; its log ends: {log.read_text()[-2000:]}")
            time.sleep(0.01)
        started = psutil.Process(leash.pid).children()[0].create_time()
        yield Running(server, port, leash.pid, time.time() - started, client)


def _ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url, timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False


def versions() -> dict[str, str]:
    """Return the versions of what is compared, by environment."""
    names = "bentoml mlflow mlserver fastapi uvicorn uvloop onnxruntime scikit-learn pandas numpy"
    code = (
        "import sys; from importlib.metadata import version, PackageNotFoundError as no\n"
        "def said(name):\n"
        "    try: return f'{name} {version(name)}'\n"
        "    except no: return ''\n"
        "print(', '.join(filter(None, ['Python ' + sys.version.split()[0], *map(said, sys.argv[1:])])))"
    )
    pythons = {"evergreen": Path(sys.executable), ".venv-bench": PYTHON, ".venv-bench-uvicorn": PYTHON_UVICORN}
    return {
        name: subprocess.check_output([str(python), "-c", code, *names.split()], text=True).strip()
        for name, python in pythons.items()
    }
