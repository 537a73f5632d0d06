"""The one type in which each column is stored, inferred from all rows while they stream by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import DataError, did_you_mean
from pipeline.sources.source_types import LogicalType

if TYPE_CHECKING:
    import pyarrow

_EXACT = 2.0**53
"""From here on a float64 cannot represent every whole number."""


def logical_type(arrow_type: "pyarrow.DataType") -> LogicalType:
    """Return the logical type of a column's Arrow type: the only place that maps one to the other.

    A column of nothing but nulls is a number. Raises DataError for a type that a snapshot cannot hold, such as a list.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if pa.types.is_boolean(arrow_type):
        return "boolean"
    if any(
        is_one(arrow_type)
        for is_one in (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    ):
        return "number"
    if any(is_one(arrow_type) for is_one in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        return "text"
    if pa.types.is_date(arrow_type) or pa.types.is_timestamp(arrow_type):
        return "timestamp"
    raise DataError(
        f"holds {arrow_type}; a column holds numbers, texts, booleans or timestamps", code="data.unsupported_type"
    )


def stored_type(logical: LogicalType, *, whole: bool = False) -> "pyarrow.DataType":
    """Return the Arrow type in which a snapshot stores a logical type; `whole` says that all numbers are integers."""
    import pyarrow as pa

    match logical:
        case "text":
            return pa.string()
        case "boolean":
            return pa.bool_()
        case "timestamp":
            return pa.timestamp("us")
    return pa.int64() if whole else pa.float64()


def conform(table: "pyarrow.Table", schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Return a table from `ColumnTypes.add` in the types of the final schema; columns that it lacks become null."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    names = set(table.column_names)
    columns = [
        table.column(column.name).cast(column.type, safe=False)
        if column.name in names and not pa.types.is_null(column.type)
        else pa.nulls(table.num_rows, column.type)
        for column in schema
    ]
    return pa.table(columns, schema=schema)


@dataclass
class _Column:
    """What is known of one column so far.

    Attributes:
        declared: the type that the source declares; None without one.
        logical: the type of the values so far; None before the first value.
        read: the Arrow types that each part's tables had, by part.
        values: whether a number that is not null came by.
        floats: whether numbers came as decimals.
        fractions: whether a number is not whole.
        beyond: whether a whole number is too large for a float64 to be exact.
    """

    declared: LogicalType | None
    logical: LogicalType | None = None
    read: dict[str, set["pyarrow.DataType"]] = field(default_factory=dict)
    values: bool = False
    floats: bool = False
    fractions: bool = False
    beyond: bool = False

    @property
    def known(self) -> LogicalType | None:
        """The declared type, else the type of the values so far."""
        return self.declared or self.logical

    def stored(self) -> "pyarrow.DataType":
        """Return the Arrow type that holds all values so far; null if there were none."""
        import pyarrow as pa

        if self.known in (None, "number") and not self.values:
            return pa.null()
        # Whole numbers that were written as decimals count as whole, unless a float could not tell them apart.
        return stored_type(self.known or "number", whole=not (self.floats and (self.fractions or self.beyond)))


class ColumnTypes:
    """The types of a source's columns, inferred while its tables stream by.

    Pass every table through `add`, in order. After the last, `types_to_force` returns how columns must be read if the
    source is to be read again, and `schema` returns the final types.

    Attributes:
        rows: the number of rows so far.
    """

    def __init__(
        self,
        origin: str,
        nulls: tuple[str, ...],
        types: Mapping[str, LogicalType],
        *,
        reread: bool = False,
        growing: bool = False,
    ) -> None:
        """Begin without any rows.

        Args:
            origin: names the source in errors.
            nulls: words that mean a missing value in text columns.
            types: the declared types of columns.
            reread: whether the source can be read again with forced types. If not, parts that contradict each other
                are a DataError.
            growing: whether a table may lack columns that others have.
        """
        self._origin, self._nulls, self._types = origin, nulls, types
        self._reread, self._growing = reread, growing
        self._columns: dict[str, _Column] = {}
        self._first = ""
        self._parts: set[str] = set()
        self._contradicted = False
        self.rows = 0

    def add(self, part: str, table: "pyarrow.Table") -> "pyarrow.Table | None":
        """Return a table of one part (a file) in the stored types known so far.

        Returns None once a contradiction means that the whole source must be read again. Raises DataError, naming part
        and column, for a value of another type than its column's.
        """
        self._check_names(part, table.column_names)
        self.rows += table.num_rows
        for name in table.column_names:
            if name not in self._columns:
                self._columns[name] = _Column(self._types.get(name))
            self._note_type(part, name, table.schema.field(name).type)
        if self._contradicted:
            return None
        import pyarrow as pa

        names = [name for name in self._columns if name in table.column_names]
        cells = [self._cells(part, name, table.column(name)) for name in names]
        schema = pa.schema([(name, self._columns[name].stored()) for name in names])
        return conform(pa.table(dict(zip(names, cells, strict=True))), schema)

    def types_to_force(self) -> dict[str, dict[str, "pyarrow.DataType"]]:
        """Return the types with which columns must be read again, by part and column; empty if all were read right.

        The part "" stands for all parts.
        """
        import pyarrow as pa

        forced: dict[str, dict[str, pyarrow.DataType]] = {}
        for name, column in self._columns.items():
            joint = {part: _joint(types) for part, types in column.read.items()}
            times = any(pa.types.is_time(arrow_type) for arrow_type in joint.values())
            logical = {
                logical_type(arrow_type)
                for arrow_type in joint.values()
                if not pa.types.is_time(arrow_type) and not pa.types.is_null(arrow_type)
            }
            if column.declared is None and (len(logical) > 1 or (logical and times)):
                # Numbers here and words there: all of the column is text.
                forced.setdefault("", {})[name] = pa.string()
                continue
            for part, arrow_type in joint.items():
                if not _castable(column.read[part], arrow_type):
                    forced.setdefault(part, {})[name] = pa.string() if pa.types.is_time(arrow_type) else arrow_type
        return forced

    def schema(self) -> "pyarrow.Schema":
        """Return the schema of the whole table. Raises DataError without rows, or if a declared column is missing."""
        import pyarrow as pa

        for name in self._types:
            if name not in self._columns:
                raise DataError(
                    f"{self._origin}: types has {name!r}, which is not a column{did_you_mean(name, self._columns)}",
                    code="data.unknown_declared_column",
                )
        if not self.rows:
            raise DataError(f"{self._origin}: no rows; the header is there and nothing below it", code="data.no_rows")
        stored = {name: column.stored() for name, column in self._columns.items()}
        # A column of nothing but nulls is a number.
        return pa.schema([(name, pa.float64() if pa.types.is_null(known) else known) for name, known in stored.items()])

    def _check_names(self, part: str, names: list[str]) -> None:
        if part in self._parts:
            return
        self._parts.add(part)
        for number, name in enumerate(names, start=1):
            if not name.strip():
                raise DataError(
                    f"{part}: column {number} has no name; if it is an index, write the table without it",
                    code="data.unnamed_column",
                )
            if names.count(name) > 1:
                raise DataError(f"{part}: two columns are named {name!r}; rename one", code="data.duplicate_column")
        expected = list(self._columns)
        if not self._first:
            self._first = part
        elif sorted(names) != sorted(expected) and not self._growing:
            lacks = ", ".join(repr(name) for name in expected if name not in names) or "nothing"
            adds = ", ".join(repr(name) for name in names if name not in expected) or "nothing"
            raise DataError(
                f"{part}: other columns than {self._first}: it lacks {lacks} and adds {adds}; give all files the same",
                code="data.other_columns",
            )

    def _note_type(self, part: str, name: str, arrow_type: "pyarrow.DataType") -> None:
        """Note the type that a column was read as, and whether it contradicts the types before."""
        import pyarrow as pa

        column = self._columns[name]
        types = column.read.setdefault(part, set())
        if arrow_type in types or pa.types.is_null(arrow_type):
            return
        types.add(arrow_type)
        if self._reread and (len(types) > 1 or pa.types.is_time(arrow_type)) and not _castable(types, _joint(types)):
            self._contradicted = True
            return
        try:
            logical = logical_type(arrow_type)
        except DataError as error:
            raise DataError(f"{part}: column {name!r} {error}", code=error.code) from None
        if column.declared == "timestamp" and logical not in ("timestamp", "text"):
            raise DataError(
                f"{part}: column {name!r} is declared timestamp, but holds {logical}; correct `types` or the data",
                code="data.not_the_declared_type",
            )
        if column.declared is None and column.logical not in (None, logical):
            if not self._reread:
                held = " and ".join(sorted((str(column.logical), str(logical))))
                where = "different files" if len(self._parts) > 1 else "different rows"
                raise DataError(
                    f"{part}: column {name!r} holds {held} in {where}; give it one type", code="data.mixed_types"
                )
            self._contradicted = True
        column.logical = column.logical or logical

    def _cells(self, part: str, name: str, cells: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
        """Return a column's cells in the Arrow type of its logical type, and note facts about them."""
        import pyarrow as pa

        column = self._columns[name]
        if pa.types.is_null(cells.type) and column.known in (None, "number"):
            return cells
        try:
            if column.known in (None, "number"):
                return self._numbers(column, cells)
            # A timestamp with a zone becomes UTC: casting it to one without a zone keeps the instant's UTC time.
            cells = cells.cast(stored_type(column.known), safe=False)
            return _without_nulls(cells, self._nulls) if column.known == "text" else cells
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{part}: column {name!r} is declared {column.known}, but a value is not: {first_line(error)}; correct "
                "`types` or the data",
                code="data.not_the_declared_type",
            ) from error

    def _numbers(self, column: _Column, cells: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
        """Return numbers as int64 if all are whole, else as float64; NaN becomes null."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_integer(cells.type) and cells.type != pa.uint64():
            cells = cells.cast(pa.int64())
            column.values = column.values or cells.null_count < len(cells)
            if not column.beyond:
                ends = pc.min_max(cells).as_py()
                column.beyond = any(abs(end) >= _EXACT for end in ends.values() if end is not None)
            return cells
        column.floats = True
        cells = cells.cast(pa.float64(), safe=False)
        if pc.any(pc.is_nan(cells)).as_py():
            cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, pa.float64()), cells)
        if cells.null_count == len(cells):
            return pa.chunked_array([pa.nulls(len(cells))])
        column.values = True
        # In most decimal columns the first 100 rows already hold a fraction.
        column.fractions = column.fractions or not _whole(cells.slice(0, 100)) or not _whole(cells)
        return cells if column.fractions else cells.cast(pa.int64())


def _whole(cells: "pyarrow.ChunkedArray") -> bool:
    import pyarrow.compute as pc

    whole = pc.and_(pc.equal(pc.floor(cells), cells), pc.less(pc.abs(cells), _EXACT))
    return bool(pc.all(whole).as_py())


def _without_nulls(cells: "pyarrow.ChunkedArray", nulls: tuple[str, ...]) -> "pyarrow.ChunkedArray":
    """Return a text column with null in place of the null words, because a CSV request cannot tell them apart."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not nulls:
        return cells
    words = pc.is_in(cells, pa.array(nulls, pa.string()))
    return pc.if_else(words, pa.scalar(None, pa.string()), cells) if pc.any(words).as_py() else cells


def _joint(types: Iterable["pyarrow.DataType"]) -> "pyarrow.DataType":
    """Return the first type, in the order in which Arrow tries them on a CSV column, that fits all of some types."""
    import pyarrow as pa

    distinct = set(types)
    if len(distinct) <= 1:
        return next(iter(distinct), pa.null())
    day, second, nano = pa.date32(), pa.timestamp("s"), pa.timestamp("ns")
    for family, joint in (
        ({pa.int64(), pa.float64()}, pa.float64()),
        ({pa.int64(), pa.bool_()}, pa.bool_()),
        ({day, second}, second),
        ({day, second, nano}, nano),
        ({pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC")}, pa.timestamp("ns", "UTC")),
    ):
        if distinct <= family:
            return joint
    return pa.string()


def _castable(types: set["pyarrow.DataType"], joint: "pyarrow.DataType") -> bool:
    """Return whether casting columns read as some types gives what reading them as the joint type gives."""
    import pyarrow as pa

    if len(types) <= 1:
        return not pa.types.is_time(joint)
    return types <= {pa.int64(), pa.float64()} or types <= {pa.date32(), pa.timestamp("s")}


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
