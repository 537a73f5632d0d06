"""A source's rows, table after table: as many in memory at a time as fit into a few blocks, whatever there are."""

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
Forced = dict[str, dict[str, "pyarrow.DataType"]]
"""Per file, and with "" for all files, the types that columns are read as whatever their words look like."""
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def read(source: Source) -> "pyarrow.Table":
    """Read a source into one Arrow table whose columns are int64, float64, string, bool or timestamp[us] in UTC.

    A number column is int64 when all its values are whole. The files of a glob are read in the order of their names.
    Raises SourceError when the source cannot be reached, DataError, naming file and line or column, when what it holds
    is no usable table.
    """
    import pyarrow as pa

    kept: list[pyarrow.Table] = []

    def begin() -> Write:
        kept.clear()
        return kept.append

    with tempfile.TemporaryDirectory() as scratch:
        schema = stream(source, Path(scratch), begin)
    return pa.concat_tables([conform(table, schema) for table in kept])


def names(source: Source) -> list[str]:
    """Return the names of a source's columns, as its first table has them. Raises as `read` does."""
    with tempfile.TemporaryDirectory() as scratch:
        _, table = next(_tables(source, {}, Path(scratch)))
        return list(table.column_names)


def stream(source: Source, scratch: Path, begin: Callable[[], Write]) -> "pyarrow.Schema":
    """Give a source's rows to the function that `begin` returns, a table at a time; return the schema of all of them.

    The tables have the types known by then: `conform` brings them into the schema. `begin` is called again, and what
    was given until then is void, when the last rows tell that the first ones must be read otherwise, or a database
    broke off. Files at addresses are fetched into the folder `scratch`. Raises as `read` does.
    """
    import pyarrow as pa

    forced: Forced = {}
    while True:
        once = partial(_once, source, forced, scratch, begin)
        # What is fetched was waited for already.
        columns = with_retries(once) if isinstance(source, Sql) else once()
        again = columns.again() if isinstance(source, Csv | JsonLines) else {}
        if not again:
            return columns.schema()
        for part, types in again.items():
            before = forced.setdefault(part, {})
            before.update({name: pa.string() if name in before else kind for name, kind in types.items()})


def _once(source: Source, forced: Forced, scratch: Path, begin: Callable[[], Write]) -> ColumnTypes:
    """Read a source once, from its first row to its last; return what was learned about its columns."""
    # What CSV has as a null is one already.
    nulls = () if isinstance(source, Csv) else source.na_values
    words, growing = isinstance(source, Csv | JsonLines), isinstance(source, JsonLines)
    columns = ColumnTypes(origin(source), nulls, source.types, reread=words, growing=growing)
    write = begin()
    clean = (columns.add(part, table) for part, table in _tables(source, forced, scratch))
    for _ in in_order(write, (table for table in clean if table is not None), workers=1):
        pass
    return columns


def _tables(source: Source, forced: Forced, scratch: Path) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield a source's tables, each with the name of the file it is from."""
    # Databases are read by modules that are imported by name: no package asks for what they import.
    match source:
        case Function():
            yield from function.tables(source)
        case Sql():
            yield from _by_name("pipeline.sources.sql").tables(source)
        case DuckDb():
            yield from _by_name("pipeline.sources.sql").duckdb_tables(source, scratch)
        case _:
            found = list(locate_files(source, scratch))
            values = _partitions(found)
            for place in found:
                for table in _of_file(place, source, {**forced.get("", {}), **forced.get(place.name, {})}):
                    yield place.name, _with_partition(table, values[place.name])


def _by_name(module: str) -> Any:
    return import_module(module)


def _of_file(place: DataFile, source: Files, forced: Mapping[str, "pyarrow.DataType"]) -> Iterator["pyarrow.Table"]:
    match source:
        case Csv():
            return csv.tables(place, source, forced)
        case JsonLines():
            return jsonl.tables(place, source, forced)
    return parquet.tables(place)


def _partitions(found: list[DataFile]) -> dict[str, dict[str, "pyarrow.Scalar"]]:
    """Return per file the values that its path tells, of the type that those of all files have as words."""
    import pyarrow as pa
    import pyarrow.csv

    values: dict[str, dict[str, pyarrow.Scalar]] = {place.name: {} for place in found}
    for name in found[0].partition:
        words = [place.partition[name].replace('"', '""') for place in found]
        column = pyarrow.csv.read_csv(
            pa.py_buffer("\n".join(f'"{word}"' for word in (name, *words)).encode()),
            convert_options=pyarrow.csv.ConvertOptions(null_values=[_NO_VALUE], strings_can_be_null=True),
        ).column(0)
        if pa.types.is_time(column.type):
            column = pa.chunked_array([words])
        for place, value in zip(found, column, strict=True):
            values[place.name][name] = value
    return values


def _with_partition(table: "pyarrow.Table", values: Mapping[str, "pyarrow.Scalar"]) -> "pyarrow.Table":
    import pyarrow as pa

    for name, value in values.items():
        # What a file says itself counts.
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table
