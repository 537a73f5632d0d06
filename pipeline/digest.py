"""Names by content: of a table, of a spec, of a file, of a folder.

Every digest is the SHA-256 of a description without memory addresses, file times or `repr`s, as 64 hexadecimal digits.
"""

import hashlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import SpecError
from pipeline.sources.columns import logical_type
from pipeline.sources.parallel import in_order

if TYPE_CHECKING:
    import pyarrow

SHORT = 12
"""How many digits people are shown."""


def of_table(table: "pyarrow.Table") -> str:
    """Return the digest of a table: names and logical types of its columns, and every cell, in order.

    How the cells were stored does not count: whole numbers are the same as integers and as floats.
    """
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        _add_column(digest, name, column.type, column.null_count, [len(column)], [column].__getitem__)
    return digest.hexdigest()


def of_parquet(path: Path) -> str:
    """Return the digest of the table in a snapshot's file, which is never in memory as a whole."""
    import pyarrow.parquet

    digest = hashlib.sha256()
    with pyarrow.parquet.ParquetFile(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        for place, field in enumerate(file.schema_arrow):

            def cells(group: int, name: str = field.name) -> "pyarrow.ChunkedArray":
                return file.read_row_group(group, columns=[name]).column(0)

            known = [group.column(place).statistics for group in groups]
            if all(one is not None and one.has_null_count for one in known):
                nulls = sum(one.null_count for one in known)
            else:
                nulls = sum(cells(number).null_count for number in range(len(groups)))
            _add_column(digest, field.name, field.type, nulls, [group.num_rows for group in groups], cells)
    return digest.hexdigest()


def _add_column(
    digest: "hashlib._Hash",
    name: str,
    kind: "pyarrow.DataType",
    nulls: int,
    sizes: Sequence[int],
    cells: Callable[[int], "pyarrow.ChunkedArray"],
) -> None:
    """Add a column to a digest: name and type, then its nulls, then its values, each null as one fixed value.

    It is in pieces of some sizes, which do not count; `cells` returns the piece of a number, as often as it is asked.
    """
    rows = sum(sizes)
    logical: str = "null" if nulls == rows else logical_type(kind)
    if logical == "number":
        logical += f" {kind}"
    digest.update(f"{len(name)} {name} {logical} {rows}\n".encode())

    def pieces() -> Iterator["pyarrow.ChunkedArray"]:
        return in_order(cells, range(len(sizes)), workers=1)

    if nulls in (0, rows):
        bits: Iterable[bytes] = _packed(np.full(size, nulls > 0) for size in sizes)
    else:
        bits = _packed(piece.is_null().to_numpy(zero_copy_only=False) for piece in pieces())
    for part in bits:
        digest.update(part)
    if nulls < rows:
        for value in _values(kind, pieces):
            digest.update(value)


def _values(
    kind: "pyarrow.DataType", pieces: Callable[[], Iterator["pyarrow.ChunkedArray"]]
) -> Iterator[bytes | memoryview]:
    """Yield a column's values as little-endian bytes: of texts all lengths, then all characters."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(kind):
        for piece in pieces():
            yield pc.binary_length(pc.fill_null(piece, "")).to_numpy().astype("<i4").tobytes()
        for piece in pieces():
            for chunk in pc.fill_null(piece, "").chunks:
                _, offsets, data = chunk.buffers()
                ends = np.frombuffer(offsets, "<i4")
                if data is not None:
                    yield memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
    elif pa.types.is_boolean(kind):
        yield from _packed(pc.fill_null(piece, False).to_numpy(zero_copy_only=False) for piece in pieces())
    else:
        whole = pa.types.is_timestamp(kind) or pa.types.is_integer(kind)
        for piece in pieces():
            numbers = piece.cast(pa.int64()) if pa.types.is_timestamp(kind) else piece
            yield pc.fill_null(numbers, 0).to_numpy().astype("<i8" if whole else "<f8", copy=False).data.cast("B")


def _packed(pieces: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Yield booleans as bits, eight of them a byte wherever one piece ends and the next begins."""
    rest = np.empty(0, bool)
    for piece in pieces:
        bits = np.concatenate([rest, piece])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole]).tobytes()
        rest = bits[whole:]
    yield np.packbits(rest).tobytes()


def of_value(value: Any) -> str:
    """Return the digest of a spec, or of any value made of plain values, dataclasses, estimators and functions.

    A function counts by its import path (its body belongs to the code digest). Raises SpecError for a value whose
    content cannot be told, such as an open file.
    """
    digest = hashlib.sha256()
    for part in _walk(value, ()):
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def _walk(value: Any, above: tuple[int, ...]) -> Iterable[str]:
    """Yield a description of a value, depth first."""
    if id(value) in above:
        yield f"cycle {above[::-1].index(id(value))}"
        return
    inside = (*above, id(value))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, np.generic):
        yield from _walk(value.item(), inside)
    elif isinstance(value, np.ndarray):
        yield f"array {value.dtype.str} {value.shape}"
        yield from _walk(value.tolist() if value.dtype.hasobject else value.tobytes(), inside)
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        yield f"named {getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__} {len(value)}"
        for item in value:
            yield from _walk(item, inside)
    elif isinstance(value, set | frozenset):
        yield f"set {len(value)}"
        yield from sorted("\n".join(_walk(item, inside)) for item in value)
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}"
        for key, item in value.items():
            yield from _walk(key, inside)
            yield from _walk(item, inside)
    else:
        yield f"object {type(value).__module__} {type(value).__qualname__}"
        yield from _walk(_state(value), inside)


def _state(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "get_params"):
        return dict(sorted(value.get_params(deep=False).items()))
    if value is np.random.mtrand._rand:
        # What an unset random state of scipy's distributions is: the same object, with other content in every process.
        return "the global generator"
    try:
        reduced = value.__reduce_ex__(4)
        # A string is the name of a global, such as numpy's functions are.
        return (value.__module__, reduced) if isinstance(reduced, str) else list(reduced[1:3])
    except Exception as error:
        raise SpecError(
            f"a {type(value).__qualname__} in a spec has no content to make a digest of ({error}); use plain values, "
            "estimators or functions",
            code="spec.no_digest",
        ) from error


def of_file(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_folder(folder: Path) -> str:
    """Return the digest of a folder: the relative names and bytes of its files, compiled Python left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()} {of_file(path)}\n".encode())
    return digest.hexdigest()
