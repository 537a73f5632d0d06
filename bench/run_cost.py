"""What a run costs, and where: `evergreen run house_prices` against a bare script with the same ingest and fits.

Whole processes are timed, from start to exit, and their memory is taken. "Cold" is an empty EVERGREEN_HOME (Python's
compiled files and the disk's cache are warm), "server up" has `evergreen ui` running on the same home. This process
imports next to nothing: on Linux a child's largest memory is never less than its parent's when it was started.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from pipeline.processes import free_port, wait_until
from pipeline.project import CODE_FOLDER

REPETITIONS = 3
BUDGET_SECONDS = 240.0
"""After so long nothing is repeated any more, and what is left is measured once."""
SAMPLE_SECONDS = 0.05
START_TIMEOUT = 60.0
MEGABYTE = 1e6

EVERGREEN = [sys.executable, "-c", "from flows.cli.main import main; main()"]
RUN = [*EVERGREEN, "run", "house_prices", "--json"]


@dataclass(frozen=True)
class Cost:
    """What one process and its children took: seconds, CPU seconds of all, and peak memory in MB.

    `largest` is the process with the most memory at its peak; `together` is the peak of the sum over all, in which
    memory that several share counts several times. `steps` are the seconds that it printed itself.
    """

    seconds: float
    cpu: float
    largest: float
    together: float
    steps: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Measure everything and print one table."""
    end = time.monotonic() + BUDGET_SECONDS
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        home = Path(folder) / "home"
        env = environment(home)
        bare = [sys.executable, "-m", "bench.bare", str(Path(folder) / "model.joblib")]
        found = {
            "bare script": _repeated(bare, env, end),
            "cold": [measured(RUN, env)],
            "warm": _repeated([*RUN, "--force"], env, end),
            "unchanged": _repeated(RUN, env, end),
        }
        with server(env, home):
            found["warm, server up"] = _repeated([*RUN, "--force"], env, end)
            found["unchanged, server up"] = _repeated(RUN, env, end)
        alone = {
            "python alone": _repeated([sys.executable, "-c", ""], env, end),
            "evergreen status": _repeated([*EVERGREEN, "status", "--json"], env, end),
            "all that a run imports": _repeated([sys.executable, "-c", "import flows.retrain"], env, end),
        }
    print(_table(found))
    print()
    for name, costs in alone.items():
        print(f"{name}: {_middle(costs).seconds:.2f} s, {_middle(costs).largest:,.0f} MB")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def environment(home: Path) -> dict[str, str]:
    """Return this process's environment without what the person has set for a project of their own."""
    theirs = ("EVERGREEN_", "PREFECT_", "BENTOML_", "GX_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**kept, "EVERGREEN_HOME": str(home)}


def _repeated(command: Sequence[str], env: Mapping[str, str], end: float) -> list[Cost]:
    costs = [measured(command, env)]
    while len(costs) < REPETITIONS and time.monotonic() < end:
        costs.append(measured(command, env))
    return costs


def measured(command: Sequence[str], env: Mapping[str, str], folder: Path = CODE_FOLDER) -> Cost:
    """Run a command to its end; RuntimeError with what it printed when it fails."""
    together = [0]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=log, env=dict(env), cwd=folder)
        threading.Thread(target=_sample, args=(child.pid, together), daemon=True).start()
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        printed = out.read()
        if child.returncode != 0:
            raise RuntimeError(f"{command} exited {child.returncode}: {printed[-1000:]} {log.read()[-1000:]}")
    try:
        steps: dict[str, float] = json.loads(printed)["seconds"]
    except (ValueError, KeyError):
        steps = {}
    # Linux counts it in units of 1,024 bytes, macOS in bytes.
    largest = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(seconds, used.ru_utime + used.ru_stime, largest / MEGABYTE, together[0] / MEGABYTE, steps)


def _sample(pid: int, together: list[int]) -> None:
    """Put the largest sum of a process's and its children's memory into `together`, until the process has ended."""
    while True:
        try:
            root = psutil.Process(pid)
            total = 0
            for process in (root, *root.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
        except psutil.Error:
            return
        together[0] = max(together[0], total)
        time.sleep(SAMPLE_SECONDS)


@contextmanager
def server(env: Mapping[str, str], home: Path) -> Iterator[None]:
    """Have `evergreen ui` up on a home while the block lasts."""
    command = [*EVERGREEN, "ui", "--port", str(free_port())]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(env), cwd=CODE_FOLDER)
    try:
        if not wait_until((home / "prefect" / "server.json").exists, child, START_TIMEOUT):
            raise RuntimeError("evergreen ui did not start")
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _middle(costs: Sequence[Cost]) -> Cost:
    """Return the repetition with the median time: its steps sum up to it, as medians of steps would not."""
    return sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]


def _table(measured: Mapping[str, Sequence[Cost]]) -> str:
    """Return a column per command: its totals, then the seconds of the steps of its median repetition, and the rest."""
    middle = {name: _middle(costs) for name, costs in measured.items()}
    bare = middle["bare script"].seconds
    rows: dict[str, list[str]] = {
        "seconds, median": [f"{cost.seconds:.1f}" for cost in middle.values()],
        "seconds, least": [f"{min(cost.seconds for cost in costs):.1f}" for costs in measured.values()],
        "repetitions": [f"{len(costs)}" for costs in measured.values()],
        "times bare": [f"{cost.seconds / bare:.1f}" for cost in middle.values()],
        "CPU seconds": [f"{cost.cpu:.1f}" for cost in middle.values()],
        "MB, largest process": [f"{cost.largest:,.0f}" for cost in middle.values()],
        "MB, all together": [f"{cost.together:,.0f}" for cost in middle.values()],
        "of the median run:": [],
    }
    longest = max(middle.values(), key=lambda cost: len(cost.steps)).steps
    for step in dict.fromkeys([*longest, *(step for cost in middle.values() for step in cost.steps)]):
        rows[f"  {step}"] = [f"{cost.steps[step]:.1f}" if step in cost.steps else "" for cost in middle.values()]
    rest = [cost.seconds - sum(cost.steps.values()) for cost in middle.values()]
    rows["  in no step"] = [f"{seconds:.1f}" for seconds in rest]
    width = max(map(len, rows))
    lines = [f"{'':{width}}  " + "  ".join(measured)]
    lines += [
        f"{name:{width}}  " + "  ".join(f"{cell:>{len(head)}}" for cell, head in zip(cells, measured, strict=False))
        for name, cells in rows.items()
    ]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    main()
