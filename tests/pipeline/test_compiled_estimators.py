"""Each estimator against scikit-learn's own predictions: trees to the last bit, others within rounding."""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import calibration, dummy, ensemble, linear_model, model_selection, svm, tree
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from pipeline.compiled import (
    CompiledModel,
    UnanswerableError,
    UncompilableError,
    compile_pipeline,
    load_plan,
    save_plan,
)
from pipeline.predict import predict
from pipeline.schema import Feature

RNG = np.random.default_rng(7)
X = RNG.normal(size=(150, 5)) * [1, 10, 0.1, 1000, 1] + [0, 5, 0, 2000, 0]
X[:, 4] = RNG.integers(0, 4, len(X))
Y = X[:, 0] + X[:, 1] / 10 + np.sin(X[:, 2] * 20) + X[:, 3] / 1000 + X[:, 4] + RNG.normal(size=len(X)) / 10 + 5
BINARY = np.where(np.median(Y) < Y, "yes", "no").astype(object)
THREE = np.array(["low", "middle", "top"], object)[np.digitize(Y, np.quantile(Y, [0.3, 0.7]))]
GAPS = np.where(RNG.random(X.shape) < 0.1, np.nan, X)


def features(width, kind="number"):
    return [Feature(f"x{index}", kind, required=False) for index in range(width)]


def compiled(estimator, width=X.shape[1]):
    """Return the program of a plan that was written to disk and read again."""
    with tempfile.TemporaryDirectory() as folder:
        save_plan(compile_pipeline(estimator, features(width)), Path(folder))
        return CompiledModel(load_plan(Path(folder)))


