import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tiny import a_classifier, a_spec

from pipeline.compiled import CompiledModel, columns_of, compile_pipeline
from pipeline.importance import MAX_ASKED, importance
from pipeline.metrics import METRICS
from pipeline.predict import Answers, predict, target
from pipeline.schema import describe, to_frame
from pipeline.spec import Gate, MulticlassClassification

RNG = np.random.default_rng(0)
ROWS = 400
AREA, NOISE, SMALL = RNG.normal(size=(3, ROWS))
KIND = RNG.choice(["flat", "house"], ROWS)
HOUSES = pa.table(
    {
        "id": range(ROWS),
        "area": AREA,
        "noise": NOISE,
        "small": SMALL,
        "kind": KIND,
        "sold": pa.array(RNG.integers(0, 10**15, ROWS), pa.timestamp("us")),
        "price": 3 * AREA + 0.5 * SMALL + 2 * (KIND == "house"),
    }
)


def threshold(metric):
    return Gate(at_least=0.1) if METRICS[metric].greater_is_better else Gate(at_most=9.0)


def encoded(model):
    columns = make_column_transformer(
        (OneHotEncoder(), ["kind"]), (SimpleImputer(), ["area", "noise", "small"]), verbose_feature_names_out=False
    )
    return make_pipeline(columns, model)


def fitted(estimator, spec, table):
    frame = to_frame(table, describe(spec, table).features)
    return estimator.fit(frame, target(spec.task.kind, table.column(spec.target)))


def by_estimator(estimator, features):
    return lambda rows: predict(estimator, to_frame(rows, features))


def found(spec, table, model, shuffles=5):
    features = describe(spec, table).features
    return importance(spec, table, features, by_estimator(fitted(encoded(model), spec, table), features), shuffles)


def labelled(labels):
    return HOUSES.set_column(HOUSES.column_names.index("price"), "price", pa.array(labels))


@pytest.mark.parametrize("metric", ["rmse", "r2", "mae", "median_ae"])
def test_what_the_target_depends_on_most_is_first_and_what_it_does_not_depend_on_is_near_0(metric):
    one = found(a_spec(metric=metric, gate=threshold(metric)), HOUSES, LinearRegression())

    assert [line["feature"] for line in one[:3]] == ["area", "kind", "small"]
    by_name = {line["feature"]: line["importance"] for line in one}
    assert by_name["area"] > by_name["kind"] > by_name["small"] > 0.01
    assert by_name["noise"] == pytest.approx(0, abs=1e-9)
    assert by_name["sold"] == 0.0


def test_the_error_of_a_shuffled_column_is_as_worked_out():
    # Truth and answer are `area` itself, so the mean squared error of a shuffle is the mean of (area - shuffled)^2,
    # whose expectation over all shuffles is 2 n / (n - 1) times the variance.
    table = pa.table({"id": range(900), "area": np.arange(900.0), "price": np.arange(900.0)})
    spec = a_spec()
    lines = importance(spec, table, describe(spec, table).features, answer_of("area"), 50)
    assert lines[0]["importance"] == pytest.approx(np.sqrt(2 * np.var(np.arange(900.0))), rel=0.01)
    assert 0 < lines[0]["deviation"] < 0.05 * lines[0]["importance"]


def answer_of(name):
    return lambda rows: Answers(rows.column(name).to_numpy().astype(np.float64))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "log_loss", "brier", "accuracy", "f1"])
def test_two_labels_by_metrics_of_labels_and_of_probabilities(metric):
    lines = found(
        a_classifier(metric=metric, gate=threshold(metric)),
        labelled(np.where(AREA > 0, "yes", "no")),
        LogisticRegression(),
    )
    assert lines[0]["feature"] == "area"
    assert lines[0]["importance"] > 0.2
    assert all(abs(line["importance"]) < 0.05 for line in lines[1:])


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc_ovr", "log_loss", "f1_macro"])
def test_three_labels(metric):
    spec = a_spec(
        task=MulticlassClassification(),
        candidates={"c": LogisticRegression()},
        metric=metric,
        gate=threshold(metric),
    )
    lines = found(spec, labelled(np.digitize(AREA, [-0.5, 0.5])), LogisticRegression())
    assert lines[0]["feature"] == "area"
    assert all(abs(line["importance"]) < 0.05 < lines[0]["importance"] for line in lines[1:])


