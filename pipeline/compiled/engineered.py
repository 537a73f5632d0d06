"""How feature-engine's transformers become operations: they take frames and change some of the columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.compiled.date_operations import PARTS
from pipeline.compiled.encoders import EncoderOutputs, encoded
from pipeline.compiled.plan import Builder, Finiteness
from pipeline.compiled.registry import checked_for_nulls, compiles, filled
from pipeline.compiled.table import Number, Table, Text, Time, UncompilableError, checked, matrix, settled


@compiles("feature_engine", "CategoricalImputer", "ArbitraryNumberImputer", "MeanMedianImputer", "EndTailImputer")
def imputer(transformer: Any, table: Table, builder: Builder) -> Table:  # noqa: ARG001
    """A value in place of missing ones."""
    table = _frame(transformer, table)
    values = transformer.imputer_dict_
    return _with(table, {name: filled(_column(table, name), value) for name, value in values.items()})


@compiles("feature_engine", "MathFeatures")
def math_features(transformer: Any, table: Table, builder: Builder) -> Table:
    """The sum, product, mean, smallest or largest of some columns, as new ones."""
    names = list(transformer.variables)
    table = _checked(transformer, _frame(transformer, table), names, builder)
    functions = [transformer.func] if isinstance(transformer.func, str) else transformer.func
    unknown = [function for function in functions if function not in ("sum", "prod", "mean", "min", "max")]
    if unknown:
        raise UncompilableError(f"its function {unknown[0]!r} is not sum, prod, mean, min or max")
    new = list(map(str, transformer._get_new_features_name()))
    register = matrix(_some(table, names), builder)
    missing = min(builder.sure[register]) < Finiteness.FINITE
    register = builder.emit("across", register, functions=list(functions), missing=missing, width=len(new))
    table = _with(table, _new(register, new))
    return _without(table, names) if transformer.drop_original else table


@compiles("feature_engine", "RelativeFeatures")
def relative_features(transformer: Any, table: Table, builder: Builder) -> Table:
    """Some columns plus, minus, times or divided by others, as new ones."""
    names = [*transformer.variables, *transformer.reference]
    table = _checked(transformer, _frame(transformer, table), names, builder)
    by_name = dict(zip(table.names or (), table.columns, strict=True))
    for function in transformer.func:
        if function not in ("add", "sub", "mul", "div", "truediv", "pow"):
            raise UncompilableError(f"its function {function!r} is not add, sub, mul, div, truediv or pow")
        pairs = [(one, other) for other in transformer.reference for one in transformer.variables]
        left, right = (matrix(Table(tuple(by_name[pair[side]] for pair in pairs)), builder) for side in (0, 1))
        quotient = function in ("div", "truediv")
        zero = float(transformer.fill_value) if quotient and transformer.fill_value is not None else None
        kind = "div" if quotient else function
        register = builder.emit("pairs", left, right, function=kind, zero=zero, width=len(pairs))
        table = _with(table, _new(register, [f"{one}_{function}_{other}" for one, other in pairs]))
    return _without(table, names) if transformer.drop_original else table


@compiles("feature_engine", "Winsorizer", "ArbitraryOutlierCapper")
def winsorizer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Some columns, capped."""
    if getattr(transformer, "add_indicators", False):
        raise UncompilableError("its add_indicators is not compiled")
    table = _checked(transformer, _frame(transformer, table), transformer.variables_, builder)
    caps = transformer.left_tail_caps_, transformer.right_tail_caps_
    names = list(dict.fromkeys([*caps[0], *caps[1]]))
    register = matrix(_some(table, names), builder)
    sure = builder.sure[register]
    low, high = (
        np.array([_or(cap.get(name), unbounded) for name in names]) if cap else None
        for cap, unbounded in zip(caps, (-np.inf, np.inf), strict=True)
    )
    register = builder.emit("clip", register, low=low, high=high, sure=sure)
    return _with(table, _new(register, names))


def _or(value: Any, otherwise: float) -> float:
    return otherwise if value is None or np.isnan(value) else float(value)


@compiles("feature_engine", "RareLabelEncoder")
def rare_label_encoder(transformer: Any, table: Table, builder: Builder) -> Table:
    """One word for all rare ones."""
    table = _frame(transformer, table)
    if transformer.missing_values == "raise":
        table = _without_nulls(table, transformer.variables_, builder)
    changed = {}
    for name in transformer.variables_:
        column, kept = _column(table, name), transformer.encoder_dict_[name]
        rare = transformer.replace_with
        if not isinstance(column, Text) or not isinstance(rare, str) or not all(isinstance(one, str) for one in kept):
            raise UncompilableError(f"it groups {name!r}, which holds no texts")
        changed[name] = column.only(kept, rare)
    return _with(table, changed)


