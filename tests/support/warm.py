"""Processes that begin with the frameworks imported already.

Nine tenths of a command's time is the import of Prefect, Great Expectations, scikit-learn and pandas: about ten seconds
of processor for each `evergreen run`, in itself and in the processes that it starts. Here one process imports them
once; every command is a fork of it, with a working folder, an environment, a command line and modules of its own.
Evergreen's own modules are never imported before the fork, so that each process has those of its own folder.

    pytest -- the frameworks, imported (`python warm.py FD`)
                \\ fork: `evergreen run`, beside it a copy of what it was forked from
                                                   \\ fork: `python -m expectations.subprocess_validator`, and so on

What claims something about a real start (the server and its workers, what a command imports) still starts on its own:
see `WARM`. Where this is not Linux, or EVERGREEN_TESTS_COLD is set, everything does.
"""

import array
import ctypes
import importlib
import importlib.util
import inspect
import json
import multiprocessing.process
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

FRAMEWORKS = """
prefect.main prefect.flow_engine prefect.task_engine prefect.client.orchestration prefect.events.worker
prefect.artifacts prefect.concurrency.services prefect.concurrency.v1.services prefect.logging.formatters
prefect.runtime prefect.utilities.visualization anyio._backends._asyncio anyio.streams.text anyio.streams.tls
starlette.applications great_expectations great_expectations.expectations great_expectations.core.batch
narwhals.stable.v2
sklearn.base sklearn.compose sklearn.ensemble sklearn.impute sklearn.inspection sklearn.isotonic sklearn.linear_model
sklearn.metrics sklearn.model_selection sklearn.pipeline sklearn.preprocessing feature_engine.encoding
pandas pyarrow.csv pyarrow.parquet pyarrow.compute pyarrow.dataset scipy.stats joblib threadpoolctl numpy.random
matplotlib.pyplot matplotlib.backends.backend_agg PIL.PngImagePlugin jinja2 typer rich.table
rich.console rich._emoji_codes httpx filelock pydantic_settings packaging.requirements attr cattrs
alembic.command alembic.autogenerate sqlalchemy.ext.asyncio sqlalchemy.dialects.sqlite sqlalchemy.dialects.postgresql
"""
WARM = {
    "expectations.subprocess_validator",
    "pipeline.predict_in_package",
    "bentos.package",
    "bentos.score",
    "flows.ops.alarms",
}
"""The modules of ours that run as processes of their own and may be forked, too."""
POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open") and not os.environ.get("EVERGREEN_TESTS_COLD")
TITLE = 4096
"""Characters of the first process's command line; a fork writes its own over them, for `ps`."""
CHILD = inspect.signature(subprocess.Popen._execute_child)
LOCK = threading.Lock()
"""A request is sent whole."""


class Popen(subprocess.Popen):
    """A subprocess.Popen of a Python command, forked from what has imported the frameworks."""

    line: "socket.socket | None" = None
    """To the process that forks."""
    ended = None
    """Where it says how the process ended."""

    def _execute_child(self, *given):
        asked = CHILD.bind(self, *given).arguments
        command = [os.fspath(part) for part in asked["args"]] if not isinstance(asked["args"], str) else []
        if self.line is None or not forkable(command) or asked["preexec_fn"]:
            super()._execute_child(*given)
            return
        pipes = [("p2cread", 0), ("c2pwrite", 1), ("errwrite", 2)]
        files = {number: number if asked[name] == -1 else asked[name] for name, number in pipes}
        files |= {number: number for number in asked["pass_fds"]}
        self.ended, told = socket.socketpair(type=socket.SOCK_SEQPACKET)
        env = os.environ if asked["env"] is None else asked["env"]
        request = {
            "command": command,
            "cwd": os.fspath(asked["cwd"] or Path.cwd()),
            "env": {os.fsdecode(name): os.fsdecode(value) for name, value in env.items()},
            "session": asked["start_new_session"],
            "files": list(files),
        }
        with told, LOCK:
            send(self.line, request, [told.fileno(), *files.values()])
        self.pid = json.loads(self.ended.recv(100))
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")), -1, -1)
        if asked["errwrite"] not in (-1, asked["c2pwrite"]) and asked["errread"] != -1:
            os.close(asked["errwrite"])

    def _try_wait(self, wait_flags):
        if self.ended is None:
            return super()._try_wait(wait_flags)
        return self._told(wait=not wait_flags & os.WNOHANG)

    def _internal_poll(self, _deadstate=None, **given):
        if self.ended is None:
            return super()._internal_poll(_deadstate=_deadstate, **given)
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._told(wait=False)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _told(self, wait):
        self.ended.setblocking(wait)
        try:
            said = self.ended.recv(100)
        except BlockingIOError:
            return 0, 0
        # Nothing: what forked it is gone, and with it the answer; as for a child that somebody else waited for.
        return self.pid, int(said or 0)


def forkable(command):
    """Whether a command is Python with a program of ours that may begin warm."""
    match command[:3]:
        case [python, "-c", _]:
            return python == sys.executable
        case [python, "-m", module]:
            return python == sys.executable and module in WARM
        case [python, script, *_]:
            return python == sys.executable and Path(script).name == "processes.py"
    return False


