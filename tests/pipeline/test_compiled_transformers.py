"""Each transformer against the library's own output, on rows made to be hostile."""

import numpy as np
import pyarrow as pa
import pytest
from feature_engine import creation, encoding, imputation, outliers, selection, transformation
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
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

from pipeline.compiled import (  # noqa: F401  they register their emitters
    CompiledModel,
    Plan,
    UnanswerableError,
    UncompilableError,
    columns_of,
    encoders,
    engineered,
    transformers,
)
from pipeline.compiled.plan import Builder
from pipeline.compiled.registry import compile_transformer
from pipeline.compiled.table import input_table, matrix
from pipeline.schema import Feature, to_frame

NUMBERS = tuple(Feature(name, "number", False) for name in ("a", "b", "c"))
TEXTS = tuple(Feature(name, "text", False) for name in ("s", "t"))
FEATURES = (NUMBERS[0], TEXTS[0], NUMBERS[1], TEXTS[1], NUMBERS[2])
Y = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 9.0, 7.0, 8.0, 6.0, 10.0, 12.0, 11.0])

TRAINING = pa.table(
    {
        "a": [1.0, 2.5, 3.0, 0.1, 7.0, 12.0, 5.0, 2.0, 3.5, 8.0, 1.5, 4.0],
        "b": [-3.0, 0.0, 2.0, 0.0, 1e-3, -0.5, 6.0, 100.0, -2.0, 0.7, 0.2, 5.0],
        "c": [10.0, 20.0, 20.0, 10.0, 30.0, 30.0, 30.0, 10.0, 20.0, 20.0, 10.0, 30.0],
        "s": ["x", "y", "x", "z", "x", "y", "x", "y", "y", "x", "rare", "x"],
        "t": ["no", "yes", "no", "no", "yes", "no", "yes", "yes", "no", "no", "yes", "yes"],
    }
)
GAPS = TRAINING.set_column(0, "a", pa.array([None, *TRAINING["a"].to_pylist()[1:]])).set_column(
    3, "s", pa.array([*TRAINING["s"].to_pylist()[:-1], None])
)
USUAL = pa.table(
    {
        "a": [1.0, 2.0, 0.1, 100.0, 12.0, 1e-300, 3.5],
        "b": [0.0, -0.0, -1.0, 1e-308, 100.0, 0.7, -1e5],
        "c": [10.0, 20.0, 30.0, 25.0, 20.0, 10.0, 30.0],
        "s": ["x", "y", "z", "rare", "x", "x", "y"],
        "t": ["no", "yes", "no", "yes", "no", "no", "yes"],
    }
)
EXTREMES = pa.table(
    {
        "a": [1e308, -1e308, 1e-308, 0.0, np.nextafter(12.0, 13.0), 16777217.0, -1.0],
        "b": [-1e30, 1e30, -1e-320, 5e-324, np.nextafter(6.0, 0.0), -2.5, 0.0],
        "c": [10.0, 15.0, -7.0, 1e9, 20.0, 30.0, 10.0],
        "s": ["never seen", "", "x", "None", "NA", "nan", "\u00e9\U0001f600"],
        "t": ["no", "yes", "", "No", "YES", "no ", "maybe"],
    }
)
NULLS = pa.table(
    {
        "a": [None, 1.0, 2.0, None],
        "b": [1.0, None, 3.0, None],
        "c": [10.0, 20.0, None, None],
        "s": ["x", None, "y", None],
        "t": [None, "yes", "no", None],
    },
    TRAINING.schema,
)


def program_of(transformer, features):
    """The transformer's own program: it answers with the matrix."""
    builder = Builder(features)
    register = matrix(compile_transformer(transformer, input_table(features, builder), builder), builder)
    plan = Plan(builder.numbers, builder.times, builder.texts, tuple(builder.operations), register)
    return lambda table: CompiledModel(plan).registers(*columns_of(table, plan))[register]


def assert_same(transformer, features=FEATURES, training=TRAINING, held=(USUAL, EXTREMES, NULLS), close=False):
    """Fit, compile, and compare with the transformer's own output, in batches and row by row.

    Rows that the transformer refuses must be unanswerable; returns which these are, by table.
    """
    names = [feature.name for feature in features]
    transformer.fit(to_frame(training.select(names), features), Y)
    program = program_of(transformer, features)
    refused = []
    for table in (training.select(names), *(table.select(names) for table in held)):
        refused.append([row for row in range(len(table)) if not answers(transformer, table.slice(row, 1), features)])
        for row in refused[-1]:
            with pytest.raises(UnanswerableError):
                program(table.slice(row, 1))
        left = table.filter(pa.array([row not in refused[-1] for row in range(len(table))]))
        if not len(left):
            continue
        want = transformer.transform(to_frame(left, features))
        want = np.asarray(want.toarray() if hasattr(want, "toarray") else want, dtype=np.float64)
        for got in (program(left), np.vstack([program(left.slice(row, 1)) for row in range(len(left))])):
            if close:
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
            else:
                np.testing.assert_array_equal(got, want)
    assert refused[0] == []
    return refused[1:]


