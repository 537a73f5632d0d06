import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import Column, Said, Share, a_classifier, a_spec

from pipeline.errors import ServerError, TrainingError
from pipeline.evaluate import Champion, evaluate, interval, score
from pipeline.predict import Answers, predict
from pipeline.schema import describe, to_frame
from pipeline.spec import BinaryClassification, BusinessValue, Gate, MulticlassClassification
from pipeline.split import Rule, held_out

RULE = Rule("houses", ("id",), 0.2)
RNG = np.random.default_rng(0)


def prices(rows=300):
    """Price, and what two models say: `a` is off by about 5, `b` by about 6, and not by the same."""
    price = RNG.uniform(100, 200, rows)
    return pa.table(
        {
            "id": range(rows),
            "a": price + RNG.normal(0, 5, rows),
            "b": price + RNG.normal(0, 6, rows),
            "town": [f"t{row % 3}" for row in range(rows)],
            "price": price,
        }
    )


TABLE = prices()
HELD = held_out(RULE, TABLE)
SPEC = a_spec(features=("a", "b"))


def the_champion(table=TABLE, name="b", rule=RULE, required=("b",), estimator=None, spec=SPEC):
    features = describe(spec, table).features
    model = estimator or Column(name)
    return Champion(3, lambda rows: predict(model, to_frame(rows, features)), required, rule)


def rows_of(table, *names, mask=HELD):
    return [table.filter(mask)[name].to_numpy() for name in names]


def rmse(y, said):
    return float(np.sqrt(np.mean((y - said) ** 2)))


def test_metrics_are_those_of_the_held_out_rows_alone():
    found = evaluate(SPEC, TABLE, RULE, Column("a"), None)
    y, a = rows_of(TABLE, "price", "a")
    assert found.rows == HELD.sum()
    assert found.challenger["rmse"] == pytest.approx(rmse(y, a))
    assert found.challenger["mae"] == pytest.approx(np.mean(np.abs(y - a)))
    assert found.challenger["mape"] == pytest.approx(np.mean(np.abs(y - a) / y))
    assert (found.champion, found.champion_release, found.against_champion) == (None, None, None)


def test_the_baseline_says_the_mean_of_the_training_rows():
    found = evaluate(SPEC, TABLE, RULE, Column("a"), None)
    (y,), (trained_on,) = rows_of(TABLE, "price"), rows_of(TABLE, "price", mask=~HELD)
    assert found.baseline["rmse"] == pytest.approx(rmse(y, trained_on.mean()))
    assert found.against_baseline.difference == pytest.approx(found.challenger["rmse"] - found.baseline["rmse"])
    assert found.against_baseline.high < 0


def test_the_interval_is_that_of_a_paired_bootstrap():
    found = evaluate(SPEC, TABLE, RULE, Column("a"), the_champion())
    y, a, b = rows_of(TABLE, "price", "a", "b")
    rng = np.random.default_rng(99)
    draws = [rng.choice(len(y), len(y)) for _ in range(4000)]
    differences = [rmse(y[drawn], a[drawn]) - rmse(y[drawn], b[drawn]) for drawn in draws]
    low, high = np.percentile(differences, [2.5, 97.5])
    assert found.against_champion.difference == pytest.approx(rmse(y, a) - rmse(y, b))
    assert found.against_champion.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.against_champion.high == pytest.approx(high, abs=0.1 * (high - low))


def test_an_evaluation_comes_out_the_same_again():
    first, second = (evaluate(SPEC, TABLE, RULE, Column("a"), the_champion()) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict(), allow_nan=False))["rows"] == HELD.sum()


