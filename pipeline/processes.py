"""Child processes that never outlive the one that started them, not even when that is killed with -9.

Run as a script, this file is the leash: it starts a command in a process group of its own, and ends the group when its
standard input closes, which the system does when the process holding the other end dies, however it died.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

GRACE_PERIOD = 8.0
NICENESS = 10
"""The niceness of what is done gently: a tenth of the share of others, which still ends on a machine that is busy."""


@contextmanager
def supervised_child(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, aside: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command while the block lasts, its output in the file `log`; end it and all its children afterwards.

    With `aside`, a Ctrl-C in this terminal does not reach it: the one that holds the leash decides when it ends.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd=cwd,
            start_new_session=aside,
        )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait()


def packaged_environment() -> dict[str, str]:
    """Return this process's environment for one that runs a package's own code: no way back into the checkout.

    Python there imports from the folder it starts in first, and writes nothing into the package. The package is its
    own project: it holds the model's module as it was.
    """
    dropped = ("PYTHONPATH", "PYTHONSAFEPATH", "EVERGREEN_PROJECT")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def exit_with_parent(pid: int) -> None:
    """End this worker process soon after the process that started it has died, even when that had no time to say so."""

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(0.5)
        os._exit(1)

    if pid != os.getpid() and not any(thread.name == "end_with" for thread in threading.enumerate()):
        threading.Thread(target=watch, name="end_with", daemon=True).start()


def run_niced(work: Callable[..., Result], *given: Any) -> Result:
    """Do something in a thread of low priority, return what it returns and raise what it raises.

    Processes that it starts have that priority, too. On Linux priority belongs to a thread, and one that was lowered
    cannot be raised again without privileges: the thread that serves afterwards was never lowered. Elsewhere it is done
    as it is.
    """
    if sys.platform != "linux":
        return work(*given)
    with ThreadPoolExecutor(1, initializer=_lower_priority) as alone:
        return alone.submit(work, *given).result()


def run_idle(work: Callable[[], Result], seconds: float) -> Result:
    """Do something in a thread that runs while nothing else wants the processor, and return what it returns.

    Raises TimeoutError when that takes longer than so many seconds: the thread goes on, and cannot be hurried. A thread
    that is started there has idle time, too, for as long as it lives. Where the system knows none it is done as it is.
    """
    done: Future[Result] = Future()

    def run() -> None:
        if sys.platform == "linux":
            with suppress(OSError):
                os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="idle", daemon=True).start()
    return done.result(seconds)


def _lower_priority() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(own, NICENESS))


def exit_with_pid(pid: int) -> None:
    """End this process soon after another one has ended, which need not have started it."""

    def watch() -> None:
        while alive(pid):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="ends_without", daemon=True).start()


def alive(pid: int) -> bool:
    """Tell whether there is a process of that number, somebody else's included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether this process was asked to end."""
    asked: list[int] = []
    before = {kind: signal.signal(kind, lambda kind, _: asked.append(kind)) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def wait_until(ready: Callable[[], bool], child: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Ask `ready` again and again; False when the child ended or the time is over before it said yes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return True
        if child.poll() is not None:
            return False
        time.sleep(0.1)
    return False


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _hold(command: Sequence[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_: object) -> None:
        for kind, patience in ((signal.SIGTERM, GRACE_PERIOD), (signal.SIGKILL, 0.0)):
            try:
                os.killpg(child.pid, kind)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and child.poll() is None:
                time.sleep(0.02)

    def watch() -> None:
        # Not sys.stdin: Python aborts when it ends while a thread waits inside of it.
        while os.read(0, 1024):
            pass
        end()

    # The one that holds the other end of standard input decides; a Ctrl-C reaches it, too.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, end)
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(_hold(sys.argv[1:]))
