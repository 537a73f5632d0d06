"""Encoders of categories. What one makes of a column is a list of answers, so it is asked every question once.

The questions are the categories it was fitted on, a null, and a value that it never saw.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.compiled.plan import Array, Builder
from pipeline.compiled.table import Column, Number, Table, Text, Time, UncompilableError, checked, matrix
from pipeline.compiled.transformers import compiles, emit_lookup, emit_one_hot, finiteness_of, named

MAX_LABELS = 100
"""More whole numbers than this are no labels, but a target to regress on."""

EncoderOutput = tuple[float, ...] | None
"""The numbers that an encoder puts in the place of a value; None where it refuses the value."""


class EncoderOutputs(dict[Any, EncoderOutput]):
    """The answers to values of a column: one by one to the categories and to null, and one to all others."""

    def __init__(self, known: Mapping[Any, EncoderOutput], unseen: EncoderOutput) -> None:
        super().__init__(known)
        self.unseen = unseen

    def __missing__(self, value: Any) -> EncoderOutput:
        return self.unseen


@compiles("sklearn", "OneHotEncoder")
def one_hot_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """A column per category, with the infrequent, dropped and unknown ones as the encoder has it."""
    widths = [int(width) for width in encoder._n_features_outs]
    starts = np.cumsum([0, *widths]).tolist()
    answers = [
        EncoderOutputs({value: _position(one, start) for value, one in by.items()}, _position(by.unseen, start))
        for by, start in zip(_probe(encoder, table, widths), starts, strict=False)
    ]
    positions = matrix(encoded(checked(table, builder), answers, builder), builder)
    return named(encoder, table, emit_one_hot(positions, starts[-1], builder, sparse=bool(encoder.sparse_output)))


@compiles("sklearn", "OrdinalEncoder")
def ordinal_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """A number per category."""
    answers = _probe(encoder, table, [1] * len(table.columns))
    return named(encoder, table, encoded(checked(table, builder), answers, builder))


@compiles("sklearn", "TargetEncoder")
def target_encoder(encoder: Any, table: Table, builder: Builder) -> Table:
    """The mean of the target per category, or the share of each label."""
    width = len(encoder.classes_) if encoder.target_type_ == "multiclass" else 1
    if encoder.target_type == "auto" and width > MAX_LABELS and np.asarray(encoder.classes_).dtype.kind in "iuf":
        raise UncompilableError(
            f"it took the target's {width} whole numbers for labels, and makes a column of each; "
            'give it target_type="continuous"'
        )
    answers = _probe(encoder, table, [width] * len(table.columns))
    return named(encoder, table, encoded(checked(table, builder), answers, builder))


def encoded(table: Table, answers: Sequence[EncoderOutputs], builder: Builder) -> Table:
    """Return the table of numbers that the answers put in the place of a table's values."""
    wide = [(place, part) for place, by in enumerate(answers) for part in range(_width(by))]
    texts = [one for one in wide if isinstance(table.columns[one[0]], Text)]
    others = [one for one in wide if not isinstance(table.columns[one[0]], Text)]
    found: dict[tuple[int, int], Number] = {}
    for some, encode in ((texts, _encoded_texts), (others, _encoded_numbers)):
        if some:
            part = table.take([place for place, _ in some])
            register = encode(part, [_only(answers[place], part) for place, part in some], builder)
            found |= {one: Number(register, index) for index, one in enumerate(some)}
    return Table(tuple(found[one] for one in wide))


def _encoded_texts(table: Table, answers: Sequence[EncoderOutputs], builder: Builder) -> int:
    known, missing, rest = [], [], []
    texts = [column for column in table.columns if isinstance(column, Text)]
    for column, by in zip(texts, answers, strict=True):
        values = {*column.changed, *(value for value in by if isinstance(value, str))}
        known.append({value: _number(by[column.after(value)]) for value in sorted(values)})
        missing.append(_number(by[column.missing]))
        rest.append(_number(by.unseen if column.rest is None else by[column.rest]))
    return emit_lookup(texts, known, missing, rest, builder)


