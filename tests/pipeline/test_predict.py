import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC

from pipeline import predict as predict_module
from pipeline.predict import Answers, disagreements, in_parts, predict, predict_rows, target
from pipeline.schema import Feature

X = np.array([[0.0], [1.0], [2.0], [3.0]])
WORDS = np.array(["no", "no", "yes", "yes"], dtype=object)


def test_a_regressor_answers_numbers():
    answers = predict(Ridge(alpha=0).fit(X, [1, 3, 5, 7]), X)
    assert answers.predictions == pytest.approx([1.0, 3.0, 5.0, 7.0])
    assert (answers.labels, answers.probabilities) == ((), None)


def test_a_regressor_that_answers_in_one_column_answers_numbers():
    assert predict(Ridge(alpha=0).fit(X, [[1], [3], [5], [7]]), X).predictions.shape == (4,)


def test_a_classifier_answers_labels_and_where_it_can_probabilities():
    answers = predict(LogisticRegression().fit(X, WORDS), X)
    assert answers.predictions.tolist() == WORDS.tolist()
    assert answers.labels == ("no", "yes")
    assert answers.probabilities.sum(axis=1) == pytest.approx([1.0] * 4)
    assert predict(SVC().fit(X, WORDS), X).probabilities is None


@pytest.mark.parametrize("rows", [1, 6, 7, 20])
def test_rows_of_a_table_are_answered_in_order_however_many_make_a_frame(rows, monkeypatch):
    monkeypatch.setattr(predict_module, "FRAME_ROWS", 3)
    features = [Feature("a", "number", required=True)]
    model = LogisticRegression().fit(pd.DataFrame({"a": X[:, 0]}), WORDS)
    values = np.linspace(0, 2.9, rows)
    found = predict_rows(model, pa.table({"a": values}), features)
    assert found.predictions.tolist() == ["yes" if value > 1.5 else "no" for value in values]
    assert found.probabilities.shape == (rows, 2)
    assert found.labels == ("no", "yes")


@pytest.mark.parametrize("rows", [0, 3, 7])
def test_rows_are_asked_for_some_at_a_time_and_answered_in_their_order(rows, monkeypatch):
    monkeypatch.setattr(predict_module, "FRAME_ROWS", 3)
    asked = []

    def ask(part):
        asked.append(part.num_rows)
        return Answers(part["a"].to_numpy() * 10)

    values = np.arange(float(rows))
    assert in_parts(ask, pa.table({"a": values})).predictions.tolist() == (values * 10).tolist()
    assert asked == {0: [0], 3: [3], 7: [3, 3, 1]}[rows]


@pytest.mark.parametrize(
    "answers",
    [
        Answers(np.array([0.1, 1 / 3, 1e300])),
        Answers(np.array(["no", "yes"], dtype=object), ("no", "yes"), np.array([[1 / 3, 2 / 3], [0.1, 0.9]])),
        Answers(np.array([0, 1]), (0, 1)),
    ],
)
def test_answers_come_back_from_json_to_the_last_bit(answers):
    again = Answers.from_dict(json.loads(json.dumps(answers.to_dict())))
    assert again.predictions.tolist() == answers.predictions.tolist()
    assert again.labels == answers.labels
    assert disagreements(again, answers, scale=0.0) == []


def test_the_target_is_numbers_to_regress_on_and_else_the_labels_as_they_are():
    assert target("regression", pa.chunked_array([[1, 2]])).dtype == np.float64
    assert target("binary", pa.chunked_array([["no", "yes"]])).tolist() == ["no", "yes"]
    assert target("multiclass", pa.chunked_array([[1, 2, 3]])).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("got", "scale", "agrees"),
    [
        (100.0, 0.0, True),
        (100.0 + 0.9e-10, 0.0, True),
        (100.0 + 1.2e-10, 0.0, False),
        (100.0 + 0.9e-6, 1e6, True),
        (100.0 + 1.1e-6, 1e6, False),
        (np.nan, 1e6, False),
        (np.inf, 1e6, False),
    ],
)
def test_numbers_agree_within_1e_12_of_themselves_or_of_the_scale(got, scale, agrees):
    problems = disagreements(Answers(np.array([got])), Answers(np.array([100.0])), scale)
    assert (problems == []) == agrees


def labelled(label, share):
    return Answers(np.array([label], dtype=object), ("no", "yes"), np.array([[1 - share, share]]))


@pytest.mark.parametrize(
    ("got", "expected", "problem"),
    [
        (labelled("yes", 0.7), labelled("yes", 0.7), None),
        (labelled("no", 0.7), labelled("yes", 0.7), "row 0: label 'no' where the trained pipeline says 'yes'"),
        (labelled("no", 0.5), labelled("yes", 0.5), None),
        (labelled("yes", 0.71), labelled("yes", 0.7), "row 0: probabilities"),
        (Answers(np.array(["yes"], dtype=object), ("no", "yes")), labelled("yes", 0.7), "row 0: probabilities None"),
        (Answers(np.array([]), ("no", "yes")), labelled("yes", 0.7), "0 answers to 1 rows"),
    ],
)
def test_labels_agree_when_they_are_equal_or_tie_and_their_probabilities_agree(got, expected, problem):
    problems = disagreements(got, expected, 1.0)
    assert len(problems) == (problem is not None)
    assert all(one.startswith(problem) for one in problems)
