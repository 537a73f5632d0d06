"""Time and memory of scoring a Parquet file, beside pyarrow reading it and writing it again; by step.

`python -m bench.score --rows 10000000` measures another size. A linear model of 10 numbers, 3 categories and a flag is
released in a copy of the project, and answers by its compiled plan. `evergreen score` is timed as a whole process, from
start to exit, with a Prefect server of its own, and by itself: what the process of the package takes, which reads,
checks, predicts and writes. pyarrow is timed from after its imports, with its own defaults. Ratios are taken within a
round, whose order changes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.endpoint.project import EVERGREEN, ROOMS, environment
from pipeline.project import CODE_FOLDER

ROUNDS = 3
MEGABYTE = 1e6

MODEL = '''
"""Orders, to be measured."""

from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeline.sources import Parquet
from pipeline.spec import Gate, ModelSpec, Regression

NUMBERS = tuple(f"x{number}" for number in range(10))
KINDS = ("kind0", "kind1", "kind2")

spec = ModelSpec(
    name="orders",
    source=Parquet("orders.parquet"),
    key=("id",),
    target="y",
    task=Regression(),
    candidates={
        "ridge": make_pipeline(
            make_column_transformer(
                (StandardScaler(), [*NUMBERS, "flag"]),
                (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [*KINDS]),
            ),
            Ridge(),
        )
    },
    metric="rmse",
    gate=Gate(at_most=1e9),
    folds=2,
)
'''
SUITE = '''
"""Whatever has a key is good enough to be measured with."""

from great_expectations import expectations as gxe

from expectations.suite import Suite

suite = Suite(error=[gxe.ExpectColumnValuesToBeUnique(column="id")])
'''
GENERATE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet
path, rows, target, step = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "y", 1_000_000
random = np.random.default_rng(0)
words = np.array([f"kind {number}" for number in range(50)])
writer = None
for start in range(0, rows, step):
    n = min(step, rows - start)
    columns = {"id": np.arange(start, start + n)}
    columns |= {f"x{i}": random.normal(size=n) for i in range(10)}
    codes = [random.integers(0, len(words), n) for _ in range(3)]
    columns |= {f"kind{i}": words[code] for i, code in enumerate(codes)}
    columns["flag"] = random.integers(0, 2, n).astype(bool)
    if target:
        columns["y"] = sum(columns[f"x{i}"] * i for i in range(10)) + codes[0] + random.normal(size=n)
    table = pa.table(columns)
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
    writer.write_table(table)
writer.close()
"""
PYARROW = """
import json, sys, time
import pyarrow.parquet as pq
path, out = sys.argv[1:]
started = time.perf_counter()
table = pq.read_table(path)
read = time.perf_counter() - started
pq.write_table(table, out)
whole = time.perf_counter() - started
print(json.dumps({"read": read, "write": whole - read, "whole": whole}))
"""


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.score", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, help="where the files are written; without, the system's place for them")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-", dir=given.folder) as scratch:
        folder = Path(scratch)
        env = _released(folder)
        _measured([sys.executable, "-c", GENERATE, "rows.parquet", str(given.rows), ""], folder, env)
        # Neither waits for what was just written, or reads what the other has read.
        os.sync()
        with (folder / "rows.parquet").open("rb") as file:
            # Not at once: on Linux a child's largest memory is never less than its parent's when it was started.
            while file.read(2**24):
                pass
        commands = {
            "pyarrow": [sys.executable, "-c", PYARROW, "rows.parquet", "copy.parquet"],
            "evergreen": [*EVERGREEN, "score", "orders", "rows.parquet", "scores.parquet", "--json"],
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for number in range(given.rounds):
            for name in sorted(commands, reverse=number % 2 == 0):
                found[name].append(_measured(commands[name], folder, env))
        size = (folder / "rows.parquet").stat().st_size
    theirs, ours = found["pyarrow"], found["evergreen"]
    print(f"{given.rows:,} rows x 15 columns, {size / MEGABYTE:,.0f} MB of Parquet, seconds of each round")
    _line("pyarrow reads and writes it", [one["whole"] for one in theirs])
    _line("  read", [one["read"] for one in theirs])
    _line("  write", [one["write"] for one in theirs])
    _line("the package's process", [_whole(one) for one in ours])
    for step in ours[0]["of_score"]:
        of = "    " if step in ("checking", "predicting", "writing") else "  "
        _line(f"{of}{step}", [one["of_score"][step] for one in ours])
    _line("evergreen score, start to exit", [one["process"] for one in ours])
    for name, ratio in {
        "the package's process": _whole,
        "evergreen score, start to exit": lambda one: one["process"],
    }.items():
        ratios = [ratio(one) / other["whole"] for one, other in zip(ours, theirs, strict=True)]
        print(f"{name} takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"MB at most: pyarrow {_max(theirs):,.0f}, evergreen {_max(ours):,.0f}, its largest process")
    print("checking, predicting and writing go on at the same time, in two threads, while the next rows are read")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _released(folder: Path) -> dict[str, str]:
    """Copy the project into a folder, release the model, and return the environment of its commands."""
    for room in ROOMS:
        shutil.copytree(CODE_FOLDER / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pipeline" / "models" / "orders.py").write_text(MODEL)
    (folder / "expectations" / "suites" / "orders.py").write_text(SUITE)
    env = environment() | {"EVERGREEN_HOME": str(folder / ".evergreen")}
    # One BLAS thread is for servers; pyarrow and what scores may use all cores.
    env.pop("OMP_NUM_THREADS")
    _measured([sys.executable, "-c", GENERATE, "orders.parquet", "20000", "y"], folder, env)
    outcome = _measured([*EVERGREEN, "run", "orders", "--json"], folder, env)
    if outcome.get("outcome") != "released":
        raise RuntimeError(f"evergreen run orders: {outcome}")
    return env


def _whole(one: dict[str, Any]) -> float:
    steps: dict[str, float] = one["of_score"]
    return steps["start"] + steps["scoring"] + steps["output"]


def _max(measured: Sequence[dict[str, Any]]) -> float:
    return max(one["memory"] for one in measured)


def _line(name: str, seconds: Sequence[float]) -> None:
    each = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"{name:32} {statistics.median(seconds):7.2f}   ({each})")


def _measured(command: Sequence[str], folder: Path, env: dict[str, str]) -> dict[str, Any]:
    """Run a command; return the JSON that it prints, with its whole seconds and the peak memory of it or a child."""
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, cwd=folder, env=env)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read()
        if child.returncode:
            raise RuntimeError(f"{' '.join(command)[:200]} exited {child.returncode}: {printed[-2000:]}")
    found: dict[str, Any] = json.loads(printed or "{}")
    # Linux counts it in units of 1,024 bytes, macOS in bytes.
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE
    return {**found, "process": seconds, "memory": memory}


if __name__ == "__main__":
    main()
