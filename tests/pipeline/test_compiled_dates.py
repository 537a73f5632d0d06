"""Timestamps as features: feature-engine's own output against the plan's, on dates that hurt."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feature_engine.creation import CyclicalFeatures
from feature_engine.datetime import DatetimeFeatures, DatetimeSubtraction
from feature_engine.imputation import MeanMedianImputer
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from test_compiled_transformers import NUMBERS, TRAINING, assert_same, program_of

from pipeline.compiled import (
    CompiledModel,
    UnanswerableError,
    UncompilableError,
    columns_of,
    compile_pipeline,
    date_operations,
    load_plan,
    prove,
    save_plan,
)
from pipeline.compiled.plan import Plan
from pipeline.schema import Feature, to_frame, to_table

SOLD, BUILT = Feature("sold", "timestamp", False), Feature("built", "timestamp", False)
TIMES = (SOLD, BUILT)


def times(*words):
    return pa.array([None if word is None else datetime.fromisoformat(word) for word in words], pa.timestamp("us"))


def dates(sold, built=None):
    return pa.table({"sold": sold, "built": sold[::-1] if built is None else built})


DAYS = dates(times(*(f"20{20 + place}-0{1 + place % 9}-{10 + place}T0{place % 10}:30:59.5" for place in range(12))))
EDGES = dates(
    times(
        *("1970-01-01", "1969-12-31T23:59:59.999999", "1969-12-31T00:00:00", "1970-01-01T00:00:00.000001"),
        *("2000-02-29T12:00:00", "1900-02-28T23:59:59.999999", "1900-03-01", "2100-02-28", "2100-03-01"),
        *("2020-12-31T23:59:59", "2021-01-03", "2021-01-04", "2024-12-29", "2024-12-30", "2024-03-31", "2024-06-30"),
        *("2023-09-30", "2023-10-01", "2023-12-31", "2024-12-31", "1685-06-30T01:02:03.000004", "2255-01-01"),
    )
)
WITH_NULLS = dates(times(None, "2024-05-06", None, "2024-05-06"), times("2024-05-06", None, None, "1999-01-01"))
TOO_FAR = dates(
    times("0001-01-01", "9999-12-31T23:59:59.999999", "2255-06-05T23:47:34.740992", "1684-07-28T00:12:25.259008")
)
PARTS = [
    *("month", "quarter", "semester", "year", "week", "day_of_week", "day_of_month", "day_of_year", "weekend"),
    *("month_start", "month_end", "quarter_start", "quarter_end", "year_start", "year_end", "leap_year"),
    *("days_in_month", "hour", "minute", "second"),
]
LENIENT = [part for part in PARTS if part not in ("week", "days_in_month")]


def test_all_parts_are_those_of_feature_engine_at_the_edges_of_the_calendar():
    assert_same(DatetimeFeatures(features_to_extract="all"), TIMES, training=DAYS, held=(EDGES,))


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_timestamp_is_what_feature_engine_makes_of_it(part):
    transformer = DatetimeFeatures(features_to_extract=[part], missing_values="ignore")
    refused = assert_same(transformer, TIMES, training=DAYS, held=(WITH_NULLS,))
    assert refused == ([[]] if part in LENIENT else [[0, 1, 2]])


def test_a_missing_timestamp_is_refused_where_feature_engine_refuses_it():
    assert assert_same(DatetimeFeatures(), TIMES, training=DAYS, held=(WITH_NULLS,)) == [[0, 1, 2]]
    only = DatetimeFeatures(["sold"], features_to_extract=["year"])
    chosen = make_pipeline(only, make_column_transformer(("passthrough", ["sold_year"])))
    assert assert_same(chosen, TIMES, training=DAYS, held=(WITH_NULLS,)) == [[0, 2]]


def test_all_days_of_two_centuries_and_moments_of_six_are_taken_apart_as_pandas_does():
    days = np.arange("1890-01-01", "2110-01-01", dtype="datetime64[D]").astype("datetime64[us]")
    some = np.random.default_rng(0).integers(1 - 2**53, 2**53, len(days)).astype("datetime64[us]")
    table = pa.table({"sold": pa.array(days), "built": pa.array(some)})
    transformer = DatetimeFeatures(features_to_extract="all").fit(to_frame(DAYS, TIMES))
    wanted = transformer.transform(to_frame(table, TIMES))
    np.testing.assert_array_equal(program_of(transformer, TIMES)(table), wanted.to_numpy(np.float64))


def test_a_timestamp_too_far_away_is_left_to_the_estimator_only_where_it_is_looked_at():
    program = program_of(DatetimeFeatures(["sold"]).fit(to_frame(DAYS.select(["sold"]), (SOLD,))), (SOLD,))
    for row in range(len(TOO_FAR)):
        with pytest.raises(UnanswerableError):
            program(TOO_FAR.slice(row, 1))
    last = to_table([{"sold": datetime(2255, 6, 5, 23, 47, 34, 740991)}], (SOLD,))
    assert program(last).tolist() == [[6, 2255, 1, 5, 23, 47, 34]]
    dropped = make_column_transformer((StandardScaler(), ["a"])).fit(
        to_frame(TRAINING.append_column("sold", DAYS["sold"]), (NUMBERS[0], SOLD))
    )
    table = pa.table({"a": [3.0] * 4, "sold": TOO_FAR["sold"]})
    assert np.isfinite(program_of(dropped, (NUMBERS[0], SOLD))(table)).all()


@pytest.mark.parametrize("options", [{}, {"utc": True}, {"dayfirst": True, "format": "%Y"}])
def test_options_for_texts_change_nothing_of_timestamps(options):
    transformer = DatetimeFeatures(features_to_extract=["hour", "day_of_month"], **options)
    assert_same(transformer, TIMES, training=DAYS, held=(EDGES,))


def test_the_original_stays_where_it_is_not_dropped_and_can_be_taken_apart_again():
    steps = make_pipeline(
        DatetimeFeatures(["sold"], features_to_extract=["year"], drop_original=False),
        DatetimeFeatures(["sold", "built"], features_to_extract=["month", "second"]),
    )
    assert_same(steps, TIMES, training=DAYS, held=(EDGES,))


def test_parts_are_categories_angles_and_numbers_to_the_steps_that_follow():
    steps = make_pipeline(
        DatetimeFeatures(features_to_extract=["month", "day_of_week", "year"], missing_values="ignore"),
        MeanMedianImputer(variables=["sold_month"]),
        CyclicalFeatures(["sold_month"], max_values={"sold_month": 12}),
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["sold_day_of_week", "built_month"]),
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["built_day_of_week"]),
            (StandardScaler(), ["sold_month_sin", "sold_month_cos", "sold_year", "built_year"]),
        ),
    )
    assert_same(steps, TIMES, training=DAYS, held=(EDGES, WITH_NULLS), close=True)


@pytest.mark.parametrize("unit", ["D", "Y", "M", "W", "h", "m", "s", "ms", "us", "ns"])
def test_differences_are_those_of_feature_engine(unit):
    transformer = DatetimeSubtraction(["sold"], ["built"], output_unit=unit, drop_original=True)
    near = dates(EDGES["sold"].combine_chunks()[:-2])
    refused = assert_same(transformer, TIMES, training=DAYS, held=(near, WITH_NULLS))
    assert refused == [[], []]


def test_differences_of_several_stand_in_the_order_of_feature_engine():
    every = DatetimeSubtraction(["sold", "built"], ["built", "sold"], drop_original=True, missing_values="raise")
    assert assert_same(every, TIMES, training=DAYS, held=(DAYS, WITH_NULLS)) == [[], [0, 1, 2]]
    named = DatetimeSubtraction(["sold"], ["built"], new_variables_names=["age"])
    chosen = make_pipeline(named, make_column_transformer((StandardScaler(), ["age"])))
    assert_same(chosen, TIMES, training=DAYS, held=(DAYS, WITH_NULLS))


def test_a_difference_of_more_nanoseconds_than_pandas_counts_is_left_to_the_estimator():
    transformer = DatetimeSubtraction(["sold"], ["built"], drop_original=True).fit(to_frame(DAYS, TIMES))
    centuries = dates(times("1700-01-01"), times("2250-01-01"))
    # What it says is off by 584 years.
    assert transformer.transform(to_frame(centuries, TIMES)).iloc[0, 0] > 0
    with pytest.raises(UnanswerableError):
        program_of(transformer, TIMES)(centuries)


@pytest.mark.parametrize(
    ("transformer", "why"),
    [
        (DatetimeFeatures("index"), "DatetimeFeatures: it takes the index of the frame"),
        (DatetimeFeatures(["word"]), "DatetimeFeatures: it reads texts as timestamps"),
        (DatetimeSubtraction(["sold"], ["sold"], output_unit="ps"), "'ps' is less than a nanosecond"),
    ],
)
def test_what_is_not_compiled_is_named(transformer, why):
    features = (SOLD, Feature("word", "text", False))
    frame = to_frame(pa.table({"sold": DAYS["sold"], "word": ["2024-01-01"] * 12}), features)
    transformer.fit(frame.set_index(pd.DatetimeIndex(frame["sold"])))
    with pytest.raises(UncompilableError, match=why):
        program_of(transformer, features)


def test_datetimes_of_a_request_and_timestamps_of_a_table_become_the_same_microseconds():
    plan = Plan(("a",), ("sold", "built"), (), (), 0)
    rows = [
        {"a": 1.5, "sold": datetime(1969, 12, 31, 23, 59, 59, 999998), "built": None},
        {"a": None, "sold": None, "built": datetime(2024, 2, 29)},
    ]
    day = 19_782 * 86_400 * 1e6
    features = (NUMBERS[0], *TIMES)
    columns = {name: [row[name] for row in rows] for name in ("a", "sold", "built")}
    for held in (columns, to_table(rows, features)):
        numbers, texts = columns_of(held, plan)
        np.testing.assert_array_equal(numbers, [[1.5, -2, np.nan], [np.nan, np.nan, day]])
        assert not texts
    numbers, _ = columns_of(to_table(rows, features).select(["sold"]), plan)
    np.testing.assert_array_equal(numbers, [[np.nan, -2, np.nan], [np.nan, np.nan, np.nan]])
    only, _ = columns_of({"sold": [None]}, Plan((), ("sold",), (), (), 0))
    np.testing.assert_array_equal(only, [[np.nan]])


def sales():
    rng = np.random.default_rng(0)
    sold = [datetime(2015, 1, 1) + timedelta(hours=int(hours)) for hours in rng.integers(0, 90_000, 150)]
    built = [None if place % 9 == 0 else when - timedelta(days=place * 30) for place, when in enumerate(sold)]
    table = pa.table({"sold": pa.array(sold, pa.timestamp("us")), "built": pa.array(built, pa.timestamp("us"))})
    return table, np.array([10.0 * when.month + when.year - 2000 for when in sold])


@pytest.mark.parametrize("final", [HistGradientBoostingRegressor(max_iter=20), make_pipeline(OneHotEncoder(), Ridge())])
def test_a_pipeline_of_dates_is_proven_on_thousands_of_hostile_rows_and_survives_being_written(final, tmp_path):
    table, price = sales()
    features = (Feature("sold", "timestamp", True), BUILT)
    strict = not isinstance(final, HistGradientBoostingRegressor)
    parts = ["month", "weekend"] if strict else LENIENT
    steps = [DatetimeFeatures(features_to_extract=parts, missing_values="ignore"), final]
    if not strict:
        steps.insert(0, DatetimeSubtraction(["sold"], ["built"]))
    estimator = make_pipeline(*steps).fit(to_frame(table, features), price)
    plan = compile_pipeline(estimator, features)
    save_plan(plan, tmp_path)
    again = load_plan(tmp_path)
    assert again.features == ("sold", "built")
    proof = prove(estimator, CompiledModel(again), table, features, 30.0)
    assert proof.passed, proof.problems
    assert proof.rows > 2000
    assert proof.unanswered < 700


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("week", (lambda m: (m.day_of_year - 1) // 7 + 1, None)),
        ("leap_year", (lambda m: m.year % 4 == 0, 0.0)),
        ("weekend", (lambda m: m.day_of_week >= 5, 0.0)),
        ("month_end", (lambda m: m.day_of_month >= 30, 0.0)),
        ("second", (lambda m: np.rint(m.time / 1e6) % 60, np.nan)),
    ],
)
def test_the_proof_finds_a_part_of_the_calendar_that_is_wrong_on_some_days_only(part, wrong, monkeypatch):
    table, price = sales()
    # The week of a missing timestamp is refused, also in training.
    table = table.select(["sold"] if part == "week" else ["built"])
    name, features = table.column_names[0], [one for one in TIMES if one.name in table.column_names]
    extract = DatetimeFeatures(features_to_extract=[part], missing_values="ignore")
    steps = make_pipeline(extract, SimpleImputer(), Ridge())
    varied = 1_000_000_007 * np.arange(len(price))
    table = table.set_column(0, name, pa.array(table[name].to_numpy() + varied))
    plan = compile_pipeline(steps.fit(to_frame(table, features), price), features)
    assert prove(steps, CompiledModel(plan), table, features, 30.0).passed
    monkeypatch.setitem(date_operations.PARTS, part, wrong)
    assert not prove(steps, CompiledModel(plan), table, features, 30.0).passed
