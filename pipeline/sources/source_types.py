"""The types of source that a spec can name, and the checks of their parameters."""

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
"""The type of a column, whatever file it came in: whole and decimal numbers are one type, dates are timestamps."""

_NO_TYPES: Mapping[str, LogicalType] = MappingProxyType({})
_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})

PARTITION = re.compile(r"(?<!\$)\{(\w+)\}")
"""The part of a path that differs between partitions and becomes a column: `{day}`. `${NAME}` is an environment
variable instead."""


@dataclass(frozen=True)
class Csv:
    """CSV files with a header row. A file whose name ends in .gz, .bz2, .xz or .zst is decompressed.

    Raises SpecError when a parameter is invalid or two contradict each other.

    Attributes:
        path: a file, a glob, or an address: https://..., s3://bucket/key. A `{name}` in it differs between partitions
            and becomes a column: `sales/day={day}/*.csv`. `${NAME}` in an address is taken from the environment, and
            never shown.
        na_values: the words that mean a missing value.
        types: the types of columns that cannot be guessed from their words, such as postal codes: `{"zip": "text"}`.
        separator: the character between two values.
        decimal: the character before the fraction of a number.
        encoding: any encoding that Python knows.
        last: read only this many of the newest partitions, or those of the newest `timedelta`; None reads all.
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
                raise SpecError(
                    f"{self.path}: {name} is {value!r}; give one character that is not a letter, such as ';'",
                    code="spec.invalid_csv_character",
                )
        if self.separator == self.decimal:
            raise SpecError(
                f"{self.path}: separator and decimal are both {self.decimal!r}; is the separator ';'?",
                code="spec.separator_is_decimal",
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise SpecError(
                f"{self.path}: {self.encoding!r} is not an encoding that Python knows; give one such as 'cp1252'",
                code="spec.unknown_encoding",
            ) from None


@dataclass(frozen=True)
class Parquet:
    """Parquet files.

    Attributes:
        path: as for Csv.
        na_values: words that mean a missing value too, in the files and in CSV requests.
        types: as for Csv.
        last: as for Csv.
    """

    path: str
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    last: int | timedelta | None = None

    def __post_init__(self) -> None:
        _check_path(self.path, self.last)


@dataclass(frozen=True)
class JsonLines:
    """Files with one JSON object a line, compressed or not; a name that a line lacks is null.

    Attributes:
        path: as for Csv.
        na_values: as for Parquet.
        types: as for Csv.
        last: as for Csv.
    """

    path: str
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)
    last: int | timedelta | None = None

    def __post_init__(self) -> None:
        _check_path(self.path, self.last)


@dataclass(frozen=True, kw_only=True)
class Sql:
    """The rows of a database query.

    The query needs an ORDER BY that decides the place of every row: the order of rows is a part of a snapshot's
    digest, and a database may return another order each time. Raises SpecError without one.

    Attributes:
        url_env: the environment variable that holds the database's SQLAlchemy URL.
        query: the SQL text.
        parameters: values for `:name` in the query, or functions without arguments, such as `date.today`, which are
            called when the query runs.
        timeout: seconds after which the query is cancelled.
        na_values: as for Parquet.
        types: as for Csv.
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
                "url_env is not the name of an environment variable; put the URL into one, such as SHOP_DATABASE_URL, "
                "and name that: a URL holds a password, which does not belong into a spec",
                code="spec.url_env_not_a_variable",
            )
        _check_query(self.query, self.timeout)


@dataclass(frozen=True, kw_only=True)
class DuckDb:
    """The rows of a DuckDB query. It needs an ORDER BY, as for Sql.

    Attributes:
        query: the SQL text, over local files (`from 'sales/*.parquet'`) or the tables of `database`.
        database: a DuckDB file, opened read-only; None for none.
        parameters: values or functions for `$name` in the query, as for Sql.
        timeout: seconds after which the query is cancelled.
        na_values: as for Parquet.
        types: as for Csv.
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
    """The rows that a Python function of the project returns.

    Attributes:
        function: takes no arguments and returns a pandas DataFrame.
        na_values: as for Parquet.
        types: as for Csv.
    """

    function: Callable[[], Any]
    na_values: tuple[str, ...] = ("",)
    types: Mapping[str, LogicalType] = field(default_factory=lambda: _NO_TYPES)


Files = Csv | Parquet | JsonLines
Source = Files | Sql | DuckDb | Function


def at(source: Source, path: str) -> Source:
    """Return the source with another path: Parquet or JSON Lines if the path ends so, else CSV.

    A relative path starts in the current folder; the paths of a spec start in the project's folder.
    """
    path = path if remote(path) else from_here(path)
    name = re.sub(r"\.(gz|bz2|xz|zst)$", "", path.lower())
    source_type: type[Files] = Csv
    if name.endswith((".parquet", ".pq")):
        source_type = Parquet
    elif name.endswith((".jsonl", ".ndjson")):
        source_type = JsonLines
    if isinstance(source, source_type):
        return replace(source, path=path, last=None)
    return source_type(path, na_values=source.na_values, types=source.types)


def origin(source: Source) -> str:
    """Return where a source's rows come from, in a few words and without secrets."""
    match source:
        case Function():
            return f"{source.function.__module__}.{source.function.__qualname__}()"
        case Sql():
            return f"{source.url_env}: {' '.join(source.query.split()):.200}"
        case DuckDb():
            return f"DuckDB: {' '.join(source.query.split()):.200}"
    return str(source.path)


def remote(path: str) -> bool:
    """Return whether a path is an address rather than a path on this machine."""
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
                "${NAME} in its place",
                code="spec.password_in_path",
            )
    if last is None:
        return
    if not PARTITION.search(path):
        raise SpecError(
            f"{path}: last keeps the newest partitions, but the path has none; write {{day}} where they differ, as in "
            "'sales/day={day}/*.parquet'",
            code="spec.last_without_partition",
        )
    if not (last > timedelta(0) if isinstance(last, timedelta) else last > 0):
        raise SpecError(
            f"{path}: last is {last}; give a number of partitions, or a timedelta, of more than 0",
            code="spec.last_not_positive",
        )


def _check_query(query: str, timeout: float) -> None:
    # Quoted text and comments hold no clauses.
    clauses = re.sub(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL)
    if not re.search(r"\border\s+by\b", clauses, re.IGNORECASE):
        raise SpecError(
            f"query {' '.join(query.split())!r:.80} has no ORDER BY, so its rows may come in another order and make "
            "another snapshot each time; order by the key",
            code="spec.no_order_by",
        )
    if not timeout > 0:
        raise SpecError(f"timeout is {timeout}; give seconds, more than 0", code="spec.timeout_not_positive")
