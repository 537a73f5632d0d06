import json
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny import a_classifier, a_spec

from pipeline.errors import DataError
from pipeline.schema import Feature, Schema, check_columns, describe, feature_names, to_frame, to_table
from pipeline.spec import Gate, MulticlassClassification

TABLE = pa.table(
    {
        "id": [1, 2, 3],
        "area": [50, None, 70],
        "rent": [1.5, 2.5, None],
        "street": ["Pave", None, "Grvl"],
        "garden": [True, None, False],
        "sold": pa.array([datetime(2024, 1, 1, 10), None, datetime(2024, 3, 1)], pa.timestamp("us")),
        "price": [100, 200, 300],
    }
)
FEATURES = describe(a_spec(), TABLE).features


def test_a_frame_has_one_type_a_feature_whatever_it_holds():
    frame = to_frame(TABLE, FEATURES)
    expected = {"area": "float64", "rent": "float64", "street": "str", "garden": "float64", "sold": "datetime64[us]"}
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == expected
    assert frame["area"].tolist()[::2] == [50.0, 70.0]
    assert frame["garden"].tolist()[::2] == [1.0, 0.0]
    assert frame["street"].tolist()[::2] == ["Pave", "Grvl"]
    assert frame["sold"].tolist()[::2] == [pd.Timestamp("2024-01-01 10:00"), pd.Timestamp("2024-03-01")]


def test_what_is_missing_is_nan_or_nat_and_never_none():
    row = to_frame(TABLE, FEATURES).iloc[1]
    assert all(isinstance(row[name], float) and np.isnan(row[name]) for name in ("area", "street", "garden"))
    assert row["sold"] is pd.NaT


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_row_alone_is_what_it_is_in_a_batch(row):
    frame = to_frame(TABLE, FEATURES)
    alone = to_frame(TABLE.slice(row, 1), FEATURES)
    pd.testing.assert_frame_equal(alone, frame.iloc[[row]].reset_index(drop=True), check_exact=True)
    sent = {name: values[0] for name, values in TABLE.slice(row, 1).to_pydict().items()}
    pd.testing.assert_frame_equal(to_frame(to_table([sent], FEATURES), FEATURES), alone, check_exact=True)


def test_a_column_that_is_not_sent_is_all_missing():
    frame = to_frame(to_table([{"area": 1.0}, {}], FEATURES), FEATURES)
    assert frame["area"].tolist()[0] == 1.0
    assert frame.drop(columns="area").isna().all(axis=None)
    assert frame.dtypes.equals(to_frame(TABLE, FEATURES).dtypes)
    assert to_frame(TABLE.select(["street"]), FEATURES).drop(columns="street").isna().all(axis=None)


def test_the_order_of_columns_is_the_models():
    assert [*to_frame(TABLE.select(TABLE.column_names[::-1]), FEATURES)] == [one.name for one in FEATURES]


def test_features_are_those_named_or_all_columns_that_have_no_other_part():
    assert feature_names(a_spec(), TABLE.column_names) == ("area", "rent", "street", "garden", "sold")
    assert feature_names(a_spec(time="sold"), TABLE.column_names) == ("area", "rent", "street", "garden")
    assert feature_names(a_spec(group="street"), TABLE.column_names) == ("area", "rent", "garden", "sold")
    assert feature_names(a_spec(features=("rent", "area")), TABLE.column_names) == ("rent", "area")


WHOLE = pa.table({"id": [1, 2], "a": [1, 2], "b": [1, None], "price": [1, 2]})


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ({}, {"a": True, "b": False}),
        ({"nullable": ("a",)}, {"a": False, "b": False}),
        ({"required": ("b",)}, {"a": False, "b": True}),
        ({"required": ()}, {"a": False, "b": False}),
    ],
)
def test_a_feature_is_required_when_it_was_never_null_unless_the_spec_says_otherwise(changes, required):
    assert {one.name: one.required for one in describe(a_spec(**changes), WHOLE).features} == required


def test_the_categories_of_a_text_are_listed_unless_there_are_too_many():
    assert {one.name: one.categories for one in FEATURES if one.categories} == {"street": ("Grvl", "Pave")}
    names = pa.table({"id": range(201), "name": [f"n{row}" for row in range(201)], "price": range(201)})
    [name] = describe(a_spec(), names).features
    assert name == Feature("name", "text", True, None)


def test_a_schema_is_read_back_as_it_was_written():
    schema = describe(a_spec(features=("area", "street")), TABLE)
    assert schema.key == ("id",)
    assert schema.ignored == ("rent", "garden", "sold", "price")
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.to_dict()["features"][0] == {"name": "area", "type": "number", "required": False}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"target": "Price"},
            "column 'Price' is the target of houses but the data has no such .*mean 'price'",
        ),
        (
            {"key": ("ids",)},
            "column 'ids' is a key column of houses but the data has no such .*mean 'id'",
        ),
        ({"features": ("aria",)}, "column 'aria' is a feature of houses but .* did you mean 'area'"),
        ({"time": "day"}, "column 'day' is the time column of houses but the data has no such column"),
        ({"group": "town"}, "column 'town' is the group column of houses but the data has no such column"),
        ({"gate": Gate(at_most=1.0, slices=("town",))}, "column 'town' is a slice of houses but the data has no such"),
        ({"target": "rent"}, "column 'rent', the target of houses, is null in 1 rows, the first is row 3"),
        (
            {"key": ("street",)},
            "column 'street', the key column of houses, is null in 1 rows, the first is row 2; fill",
        ),
        ({"time": "sold"}, "column 'sold', the time column of houses, is null in 1 rows, the first is row 2; fill"),
    ],
)
def test_data_without_what_the_spec_needs_is_refused_naming_the_column(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        check_columns(a_spec(**changes), TABLE)


def test_an_infinity_is_refused_since_no_request_may_hold_one():
    table = pa.table({"id": [1, 2, 3], "area": [1.5, None, float("-inf")], "price": [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match="column 'area' holds an infinity in row 3"):
        check_columns(a_spec(features=("area",)), table)


def labels(*values):
    return pa.table({"id": range(len(values)), "area": range(len(values)), "price": [*values]})


@pytest.mark.parametrize(
    ("spec", "table", "sentence"),
    [
        (a_spec(), labels("x", "y"), "is regression, but its target 'price' holds text such as 'x', 'y'"),
        (a_classifier(), labels("yes", "yes"), "'price' should hold 'yes' and one other label, but holds 1: 'yes'"),
        (
            a_classifier(),
            labels("Yes", "No"),
            "'price' should hold 'yes' and one other label, but holds 2: 'Yes'",
        ),
        (a_classifier(), labels("yes", "no", "maybe"), "one other label, but holds 3: 'yes', 'no', 'maybe'"),
        (
            a_classifier(task=MulticlassClassification(), metric="accuracy"),
            labels("yes", "no"),
            "'price' should hold three labels or more, but holds 2",
        ),
    ],
)
def test_a_target_that_does_not_suit_the_task_is_refused(spec, table, sentence):
    with pytest.raises(DataError, match=sentence):
        check_columns(spec, table)


def test_data_that_has_all_that_the_spec_needs_is_not_refused():
    check_columns(a_spec(), TABLE)
    check_columns(a_classifier(), labels("yes", "no"))
    check_columns(a_classifier(task=MulticlassClassification(), metric="accuracy"), labels(1, 2, 3))
