"""Where raw rows come from, and how they are read into one table of numbers, texts, booleans and timestamps."""

import csv
import glob
import io
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pipeline.errors import DataError, SourceError, did_you_mean

if TYPE_CHECKING:
    import pyarrow

LogicalType = Literal["number", "text", "boolean", "timestamp"]
"""What a column holds, whatever file it came in: whole and decimal numbers are one type, dates are timestamps."""

_NO_TYPES: Mapping[str, LogicalType] = MappingProxyType({})


@dataclass(frozen=True)
class Csv:
    """One CSV file or a glob of them: UTF-8, a header row, `nulls` the words that mean a missing value.

    `types` declares columns whose type the words alone do not tell, such as postal codes: `{"zip": "text"}`.
    """

    path: str
    nulls: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)


@dataclass(frozen=True)
class Parquet:
    """One Parquet file or a glob of them; `nulls` are words that mean a missing value too, here and in CSV requests."""

    path: str
    nulls: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)


@dataclass(frozen=True)
class Function:
    """A function without arguments that returns the table as a pandas DataFrame; `nulls` as for Parquet."""

    function: Callable[[], Any]
    nulls: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)


Source = Csv | Parquet | Function


def at(source: Source, path: str) -> Source:
    """Return the same source read from another place: a Parquet file by its ending, else a CSV file."""
    kind = Parquet if path.lower().endswith((".parquet", ".pq")) else Csv
    return kind(path, nulls=source.nulls, types=source.types)


def origin(source: Source) -> str:
    """Say in a few words where a source's rows come from."""
    if isinstance(source, Function):
        return f"{source.function.__module__}.{source.function.__qualname__}()"
    return str(source.path)


def read(source: Source) -> "pyarrow.Table":
    """Read a source into one Arrow table whose columns are int64, float64, string, bool or timestamp[us] in UTC.

    A number column is int64 when all its values are whole. The files of a glob are read in the order of their names.
    Raises SourceError when the source cannot be reached, DataError, naming file and line or column, when what it holds
    is no usable table.
    """
    import pyarrow as pa

    if isinstance(source, Function):
        tables = {origin(source): _call(source)}
    else:
        tables = {str(path): _read_file(source, path, source.types) for path in _files(source.path)}
    _check_headers(tables)
    if isinstance(source, Csv) and len(tables) > 1:
        types: dict[str, LogicalType] = {**dict.fromkeys(_told_differently(tables), "text"), **source.types}
        if types != source.types:
            tables = {path: _read_file(source, Path(path), types) for path in tables}
    order = next(iter(tables.values())).column_names
    for name in source.types:
        if name not in order:
            raise DataError(f"{origin(source)}: types has {name!r}, which is no column{did_you_mean(name, order)}")
    columns = {name: _column(name, source, tables) for name in order}
    table = pa.table(columns)
    if table.num_rows == 0:
        raise DataError(f"{origin(source)}: no rows; the header is there and nothing below it")
    return table


def _files(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_file() or not glob.has_magic(pattern):
        if not path.exists():
            raise SourceError(f"there is no file {pattern!r} (looked from {Path.cwd()}); check the path")
        if not path.is_file():
            raise SourceError(
                f"{pattern!r} is not a file; name a file, or the files in it as {pattern.rstrip('/')}/*.csv"
            )
        return [path]
    paths = sorted(Path(found) for found in glob.glob(pattern, recursive=True))
    if not paths:
        raise SourceError(f"no file matches {pattern!r} (looked from {Path.cwd()}); check the pattern")
    return paths


def _call(source: Function) -> "pyarrow.Table":
    import pyarrow as pa

    try:
        frame = source.function()
    except Exception as error:
        raise SourceError(f"{origin(source)} raised {type(error).__name__}: {error}") from error
    if not hasattr(frame, "iloc"):
        raise SourceError(f"{origin(source)} returned a {type(frame).__name__}; return a pandas DataFrame")
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{origin(source)}: two columns are named {name!r}; rename one")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{origin(source)} returned a table that mixes types in a column: {error}") from error


