"""Where raw rows come from, and how they are read into one table of numbers, texts, booleans and timestamps."""

import codecs
import csv
import glob
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pipeline.errors import DataError, SourceError, SpecError, did_you_mean

if TYPE_CHECKING:
    import pyarrow

LogicalType = Literal["number", "text", "boolean", "timestamp"]
"""What a column holds, whatever file it came in: whole and decimal numbers are one type, dates are timestamps."""

_NO_TYPES: Mapping[str, LogicalType] = MappingProxyType({})


@dataclass(frozen=True)
class Csv:
    """One CSV file or a glob of them, with a header row; `nulls` are the words that mean a missing value.

    `types` declares columns whose type the words alone do not tell, such as postal codes: `{"zip": "text"}`. `decimal`
    is what stands before the fraction of a number; `encoding` is any that Python knows. A file whose name ends in .gz,
    .bz2, .xz or .zst is decompressed. Raises SpecError when the parts contradict each other.
    """

    path: str
    nulls: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name in ("separator", "decimal"):
            value = getattr(self, name)
            if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n\0':
                raise SpecError(f"{self.path}: {name} is {value!r}; give one character that is no letter, such as ';'")
        if self.separator == self.decimal:
            raise SpecError(f"{self.path}: separator and decimal are both {self.decimal!r}; is the separator ';'?")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise SpecError(
                f"{self.path}: {self.encoding!r} is no encoding that Python knows; give one such as 'cp1252'"
            ) from None


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
    if isinstance(source, kind):
        return replace(source, path=path)
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
        return _read_csv(path, source, types) if isinstance(source, Csv) else _read_parquet(path)
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


_OPENERS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = ("utf-8", "cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "latin-1")
"""What files that are not in the encoding they were said to be in are in, the likely first."""


def _read_csv(path: Path, source: Csv, types: Mapping[str, LogicalType]) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.csv

    text = _decoded(path, source.encoding)
    content = text.encode()
    _refuse_nul_bytes(path, content)
    # Arrow would take all that follows a quote never closed for the end of one long text. A lone quote inside an
    # unquoted text, such as 5", opens nothing.
    if content.count(b'"') % 2:
        _read_strictly(path, text, source)
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(content),
            # A row must fit into a block, and Arrow's own 1 MiB is less than some texts.
            read_options=pyarrow.csv.ReadOptions(block_size=2**24),
            parse_options=pyarrow.csv.ParseOptions(delimiter=source.separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                null_values=list(source.nulls),
                strings_can_be_null=True,
                decimal_point=source.decimal,
                # Other declared types are cast to once Arrow has guessed: it knows zones and whole numbers then.
                column_types={name: pa.string() for name, kind in types.items() if kind == "text"},
            ),
        )
        clock = [
            name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_time(kind)
        ]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        _locate_defect(path, text, source, error)
    _refuse_other_separator(path, text, source)
    # A time of day has no logical type of its own; it stays the words that were written.
    return _read_csv(path, source, {**types, **dict.fromkeys(clock, "text")}) if clock else table


def _bytes(path: Path) -> bytes:
    """Return what a file holds, decompressed as the ending of its name says."""
    import lzma

    import pyarrow as pa

    how = path.suffix.lower()
    if how not in (*_OPENERS, ".xz"):
        return path.read_bytes()
    try:
        if how == ".xz":
            return lzma.decompress(path.read_bytes())
        with pa.CompressedInputStream(pa.OSFile(str(path)), _OPENERS[how]) as stream:
            return bytes(stream.read())
    except (lzma.LZMAError, OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{path}: not a whole {how[1:]} file; was the copy cut short? ({_first_line(error)})"
        ) from error


def _decoded(path: Path, encoding: str) -> str:
    """Return a file's text without a byte order mark; DataError names the line, the byte and what it may be instead."""
    content = _bytes(path)
    if not content:
        raise DataError(f"{path}: the file is empty")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[broken.start]:02X} is not {_named(encoding)}; "
            f"{_other_encodings(content, broken.start, encoding)}, or write the file again as UTF-8"
        ) from broken


def _named(encoding: str) -> str:
    return "UTF-8" if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig") else encoding


def _other_encodings(content: bytes, position: int, encoding: str) -> str:
    """Say what the text around a byte would read as in other encodings, those with a byte order mark first."""
    for mark, name in {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8"}.items():
        if content.startswith(mark):
            return f"the file begins as {name} does: give encoding={name!r}"
    # A word, since a line may hold a person.
    start = max(content.rfind(end, 0, position) for end in b" ,;|\t\n\"'") + 1
    word = content[start : position + 12].split(b"\n")[0].split(b",")[0].split(b";")[0]
    readings: dict[str, str] = {}
    for name in _ENCODINGS:
        try:
            text = word.decode(name)
        except UnicodeDecodeError:
            continue
        if codecs.lookup(name) != codecs.lookup(encoding) and text.isprintable() and text not in readings.values():
            readings[name] = text
    if not readings:
        return "give its encoding, such as encoding='cp1252'"
    shown = ", ".join(f"{text!r} in {name}" for name, text in [*readings.items()][:3])
    return f"it reads {shown}: give that as encoding="


def _refuse_nul_bytes(path: Path, content: bytes) -> None:
    position = content.find(b"\0")
    if position >= 0:
        line = content.count(b"\n", 0, position) + 1
        raise DataError(
            f"{path}, line {line}: a NUL byte; the file is damaged or is not CSV, or is UTF-16: encoding='utf-16'"
        )


def _refuse_other_separator(path: Path, text: str, source: Csv) -> None:
    """Raise DataError when the header is one column, and header and first row are several by another separator."""
    lines = [line for line in text[: 2**16].splitlines() if line][:2]
    header = next(csv.reader(lines, delimiter=source.separator))
    if len(header) == 1 and (other := _other_separator(lines, source)):
        raise DataError(
            f"{path}: one column {header[0]!r:.80} with separator {source.separator!r}; by {other!r} there are "
            f"{lines[0].count(other) + 1}: give separator={other!r}"
        )


def _other_separator(lines: Sequence[str], source: Csv) -> str | None:
    """Return the separator, if there is one, that cuts a header and a first row into the same number of fields."""
    for other in _SEPARATORS:
        cut = [len(row) for row in csv.reader(lines, delimiter=other)]
        if other != source.separator and min(cut) > 1 and len(set(cut)) == 1:
            return other
    return None


def _locate_defect(path: Path, text: str, source: Csv, error: Exception) -> NoReturn:
    """Find the line that made Arrow refuse a CSV file, and raise DataError naming it."""
    _read_strictly(path, text, source, error)
    raise DataError(f"{path}: {_first_line(error)}") from error


def _read_strictly(path: Path, text: str, source: Csv, cause: Exception | None = None) -> None:
    """Raise DataError naming the first line with another number of fields, or a quote out of place."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=source.separator)
    header: list[str] = []
    line = 1
    limit = csv.field_size_limit(len(text) + 1)
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                if len(header) == 1:
                    _refuse_other_separator(path, text, source)
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
