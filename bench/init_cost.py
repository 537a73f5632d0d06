"""What `evergreen init` costs on a million rows of 40 columns, beside reading the same CSV with pandas.

Both are whole processes; rounds alternate, and the ratio is that of the medians.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.project import CODE_FOLDER

ROWS, ROUNDS = 1_000_000, 5
READ = "import sys, pandas; pandas.read_csv(sys.argv[1])"
INIT = (
    "import sys, pathlib; from flows.init import begin; "
    "begin(pathlib.Path(sys.argv[2]), sys.argv[1], 'price', 'big', True, lambda _, choices: choices[0])"
)


def main() -> None:
    """Write the table, time both, print."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "big.csv")
        _write(data)
        for room in ("pipeline/models", "expectations/suites"):
            Path(folder, room).mkdir(parents=True)
        print(f"{ROWS:,} rows x 40 columns, {data.stat().st_size / 2**20:.0f} MiB; load {os.getloadavg()[0]:.1f}")
        seconds: dict[str, list[float]] = {"pandas.read_csv": [], "evergreen init": []}
        for _ in range(ROUNDS):
            for name, code in (("pandas.read_csv", READ), ("evergreen init", INIT)):
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", code, str(data), folder], cwd=CODE_FOLDER, check=True)
                seconds[name].append(time.perf_counter() - started)
    read, init = (statistics.median(found) for found in seconds.values())
    for name, found in seconds.items():
        print(f"{name:<16} {statistics.median(found):6.2f} s  ({min(found):.2f} to {max(found):.2f})")
    print(f"init takes {init / read:.2f} times as long as reading once")


def _write(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv

    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"id": np.arange(ROWS), "price": rng.lognormal(5, 1, ROWS).round(2)}
    columns |= {f"measure_{n}": rng.normal(100, 10, ROWS).round(3) for n in range(16)}
    columns |= {f"count_{n}": rng.integers(0, 10 ** (1 + n % 5), ROWS) for n in range(10)}
    for n in range(10):
        words = np.array([f"word {one}" for one in range(3 ** (1 + n % 6))])
        columns[f"word_{n}"] = words[rng.integers(0, len(words), ROWS)]
    columns["day"] = np.datetime64("2020-01-01", "s") + rng.integers(0, 10**8, ROWS).astype("timedelta64[s]")
    columns["flag"] = rng.random(ROWS) < 0.3
    pyarrow.csv.write_csv(pa.table(columns), path)


if __name__ == "__main__":
    main()