def _read_file(source: Csv | Parquet, path: Path, types: Mapping[str, LogicalType]) -> "pyarrow.Table":
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        return _read_csv(path, source.nulls, types) if isinstance(source, Csv) else _read_parquet(path)
    except OSError as error:
        raise SourceError(f"{path} could not be read: {error.strerror or error}") from error


def _read_parquet(path: Path) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path).read()
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # Arrow reports damaged pages as OSError, which the operating system's own errors are too: those have a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: not a whole Parquet file; was the copy cut short? ({_first_line(error)})") from error


def _read_csv(path: Path, nulls: tuple[str, ...], types: Mapping[str, LogicalType]) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.csv

    _refuse_nul_bytes(path)
    _refuse_open_quote(path)
    try:
        table = pyarrow.csv.read_csv(
            path,
            # A row must fit into a block, and Arrow's own 1 MiB is less than some texts.
            read_options=pyarrow.csv.ReadOptions(block_size=2**24),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                null_values=list(nulls),
                strings_can_be_null=True,
                # Other declared types are cast to once Arrow has guessed: it knows zones and whole numbers then.
                column_types={name: pa.string() for name, kind in types.items() if kind == "text"},
            ),
        )
        clock = [
            name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_time(kind)
        ]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        _locate_defect(path, error)
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        _locate_defect(path, ValueError("a text is not UTF-8"))
    # A time of day has no logical type of its own; it stays the words that were written.
    return _read_csv(path, nulls, {**types, **dict.fromkeys(clock, "text")}) if clock else table


def _refuse_nul_bytes(path: Path) -> None:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        position = content.find(b"\0")
        if position >= 0:
            line = content[:position].count(b"\n") + 1
            raise DataError(f"{path}, line {line}: a NUL byte; the file is damaged or is not CSV")


def _refuse_open_quote(path: Path) -> None:
    """Raise DataError when a quote is never closed: Arrow would take all that follows for the end of one long text."""
    with path.open("rb") as file:
        quotes = sum(block.count(b'"') for block in iter(lambda: file.read(2**20), b""))
    if quotes % 2:
        # A lone quote inside an unquoted text, such as 5", opens nothing.
        _read_strictly(path)


def _locate_defect(path: Path, error: Exception) -> NoReturn:
    """Find the line that made Arrow refuse a CSV file, and raise DataError naming it."""
    _read_strictly(path, error)
    raise DataError(f"{path}: {_first_line(error)}") from error


def _read_strictly(path: Path, cause: Exception | None = None) -> None:
    """Raise DataError naming the first line with broken bytes, another number of fields, or a quote out of place."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content[: broken.start].count(b"\n") + 1
        byte = content[broken.start]
        raise DataError(f"{path}, line {line}: byte 0x{byte:02X} is not UTF-8; write the file again as UTF-8") from (
            cause or broken
        )
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    line = 1
    limit = csv.field_size_limit(len(text) + 1)
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                fields = "field" if len(row) == 1 else "fields"
                raise DataError(
                    f"{path}, line {line}: {len(row)} {fields} where the header has {len(header)}; "
                    "the file is ragged or was cut short"
                ) from cause
            line = rows.line_num + 1
    except csv.Error as broken:
        raise DataError(f"{path}, line {line}: {broken}; is a quote left open?") from (cause or broken)
    finally:
        csv.field_size_limit(limit)


def _check_headers(tables: Mapping[str, "pyarrow.Table"]) -> None:
    (first, expected), *others = [(path, table.column_names) for path, table in tables.items()]
    for number, name in enumerate(expected, start=1):
        if not name.strip():
            raise DataError(f"{first}: column {number} has no name; if it is an index, write the table without it")
        if expected.count(name) > 1:
            raise DataError(f"{first}: two columns are named {name!r}; rename one")
    for path, names in others:
        if sorted(names) != sorted(expected):
            lacks = ", ".join(repr(name) for name in expected if name not in names) or "nothing"
            adds = ", ".join(repr(name) for name in names if name not in expected) or "nothing"
            raise DataError(f"{path}: other columns than {first}: it lacks {lacks} and adds {adds}")


def _told_differently(tables: Mapping[str, "pyarrow.Table"]) -> list[str]:
    """Return the columns that, by their words, hold one type in one CSV file and another in the next."""
    names = next(iter(tables.values())).column_names
    kinds = {name: {_logical(table.schema.field(name).type) for table in tables.values()} - {None} for name in names}
    return [name for name, found in kinds.items() if len(found) > 1]


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


def logical_type(kind: "pyarrow.DataType") -> LogicalType:
    """Return the logical type of a snapshot column's Arrow type."""
    return _logical(kind) or "number"


