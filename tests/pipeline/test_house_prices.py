import io
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from pipeline.models import _ames as ames
from pipeline.models.house_prices import BUILDING, DEAL, ORDERED, PLACE, lost_per_sale, spec

UNLABELLED = Path("../shared/data/house_prices_unlabelled.csv")
NULLABLE = [name for name in spec.features if name not in spec.required]
TEXT = [*ORDERED, *PLACE, *BUILDING, *DEAL]


def as_features(frame):
    """The frame as estimators get it: the features in order, every number a float64."""
    X = frame[list(spec.features)]
    return X.astype(dict.fromkeys(X.select_dtypes("number"), "float64"))


@pytest.fixture(scope="module")
def market():
    return ames.market(rows=300, seed=5)


@pytest.fixture(scope="module", params=list(spec.candidates))
def fitted(request, market):
    return clone(spec.candidates[request.param]).fit(as_features(market), market["SalePrice"].to_numpy("float64"))


@pytest.fixture
def houses():
    return as_features(ames.market(rows=40, seed=6))


def assert_prices(predictions, rows):
    assert predictions.shape == (rows,)
    assert np.isfinite(predictions).all()
    assert (predictions > 0).all()


def test_the_simulated_market_has_every_column_of_the_spec(market):
    assert {*spec.key, spec.target, *spec.features} <= set(market)


def test_new_houses_get_a_price_near_what_they_sell_for(fitted, houses):
    sold = ames.market(rows=40, seed=6)["SalePrice"].to_numpy()
    assert np.median(np.abs(np.log(fitted.predict(houses) / sold))) < 0.2


def test_a_house_of_which_only_the_required_features_are_known_gets_a_price(fitted, houses):
    houses.loc[:, NULLABLE] = np.nan
    assert_prices(fitted.predict(houses), 40)


def test_any_nullable_feature_may_be_missing_alone(fitted, houses):
    for row, name in enumerate(NULLABLE):
        houses.loc[row, name] = np.nan
    assert_prices(fitted.predict(houses), 40)


def test_an_unknown_quality_is_priced_as_the_typical_one(fitted, houses):
    typical = houses.assign(KitchenQual="TA")
    np.testing.assert_array_equal(fitted.predict(houses.assign(KitchenQual="Zeppelin")), fitted.predict(typical))


def test_words_never_seen_in_training_get_a_price(fitted, houses):
    houses.loc[:, TEXT] = "Zeppelin"
    assert_prices(fitted.predict(houses), 40)


def test_a_house_gets_the_same_price_alone_as_among_others(fitted, houses):
    houses.loc[::3, NULLABLE] = np.nan
    alone = np.concatenate([fitted.predict(houses.iloc[[row]]) for row in range(len(houses))])
    np.testing.assert_allclose(alone, fitted.predict(houses), rtol=1e-12)


def test_predicting_warns_of_nothing(fitted, houses):
    houses.loc[::2, TEXT] = "Zeppelin"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(houses)


def test_a_candidate_read_back_from_disk_answers_the_same(fitted, houses):
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    np.testing.assert_array_equal(joblib.load(file).predict(houses), fitted.predict(houses))


def test_asking_too_little_loses_it_all_and_asking_too_much_a_tenth():
    assert lost_per_sale(np.array([100_000.0, 100_000.0]), np.array([90_000.0, 130_000.0])) == 6_500.0


def test_every_real_unlabelled_house_gets_a_price(fitted):
    if not UNLABELLED.exists():
        pytest.skip(f"{UNLABELLED} is not here")
    frame = pd.read_csv(UNLABELLED, keep_default_na=False, na_values=["NA", ""])
    assert_prices(fitted.predict(as_features(frame)), 1_459)