@compiles("feature_engine", "OrdinalEncoder", "CountFrequencyEncoder", "MeanEncoder", "WoEEncoder")
def encoder(transformer: Any, table: Table, builder: Builder) -> Table:
    """A number per category."""
    table = _frame(transformer, table)
    unseen = {"ignore": (np.nan,), "raise": None, "encode": (float(getattr(transformer, "_unseen", 0)),)}[
        getattr(transformer, "unseen", "ignore")
    ]
    names = list(transformer.encoder_dict_)
    answers = []
    for by in transformer.encoder_dict_.values():
        known = {value if isinstance(value, str) else float(value): (float(code),) for value, code in by.items()}
        null = next((code for value, code in known.items() if value != value), unseen)
        known = {value: code for value, code in known.items() if value == value}
        answers.append(EncoderOutputs({None: None if transformer.missing_values == "raise" else null, **known}, unseen))
    columns = encoded(_some(table, names), answers, builder).columns
    return _with(table, dict(zip(names, columns, strict=True)))


@compiles(
    "feature_engine",
    "DropFeatures",
    "DropConstantFeatures",
    "DropDuplicateFeatures",
    "DropCorrelatedFeatures",
    "SmartCorrelatedSelection",
    "SelectByShuffling",
    "SelectBySingleFeaturePerformance",
    "SelectByTargetMeanPerformance",
    "SelectByInformationValue",
    "RecursiveFeatureAddition",
    "RecursiveFeatureElimination",
    "ProbeFeatureSelection",
    "DropHighPSIFeatures",
    "MRMR",
)
def dropper(transformer: Any, table: Table, builder: Builder) -> Table:  # noqa: ARG001
    """Fewer columns."""
    return _without(_frame(transformer, table), transformer.features_to_drop_)


@compiles("feature_engine", "LogTransformer")
def log_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Logarithms of some columns."""
    return _shaped(transformer, table, builder, ("above_zero", {}), _logarithm(transformer))


@compiles("feature_engine", "LogCpTransformer")
def log_cp_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Logarithms of some columns plus a constant each."""
    constant = transformer.C_
    by = [float(constant[name] if isinstance(constant, Mapping) else constant) for name in transformer.variables_]
    shift = ("shift", {"by": np.array(by)})
    return _shaped(transformer, table, builder, shift, ("above_zero", {}), _logarithm(transformer))


def _logarithm(transformer: Any) -> tuple[str, dict[str, Any]]:
    return "function", {"name": "log" if transformer.base == "e" else "log10"}


