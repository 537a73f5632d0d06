"""What evergreen's deciding code makes of a fixed table, as constants.

WHEN A TEST HERE FAILS and the change is meant: raise DECISION_VERSION in pipeline/decision_version.py by one, and put
the new values here. Every model is then trained again once. When the change is not meant, undo it.
"""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from tiny import a_snapshot, a_spec

from pipeline import digest
from pipeline.compiled import compile_pipeline, save_plan
from pipeline.decision_version import DECISION_VERSION
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.schema import Feature
from pipeline.split import held_out, holdout_rule
from pipeline.train import _folds, train

MEANT = "what evergreen decides changed: if that is meant, raise DECISION_VERSION and update the constants of this test"
ROWS = 60
HELD_OUT = [4, 8, 10, 11, 12, 13, 17, 20, 29, 32, 42, 43, 52, 56]
FOLDS = [
    [5, 16, 18, 28, 31, 35, 38, 39, 41, 44],
    [2, 23, 24, 26, 37, 40, 50, 55, 59],
    [6, 14, 21, 22, 25, 45, 49, 53, 54],
    [1, 7, 9, 19, 33, 34, 36, 46, 47],
    [0, 3, 15, 27, 30, 48, 51, 57, 58],
]
# Numbers are compared to some digits only: the last ones differ from one type of processor to another.
SCORES = {
    "line": (4.00348, 3.319, 3.6146, 3.28898, 2.93437),
    "tree": (21.2049, 24.1157, 17.1363, 19.2833, 29.7313),
}
METRICS = {
    "challenger": {
        "rmse": 3.1132856,
        "mae": 2.7524724,
        "median_ae": 2.9046439,
        "mape": 0.013396598,
        "rmsle": 0.017546511,
        "r2": 0.99827086,
    },
    "baseline": {
        "rmse": 75.005831,
        "mae": 60.645963,
        "median_ae": 61.021739,
        "mape": 0.31882913,
        "rmsle": 0.35885231,
        "r2": -0.0036475578,
    },
}
INTERVAL = (-71.892546, -92.129556, -48.22109)
PLAN = "1583245ede62379fd6ebe8b2971687bfb4e8645dbe815d3367d9c0ac8c33b468"


def fixed_table():
    """Rows of id, area, rooms and price, by whole-number arithmetic alone."""
    number = np.arange(ROWS)
    area, rooms = (number * 37) % 101 + 20.0, (number * 7) % 5 + 1.0
    price = 3 * area + 10 * rooms + (number * 53) % 11
    return pa.table({"id": number, "area": area, "rooms": rooms, "price": price})


def fixed_spec():
    tree = DecisionTreeRegressor(max_depth=3, random_state=0)
    return a_spec(candidates={"line": LinearRegression(), "tree": tree})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The trained model of the fixed table, and its evaluation."""
    folder = tmp_path_factory.mktemp("fixed")
    spec, snapshot = fixed_spec(), a_snapshot(fixed_table(), folder)
    trained = train(spec, snapshot, folder / "trained", workers=1)
    return trained, evaluate(spec, fixed_table(), trained.rule, trained.estimator(), None)


def test_the_constants_are_those_of_this_version():
    assert DECISION_VERSION == 1, "update the constants below, then this number"


def test_the_same_rows_are_held_out():
    mask = held_out(holdout_rule(fixed_spec(), fixed_table()), fixed_table())
    assert np.flatnonzero(mask).tolist() == HELD_OUT, MEANT


def test_the_folds_are_the_same():
    spec, table = fixed_spec(), fixed_table()
    training = table.filter(~held_out(holdout_rule(spec, table), table))
    folds = _folds(spec, training, training["price"].to_numpy())
    assert [training["id"].to_numpy()[scored].tolist() for _, scored in folds] == FOLDS, MEANT


def test_the_same_candidate_is_chosen_with_the_same_metrics(made):
    trained, evaluation = made
    assert trained.chosen == "line", MEANT
    for one in trained.candidates:
        assert one.scores == pytest.approx(SCORES[one.name], rel=1e-5), MEANT
    for who, metrics in METRICS.items():
        assert getattr(evaluation, who) == pytest.approx(metrics, rel=1e-6), MEANT


def test_the_interval_and_the_verdict_are_the_same(made):
    _, evaluation = made
    found = evaluation.against_baseline
    assert (found.difference, found.low, found.high) == pytest.approx(INTERVAL, rel=1e-6), MEANT
    verdict = decide(evaluation, fixed_spec().gate)
    assert (verdict.passed, [check.passed for check in verdict.checks]) == (True, [True, True]), MEANT


def test_a_pipeline_is_compiled_into_the_same_plan(tmp_path):
    # All numbers are exact in binary, so that every processor fits the same ones.
    frame = np.array([[0.0, 4.0], [2.0, 8.0], [0.0, 8.0], [2.0, 4.0]])
    steps = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(frame)
    tree = DecisionTreeRegressor(random_state=0).fit(steps.transform(frame), [1.0, 2.0, 3.0, 4.0])
    features = [Feature("area", "number", True), Feature("rooms", "number", False)]
    pipeline = make_pipeline(*(step for _, step in steps.steps), tree)
    save_plan(compile_pipeline(pipeline, features), tmp_path)
    with np.load(tmp_path / "plan.npz") as arrays:
        content = {name: arrays[name] for name in sorted(arrays.files)}
    assert digest.of_value([(tmp_path / "plan.json").read_text(), content]) == PLAN, MEANT
