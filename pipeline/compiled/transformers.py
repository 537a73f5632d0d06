"""How each of scikit-learn's transformers becomes operations: one short function per class."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from pipeline.compiled.plan import Array, Builder, Finiteness
from pipeline.compiled.registry import (
    checked_for_nulls,
    compile_transformer,
    compiles,
    elementwise,
    emit_lookup,
    emit_one_hot,
    filled,
    named,
    output_of,
)
from pipeline.compiled.table import Column, Number, Table, Text, UncompilableError, checked, matrix, numbers

# What holds other transformers.


@compiles("sklearn", "Pipeline")
def pipeline(transformer: Any, table: Table, builder: Builder) -> Table:
    """One step after the other."""
    for _, step in transformer.steps:
        if step is not None and step != "passthrough":
            table = compile_transformer(step, table, builder)
    return table


@compiles("sklearn", "ColumnTransformer")
def column_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Transformers of some columns each, side by side; the columns were chosen when it was fitted."""
    if table.names is not None and list(table.names) != list(getattr(transformer, "feature_names_in_", table.names)):
        raise UncompilableError("it was fitted on other columns")
    parts = []
    for name, step, wanted in transformer.transformers_:
        places = transformer._transformer_to_input_indices[name]
        if (isinstance(step, str) and step == "drop") or not len(places):
            continue
        if isinstance(wanted, str | int):
            raise UncompilableError(f"it gives {name!r} one column as a vector")
        part = table.take(places)
        if not isinstance(step, str):
            part = compile_transformer(step, part, builder)
        parts.append(_with_transformer_weights(part, (transformer.transformer_weights or {}).get(name), builder))
    return named(transformer, table, _side_by_side(parts, transformer.sparse_output_))


@compiles("sklearn", "FeatureUnion")
def feature_union(transformer: Any, table: Table, builder: Builder) -> Table:
    """Transformers of all columns each, side by side."""
    parts = []
    for name, step in transformer.transformer_list:
        if isinstance(step, str) and step == "drop":
            continue
        part = table if isinstance(step, str) else compile_transformer(step, table, builder)
        parts.append(_with_transformer_weights(part, (transformer.transformer_weights or {}).get(name), builder))
    return named(transformer, table, _side_by_side(parts, any(part.sparse for part in parts)))


def _with_transformer_weights(table: Table, weight: float | None, builder: Builder) -> Table:
    if weight is None:
        return table
    width = len(table.columns)
    scale = np.full(width, float(weight))
    register = builder.emit("scale_shift", matrix(table, builder), width=width, scale=scale, shift=None)
    return numbers(register, width, table.names, table.sparse)


def _side_by_side(parts: Sequence[Table], sparse: bool) -> Table:
    return Table(tuple(column for part in parts for column in part.columns), None, sparse)


# Missing values.


@compiles("sklearn", "SimpleImputer")
def simple_imputer(transformer: Any, table: Table, builder: Builder) -> Table:
    """A value in place of missing ones; columns without any value in training are dropped."""
    _only_nan(transformer)
    table = checked(table, builder)
    columns: list[Column] = []
    for column, value in zip(table.columns, transformer.statistics_.tolist(), strict=True):
        if value is None or (isinstance(value, float) and np.isnan(value)):
            if transformer.keep_empty_features:
                raise UncompilableError("it puts a missing value in the place of missing ones")
        else:
            columns.append(filled(column, value))
    if transformer.add_indicator:
        columns += _indicators(table.take(transformer.indicator_.features_.tolist()), builder).columns
    return named(transformer, table, Table(tuple(columns), None, table.sparse))


@compiles("sklearn", "MissingIndicator")
def missing_indicator(transformer: Any, table: Table, builder: Builder) -> Table:
    """1 if missing, for the columns with missing values in training, or for all."""
    _only_nan(transformer)
    table = checked(table, builder)
    if transformer.features == "missing-only" and transformer.error_on_new:
        never = [place for place in range(len(table.columns)) if place not in transformer.features_]
        table = checked_for_nulls(table, never, builder)
    result = _indicators(table.take(transformer.features_.tolist()), builder)
    booleans = tuple(replace(column, boolean=True) for column in result.columns if isinstance(column, Number))
    result = replace(result, columns=booleans)
    sparse = transformer.sparse is True or (transformer.sparse == "auto" and table.sparse)
    return named(transformer, table, replace(result, sparse=sparse))


