import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from tiny import a_snapshot, a_spec, a_table

from pipeline.evaluate import Evaluation, Interval, Slice, evaluate
from pipeline.gate import decide
from pipeline.spec import Gate
from pipeline.train import train

# An error of 8 against a champion's 9 and a baseline's 20, surely better than both.
GOOD = Evaluation(
    metric="rmse",
    greater_is_better=False,
    rows=100,
    challenger={"rmse": 8.0},
    baseline={"rmse": 20.0},
    against_baseline=Interval(-12.0, -14.0, -10.0),
    champion={"rmse": 9.0},
    champion_release=4,
    against_champion=Interval(-1.0, -1.5, -0.5),
)
# The same where more is better: an R2 of 0.8 against 0.7 and 0.
GOOD_R2 = Evaluation(
    metric="r2",
    greater_is_better=True,
    rows=100,
    challenger={"r2": 0.8},
    baseline={"r2": 0.0},
    against_baseline=Interval(0.8, 0.7, 0.9),
    champion={"r2": 0.7},
    champion_release=4,
    against_champion=Interval(0.1, 0.05, 0.15),
)
FIRST = dataclasses.replace(GOOD, champion=None, champion_release=None, against_champion=None)


def a_slice(low, high, rows=50):
    return Slice("town", "Ames", rows, 9.5, 9.0, Interval((low + high) / 2, low, high, 0.975))


def judged(evaluation=GOOD, at_most=10.0, **changes):
    threshold = {"at_least": 0.75} if evaluation.greater_is_better else {"at_most": at_most}
    gate = {name: changes.pop(name) for name in ("tolerance", "slice_tolerance", "at_least") if name in changes}
    return decide(dataclasses.replace(evaluation, **changes), Gate(**threshold | gate))


def test_a_challenger_that_holds_its_own_passes_and_says_what_it_showed():
    assert judged().passed
    assert judged().reasons == (
        "rmse 8 is at most the threshold 10, on 100 held-out rows",
        "better than always guessing: rmse 8 against 20, difference -12, 95% interval -14 to -10",
        "not worse than the champion, release 4: rmse 8 against 9, difference -1, 95% interval -1.5 to -0.5; "
        "the worse end of the interval is 0.5 better, tolerance 0",
    )


def test_where_more_is_better_the_directions_turn():
    assert judged(GOOD_R2).reasons == (
        "r2 0.8 is at least the threshold 0.75, on 100 held-out rows",
        "better than always guessing: r2 0.8 against 0, difference +0.8, 95% interval +0.7 to +0.9",
        "not worse than the champion, release 4: r2 0.8 against 0.7, difference +0.1, "
        "95% interval +0.05 to +0.15; the worse end of the interval is 0.05 better, tolerance 0",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"challenger": {"rmse": 10.5}}, "rmse 10.5 is not at most the threshold 10, on 100 held-out rows"),
        ({"challenger": {"rmse": None}}, "rmse of the challenger is undefined on 100 held-out rows"),
        (
            {"against_baseline": Interval(-1.0, -3.0, 1.0)},
            "not surely better than always guessing: rmse 8 against 20, difference -1, 95% interval -3 to +1",
        ),
        ({"against_baseline": Interval(-1.0, -3.0, 0.0)}, "not surely better than always guessing"),
        (
            {"against_baseline": None},
            "rmse of challenger and baseline cannot be compared on 100 held-out rows",
        ),
        (
            {"against_champion": Interval(-0.5, -1.5, 0.5)},
            "may be worse than the champion, release 4: rmse 8 against 9, difference -0.5, 95% interval -1.5 to +0.5; "
            "the worse end of the interval is 0.5 worse, tolerance 0",
        ),
        (
            {"champion": None, "against_champion": None, "incomparable": "it requires 'town'"},
            "not compared with the champion, release 4: it requires 'town'",
        ),
        (
            {"against_champion": None},
            "not compared with the champion, release 4: its rmse is undefined on these rows",
        ),
        (
            {"slices": (a_slice(0.1, 0.9),)},
            "worse than the champion, release 4, if town is Ames (50 rows): rmse 9.5 against 9, "
            "97.5% interval +0.1 to +0.9, slice tolerance 0",
        ),
    ],
)
def test_each_condition_that_does_not_hold_refuses_with_its_numbers(changes, sentence):
    verdict = judged(**changes)
    assert not verdict.passed
    [reason] = verdict.reasons
    assert reason.startswith(sentence)


