"""How JSON Lines are read: in blocks cut between lines, each parsed by Arrow."""

from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, NoReturn

from pipeline.errors import DataError
from pipeline.sources.columns import first_line
from pipeline.sources.locations import DataFile, open_decompressed
from pipeline.sources.parallel import in_order
from pipeline.sources.source_types import JsonLines

if TYPE_CHECKING:
    import pyarrow

BLOCK = 2**24
_THREADS = 2


def tables(place: DataFile, source: JsonLines, forced: Mapping[str, "pyarrow.DataType"]) -> Iterator["pyarrow.Table"]:
    """Yield a file's tables; texts that all are times are timestamps, but for columns forced or declared to be texts.

    Raises DataError, naming the line, when one is no JSON object of numbers, texts, booleans and nulls.
    """
    import pyarrow as pa

    def parsed(block: bytes) -> "pyarrow.Table":
        table = _parsed(block, forced)
        # The words of what is declared a text, where Arrow took them for times.
        times = {name for name in table.column_names if pa.types.is_timestamp(table.schema.field(name).type)}
        words = {name: pa.string() for name in sorted(times) if source.types.get(name) == "text"}
        return _parsed(block, {**forced, **words}) if words else table

    with open_decompressed(place) as stream:
        found = in_order(parsed, _blocks(stream), _THREADS)
        while True:
            try:
                table = next(found, None)
            except (pa.ArrowException, UnicodeDecodeError) as error:
                _locate_defect(place, error)
            if table is None:
                return
            if not table.num_columns:
                raise DataError(f"{place.name}: lines whose objects have no names; each line is one row")
            yield table


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    waiting = b""
    while block := stream.read(max(BLOCK, len(waiting))):
        waiting += block
        if end := waiting.rfind(b"\n") + 1:
            if waiting[:end].strip():
                yield waiting[:end]
            waiting = waiting[end:]
    if waiting.strip():
        yield waiting


def _parsed(block: bytes, types: Mapping[str, "pyarrow.DataType"]) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.json

    table = pyarrow.json.read_json(
        pa.py_buffer(block),
        read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(types.items())) if types else None),
    )
    for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
        if pa.types.is_timestamp(kind) or (pa.types.is_string(kind) and name not in types):
            table = table.set_column(place, name, _times(table.column(name)))
    return table


def _times(cells: "pyarrow.ChunkedArray") -> "pyarrow.ChunkedArray":
    """Return texts as timestamps in UTC when all of them are, which Arrow itself tells of whole seconds only."""
    import pyarrow as pa

    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        if cells.null_count < len(cells):
            try:
                cells.slice(0, 100).cast(kind)
                return cells.cast(kind).cast(pa.timestamp("us"))
            except pa.ArrowInvalid:
                continue
    return cells


def _locate_defect(place: DataFile, error: Exception) -> NoReturn:
    """Raise DataError naming the first line that is no object of plain values, or where a type changes."""
    import json

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} twice")
        return dict(pairs)

    kinds: dict[str, str] = {}
    with open_decompressed(place) as stream:
        number = 0
        for block in _blocks(stream):
            for line in block.splitlines():
                number += 1
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode(), object_pairs_hook=once)
                except ValueError as broken:
                    raise DataError(f"{place.name}, line {number}: no JSON: {broken}; was it cut short?") from error
                if not isinstance(row, dict):
                    raise DataError(f"{place.name}, line {number}: no JSON object; each line is one row") from error
                for name, value in row.items():
                    kind = _KINDS.get(type(value), type(value).__name__)
                    if value is not None and kinds.setdefault(name, kind) != kind:
                        raise DataError(
                            f"{place.name}, line {number}: column {name!r} holds {kind} where it held {kinds[name]}"
                        ) from error
    raise DataError(f"{place.name}: {first_line(error)}") from error


_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
