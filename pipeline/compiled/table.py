"""The tables that flow between the steps of a pipeline while it is compiled: columns and their registers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.compiled.plan import Builder, Finiteness
from pipeline.schema import Feature


class UncompilableError(Exception):
    """A step that the compiler does not know, or not with these parameters; the message names step and reason."""


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Attributes:
        register: the register of its matrix.
        index: its column in the matrix.
        missing: the value that replaces NaN later; None if NaN stays.
        boolean: whether scikit-learn may see booleans, on which NumPy's functions may compute in fewer bits.
    """

    register: int
    index: int
    missing: float | None = None
    boolean: bool = False

    def finiteness(self, builder: Builder) -> Finiteness:
        """Return what is known of the column's values."""
        known = builder.sure[self.register][self.index]
        return Finiteness.FINITE if known and self.missing is not None and np.isfinite(self.missing) else known


@dataclass(frozen=True)
class Text:
    """A text feature, with the values that earlier steps replaced. Encoders turn all of it into one lookup.

    Attributes:
        register: the register of the feature.
        changed: the replacement of some values.
        missing: the replacement of null; None if it stays null.
        rest: the replacement of all other values; None if they stay.
    """

    register: int
    changed: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None
    rest: str | None = None

    def after(self, value: str | None) -> str | None:
        """Return the replacement of a value of the feature."""
        if value is None:
            return self.missing
        return self.changed.get(value, value if self.rest is None else self.rest)

    def only(self, kept: Sequence[str], rest: str) -> "Text":
        """Return the column with `rest` in place of all values but null and those kept."""
        keep = {value: value for value in kept}
        named = {*self.changed, *(keep if self.rest is None else ())}
        return replace(
            self,
            changed={value: keep.get(str(self.after(value)), rest) for value in sorted(named)},
            missing=None if self.missing is None else keep.get(self.missing, rest),
            rest=rest if self.rest is None else keep.get(self.rest, rest),
        )


@dataclass(frozen=True)
class Time:
    """A timestamp feature: column `index` of register 0, in microseconds; steps that take numbers refuse it."""

    index: int


Column = Number | Text | Time


@dataclass(frozen=True)
class Table:
    """Columns in order.

    Attributes:
        columns: the columns.
        names: their names if scikit-learn sees a frame; None if it sees a matrix.
        sparse: whether the matrix is sparse: some transformers round differently then.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...] | None = None
    sparse: bool = False

    def take(self, positions: Sequence[int]) -> "Table":
        """Return some of the columns."""
        names = None if self.names is None else tuple(self.names[position] for position in positions)
        return Table(tuple(self.columns[position] for position in positions), names, self.sparse)


def input_table(features: Sequence[Feature], builder: Builder) -> Table:
    """Return the frame that estimators are given (`pipeline.schema.to_frame`) as a table."""
    columns: list[Column] = []
    for feature in features:
        if feature.type == "text":
            columns.append(Text(1 + builder.texts.index(feature.name)))
        elif feature.type == "timestamp":
            columns.append(Time(len(builder.numbers) + builder.times.index(feature.name)))
        else:
            columns.append(Number(0, builder.numbers.index(feature.name)))
    return Table(tuple(columns), tuple(feature.name for feature in features))


def matrix(table: Table, builder: Builder) -> int:
    """Return a register with all columns of a table as one matrix; UncompilableError if one is not a number."""
    columns = [column for column in table.columns if isinstance(column, Number)]
    if len(columns) < len(table.columns):
        found = "text" if any(isinstance(column, Text) for column in table.columns) else "a timestamp"
        raise UncompilableError(f"{found} reaches a step that takes numbers")
    registers = list(dict.fromkeys(column.register for column in columns))
    widths = [len(builder.sure[register]) for register in registers]
    first = dict(zip(registers, np.cumsum([0, *widths]).tolist(), strict=False))
    take = [first[column.register] + column.index for column in columns]
    known = [builder.sure[column.register][column.index] for column in columns]
    if len(registers) == 1 and take == list(range(widths[0])):
        gathered = registers[0]
    else:
        whole = bool(registers) and take == list(range(sum(widths)))
        gathered = builder.emit("columns", *(registers or [0]), take=None if whole else take, sure=known)
    if all(column.missing is None for column in columns):
        return gathered
    values = np.array([np.nan if column.missing is None else column.missing for column in columns])
    return builder.emit("fill", gathered, values=values, sure=[column.finiteness(builder) for column in columns])


def numbers(register: int, width: int, names: Sequence[str] | None = None, sparse: bool = False) -> Table:
    """Return the table of all columns of a matrix."""
    columns = tuple(Number(register, index) for index in range(width))
    return Table(columns, None if names is None else tuple(names), sparse)


def settled(table: Table, builder: Builder) -> Table:
    """Return the table with the pending replacements of NaN emitted, one operation per register."""
    columns = list(table.columns)
    waiting = {column.register for column in columns if isinstance(column, Number) and column.missing is not None}
    for register in sorted(waiting):
        values = np.full(len(builder.sure[register]), np.nan)
        sure = list(builder.sure[register])
        # A column that occurs twice with different replacements stays pending.
        became: dict[int, Number] = {}
        for column in columns:
            if isinstance(column, Number) and column.register == register:
                became.setdefault(column.index, column)
        for index, column in became.items():
            values[index] = np.nan if column.missing is None else column.missing
            sure[index] = column.finiteness(builder)
        filled = builder.emit("fill", register, values=values, sure=sure)
        for position, column in enumerate(columns):
            if isinstance(column, Number) and column.register == register and column == became[column.index]:
                columns[position] = Number(filled, column.index)
    return replace(table, columns=tuple(columns))


def checked(table: Table, builder: Builder, missing: bool = True) -> Table:
    """Return the table after scikit-learn's check of the input of a step.

    Rows with an infinity, or with a NaN unless it may be `missing`, become unanswerable. Nothing is emitted for columns
    that are known to hold neither.
    """
    need = Finiteness.NOT_INFINITE if missing else Finiteness.FINITE
    positions = [place for place, column in enumerate(table.columns) if isinstance(column, Number)]
    if all(table.columns[place].finiteness(builder) >= need for place in positions):  # type: ignore[union-attr]
        return table
    register = matrix(table.take(positions), builder)
    sure = [max(need, known) for known in builder.sure[register]]
    register = builder.emit("checked", register, missing=missing, sure=sure)
    columns = list(table.columns)
    for index, place in enumerate(positions):
        columns[place] = Number(register, index)
    return replace(table, columns=tuple(columns))
