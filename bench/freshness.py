"""From new data on disk to the endpoint answering with the new release: 100k rows, a linear model, step by step.

`evergreen ui` and `evergreen serve` are up, and the champion was trained on 95,000 of the rows. Then the file with all
of them is there, `evergreen run` is started, and the endpoint is asked all the time which release answers. It is
compared with a script that reads the file, fits and writes the model: no check, no comparison, no package, no endpoint.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import Engine

from bench.growth import DATA, RUN, generate, project
from bench.run_cost import EVERGREEN, environment, measured, server
from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from pipeline.processes import free_port, supervised_child
from pipeline.settings import Settings

ROWS, MORE, REPETITIONS = 95_000, 100_000, 3
WAIT_TIMEOUT = 240.0
BARE = """
import sys
import joblib
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rows = pd.read_parquet(sys.argv[1])
X, y = rows.drop(columns=["id", "y"]), rows["y"]
joblib.dump(make_pipeline(StandardScaler(), Ridge()).fit(X, y), sys.argv[2])
"""


def main() -> None:
    """Measure both some times; print the steps of the median run, and the script beside it."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as place:
        folder = Path(place)
        home = folder / ".evergreen"
        env = environment(home)
        project(folder)
        generate(folder, ROWS)
        measured(RUN, env, folder)
        ledger = open_ledger(Settings(home=home, database_url="").ledger_url)
        with server(env, home), _serving(folder, env) as port:
            found = []
            for repetition in range(REPETITIONS):
                generate(folder, MORE + repetition)
                found.append(_freshened(folder, env, ledger, port, number=2 + repetition))
        ledger.dispose()
        bare = [sys.executable, "-c", BARE, str(folder / DATA), str(folder / "model.joblib")]
        script = statistics.median(measured(bare, env, folder).seconds for _ in range(REPETITIONS))
    totals = [sum(steps.values()) for steps in found]
    total = statistics.median(totals)
    for name, seconds in found[totals.index(total)].items():
        print(f"{name:50} {seconds:6.2f} s")
    each = ", ".join(f"{one:.1f}" for one in totals)
    print(f"{'until the endpoint answers with the new release':50} {total:6.2f} s; each: {each}")
    print(f"{'a script that reads, fits and writes':50} {script:6.2f} s: {total / script:.1f} times that")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _freshened(folder: Path, env: Mapping[str, str], ledger: Engine, port: int, number: int) -> dict[str, float]:
    """Run it on what is there now; return the seconds of each step until release `number` answers."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(RUN, cwd=folder, env=dict(env), stdout=out, stderr=subprocess.DEVNULL)
        try:
            _until(lambda: _champion(ledger) == number, child)
            wished = time.perf_counter()
            _until(lambda: _answers(port) == str(number))
            answered = time.perf_counter()
            child.wait()
        finally:
            child.kill()
        out.seek(0)
        steps: dict[str, float] = json.loads(out.read())["seconds"]
    # What a run does after its release holds nobody up.
    before = dict(list(steps.items())[: list(steps).index("release")])
    steps = {name: seconds for name, seconds in before.items() if seconds >= 0.05}
    between = wished - began - sum(steps.values())
    return {
        **steps,
        "release, Prefect between steps, Python's start": between,
        "handover to the new worker": answered - wished,
    }


@contextmanager
def _serving(folder: Path, env: Mapping[str, str]) -> Iterator[int]:
    port = free_port()
    command = [*EVERGREEN, "serve", "growth", "--port", str(port)]
    with supervised_child(command, env, folder, folder / "serve.log"):
        _until(lambda: _answers(port) == "1")
        yield port


def _champion(ledger: Engine) -> int | None:
    found = releases.champion(ledger, "growth")
    return found.number if found else None


def _answers(port: int) -> str | None:
    """Return the release that answers, None where none does."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/model", timeout=5.0, trust_env=False).headers["evergreen-release"]
    except (httpx.HTTPError, KeyError):
        return None


def _until(condition: Callable[[], bool], child: "subprocess.Popen[bytes] | None" = None) -> None:
    """Ask again and again, seldom enough not to hold up what is measured; RuntimeError when it is not to be."""
    end = time.monotonic() + WAIT_TIMEOUT
    while not condition():
        if time.monotonic() > end or (child and child.poll() is not None and not condition()):
            raise RuntimeError("the new release was not made, or does not answer")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