def fitted(estimator, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(estimator).fit(x, y)


def reason(estimator, x=X, y=Y):
    with pytest.raises(UncompilableError) as refused:
        compile_pipeline(fitted(estimator, x, y), features(x.shape[1]))
    return str(refused.value)


def at_the_thresholds(estimator, rows):
    """Rows with, in some column, a threshold of some tree, or one of the numbers next to it."""
    by_column = {}
    for one in np.ravel(estimator.estimators_) if hasattr(estimator, "estimators_") else [estimator]:
        for column, threshold in zip(one.tree_.feature, one.tree_.threshold, strict=True):
            if column >= 0:
                by_column.setdefault(int(column), []).append(float(threshold))
    return beside(by_column, rows)


def beside(by_column, rows):
    made = []
    for column, thresholds in by_column.items():
        for index, threshold in enumerate(sorted(set(thresholds))[:60]):
            near = np.float32(threshold)
            for value in (
                threshold,
                np.nextafter(threshold, -np.inf),
                np.nextafter(threshold, np.inf),
                float(near),
                float(np.nextafter(near, np.float32(-np.inf))),
                float(np.nextafter(near, np.float32(np.inf))),
            ):
                row = rows[index % len(rows)].copy()
                row[column] = value
                made.append(row)
    return np.array(made)


def check(estimator, rows, exact=False, alone=12):
    """Compare a plan's answers with the estimator's own, for all rows at once and for some alone."""
    program = compiled(estimator, rows.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = predict(estimator, rows)
    got = program(rows, [])
    single = [program(rows[index : index + 1], []) for index in range(min(alone, len(rows)))]
    assert got.labels == want.labels
    assert (got.probabilities is None) == (want.probabilities is None)
    pairs = [(got.predictions, want.predictions)]
    pairs += [(np.concatenate([one.predictions for one in single]), want.predictions[: len(single)])]
    if want.probabilities is not None:
        pairs += [(got.probabilities, want.probabilities)]
        pairs += [(np.concatenate([one.probabilities for one in single]), want.probabilities[: len(single)])]
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        if exact or theirs.dtype.kind != "f":
            assert ours.tolist() == theirs.tolist()
        else:
            scale = max(np.ptp(theirs), 1.0)
            assert np.all(np.abs(ours - theirs) <= 1e-12 * np.maximum(np.abs(theirs), scale))


LINEAR = [
    linear_model.LinearRegression(),
    linear_model.LinearRegression(fit_intercept=False),
    linear_model.Ridge(),
    linear_model.RidgeCV(),
    linear_model.Lasso(0.01),
    linear_model.LassoCV(cv=3),
    linear_model.ElasticNet(0.01),
    linear_model.ElasticNetCV(cv=3),
    linear_model.Lars(),
    linear_model.LarsCV(cv=3),
    linear_model.LassoLars(0.01),
    linear_model.LassoLarsCV(cv=3),
    linear_model.LassoLarsIC(),
    linear_model.OrthogonalMatchingPursuit(),
    linear_model.OrthogonalMatchingPursuitCV(cv=3),
    linear_model.BayesianRidge(),
    linear_model.ARDRegression(),
    linear_model.HuberRegressor(),
    linear_model.TheilSenRegressor(max_subpopulation=50, random_state=0),
    linear_model.QuantileRegressor(alpha=0.01),
    make_pipeline(StandardScaler(), linear_model.SGDRegressor(random_state=0)),
    make_pipeline(StandardScaler(), svm.LinearSVR(random_state=0)),
    linear_model.RANSACRegressor(random_state=0),
    make_pipeline(StandardScaler(), linear_model.PoissonRegressor()),
    make_pipeline(StandardScaler(), linear_model.GammaRegressor()),
    make_pipeline(StandardScaler(), linear_model.TweedieRegressor(power=0)),
    make_pipeline(StandardScaler(), linear_model.TweedieRegressor(power=1.5)),
]


@pytest.mark.parametrize("estimator", LINEAR, ids=str)
def test_linear_regressions_agree_within_rounding(estimator):
    check(fitted(estimator, X, np.maximum(Y, 0.1)), X)


LINEAR_CLASSIFIERS = [
    linear_model.LogisticRegression(),
    linear_model.LogisticRegressionCV(cv=2, Cs=2),
    linear_model.RidgeClassifier(),
    linear_model.RidgeClassifierCV(),
    linear_model.SGDClassifier(random_state=0),
    linear_model.SGDClassifier(loss="log_loss", random_state=0),
    linear_model.SGDClassifier(loss="modified_huber", random_state=0),
    linear_model.Perceptron(),
    svm.LinearSVC(random_state=0),
    LinearDiscriminantAnalysis(),
    GaussianNB(),
]


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("estimator", LINEAR_CLASSIFIERS, ids=str)
def test_linear_classifiers_agree_within_rounding(estimator, labels):
    check(fitted(make_pipeline(StandardScaler(), estimator), X, labels), X)


def test_a_score_of_zero_is_the_first_label_as_scikit_learn_has_it():
    model = fitted(linear_model.LogisticRegression(), X, BINARY)
    model.coef_, model.intercept_ = np.ones((1, 5)), np.zeros(1)
    rows = np.array([[0.0] * 5, [-0.0] * 5, [1e-300, 0, 0, 0, 0], [1, -1, 0, 0, 0]])
    check(model, rows)
    assert compiled(model)(rows, []).predictions.tolist() == ["no", "no", "yes", "no"]


def test_equal_scores_are_the_first_label():
    model = fitted(linear_model.LogisticRegression(), X, THREE)
    model.coef_, model.intercept_ = np.zeros((3, 5)), np.array([1.0, 2.0, 2.0])
    assert compiled(model)(X[:1], []).predictions.tolist() == ["middle"]


def test_labels_may_be_numbers_and_booleans():
    for labels in ((Y > 5).astype(int), Y > 5, np.digitize(Y, [4, 7]) * 10):
        check(fitted(linear_model.RidgeClassifier(), X, labels), X)
        check(fitted(tree.DecisionTreeClassifier(max_depth=3), X, labels), X, exact=True)


KERNELS = [
    svm.SVR(),
    svm.SVR(kernel="linear"),
    svm.SVR(kernel="poly", degree=2, coef0=1.0),
    svm.SVR(kernel="sigmoid", gamma=0.01),
    svm.SVR(gamma=100.0),
    svm.SVR(epsilon=100.0),
    svm.NuSVR(),
    KernelRidge(kernel="rbf", gamma=0.1),
    KernelRidge(kernel="linear"),
    KernelRidge(kernel="polynomial", degree=2),
]


@pytest.mark.parametrize("estimator", KERNELS, ids=str)
def test_kernel_regressions_agree_within_rounding(estimator):
    check(fitted(make_pipeline(StandardScaler(), estimator), X, Y), X)


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("estimator", [svm.SVC(), svm.SVC(kernel="linear"), svm.NuSVC()], ids=str)
def test_support_vector_classifiers_agree(estimator, labels):
    check(fitted(make_pipeline(StandardScaler(), estimator), X, labels), X)


def test_support_vectors_that_cancel_leave_the_label_that_libsvm_leaves():
    rows = np.full((60, 5), 0.1)
    check(fitted(svm.SVC(), rows, np.repeat(["no", "yes"], 30)), rows)
    check(fitted(svm.SVC(), rows, np.repeat(["low", "middle", "top"], 20)), rows)


def test_support_vectors_of_a_sparse_matrix_agree():
    model = fitted(make_pipeline(OneHotEncoder(handle_unknown="ignore"), svm.SVR()), X[:, 4:], Y)
    check(model, X[:, 4:])


TREES = [
    tree.DecisionTreeRegressor(random_state=0),
    tree.DecisionTreeRegressor(max_depth=1),
    tree.ExtraTreeRegressor(random_state=0),
    ensemble.RandomForestRegressor(15, random_state=0),
    ensemble.RandomForestRegressor(15, max_depth=4, random_state=0),
    ensemble.RandomForestRegressor(7, criterion="absolute_error", max_leaf_nodes=12, random_state=0),
    ensemble.ExtraTreesRegressor(10, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=40, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=5, init="zero", random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=5, max_depth=None, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=5, init=tree.DecisionTreeRegressor(max_depth=2), random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10, loss="huber", subsample=0.5, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10, loss="quantile", max_leaf_nodes=5, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=10, loss="absolute_error", random_state=0),
]
TREE_CLASSIFIERS = [
    tree.DecisionTreeClassifier(random_state=0),
    tree.DecisionTreeClassifier(max_depth=2, class_weight="balanced"),
    tree.ExtraTreeClassifier(random_state=0),
    ensemble.RandomForestClassifier(10, random_state=0),
    ensemble.RandomForestClassifier(10, max_depth=3, random_state=0),
    ensemble.ExtraTreesClassifier(10, max_depth=5, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=8, init="zero", random_state=0),
]


@pytest.mark.parametrize("estimator", TREES, ids=str)
def test_trees_agree_to_the_last_bit_also_at_their_thresholds(estimator):
    model = fitted(estimator, X, Y)
    check(model, np.vstack([X, at_the_thresholds(model, X)]), exact=True, alone=40)


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("estimator", TREE_CLASSIFIERS, ids=str)
def test_tree_classifiers_agree_to_the_last_bit(estimator, labels):
    model = fitted(estimator, X, labels)
    check(model, np.vstack([X, at_the_thresholds(model, X)]), exact=True)


def test_gradient_boosting_by_the_exponential_loss_agrees_to_the_last_bit():
    check(fitted(ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=8), X, BINARY), X, exact=True)


MISSING = [tree.DecisionTreeRegressor(random_state=0), ensemble.RandomForestRegressor(12, random_state=0)]
MISSING += [ensemble.RandomForestRegressor(12, max_depth=3, random_state=0), ensemble.ExtraTreesRegressor(8)]


@pytest.mark.parametrize("training", [X, GAPS], ids=["trained without", "trained with"])
@pytest.mark.parametrize("estimator", MISSING, ids=str)
def test_trees_send_missing_values_where_scikit_learn_does(estimator, training):
    check(fitted(estimator, training, Y), np.vstack([GAPS, X, np.full((1, 5), np.nan)]), exact=True)


def test_a_tree_that_asks_only_whether_a_value_is_missing_agrees():
    x = np.array([[1.0], [np.nan], [1.0], [np.nan], [1.0]])
    model = tree.DecisionTreeRegressor().fit(x, [0.0, 5.0, 0.0, 5.0, 0.0])
    check(model, np.array([[1.0], [np.nan], [3e38]]), exact=True)


def test_many_rows_are_answered_as_they_are_alone():
    rows = np.repeat(X, 30, axis=0)
    for estimator in (linear_model.Ridge(), TREES[3], TREES[7], ensemble.HistGradientBoostingRegressor(max_iter=20)):
        program = compiled(fitted(estimator, X, Y))
        alone = np.concatenate([program(row[None], []).predictions for row in X])
        assert np.array_equal(program(rows, []).predictions, np.repeat(alone, 30))


@pytest.mark.parametrize("estimator", [TREES[3], TREES[7], linear_model.Ridge(), svm.SVR()], ids=str)
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39, np.nan])
def test_what_the_estimator_refuses_the_plan_leaves_to_it(estimator, value):
    model = fitted(estimator, X, Y)
    rows = X[:2].copy()
    rows[1, 2] = value
    try:
        model.predict(rows)
    except ValueError:
        with pytest.raises(UnanswerableError):
            compiled(model)(rows, [])
    else:
        check(model, rows)


