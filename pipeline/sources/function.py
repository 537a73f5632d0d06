"""How the rows of a function of the project are read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.errors import DataError, SourceError
from pipeline.sources.source_types import Function, origin

if TYPE_CHECKING:
    import pyarrow

_ROWS = 2**17


def tables(source: Function) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield the function's rows in tables of at most 131,072 rows. Raises SourceError or DataError, naming it."""
    table = _call(source)
    for start in range(0, max(table.num_rows, 1), _ROWS):
        yield origin(source), table.slice(start, _ROWS)


def _call(source: Function) -> "pyarrow.Table":
    import pyarrow as pa

    try:
        frame = source.function()
    except Exception as error:
        raise SourceError(
            f"{origin(source)} raised {type(error).__name__}: {error}", code="source.function_failed"
        ) from error
    if not hasattr(frame, "iloc"):
        raise SourceError(
            f"{origin(source)} returned a {type(frame).__name__}; return a pandas DataFrame",
            code="source.not_a_dataframe",
        )
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{origin(source)}: two columns are named {name!r}; rename one", code="data.duplicate_column")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{origin(source)} returned a table that mixes types in a column: {error}; give each column one type",
            code="data.mixed_types",
        ) from error