@pytest.mark.parametrize(
    "changes",
    [
        {"challenger": {"r2": 0.7}},
        {"against_baseline": Interval(0.1, -0.1, 0.3)},
        {"against_champion": Interval(0.0, -0.1, 0.1)},
        {"slices": (a_slice(-0.9, -0.1),)},
    ],
)
def test_each_condition_refuses_where_more_is_better_too(changes):
    assert len(judged(GOOD_R2, **changes).reasons) == 1
    assert not judged(GOOD_R2, **changes).passed


@pytest.mark.parametrize(
    ("evaluation", "interval", "passed"),
    [
        (GOOD, Interval(0.0, -0.5, 0.25), True),
        (GOOD, Interval(0.0, -0.5, 0.2501), False),
        (GOOD_R2, Interval(0.0, -0.25, 0.5), True),
        (GOOD_R2, Interval(0.0, -0.2501, 0.5), False),
    ],
)
def test_the_worse_end_may_be_worse_by_the_tolerance_and_no_more(evaluation, interval, passed):
    assert judged(evaluation, tolerance=0.25, against_champion=interval).passed == passed


def test_the_threshold_itself_is_good_enough():
    assert judged(at_most=8.0).passed
    assert judged(GOOD_R2, challenger={"r2": 0.75}).passed


def test_a_slice_refuses_only_beyond_doubt_and_beyond_its_tolerance():
    assert judged(slices=(a_slice(-0.1, 0.9),)).passed
    assert judged(slices=(a_slice(0.1, 0.9),), slice_tolerance=0.1).passed
    assert not judged(slices=(a_slice(0.1001, 0.9),), slice_tolerance=0.1).passed
    small = Slice("town", "Ames", 5, 99.0, 1.0, None)
    assert judged(slices=(small,)).passed


def test_the_first_model_is_judged_too():
    assert judged(FIRST).passed
    assert len(judged(FIRST).reasons) == 2
    assert not judged(FIRST, at_most=7.0).passed
    assert not judged(FIRST, against_baseline=Interval(-1.0, -3.0, 1.0)).passed


def test_a_verdict_lists_refusals_first_and_gives_only_them_as_reasons():
    verdict = judged(at_most=7.0)
    assert [check.passed for check in verdict.checks] == [False, True, True]
    assert verdict.to_dict()["reasons"] == ["rmse 8 is not at most the threshold 7, on 100 held-out rows"]


def shuffled(table):
    price = np.random.default_rng(1).permutation(table["price"].to_numpy())
    return table.set_column(table.column_names.index("price"), "price", [price])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_model_trained_on_shuffled_labels_is_refused_and_one_on_true_labels_is_not(shuffle, tmp_path):
    table = shuffled(a_table(400)) if shuffle else a_table(400)
    # The threshold alone would let anything pass: it is the baseline that tells.
    spec = a_spec(candidates={"boosting": HistGradientBoostingRegressor(max_iter=20)}, gate=Gate(at_most=1e6))
    trained = train(spec, a_snapshot(table, tmp_path), tmp_path / "trained", workers=1)
    verdict = decide(evaluate(spec, table, trained.rule, trained.estimator(), None), spec.gate)
    assert verdict.passed != shuffle
    if shuffle:
        assert verdict.reasons[0].startswith("not surely better than always guessing: rmse ")
