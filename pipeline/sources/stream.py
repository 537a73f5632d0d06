"""A source's rows, table after table: as many in memory at a time as fit into a few blocks, whatever there are."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.sources import csv, function, parquet
from pipeline.sources.columns import Columns, conform
from pipeline.sources.kinds import Csv, Function, Source, origin
from pipeline.sources.parallel import in_order

if TYPE_CHECKING:
    import pyarrow

Write = Callable[["pyarrow.Table"], None]
Part = tuple[str, "pyarrow.Table"]
"""A table, and the name of the file it is from."""


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

    schema = stream(source, begin)
    return pa.concat_tables([conform(table, schema) for table in kept])


def stream(source: Source, begin: Callable[[], Write]) -> "pyarrow.Schema":
    """Give a source's rows to the function that `begin` returns, a table at a time; return the schema of all of them.

    The tables have the types known by then: `conform` brings them into the schema. `begin` is called again, and what
    was given until then is void, when the last rows tell that the first ones must be read otherwise. Raises as
    `read` does.
    """
    import pyarrow as pa

    forced: dict[str, dict[str, pyarrow.DataType]] = {}
    while True:
        # What CSV has as a null is one already.
        nulls = () if isinstance(source, Csv) else source.nulls
        columns = Columns(origin(source), nulls, source.types, reread=isinstance(source, Csv))
        write = begin()
        clean = (columns.add(part, table) for part, table in _parts(source, forced))
        for _ in in_order(write, (table for table in clean if table is not None), workers=1):
            pass
        again = columns.again() if isinstance(source, Csv) else {}
        if not again:
            return columns.schema()
        for part, types in again.items():
            before = forced.setdefault(part, {})
            before.update({name: pa.string() if name in before else kind for name, kind in types.items()})


def _parts(source: Source, forced: "csv.Forced") -> Iterator[Part]:
    if isinstance(source, Csv):
        return csv.tables(source, forced)
    if isinstance(source, Function):
        return function.tables(source)
    return parquet.tables(source)