def answers(transformer, row, features):
    """Whether a fitted transformer takes a row."""
    try:
        transformer.transform(to_frame(row, features))
    except ValueError:
        return False
    return True


NUMERIC = {
    "standard": StandardScaler(),
    "standard, no mean": StandardScaler(with_mean=False),
    "standard, no deviation": StandardScaler(with_std=False),
    "standard, neither": StandardScaler(with_mean=False, with_std=False),
    "min-max": MinMaxScaler((-1, 2)),
    "min-max, clipped": MinMaxScaler(clip=True),
    "max-abs": MaxAbsScaler(),
    "max-abs, clipped": MaxAbsScaler(clip=True),
    "robust": RobustScaler(),
    "robust, no centre": RobustScaler(with_centering=False, quantile_range=(10, 90)),
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson, not standardized": PowerTransformer(standardize=False),
    "quantiles": QuantileTransformer(n_quantiles=7),
    "quantiles, normal": QuantileTransformer(n_quantiles=12, output_distribution="normal"),
    "imputer, mean": SimpleImputer(),
    "imputer, median": SimpleImputer(strategy="median", add_indicator=True),
    "imputer, most frequent": SimpleImputer(strategy="most_frequent"),
    "imputer, constant": SimpleImputer(strategy="constant", fill_value=-1.0),
    "imputer, after imputer": make_pipeline(SimpleImputer(), SimpleImputer(strategy="constant", fill_value=5.0)),
    "indicator": MissingIndicator(features="all"),
    "indicator, sparse": MissingIndicator(features="all", sparse=True),
    "function": FunctionTransformer(np.cbrt),
    "function, none": FunctionTransformer(),
    "variance": VarianceThreshold(5.0),
    "pandas out": make_pipeline(SimpleImputer(), StandardScaler()).set_output(transform="pandas"),
    "fill, then select": make_pipeline(SimpleImputer(strategy="median"), SelectKBest(k=2)),
    "polynomial": make_pipeline(SimpleImputer(), MinMaxScaler(clip=True), PolynomialFeatures(3)),
}


@pytest.mark.parametrize("name", NUMERIC)
def test_a_transformer_of_numbers_is_compiled_to_the_bit(name):
    assert_same(NUMERIC[name], NUMBERS, training=TRAINING)
    assert_same(NUMERIC[name], NUMBERS, training=GAPS) if "polynomial" not in name and "variance" not in name else None


GIVEN = {
    "binarizer": Binarizer(threshold=2.5),
    "bins, ordinal": KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    "bins, one-hot": KBinsDiscretizer([2, 3, 4], strategy="uniform"),
    "bins, one-hot, dense": KBinsDiscretizer(3, encode="onehot-dense", strategy="kmeans"),
    "polynomial": PolynomialFeatures(),
    "polynomial, degrees": PolynomialFeatures((2, 3), include_bias=False),
    "polynomial, interactions": PolynomialFeatures(3, interaction_only=True),
    "percentile": SelectPercentile(percentile=40),
    "l1": Normalizer("l1"),
    "l2": Normalizer("l2"),
    "max": Normalizer("max"),
    "pca": PCA(2, whiten=True),
    "svd": TruncatedSVD(2),
}
# Their sums are made in another order.
CLOSE = ("l1", "l2", "pca", "svd")


@pytest.mark.parametrize("name", GIVEN)
def test_a_transformer_that_refuses_nulls_is_compiled(name):
    assert_same(GIVEN[name], NUMBERS, held=(USUAL,), close=name in CLOSE)


@pytest.mark.parametrize("name", GIVEN)
def test_a_row_that_a_transformer_refuses_is_unanswerable(name):
    assert assert_same(GIVEN[name], NUMBERS, held=(NULLS,), close=name in CLOSE) == [[0, 1, 2, 3]]


def test_box_cox_is_compiled_and_refuses_what_is_not_positive():
    positive = (Feature("a", "number", False),)
    assert_same(PowerTransformer("box-cox"), positive, held=(USUAL, NULLS))
    assert assert_same(PowerTransformer("box-cox"), positive, held=(EXTREMES,)) == [[1, 3, 6]]


