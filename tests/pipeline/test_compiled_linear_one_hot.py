"""A linear model of one-hot categories becomes a sum of looked-up coefficients, and answers as before."""

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import VotingRegressor
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from pipeline.compiled import CompiledModel, UnanswerableError, columns_of, compile_pipeline
from pipeline.predict import predict
from pipeline.schema import Feature, to_frame, to_table

FEATURES = (Feature("area", "number", True), Feature("rooms", "number", True), Feature("kind", "text", False))
ROWS = [
    {"area": 50.0, "rooms": 2.0, "kind": "flat"},
    {"area": 80.0, "rooms": 3.0, "kind": "house"},
    {"area": 20.0, "rooms": 1.0, "kind": "hut"},
    {"area": 60.0, "rooms": 3.0, "kind": None},
    {"area": 70.0, "rooms": 2.0, "kind": "flat"},
    {"area": 90.0, "rooms": 4.0, "kind": "house"},
]
PRICES = [120.0, 210.0, 30.0, 140.0, 180.0, 260.0]
UNSEEN = {"area": 55.0, "rooms": 2.0, "kind": "castle"}


def one_hot(model, columns=("kind",), **options):
    encoder = OneHotEncoder(**{"handle_unknown": "ignore"} | options)
    return make_pipeline(make_column_transformer((encoder, list(columns)), remainder=StandardScaler()), model)


def compiled(estimator, prices=PRICES):
    estimator.fit(to_frame(to_table(ROWS, FEATURES), FEATURES), np.array(prices))
    return compile_pipeline(estimator, FEATURES)


def asked(plan, rows):
    columns = {feature.name: [row[feature.name] for row in rows] for feature in FEATURES}
    return CompiledModel(plan)(*columns_of(columns, plan))


def kinds(plan):
    return [operation.kind for operation in plan.operations]


ESTIMATORS = {
    "one text": one_hot(Ridge()),
    "a text and a number": one_hot(Ridge(), ("kind", "rooms")),
    "a number": make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["rooms"]), ("passthrough", ["area"])), Ridge()
    ),
    "a category dropped": one_hot(Ridge(), handle_unknown="error", drop="first"),
    "infrequent ones together": one_hot(Ridge(), handle_unknown="infrequent_if_exist", min_frequency=2),
    "some columns selected": make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), ("passthrough", ["area"])),
        SelectKBest(k=3),
        LinearRegression(),
    ),
    "two linear models of it": one_hot(VotingRegressor([("a", Ridge()), ("b", Ridge(alpha=9.0))])),
    "a tree, too": one_hot(VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(random_state=0))])),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())
def test_it_answers_as_the_estimator_and_a_row_as_in_company(estimator):
    plan = compiled(estimator)
    expected = predict(estimator, to_frame(to_table(ROWS, FEATURES), FEATURES)).predictions
    together = asked(plan, ROWS).predictions
    assert together == pytest.approx(expected, rel=1e-12)
    assert [asked(plan, [row]).predictions[0] for row in ROWS] == together.tolist()


def test_no_matrix_of_zeros_and_ones_is_made_for_linear_models_alone():
    assert "one_hot" not in kinds(compiled(ESTIMATORS["one text"]))
    assert "one_hot" not in kinds(compiled(ESTIMATORS["two linear models of it"]))
    assert "one_hot" in kinds(compiled(ESTIMATORS["a tree, too"]))


def test_a_category_never_seen_has_no_coefficient():
    estimator = one_hot(Ridge())
    plan = compiled(estimator)
    expected = predict(estimator, to_frame(to_table([UNSEEN], FEATURES), FEATURES)).predictions
    assert asked(plan, [UNSEEN]).predictions == pytest.approx(expected, rel=1e-12)


def test_what_the_encoder_refuses_is_still_refused():
    plan = compiled(one_hot(Ridge(), handle_unknown="error"))
    with pytest.raises(UnanswerableError):
        asked(plan, [UNSEEN])
    with pytest.raises(UnanswerableError):
        asked(plan, [*ROWS, UNSEEN])


def test_of_two_labels_there_is_one_sum_and_of_three_the_matrix_stays():
    two, three = one_hot(LogisticRegression()), one_hot(LogisticRegression())
    of_two, of_three = compiled(two, [0, 1, 0, 1, 0, 1]), compiled(three, [0, 1, 2, 0, 1, 2])
    assert "one_hot" not in kinds(of_two)
    assert "one_hot" in kinds(of_three)
    for estimator, plan in ((two, of_two), (three, of_three)):
        expected = predict(estimator, to_frame(to_table(ROWS, FEATURES), FEATURES)).probabilities
        assert asked(plan, ROWS).probabilities == pytest.approx(expected, rel=1e-12)
