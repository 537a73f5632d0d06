import datetime

import numpy as np
import pyarrow as pa
import pytest
from tiny import Column, a_table

from pipeline.partial_dependence import MAX_VALUES, dependence
from pipeline.predict import Answers, predict
from pipeline.schema import Feature, to_frame

AREA, ROOMS = Feature("area", "number", True), Feature("rooms", "number", True)


def mean(answers):
    return float(answers.predictions.mean())


def asking(estimator, features):
    return lambda rows: predict(estimator, to_frame(rows, features))


def test_what_answers_a_column_rises_with_that_column_and_stays_with_another():
    area, rooms = dependence(a_table(), [AREA, ROOMS], asking(Column("area", 1.0), [AREA, ROOMS]), mean)
    assert area["answers"] == pytest.approx([value + 1 for value in area["values"]])
    assert len(area["values"]) == MAX_VALUES
    assert area["values"] == sorted(area["values"])
    assert rooms["values"] == [1, 2, 3, 4, 5]
    assert np.ptp(rooms["answers"]) == 0


def test_texts_are_the_most_frequent_ones_and_what_is_missing_comes_last():
    rows = pa.table({"town": ["Rome", "Ames", "Ames", None, "Oslo", "Oslo", "Oslo"]})
    lengths = {"Rome": 1.0, "Ames": 2.0, "Oslo": 3.0, None: 4.0}

    def ask(asked):
        return Answers(np.array([lengths[value] for value in asked.column("town").to_pylist()]))

    (town,) = dependence(rows, [Feature("town", "text", False)], ask, mean)
    assert (town["values"], town["answers"]) == (["Oslo", "Ames", "Rome", None], [3.0, 2.0, 1.0, 4.0])


def test_times_are_asked_as_times():
    days = [datetime.datetime(2024, 1, day) for day in (3, 1, 2)]
    rows = pa.table({"sold": pa.array(days, pa.timestamp("ns"))})

    def ask(asked):
        return Answers(np.array([value.day for value in asked.column("sold").cast("timestamp[us]").to_pylist()]))

    (sold,) = dependence(rows, [Feature("sold", "timestamp", True)], ask, mean)
    assert (sold["values"], sold["answers"]) == (sorted(days), [1.0, 2.0, 3.0])


def test_a_feature_whose_values_are_refused_or_all_missing_is_left_out():
    rows = pa.table({"area": [1.0, 2.0], "rooms": pa.array([None, None], pa.float64())})

    def ask(asked):
        if len(asked) > 2:
            raise ValueError("no such house")
        return Answers(np.zeros(len(asked)))

    assert dependence(rows, [AREA, ROOMS], ask, mean) == []