def test_an_infinity_made_on_the_way_is_refused_where_scikit_learn_refuses_it():
    for swallowing in (
        MinMaxScaler(clip=True),
        QuantileTransformer(n_quantiles=5),
        OneHotEncoder(handle_unknown="ignore"),
    ):
        steps = make_pipeline(FunctionTransformer(np.exp), swallowing)
        assert assert_same(steps, NUMBERS[:1], held=(EXTREMES,)) == [[0, 5]]


def test_a_column_without_values_in_training_is_left_out_or_kept_as_the_imputer_does():
    empty = GAPS.set_column(1, "b", pa.nulls(12, pa.float64()))
    for kept in (False, True):
        imputer = SimpleImputer(keep_empty_features=kept, add_indicator=True)
        assert_same(imputer, NUMBERS, training=empty)


def test_an_indicator_refuses_nulls_where_training_had_none():
    assert assert_same(MissingIndicator(), NUMBERS, training=GAPS, held=(NULLS,)) == [[1, 2, 3]]


WORDS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "one-hot, dense": OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    "one-hot, infrequent": OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=3),
    "one-hot, most categories": OneHotEncoder(handle_unknown="warn", max_categories=2),
    "one-hot, first dropped": OneHotEncoder(handle_unknown="ignore", drop="first"),
    "one-hot, binary dropped": OneHotEncoder(handle_unknown="infrequent_if_exist", drop="if_binary", min_frequency=2),
    "one-hot, one dropped": OneHotEncoder(handle_unknown="ignore", drop=["y", "yes"]),
    "one-hot, categories": OneHotEncoder(categories=[["x", "y", "q"], ["yes"]], handle_unknown="ignore"),
    "one-hot, pandas out": OneHotEncoder(handle_unknown="ignore", sparse_output=False).set_output(transform="pandas"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "ordinal, nan": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-2),
    "ordinal, infrequent": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99, min_frequency=3),
    "target": TargetEncoder(target_type="continuous"),
    "target, after imputer": make_pipeline(SimpleImputer(strategy="most_frequent"), TargetEncoder()),
    "imputer, constant": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="x"), OneHotEncoder(handle_unknown="ignore")
    ),
    "imputer, indicator": make_pipeline(
        SimpleImputer(strategy="most_frequent", add_indicator=True), OneHotEncoder(handle_unknown="ignore")
    ),
    "indicator": MissingIndicator(features="all"),
}


@pytest.mark.parametrize("training", [TRAINING, GAPS], ids=["whole", "gaps"])
@pytest.mark.parametrize("name", WORDS)
def test_an_encoder_of_texts_is_compiled_to_the_bit(name, training):
    assert_same(WORDS[name], TEXTS, training=training)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()])
def test_a_category_that_an_encoder_refuses_is_unanswerable(encoder):
    assert assert_same(encoder, TEXTS, held=(EXTREMES,)) == [[0, 1, 2, 3, 4, 5, 6]]
    assert assert_same(encoder, TEXTS, held=(USUAL,)) == [[]]
    assert assert_same(encoder, TEXTS, held=(NULLS,)) == [[0, 1, 3]]
    assert assert_same(encoder, TEXTS, training=GAPS, held=(NULLS,)) == [[0, 3]]


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5, encoded_missing_value=-6),
        TargetEncoder(target_type="continuous"),
    ],
)
@pytest.mark.parametrize("training", [TRAINING, GAPS], ids=["whole", "gaps"])
def test_numbers_can_be_categories(encoder, training):
    assert_same(encoder, NUMBERS, training=training)
    assert_same(make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), FEATURES, training=training)


def test_a_number_that_an_encoder_refuses_is_unanswerable():
    assert assert_same(OneHotEncoder(), (NUMBERS[2],), held=(EXTREMES,)) == [[1, 2, 3]]
    assert assert_same(OneHotEncoder(), (NUMBERS[2],), held=(NULLS,)) == [[2, 3]]


@pytest.mark.parametrize("labels", [["no", "yes"] * 6, ["p", "q", "r"] * 4], ids=["binary", "multiclass"])
def test_a_target_encoder_of_labels_is_compiled_to_the_bit(labels, monkeypatch):
    monkeypatch.setitem(globals(), "Y", np.array(labels, dtype=object))
    assert_same(TargetEncoder(), TEXTS, training=GAPS)
    assert_same(TargetEncoder(), FEATURES, training=GAPS)


def sides(**options):
    """A column transformer of everything at once."""
    return make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["b", "a"]),
        (OneHotEncoder(handle_unknown="ignore"), ["t"]),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["s"]),
        **options,
    )