HISTOGRAMS = [
    ensemble.HistGradientBoostingRegressor(max_iter=15),
    ensemble.HistGradientBoostingRegressor(max_iter=8, max_leaf_nodes=None, min_samples_leaf=1),
    ensemble.HistGradientBoostingRegressor(max_iter=8, loss="poisson", max_depth=2),
    ensemble.HistGradientBoostingRegressor(max_iter=8, loss="gamma"),
    ensemble.HistGradientBoostingRegressor(max_iter=8, loss="quantile", quantile=0.8),
    ensemble.HistGradientBoostingRegressor(max_iter=8, loss="absolute_error", early_stopping=True, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=8, monotonic_cst=[1, 0, 0, 0, 0]),
    ensemble.HistGradientBoostingRegressor(max_iter=10, categorical_features=[4], min_samples_leaf=2),
    ensemble.HistGradientBoostingRegressor(max_iter=10, categorical_features=[0, 4], max_bins=200, min_samples_leaf=2),
]


@pytest.mark.parametrize("training", [X, GAPS], ids=["trained without", "trained with"])
@pytest.mark.parametrize("estimator", HISTOGRAMS, ids=str)
def test_histogram_boosting_agrees_to_the_last_bit(estimator, training):
    if estimator.categorical_features == [0, 4]:
        training = np.column_stack([np.round(training[:, 0] * 3), training[:, 1:]])
    model = fitted(estimator, training, np.maximum(Y, 0.1))
    by_column = {}
    for stage in model._predictors:
        for node in stage[0].nodes:
            if not node["is_leaf"] and not node["is_categorical"] and model._preprocessor is None:
                by_column.setdefault(int(node["feature_idx"]), []).append(float(node["num_threshold"]))
    hostile = np.vstack([training, X, GAPS, [[99.0] * 5, [-1.0] * 5, [np.nan] * 5, [np.inf] * 5, [-np.inf] * 5]])
    if by_column:
        hostile = np.vstack([hostile, beside(by_column, X)])
    if model._preprocessor is not None:
        hostile = hostile[np.isfinite(hostile).all(axis=1) | np.isnan(hostile).any(axis=1)]
    check(model, hostile, exact=True)


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("categories", [None, [4]])
def test_histogram_classifiers_agree_to_the_last_bit(labels, categories):
    model = ensemble.HistGradientBoostingClassifier(max_iter=6, categorical_features=categories, min_samples_leaf=2)
    check(fitted(model, GAPS, labels), np.vstack([GAPS, X]), exact=True)


