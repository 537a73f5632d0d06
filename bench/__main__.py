"""Run the measurements and print what they find: `python -m bench [NAME ...]`; without names, all of them."""

import argparse
import subprocess
import sys

from pipeline.project import CODE_FOLDER

REAL_DATA = CODE_FOLDER.parent / "shared" / "data" / "house_prices.csv"

MEASUREMENTS = {
    "run_cost": "what a run costs: `evergreen run house_prices` against a bare script with the same ingest and fits",
    "prefect_server": "a run of six steps with a Prefect server up, against Prefect's temporary server",
    "freshness": "from 100k new rows on disk to the endpoint answering with the new release, by step",
    "endpoint": "evergreen's endpoint beside MLflow, MLServer, FastAPI, BentoML, ONNX and servers that do nothing",
    "validate": "load and validate 80 columns by 40 rules, beside Great Expectations on pandas; time and memory",
    "handover": "20 releases, a rollback and a bad canary while 40 clients ask; what they notice of it",
    "growth": "time and memory of a run from 100k to 1M rows; `python -m bench.growth 100000 10000000` takes minutes",
    "ingest": "time and memory of freezing a CSV file as a snapshot, beside DuckDB writing it as Parquet",
    "score": "time and memory of `evergreen score` on a Parquet file, beside pyarrow reading and writing it; by step",
    "init_cost": "what `evergreen init` costs on 1M rows x 40 columns, beside reading them with pandas",
    "house_prices_rmsle": "RMSLE on real House Prices; one plain boosted-tree pipeline has 0.129, ridge 0.144",
}
ON_REAL_DATA = {"house_prices_rmsle": REAL_DATA}


def main() -> int:
    """Run the named measurements one after the other, each in its own process; return 1 when one of them broke."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure; nothing is asserted.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MEASUREMENTS)}; without, all")
    names = parser.parse_args().names or [*MEASUREMENTS]
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        parser.error(f"there is no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    broken = False
    for name in names:
        print(f"## {name}: {MEASUREMENTS[name]}\n", flush=True)
        data = ON_REAL_DATA.get(name)
        if data is not None and not data.exists():
            print(f"skipped: it needs real data, and {data} is not there\n", flush=True)
            continue
        arguments = [str(data)] if data is not None else []
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], cwd=CODE_FOLDER)
        broken = broken or done.returncode != 0
        print(flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
