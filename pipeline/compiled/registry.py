"""The table of transformers that can be compiled, and the helpers that their emitters share.

`transformers`, `encoders` and `engineered` import this module and register their emitters in TRANSFORMERS; this module
imports none of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.compiled.plan import Builder, Finiteness
from pipeline.compiled.table import Column, Number, Table, Text, Time, UncompilableError, checked, matrix, numbers

Emitter = Callable[[Any, Table, Builder], Table]
"""Takes a fitted transformer and the table that reaches it; emits operations and returns the table that leaves it."""
TRANSFORMERS: dict[tuple[str, str], Emitter] = {}
"""The emitters, by package and exact class name: a subclass may override anything, so it is not compiled."""


def compiles(package: str, *names: str) -> Callable[[Emitter], Emitter]:
    """Register the emitter of these classes of a package."""

    def register(function: Emitter) -> Emitter:
        TRANSFORMERS.update({(package, name): function for name in names})
        return function

    return register


def compile_transformer(transformer: Any, table: Table, builder: Builder) -> Table:
    """Return the table that leaves a fitted transformer.

    The modules of the emitters must be imported: `pipeline.compiled.estimators` imports all of them. Raises
    UncompilableError, with the path of classes to the step and the reason, if the transformer cannot be compiled.
    """
    name = type(transformer).__name__
    emit = TRANSFORMERS.get((type(transformer).__module__.partition(".")[0], name))
    if emit is None:
        raise UncompilableError(f"{name}: the compiler does not know this class")
    try:
        if getattr(transformer, "n_features_in_", len(table.columns)) != len(table.columns):
            raise UncompilableError(f"it was fitted on {transformer.n_features_in_} columns, not {len(table.columns)}")
        return emit(transformer, table, builder)
    except UncompilableError as error:
        raise UncompilableError(f"{name}: {error}") from error


def named(transformer: Any, table: Table, result: Table) -> Table:
    """Return a result with scikit-learn's names for its columns, which exist only if its output is set to pandas."""
    if output_of(transformer) == "default":
        return replace(result, names=None)
    try:
        return replace(result, names=tuple(map(str, transformer.get_feature_names_out(table.names))))
    except (AttributeError, ValueError):
        # A transformer without names for its output leaves them to chance; later steps go by position.
        return replace(result, names=None)


def output_of(transformer: Any) -> str:
    """Return whether a transformer's output is a matrix, "default", or a frame, "pandas"."""
    from sklearn.utils._set_output import _get_output_config

    output = _get_output_config("transform", transformer)["dense"]
    if output not in ("default", "pandas"):
        raise UncompilableError(f"its output is set to {output}")
    return output


def elementwise(
    transformer: Any, table: Table, builder: Builder, kind: str, missing: bool = True, **parameters: Any
) -> Table:
    """Return the result of one operation that keeps all columns, after scikit-learn's check of the input."""
    register = matrix(checked(table, builder, missing), builder)
    register = builder.emit(kind, register, width=len(table.columns), **parameters)
    return named(transformer, table, numbers(register, len(table.columns), sparse=table.sparse))


def checked_for_nulls(table: Table, places: Sequence[int], builder: Builder) -> Table:
    """Return the table after a check that makes rows with a null or infinity in some columns unanswerable."""
    texts = [column for column in table.take(places).columns if isinstance(column, Text) and column.missing is None]
    if texts:
        builder.emit("present", *dict.fromkeys(column.register for column in texts))
    places = [place for place in places if isinstance(table.columns[place], Number)]
    columns = list(table.columns)
    for place, column in zip(places, checked(table.take(places), builder, missing=False).columns, strict=True):
        columns[place] = column
    return replace(table, columns=tuple(columns))


def filled(column: Column, value: Any) -> Column:
    """Return a column after an imputer replaced its missing values by `value`."""
    if isinstance(column, Time):
        raise UncompilableError("a timestamp reaches it")
    if isinstance(value, str) != isinstance(column, Text) or not (isinstance(value, str) or np.isfinite(value)):
        missing = "texts" if isinstance(column, Text) else "numbers"
        raise UncompilableError(f"it puts {value!r} in the place of missing {missing}")
    if column.missing is not None:
        return column
    return replace(column, missing=value) if isinstance(column, Text) else replace(column, missing=float(value))


def emit_lookup(
    texts: Sequence[Text],
    known: Sequence[dict[str, float | None]],
    missing: Sequence[float | None],
    rest: Sequence[float | None],
    builder: Builder,
) -> int:
    """Return a register with one column per text: the number that each of its values as it came in stands for.

    By text: the numbers of known values, of null and of any other value; None makes a row unanswerable.
    """
    outputs = [(*by.values(), null, other) for by, null, other in zip(known, missing, rest, strict=True)]
    return builder.emit(
        "lookup",
        *(text.register for text in texts),
        known=list(known),
        missing=list(missing),
        rest=list(rest),
        sure=list(map(finiteness_of, outputs)),
    )


def finiteness_of(values: Sequence[float | None]) -> Finiteness:
    """Return what is known of a column that holds no other numbers than these."""
    finite = all(value is None or np.isfinite(value) for value in values)
    return Finiteness.FINITE if finite else Finiteness.NOT_INFINITE


def emit_one_hot(positions: int, width: int, builder: Builder, sparse: bool) -> Table:
    """Return the table of `width` columns with a 1 at each of the positions of a row."""
    register = builder.emit("one_hot", positions, places=width, sure=[Finiteness.FINITE] * width)
    return numbers(register, width, sparse=sparse)
