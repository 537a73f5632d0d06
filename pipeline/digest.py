"""Names by content: of a table, of a spec, of a file, of a folder.

Every digest is the SHA-256 of a description without memory addresses, file times or `repr`s, as 64 hexadecimal digits.
"""

import hashlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import SpecError
from pipeline.sources import logical_type

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
        digest.update(_described(column, name))
        # Without the lengths of the parts: a text column comes in as many as it was stored in, and the number of rows
        # and the lengths of the texts tell already where each ends.
        for part in _cells(column):
            digest.update(part)
    return digest.hexdigest()


def _described(column: "pyarrow.ChunkedArray", name: str) -> bytes:
    kind: str = "null" if column.null_count == len(column) else logical_type(column.type)
    if kind == "number":
        kind += " " + str(column.type)
    return f"{len(name)} {name} {kind} {len(column)}\n".encode()


def _cells(column: "pyarrow.ChunkedArray") -> Iterable[bytes | memoryview]:
    """Yield a column's nulls, then its values with each null replaced by one fixed value, as little-endian bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    yield np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes()
    if column.null_count == len(column):
        return
    if pa.types.is_string(column.type):
        text = pc.fill_null(column, "")
        yield pc.binary_length(text).to_numpy().astype("<i4").tobytes()
        for chunk in text.chunks:
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, "<i4")
            if data is not None:
                yield memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
    elif pa.types.is_boolean(column.type):
        yield np.packbits(pc.fill_null(column, False).to_numpy(zero_copy_only=False)).tobytes()
    elif pa.types.is_timestamp(column.type):
        yield (pc.fill_null(column.cast(pa.int64()), 0).to_numpy().astype("<i8").tobytes())
    else:
        values = pc.fill_null(column, 0).to_numpy()
        yield values.astype("<i8" if values.dtype.kind == "i" else "<f8").tobytes()


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
        raise SpecError(f"{type(value).__qualname__} in a spec has no content to name it by: {error}") from error


def of_run(digests: Mapping[str, str]) -> str:
    """Return what the folders of a run are named by: its snapshot, its spec and its code, in short."""
    return of_value({name: digests[name] for name in ("snapshot", "spec", "code")})[:SHORT]


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
