from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.models import _ames as ames

HOUSE_PRICES = Path("../shared/data/house_prices.csv")


@pytest.fixture(scope="module")
def market():
    return ames.market()


def test_the_same_seed_gives_the_same_sales(market):
    pd.testing.assert_frame_equal(ames.market(seed=0), market)


def test_another_seed_gives_other_sales(market):
    assert (ames.market(seed=1)["SalePrice"] != market["SalePrice"]).mean() > 0.9


def test_the_market_has_as_many_rows_as_asked_for_and_each_its_own_id():
    assert ames.market(rows=7)["Id"].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("absent", "missing"),
    [
        ("TotalBsmtSF", ["BsmtQual", "BsmtExposure", "BsmtFinType1"]),
        ("GarageCars", ["GarageType", "GarageYrBlt", "GarageFinish"]),
        ("Fireplaces", ["FireplaceQu"]),
    ],
)
def test_what_a_house_has_none_of_is_missing_and_nothing_else_of_it_is(market, absent, missing):
    none = market[absent] == 0
    assert none.any()
    assert market.loc[none, missing].isna().all(axis=None)
    assert market.loc[~none, missing].notna().all(axis=None)


def test_no_garage_means_no_garage_area(market):
    assert ((market["GarageCars"] == 0) == (market["GarageArea"] == 0)).all()


def test_only_columns_that_may_be_missing_are(market):
    assert set(market.columns[market.isna().any()]) == {
        *("LotFrontage", "Alley", "MasVnrType", "MasVnrArea", "BsmtQual", "BsmtExposure", "BsmtFinType1"),
        *("FireplaceQu", "GarageType", "GarageYrBlt", "GarageFinish", "Fence"),
    }


def test_areas_add_up(market):
    assert (market["1stFlrSF"] + market["2ndFlrSF"] == market["GrLivArea"]).all()
    assert (market["BsmtFinSF1"] + market["BsmtUnfSF"] == market["TotalBsmtSF"]).all()


def test_nothing_happens_before_the_house_stands_or_after_it_is_sold(market):
    assert (market["YearBuilt"] <= market["YearRemodAdd"]).all()
    assert (market["YearRemodAdd"] <= market["YrSold"]).all()
    assert (market["YearBuilt"] <= market["GarageYrBlt"].fillna(9_999)).all()


def test_sales_run_from_january_2006_to_july_2010(market):
    months = 100 * market["YrSold"] + market["MoSold"]
    assert (months.min(), months.max()) == (200601, 201007)


def test_better_larger_and_better_placed_houses_cost_more(market):
    price = np.log(market["SalePrice"])
    assert price.corr(market["OverallQual"]) > 0.6
    assert price.corr(np.log(market["GrLivArea"])) > 0.6
    by_place = price.groupby(market["Neighborhood"]).median()
    assert by_place["NridgHt"] > by_place["NAmes"] > by_place["IDOTRR"]


def test_columns_types_and_words_are_those_of_house_prices(market):
    if not HOUSE_PRICES.exists():
        pytest.skip(f"{HOUSE_PRICES} is not here")
    real = pd.read_csv(HOUSE_PRICES, keep_default_na=False, na_values=["NA", ""])
    assert market.columns.tolist() == [name for name in real if name in market]
    for name in market:
        assert market[name].dtype == real[name].dtype, name
        if market[name].dtype == "str":
            assert set(market[name].dropna()) <= set(real[name].dropna()), name