def test_histogram_boosting_takes_texts_as_categories_also_unseen_and_missing_ones():
    town = np.array(["a", "b", "c", "d"], object)[X[:, 4].astype(int)]
    frame = pd.DataFrame({"town": pd.Series(town, dtype="str"), "x": GAPS[:, 0], "z": X[:, 1]})
    frame.loc[:10, "town"] = np.nan
    model = ensemble.HistGradientBoostingRegressor(max_iter=10, categorical_features=["town"], min_samples_leaf=2)
    model.fit(frame, Y)
    asked = pd.concat([frame, frame.assign(town=pd.Series(["elsewhere"] * len(frame), dtype="str"))])
    schema = [Feature("town", "text", False), Feature("x", "number", False), Feature("z", "number", False)]
    program = CompiledModel(compile_pipeline(model, schema))
    texts = [[None if value != value else value for value in asked["town"]]]
    got = program(asked[["x", "z"]].to_numpy(), texts)
    assert np.array_equal(got.predictions, model.predict(asked))


DUMMIES = [
    dummy.DummyRegressor(),
    dummy.DummyRegressor(strategy="median"),
    dummy.DummyRegressor(strategy="quantile", quantile=0.3),
    dummy.DummyRegressor(strategy="constant", constant=3),
]
DUMMY_CLASSIFIERS = [
    dummy.DummyClassifier(),
    dummy.DummyClassifier(strategy="most_frequent"),
    dummy.DummyClassifier(strategy="constant", constant="yes"),
]