def _column(name: str, source: Source, tables: Mapping[str, "pyarrow.Table"]) -> "pyarrow.ChunkedArray":
    """Return one column of all tables, in the one Arrow type that its logical type is stored in."""
    import pyarrow as pa

    declared = source.types.get(name)
    where = next(iter(tables)) + (" and others" if len(tables) > 1 else "")
    try:
        found = {_logical(table.schema.field(name).type) for table in tables.values()} - {None}
    except DataError as error:
        raise DataError(f"{where}: column {name!r} {error}") from None
    if declared is None and len(found) > 1:
        raise DataError(f"{where}: column {name!r} holds {' and '.join(sorted(map(str, found)))} in different files")
    kind: LogicalType = declared or next(iter(found), None) or "number"
    if kind == "timestamp" and not found <= {"timestamp", "text"}:
        held = " and ".join(sorted(map(str, found)))
        raise DataError(f"{where}: column {name!r} is declared timestamp, but holds {held}")
    parts = [table.column(name) for table in tables.values()]
    try:
        if kind == "number":
            return _numbers(parts)
        column = _stored(parts, _ARROW[kind])
        return _without_nulls(column, source.nulls) if kind == "text" else column
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{where}: column {name!r} is declared {kind}, and a value is none: {_first_line(error)}"
        ) from error


_ARROW = {"text": "string", "boolean": "bool", "timestamp": "timestamp[us]"}


def _stored(parts: list["pyarrow.ChunkedArray"], arrow: str) -> "pyarrow.ChunkedArray":
    import pyarrow as pa

    kind = pa.timestamp("us") if arrow == "timestamp[us]" else pa.type_for_alias(arrow)
    # Through UTC: a cast of a zoned timestamp to one without a zone keeps the instant's UTC wall time.
    return pa.chunked_array(
        [chunk for part in parts for chunk in part.cast(kind, safe=False).chunks],
        type=kind,
    )


def _without_nulls(column: "pyarrow.ChunkedArray", nulls: tuple[str, ...]) -> "pyarrow.ChunkedArray":
    """Return a text column whose null words are null: a request as CSV could not tell such a word from a null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.is_in(column, pa.array(nulls, pa.string()))
    return pc.if_else(words, pa.scalar(None, pa.string()), column) if pc.any(words).as_py() else column


def _numbers(parts: list["pyarrow.ChunkedArray"]) -> "pyarrow.ChunkedArray":
    """Return whole numbers as int64, others as float64, whatever they were written as; NaN is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if all(pa.types.is_integer(part.type) and part.type != pa.uint64() for part in parts):
        return _stored(parts, "int64")
    column = _stored(parts, "float64")
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    # Past 2**53 a float64 no longer tells one whole number from the next. A column of nothing but nulls stays float64.
    whole = pc.all(
        pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53)),
        min_count=1,
    ).as_py()
    return column.cast(pa.int64()) if whole else column


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
