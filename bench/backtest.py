"""`evergreen backtest house_prices` on the simulated market, in which prices begin to fall: the plot of the README.

`python -m bench.backtest FOLDER [--data CSV --time YEAR,MONTH] [--candidate NAME]` writes plot, table and JSON into a
folder; with --data of another history, with --candidate by one candidate of the spec alone, in a tenth of the time. The
market is that of `pipeline.models._ames`; from September 2008 on prices fall by 2% a month for a year, and what a good
finish adds to a price becomes less at the same time. Nobody tells the model: it sees that prices changed when it
trains.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from flows.backtest import markdown, view_of
from flows.reports.plots import draw_backtest
from pipeline import sources
from pipeline.backtest import history, replay
from pipeline.files import write_json, write_text
from pipeline.models import _ames as ames
from pipeline.sources import Function
from pipeline.spec import load_spec

ROWS = 2_400
FALLS_FROM = 12 * 2008 + 8
MONTHS, A_MONTH = 12, 0.02


def main() -> None:
    """Replay, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m bench.backtest", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--time", default="YrSold,MoSold")
    parser.add_argument("--candidate")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    spec = load_spec("house_prices")
    if given.candidate:
        spec = replace(spec, candidates={given.candidate: spec.candidates[given.candidate]})
    simulated = Function(falling_market, na_values=spec.source.na_values)
    table = sources.read(sources.at(spec.source, given.data) if given.data else simulated)
    found = replay(spec, history(spec, table, given.time.split(",")), lambda month, *_: print(month, flush=True))
    (given.folder / "backtest.png").write_bytes(draw_backtest(found))
    view = view_of(found, "month", str(given.folder / "backtest.md"))
    write_json(given.folder / "backtest.json", asdict(view))
    write_text(given.folder / "backtest.md", markdown(view, "backtest.png"))
    print("\n".join([*view.said, *view.notes, f"{time.perf_counter() - started:.0f} s"]))


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
