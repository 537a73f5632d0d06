"""Load and validate a Parquet file of 80 columns by 40 rules: evergreen's way beside Great Expectations' own.

Both judge the same file by the same rules in processes of their own; imports are not timed, and their memory is told
beside. `python -m bench.validate 1000000` is the size that counts; without a number it is a fifth of that.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.project import CODE_FOLDER

ROWS = 200_000
REPETITIONS = 3
WORDS = ["red", "green", "blue", "black", "white", "grey", "pink", "gold"]
MEGABYTE = 1e6


def main() -> None:
    """Make the file, measure each way in turn, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.validate", description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=ROWS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.way:
        _measure(told.way, told.file)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        file = Path(folder) / "table.parquet"
        # Not in this process: on Linux a child's largest memory is never less than its parent's when it was started.
        subprocess.run([sys.executable, "-c", _make(told.rows, file)], cwd=CODE_FOLDER, check=True)
        measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(REPETITIONS):
            for way, results in measured.items():
                results.append(_child(way, file))
    print(_table(told.rows, measured))
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _make(rows: int, file: Path) -> str:
    return f"from pathlib import Path; from bench.validate import make; make({rows}, Path({str(file)!r}))"


def make(rows: int, file: Path) -> None:
    """Write the table: numbers with a few nulls, whole numbers, words, times and free text, and five violations."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    random = np.random.default_rng(0)
    columns: dict[str, Any] = {"id": np.arange(rows)}
    for number in range(44):
        values = random.normal(50, 10, rows).round(2)
        columns[f"number_{number}"] = pa.array(np.where(random.random(rows) < 0.01, np.nan, values), from_pandas=True)
    for number in range(16):
        columns[f"count_{number}"] = random.integers(0, 100, rows)
    for number in range(15):
        words = np.array(WORDS)[random.integers(0, len(WORDS), rows)]
        columns[f"word_{number}"] = pa.array(words, mask=random.random(rows) < 0.01)
    for number in range(3):
        columns[f"time_{number}"] = pa.array(random.integers(0, 10**9, rows) * 1_000_000, pa.timestamp("us"))
    columns["mail"] = pa.array([f"u{number}@example.org" for number in random.integers(0, 10**9, rows)])
    columns["id"][7] = 3
    columns["count_0"][11] = 1_000
    for name, value in (("number_3", -1e6), ("word_2", "mauve"), ("mail", "nobody")):
        values = columns[name].to_pylist()
        values[13] = value
        columns[name] = pa.array(values)
    pyarrow.parquet.write_table(pa.table(columns), file, compression="zstd")


def rules() -> list[Any]:
    """Return the 40 rules, of which five find one violation each."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=100),
        gxe.ExpectColumnValuesToNotBeNull(column="id"),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        *(gxe.ExpectColumnValuesToNotBeNull(column=f"number_{number}", mostly=0.9) for number in range(6)),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=f"number_{number}", min_value=-50, max_value=150)
            for number in range(10)
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(column=f"count_{number}", min_value=0, max_value=99)
            for number in range(5)
        ),
        *(gxe.ExpectColumnValuesToBeInSet(column=f"word_{number}", value_set=WORDS) for number in range(7)),
        gxe.ExpectColumnValuesToMatchRegex(column="mail", regex=r"^u\d+@example\.org$"),
        gxe.ExpectColumnValuesToBeInTypeList(column="count_6", type_list=["int64"]),
        gxe.ExpectColumnMeanToBeBetween(column="number_11", min_value=40, max_value=60),
        gxe.ExpectColumnMedianToBeBetween(column="number_12", min_value=40, max_value=60),
        gxe.ExpectColumnStdevToBeBetween(column="number_13", min_value=5, max_value=15),
        gxe.ExpectColumnMaxToBeBetween(column="count_7", max_value=99),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="word_8", value_set=WORDS),
        gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(column="count_9", max_value=0.5),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "count_10"]),
    ]


def _plain_great_expectations(file: Path) -> Callable[[], int]:
    """Read the whole file into a frame, and have Great Expectations validate that."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd
    import pyarrow.parquet  # noqa: F401
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    asked = rules()

    def judge() -> int:
        quiet = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False)
        )
        context = gx.get_context(mode="ephemeral", project_config=quiet)
        table = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
        whole = table.add_batch_definition_whole_dataframe("whole")
        batch = whole.get_batch(batch_parameters={"dataframe": pd.read_parquet(file)})
        answer = batch.validate(gx.ExpectationSuite(name="suite", expectations=asked), result_format="BASIC")
        return sum(not result.success for result in answer.results)

    return judge


def _evergreen(file: Path) -> Callable[[], int]:
    """Validate the file as a run does."""
    from expectations.suite import Suite
    from expectations.validate import validate
    from pipeline.snapshot import SnapshotFile

    suite = Suite(error=rules())
    return lambda: sum(not rule.passed for rule in validate(SnapshotFile(file), suite).rules)


def _evergreen_with_quarantine(file: Path) -> Callable[[], int]:
    """Validate the file as a run does, the rules about single rows being quarantine rules."""
    from expectations.suite import Suite
    from expectations.validate import validate
    from pipeline.snapshot import SnapshotFile

    by_row = [rule for rule in rules() if getattr(rule, "map_metric", None) and "TypeList" not in type(rule).__name__]
    suite = Suite(error=[rule for rule in rules() if rule not in by_row], quarantine=by_row)
    return lambda: sum(not rule.passed for rule in validate(SnapshotFile(file), suite).rules)


WAYS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "Great Expectations on pandas": _plain_great_expectations,
    "evergreen": _evergreen,
    "evergreen, quarantine": _evergreen_with_quarantine,
}


def _measure(way: str, file: Path) -> None:
    """Do the work of one way in this process, and print what it took."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    work = WAYS[way](file)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    started = time.perf_counter()
    failed = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "failed": failed, "imported": imported / MEGABYTE}))


def _child(way: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.validate", "--way", way, "--file", str(file)]
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out, cwd=CODE_FOLDER)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError(f"{command} exited {child.returncode}")
        out.seek(0)
        found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE
    return {**found, "peak": peak}


def _table(rows: int, measured: dict[str, list[dict[str, Any]]]) -> str:
    """Return a line per way: medians, and how many times as fast and as small as the first one it is."""
    lines = [f"{rows:,} rows x 80 columns, 40 rules, {REPETITIONS} times each, in turn"]
    lines.append(
        f"{'':30}{'seconds':>9}{'faster':>9}{'peak MB':>9}{'smaller':>9}{'imports MB':>12}{'rules failed':>14}"
    )
    middle = {
        way: {name: statistics.median(one[name] for one in results) for name in results[0]}
        for way, results in measured.items()
    }
    first = next(iter(middle.values()))
    for way, one in middle.items():
        faster, smaller = first["seconds"] / one["seconds"], first["peak"] / one["peak"]
        lines.append(
            f"{way:30}{one['seconds']:9.2f}{faster:8.1f}x{one['peak']:9,.0f}{smaller:8.1f}x{one['imported']:12,.0f}"
            f"{one['failed']:14g}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
