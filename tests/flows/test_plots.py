import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from flows.monitoring.report import (
    DayPerformance,
    Inputs,
    MonitoringReport,
    NewData,
    PeriodTraffic,
    ReleasePerformance,
    Traffic,
    Window,
)
from flows.reports import plots
from pipeline.drift import ColumnDrift, Histogram
from pipeline.schema import describe, to_frame
from pipeline.sources import Csv
from pipeline.spec import BinaryClassification, Gate, ModelSpec, Monitor, MulticlassClassification, Regression
from pipeline.split import Rule

ALL = Rule("toys", ("id",), 1.0)
NONE = Rule("toys", ("id",), 0.0)


def spec(task, metric, gate, seed=0):
    return ModelSpec(
        name="toys",
        source=Csv("toys.csv"),
        key=("id",),
        target="y",
        task=task,
        candidates={"any": LinearRegression()},
        metric=metric,
        gate=gate,
        seed=seed,
    )


def regression(metric="rmse"):
    return spec(Regression(unit="USD"), metric, Gate(at_most=1.0))


def binary(positive="yes", metric="roc_auc"):
    return spec(BinaryClassification(positive=positive), metric, Gate(at_least=0.5))


def multiclass():
    return spec(MulticlassClassification(), "accuracy", Gate(at_least=0.5))


def numbers(rows):
    return np.random.default_rng(0).normal(size=(2, rows))


A, B = numbers(60)
LINE = 3 * A + B
YES_OR_NO = np.where(A + 0.3 * B > 0, "yes", "no")


def table(y):
    a, b = numbers(len(y))
    return pa.table({"id": range(len(y)), "a $ b $": a, "b": b, "y": y})


def fitted(estimator, spec, rows):
    frame = to_frame(rows, describe(spec, rows).features)
    return estimator.fit(frame, np.array(rows.column("y").to_pylist()))


IMPORTANCE = [
    {"feature": "a $ b $", "importance": 3.5, "deviation": 0.25},
    {"feature": "b", "importance": -0.125, "deviation": 0.0},
]


def drawn(spec, rows, estimator):
    images = plots.draw(spec, rows, ALL, fitted(estimator, spec, rows), IMPORTANCE)
    for png in images.values():
        image = Image.open(io.BytesIO(png))
        image.load()
        assert image.format == "PNG"
        assert 600 <= image.width <= 1_000
        assert len(png) < 60_000
    return list(images)


def test_a_regression_is_drawn_as_predictions_residuals_and_importance():
    rows = table(LINE)
    assert drawn(regression(), rows, LinearRegression()) == ["predicted-against-actual", "residuals", "importance"]


def test_a_target_that_spans_decades_is_drawn_on_log_axes_though_a_prediction_be_negative():
    rows = table(np.exp(2 * A))
    assert drawn(regression(), rows, LinearRegression()) == ["predicted-against-actual", "residuals", "importance"]
    assert drawn(regression(), rows, DummyRegressor()) == ["predicted-against-actual", "residuals", "importance"]


def test_two_labels_are_drawn_as_confusion_roc_calibration_and_importance():
    rows = table(YES_OR_NO)
    assert drawn(binary(), rows, LogisticRegression()) == ["confusion", "roc", "calibration", "importance"]


@pytest.mark.parametrize("positive", [1, True])
def test_labels_need_not_be_text(positive):
    rows = table((A > 0).astype(type(positive)))
    assert drawn(binary(positive), rows, LogisticRegression()) == ["confusion", "roc", "calibration", "importance"]


def test_three_labels_are_drawn_as_confusion_and_importance():
    rows = table(np.where(A > 0.5, "x", np.where(B > 0, "y", "z")))
    assert drawn(multiclass(), rows, LogisticRegression()) == ["confusion", "importance"]


def test_a_hundred_labels_still_make_a_small_confusion_matrix():
    rows = table(np.arange(400) % 100)
    assert drawn(multiclass(), rows, DummyClassifier()) == ["confusion", "importance"]


def test_a_classifier_without_probabilities_is_drawn_without_what_needs_them():
    rows = table(YES_OR_NO)
    assert drawn(binary(metric="accuracy"), rows, LinearSVC()) == ["confusion", "importance"]


def test_a_holdout_of_one_label_is_drawn_without_what_needs_two():
    rows = table(YES_OR_NO)
    estimator = fitted(LogisticRegression(), binary(), rows)
    only = rows.filter(pa.array([label == "yes" for label in rows.column("y").to_pylist()]))
    assert list(plots.draw(binary(), only, ALL, estimator)) == ["confusion"]


def test_constant_predictions_are_drawn():
    assert drawn(binary(), table(YES_OR_NO), DummyClassifier()) == ["confusion", "roc", "calibration", "importance"]
    rows = table(np.zeros(60))
    assert drawn(regression(), rows, DummyRegressor()) == ["predicted-against-actual", "residuals", "importance"]


