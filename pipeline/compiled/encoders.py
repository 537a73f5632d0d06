"""Encoders of categories, compiled by probing: the fitted encoder transforms every value that it tells apart, once.

These values are the categories that it was fitted on, null, and one value that it never saw. Its outputs become a
lookup table, so none of its options need to be compiled.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.compiled.plan import Array, Builder
from pipeline.compiled.registry import compiles, emit_lookup, emit_one_hot, finiteness_of, named
from pipeline.compiled.table import Column, Number, Table, Text, Time, UncompilableError, checked, matrix

MAX_LABELS = 100
"""A target with more whole numbers than this is a number to regress on, not labels."""

EncoderOutput = tuple[float, ...] | None
"""The numbers that an encoder puts in the place of a value; None if it refuses the value."""


class EncoderOutputs(dict[Any, EncoderOutput]):
    """The outputs for a column: one for each category and for null, and `unseen` for all other values."""

    def __init__(self, known: Mapping[Any, EncoderOutput], unseen: EncoderOutput) -> None:
        super().__init__(known)
        self.unseen = unseen

    def __missing__(self, value: Any) -> EncoderOutput:
        return self.unseen


@compiles("sklearn", "OneHotEncoder")
def one_hot_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """A column per category; infrequent, dropped and unknown ones as the encoder treats them."""
    widths = [int(width) for width in encoder._n_features_outs]
    starts = np.cumsum([0, *widths]).tolist()
    positions_of = [
        EncoderOutputs(
            {value: _position(output, start) for value, output in outputs.items()}, _position(outputs.unseen, start)
        )
        for outputs, start in zip(_probe(encoder, table, widths), starts, strict=False)
    ]
    positions = matrix(encoded(checked(table, builder), positions_of, builder), builder)
    return named(encoder, table, emit_one_hot(positions, starts[-1], builder, sparse=bool(encoder.sparse_output)))


@compiles("sklearn", "OrdinalEncoder")
def ordinal_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """A number per category."""
    outputs = _probe(encoder, table, [1] * len(table.columns))
    return named(encoder, table, encoded(checked(table, builder), outputs, builder))


@compiles("sklearn", "TargetEncoder")
def target_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """The mean of the target per category, or the fraction of each label."""
    width = len(encoder.classes_) if encoder.target_type_ == "multiclass" else 1
    if encoder.target_type == "auto" and width > MAX_LABELS and np.asarray(encoder.classes_).dtype.kind in "iuf":
        raise UncompilableError(
            f"it took the target's {width} whole numbers for labels, and makes a column of each; "
            'give it target_type="continuous"'
        )
    outputs = _probe(encoder, table, [width] * len(table.columns))
    return named(encoder, table, encoded(checked(table, builder), outputs, builder))


def encoded(table: Table, outputs: Sequence[EncoderOutputs], builder: Builder) -> Table:
    """Return the table of numbers that encoders put in the place of a table's values, by their outputs per column."""
    # A column of the result: the position of the input column, and which of its output numbers.
    wanted = [(position, part) for position, by in enumerate(outputs) for part in range(_width(by))]
    texts = [column for column in wanted if isinstance(table.columns[column[0]], Text)]
    others = [column for column in wanted if not isinstance(table.columns[column[0]], Text)]
    result: dict[tuple[int, int], Number] = {}
    for columns, emit in ((texts, _emit_text_lookup), (others, _emit_number_lookup)):
        if columns:
            inputs = table.take([position for position, _ in columns])
            register = emit(inputs, [_only(outputs[position], part) for position, part in columns], builder)
            result |= {column: Number(register, index) for index, column in enumerate(columns)}
    return Table(tuple(result[column] for column in wanted))


def _emit_text_lookup(table: Table, outputs: Sequence[EncoderOutputs], builder: Builder) -> int:
    known, missing, rest = [], [], []
    texts = [column for column in table.columns if isinstance(column, Text)]
    for column, by in zip(texts, outputs, strict=True):
        values = {*column.changed, *(value for value in by if isinstance(value, str))}
        known.append({value: _number(by[column.after(value)]) for value in sorted(values)})
        missing.append(_number(by[column.missing]))
        rest.append(_number(by.unseen if column.rest is None else by[column.rest]))
    return emit_lookup(texts, known, missing, rest, builder)


def _emit_number_lookup(table: Table, outputs: Sequence[EncoderOutputs], builder: Builder) -> int:
    return builder.emit(
        "lookup_numbers",
        matrix(table, builder),
        known=[
            [[value, _number(output)] for value, output in by.items() if isinstance(value, float)] for by in outputs
        ],
        missing=[_number(by[None]) for by in outputs],
        rest=[_number(by.unseen) for by in outputs],
        sure=[finiteness_of([*map(_number, by.values()), _number(by.unseen)]) for by in outputs],
    )