def _indicators(table: Table, builder: Builder) -> Table:
    columns: list[Number | None] = [None] * len(table.columns)
    places = [place for place, column in enumerate(table.columns) if isinstance(column, Number)]
    if places:
        register = matrix(table.take(places), builder)
        register = builder.emit("is_nan", register, sure=[Finiteness.FINITE] * len(places))
        for index, place in enumerate(places):
            columns[place] = Number(register, index)
    places = [place for place, column in enumerate(table.columns) if isinstance(column, Text)]
    if places:
        texts = [column for column in table.columns if isinstance(column, Text)]
        missing = [float(column.missing is None) for column in texts]
        register = emit_lookup(texts, [{}] * len(texts), missing, [0.0] * len(texts), builder)
        for index, place in enumerate(places):
            columns[place] = Number(register, index)
    if None in columns:
        raise UncompilableError("a timestamp reaches it")
    return Table(tuple(columns))  # type: ignore[arg-type]


def _only_nan(transformer: Any) -> None:
    value = transformer.missing_values
    if not (isinstance(value, float) and np.isnan(value)):
        raise UncompilableError(f"missing_values is {value!r}; only NaN is compiled")


# Scales and shapes.


@compiles("sklearn", "StandardScaler")
def standard_scaler(transformer: Any, table: Table, builder: Builder) -> Table:
    """(x - mean) / deviation."""
    return _scaled(
        transformer,
        table,
        builder,
        transformer.mean_ if transformer.with_mean else None,
        transformer.scale_ if transformer.with_std else None,
    )


@compiles("sklearn", "RobustScaler")
def robust_scaler(transformer: Any, table: Table, builder: Builder) -> Table:
    """(x - median) / range."""
    return _scaled(
        transformer,
        table,
        builder,
        transformer.center_ if transformer.with_centering and not table.sparse else None,
        transformer.scale_ if transformer.with_scaling else None,
    )


@compiles("sklearn", "MaxAbsScaler")
def max_abs_scaler(transformer: Any, table: Table, builder: Builder) -> Table:
    """x / largest."""
    result = _scaled(transformer, table, builder, None, transformer.scale_)
    if not transformer.clip:
        return result
    register = builder.emit("clip", matrix(result, builder), width=len(result.columns), low=-1.0, high=1.0)
    return replace(result, columns=numbers(register, len(result.columns)).columns)


def _scaled(transformer: Any, table: Table, builder: Builder, shift: Array | None, scale: Array | None) -> Table:
    # Sparse matrices are multiplied by 1 / scale, which rounds differently.
    if table.sparse and scale is not None:
        return elementwise(transformer, table, builder, "scale_shift", scale=1 / scale, shift=None)
    return elementwise(transformer, table, builder, "shift_scale", shift=shift, scale=scale)


@compiles("sklearn", "MinMaxScaler")
def min_max_scaler(transformer: Any, table: Table, builder: Builder) -> Table:
    """x * scale + min, clipped if `clip` is set."""
    result = elementwise(transformer, table, builder, "scale_shift", scale=transformer.scale_, shift=transformer.min_)
    if not transformer.clip:
        return result
    low, high = map(float, transformer.feature_range)
    register = builder.emit("clip", matrix(result, builder), width=len(result.columns), low=low, high=high)
    return replace(result, columns=numbers(register, len(result.columns)).columns)


@compiles("sklearn", "PowerTransformer")
def power_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Yeo-Johnson or Box-Cox, then (x - mean) / deviation."""
    kind = {"yeo-johnson": "yeo_johnson", "box-cox": "box_cox"}[transformer.method]
    result = elementwise(transformer, table, builder, kind, lambdas=np.asarray(transformer.lambdas_, dtype=np.float64))
    if not transformer.standardize:
        return result
    scaled = standard_scaler(transformer._scaler, result, builder)
    return replace(scaled, names=result.names)


@compiles("sklearn", "QuantileTransformer")
def quantile_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """The position of a value among the quantiles of training, uniform or as a normal deviate."""
    if table.sparse:
        raise UncompilableError("of a sparse matrix, it transforms only what is stored")
    return elementwise(
        transformer,
        table,
        builder,
        "quantiles",
        edges=transformer.quantiles_,
        references=transformer.references_,
        normal=transformer.output_distribution == "normal",
    )


@compiles("sklearn", "KBinsDiscretizer")
def k_bins_discretizer(transformer: Any, table: Table, builder: Builder) -> Table:
    """The bin of each value, as its position or one-hot."""
    if transformer.dtype not in (None, np.float64):
        raise UncompilableError(f"its dtype is {transformer.dtype}; only float64 is compiled")
    register = matrix(checked(table, builder, missing=False), builder)
    sure = [Finiteness.FINITE] * len(table.columns)
    edges = [np.asarray(edge[1:-1], dtype=np.float64) for edge in transformer.bin_edges_]
    register = builder.emit("bins", register, edges=edges, sure=sure)
    if transformer.encode == "ordinal":
        return named(transformer, table, numbers(register, len(table.columns)))
    starts = np.cumsum([0, *transformer.n_bins_[:-1]]).astype(np.float64)
    register = builder.emit("shift", register, by=starts, sure=sure)
    width = int(np.sum(transformer.n_bins_))
    return named(transformer, table, emit_one_hot(register, width, builder, transformer.encode == "onehot"))


@compiles("sklearn", "Binarizer")
def binarizer(transformer: Any, table: Table, builder: Builder) -> Table:
    """1 if above the threshold."""
    return elementwise(transformer, table, builder, "above", missing=False, threshold=float(transformer.threshold))


@compiles("sklearn", "Normalizer")
def normalizer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Each row divided by its norm."""
    return elementwise(transformer, table, builder, "normalize", missing=False, norm=transformer.norm)


