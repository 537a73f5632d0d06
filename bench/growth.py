"""How the time and the memory of a run grow with its rows: a linear model, from ingest to release.

Each size is a project's home of its own, and a whole process. `python -m bench.growth 100000 10000000` measures other
sizes; the last one is compared with the first. Memory is the largest process' peak, and the peak of all together.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.run_cost import Cost, environment, measured
from pipeline.settings import CHECKOUT

SIZES = (100_000, 1_000_000)
SPEC = """
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from pipeline.sources import Parquet
from pipeline.spec import Gate, ModelSpec, Regression

spec = ModelSpec(
    name="growth",
    source=Parquet({path!r}),
    key=("id",),
    target="y",
    task=Regression(),
    candidates={{"ridge": make_pipeline(StandardScaler(), Ridge())}},
    metric="rmse",
    gate=Gate(at_most=1.0),
    sample={sample},
)
"""
SUITE = """
from great_expectations import expectations as gxe
from expectations.validate import Suite

suite = Suite(
    error=[
        gxe.ExpectTableRowCountToBeBetween(min_value=100),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in ("id", "y")),
        *(gxe.ExpectColumnValuesToBeBetween(column=f"x{n}", min_value=-20, max_value=20) for n in range(8)),
    ],
    warn=[gxe.ExpectColumnMedianToBeBetween(column="y", min_value=-5, max_value=5)],
)
"""
GENERATE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet
path, rows, step = sys.argv[1], int(sys.argv[2]), 1_000_000
random, weights, writer = np.random.default_rng(0), np.linspace(0.5, 2, 8), None
for start in range(0, rows, step):
    n = min(step, rows - start)
    x = random.normal(size=(n, 8))
    columns = {"id": np.arange(start, start + n)} | {f"x{i}": x[:, i] for i in range(8)}
    table = pa.table(columns | {"y": x @ weights + random.normal(size=n) / 2})
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
    writer.write_table(table)
writer.close()
"""


def main() -> None:
    """Run each size once, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, metavar="ROWS", help="from the smallest to the largest")
    parser.add_argument("--sample", type=int, help="the spec's sample: train on so many rows")
    given = parser.parse_args()
    load, costs = os.getloadavg()[0], {}
    for rows in given.sizes or SIZES:
        with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
            costs[rows] = _run(Path(folder), rows, given.sample)
        # What is known already is told, should a larger size not end.
        print(_told(rows, costs[rows]), flush=True)
    few, many = min(costs), max(costs)
    grown, linear = costs[many].seconds / costs[few].seconds, many / few
    if many > few:
        print(f"{linear:,.0f} times the rows take {grown:.1f} times as long, {grown / linear:.2f} of linear growth")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _told(rows: int, cost: Cost) -> str:
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in cost.steps.items() if seconds >= 0.5)
    memory = f"{cost.largest:,.0f} MB at most, {cost.together:,.0f} MB all processes"
    return f"{rows:>12,} rows  {cost.seconds:7.1f} s  {memory}\n{'':14}{steps}"


def _run(folder: Path, rows: int, sample: int | None) -> Cost:
    """Copy the project into a folder, give it the model and its rows, and run it once."""
    for room in ("pipeline", "expectations", "bentos", "flows"):
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("web", "__pycache__"))
    shutil.copy(CHECKOUT / "requirements.txt", folder)
    data = folder / "growth.parquet"
    subprocess.run([sys.executable, "-c", GENERATE, str(data), str(rows)], check=True)
    (folder / "pipeline/models/growth.py").write_text(SPEC.format(path=str(data), sample=sample))
    (folder / "expectations/suites/growth.py").write_text(SUITE)
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "growth", "--json"]
    return measured(command, environment(folder / ".evergreen"), folder)


if __name__ == "__main__":
    main()