@pytest.mark.parametrize("estimator", DUMMIES, ids=str)
def test_dummy_regressors_agree_to_the_last_bit(estimator):
    check(fitted(estimator, X, Y), X, exact=True)


@pytest.mark.parametrize("estimator", DUMMY_CLASSIFIERS, ids=str)
def test_dummy_classifiers_agree_to_the_last_bit(estimator):
    check(fitted(estimator, X, BINARY), X, exact=True)


RIDGE, LOGISTIC = linear_model.Ridge(), make_pipeline(StandardScaler(), linear_model.LogisticRegression())
STUMPS = ensemble.GradientBoostingRegressor(n_estimators=5, max_depth=1)
LEAVES = tree.DecisionTreeClassifier(max_depth=3, random_state=0)
MACHINE = make_pipeline(StandardScaler(), svm.LinearSVC(random_state=0))
ENSEMBLES = [
    ensemble.VotingRegressor([("a", RIDGE), ("b", STUMPS), ("c", "drop")]),
    ensemble.VotingRegressor([("a", RIDGE), ("b", STUMPS), ("c", "drop")], weights=[1, 2.5, 3]),
    ensemble.StackingRegressor([("a", RIDGE), ("b", STUMPS)], cv=2),
    ensemble.StackingRegressor([("a", RIDGE), ("b", "drop")], final_estimator=STUMPS, passthrough=True, cv=2),
    ensemble.BaggingRegressor(n_estimators=4, random_state=0),
    ensemble.BaggingRegressor(RIDGE, n_estimators=4, max_features=0.6, bootstrap_features=True, random_state=0),
    ensemble.AdaBoostRegressor(n_estimators=6, random_state=0),
    model_selection.GridSearchCV(RIDGE, {"alpha": [0.1, 1.0]}, cv=2),
    model_selection.RandomizedSearchCV(RIDGE, {"alpha": [0.1, 1.0]}, n_iter=1, cv=2),
    model_selection.HalvingGridSearchCV(RIDGE, {"alpha": [0.1, 1.0]}, cv=2),
    Pipeline([("nothing", "passthrough"), ("scale", StandardScaler()), ("model", RIDGE)]),
]
VOTERS = [("a", LOGISTIC), ("b", LEAVES), ("c", GaussianNB())]
CLASSIFIER_ENSEMBLES = [
    ensemble.VotingClassifier(VOTERS),
    ensemble.VotingClassifier(VOTERS, weights=[1, 1.5, 3]),
    ensemble.VotingClassifier(VOTERS, voting="soft"),
    ensemble.VotingClassifier(VOTERS, voting="soft", weights=[1, 2, 0.5]),
    ensemble.StackingClassifier([("a", LOGISTIC), ("b", LEAVES), ("c", MACHINE)], cv=2),
    ensemble.StackingClassifier([("a", LOGISTIC), ("c", MACHINE)], passthrough=True, final_estimator=LEAVES, cv=2),
    ensemble.StackingClassifier([("a", LOGISTIC), ("b", LEAVES)], stack_method="predict", cv=2),
    ensemble.StackingClassifier([("a", make_pipeline(StandardScaler(), svm.SVC()))], cv=2),
    ensemble.BaggingClassifier(n_estimators=4, random_state=0),
    ensemble.BaggingClassifier(LOGISTIC, n_estimators=4, max_features=0.6, random_state=0),
    ensemble.BaggingClassifier(MACHINE, n_estimators=4, max_samples=9, random_state=0),
    ensemble.AdaBoostClassifier(n_estimators=6, random_state=0),
    ensemble.AdaBoostClassifier(LEAVES, n_estimators=4, random_state=0),
    calibration.CalibratedClassifierCV(LEAVES, cv=2),
    calibration.CalibratedClassifierCV(MACHINE, cv=2),
    calibration.CalibratedClassifierCV(MACHINE, method="isotonic", cv=3),
    calibration.CalibratedClassifierCV(LOGISTIC, ensemble=False, cv=2),
]


