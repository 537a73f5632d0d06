"""How Parquet files are read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.errors import DataError, SourceError
from pipeline.sources.columns import first_line
from pipeline.sources.locations import DataFile

if TYPE_CHECKING:
    import pyarrow

_ROWS = 2**17
_BYTES = 2**25
"""The approximate max bytes of a yielded table: a wide one has fewer rows."""


def tables(place: DataFile) -> Iterator["pyarrow.Table"]:
    """Yield a file's tables; DataError if it is empty or damaged, SourceError if the system cannot open or read it."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if place.path.stat().st_size == 0:
            raise DataError(f"{place.name}: the file is empty; write it again", code="data.empty_file")
        # Arrow keeps what it reads ahead until the file is closed: with pre_buffer that would be the whole file.
        with pyarrow.parquet.ParquetFile(place.path, pre_buffer=False) as file:
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(batch_size=_rows(file)):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # Arrow reports damaged pages as OSError without a number; an error of the operating system has one.
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(
                f"{place.name} could not be read: {error.strerror or error}; check the path and its permissions",
                code="source.unreadable",
            ) from error
        raise DataError(
            f"{place.name}: not a whole Parquet file; was the copy cut short? ({first_line(error)})",
            code="data.damaged_file",
        ) from error


def _rows(file: "pyarrow.parquet.ParquetFile") -> int:
    meta = file.metadata
    size = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    return max(1, min(_ROWS, _BYTES * meta.num_rows // max(size, 1)))
