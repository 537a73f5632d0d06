"""What a Prefect server that is up saves a run of six steps: whole processes, from start to exit.

A plain flow of six tasks that do nothing, as Prefect's documentation writes one, on the temporary server that Prefect
starts for it and with a server up; and `evergreen run` of a small model, all steps of it, which starts a server of its
own where none is up. An empty home is what a new machine has: its database is made first.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.growth import RUN, generate, project
from bench.run_cost import environment, measured, server

ROWS, REPETITIONS = 1_000, 3
FLOW = [
    sys.executable,
    "-c",
    """
from prefect import flow, task

@task
def step(number: int) -> int:
    return number + 1

@flow
def six() -> int:
    number = 0
    for _ in range(6):
        number = step(number)
    return number

assert six() == 6
""",
]
PLAIN = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def main() -> None:
    """Measure everything and print one table."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as place:
        folder = Path(place)
        home = folder / ".evergreen"
        env = environment(home) | PLAIN
        project(folder)
        generate(folder, ROWS)
        seconds = {
            "six empty tasks, temporary server, empty home": [_new(folder, env) for _ in range(REPETITIONS)],
            "six empty tasks, temporary server": _repeated(FLOW, env | {"PREFECT_HOME": str(folder / "plain")}, folder),
            "evergreen run, empty home": [measured(RUN, env, folder).seconds],
            "evergreen run": _repeated([*RUN, "--force"], env, folder),
        }
        with server(env, home):
            url = json.loads((home / "prefect" / "server.json").read_text())["url"]
            up = env | {"PREFECT_HOME": str(folder / "plain"), "PREFECT_API_URL": url}
            seconds["six empty tasks, server up"] = _repeated(FLOW, up, folder)
            seconds["evergreen run, server up"] = _repeated([*RUN, "--force"], env, folder)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    against = [name for name in middle if "temporary server" in name]
    print(f"{'':46} seconds  " + "  ".join(f"times {name!r}" for name in against))
    for name, took in middle.items():
        ratios = "  ".join(f"{took / middle[other]:{len(other) + 8}.2f}" for other in against)
        print(f"{name:46} {took:7.1f}  {ratios}   (each: {', '.join(f'{one:.1f}' for one in seconds[name])})")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _new(folder: Path, env: Mapping[str, str]) -> float:
    """Run the plain flow in a home that is made for it; the last one is used again."""
    shutil.rmtree(folder / "plain", ignore_errors=True)
    return measured(FLOW, {**env, "PREFECT_HOME": str(folder / "plain")}, folder).seconds


def _repeated(command: Sequence[str], env: Mapping[str, str], folder: Path) -> list[float]:
    return [measured(command, env, folder).seconds for _ in range(REPETITIONS)]


if __name__ == "__main__":
    main()
