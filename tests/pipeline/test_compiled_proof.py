"""The proof finds what differs, plans are data, and no pipeline that can be thought of differs in silence."""

import pickle
import warnings
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from feature_engine.datetime import DatetimeFeatures, DatetimeSubtraction
from feature_engine.selection import DropFeatures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from pipeline.compiled import (
    CompiledModel,
    Plan,
    UnanswerableError,
    UncompilableError,
    columns_of,
    compile_pipeline,
    load_plan,
    prove,
    save_plan,
)
from pipeline.compiled.plan import Operation
from pipeline.compiled.proof import EXTREMES, MOMENTS, WORDS, compare
from pipeline.predict import predict
from pipeline.schema import Feature, to_frame, to_table

FEATURES = (
    Feature("area", "number", True),
    Feature("rooms", "number", False),
    Feature("new", "boolean", False),
    Feature("kind", "text", False),
)


def sales(rows=120):
    """Sales with a price that depends on all features, some of which are missing."""
    rng = np.random.default_rng(0)
    area, rooms, kind = rng.uniform(20, 100, rows), rng.integers(1, 6, rows), rng.choice(["flat", "house", "hut"], rows)
    table = {
        "area": area,
        "rooms": [None if place % 7 == 0 else float(value) for place, value in enumerate(rooms)],
        "new": [None if place % 11 == 0 else bool(place % 2) for place in range(rows)],
        "kind": [None if place % 13 == 0 else str(value) for place, value in enumerate(kind)],
    }
    return pa.table(table), 3 * area + 10 * rooms + 5 * (kind == "house") + rng.normal(0, 5, rows)


def fitted(final, **options):
    """A pipeline with imputers, scaler and encoder, fitted on sales."""
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", **options)
    table, price = sales()
    steps = make_pipeline(make_column_transformer((numbers, ["area", "rooms", "new"]), (texts, ["kind"])), final)
    y = price if not hasattr(final, "predict_proba") else np.array(["low", "high"], dtype=object)[(price > 200) * 1]
    return steps.fit(to_frame(table, FEATURES), y)


def test_a_program_answers_as_its_estimator_on_thousands_of_hostile_rows():
    for final in (Ridge(), LogisticRegression(), GradientBoostingRegressor(n_estimators=20)):
        estimator = fitted(final)
        proof = prove(estimator, CompiledModel(compile_pipeline(estimator, FEATURES)), sales()[0], FEATURES, 80.0)
        assert proof.passed, proof.problems
        assert proof.rows > 2000
        assert proof.wrong == 0


def changed(plan, kind, parameter, change):
    """The plan with one parameter of its first operation of a kind changed."""
    place = next(i for i, one in enumerate(plan.operations) if one.kind == kind)
    one = plan.operations[place]
    new = Operation(one.kind, one.inputs, {**one.parameters, parameter: change(one.parameters[parameter])})
    return replace(plan, operations=(*plan.operations[:place], new, *plan.operations[place + 1 :]))


def test_the_proof_finds_a_constant_that_is_off_by_a_billionth():
    estimator = fitted(Ridge())
    plan = compile_pipeline(estimator, FEATURES)
    wrong = changed(plan, "fill", "values", lambda values: values + 1e-9)
    proof = prove(estimator, CompiledModel(wrong), sales()[0], FEATURES, 80.0)
    assert not proof.passed
    assert "where the trained pipeline says" in proof.problems[0]


def test_the_proof_finds_what_is_wrong_with_unseen_categories_only():
    estimator = fitted(Ridge())
    wrong = changed(compile_pipeline(estimator, FEATURES), "lookup_sum", "rest", lambda _: [9.0])
    proof = prove(estimator, CompiledModel(wrong), sales()[0], FEATURES, 80.0)
    assert not proof.passed
    assert proof.problems[0].startswith("kind is ")