def test_a_single_held_out_row_is_drawn():
    rows = table(LINE)
    estimator = fitted(LinearRegression(), regression(), rows)
    assert list(plots.draw(regression(), rows.slice(7, 1), ALL, estimator)) == ["predicted-against-actual", "residuals"]


def test_nothing_held_out_draws_nothing():
    rows = table(LINE)
    assert plots.draw(regression(), rows, NONE, fitted(LinearRegression(), regression(), rows)) == {}


def test_the_same_model_is_drawn_the_same():
    rows = table(LINE)
    estimator = fitted(LinearRegression(), regression(), rows)
    assert plots.draw(regression(), rows, ALL, estimator) == plots.draw(regression(), rows, ALL, estimator)


@pytest.fixture
def texts(monkeypatch):
    """What was written last on each figure: its title and the names along its vertical axis."""
    found = {}

    def read(figure):
        axes = figure.axes[0]
        title = axes.get_title(loc="left")
        found[title.partition(",")[0]] = (title, [label.get_text() for label in axes.get_yticklabels()])
        return b""

    monkeypatch.setattr(plots, "_png", read)
    return found


def test_the_most_important_features_are_drawn_the_first_on_top(texts):
    rows = table(LINE)
    estimator = fitted(LinearRegression(), regression(), rows)
    plots.draw(regression(), rows, ALL, estimator, IMPORTANCE)
    assert texts["Permutation importance on held-out rows"][1] == ["b", r"a \$ b \$"]
    many = [{"feature": f"f{place}", "importance": 99.0 - place, "deviation": 0.0} for place in range(40)]
    plots.draw(regression(), rows, ALL, estimator, many)
    assert texts["Permutation importance on held-out rows"][1] == [f"f{place}" for place in reversed(range(15))]


def test_a_sample_is_called_a_sample(texts, monkeypatch):
    monkeypatch.setattr(plots, "MAX_POINTS", 40)
    rows = table(LINE)
    plots.draw(regression(), rows, ALL, fitted(LinearRegression(), regression(), rows))
    assert texts["Residuals against predicted"][0].endswith(", a sample of 40 of 60 held-out rows")
    monkeypatch.setattr(plots, "MAX_COUNTED", 50)
    rows = table(YES_OR_NO)
    plots.draw(binary(), rows, ALL, fitted(LogisticRegression(), binary(), rows))
    for title in ("Confusion", "ROC of yes", "Calibration of yes"):
        assert texts[title][0].endswith(", a sample of 50 of 60 held-out rows")


def test_rare_labels_share_a_row_of_the_confusion_matrix(texts):
    rows = table(np.concatenate([np.arange(1, 21), np.repeat(np.arange(5, 16), 9)]))
    plots.draw(multiclass(), rows, ALL, fitted(LogisticRegression(), multiclass(), rows))
    assert texts["Confusion"][1] == [*"56789", "10", "11", "12", "13", "14", "15", "(others)"]


def test_what_drifted_is_drawn_then_and_now_and_nothing_where_nothing_may_be_shown():
    histogram = Histogram(("a $", "b", "(others)"), (0.5, 0.5, 0.0), (0.1, 0.2, 0.7))
    facts = ("feature", "chi-squared", 20.0, 10.0, 0.0, 0.0, 0.05)
    drifted = [ColumnDrift(f"x{n}", *facts, histogram=histogram) for n in range(20)]
    one, all_of_them = (Image.open(io.BytesIO(plots.draw_drift(drifted[:most]))) for most in (1, 20))
    assert all_of_them.size[0] > 2 * one.size[0]
    # Twelve at most, in rows of three.
    assert all_of_them.size == Image.open(io.BytesIO(plots.draw_drift(drifted[:12]))).size
    assert plots.draw_drift([ColumnDrift("secret", *facts)]) is None


def test_monitoring_is_drawn_as_traffic_drift_and_performance_each_only_with_data():
    period = PeriodTraffic("2026-03-10T01:00:00+00:00", Traffic(requests=10, errors=1, p95_ms=2.5))
    day = DayPerformance("2026-03-10", 30, 1.0, 0.9, 1.1)
    report = MonitoringReport(
        model="toys",
        at="2026-03-10T02:00:00+00:00",
        release=2,
        metric="rmse",
        schedule=None,
        monitor=Monitor(),
        window=Window("2026-03-03T02:00:00+00:00", 7.0),
        traffic=Traffic(),
        inputs=Inputs(900, (ColumnDrift("y", "target", "Kolmogorov-Smirnov", 0.4, 0.2, 0.0, 0.0, 0.05),)),
        data=NewData(False, "nothing is new"),
        over_time=(period,),
        performance=(ReleasePerformance(2, 30, 1.0, 0.9, 1.1, released=1.2, by_day=(day,)),),
    )
    before = replace(report, at="2026-03-09T02:00:00+00:00", release=1)
    assert list(plots.draw_monitoring(report, [before])) == ["traffic", "drift", "performance"]
    quiet = replace(report, inputs=Inputs(0, why="no rows"), performance=None, over_time=())
    assert plots.draw_monitoring(quiet, []) == {}
