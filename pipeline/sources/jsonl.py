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
    """Yield a file's tables. A text column in which every value is a time becomes timestamps, unless declared text.

    Raises DataError, naming the line, if it is not a JSON object of numbers, texts, booleans and nulls.
    """
    import pyarrow as pa

    def parsed(block: bytes) -> "pyarrow.Table":
        table = _parsed(block, forced)
        # Arrow took the words of a column that is declared text for times: read its words.
        times = {name for name in table.column_names if pa.types.is_timestamp(table.schema.field(name).type)}
        words = {name: pa.string() for name in sorted(times) if source.types.get(name) == "text"}
        return _parsed(block, {**forced, **words}) if words else table

    with open_decompressed(place) as stream:
        read_tables = in_order(parsed, _blocks(stream), _THREADS)
        while True:
            try:
                table = next(read_tables, None)
            except (pa.ArrowException, UnicodeDecodeError) as error:
                _locate_defect(place, error)
            if table is None:
                return
            if not table.num_columns:
                raise DataError(
                    f"{place.name}: lines whose objects have no names; each line is one row",
                    code="data.json_without_names",
                )
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
    """Return texts as timestamps in UTC if all of them are times; Arrow itself recognises whole seconds only."""
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
    """Raise DataError, naming the first line that is not an object of plain values, or that changes a type."""
    import json

    def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} twice")
        return dict(pairs)

    held: dict[str, str] = {}
    with open_decompressed(place) as stream:
        number = 0
        for block in _blocks(stream):
            for line in block.splitlines():
                number += 1
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode(), object_pairs_hook=unique_names)
                except ValueError as broken:
                    raise DataError(
                        f"{place.name}, line {number}: not JSON: {broken}; was it cut short?", code="data.not_json"
                    ) from error
                if not isinstance(row, dict):
                    raise DataError(
                        f"{place.name}, line {number}: not a JSON object; each line is one row",
                        code="data.not_a_json_object",
                    ) from error
                for name, value in row.items():
                    json_type = _JSON_TYPES.get(type(value), type(value).__name__)
                    if value is not None and held.setdefault(name, json_type) != json_type:
                        raise DataError(
                            f"{place.name}, line {number}: column {name!r} holds {json_type} where it held "
                            f"{held[name]}; give it one type",
                            code="data.mixed_types",
                        ) from error
    raise DataError(
        f"{place.name}: the JSON cannot be parsed: {first_line(error)}; write the file again", code="data.unparsable"
    ) from error


_JSON_TYPES = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