def _only(outputs: EncoderOutputs, part: int) -> EncoderOutputs:
    """Return outputs of one number each: the one at a position of several."""
    numbers = {value: None if output is None else output[part : part + 1] for value, output in outputs.items()}
    return EncoderOutputs(numbers, None if outputs.unseen is None else outputs.unseen[part : part + 1])


def _number(output: EncoderOutput) -> float | None:
    return None if output is None else output[0]


def _width(outputs: EncoderOutputs) -> int:
    return next((len(output) for output in (*outputs.values(), outputs.unseen) if output is not None), 1)


def _position(output: EncoderOutput, start: int) -> EncoderOutput:
    """Return the position of the 1 in a one-hot output, counted from the first column of all; -1 without a 1."""
    if output is None:
        return None
    return (float(start + output.index(1.0)) if 1.0 in output else -1.0,)


def _probe(encoder: Any, table: Table, widths: Sequence[int]) -> list[EncoderOutputs]:
    """Return the outputs of a fitted encoder for every category, null and an unseen value, by column.

    `widths` are the numbers of output columns, by input column.
    """
    if any(isinstance(column, Time) for column in table.columns):
        raise UncompilableError("a timestamp reaches it")
    if np.dtype(getattr(encoder, "dtype", np.float64)) in (np.float16, np.float32):
        raise UncompilableError(f"its dtype is {np.dtype(encoder.dtype)}; of floats, only float64 is compiled")
    # NaN is unequal to itself: it is probed as null.
    categories = [
        [value for value in fitted.tolist() if isinstance(value, str | int | float) and value == value]
        for fitted in encoder.categories_
    ]
    probe = _Probe(encoder, table, widths, [values[0] if values else None for values in categories])
    # Row i holds the i-th category of each column; shorter columns repeat their last one.
    rows = [
        [values[min(i, len(values) - 1)] if values else None for values in categories]
        for i in range(max(map(len, categories), default=0))
    ]
    # A column without categories is given null, which the encoder may refuse.
    of_categories = probe.transform(rows) if all(categories) else [probe.try_row(row) for row in rows]
    of_null = probe.try_row([None] * len(categories))
    of_unseen = probe.try_row(
        [_unseen(column, values) for column, values in zip(table.columns, categories, strict=True)]
    )
    return [
        EncoderOutputs(
            {None: of_null[c]} | {_key(value): of_categories[i][c] for i, value in enumerate(values)}, of_unseen[c]
        )
        for c, values in enumerate(categories)
    ]


@dataclass(frozen=True)
class _Probe:
    """A fitted encoder that transforms rows of chosen values.

    Attributes:
        encoder: the fitted encoder.
        table: the table that reaches it in the pipeline.
        widths: the number of output columns, by input column.
        accepted: a value that the encoder accepts, by column: its first category; None without any.
    """

    encoder: Any
    table: Table
    widths: Sequence[int]
    accepted: Sequence[Any]

    def transform(self, rows: list[list[Any]]) -> list[list[EncoderOutput]]:
        """Return the outputs of rows, by row and input column; ValueError if the encoder refuses a value."""
        output = _transformed(self.encoder, self.table, rows) if rows else np.empty((0, sum(self.widths)))
        ends = np.cumsum(self.widths)[:-1]
        return [[tuple(part.tolist()) for part in np.split(row, ends)] for row in output]

    def try_row(self, row: list[Any]) -> list[EncoderOutput]:
        """Return the outputs of a row, by input column: None for each value that the encoder refuses."""
        try:
            return self.transform([row])[0]
        except ValueError:
            return [self._try_value(column, value) for column, value in enumerate(row)]

    def _try_value(self, column: int, value: Any) -> EncoderOutput:
        """Return the output of one value, with accepted values in the other columns; None if it is refused."""
        try:
            return self.transform([[*self.accepted[:column], value, *self.accepted[column + 1 :]]])[0][column]
        except ValueError:
            return None


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _unseen(column: Column, known: Sequence[Any]) -> Any:
    """Return a value of the column's type that is not a known one."""
    value: Any = "never seen" if isinstance(column, Text) else 1.0
    while value in known:
        value = value + "?" if isinstance(value, str) else 2 * value + 0.1
    return value


def _transformed(encoder: Any, table: Table, rows: list[list[Any]]) -> Array:
    """Return an encoder's output for rows, passed as the pipeline does: as a frame or matrix of texts or numbers."""
    import pandas as pd

    dtypes = ["str" if isinstance(column, Text) else "float64" for column in table.columns]
    if table.names is not None:
        columns = [pd.Series([row[c] for row in rows], dtype=dtype) for c, dtype in enumerate(dtypes)]
        frame: Any = pd.concat(columns, axis=1, keys=list(table.names))
    else:
        cells = [[np.nan if value is None else value for value in row] for row in rows]
        frame = np.array(cells, dtype=object if "str" in dtypes else np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = encoder.transform(frame)
    return np.asarray(output.toarray() if hasattr(output, "toarray") else output, dtype=np.float64)