@pytest.mark.parametrize("metric", ["rmse", "mae", "median_ae", "mape", "rmsle", "r2"])
def test_two_models_that_answer_the_same_differ_by_exactly_nothing(metric):
    spec = a_spec(
        features=("a", "b"), metric=metric, gate=Gate(at_least=0.0) if metric == "r2" else Gate(at_most=1000.0)
    )
    found = evaluate(spec, TABLE, RULE, Column("a"), the_champion(name="a")).against_champion
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_two_models_that_answer_the_same_but_for_rounding_differ_by_nothing():
    y, a = rows_of(TABLE, "price", "a")
    found = interval(SPEC, y, Answers(np.nextafter(a, np.inf)), Answers(a))
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert interval(SPEC, y, Answers(a * (1 + 1e-9)), Answers(a)).difference != 0.0


def test_challenger_and_champion_are_judged_on_rows_that_neither_was_trained_on():
    theirs = replace(RULE, share=0.1)
    both = HELD & held_out(theirs, TABLE)
    found = evaluate(SPEC, TABLE, RULE, Column("a"), the_champion(rule=theirs))
    y, a, b = rows_of(TABLE, "price", "a", "b", mask=both)
    assert found.rows == both.sum() < HELD.sum()
    assert found.challenger["rmse"] == pytest.approx(rmse(y, a))
    assert found.champion["rmse"] == pytest.approx(rmse(y, b))


def test_a_champion_that_held_out_a_newer_window_is_judged_on_that_window():
    ours, theirs = (Rule("houses", ("id",), 0.2, "id", start) for start in (200.0, 250.0))
    found = evaluate(a_spec(features=("a", "b"), time="id"), TABLE, ours, Column("a"), the_champion(rule=theirs))
    assert found.rows == 50


@pytest.mark.parametrize(
    ("champion", "why"),
    [
        (the_champion(required=("gone",)), "release 3 requires 'gone', which the data no longer has"),
        (
            the_champion(rule=Rule("houses", ("town_id",), 0.2)),
            "the data has no column 'town_id', which the holdout of release 3 needs",
        ),
        (
            the_champion(rule=Rule("houses", ("id",), 0.2, "id", 300.0)),
            "only 0 rows are held out both now and when release 3 was trained",
        ),
        (the_champion(rule=Rule("houses", ("id",), 0.2, "id", "2024-01-01")), "'id' holds values such as 0"),
        (the_champion(name="gone"), "release 3 cannot be evaluated on these rows: KeyError"),
        (the_champion(estimator=Said("town", labels=("t0", "t1", "t2"))), "release 3 cannot be evaluated"),
    ],
)
def test_a_champion_that_cannot_be_compared_is_a_reason_and_no_exception(champion, why):
    found = evaluate(SPEC, TABLE, RULE, Column("a"), champion)
    assert why in found.incomparable
    assert (found.champion, found.against_champion, found.champion_release) == (None, None, 3)
    assert found.rows == HELD.sum()


def test_a_challenger_that_cannot_answer_the_held_out_rows_is_a_training_error():
    with pytest.raises(TrainingError, match=r"the challenger of houses cannot predict the held-out rows.*KeyError"):
        evaluate(SPEC, TABLE, RULE, Column("gone"), None)


def test_slices_have_their_own_metrics_and_only_large_ones_are_judged():
    town = ["rare" if row in np.flatnonzero(HELD)[:5] else f"t{row % 2}" for row in range(300)]
    table = TABLE.set_column(3, "town", pa.array(town))
    spec = a_spec(features=("a", "b"), gate=Gate(at_most=10.0, slices=("town",), slice_rows=10))
    found = {one.value: one for one in evaluate(spec, table, RULE, Column("a"), the_champion()).slices}
    assert set(found) == {"rare", "t0", "t1"}
    assert found["rare"].rows == 5
    assert found["rare"].interval is None
    for name, one in found.items():
        y, a, b = rows_of(table, "price", "a", "b", mask=HELD & (np.array(town) == name))
        assert (one.column, one.rows) == ("town", len(y))
        assert (one.challenger, one.champion) == pytest.approx((rmse(y, a), rmse(y, b)))
    # Two are judged, so each interval is one of 97.5%.
    assert found["t0"].interval.confidence == found["t1"].interval.confidence == pytest.approx(0.975)