@compiles("sklearn", "FunctionTransformer")
def function_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """A universal function of NumPy, or no function; a frame stays a frame."""
    function = transformer.func
    if transformer.validate:
        table = replace(checked(table, builder, missing=False), names=None)
    if function is None:
        return table
    if any(isinstance(column, Number) and column.boolean for column in table.columns):
        raise UncompilableError("booleans reach it, of which NumPy makes numbers of 16 bits")
    name = getattr(function, "__name__", repr(function))
    known = getattr(np, name, None)
    if not isinstance(known, np.ufunc) or known is not function:
        raise UncompilableError(f"its function {name} is not a universal function of NumPy")
    if transformer.kw_args or (known.nin, known.nout) != (1, 1):
        raise UncompilableError(f"its function {name} takes or gives more than one column")
    width = len(table.columns)
    register = builder.emit("function", matrix(table, builder), name=name, width=width)
    return numbers(register, width, table.names, table.sparse)


@compiles("sklearn", "PolynomialFeatures")
def polynomial_features(transformer: Any, table: Table, builder: Builder) -> Table:
    """Products of columns; one of degree d is its first column times the product of degree d - 1 of the others."""
    width, lowest, highest = len(table.columns), transformer._min_degree, transformer._max_degree
    if highest == 0:
        raise UncompilableError("degree 0 leaves no column")
    choose = combinations if transformer.interaction_only else combinations_with_replacement
    steps: list[list[Array]] = []
    before: dict[tuple[int, ...], int] = {(column,): column for column in range(width)}
    for degree in range(2, highest + 1):
        terms = list(choose(range(width), degree))
        others, first = [before[term[1:]] for term in terms], [term[0] for term in terms]
        steps.append([np.array(others, dtype=np.intp), np.array(first, dtype=np.intp)])
        before = {term: place for place, term in enumerate(terms)}
    register = builder.emit(
        "products",
        matrix(checked(table, builder, missing=False), builder),
        bias=bool(transformer.include_bias),
        first=max(lowest - 1, 0),
        steps=steps,
        width=transformer.n_output_features_,
    )
    return named(transformer, table, numbers(register, transformer.n_output_features_, sparse=table.sparse))


# Fewer columns.


@compiles(
    "sklearn",
    "SelectKBest",
    "SelectPercentile",
    "SelectFpr",
    "SelectFdr",
    "SelectFwe",
    "GenericUnivariateSelect",
    "VarianceThreshold",
    "SelectFromModel",
    "RFE",
    "RFECV",
    "SequentialFeatureSelector",
)
def selector(transformer: Any, table: Table, builder: Builder) -> Table:
    """Some of the columns."""
    from sklearn.utils import get_tags

    # scikit-learn does not check a frame that stays a frame.
    if table.names is None or output_of(transformer) == "default":
        table = checked(table, builder, missing=get_tags(transformer).input_tags.allow_nan)
    return named(transformer, table, table.take(np.flatnonzero(transformer.get_support()).tolist()))


@compiles("sklearn", "PCA", "IncrementalPCA")
def pca(transformer: Any, table: Table, builder: Builder) -> Table:
    """Components, centred, and with `whiten` scaled to variance 1."""
    scale = None
    if transformer.whiten:
        deviation = np.sqrt(transformer.explained_variance_)
        scale = np.maximum(deviation, np.finfo(deviation.dtype).eps)
    components = np.ascontiguousarray(transformer.components_.T)
    return _projected(transformer, table, builder, components, transformer.mean_.reshape(1, -1) @ components, scale)


@compiles("sklearn", "TruncatedSVD")
def truncated_svd(transformer: Any, table: Table, builder: Builder) -> Table:
    """Components, not centred."""
    return _projected(transformer, table, builder, np.ascontiguousarray(transformer.components_.T), None, None)


def _projected(
    transformer: Any, table: Table, builder: Builder, components: Array, shift: Array | None, scale: Array | None
) -> Table:
    register = matrix(checked(table, builder, missing=False), builder)
    width = components.shape[1]
    register = builder.emit("project", register, components=components, shift=shift, scale=scale, width=width)
    return named(transformer, table, numbers(register, width))
