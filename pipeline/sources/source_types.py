"""What a spec says of a source: its kind, where it is, and what its words mean."""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from pipeline.errors import SpecError
from pipeline.project import from_here

LogicalType = Literal["number", "text", "boolean", "timestamp"]
"""What a column holds, whatever file it came in: whole and decimal numbers are one type, dates are timestamps."""

_NO_TYPES: Mapping[str, LogicalType] = MappingProxyType({})
_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})

PARTITION = re.compile(r"(?<!\$)\{(\w+)\}")
"""A part of a path that tells partitions apart and becomes a column: `{day}`. `${NAME}` is the environment's."""


@dataclass(frozen=True)
class Csv:
    """CSV files with a header row; `na_values` are the words that mean a missing value.

    `path` is a file, a glob, or an address: https://..., s3://bucket/key. A `{name}` in it tells partitions apart and
    becomes a column: `sales/day={day}/*.csv`; `last` keeps the newest so many of them, or those of the newest
    `timedelta`. `${NAME}` in an address is taken from the environment, and never shown.
    `types` declares columns whose type the words alone do not tell, such as postal codes: `{"zip": "text"}`. `decimal`
    is what stands before the fraction of a number; `encoding` is any that Python knows. A file whose name ends in .gz,
    .bz2, .xz or .zst is decompressed. Raises SpecError when the parts contradict each other.
    """

    path: str
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    last: int | timedelta | None = None

    def __post_init__(self) -> None:
        _check_path(self.path, self.last)
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
    """Parquet files; `path` and `last` as for Csv. `na_values` are words that mean a missing value too, here and in CSV
    requests."""

    path: str
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    last: int | timedelta | None = None

    def __post_init__(self) -> None:
        _check_path(self.path, self.last)


@dataclass(frozen=True)
class JsonLines:
    """Files with one JSON object a line, compressed or not; a name that a line lacks is null. The rest: see Parquet."""

    path: str
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    last: int | timedelta | None = None

    def __post_init__(self) -> None:
        _check_path(self.path, self.last)


@dataclass(frozen=True, kw_only=True)
class Sql:
    """What a query answers; the database's SQLAlchemy URL is in the environment variable `url_env`.

    `parameters` are values for `:name` in the query, or functions without arguments, such as `date.today`, that are
    called when it is asked. The query ends after `timeout` seconds. It needs an ORDER BY that leaves no two rows
    undecided: the order of rows is a part of what a snapshot is, and a database is free to answer in another one each
    time.
    """

    url_env: str
    query: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS)
    timeout: float = 600.0
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.url_env):
            raise SpecError(
                "url_env is no name of an environment variable; put the URL into one, such as SHOP_DATABASE_URL, and "
                "name that: a URL holds a password, and a spec is no place for one"
            )
        _check_query(self.query, self.timeout)


@dataclass(frozen=True, kw_only=True)
class DuckDb:
    """What a DuckDB query answers, over local files (`from 'sales/*.parquet'`) or a `database` file, opened to be read.

    `parameters`, for `$name` in the query, `timeout` and the need of an ORDER BY are as for Sql.
    """

    query: str
    database: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS)
    timeout: float = 600.0
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)

    def __post_init__(self) -> None:
        _check_query(self.query, self.timeout)


@dataclass(frozen=True)
class Function:
    """A function without arguments that returns the table as a pandas DataFrame; `na_values` as for Parquet."""

    function: Callable[[], Any]
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)


Files = Csv | Parquet | JsonLines
Source = Files | Sql | DuckDb | Function


def at(source: Source, path: str) -> Source:
    """Return the same source read from another place: Parquet or JSON Lines by its ending, else a CSV file.

    A relative path is one from the current folder; those of a spec are from the project's.
    """
    path = path if remote(path) else from_here(path)
    name = re.sub(r"\.(gz|bz2|xz|zst)$", "", path.lower())
    kind: type[Files] = Csv
    if name.endswith((".parquet", ".pq")):
        kind = Parquet
    elif name.endswith((".jsonl", ".ndjson")):
        kind = JsonLines
    if isinstance(source, kind):
        return replace(source, path=path, last=None)
    return kind(path, na_values=source.na_values, types=source.types)


def origin(source: Source) -> str:
    """Say in a few words where a source's rows come from; never a secret."""
    match source:
        case Function():
            return f"{source.function.__module__}.{source.function.__qualname__}()"
        case Sql():
            return f"{source.url_env}: {' '.join(source.query.split()):.200}"
        case DuckDb():
            return f"DuckDB: {' '.join(source.query.split()):.200}"
    return str(source.path)


def remote(path: str) -> bool:
    """Tell an address from a path on this machine."""
    return re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


def _check_path(path: str, last: int | timedelta | None) -> None:
    if remote(path):
        try:
            password = urlsplit(path).password
        except ValueError:
            password = None
        if password and not re.fullmatch(r"\$\{\w+\}", password):
            raise SpecError(
                f"the path {path.partition('://')[0]}://... holds a password; put it into the environment and write "
                "${NAME} where it stood"
            )
    if last is None:
        return
    if not PARTITION.search(path):
        raise SpecError(
            f"{path}: last keeps the newest partitions, but the path has none; write {{day}} where they differ, as in "
            "'sales/day={day}/*.parquet'"
        )
    if not (last > timedelta(0) if isinstance(last, timedelta) else last > 0):
        raise SpecError(f"{path}: last is {last}; give a number of partitions, or a timedelta, of more than 0")


def _check_query(query: str, timeout: float) -> None:
    # What stands in quotes and comments is no clause.
    clauses = re.sub(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL)
    if not re.search(r"\border\s+by\b", clauses, re.IGNORECASE):
        raise SpecError(
            f"query {' '.join(query.split())!r:.80} has no ORDER BY, so that its rows may come in another order each "
            "time and be another snapshot; order by the key"
        )
    if not timeout > 0:
        raise SpecError(f"timeout is {timeout}; give seconds, more than 0")
