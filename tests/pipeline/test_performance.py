"""Labels joined to what was logged, and metrics of what was served; expected values by hand or computed otherwise."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from tiny import a_classifier, a_spec

from pipeline.errors import DataError
from pipeline.evaluate import score
from pipeline.performance import answers_of, by_day, estimate, expected, join
from pipeline.predict import Answers


def logged(keys, predictions, days=None, **more):
    """Rows of a log, a second apart from the first of March 2026 on."""
    times = [datetime(2026, 3, day, 0, 0, place) for place, day in enumerate(days or [1] * len(keys))]
    columns = {
        "time": pa.array(times, pa.timestamp("us")),
        "prediction": predictions,
        "key.id": pa.array(keys, pa.string()),
    }
    return pa.table({**columns, **more})


def test_labels_are_joined_by_key_whatever_form_it_was_sent_in():
    labels = pa.table({"id": [1, 2, 3, 9], "price": [10.0, 20.0, None, 90.0]})
    found = join(a_spec(), logged(["1", "2.0", "3", "x", None, "0002"], [11.0, 0.0, 33.0, 4.0, 5.0, 22.0]), labels, {})
    # "2.0" and "0002" are one key, whose last answer counts; 3 has no label yet, x is no key of theirs.
    assert dict(zip(found.y_true.tolist(), found.answers.predictions.tolist(), strict=True)) == {10.0: 11.0, 20.0: 22.0}
    assert (found.logged, found.unkeyed) == (3, 2)


def test_text_keys_keep_their_zeros_and_the_last_of_several_labels_counts():
    labels = pa.table({"id": ["007", "007", "7"], "price": [1.0, 2.0, 3.0]})
    found = join(a_spec(), logged(["007"], [5.0]), labels, {})
    assert found.y_true.tolist() == [2.0]


def test_labels_without_the_key_or_the_target_name_what_was_meant():
    with pytest.raises(DataError, match="no column 'price'; they need the key and the target; did you mean 'Price'"):
        join(a_spec(), logged(["1"], [1.0]), pa.table({"id": [1], "Price": [1.0]}), {})


def test_no_label_yet_is_no_row_and_no_metric():
    found = join(a_spec(), logged(["1"], [1.0]), pa.table({"id": [5], "price": [1.0]}), {})
    assert (len(found.y_true), found.logged) == (0, 1)
    assert estimate(a_spec(), found.y_true, found.answers).value is None


def test_the_metric_and_its_interval_are_those_of_an_independent_bootstrap():
    rng = np.random.default_rng(7)
    y, said = rng.normal(0, 10, 400), rng.normal(0, 10, 400)
    found = estimate(a_spec(), y, Answers(said))
    squared = (y - said) ** 2
    other = np.random.default_rng(8)
    means = np.sqrt([squared[other.integers(0, 400, 400)].mean() for _ in range(4000)])
    assert found.value == pytest.approx(np.sqrt(squared.mean()))
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=0.02)


def test_the_metric_of_a_day_needs_rows_enough():
    labels = pa.table({"id": [*range(5)], "price": [float(number) for number in range(5)]})
    rows = logged([str(number) for number in range(5)], [0.0, 1.0, 2.0, 4.0, 0.0], days=[1, 1, 1, 2, 2])
    found = by_day(a_spec(), join(a_spec(), rows, labels, {}), 3)
    assert [(np.datetime64(day, "D").item().day, one.rows, one.value) for day, one in found] == [(1, 3, 0.0)]


def test_labels_that_are_no_texts_are_read_back_from_their_words():
    rows = logged(["1", "2"], ["true", "false"], **{"probability.false": [0.1, 0.8], "probability.true": [0.9, 0.2]})
    found = answers_of(rows, {"false": False, "true": True})
    assert (found.predictions.tolist(), found.labels) == ([True, False], (False, True))
    assert found.probabilities.tolist() == [[0.1, 0.9], [0.8, 0.2]]


def _drawn(rng, rows, low, high, honest=lambda p: p):
    """Labels that are yes with a probability, and answers that say it, or something else of the same order."""
    p = rng.uniform(low, high, rows)
    y = np.where(rng.random(rows) < p, "yes", "no").astype(object)
    said = honest(p)
    labels = np.where(said >= 0.5, "yes", "no").astype(object)
    return y, Answers(labels, ("no", "yes"), np.column_stack([1 - said, said]))


@pytest.mark.parametrize("honest", [lambda p: p, lambda p: p**3], ids=["calibrated", "far too low"])
@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_the_expected_metric_is_that_of_the_labels_that_come_later(metric, honest):
    """Where features moved: the rows are far harder than those that were held out."""
    rng = np.random.default_rng(3)
    spec = a_classifier(metric=metric)
    y_held, held = _drawn(rng, 5000, 0.0, 1.0, honest)
    y, answers = _drawn(rng, 5000, 0.35, 0.65, honest)
    found = expected(spec, answers, y_held, held)
    truth = score(spec.task, metric, y, answers)
    assert abs(found.value - truth) < 0.03
    # It is far from what the held-out rows say.
    assert abs(found.value - score(spec.task, metric, y_held, held)) > 0.1 or metric == "accuracy"


def test_nothing_is_expected_where_it_cannot_be_told():
    assert expected(a_spec(), Answers(np.ones(3)), np.ones(3), Answers(np.ones(3))) is None
    y, answers = _drawn(np.random.default_rng(0), 50, 0.0, 1.0)
    assert expected(a_classifier(), answers, np.full(50, "yes", dtype=object), answers) is None
    assert expected(a_classifier(), Answers(answers.predictions, answers.labels), y, answers) is None
