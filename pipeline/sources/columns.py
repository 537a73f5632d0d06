"""The one type each column is stored in, learned from all rows while they pass by, and tables brought into it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import DataError, did_you_mean
from pipeline.sources.source_types import LogicalType

if TYPE_CHECKING:
    import pyarrow

_EXACT = 2.0**53
"""From here on a float64 no longer tells one whole number from the next."""


def logical_type(kind: "pyarrow.DataType") -> LogicalType:
    """Return the logical type of a snapshot column's Arrow type."""
    return _logical(kind) or "number"


def conform(table: "pyarrow.Table", schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Return a table of `Columns.add` in the types that were settled on later; what it lacks is null."""
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
    """What is known of one column so far."""

    declared: LogicalType | None
    logical: LogicalType | None = None
    read: dict[str, set["pyarrow.DataType"]] = field(default_factory=dict)
    values: bool = False
    floats: bool = False
    fractions: bool = False
    beyond: bool = False

    @property
    def kind(self) -> LogicalType | None:
        return self.declared or self.logical

    def stored(self) -> "pyarrow.DataType":
        """Return the Arrow type that holds all that was seen; null when nothing but nulls was."""
        import pyarrow as pa

        match self.kind:
            case "text":
                return pa.string()
            case "boolean":
                return pa.bool_()
            case "timestamp":
                return pa.timestamp("us")
            case _ if not self.values:
                return pa.null()
        # Whole numbers are whole whatever they were written as, unless a float could not tell them apart.
        return pa.float64() if self.floats and (self.fractions or self.beyond) else pa.int64()


class ColumnTypes:
    """What is known of a source's columns while its tables pass by.

    `reread` says that a source can be read once more, with columns as the words that they were written in: where its
    parts contradict each other, `again` tells which. Otherwise a contradiction is a DataError. `growing` says that a
    table may lack columns that others have.
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
        self._origin, self._nulls, self._types = origin, nulls, types
        self._reread, self._growing = reread, growing
        self._columns: dict[str, _Column] = {}
        self._first = ""
        self._parts: set[str] = set()
        self._contradicted = False
        self.rows = 0

    def add(self, part: str, table: "pyarrow.Table") -> "pyarrow.Table | None":
        """Return a table of one part (a file) in stored types, so far as they are known; None once all is read again.

        Raises DataError, naming part and column, for a value that is not what its column holds.
        """
        self._check_names(part, table.column_names)
        self.rows += table.num_rows
        for name in table.column_names:
            if name not in self._columns:
                self._columns[name] = _Column(self._types.get(name))
            self._see(part, name, table.schema.field(name).type)
        if self._contradicted:
            return None
        import pyarrow as pa

        names = [name for name in self._columns if name in table.column_names]
        cells = [self._cells(part, name, table.column(name)) for name in names]
        schema = pa.schema([(name, self._columns[name].stored()) for name in names])
        return conform(pa.table(dict(zip(names, cells, strict=True))), schema)

    def again(self) -> dict[str, dict[str, "pyarrow.DataType"]]:
        """Return, per part, the columns to be read again and as what; those of the part "" in all parts alike."""
        import pyarrow as pa

        wanted: dict[str, dict[str, pyarrow.DataType]] = {}
        for name, column in self._columns.items():
            joint = {part: _joint(types) for part, types in column.read.items()}
            kinds = {_logical(kind) for kind in joint.values() if not pa.types.is_time(kind)} - {None}
            if column.declared is None and (
                len(kinds) > 1 or (kinds and any(pa.types.is_time(kind) for kind in joint.values()))
            ):
                wanted.setdefault("", {})[name] = pa.string()
                continue
            for part, kind in joint.items():
                if not _castable(column.read[part], kind):
                    wanted.setdefault(part, {})[name] = pa.string() if pa.types.is_time(kind) else kind
        return wanted

    def schema(self) -> "pyarrow.Schema":
        """Return the schema of the whole table; DataError when there were no rows, or a declared column is missing."""
        import pyarrow as pa

        for name in self._types:
            if name not in self._columns:
                raise DataError(
                    f"{self._origin}: types has {name!r}, which is no column{did_you_mean(name, self._columns)}"
                )
        if not self.rows:
            raise DataError(f"{self._origin}: no rows; the header is there and nothing below it")
        stored = {name: column.stored() for name, column in self._columns.items()}
        # A column of nothing but nulls is a number.
        return pa.schema([(name, pa.float64() if pa.types.is_null(kind) else kind) for name, kind in stored.items()])

    def _check_names(self, part: str, names: list[str]) -> None:
        if part in self._parts:
            return
        self._parts.add(part)
        for number, name in enumerate(names, start=1):
            if not name.strip():
                raise DataError(f"{part}: column {number} has no name; if it is an index, write the table without it")
            if names.count(name) > 1:
                raise DataError(f"{part}: two columns are named {name!r}; rename one")
        expected = list(self._columns)
        if not self._first:
            self._first = part
        elif sorted(names) != sorted(expected) and not self._growing:
            lacks = ", ".join(repr(name) for name in expected if name not in names) or "nothing"
            adds = ", ".join(repr(name) for name in names if name not in expected) or "nothing"
            raise DataError(f"{part}: other columns than {self._first}: it lacks {lacks} and adds {adds}")

    def _see(self, part: str, name: str, kind: "pyarrow.DataType") -> None:
        """Note the type that a column was read as, and whether that contradicts what was read before."""
        import pyarrow as pa

        column = self._columns[name]
        types = column.read.setdefault(part, set())
        if kind in types or pa.types.is_null(kind):
            return
        types.add(kind)
        if self._reread and (len(types) > 1 or pa.types.is_time(kind)) and not _castable(types, _joint(types)):
            self._contradicted = True
            return
        try:
            found = _logical(kind)
        except DataError as error:
            raise DataError(f"{part}: column {name!r} {error}") from None
        if column.declared == "timestamp" and found not in ("timestamp", "text"):
            raise DataError(f"{part}: column {name!r} is declared timestamp, but holds {found}")
        if column.declared is None and column.logical not in (None, found):
            if not self._reread:
                held = " and ".join(sorted((str(column.logical), str(found))))
                places = "different files" if len(self._parts) > 1 else "different rows"
                raise DataError(f"{part}: column {name!r} holds {held} in {places}")
            self._contradicted = True
        column.logical = column.logical or found

    def _cells(self, part: str, name: str, cells: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
        """Return a column's cells as its logical type is stored, and note what that says of the column."""
        import pyarrow as pa

        column = self._columns[name]
        if pa.types.is_null(cells.type) and column.kind in (None, "number"):
            return cells
        try:
            if column.kind == "number":
                return self._numbers(column, cells)
            if column.kind == "timestamp":
                # Through UTC: a cast of a zoned timestamp to one without a zone keeps the instant's UTC wall time.
                return cells.cast(pa.timestamp("us"), safe=False)
            if column.kind == "boolean":
                return cells.cast(pa.bool_(), safe=False)
            return _without_nulls(cells.cast(pa.string(), safe=False), self._nulls)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{part}: column {name!r} is declared {column.kind}, and a value is none: {first_line(error)}"
            ) from error

    def _numbers(self, column: _Column, cells: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
        """Return whole numbers as int64, others as float64, whatever they were written as; NaN is null."""
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
        # The first rows of most decimal columns tell already.
        column.fractions = column.fractions or not _whole(cells.slice(0, 100)) or not _whole(cells)
        return cells if column.fractions else cells.cast(pa.int64())


def _whole(cells: "pyarrow.ChunkedArray") -> bool:
    import pyarrow.compute as pc

    whole = pc.and_(pc.equal(pc.floor(cells), cells), pc.less(pc.abs(cells), _EXACT))
    return bool(pc.all(whole).as_py())


def _without_nulls(cells: "pyarrow.ChunkedArray", nulls: tuple[str, ...]) -> "pyarrow.ChunkedArray":
    """Return a text column whose null words are null: a request as CSV could not tell such a word from a null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not nulls:
        return cells
    words = pc.is_in(cells, pa.array(nulls, pa.string()))
    return pc.if_else(words, pa.scalar(None, pa.string()), cells) if pc.any(words).as_py() else cells


def _joint(types: Iterable["pyarrow.DataType"]) -> "pyarrow.DataType":
    """Return the first type in the order in which Arrow tries them on a CSV column that may suit all of some types."""
    import pyarrow as pa

    kinds = set(types)
    if len(kinds) <= 1:
        return next(iter(kinds), pa.null())
    day, second, nano = pa.date32(), pa.timestamp("s"), pa.timestamp("ns")
    for family, joint in (
        ({pa.int64(), pa.float64()}, pa.float64()),
        ({pa.int64(), pa.bool_()}, pa.bool_()),
        ({day, second}, second),
        ({day, second, nano}, nano),
        ({pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC")}, pa.timestamp("ns", "UTC")),
    ):
        if kinds <= family:
            return joint
    return pa.string()


def _castable(types: set["pyarrow.DataType"], joint: "pyarrow.DataType") -> bool:
    """Tell whether what was read as some types is the same as what would have been read as their joint type."""
    import pyarrow as pa

    if len(types) <= 1:
        return not pa.types.is_time(joint)
    return types <= {pa.int64(), pa.float64()} or types <= {pa.date32(), pa.timestamp("s")}


def _logical(kind: "pyarrow.DataType") -> LogicalType | None:
    """Return the logical type of an Arrow type; None when it holds nothing but nulls."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return "timestamp"
    raise DataError(f"holds {kind}; a column holds numbers, texts, booleans or timestamps")


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
