"""`evergreen backtest house_prices` on the simulated market, in which prices begin to fall: the plot of the README.

`python -m bench.backtest FOLDER [--data CSV --time YEAR,MONTH]` writes the report into a folder; with --data of another
history. The market is that of `pipeline.ames`; from September 2008 on prices fall by 2% a month for a year, and what a
good finish adds to a price halves at the same time. Nobody tells the model: it sees that prices changed when it trains.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bench.endpoint.project import EVERGREEN, environment
from pipeline import ames
from pipeline.settings import CHECKOUT

ROWS = 1_460
FALLS_FROM = 12 * 2008 + 8
MONTHS, A_MONTH = 12, 0.02


def main() -> None:
    """Replay, and print where the plot is."""
    parser = argparse.ArgumentParser(prog="python -m bench.backtest", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--time", default="YrSold,MoSold")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as scratch:
        path = given.data or Path(scratch) / "market.csv"
        if given.data is None:
            falling_market().to_csv(path, index=False)
        command = [*EVERGREEN, "backtest", "house_prices", "--data", str(path.absolute()), "--time", given.time]
        env = environment() | {"EVERGREEN_HOME": str(Path(scratch) / "home")}
        done = subprocess.run(
            [*command, "--json"], cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, text=True, check=False
        )
        found = json.loads(done.stdout)
        if done.returncode:
            raise RuntimeError(found["error"]["message"])
        for file in Path(found["report"]).parent.glob("backtest.*"):
            shutil.copy(file, given.folder)
    print("\n".join([*found["said"], *found["notes"], f"{given.folder / 'backtest.md'}, {os.cpu_count()} cores"]))


def falling_market() -> pd.DataFrame:
    """Return the sales of a market whose prices fall."""
    sales = ames.market(ROWS, seed=1)
    month = 12 * sales["YrSold"] + sales["MoSold"] - 1
    fallen = (month - FALLS_FROM + 1).clip(0, MONTHS) / MONTHS
    change = -MONTHS * A_MONTH * fallen - 0.03 * fallen * (sales["OverallQual"] - 6)
    price = 100 * np.round(sales["SalePrice"] * np.exp(change) / 100)
    return sales.assign(SalePrice=price.astype("int64"))


if __name__ == "__main__":
    main()
