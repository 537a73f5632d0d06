"""A source's rows, table after table, in bounded memory.

The types of columns are known for certain only after the last row. A *pass* reads all rows once. CSV and JSON Lines may
need a second pass with forced types, for example when a column of numbers holds a word in its last row. A database that
breaks off is read again by a retry. Every pass begins with `begin()`, which returns the function that takes its tables.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.sources import csv, function, jsonl, parquet
from pipeline.sources.columns import ColumnTypes, conform
from pipeline.sources.locations import DataFile, locate_files
from pipeline.sources.parallel import in_order
from pipeline.sources.retry import with_retries
from pipeline.sources.source_types import Csv, DuckDb, Files, Function, JsonLines, Source, Sql, origin

if TYPE_CHECKING:
    import pyarrow

Write = Callable[["pyarrow.Table"], None]
"""Takes the next table of a pass."""
ForcedTypes = dict[str, dict[str, "pyarrow.DataType"]]
"""The types as which columns are read, whatever their words look like: by file ("" for all files) and column."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def read(source: Source) -> "pyarrow.Table":
    """Read a source into one Arrow table whose columns are int64, float64, string, bool or timestamp[us] in UTC.

    A number column is int64 if all its values are whole. The files of a glob are read in the order of their names.
    Raises SourceError if the source cannot be reached. Raises DataError, naming file and line or column, if its content
    is not a usable table.
    """
    import pyarrow as pa

    tables: list[pyarrow.Table] = []

    def begin() -> Write:
        tables.clear()
        return tables.append

    with tempfile.TemporaryDirectory() as scratch:
        schema = stream(source, Path(scratch), begin)
    return pa.concat_tables([conform(table, schema) for table in tables])


def names(source: Source) -> list[str]:
    """Return the names of the columns of a source's first table. Raises as `read` does."""
    with tempfile.TemporaryDirectory() as scratch:
        _, table = next(_tables(source, {}, Path(scratch)))
        return list(table.column_names)


def stream(source: Source, scratch: Path, begin: Callable[[], Write]) -> "pyarrow.Schema":
    """Pass a source's rows, a table at a time, to the function that `begin` returns; return the final schema.

    The tables have the types known so far: `conform` casts them to the schema. Each pass calls `begin` again, which
    must discard the tables of the pass before. Remote files are fetched into the folder `scratch`, once. Raises as
    `read` does.
    """
    forced: ForcedTypes = {}
    while True:
        read_all = partial(_read_pass, source, forced, scratch, begin)
        # Only a query is retried here: fetching a remote file has its own retries, and other sources need none.
        columns = with_retries(read_all) if isinstance(source, Sql) else read_all()
        more = columns.types_to_force() if _has_words(source) else {}
        if not more:
            return columns.schema()
        _add(more, forced)


def _has_words(source: Source) -> bool:
    """Return whether a source's types are guessed from words, so that another pass may read them otherwise."""
    return isinstance(source, Csv | JsonLines)


def _add(more: ForcedTypes, forced: ForcedTypes) -> None:
    """Add types to the forced ones. A column that a forced type did not fit becomes text, so that passes end."""
    import pyarrow as pa

    for part, types in more.items():
        before = forced.setdefault(part, {})
        before.update({name: pa.string() if name in before else wanted for name, wanted in types.items()})


def _read_pass(source: Source, forced: ForcedTypes, scratch: Path, begin: Callable[[], Write]) -> ColumnTypes:
    """Read a source from its first row to its last; return the types of its columns."""
    # Arrow's CSV reader already made the null words null.
    nulls = () if isinstance(source, Csv) else source.na_values
    growing = isinstance(source, JsonLines)
    columns = ColumnTypes(origin(source), nulls, source.types, reread=_has_words(source), growing=growing)
    write = begin()
    typed = (columns.add(part, table) for part, table in _tables(source, forced, scratch))
    # A thread writes one table while the next is read.
    for _ in in_order(write, (table for table in typed if table is not None), workers=1):
        pass
    return columns


def _tables(source: Source, forced: ForcedTypes, scratch: Path) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield a source's tables, each with the name of its file."""
    # The database modules are imported by name, so that no package requires what they import.
    match source:
        case Function():
            yield from function.tables(source)
        case Sql():
            yield from _by_name("pipeline.sources.sql").tables(source)
        case DuckDb():
            yield from _by_name("pipeline.sources.sql").duckdb_tables(source, scratch)
        case _:
            files = list(locate_files(source, scratch))
            values = _partitions(files)
            for file in files:
                for table in _file_tables(file, source, {**forced.get("", {}), **forced.get(file.name, {})}):
                    yield file.name, _with_partition(table, values[file.name])


def _by_name(module: str) -> Any:
    return import_module(module)


def _file_tables(file: DataFile, source: Files, forced: Mapping[str, "pyarrow.DataType"]) -> Iterator["pyarrow.Table"]:
    match source:
        case Csv():
            return csv.tables(file, source, forced)
        case JsonLines():
            return jsonl.tables(file, source, forced)
    return parquet.tables(file)


def _partitions(files: list[DataFile]) -> dict[str, dict[str, "pyarrow.Scalar"]]:
    """Return the partition values in each file's path, with the type that Arrow guesses from those of all files."""
    import pyarrow as pa
    import pyarrow.csv

    values: dict[str, dict[str, pyarrow.Scalar]] = {file.name: {} for file in files}
    for name in files[0].partition:
        words = [file.partition[name].replace('"', '""') for file in files]
        column = pyarrow.csv.read_csv(
            pa.py_buffer("\n".join(f'"{word}"' for word in (name, *words)).encode()),
            convert_options=pyarrow.csv.ConvertOptions(null_values=[_NO_VALUE], strings_can_be_null=True),
        ).column(0)
        if pa.types.is_time(column.type):
            column = pa.chunked_array([words])
        for file, value in zip(files, column, strict=True):
            values[file.name][name] = value
    return values


def _with_partition(table: "pyarrow.Table", values: Mapping[str, "pyarrow.Scalar"]) -> "pyarrow.Table":
    import pyarrow as pa

    for name, value in values.items():
        # A column in the file takes precedence over the path.
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table
