import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from project import copy_of_the_project, points
from sklearn.linear_model import Ridge
from tiny import Recorder, a_spec

from flows.reports.plots import draw_backtest
from pipeline.backtest import history, replay
from pipeline.errors import DataError
from pipeline.spec import Gate, Holdout


def market(months, rows=40, level=lambda _: 0.0, seed=0):
    """Rows of `months` from January 2020 on: price is 3 area + the level of the month + noise of deviation 1."""
    rng = np.random.default_rng(seed)
    month = np.repeat(np.arange(months), rows)
    area = rng.uniform(0, 10, len(month))
    price = 3 * area + np.array([level(one) for one in month]) + rng.normal(0, 1, len(month))
    year, of_year = 2020 + month // 12, month % 12 + 1
    return pa.table({"id": np.arange(len(month)), "area": area, "price": price, "year": year, "month": of_year})


def a_backtest(table, **changes):
    spec = a_spec(**{"features": ("area",), "candidates": {"ridge": Ridge()}, "folds": 2, "key": ("id",)} | changes)
    return replay(spec, history(spec, table, ("year", "month")))


def test_a_market_that_moves_leaves_what_is_never_retrained_behind():
    found = a_backtest(market(10, level=lambda month: 5.0 * max(0, month - 4)), gate=Gate(at_most=50, tolerance=1))
    assert [month.month for month in found.months] == ["2020-06", "2020-07", "2020-08", "2020-09", "2020-10"]
    assert [month.rows for month in found.months] == [40] * 5
    # Never retrained, it is the level off: 5 in the first month, 25 in the last, and the noise is 1.
    assert [round(month.metrics["never"] / 5) for month in found.months] == [1, 2, 3, 4, 5]
    assert found.overall["gate"] == found.overall["always"] < found.overall["never"]
    assert found.differences["never"].high < 0
    assert found.releases == {"never": 1, "always": 5, "gate": 5}
    assert draw_backtest(found)[:4] == b"\x89PNG"


def test_no_model_has_seen_the_month_that_it_is_judged_on(tmp_path):
    fits = tmp_path / "fits"
    table = market(6).append_column("row", [np.arange(240)])
    spec = a_spec(
        features=("row",), candidates={"recorder": Recorder(str(fits))}, folds=2, gate=Gate(at_most=1e9), key=("id",)
    )
    with pytest.raises(DataError, match="no challenger of houses passed the gate in any month"):
        # Always guessing the mean, it is never better than guessing.
        replay(spec, history(spec, table, ("year", "month")))
    newest = [max(map(int, line.split(","))) // 40 for line in fits.read_text().splitlines()]
    assert sorted(set(newest)) == [2, 3, 4]


def test_what_the_gate_refuses_does_not_answer_by_the_gate():
    # From the fifth month on prices have nothing to do with areas, and challengers learn that.
    table = market(8, rows=100)
    broken = np.where(np.repeat(np.arange(8), 100) == 4, -40.0 * table["area"].to_numpy(), table["price"].to_numpy())
    table = table.set_column(2, "price", pa.array(broken))
    found = a_backtest(table, gate=Gate(at_most=1e3, tolerance=0.5))
    outcomes = {month.month: month.outcome for month in found.months}
    assert outcomes["2020-05"] == "released"
    assert found.releases["gate"] < found.releases["always"]
    kept = [month for month in found.months if month.outcome == "kept"]
    assert all(month.reasons for month in kept)


def test_months_come_from_timestamps_and_the_newest_window_is_held_out_where_the_spec_says_so():
    table = market(8)
    at = pd.to_datetime({"year": table["year"], "month": table["month"], "day": 15}).to_numpy().astype("datetime64[us]")
    table = table.append_column("at", pa.array(at)).drop_columns(["year", "month"])
    spec = a_spec(features=("area",), time="at", holdout=Holdout(days=20), folds=2, gate=Gate(at_most=50, tolerance=1))
    found = replay(spec, history(spec, table))
    assert [month.month for month in found.months] == ["2020-05", "2020-06", "2020-07", "2020-08"]


def test_columns_of_another_spelling_are_found_and_a_missing_key_is_the_number_of_the_row():
    table = market(4).rename_columns(["Order", "Ar ea", "PRICE", "Yr Sold", "Mo Sold"])
    spec = a_spec(features=("area",))
    past = history(spec, table, ("Yr Sold", "Mo Sold"))
    assert past.table.column_names == ["Order", "area", "price", "Yr Sold", "Mo Sold", "id"]
    assert past.table["id"].to_pylist() == list(range(1, 161))
    assert past.months.tolist() == [12 * 2020 + month for month in range(4) for _ in range(40)]
    assert past.notes == (
        "2 columns have another spelling: 'Ar ea' is 'area', 'PRICE' is 'price'",
        "there is no key column 'id': the number of a row is its key",
    )


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ((), "houses has no time column"),
        (("Year",), "no column 'Year', which --time or the spec names; did you mean 'year'"),
        (("area",), "'area' holds number; name one column of timestamps"),
        (("year", "area"), "'year' and 'area' do not hold whole years and months from 1 to 12"),
    ],
)
def test_what_tells_no_month_is_named(time, said):
    with pytest.raises(DataError, match=said):
        history(a_spec(), market(3), time)


@pytest.mark.slow
def test_the_command_leaves_table_json_and_plot_in_the_folder_of_the_run(prefect_server, tmp_path):
    project = copy_of_the_project(tmp_path, prefect_server)
    frame = points(240).assign(year=2020, month=np.repeat(np.arange(1, 7), 40))
    project.data(frame, "history.csv")
    code, found = project.json("backtest", "points", "--data", "history.csv", "--time", "year,month")
    assert code == 0, found
    assert [month["month"] for month in found["months"]] == ["2020-04", "2020-05", "2020-06"]
    (report,) = project.home.glob("runs/points/*/backtest.md")
    assert str(report) == found["report"]
    assert "backtest.png" in report.read_text()
    assert json.loads(report.with_suffix(".json").read_text())["overall"] == found["overall"]
    code, shown, err = project.evergreen("backtest", "points", "--data", "history.csv", "--time", "year,month")
    assert code == 0, err
    assert "never retrained" in shown
    code, said = project.json("backtest", "points", "--data", "history.csv")
    assert (code, said["error"]["type"]) == (1, "DataError")
