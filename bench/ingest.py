"""Time and memory of freezing a CSV file as a snapshot, beside DuckDB writing the same file as Parquet.

`python -m bench.ingest --rows 10000000` measures another size. Each is a process of its own, timed from after its
imports; both write with zstd, and only evergreen's has a digest afterwards. Ratios are taken within a round.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.project import CODE_FOLDER

ROUNDS = 3
MEGABYTE = 1e6

GENERATE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.csv
path, rows, step = sys.argv[1], int(sys.argv[2]), 250_000
random = np.random.default_rng(0)
words = np.array([f"kind {number}" for number in range(50)])
with open(path, "wb") as file:
    for start in range(0, rows, step):
        n = min(step, rows - start)
        columns = {"id": np.arange(start, start + n)}
        columns |= {f"x{i}": np.round(random.normal(size=n), 4) for i in range(10)}
        columns |= {f"n{i}": random.integers(0, 1000 * 10**i, n) for i in range(4)}
        columns |= {f"kind{i}": words[random.integers(0, len(words), n)] for i in range(3)}
        columns["flag"] = random.integers(0, 2, n).astype(bool)
        columns["at"] = np.datetime64("2020-01-01T00:00:00") + random.integers(0, 10**8, n).astype("timedelta64[s]")
        options = pyarrow.csv.WriteOptions(include_header=start == 0)
        pyarrow.csv.write_csv(pa.table(columns), file, options)
"""
SUBJECTS = {
    "duckdb": """
import sys, time
import duckdb
path, folder = sys.argv[1:]
started = time.perf_counter()
duckdb.sql(f"copy (select * from read_csv('{path}')) to '{folder}/x.parquet' (format parquet, compression zstd)")
print(time.perf_counter() - started)
""",
    "evergreen": """
import sys, time
from pathlib import Path
import pyarrow.csv, pyarrow.parquet
from pipeline.snapshot import ingest
from pipeline.sources import Csv
path, folder = sys.argv[1:]
started = time.perf_counter()
ingest(Csv(path), Path(folder))
print(time.perf_counter() - started)
""",
}


def main() -> None:
    """Measure both in rounds whose order changes, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the files are written; without, the system's place for them")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    memory: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-", dir=given.folder) as scratch:
        path = Path(scratch) / "x.csv"
        _measured(GENERATE, str(path), str(given.rows))
        size = path.stat().st_size
        for number in range(ROUNDS):
            for name in sorted(SUBJECTS, reverse=number % 2 == 1):
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    printed, largest = _measured(SUBJECTS[name], str(path), folder)
                # DuckDB shows its progress before.
                seconds[name].append(float(printed.split()[-1]))
                memory[name].append(largest)
    print(f"{given.rows:,} rows x 20 columns, {size / MEGABYTE:,.0f} MB of CSV")
    for name in SUBJECTS:
        each = ", ".join(f"{one:.2f}" for one in seconds[name])
        print(f"{name:10} {statistics.median(seconds[name]):7.2f} s (of {each})   {max(memory[name]):6,.0f} MB at most")
    ratios = [ours / theirs for ours, theirs in zip(seconds["evergreen"], seconds["duckdb"], strict=True)]
    print(f"evergreen takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


def _measured(code: str, *arguments: str) -> tuple[str, float]:
    """Run lines of Python in a process of their own; return what they print, and its peak memory in MB."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=out, cwd=CODE_FOLDER)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise RuntimeError(f"a subject exited {child.returncode}")
        out.seek(0)
        # Linux counts it in units of 1,024 bytes, macOS in bytes.
        return out.read(), used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


if __name__ == "__main__":
    main()