def test_missing_values_are_a_slice_and_numbers_of_many_values_are_cut_into_quarters():
    size = pa.array([None if row % 50 == 0 else float(row) for row in range(300)])
    table = TABLE.append_column("size", size)
    spec = a_spec(features=("a", "b"), gate=Gate(at_most=10.0, slices=("size",)))
    everyone = Rule("houses", ("id",), 0.2, "id", 1.0)
    *quarters, missing = evaluate(spec, table, everyone, Column("a"), None).slices
    # Of the rows 1 to 299, those at 50, 100, .. 250 miss.
    assert (missing.value, missing.rows) == ("(missing)", 5)
    assert [one.rows for one in quarters] == [74, 73, 73, 74]
    assert quarters[0].value.startswith("1 to ")


def test_a_number_that_most_rows_share_makes_no_slice_without_rows():
    size = pa.array([0.0 if row % 10 else float(row) for row in range(300)])
    spec = a_spec(features=("a", "b"), gate=Gate(at_most=10.0, slices=("size",)))
    everyone = Rule("houses", ("id",), 0.2, "id", 1.0)
    slices = evaluate(spec, TABLE.append_column("size", size), everyone, Column("a"), None).slices
    assert sum(one.rows for one in slices) == 299
    assert all(one.rows > 0 and one.challenger is not None for one in slices)


def test_the_value_to_the_business_is_reported_beside_the_metrics():
    value = BusinessValue(function=lambda y_true, y_pred: np.sum(y_pred - y_true), unit="USD")
    found = evaluate(a_spec(features=("a", "b"), value=value), TABLE, RULE, Column("a"), the_champion())
    y, a, b = rows_of(TABLE, "price", "a", "b")
    assert found.value["unit"] == "USD"
    assert found.value["challenger"] == pytest.approx(np.sum(a - y))
    assert found.value["champion"] == pytest.approx(np.sum(b - y))


def labelled(labels, rows=300):
    truth = RNG.integers(0, len(labels), rows)
    return pa.table(
        {
            "id": range(rows),
            "share": np.clip(truth / (len(labels) - 1) * 0.3 + RNG.uniform(0, 0.7, rows), 0, 1),
            "said": [labels[one] for one in np.where(RNG.random(rows) < 0.8, truth, 0)],
            "price": [labels[one] for one in truth],
        }
    )


@pytest.mark.parametrize("labels", [("no", "yes"), ("zero", "one"), (0, 1), (2, 1)])
@pytest.mark.parametrize("which", [0, 1])
def test_a_classifier_is_judged_by_the_positive_label_whichever_comes_first(labels, which):
    table = labelled(labels)
    spec = a_classifier(features=("share",), task=BinaryClassification(positive=labels[which]))
    # A fitted classifier keeps its labels sorted; `Share` gives the second of them the share that the column holds.
    first, second = sorted(labels)
    found = evaluate(spec, table, RULE, Share("share", labels=(first, second)), None)
    share, truth = rows_of(table, "share", "price")
    positive = share if labels[which] == second else 1 - share
    assert found.challenger["roc_auc"] == pytest.approx(roc_auc_score(truth == labels[which], positive))
    assert found.challenger["average_precision"] == pytest.approx(
        average_precision_score(truth == labels[which], positive)
    )
    assert found.challenger["brier"] == pytest.approx(np.mean((positive - (truth == labels[which])) ** 2))
    said = np.where(share >= 0.5, second, first)
    hits = np.sum((said == labels[which]) & (truth == labels[which]))
    assert found.challenger["f1"] == pytest.approx(
        2 * hits / (np.sum(said == labels[which]) + np.sum(truth == labels[which]))
    )
    assert found.challenger["accuracy"] == pytest.approx(np.mean(said == truth))


