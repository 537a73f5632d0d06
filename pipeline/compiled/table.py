"""What flows between the steps of a pipeline while it is compiled: columns that are known to be somewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.compiled.plan import Builder, Finiteness
from pipeline.schema import Feature


class UncompilableError(Exception):
    """A step that the compiler does not know, or not with these parameters; the message says which and why."""


@dataclass(frozen=True)
class Number:
    """A column of numbers: column `index` of the matrix in a register, and what NaN became (None: still NaN).

    Where it may be `boolean` to scikit-learn, NumPy's functions may count in fewer bits.
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
    """A text feature in a register, with what earlier steps made of its values.

    `changed` says what some values became, `missing` what a null became (None: still null) and `rest` what all other
    values became (None: unchanged). Encoders turn all of it into one lookup, so nothing is done twice.
    """

    register: int
    changed: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None
    rest: str | None = None

    def after(self, value: str | None) -> str | None:
        """Return what a value of the feature has become."""
        if value is None:
            return self.missing
        return self.changed.get(value, value if self.rest is None else self.rest)

    def only(self, kept: Sequence[str], rest: str) -> "Text":
        """Return the column after all values but those kept, and nulls, became `rest`."""
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
    """Columns in order, with names where what flows is a frame; None where it is a matrix, `sparse` or not.

    Some transformers round differently on sparse matrices.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...] | None = None
    sparse: bool = False

    def take(self, positions: Sequence[int]) -> "Table":
        """Return some of the columns."""
        names = None if self.names is None else tuple(self.names[one] for one in positions)
        return Table(tuple(self.columns[one] for one in positions), names, self.sparse)


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
    """Return a register with all columns of a table as one matrix; UncompilableError when one is no number."""
    columns = [column for column in table.columns if isinstance(column, Number)]
    if len(columns) < len(table.columns):
        kind = "text" if any(isinstance(column, Text) for column in table.columns) else "a timestamp"
        raise UncompilableError(f"{kind} reaches a step that takes numbers")
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
    """Return the table after values were put in the place of NaN, for all columns of a register in one operation."""
    columns = list(table.columns)
    waiting = {column.register for column in columns if isinstance(column, Number) and column.missing is not None}
    for register in sorted(waiting):
        values = np.full(len(builder.sure[register]), np.nan)
        sure = list(builder.sure[register])
        # A column that is there twice, filled differently, keeps waiting.
        became: dict[int, Number] = {}
        for column in columns:
            if isinstance(column, Number) and column.register == register:
                became.setdefault(column.index, column)
        for index, column in became.items():
            values[index] = np.nan if column.missing is None else column.missing
            sure[index] = column.finiteness(builder)
        filled = builder.emit("fill", register, values=values, sure=sure)
        for place, one in enumerate(columns):
            if isinstance(one, Number) and one.register == register and one == became[one.index]:
                columns[place] = Number(filled, one.index)
    return replace(table, columns=tuple(columns))


def checked(table: Table, builder: Builder, missing: bool = True) -> Table:
    """Return the table after the check that scikit-learn makes of what a step is given.

    Rows with an infinity, or with a NaN unless it may be `missing`, become unanswerable. Nothing is emitted for columns
    that are known to hold neither.
    """
    need = Finiteness.NOT_INFINITE if missing else Finiteness.FINITE
    positions = [place for place, column in enumerate(table.columns) if isinstance(column, Number)]
    if all(table.columns[place].finiteness(builder) >= need for place in positions):  # type: ignore[union-attr]
        return table
    register = matrix(table.take(positions), builder)
    sure = [max(need, one) for one in builder.sure[register]]
    register = builder.emit("checked", register, missing=missing, sure=sure)
    columns = list(table.columns)
    for index, place in enumerate(positions):
        columns[place] = Number(register, index)
    return replace(table, columns=tuple(columns))