def test_the_proof_finds_a_program_that_answers_where_the_estimator_refuses():
    estimator = make_pipeline(make_column_transformer((OneHotEncoder(), ["kind"])), Ridge())
    table, price = sales()
    estimator.fit(to_frame(table, FEATURES), price)
    plan = compile_pipeline(estimator, FEATURES)
    proof = prove(estimator, CompiledModel(plan), table, FEATURES, 80.0)
    assert proof.passed
    assert proof.unanswered > 0
    lenient = CompiledModel(changed(plan, "lookup_sum", "rest", lambda _: [0.0]))
    refused = [("a castle", {"area": 50.0, "kind": "castle"})]
    for rows in (refused, [("a flat", {"area": 50.0, "kind": "flat"}), *refused]):
        proof = compare(estimator, lenient, rows, FEATURES, 80.0)
        assert not proof.passed
        assert proof.problems == ("a castle: the program answers where the trained pipeline refuses (ValueError)",)


def test_a_threshold_that_is_next_to_the_right_one_is_found():
    table, price = sales()
    features = FEATURES[:1]
    estimator = DecisionTreeRegressor(max_depth=3).fit(to_frame(table, features), price)
    shifted = DecisionTreeRegressor(max_depth=3).fit(to_frame(table, features), price)
    thresholds = shifted.tree_.threshold
    thresholds[0] = np.nextafter(np.float32(thresholds[0]), np.float32(np.inf))
    program = CompiledModel(compile_pipeline(shifted, features))
    assert not prove(estimator, program, table, features, 80.0).passed


def test_a_row_that_the_estimator_refuses_is_unanswerable_for_all_rows_asked_with_it():
    estimator = fitted(Ridge())
    program = CompiledModel(compile_pipeline(estimator, FEATURES))
    rows = [{"area": 50.0, "rooms": 2.0, "new": True, "kind": "flat"}, {"area": 1e308, "rooms": -1e308}]
    assert np.isfinite(program(*columns_of(to_table(rows[:1], FEATURES), program.plan)).predictions).all()
    overflowing = changed(program.plan, "shift_scale", "scale", lambda scale: scale * 1e-10)
    with pytest.raises(UnanswerableError):
        CompiledModel(overflowing)(*columns_of(to_table(rows, FEATURES), program.plan))


def test_rows_and_columns_become_the_same_matrix_as_the_frame_that_estimators_are_given():
    plan = Plan(("area", "rooms", "new"), (), ("kind",), (), 0)
    first = {"area": 1, "new": True, "kind": "a"}
    rows = [first, {"area": None, "rooms": -2.5, "new": False, "kind": None, "other": 3}]
    table = to_table(rows, FEATURES)
    frame = to_frame(table, FEATURES)
    columns = {name: [row.get(name) for row in rows] for name in ("area", "rooms", "new", "kind", "other")}
    for held in (columns, table, table.select(["kind", "area", "new", "rooms"])):
        numbers, texts = columns_of(held, plan)
        np.testing.assert_array_equal(numbers, frame[["area", "rooms", "new"]].to_numpy())
        assert [list(column) for column in texts] == [["a", None]]
    numbers, texts = columns_of(table.select(["area"]), plan)
    np.testing.assert_array_equal(numbers, [[1, np.nan, np.nan], [np.nan, np.nan, np.nan]])
    assert [list(column) for column in texts] == [[None, None]]


@pytest.mark.parametrize(
    "final", [Ridge(), LogisticRegression(), HistGradientBoostingRegressor(max_iter=5), RandomForestClassifier(5)]
)
def test_a_plan_survives_being_written_and_read(final, tmp_path):
    estimator = fitted(final, sparse_output=False)
    plan = compile_pipeline(estimator, FEATURES)
    save_plan(plan, tmp_path)
    again = load_plan(tmp_path)
    table = sales()[0]
    wanted, got = (CompiledModel(one)(*columns_of(table, one)) for one in (plan, again))
    assert got.to_dict() == wanted.to_dict()
    assert (again.features, again.labels) == (plan.features, plan.labels)