def _encoded_numbers(table: Table, answers: Sequence[EncoderOutputs], builder: Builder) -> int:
    return builder.emit(
        "lookup_numbers",
        matrix(table, builder),
        known=[[[value, _number(one)] for value, one in by.items() if isinstance(value, float)] for by in answers],
        missing=[_number(by[None]) for by in answers],
        rest=[_number(by.unseen) for by in answers],
        sure=[finiteness_of([*map(_number, by.values()), _number(by.unseen)]) for by in answers],
    )


def _only(answers: EncoderOutputs, part: int) -> EncoderOutputs:
    """Return the answers of one number each: of several, the one at a position."""
    one = {value: None if answer is None else answer[part : part + 1] for value, answer in answers.items()}
    return EncoderOutputs(one, None if answers.unseen is None else answers.unseen[part : part + 1])


def _number(answer: EncoderOutput) -> float | None:
    return None if answer is None else answer[0]


def _width(answers: EncoderOutputs) -> int:
    return next((len(one) for one in (*answers.values(), answers.unseen) if one is not None), 1)


def _position(answer: EncoderOutput, start: int) -> EncoderOutput:
    if answer is None:
        return None
    return (float(start + answer.index(1.0)) if 1.0 in answer else -1.0,)


def _probe(encoder: Any, table: Table, widths: Sequence[int]) -> list[EncoderOutputs]:
    """Return a fitted encoder's answers, by column."""
    if any(isinstance(column, Time) for column in table.columns):
        raise UncompilableError("a timestamp reaches it")
    if np.dtype(getattr(encoder, "dtype", np.float64)) in (np.float16, np.float32):
        raise UncompilableError(f"its dtype is {np.dtype(encoder.dtype)}; of floats, only float64 is compiled")
    categories = [
        [one for one in found.tolist() if isinstance(one, str | int | float) and one == one]
        for found in encoder.categories_
    ]
    unseen = [_unseen(column, values) for column, values in zip(table.columns, categories, strict=True)]
    typical = [values[0] if values else None for values in categories]
    ends = np.cumsum(widths)[:-1]

    def ask(rows: list[list[Any]]) -> list[list[EncoderOutput]]:
        output = _transformed(encoder, table, rows) if rows else np.empty((0, sum(widths)))
        return [[tuple(part.tolist()) for part in np.split(row, ends)] for row in output]

    def dare(row: list[Any]) -> list[EncoderOutput]:
        try:
            return ask([row])[0]
        except ValueError:
            pass
        answers: list[EncoderOutput] = []
        for column, value in enumerate(row):
            try:
                answers.append(ask([[*typical[:column], value, *typical[column + 1 :]]])[0][column])
            except ValueError:
                answers.append(None)
        return answers

    # One call for all columns: row i asks for the i-th category of each.
    longest = max(map(len, categories), default=0)
    rows = [[values[min(i, len(values) - 1)] if values else None for values in categories] for i in range(longest)]
    answered = ask(rows) if all(categories) else [dare(row) for row in rows]
    to_null, to_unseen = dare([None] * len(widths)), dare(unseen)
    return [
        EncoderOutputs(
            {None: to_null[c]} | {_key(value): answered[i][c] for i, value in enumerate(values)}, to_unseen[c]
        )
        for c, values in enumerate(categories)
    ]


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


def _unseen(column: Column, known: Sequence[Any]) -> Any:
    """Return a value of the column's kind that is none of the known ones."""
    value: Any = "never seen" if isinstance(column, Text) else 1.0
    while value in known:
        value = value + "?" if isinstance(value, str) else 2 * value + 0.1
    return value


def _transformed(encoder: Any, table: Table, rows: list[list[Any]]) -> Array:
    """Return what an encoder makes of rows, given as it is used to: as a frame or a matrix, texts or numbers."""
    import pandas as pd

    kinds = ["str" if isinstance(column, Text) else "float64" for column in table.columns]
    if table.names is not None:
        columns = [pd.Series([row[c] for row in rows], dtype=kind) for c, kind in enumerate(kinds)]
        given: Any = pd.concat(columns, axis=1, keys=list(table.names))
    else:
        cells = [[np.nan if value is None else value for value in row] for row in rows]
        given = np.array(cells, dtype=object if "str" in kinds else np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = encoder.transform(given)
    return np.asarray(output.toarray() if hasattr(output, "toarray") else output, dtype=np.float64)
