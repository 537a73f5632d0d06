"""What a spec says of a source: its kind, where it is, and what its words mean."""

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from pipeline.errors import SpecError

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