def test_reading_a_plan_unpickles_nothing(tmp_path, monkeypatch):
    save_plan(compile_pipeline(fitted(Ridge()), FEATURES), tmp_path)

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    load_plan(tmp_path)
    np.savez(tmp_path / "plan.npz", a0=np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_plan(tmp_path)


def test_running_a_plan_imports_neither_pandas_nor_scikit_learn(tmp_path, run_python):
    save_plan(compile_pipeline(fitted(GradientBoostingRegressor(n_estimators=5)), FEATURES), tmp_path)
    code = """
import sys
from pathlib import Path
from pipeline.compiled import CompiledModel, columns_of, load_plan
plan = load_plan(Path(sys.argv[1]))
CompiledModel(plan)(*columns_of({"area": [50.0], "rooms": [None], "new": [None], "kind": ["flat"]}, plan))
print([name for name in ("pandas", "sklearn", "feature_engine", "scipy", "pyarrow") if name in sys.modules])
"""
    assert run_python(code, tmp_path) == "[]"


# The hunt: tables and pipelines made up at random.

NAMES = ("n0", "n1", "n2", "s0", "s1", "t0", "t1")
TYPES = {"n": "number", "s": "text", "t": "timestamp"}
COLUMNS = tuple(Feature(name, TYPES[name[0]], False) for name in NAMES)
hurtful = st.sampled_from([*EXTREMES, 3.0, 5.0, None]) | st.floats(allow_nan=False, allow_infinity=False)
words = st.sampled_from([*WORDS, "a", "b", "c", None])
# Near enough to 1970, and to each other, to be answered by the program.
FIRST, LAST = datetime(1850, 1, 1), datetime(2110, 1, 1)
moments = st.sampled_from([*(one for one in MOMENTS if FIRST < one < LAST), None]) | st.datetimes(FIRST, LAST)
VALUES = {"n": hurtful, "s": words, "t": moments}
rows_of = st.lists(st.fixed_dictionaries({name: VALUES[name[0]] for name in NAMES}), max_size=8)


def table_of(seed, nulls, rows):
    """A table of small numbers, few words and timestamps around 1970, some of which are null."""
    rng = np.random.default_rng(seed)
    numbers = {"n0": rng.integers(0, 6, rows), "n1": rng.normal(size=rows), "n2": np.exp(3 * rng.normal(size=rows))}
    words = {name: rng.choice(["a", "b", "c", "d", "rare"], rows, p=[0.4, 0.3, 0.1, 0.1, 0.1]) for name in ("s0", "s1")}
    times = {name: rng.integers(-(10**15), 10**15, rows).astype("datetime64[us]") for name in ("t0", "t1")}
    columns = {name: values.tolist() for name, values in (numbers | words | times).items()}
    return [
        {name: None if rng.random() < nulls else values[row] for name, values in columns.items()} for row in range(rows)
    ]


IMPUTERS = [
    SimpleImputer(),
    SimpleImputer(strategy="median", add_indicator=True),
    SimpleImputer(strategy="most_frequent"),
    SimpleImputer(strategy="constant", fill_value=-1.0),
    make_union(SimpleImputer(), MissingIndicator(features="all")),
]
SCALERS = [
    StandardScaler(),
    MinMaxScaler(clip=True),
    MinMaxScaler(),
    MaxAbsScaler(),
    RobustScaler(),
    PowerTransformer(),
    PowerTransformer(standardize=False),
    QuantileTransformer(n_quantiles=10),
    QuantileTransformer(n_quantiles=10, output_distribution="normal"),
    KBinsDiscretizer(3, strategy="uniform"),
    KBinsDiscretizer(2, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    Binarizer(),
    Normalizer(),
    FunctionTransformer(np.cbrt),
    FunctionTransformer(np.square),
    FunctionTransformer(np.exp),
    PolynomialFeatures(2, interaction_only=True),
    PolynomialFeatures(3, include_bias=False),
    VarianceThreshold(),
    SelectKBest(k=1),
]
ENCODERS = [
    OneHotEncoder(),
    OneHotEncoder(handle_unknown="ignore"),
    OneHotEncoder(handle_unknown="ignore", drop="first", sparse_output=False),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3),
    OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2, drop="if_binary"),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99, min_frequency=2),
    OrdinalEncoder(),
    TargetEncoder(cv=2),
]
DATES = [
    make_pipeline(DatetimeFeatures(["t0"], ["year"], missing_values="ignore"), DropFeatures(["t1"])),
    DatetimeFeatures(features_to_extract=["day_of_week"]),
    DatetimeFeatures(features_to_extract=["semester", "weekend"], missing_values="ignore"),
    make_pipeline(DatetimeFeatures(["t1"], ["week", "month_end"], False, "ignore"), DropFeatures(["t0", "t1"])),
    DatetimeSubtraction(["t0"], ["t1"], output_unit="h", drop_original=True, missing_values="raise"),
    make_pipeline(DatetimeSubtraction(["t0", "t1"], ["t1"]), DropFeatures(["t0", "t1"])),
]
AFTER_DATES = [
    FunctionTransformer(),
    make_pipeline(SimpleImputer(), StandardScaler()),
    make_pipeline(KBinsDiscretizer(3, encode="ordinal"), TargetEncoder(cv=2)),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
]
REGRESSORS = [
    Ridge(),
    Lasso(0.01),
    TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
    DecisionTreeRegressor(random_state=0),
    RandomForestRegressor(3, random_state=0),
    GradientBoostingRegressor(n_estimators=4, random_state=0),
    HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2),
]
CLASSIFIERS = [
    LogisticRegression(),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(3, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2),
]