@pytest.mark.parametrize("estimator", ENSEMBLES, ids=str)
def test_ensembles_and_searches_of_regressors_agree(estimator):
    check(fitted(estimator, X, Y), X)


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=["binary", "three"])
@pytest.mark.parametrize("estimator", CLASSIFIER_ENSEMBLES, ids=str)
def test_ensembles_of_classifiers_agree(estimator, labels):
    check(fitted(estimator, X, labels), X)


def test_ensembles_of_trees_agree_to_the_last_bit():
    check(fitted(ensemble.BaggingRegressor(n_estimators=6, max_features=0.6, random_state=0), X, Y), X, exact=True)
    check(fitted(ensemble.BaggingClassifier(n_estimators=6, random_state=0), X, THREE), X, exact=True)
    check(fitted(ensemble.AdaBoostRegressor(n_estimators=6, random_state=0), X, Y), X, exact=True)


def test_an_estimator_that_was_fitted_before_is_calibrated():
    model = fitted(LOGISTIC, X, THREE)
    check(calibration.CalibratedClassifierCV(FrozenEstimator(model), method="isotonic").fit(X, THREE), X)


THRESHOLDS = [
    model_selection.FixedThresholdClassifier(LOGISTIC, threshold=0.3),
    model_selection.FixedThresholdClassifier(LOGISTIC, threshold=0.3, pos_label="no"),
    model_selection.FixedThresholdClassifier(LOGISTIC),
    model_selection.FixedThresholdClassifier(MACHINE, threshold=0.2, pos_label="no"),
    model_selection.FixedThresholdClassifier(LOGISTIC, threshold=0.2, response_method="decision_function"),
    model_selection.TunedThresholdClassifierCV(LOGISTIC, cv=2),
    model_selection.TunedThresholdClassifierCV(MACHINE, cv=2),
]


@pytest.mark.parametrize("estimator", THRESHOLDS, ids=str)
def test_thresholds_decide_as_scikit_learn_does(estimator):
    check(fitted(estimator, X, BINARY), X)


def test_a_score_at_the_threshold_is_the_positive_label():
    model = fitted(model_selection.FixedThresholdClassifier(LEAVES, threshold=0.5), X, BINARY)
    for leaf in np.unique(model.predict_proba(X)[:, 1]):
        model.threshold = float(leaf)
        check(model, X, exact=True)


TARGETS = [
    {"func": np.log, "inverse_func": np.exp},
    {"func": np.log1p, "inverse_func": np.expm1},
    {"func": np.sqrt, "inverse_func": np.square, "check_inverse": False},
    {},
    {"transformer": StandardScaler()},
    {"transformer": StandardScaler(with_std=False)},
    {"transformer": StandardScaler(with_mean=False)},
    {"transformer": MinMaxScaler((1, 3))},
    {"transformer": RobustScaler()},
    {"transformer": MaxAbsScaler()},
    {"transformer": PowerTransformer()},
    {"transformer": PowerTransformer(method="box-cox", standardize=False)},
    {"transformer": QuantileTransformer(n_quantiles=50)},
    {"transformer": QuantileTransformer(n_quantiles=50, output_distribution="normal")},
    {"transformer": make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler())},
]