COLUMNS = {
    "remainder dropped": sides(),
    "remainder passed through": sides(remainder="passthrough"),
    "remainder transformed": sides(remainder=MinMaxScaler()),
    "sparse": sides(sparse_threshold=1.0, remainder="passthrough"),
    "weights": ColumnTransformer(
        [("a", StandardScaler(), ["a"]), ("b", SimpleImputer(), ["b"])], transformer_weights={"b": 0.3}
    ),
    "positions": make_column_transformer((StandardScaler(), [4, 0]), (MinMaxScaler(), slice(2, 3))),
    "masks": make_column_transformer((StandardScaler(), [True, False, True, False, False])),
    "selectors": make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    ),
    "dropped and empty": make_column_transformer(
        ("drop", ["s", "a"]),
        (StandardScaler(), []),
        ("passthrough", ["c"]),
        (OneHotEncoder(handle_unknown="ignore"), ["t"]),
    ),
    "names after names": make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["a", "b"]), ("passthrough", ["s"]), verbose_feature_names_out=False
        ).set_output(transform="pandas"),
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["s"]), (StandardScaler(), ["b", "a"])),
    ),
    "objects after objects": make_pipeline(
        make_column_transformer((SimpleImputer(), ["a", "b"]), (SimpleImputer(strategy="most_frequent"), ["s", "t"])),
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [2, 3]), remainder=StandardScaler()),
    ),
    "sparse, scaled": make_pipeline(sides(sparse_threshold=1.0), MaxAbsScaler()),
    "sparse, standardized": make_pipeline(sides(sparse_threshold=1.0), StandardScaler(with_mean=False)),
    "union": make_pipeline(sides(), make_union(StandardScaler(with_mean=False), FunctionTransformer(np.square))),
    "union, weights": FeatureUnion(
        [("one", sides()), ("two", sides(remainder="passthrough")), ("three", "drop")], transformer_weights={"one": 0.1}
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("training", [TRAINING, GAPS], ids=["whole", "gaps"])
def test_columns_go_where_scikit_learn_sends_them(name, training):
    assert_same(COLUMNS[name], training=training)


AB = ["a", "b"]
ENGINEERED = {
    "texts": imputation.CategoricalImputer(fill_value="x", variables=["s", "t"]),
    "frequent": imputation.CategoricalImputer(imputation_method="frequent", variables=["s"]),
    "arbitrary": imputation.ArbitraryNumberImputer(-3, variables=AB),
    "mean": imputation.MeanMedianImputer("mean", variables=AB),
    "tail": imputation.EndTailImputer(variables=AB),
    "sum": creation.MathFeatures(AB, "sum", missing_values="ignore"),
    "several": creation.MathFeatures(
        ["a", "b", "c"], ["sum", "prod", "mean", "min", "max"], missing_values="ignore", drop_original=True
    ),
    "relative": creation.RelativeFeatures(AB, ["c", "a"], ["sub", "add", "mul", "div"], fill_value=-1.0),
    "rare": encoding.RareLabelEncoder(0.2, n_categories=1, variables=["s"], missing_values="ignore"),
    "rare, after texts": make_pipeline(
        imputation.CategoricalImputer(fill_value="x", variables=["s", "t"]),
        encoding.RareLabelEncoder(0.2, n_categories=1, variables=["s"], replace_with="y"),
        encoding.RareLabelEncoder(0.6, n_categories=1, variables=["s"], replace_with="few"),
    ),
    "dropped": selection.DropFeatures(["b", "t"]),
}


@pytest.mark.parametrize("name", ENGINEERED)
@pytest.mark.parametrize("training", [TRAINING, GAPS], ids=["whole", "gaps"])
def test_a_transformer_of_feature_engine_is_compiled_to_the_bit(name, training):
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    texts = make_column_transformer(
        (encoder, make_column_selector(dtype_exclude="number")), remainder="passthrough", sparse_threshold=0
    )
    assert_same(make_pipeline(ENGINEERED[name], texts), training=training)


def test_names_made_by_feature_engine_can_be_selected():
    steps = make_pipeline(
        imputation.MeanMedianImputer(variables=["a", "b", "c"]),
        creation.MathFeatures(["a", "b"], "sum", new_variables_names=["both"]),
        creation.RelativeFeatures(["both"], ["c"], ["sub"]),
        outliers.Winsorizer("quantiles", tail="both", fold=0.1, variables=["both", "c"]),
        make_column_transformer((PowerTransformer(), ["both_sub_c", "both", "c"])),
    )
    assert_same(steps, held=(USUAL, NULLS))


STRICT = {
    "winsorizer": outliers.Winsorizer("iqr", tail="both", variables=AB),
    "capper": outliers.ArbitraryOutlierCapper({"a": 5.0}, {"b": 0.0}),
    "yeo-johnson": transformation.YeoJohnsonTransformer(variables=AB),
    "cyclical": creation.CyclicalFeatures(variables=AB, drop_original=True),
    "sum": creation.MathFeatures(AB, "sum"),
}


@pytest.mark.parametrize("name", STRICT)
def test_a_strict_transformer_of_feature_engine_is_compiled_and_refuses_nulls(name):
    assert_same(STRICT[name], NUMBERS, held=(USUAL, EXTREMES))
    assert assert_same(STRICT[name], NUMBERS, held=(NULLS,)) == [[0, 1, 3]]


def test_logarithms_and_divisions_refuse_what_feature_engine_refuses():
    positive = (NUMBERS[0], NUMBERS[2])
    for steps in (transformation.LogTransformer(base="10"), transformation.LogCpTransformer(C=2)):
        assert_same(steps, positive, held=(USUAL,))
    assert assert_same(transformation.LogTransformer(), positive, held=(EXTREMES,)) == [[1, 2, 3, 6]]
    assert assert_same(creation.RelativeFeatures(["b"], ["a"], ["div"]), NUMBERS, held=(EXTREMES,)) == [[3]]


@pytest.mark.parametrize("unseen", ["ignore", "encode", "raise"])
def test_encoders_of_feature_engine_are_compiled(unseen):
    steps = encoding.MeanEncoder(variables=["s", "t"], unseen=unseen)
    if unseen == "raise":
        assert assert_same(steps, held=(USUAL, EXTREMES)) == [[], [0, 1, 2, 3, 4, 5, 6]]
    else:
        assert_same(steps, held=(USUAL, EXTREMES))


def test_whole_numbers_that_a_target_encoder_takes_for_labels_are_refused_with_advice():
    rng = np.random.default_rng(0)
    frame = to_frame(pa.table({"s": rng.choice(["a", "b", "c"], 900)}), (Feature("s", "text", False),))
    encoder = TargetEncoder(cv=2).fit(frame, np.arange(900.0) // 2)
    with pytest.raises(
        UncompilableError, match=r'TargetEncoder: it took the target\'s 450 .* give it target_type="continuous"'
    ):
        program_of(encoder, (Feature("s", "text", False),))


def test_a_timestamp_that_is_dropped_does_not_stand_in_the_way():
    features = (Feature("when", "timestamp", False), NUMBERS[0])
    table = TRAINING.append_column("when", pa.array([1_700_000_000_000_000] * 12, pa.timestamp("us")))
    steps = make_column_transformer((StandardScaler(), ["a"]))
    assert_same(steps, features, training=table, held=())


class Own(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):  # noqa: ARG002
        return self

    def transform(self, X):
        return X


class Overridden(StandardScaler):
    """Might do anything."""


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Own(), "Pipeline: Own: the compiler does not know this class"),
        (Overridden(), "Pipeline: Overridden: the compiler does not know this class"),
        (
            FunctionTransformer(np.nan_to_num),
            "Pipeline: FunctionTransformer: its function nan_to_num is not a universal",
        ),
        (SimpleImputer(missing_values=-1.0), "Pipeline: SimpleImputer: missing_values is -1.0; only NaN is compiled"),
    ],
)
def test_what_is_not_known_is_not_compiled_and_the_message_says_which_step_and_why(step, why):
    steps = make_pipeline(StandardScaler(), step).fit(to_frame(TRAINING.select(["a"]), NUMBERS[:1]))
    with pytest.raises(UncompilableError, match=why):
        program_of(steps, NUMBERS[:1])


def test_texts_that_reach_a_step_of_numbers_are_not_compiled():
    steps = make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough")
    steps.fit(to_frame(TRAINING, FEATURES))
    with pytest.raises(UncompilableError, match="text reaches a step that takes numbers"):
        program_of(steps, FEATURES)


def test_a_function_of_booleans_which_numpy_computes_in_16_bits_is_left_to_the_estimator():
    transformer = make_pipeline(MissingIndicator(features="all"), FunctionTransformer(np.exp))
    frame = to_frame(GAPS, NUMBERS)
    assert transformer.fit_transform(frame).dtype == np.float16
    builder = Builder(NUMBERS)
    with pytest.raises(UncompilableError, match="booleans reach it"):
        compile_transformer(transformer, input_table(NUMBERS, builder), builder)
