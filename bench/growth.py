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

from bench.run_cost import EVERGREEN, Cost, environment, measured
from pipeline.project import CODE_FOLDER

SIZES = (100_000, 1_000_000)
DATA = "growth.parquet"
RUN = [*EVERGREEN, "run", "growth", "--json"]
SPEC = """
from sklearn.linear_model import Ridge, SGDRegressor
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
    candidates={{"linear": make_pipeline(StandardScaler(), {learner})}},
    metric="rmse",
    gate=Gate(at_most=1.0, tolerance=0.01),
    sample={sample},
    epochs={epochs},
)
"""
SUITE = """
from great_expectations import expectations as gxe
from expectations.suite import Suite

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
random, noise = np.random.default_rng(0), np.random.default_rng(1)
weights, writer = np.linspace(0.5, 2, 8), None
for start in range(0, rows, step):
    n = min(step, rows - start)
    x = random.normal(size=(n, 8))
    columns = {"id": np.arange(start, start + n)} | {f"x{i}": x[:, i] for i in range(8)}
    table = pa.table(columns | {"y": x @ weights + noise.normal(size=n) / 2})
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
    writer.write_table(table)
writer.close()
"""


def main() -> None:
    """Run each size once, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, metavar="ROWS", help="from the smallest to the largest")
    parser.add_argument("--sample", type=int, help="the spec's sample: train on so many rows")
    parser.add_argument("--epochs", type=int, help="the spec's epochs: learn all rows so many times, in batches")
    given = parser.parse_args()
    load, costs = os.getloadavg()[0], {}
    for rows in given.sizes or SIZES:
        with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
            costs[rows] = _run(Path(folder), rows, given.sample, given.epochs)
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


def _run(folder: Path, rows: int, sample: int | None, epochs: int | None) -> Cost:
    project(folder, sample, epochs)
    generate(folder, rows)
    return measured(RUN, environment(folder / ".evergreen"), folder)


def project(folder: Path, sample: int | None = None, epochs: int | None = None) -> None:
    """Copy the project into a folder and give it the model `growth`, a linear regression of 8 numbers."""
    for room in ("pipeline", "expectations", "bentos", "flows"):
        shutil.copytree(CODE_FOLDER / room, folder / room, ignore=shutil.ignore_patterns("web", "__pycache__"))
    shutil.copy(CODE_FOLDER / "requirements.txt", folder)
    fields = {"sample": sample, "epochs": epochs, "learner": "SGDRegressor()" if epochs else "Ridge()"}
    (folder / "pipeline/models/growth.py").write_text(SPEC.format(path=str(folder / DATA), **fields))
    (folder / "expectations/suites/growth.py").write_text(SUITE)


def generate(folder: Path, rows: int) -> None:
    """Write the model's rows, whole or not at all: the first ones are the same whatever their number."""
    part = folder / f".{DATA}"
    subprocess.run([sys.executable, "-c", GENERATE, str(part), str(rows)], check=True)
    part.replace(folder / DATA)


if __name__ == "__main__":
    main()
