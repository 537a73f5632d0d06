"""The estimators at the end of a pipeline: one short function each, from a fitted estimator to operations of a plan.

scikit-learn is imported when something is compiled; what runs later needs NumPy, and scipy.special for a few.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.compiled import encoders, engineered, transformers  # noqa: F401  they register their emitters
from pipeline.compiled.linear_one_hot import fuse_one_hot_sums
from pipeline.compiled.plan import Array, Builder, Finiteness
from pipeline.compiled.registry import compile_transformer
from pipeline.compiled.table import Number, Table, UncompilableError, checked, matrix, numbers
from pipeline.compiled.trees import TreeColumns, emit_tree_sum, float32_tree, histogram_tree
from pipeline.predict import Label


@dataclass(frozen=True)
class Outputs:
    """Registers with an estimator's answers.

    A regression has `predictions` of shape (rows, 1). A classifier has positions of its `labels` there, and where the
    estimator has `predict_proba`, `probabilities` of shape (rows, labels); where it has `decision_function` and other
    steps may ask for it, `scores` of shape (rows, labels), or (rows, 1) for two labels.
    """

    predictions: int
    probabilities: int | None = None
    labels: tuple[Label, ...] = ()
    scores: int | None = None


Compiler = Callable[[Any, Table, Builder], Outputs]
COMPILERS: dict[str, Compiler] = {}
"""By name of a class of scikit-learn."""


def compiles(*names: str) -> Callable[[Compiler], Compiler]:
    """Register a function that compiles estimators of these classes of scikit-learn."""

    def register(function: Compiler) -> Compiler:
        COMPILERS.update(dict.fromkeys(names, function))
        return function

    return register


def compile_estimator(estimator: Any, table: Table, builder: Builder) -> Outputs:
    """Add a fitted estimator's operations and return the registers of its answers.

    Raises UncompilableError, with the path of classes to the step and why, for a class that is not known (a subclass
    of a known one is not) and for parameters that are not covered.
    """
    name = type(estimator).__name__
    known = COMPILERS.get(_class(estimator))
    if known is None:
        raise UncompilableError(f"{name}: the compiler does not know this class")
    try:
        if getattr(estimator, "n_features_in_", len(table.columns)) != len(table.columns):
            raise UncompilableError(f"it was fitted on {estimator.n_features_in_} columns, not {len(table.columns)}")
        return known(estimator, table, builder)
    except UncompilableError as error:
        raise UncompilableError(f"{name}: {error}") from error


# Steps and searches: what another estimator answers.


@compiles("Pipeline")
def _pipeline(estimator: Any, table: Table, builder: Builder) -> Outputs:
    *transformers_before, (_, final) = estimator.steps
    for _, step in transformers_before:
        if step is not None and step != "passthrough":
            table = compile_transformer(step, table, builder)
    if final is None or final == "passthrough":
        raise UncompilableError("it ends without an estimator")
    return compile_estimator(final, table, builder)


@compiles("FrozenEstimator")
def _frozen(estimator: Any, table: Table, builder: Builder) -> Outputs:
    return compile_estimator(estimator.estimator, table, builder)


@compiles("RANSACRegressor")
def _best_of_samples(estimator: Any, table: Table, builder: Builder) -> Outputs:
    return compile_estimator(estimator.estimator_, table, builder)


@compiles("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")
def _search(estimator: Any, table: Table, builder: Builder) -> Outputs:
    if not hasattr(estimator, "best_estimator_"):
        raise UncompilableError("it was not refitted, so it has no best estimator")
    return compile_estimator(estimator.best_estimator_, table, builder)


@compiles("TunedThresholdClassifierCV", "FixedThresholdClassifier")
def _threshold(estimator: Any, table: Table, builder: Builder) -> Outputs:
    inner = compile_estimator(getattr(estimator, "estimator_", estimator.estimator), table, builder)
    method, tuned = estimator.response_method, hasattr(estimator, "best_threshold_")
    label = estimator._curve_scorer._get_pos_label() if tuned else estimator.pos_label
    second = label is None or label == inner.labels[1]
    if inner.probabilities is not None and method in ("auto", "predict_proba"):
        score, default = _take(builder, inner.probabilities, [int(second)]), 0.5
    elif inner.scores is not None:
        score, default = inner.scores if second else builder.emit("function", inner.scores, name="negative"), 0.0
    else:
        raise UncompilableError("it asks for scores that are not compiled")
    threshold = estimator.best_threshold_ if tuned else estimator.threshold
    threshold = default if threshold == "auto" else float(threshold)
    return replace(inner, predictions=builder.emit("at_least", score, threshold=threshold, above=int(second)))


@compiles("TransformedTargetRegressor")
def _target_transformed(estimator: Any, table: Table, builder: Builder) -> Outputs:
    inner = compile_estimator(estimator.regressor_, table, builder)
    return Outputs(_inverse(estimator.transformer_, inner.predictions, builder))


def _inverse(transformer: Any, register: int, builder: Builder) -> int:
    """Add the inverse of a transformer of one column."""
    match _class(transformer):
        case "FunctionTransformer" if not transformer.inv_kw_args:
            function = transformer.inverse_func
            return register if function is None else _function(builder, register, function)
        case "Pipeline":
            for _, step in reversed(transformer.steps):
                register = register if step is None or step == "passthrough" else _inverse(step, register, builder)
            return register
        case "StandardScaler" | "RobustScaler" | "MaxAbsScaler":
            scale = np.ones(1) if transformer.scale_ is None else transformer.scale_
            shift = getattr(transformer, "center_", None)
            if getattr(transformer, "with_mean", False):
                shift = transformer.mean_
            return builder.emit("scale_shift", register, scale=scale, shift=shift)
        case "MinMaxScaler":
            return builder.emit("shift_scale", register, shift=transformer.min_, scale=transformer.scale_)
        case "PowerTransformer":
            if transformer.standardize:
                register = _inverse(transformer._scaler, register, builder)
            kind = {"yeo-johnson": "inverse_yeo_johnson", "box-cox": "inverse_box_cox"}[transformer.method]
            return builder.emit(kind, register, power=float(transformer.lambdas_[0]))
        case "QuantileTransformer":
            return builder.emit(
                "inverse_quantiles",
                register,
                edges=np.ascontiguousarray(transformer.quantiles_[:, 0]),
                references=transformer.references_,
                normal=transformer.output_distribution == "normal",
            )
    raise UncompilableError(f"the inverse of {type(transformer).__name__} is not compiled")


# Linear models.


def _scores(estimator: Any, table: Table, builder: Builder) -> int:
    """Add X @ coef.T + intercept, shape (rows, scores)."""
    coef = np.ascontiguousarray(np.atleast_2d(_dense(estimator.coef_)))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), len(coef))
    sums: list[int] = []
    if len(coef) == 1:
        table, weights, sums = fuse_one_hot_sums(table, coef[0], builder)
        coef = weights[None, :]
    return builder.emit("linear", matrix(table, builder), *sums, coef=coef, intercept=intercept)


@compiles(
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "ElasticNet",
    "ElasticNetCV",
    "Lars",
    "LarsCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "BayesianRidge",
    "ARDRegression",
    "HuberRegressor",
    "TheilSenRegressor",
    "QuantileRegressor",
    "SGDRegressor",
    "LinearSVR",
)
def _linear_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    if np.ndim(estimator.coef_) == 2 and len(estimator.coef_) != 1:
        raise UncompilableError(f"it predicts {len(estimator.coef_)} targets at once")
    return Outputs(_scores(estimator, table, builder))


@compiles("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
def _generalized_linear(estimator: Any, table: Table, builder: Builder) -> Outputs:
    scores = _scores(estimator, table, builder)
    return Outputs(_inverse_link(estimator._base_loss.link, scores, builder))


@compiles("RidgeClassifier", "RidgeClassifierCV", "Perceptron", "LinearSVC")
def _linear_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    return _by_score(estimator, _scores(estimator, table, builder), builder)


@compiles("LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis")
def _logistic(estimator: Any, table: Table, builder: Builder) -> Outputs:
    scores = _scores(estimator, table, builder)
    if len(_labels(estimator)) > 2:
        return _by_score(estimator, scores, builder, builder.emit("softmax", scores))
    second = builder.emit("special", scores, name="expit")
    return _by_score(estimator, scores, builder, builder.emit("both_sides", second))


@compiles("SGDClassifier")
def _stochastic_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    scores = _scores(estimator, table, builder)
    if estimator.loss not in ("log_loss", "modified_huber"):
        return _by_score(estimator, scores, builder)
    if estimator.loss == "log_loss":
        each = builder.emit("special", scores, name="expit")
    else:
        each = builder.emit("modified_huber", scores)
    share = builder.emit("both_sides" if len(_labels(estimator)) == 2 else "shares", each)
    return _by_score(estimator, scores, builder, share)


@compiles("GaussianNB")
def _gaussian_naive_bayes(estimator: Any, table: Table, builder: Builder) -> Outputs:
    log_likelihood = builder.emit(
        "gaussian_log_likelihood",
        _finite(table, builder),
        mean=estimator.theta_,
        variance=estimator.var_,
        log_prior=np.log(estimator.class_prior_),
    )
    outputs = _by_probability(estimator, builder.emit("exp_normalized", log_likelihood), builder)
    return replace(outputs, predictions=builder.emit("first_greatest", log_likelihood))


# Kernels.


@compiles("SVR", "NuSVR")
def _support_vector_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    weights = _dense(estimator._dual_coef_)
    return Outputs(_support_vectors(estimator, weights, estimator._intercept_, table, builder))


@compiles("SVC", "NuSVC")
def _support_vector_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    labels = _labels(estimator)
    if hasattr(estimator, "predict_proba"):
        raise UncompilableError("its probabilities are not compiled")
    if estimator.break_ties and len(labels) > 2:
        raise UncompilableError("it breaks ties")
    # One against one: the vectors of label i have row j - 1 of the coefficients in the pair (i, j), those of j row i.
    of_label = np.repeat(np.arange(len(labels)), estimator._n_support)
    pairs = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    coefficients = _dense(estimator._dual_coef_)
    weights = [np.where(of_label == i, coefficients[j - 1], (of_label == j) * coefficients[i]) for i, j in pairs]
    decisions = _support_vectors(estimator, np.stack(weights), estimator._intercept_, table, builder)
    if len(labels) == 2:
        scores = builder.emit("function", decisions, name="negative")
        return Outputs(builder.emit("at_least", scores, threshold=0.0, above=1), None, labels, scores)
    position = builder.emit("duels", decisions, labels=len(labels))
    if estimator.decision_function_shape == "ovo":
        return Outputs(position, None, labels)
    return Outputs(position, None, labels, builder.emit("duel_scores", decisions, labels=len(labels)))


def _support_vectors(estimator: Any, weights: Array, intercept: Array, table: Table, builder: Builder) -> int:
    vectors = _dense(estimator.support_vectors_)
    return _kernel(estimator, vectors, weights, intercept, float(estimator._gamma), table, builder)


@compiles("KernelRidge")
def _kernel_ridge(estimator: Any, table: Table, builder: Builder) -> Outputs:
    if np.ndim(estimator.dual_coef_) == 2 and estimator.dual_coef_.shape[1] != 1:
        raise UncompilableError("it predicts several targets at once")
    vectors, weights = _dense(estimator.X_fit_), estimator.dual_coef_.reshape(1, -1)
    gamma = 1.0 / vectors.shape[1] if estimator.gamma is None else float(estimator.gamma)
    return Outputs(_kernel(estimator, vectors, weights, np.zeros(1), gamma, table, builder))


def _kernel(
    estimator: Any, vectors: Array, weights: Array, intercept: Array, gamma: float, table: Table, builder: Builder
) -> int:
    """Add sums of weight * kernel(x, vector), one per row of weights, and the intercept."""
    if estimator.kernel not in ("rbf", "linear", "poly", "polynomial", "sigmoid"):
        raise UncompilableError(f"its kernel is {estimator.kernel!r}")
    x = _finite(table, builder)
    if not len(vectors):
        return builder.emit("constant", x, row=intercept)
    center = vectors.mean(axis=0)
    return builder.emit(
        "kernel",
        x,
        kernel=estimator.kernel,
        vectors=vectors,
        weights=np.ascontiguousarray(weights),
        intercept=intercept,
        gamma=gamma,
        degree=float(estimator.degree),
        coef0=float(estimator.coef0),
        # |x|^2 - 2xv + |v|^2 is several times as fast as |x - v|^2, but its rounding grows with the norms.
        ordered=hasattr(estimator, "classes_"),
        expand=bool(gamma * ((vectors - center) ** 2).sum(axis=1).max() < 10),
    )


# Trees.


def _tree_sum(
    estimator: Any,
    trees: Sequence[Any],
    table: Table,
    builder: Builder,
    start: Array | int,
    divisor: int = 1,
    factor: float = 1.0,
    features: Sequence[Array] | None = None,
) -> int:
    """Add (start + factor * first tree's value + ...) / divisor, shape (rows, outputs).

    `features` says which of the columns each tree is given; None for all.
    """
    missing = estimator.__sklearn_tags__().input_tags.allow_nan and getattr(estimator, "monotonic_cst", None) is None
    given = matrix(checked(table, builder, missing and not table.sparse), builder)
    columns = TreeColumns([one == Finiteness.FINITE for one in builder.sure[given]])
    every = np.arange(columns.width)
    taken = [every] * len(trees) if features is None else features
    nodes = [float32_tree(tree, columns, of) for tree, of in zip(trees, taken, strict=True)]
    nodes = [replace(tree, value=factor * tree.value) for tree in nodes]
    return emit_tree_sum(builder, builder.emit("float32", given), columns, nodes, start, divisor)


@compiles("DecisionTreeRegressor", "ExtraTreeRegressor")
def _tree_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    return Outputs(_tree_sum(estimator, [estimator], table, builder, np.zeros(1)))


@compiles("DecisionTreeClassifier", "ExtraTreeClassifier")
def _tree_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    labels = _labels(estimator)
    return _by_probability(estimator, _tree_sum(estimator, [estimator], table, builder, np.zeros(len(labels))), builder)


@compiles("RandomForestRegressor", "ExtraTreesRegressor")
def _forest_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    trees = estimator.estimators_
    return Outputs(_tree_sum(estimator, trees, table, builder, np.zeros(1), len(trees)))


@compiles("RandomForestClassifier", "ExtraTreesClassifier")
def _forest_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    trees, labels = estimator.estimators_, _labels(estimator)
    mean = _tree_sum(estimator, trees, table, builder, np.zeros(len(labels)), len(trees))
    return _by_probability(estimator, mean, builder)


def _gradient_boosting(estimator: Any, table: Table, builder: Builder) -> int:
    """Add the raw predictions, shape (rows, outputs)."""
    first: Any = estimator.init_
    name = _class(first)
    start: Array | int
    if name in ("str", "DummyRegressor", "DummyClassifier"):
        start = estimator._raw_predict_init(np.zeros((1, len(table.columns)), np.float32))[0]
    elif name.endswith("Regressor") and ("Tree" in name or "Forest" in name):
        # It is given float32; what is not a tree would compute in it.
        width = len(table.columns)
        register = builder.emit("float32", _finite(table, builder), sure=[Finiteness.FINITE] * width)
        start = compile_estimator(first, numbers(register, width), builder).predictions
    else:
        raise UncompilableError(f"it starts from {type(first).__name__}")
    trees = estimator.estimators_.ravel()
    return _tree_sum(estimator, trees, table, builder, start, factor=estimator.learning_rate)


@compiles("GradientBoostingRegressor")
def _gradient_boosting_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    return Outputs(_gradient_boosting(estimator, table, builder))


@compiles("GradientBoostingClassifier")
def _gradient_boosting_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    raw = _gradient_boosting(estimator, table, builder)
    outputs = _by_score(estimator, raw, builder, _inverse_link(estimator._loss.link, raw, builder, both=True))
    if len(outputs.labels) > 2:
        return outputs
    return replace(outputs, predictions=builder.emit("at_least", raw, threshold=0.0, above=1))


def _histogram_boosting(estimator: Any, table: Table, builder: Builder) -> int:
    """Add the raw predictions, shape (rows, outputs)."""
    categories: dict[int, int] = {}
    if estimator._preprocessor is not None:
        # It encodes the categories, and puts those columns first.
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        sizes = [sum(one == one for one in known) for known in encoder.categories_]  # NaN is not itself
        categories = dict(enumerate(sizes))
        coded, rest = np.flatnonzero(estimator.is_categorical_), np.flatnonzero(~estimator.is_categorical_)
        encoded = compile_transformer(encoder, table.take(coded.tolist()), builder)
        table = Table((*encoded.columns, *table.take(rest.tolist()).columns))
    given = matrix(table, builder)
    columns = TreeColumns([one == Finiteness.FINITE for one in builder.sure[given]])
    trees = [histogram_tree(tree, columns, categories) for stage in estimator._predictors for tree in stage]
    start = np.asarray(estimator._baseline_prediction, np.float64).ravel()
    return emit_tree_sum(builder, given, columns, trees, start)


@compiles("HistGradientBoostingRegressor")
def _histogram_boosting_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    raw = _histogram_boosting(estimator, table, builder)
    return Outputs(_inverse_link(estimator._loss.link, raw, builder))


@compiles("HistGradientBoostingClassifier")
def _histogram_boosting_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    raw = _histogram_boosting(estimator, table, builder)
    return _by_score(estimator, raw, builder, _inverse_link(estimator._loss.link, raw, builder, both=True))


# Dummies.


@compiles("DummyRegressor")
def _dummy_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:  # noqa: ARG001
    if estimator.n_outputs_ != 1:
        raise UncompilableError(f"it predicts {estimator.n_outputs_} targets at once")
    return Outputs(builder.emit("constant", 0, row=np.asarray(estimator.constant_, np.float64).ravel()))


@compiles("DummyClassifier")
def _dummy_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:  # noqa: ARG001
    labels = _labels(estimator)
    if estimator.strategy not in ("prior", "most_frequent", "constant"):
        raise UncompilableError(f"its strategy is {estimator.strategy!r}, which is random")
    most = int(np.argmax(estimator.class_prior_))
    if estimator.strategy == "constant":
        most = int(np.flatnonzero(estimator.classes_ == np.ravel(estimator.constant)[0])[0])
    shares = estimator.class_prior_ if estimator.strategy == "prior" else np.eye(len(labels))[most]
    position = builder.emit("constant", 0, row=np.array([most]))
    return Outputs(position, builder.emit("constant", 0, row=np.asarray(shares, np.float64)), labels)


# Ensembles of any estimators.


@compiles("VotingRegressor")
def _voting_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    parts = [compile_estimator(one, table, builder).predictions for one in estimator.estimators_]
    return Outputs(builder.emit("average", *parts, weights=_plain(estimator._weights_not_none)))


@compiles("VotingClassifier")
def _voting_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    parts = [compile_estimator(one, table, builder) for one in estimator.estimators_]
    weights, labels = _plain(estimator._weights_not_none), _labels(estimator)
    if estimator.voting == "hard":
        _all_labels(estimator, parts)
        votes = builder.emit("votes", *(one.predictions for one in parts), labels=len(labels), weights=weights)
        return Outputs(builder.emit("first_greatest", votes), None, labels)
    shares = [_register(one.probabilities) for one in parts]
    return _by_probability(estimator, builder.emit("average", *shares, weights=weights), builder)


@compiles("StackingRegressor", "StackingClassifier")
def _stacking(estimator: Any, table: Table, builder: Builder) -> Outputs:
    """The predictions of the first estimators are columns of the last one's table."""
    columns: list[Any] = []
    for kind, one in zip(estimator.stack_method_, estimator.estimators_, strict=True):
        part = compile_estimator(one, table, builder)
        if kind == "predict_proba":
            first = 1 if len(part.labels) == 2 else 0
            register, taken = _register(part.probabilities), range(first, len(part.labels))
        elif kind == "decision_function":
            register, taken = _register(part.scores), range(len(part.labels) if len(part.labels) > 2 else 1)
        elif part.labels:
            register, taken = builder.emit("labels", part.predictions, labels=_numeric(part.labels)), range(1)
        else:
            register, taken = part.predictions, range(1)
        columns += _columns(builder, register, taken)
    if estimator.passthrough:
        columns += table.columns
    sparse = estimator.passthrough and table.sparse
    last = compile_estimator(estimator.final_estimator_, Table(tuple(columns), sparse=sparse), builder)
    if not last.labels:
        return last
    _all_labels(estimator, [last])
    return replace(last, labels=_labels(estimator))


@compiles("CalibratedClassifierCV")
def _calibrated(estimator: Any, table: Table, builder: Builder) -> Outputs:
    labels = _labels(estimator)
    parts = [_calibrated_one(one, labels, table, builder) for one in estimator.calibrated_classifiers_]
    return _by_probability(estimator, builder.emit("average", *parts, weights=None), builder)


def _calibrated_one(calibrated: Any, labels: tuple[Label, ...], table: Table, builder: Builder) -> int:
    inner = compile_estimator(calibrated.estimator, table, builder)
    width = 1 if len(labels) == 2 else len(inner.labels)
    if hasattr(calibrated.estimator, "decision_function"):
        scores = _register(inner.scores)
    else:
        scores = _register(inner.probabilities)
        scores = _take(builder, scores, [1]) if width == 1 else scores
    each = [
        _calibrator(one, _take(builder, scores, [index]) if width > 1 else scores, builder)
        for index, one in zip(range(width), calibrated.calibrators, strict=True)
    ]
    if width == 1:
        return builder.emit("capped", builder.emit("both_sides", each[0]))
    nothing = builder.emit("constant", 0, row=np.zeros(1))
    ordered = [each[inner.labels.index(label)] if label in inner.labels else nothing for label in labels]
    return builder.emit("capped", builder.emit("shares", builder.emit("columns", *ordered, take=None)))


def _calibrator(calibrator: Any, scores: int, builder: Builder) -> int:
    name = _class(calibrator)
    if name == "_SigmoidCalibration":
        return builder.emit("sigmoid", scores, slope=float(calibrator.a_), intercept=float(calibrator.b_))
    if name == "IsotonicRegression" and calibrator.out_of_bounds == "clip":
        x, y = calibrator.X_thresholds_, calibrator.y_thresholds_
        if x.dtype == y.dtype == np.float64:
            return builder.emit("interpolate", scores, x=x, y=y)
    raise UncompilableError(f"its calibrator {type(calibrator).__name__} is not compiled")


@compiles("BaggingRegressor")
def _bagging_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    table, each, features = _as_matrix(table, builder), estimator.estimators_, estimator.estimators_features_
    if {_class(one) for one in each} <= {"DecisionTreeRegressor", "ExtraTreeRegressor"}:
        return Outputs(_tree_sum(each[0], each, table, builder, np.zeros(1), len(each), features=features))
    pairs = zip(each, features, strict=True)
    parts = [compile_estimator(one, table.take(taken.tolist()), builder).predictions for one, taken in pairs]
    return Outputs(builder.emit("average", *parts, weights=None))


@compiles("BaggingClassifier")
def _bagging_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    table, each, features = _as_matrix(table, builder), estimator.estimators_, estimator.estimators_features_
    labels, shares = _labels(estimator), []
    if {_class(one) for one in each} <= {"DecisionTreeClassifier", "ExtraTreeClassifier"} and all(
        len(one.classes_) == len(labels) for one in each
    ):
        start = np.zeros(len(labels))
        mean = _tree_sum(each[0], each, table, builder, start, len(each), features=features)
        return _by_probability(estimator, mean, builder)
    for one, taken in zip(each, features, strict=True):
        part = compile_estimator(one, table.take(taken.tolist()), builder)
        share = part.probabilities
        if share is None:
            share = builder.emit("votes", part.predictions, labels=len(part.labels), weights=None)
        if part.labels != tuple(range(len(labels))):  # a sample may lack a label
            nothing = builder.emit("constant", 0, row=np.zeros(1))
            places = [part.labels.index(label) + 1 if label in part.labels else 0 for label in range(len(labels))]
            share = builder.emit("columns", nothing, share, take=places)
        shares.append(share)
    return _by_probability(estimator, builder.emit("average", *shares, weights=None), builder)


@compiles("AdaBoostRegressor")
def _ada_boost_regressor(estimator: Any, table: Table, builder: Builder) -> Outputs:
    table = _as_matrix(checked(table, builder, missing=False), builder)
    parts = [compile_estimator(one, table, builder).predictions for one in estimator.estimators_]
    return Outputs(builder.emit("weighted_median", *parts, weights=estimator.estimator_weights_[: len(parts)]))


@compiles("AdaBoostClassifier")
def _ada_boost_classifier(estimator: Any, table: Table, builder: Builder) -> Outputs:
    labels, table = _labels(estimator), _as_matrix(checked(table, builder, missing=False), builder)
    parts = [compile_estimator(one, table, builder) for one in estimator.estimators_]
    if any(part.labels != labels for part in parts):
        raise UncompilableError("one of its estimators lacks a label")
    weights = estimator.estimator_weights_
    scores = builder.emit(
        "boosted_votes",
        *(part.predictions for part in parts),
        labels=len(labels),
        weights=weights[: len(parts)],
        total=float(weights.sum()),
    )
    scaled = builder.emit("boosted_scores", scores, labels=len(labels))
    return _by_score(estimator, scores, builder, builder.emit("softmax", scaled))


# What several of the functions above share.


def _finite(table: Table, builder: Builder) -> int:
    """Add the matrix of a table, unanswerable where a value is missing or infinite, which estimators refuse."""
    return matrix(checked(table, builder, missing=False), builder)


def _class(step: Any) -> str:
    """Return the name of a class of scikit-learn (or `str`); empty for any other, which may have the same name."""
    return type(step).__name__ if type(step).__module__.startswith(("sklearn.", "builtins")) else ""


def _as_matrix(table: Table, builder: Builder) -> Table:
    """Return the table after scikit-learn made a matrix of a frame."""
    return numbers(matrix(table, builder), len(table.columns), sparse=table.sparse)


def _dense(values: Any) -> Array:
    """Return an array, or a sparse matrix as one, in float64."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)


def _labels(estimator: Any) -> tuple[Label, ...]:
    if isinstance(estimator.classes_, list) or np.ndim(estimator.classes_) != 1:
        raise UncompilableError("it predicts several targets at once")
    labels = tuple(np.asarray(estimator.classes_).tolist())
    if len(labels) < 2:
        raise UncompilableError(f"its only label is {labels[0]!r}")
    return labels


def _by_score(estimator: Any, scores: int, builder: Builder, probabilities: int | None = None) -> Outputs:
    labels = _labels(estimator)
    if len(labels) == 2:
        return Outputs(builder.emit("above", scores, threshold=0.0), probabilities, labels, scores)
    return Outputs(builder.emit("first_greatest", scores), probabilities, labels, scores)


def _by_probability(estimator: Any, probabilities: int, builder: Builder) -> Outputs:
    return Outputs(builder.emit("first_greatest", probabilities), probabilities, _labels(estimator))


def _all_labels(estimator: Any, parts: Sequence[Outputs]) -> None:
    """Raise unless the parts, which were trained on positions of the labels, know all of them."""
    if any(part.labels != tuple(range(len(_labels(estimator)))) for part in parts):
        raise UncompilableError("one of its estimators lacks a label")


def _register(register: int | None) -> int:
    if register is None:
        raise UncompilableError("it uses probabilities or scores that are not compiled")
    return register


def _numeric(labels: tuple[Label, ...]) -> Array:
    if any(isinstance(label, str) for label in labels):
        raise UncompilableError("a stacked classifier predicts text")
    return np.array(labels, np.float64)


def _plain(weights: Sequence[float] | None) -> list[float] | None:
    return None if weights is None else [float(weight) for weight in weights]


def _columns(builder: Builder, register: int, indices: Sequence[int]) -> list[Number]:
    """Return columns of a register whose width was not needed so far."""
    if register not in builder.sure or len(builder.sure[register]) <= max(indices):
        builder.sure[register] = (Finiteness.NOTHING,) * (max(indices) + 1)
    return [Number(register, index) for index in indices]


def _take(builder: Builder, register: int, indices: Sequence[int]) -> int:
    return builder.emit("columns", register, take=[*indices], width=len(indices))


def _inverse_link(link: Any, raw: int, builder: Builder, both: bool = False) -> int:
    """Add the inverse of a scikit-learn link; `both` also gives the probability of the first of two labels."""
    name = type(link).__name__
    if name == "IdentityLink":
        return raw
    if name == "MultinomialLogit":
        return builder.emit("softmax", raw)
    if name == "HalfLogitLink":
        raw = builder.emit("scale_shift", raw, scale=np.full(1, 2.0), shift=None)
    functions = {
        "LogLink": ("function", "exp"),
        "LogitLink": ("special", "expit"),
        "HalfLogitLink": ("special", "expit"),
    }
    if name not in functions:
        raise UncompilableError(f"its link {name} is not compiled")
    kind, function = functions[name]
    result = builder.emit(kind, raw, name=function)
    return builder.emit("both_sides", result) if both else result


def _function(builder: Builder, register: int, function: Any) -> int:
    """Add a function of one array that NumPy or scipy.special has as a ufunc."""
    name = getattr(function, "__name__", repr(function))
    if isinstance(function, np.ufunc) and function.nin == function.nout == 1:
        for kind, module in (("function", np), ("special", importlib.import_module("scipy.special"))):
            if getattr(module, name, None) is function:
                return builder.emit(kind, register, name=name)
    raise UncompilableError(f"{name} is not a universal function of NumPy")