@st.composite
def pipelines(draw):
    """Any of the imputers, scalers and encoders, on any of the columns, before any estimator."""
    imputers = st.lists(st.sampled_from(IMPUTERS), min_size=draw(st.integers(0, 1)), max_size=1)
    scalers = st.lists(st.sampled_from(SCALERS), max_size=2)
    encoder = st.sampled_from(ENCODERS)
    filled = st.sampled_from([[], [SimpleImputer(strategy="most_frequent")]])
    parts = [
        (make_pipeline(*draw(imputers), *draw(scalers)), draw(st.sampled_from([["n1"], ["n2", "n1"]]))),
        (make_pipeline(*draw(filled), draw(encoder)), draw(st.sampled_from([["s0"], ["s1", "s0"]]))),
        (draw(encoder | st.sampled_from([*IMPUTERS, *SCALERS, "passthrough", "drop"])), ["n0"]),
        (make_pipeline(draw(st.sampled_from(DATES)), draw(st.sampled_from(AFTER_DATES))), ["t0", "t1"]),
    ]
    chosen = draw(st.lists(st.sampled_from(range(4)), min_size=1, unique=True))
    columns = make_column_transformer(
        *(parts[place] for place in chosen),
        sparse_threshold=draw(st.sampled_from([0, 0.3, 1])),
        verbose_feature_names_out=draw(st.booleans()),
    )
    pandas = draw(st.booleans())
    after = draw(st.lists(st.sampled_from([*IMPUTERS, *SCALERS]), max_size=1))
    pipeline = clone(make_pipeline(columns, *after, draw(st.sampled_from(REGRESSORS + CLASSIFIERS))))
    if pandas:
        dense = {name: False for name in pipeline.get_params() if name.endswith("sparse_output")}
        pipeline.set_params(**dense)[:-1].set_output(transform="pandas")
    return pipeline


@given(pipelines(), st.integers(0, 10_000), st.sampled_from([0.0, 0.2]), st.integers(8, 25), rows_of)
@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_pipeline_differs_in_silence(pipeline, seed, nulls, size, rows):
    training = table_of(seed, nulls, size)
    labels = ["no", "yes"] if seed % 2 else ["p", "q", "r"]
    classifier = hasattr(pipeline[-1], "predict_proba")
    y = [labels[place % len(labels)] if classifier else 1.0 + (place * 7) % 11 for place in range(size)]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        frame = to_frame(to_table(training, COLUMNS), COLUMNS)
        try:
            predict(pipeline.fit(frame, np.array(y, dtype=object if classifier else float)), frame)
        except (ValueError, TypeError):
            return
        try:
            program = CompiledModel(compile_pipeline(pipeline, COLUMNS))
        except UncompilableError:
            return
        held = [*training, *rows, *table_of(seed + 1, 0.3, 5)]
        proof = compare(pipeline, program, [(repr(row), row) for row in held], COLUMNS, 3.0)
        assert proof.passed, proof.problems
        assert not proof.unanswered or all(_refused(pipeline, program, row) for row in held)


def _refused(pipeline, program, row):
    """Whether a row, where the program cannot answer it, is one that the pipeline has no finite answer to."""
    try:
        program(*columns_of(to_table([row], COLUMNS), program.plan))
    except UnanswerableError:
        try:
            answers = predict(pipeline, to_frame(to_table([row], COLUMNS), COLUMNS))
        except ValueError:
            return True
        return not np.isfinite(answers.predictions if answers.probabilities is None else answers.probabilities).all()
    return True