def test_the_baseline_of_a_classifier_gives_every_label_its_share_of_the_training_rows():
    table = labelled(("no", "yes"))
    found = evaluate(a_classifier(features=("share",)), table, RULE, Share("share"), None)
    (truth,), (trained_on,) = rows_of(table, "price"), rows_of(table, "price", mask=~HELD)
    share = np.mean(trained_on == "yes")
    assert found.baseline["brier"] == pytest.approx(np.mean((share - (truth == "yes")) ** 2))
    assert found.baseline["roc_auc"] == 0.5


def test_a_classifier_without_probabilities_has_only_the_metrics_that_need_none():
    table = labelled(("no", "yes"))
    spec = a_classifier(features=("said",), metric="accuracy", gate=Gate(at_least=0.5))
    found = evaluate(spec, table, RULE, Said("said"), None)
    assert set(found.challenger) == {"accuracy", "balanced_accuracy", "f1"}
    with pytest.raises(ValueError, match="the metric needs probabilities, but the estimator has no predict_proba"):
        score(spec.task, "roc_auc", np.array(["yes"]), Answers(np.array(["yes"]), ("no", "yes")))


def test_a_champion_without_the_probabilities_that_the_metric_now_needs_is_incomparable():
    table = labelled(("no", "yes"))
    spec = a_classifier(features=("share", "said"))
    champion = the_champion(table, estimator=Said("said"), required=(), spec=spec)
    found = evaluate(spec, table, RULE, Share("share"), champion)
    assert "the metric needs probabilities, but the estimator has no predict_proba" in found.incomparable


def test_models_that_know_different_labels_are_compared_label_by_label():
    labels = ("a", "b", "c")
    spec = a_classifier(task=MulticlassClassification(), metric="accuracy", gate=Gate(at_least=0.5))
    y = np.array(["a", "c"] * 20, dtype=object)
    # The champion never saw `b`, which the rows do not hold either: it is right everywhere, the challenger half.
    mine = Answers(np.array(["a", "b"] * 20, dtype=object), labels)
    theirs = Answers(y, ("a", "c"))
    found = interval(spec, y, mine, theirs)
    assert found.difference == pytest.approx(0.5 - 1.0)
    assert interval(spec, y, theirs, mine).difference == pytest.approx(1.0 - 0.5)


@pytest.mark.filterwarnings("ignore:A single label", "ignore:y_pred contains")
def test_a_metric_that_is_undefined_is_null_and_has_no_interval():
    table = labelled(("no", "yes"))
    table = table.set_column(3, "price", pa.array(np.where(HELD, "yes", table["price"].to_pylist()).tolist()))
    found = evaluate(a_classifier(features=("share",)), table, RULE, Share("share"), None)
    assert found.challenger["roc_auc"] is None
    assert found.against_baseline is None
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_champion_of_before_the_time_column_has_seen_rows_of_the_newest_window():
    found = evaluate(SPEC, TABLE, Rule("houses", ("id",), 0.2, "id", 200.0), Column("a"), the_champion())
    assert found.incomparable == "release 3 was trained on rows of the newest window, which is held out now"


def test_a_handful_of_rows_that_neither_has_seen_is_no_comparison():
    found = evaluate(SPEC, TABLE, RULE, Column("a"), the_champion(rule=replace(RULE, share=0.02)))
    assert found.champion is None
    assert "rows are held out both now and when release 3 was trained" in found.incomparable


def test_a_champion_whose_process_was_ended_by_something_else_is_no_verdict():
    def ask(_):
        raise ServerError("the process was ended by signal 9")

    with pytest.raises(ServerError, match="signal 9"):
        evaluate(SPEC, TABLE, RULE, Column("a"), Champion(3, ask, (), RULE))


def test_the_values_of_a_sensitive_column_are_numbered():
    rng = np.random.default_rng(0)
    table = TABLE.set_column(3, "town", pa.array(rng.choice(["Ames", "Rome"], len(TABLE))))
    spec = a_spec(features=("a", "b"), gate=Gate(at_most=10.0, slices=("town",)), sensitive=("town",))
    assert [one.value for one in evaluate(spec, table, RULE, Column("a"), None).slices] == ["value 1", "value 2"]