@cache
def popen():
    """Start the process that imports the frameworks, once; return what starts processes, cold where it must."""
    if not POSSIBLE:
        return subprocess.Popen
    mine, its = socket.socketpair()
    dropped = ("PYTHONPATH", "COVERAGE_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, __file__, str(its.fileno()), "-" * TITLE]
    with its:
        template = subprocess.Popen(command, pass_fds=[its.fileno()], env=env, stdin=subprocess.DEVNULL)
    # It ends when this end of the line is closed, as it is when this process ends.
    return type("Warm", (Popen,), {"line": mine, "template": template})


def send(line, request, files):
    """Send a request with open files: its length, itself, and the files with the length."""
    text = json.dumps(request).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
    line.sendmsg([len(text).to_bytes(8, "big")], rights)
    line.sendall(text)


def receive(line):
    """Return the next request and its files, or None when the other end is closed."""
    files = array.array("i")
    length, rights, _, _ = line.recvmsg(8, socket.CMSG_SPACE(64 * files.itemsize))
    if not length:
        return None
    for _, _, data in rights:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    text = bytearray()
    while len(text) < int.from_bytes(length, "big"):
        text += line.recv(1 << 16)
    return json.loads(text), list(files)


def serve(line):
    """Fork a process for each request, and say how it ended; return, in the fork alone, its request and files."""
    children = {}
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not line:
                    pid, told = children.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    with suppress(OSError):
                        told.sendall(str(status).encode())
                    told.close()
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                found = receive(line)
                if found is None:
                    os._exit(0)
                request, (told, *files) = found
                if not (pid := os.fork()):
                    for other, (_, its) in children.items():
                        os.close(other)
                        its.close()
                    line.close()
                    os.close(told)
                    return request, files
                for file in files:
                    os.close(file)
                told = socket.socket(fileno=told)
                with suppress(OSError):
                    told.sendall(str(pid).encode())
                watched = os.pidfd_open(pid)
                children[watched] = pid, told
                selector.register(watched, selectors.EVENT_READ)


def become(request, files):
    """Make this fork what a new process with these open files, folder, environment and command line would be."""
    if request["session"]:
        os.setsid()
    # Out of the way of the numbers that they are to have.
    import fcntl

    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 200) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(high, request["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        file = open(number, "w" if number else "r", buffering=1 if number == 2 else -1, closefd=False)  # noqa: SIM115
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    python, *rest = request["command"]
    sys.executable, sys.orig_argv = python, request["command"]
    sys.dont_write_bytecode = bool(request["env"].get("PYTHONDONTWRITEBYTECODE"))
    tempfile.tempdir = None
    # Where the processes that joblib starts import from.
    multiprocessing.process.ORIGINAL_DIR = request["cwd"]
    import numpy as np

    np.random.seed()
    folder = "" if rest[0] == "-c" else request["cwd"] if rest[0] == "-m" else str(Path(rest[0]).parent)
    added = [part for part in request["env"].get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [folder, *added, *sys.path[1:]]
    entitle(request["command"])
    if any(name.startswith("COVERAGE_PROCESS_") for name in request["env"]):
        # As it measures a process that starts cold.
        importlib.import_module("coverage").process_startup()


def entitle(command):
    """Show a command line as this process's, as far as there is room."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    text = b"\0".join(map(os.fsencode, command))[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


class Late:
    """Has Prefect read its settings when a process first imports it, as if that were its import."""

    def __init__(self):
        self.module = sys.modules.pop("prefect")
        self.spec = self.module.__spec__

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name != "prefect":
            return None
        sys.meta_path.remove(self)
        return importlib.util.spec_from_loader(name, self, origin=self.spec.origin, is_package=True)

    def create_module(self, spec):  # noqa: ARG002
        return self.module

    def exec_module(self, module):
        module.__spec__, module.__loader__ = self.spec, self.spec.loader
        configuration = sys.modules["prefect.logging.configuration"]
        sys.modules["prefect.context"].refresh_global_settings_context()
        configuration.PROCESS_LOGGING_CONFIG.clear()
        configuration.setup_logging(incremental=False)


def run(command):
    """Run the program of a Python command line."""
    match command[1:]:
        case ["-c", code, *arguments]:
            sys.argv[:] = ["-c", *arguments]
            main = type(sys)("__main__")
            main.__builtins__ = __builtins__
            sys.modules["warm"], sys.modules["__main__"] = sys.modules["__main__"], main
            exec(compile(code, "<string>", "exec"), main.__dict__)
        case ["-m", module, *arguments]:
            sys.argv[:] = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *arguments]:
            sys.argv[:] = [script, *arguments]
            runpy.run_path(script, run_name="__main__")


def preload():
    import gc

    gc.disable()
    for name in FRAMEWORKS.split():
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.enable()


def main(line):
    """Serve as what is forked; in a fork, leave a copy of what this was behind, and run the program."""
    preload()
    while True:
        request, files = serve(line)
        mine, line = socket.socketpair()
        if not os.fork():
            # Holds nothing open that is the other's, so that who reads its output sees its end.
            mine.close()
            for file in files:
                os.close(file)
            continue
        line.close()
        become(request, files)
        Popen.line = mine
        subprocess.Popen = Popen
        sys.meta_path.insert(0, Late())
        return run(request["command"])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = ""
    main(socket.socket(fileno=int(sys.argv[1])))
