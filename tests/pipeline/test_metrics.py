import numpy as np
import pytest
import sklearn.metrics as sk

from pipeline.metrics import METRICS, metrics_of

RNG = np.random.default_rng(0)
PRICE = RNG.uniform(1, 100, 50)
SAID = PRICE + RNG.normal(0, 10, 50).clip(-0.9)
TWO = RNG.integers(0, 2, 60)
THREE = RNG.integers(0, 3, 60)


def shares(classes):
    values = RNG.uniform(0.05, 1, (60, classes))
    return values / values.sum(axis=1, keepdims=True)


P2, P3 = shares(2), shares(3)
SAID2, SAID3 = P2.argmax(axis=1), P3.argmax(axis=1)

EXPECTED = [
    ("rmse", PRICE, SAID, sk.root_mean_squared_error(PRICE, SAID)),
    ("mae", PRICE, SAID, sk.mean_absolute_error(PRICE, SAID)),
    ("median_ae", PRICE, SAID, sk.median_absolute_error(PRICE, SAID)),
    ("mape", PRICE, SAID, sk.mean_absolute_percentage_error(PRICE, SAID)),
    ("rmsle", PRICE, SAID, sk.root_mean_squared_log_error(PRICE, SAID)),
    ("r2", PRICE, SAID, sk.r2_score(PRICE, SAID)),
    ("roc_auc", TWO, P2, sk.roc_auc_score(TWO, P2[:, 1])),
    ("average_precision", TWO, P2, sk.average_precision_score(TWO, P2[:, 1])),
    ("brier", TWO, P2, sk.brier_score_loss(TWO, P2[:, 1])),
    ("log_loss", TWO, P2, sk.log_loss(TWO, P2)),
    ("log_loss", THREE, P3, sk.log_loss(THREE, P3)),
    ("roc_auc_ovr", THREE, P3, sk.roc_auc_score(THREE, P3, multi_class="ovr")),
    ("accuracy", TWO, SAID2, sk.accuracy_score(TWO, SAID2)),
    ("accuracy", THREE, SAID3, sk.accuracy_score(THREE, SAID3)),
    ("balanced_accuracy", TWO, SAID2, sk.balanced_accuracy_score(TWO, SAID2)),
    ("balanced_accuracy", THREE, SAID3, sk.balanced_accuracy_score(THREE, SAID3)),
    ("f1", TWO, SAID2, sk.f1_score(TWO, SAID2)),
    ("f1_macro", THREE, SAID3, sk.f1_score(THREE, SAID3, average="macro")),
]


@pytest.mark.parametrize(
    ("name", "y_true", "y", "expected"), EXPECTED, ids=[f"{e[0]}-{i}" for i, e in enumerate(EXPECTED)]
)
def test_a_metric_is_what_scikit_learn_says(name, y_true, y, expected):
    assert METRICS[name].compute(y_true, y) == pytest.approx(expected, rel=1e-12)


def test_every_metric_is_compared_with_scikit_learn():
    assert {name for name, *_ in EXPECTED} == set(METRICS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", np.sqrt((1 + 4) / 2)),
        ("mae", 1.5),
        ("median_ae", 1.5),
        ("mape", (1 / 1 + 2 / 4) / 2),
        ("r2", 1 - 5 / 4.5),
    ],
)
def test_metrics_of_two_numbers_are_what_they_are_by_hand(name, expected):
    assert METRICS[name].compute(np.array([1.0, 4.0]), np.array([2.0, 6.0])) == pytest.approx(expected)


def test_the_metrics_of_a_task_are_those_that_make_sense_for_it():
    assert "rmse" in metrics_of("regression")
    assert "roc_auc" in metrics_of("binary")
    assert "f1_macro" in metrics_of("multiclass")
    assert not set(metrics_of("regression")) & {*metrics_of("binary"), *metrics_of("multiclass")}


@pytest.mark.parametrize(
    ("name", "y"), [("roc_auc", np.array([[0.2, 0.8], [0.4, 0.6]])), ("roc_auc_ovr", np.full((2, 3), 1 / 3))]
)
def test_a_ranking_of_rows_that_all_have_one_label_is_undefined(name, y):
    assert np.isnan(METRICS[name].compute(np.array([1, 1]), y))


def test_ties_count_half_in_the_order_of_pairs():
    shares = np.array([0.1, 0.5, 0.5, 0.9])
    y_true = np.array([0, 0, 1, 1])
    # Of the four pairs of a 0 and a 1, three are in the right order and one is a tie.
    assert METRICS["roc_auc"].compute(y_true, np.column_stack([1 - shares, shares])) == 3.5 / 4


@pytest.mark.parametrize("name", [*metrics_of("regression")])
def test_a_missing_prediction_is_never_a_number(name):
    assert not np.isfinite(METRICS[name].compute(np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 3.0])))


def test_a_prediction_whose_logarithm_is_undefined_is_infinitely_wrong():
    assert METRICS["rmsle"].compute(np.array([1.0, 2.0]), np.array([1.0, -3.0])) == np.inf


def test_a_probability_of_zero_for_what_happened_is_a_large_number_not_infinity():
    assert 30 < METRICS["log_loss"].compute(np.array([1]), np.array([[1.0, 0.0]])) < 40