@pytest.mark.parametrize("parameters", TARGETS, ids=str)
def test_transformed_targets_come_back(parameters):
    y = np.exp(Y / 2)
    check(fitted(TransformedTargetRegressor(linear_model.Ridge(), **parameters), X, y), X)
    check(fitted(TransformedTargetRegressor(ensemble.RandomForestRegressor(5), **parameters), X, y), X)


class OwnRidge(linear_model.Ridge):
    pass


class Own(RegressorMixin, BaseEstimator):
    def fit(self, x, y):  # noqa: ARG002
        return self

    def predict(self, x):
        return x[:, 0]


def test_an_unknown_class_is_named():
    assert reason(Own()) == "Own: the compiler does not know this class"
    assert reason(KNeighborsRegressor()) == "KNeighborsRegressor: the compiler does not know this class"


def test_a_subclass_of_a_known_class_is_not_compiled():
    assert reason(OwnRidge()).startswith("OwnRidge")


def test_the_path_to_an_unknown_step_is_named():
    model = make_pipeline(StandardScaler(), ensemble.VotingRegressor([("a", RIDGE), ("b", OwnRidge())]))
    assert reason(model) == "Pipeline: VotingRegressor: OwnRidge: the compiler does not know this class"


REFUSED = [
    (svm.SVR(kernel=lambda a, b: a @ b.T, max_iter=9), Y, "SVR: its kernel is"),
    (dummy.DummyClassifier(strategy="uniform"), BINARY, "DummyClassifier: its strategy is 'uniform'"),
    (linear_model.Ridge(), np.stack([Y, Y], axis=1), "Ridge: it predicts 2 targets"),
    (tree.DecisionTreeRegressor(), np.stack([Y, Y], axis=1), "DecisionTreeRegressor: it predicts 2 targets"),
    (
        tree.DecisionTreeClassifier(),
        np.stack([BINARY, THREE], axis=1).astype(str),
        "DecisionTreeClassifier: it predicts several",
    ),
    (ensemble.RandomForestRegressor(2), np.stack([Y, Y], axis=1), "RandomForestRegressor: it predicts 2 targets"),
    (
        ensemble.GradientBoostingRegressor(init=linear_model.Ridge()),
        Y,
        "GradientBoostingRegressor: it starts from Ridge",
    ),
    (svm.SVC(break_ties=True), THREE, "SVC: it breaks ties"),
    (
        TransformedTargetRegressor(RIDGE, func=np.log, inverse_func=lambda y: np.exp(y)),
        Y,
        "TransformedTargetRegressor: <lambda> is not a universal function",
    ),
    (model_selection.GridSearchCV(RIDGE, {"alpha": [1.0]}, refit=False), Y, "GridSearchCV: it was not refitted"),
    (
        calibration.CalibratedClassifierCV(LEAVES, method="temperature"),
        BINARY,
        "CalibratedClassifierCV: its calibrator",
    ),
]


@pytest.mark.parametrize(("estimator", "y", "start"), REFUSED, ids=lambda one: one if isinstance(one, str) else "")
def test_what_is_not_covered_is_refused_by_name(estimator, y, start):
    assert reason(estimator, np.abs(X), y).startswith(start)


def test_running_a_plan_imports_neither_scikit_learn_nor_pandas(tmp_path):
    save_plan(compile_pipeline(fitted(TREES[7], X, Y), features(5)), tmp_path)
    program = (
        "import sys, numpy, pathlib; from pipeline.compiled import CompiledModel, load_plan;"
        f"CompiledModel(load_plan(pathlib.Path({str(tmp_path)!r})))(numpy.ones((1, 5)), []);"
        "print([name for name in ('sklearn', 'pandas', 'scipy') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert run.stdout == "[]\n"