@compiles("feature_engine", "YeoJohnsonTransformer")
def yeo_johnson_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Yeo-Johnson of some columns."""
    lambdas = np.array([float(transformer.lambda_dict_[name]) for name in transformer.variables_])
    return _shaped(transformer, table, builder, ("yeo_johnson", {"lambdas": lambdas}))


@compiles("feature_engine", "CyclicalFeatures")
def cyclical_features(transformer: Any, table: Table, builder: Builder) -> Table:
    """Sine and cosine of some columns, as new ones."""
    names = list(transformer.variables_)
    table = _without_nulls(_frame(transformer, table), names, builder)
    scale = np.array([2.0 * np.pi / transformer.max_values_[name] for name in names])
    register = matrix(_some(table, names), builder)
    angle = builder.emit("scale_shift", register, scale=scale, shift=None, width=len(names))
    new: dict[str, Number] = {}
    sine, cosine = (builder.emit("function", angle, name=name, width=len(names)) for name in ("sin", "cos"))
    for index, name in enumerate(names):
        new |= {f"{name}_sin": Number(sine, index), f"{name}_cos": Number(cosine, index)}
    table = _with(table, new)
    return _without(table, names) if transformer.drop_original else table


# Timestamps.


@compiles("feature_engine", "DatetimeFeatures")
def datetime_features(transformer: Any, table: Table, builder: Builder) -> Table:
    """Parts of timestamps, such as the month, as new columns."""
    if transformer.variables == "index":
        raise UncompilableError("it takes the index of the frame, which a request does not have")
    names, parts = list(transformer.variables_), list(transformer.features_to_extract_)
    if unknown := [part for part in parts if part not in PARTS]:
        raise UncompilableError(f"its feature {unknown[0]!r} is not compiled")
    table = _frame(transformer, table)
    register = _moments(transformer, table, names, builder)
    # A part that refuses missing timestamps, or has a number for them, is never NaN.
    least = [Finiteness.NOT_INFINITE if PARTS[part][1] != PARTS[part][1] else Finiteness.FINITE for part in parts]
    sure = [max(known, one) for known in builder.sure[register] for one in least]
    register = builder.emit("calendar", register, parts=parts, sure=sure)
    table = _with(table, _new(register, list(map(str, transformer._get_new_features_name()))))
    return _without(table, names) if transformer.drop_original else table


@compiles("feature_engine", "DatetimeSubtraction")
def datetime_subtraction(transformer: Any, table: Table, builder: Builder) -> Table:
    """Some timestamps minus others, in days or another unit, as new columns."""
    variables, reference = list(transformer.variables_), list(transformer.reference_)
    unit = np.timedelta64(1, transformer.output_unit).astype("timedelta64[ns]").astype(np.int64)
    if unit < 1:
        raise UncompilableError(f"its output_unit {transformer.output_unit!r} is less than a nanosecond")
    table = _frame(transformer, table)
    register = builder.emit(
        "elapsed",
        _moments(transformer, table, [*variables, *reference], builder),
        left=list(range(len(variables))) * len(reference),
        right=[len(variables) + place for place in range(len(reference)) for _ in variables],
        nanoseconds=int(unit),
        sure=[Finiteness.NOT_INFINITE] * (len(variables) * len(reference)),
    )
    table = _with(table, _new(register, list(map(str, transformer._get_new_features_name()))))
    return _without(table, [*variables, *reference]) if transformer.drop_original else table


def _moments(transformer: Any, table: Table, names: Sequence[Any], builder: Builder) -> int:
    """Return a register of some timestamps in microseconds; nulls are unanswerable if the transformer refuses them."""
    columns = _some(table, names).columns
    times = tuple(Number(0, column.index) for column in columns if isinstance(column, Time))
    if len(times) < len(columns):
        raise UncompilableError("it reads texts as timestamps")
    moments = Table(times)
    return matrix(
        checked(moments, builder, missing=False) if transformer.missing_values == "raise" else moments, builder
    )


def _shaped(transformer: Any, table: Table, builder: Builder, *operations: tuple[str, dict[str, Any]]) -> Table:
    """Return the table after operations on the transformer's variables, which may hold neither null nor infinity."""
    names = list(transformer.variables_)
    table = _without_nulls(_frame(transformer, table), names, builder)
    register = matrix(_some(table, names), builder)
    for kind, parameters in operations:
        register = builder.emit(kind, register, width=len(names), **parameters)
    return _with(table, _new(register, names))


def _frame(transformer: Any, table: Table) -> Table:
    """Return the table as a frame with its columns in the order in which they were fitted."""
    names = table.names or tuple(f"x{place}" for place in range(len(table.columns)))
    fitted = list(map(str, transformer.feature_names_in_))
    if len(set(names)) < len(names) or set(fitted) != set(names):
        raise UncompilableError("it was fitted on other columns")
    return replace(table, names=names).take([names.index(name) for name in fitted])


def _column(table: Table, name: Any) -> Any:
    return table.columns[(table.names or ()).index(str(name))]


def _some(table: Table, names: Iterable[Any]) -> Table:
    return table.take([(table.names or ()).index(str(name)) for name in names])


def _without(table: Table, names: Iterable[Any]) -> Table:
    dropped = {str(name) for name in names}
    return table.take([place for place, name in enumerate(table.names or ()) if name not in dropped])


def _with(table: Table, columns: Mapping[Any, Any]) -> Table:
    """Return the table with columns replaced, or added if their names are new."""
    result = dict(zip(table.names or (), table.columns, strict=True)) | {str(k): v for k, v in columns.items()}
    return Table(tuple(result.values()), tuple(result))


def _new(register: int, names: Sequence[str]) -> dict[str, Number]:
    return {name: Number(register, index) for index, name in enumerate(names)}


def _checked(transformer: Any, table: Table, names: Sequence[Any], builder: Builder) -> Table:
    table = settled(table, builder)
    return _without_nulls(table, names, builder) if transformer.missing_values == "raise" else table


def _without_nulls(table: Table, names: Sequence[Any], builder: Builder) -> Table:
    """Return the table after a check that makes rows with a null or infinity in some columns unanswerable."""
    return checked_for_nulls(table, [(table.names or ()).index(str(name)) for name in names], builder)