@pytest.mark.parametrize("model", [LinearRegression(), HistGradientBoostingRegressor(max_iter=20)])
def test_a_plan_and_its_estimator_give_the_same(model):
    spec, features = a_spec(), describe(a_spec(), HOUSES).features
    estimator = fitted(encoded(model), spec, HOUSES)
    program = CompiledModel(compile_pipeline(estimator, features))
    slow, fast = (
        importance(spec, HOUSES, features, ask, 3)
        for ask in (by_estimator(estimator, features), lambda rows: program(*columns_of(rows, program.plan)))
    )
    assert [line["feature"] for line in fast] != []
    named = {line["feature"]: line["importance"] for line in slow}
    assert {line["feature"]: line["importance"] for line in fast} == pytest.approx(named, abs=1e-9)


def test_the_order_of_the_features_and_of_the_columns_does_not_matter():
    spec, features = a_spec(), describe(a_spec(), HOUSES).features
    ask = by_estimator(fitted(encoded(LinearRegression()), spec, HOUSES), features)
    one = importance(spec, HOUSES, features, ask, 2)
    turned = HOUSES.select(HOUSES.column_names[::-1])
    assert importance(spec, turned, features[::-1], ask, 2) == one
    assert importance(a_spec(seed=1), HOUSES, features, ask, 2) != one


def test_numbers_yes_or_no_and_timestamps_with_nulls_are_shuffled_with_their_nulls():
    table = pa.table(
        {
            "id": range(100),
            "size": [None if row % 3 == 0 else float(row) for row in range(100)],
            "new": [None if row % 5 == 0 else row % 2 == 0 for row in range(100)],
            "sold": pa.array([None if row % 4 == 0 else row * 10**12 for row in range(100)], pa.timestamp("us")),
            "price": [float(row % 4 == 0) for row in range(100)],
        }
    )
    spec = a_spec()

    def ask(rows):
        return Answers(rows.column("sold").is_null().to_numpy().astype(np.float64))

    lines = importance(spec, table, describe(spec, table).features, ask, 4)
    assert [(line["feature"], line["importance"] > 0.3) for line in lines] == [
        ("sold", True),
        ("new", False),
        ("size", False),
    ]


def test_a_feature_whose_shuffled_values_the_pipeline_refuses_is_left_out():
    def ask(rows):
        if (rows.column("area").to_numpy()[:ROWS] != AREA).any():
            raise ValueError("these never came together")
        return answer_of("small")(rows)

    features = describe(a_spec(), HOUSES).features
    names = [line["feature"] for line in importance(a_spec(), HOUSES, features, ask, 2)]
    assert names[0] == "small"
    assert sorted(names) == ["kind", "noise", "small", "sold"]


def test_nothing_is_said_where_the_metric_is_undefined():
    table = labelled(["yes"] * ROWS)
    half = np.full((ROWS, 2), 0.5)
    answers = Answers(np.array(["yes"] * ROWS, dtype=object), ("no", "yes"), half)
    assert importance(a_classifier(), table, describe(a_classifier(), table).features, lambda _: answers, 1) == []


def test_no_more_than_so_many_rows_are_asked_though_there_be_many_features():
    wide = pa.table({"id": range(2_000), "price": np.zeros(2_000), **{f"f{n}": np.zeros(2_000) for n in range(600)}})
    asked = []

    def ask(rows):
        asked.append(rows.num_rows)
        return Answers(np.zeros(rows.num_rows))

    lines = importance(a_spec(), wide, describe(a_spec(), wide).features, ask, 5)
    assert (len(lines), len(asked)) == (600, 601)
    assert 0.9 * MAX_ASKED < sum(asked[1:]) <= MAX_ASKED
