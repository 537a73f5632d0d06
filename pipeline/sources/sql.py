"""How the rows of a database query are read, streamed."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pipeline.errors import DataError, SourceError
from pipeline.sources.columns import first_line
from pipeline.sources.retry import redact, retries_exhausted
from pipeline.sources.source_types import DuckDb, Sql, origin

if TYPE_CHECKING:
    import pyarrow
    import sqlalchemy

_ROWS = 2**14
_CONNECT_TIMEOUT = 10
_READ_TIMEOUT = 60
_NOT_RETRYABLE = ("authentication failed", "does not exist", "no password supplied", "unable to open database")
"""Messages of failed connections that a retry cannot repair."""


def tables(source: Sql) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield the rows of a query. Raises SourceError, without the URL's password, if the query fails."""
    import pyarrow as pa
    import sqlalchemy as sa

    url, secrets = database_url(source.url_env)
    where, rows = source.url_env, 0
    broken: SourceError | None = None
    timed_out = threading.Event()
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, **_connecting(url))
        connecting = engine.connect().execution_options(stream_results=True, yield_per=_ROWS, **_reading(url))
        with connecting as connection, _time_limit(source.timeout, connection.connection.driver_connection, timed_out):
            result = connection.execute(sa.text(source.query), _values(source.parameters))
            names = list(result.keys())
            yield where, pa.table([pa.nulls(0)] * len(names), names=names)
            for part in result.partitions():
                cells = zip(*part, strict=True)
                yield (
                    where,
                    pa.table(
                        [_array(where, name, column) for name, column in zip(names, cells, strict=True)], names=names
                    ),
                )
                rows += len(part)
    except DataError:
        raise
    except Exception as error:
        reason = first_line(getattr(error, "orig", None) or error)
        if timed_out.is_set():
            broken = SourceError(
                f"{where}: the query was not answered within {source.timeout:g} s, after {rows} rows; give a longer "
                "timeout= or let the query return fewer rows",
                code="source.query_timeout",
            )
        elif isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not any(
            word in reason for word in _NOT_RETRYABLE
        ):
            broken = retries_exhausted(
                f"{where}: the database connection failed after {rows} rows: {reason}; check that the database is up",
                error,
                secrets,
            )
        elif isinstance(error, sa.exc.SQLAlchemyError | ImportError):
            broken = SourceError(
                redact(f"{where}: the database refuses the query: {reason}; correct the query or the URL", secrets),
                code="source.query_refused",
            )
        else:
            raise
    # Outside the handler, or the traceback of the caught error could show the URL.
    if broken is not None:
        raise broken


def duckdb_tables(source: DuckDb, scratch: Path) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield the rows of a DuckDB query. Raises SourceError if the query fails.

    DuckDB may use 512 MB of memory; larger sorts spill into the folder `scratch`.
    """
    import duckdb
    import pyarrow as pa

    timed_out = threading.Event()
    try:
        with duckdb.connect(source.database or ":memory:", read_only=source.database is not None) as connection:
            folder = str(scratch).replace("'", "''")
            connection.execute(f"SET memory_limit = '512MB'; SET temp_directory = '{folder}'; SET TimeZone = 'UTC'")
            with _time_limit(source.timeout, connection, timed_out):
                result = connection.execute(source.query, _values(source.parameters) or None)
                reader = result.fetch_record_batch(_ROWS * 8)
                yield origin(source), reader.schema.empty_table()
                for batch in reader:
                    yield origin(source), pa.Table.from_batches([batch])
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if timed_out.is_set():
            raise SourceError(
                f"{origin(source)}: not answered within {source.timeout:g} s; give a longer timeout= or let the query "
                "return fewer rows",
                code="source.query_timeout",
            ) from None
        raise SourceError(
            f"{origin(source)}: DuckDB refuses the query: {first_line(error)}", code="source.query_refused"
        ) from None


def database_url(name: str) -> tuple["sqlalchemy.URL", list[str]]:
    """Return the database's URL from the environment variable `name`, and its secret parts.

    Raises SourceError, without the URL, if the variable is not set or does not hold a URL.
    """
    import sqlalchemy as sa

    text = os.environ.get(name, "")
    if not text:
        raise SourceError(
            f"{name} is not set in the environment; set it to the database's SQLAlchemy URL",
            code="source.variable_not_set",
        )
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None:
        raise SourceError(
            f"{name} is not a SQLAlchemy URL; give one such as postgresql+psycopg://host/database",
            code="source.invalid_database_url",
        )
    if url.drivername == "postgresql":
        # psycopg is the installed driver; SQLAlchemy's default is psycopg2.
        url = url.set(drivername="postgresql+psycopg")
    secrets = [text, str(url.password or ""), *(str(value) for key, value in url.query.items() if "pass" in key)]
    return url, [secret for secret in secrets if secret]


def _connecting(url: "sqlalchemy.URL") -> dict[str, Any]:
    """Return connection arguments with which a silent server is noticed: timeouts and TCP keep-alive."""
    if not url.drivername.startswith("postgresql") or "psycopg" not in url.get_driver_name():
        return {}
    keepalive = {"keepalives_idle": 15, "keepalives_interval": 15, "keepalives_count": 3}
    timeouts = {"connect_timeout": _CONNECT_TIMEOUT, "tcp_user_timeout": _READ_TIMEOUT * 1000}
    return {"connect_args": {**keepalive, **timeouts}}


def _reading(url: "sqlalchemy.URL") -> dict[str, Any]:
    return {"postgresql_readonly": True} if url.drivername.startswith("postgresql") else {}


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in parameters.items()}


@contextmanager
def _time_limit(seconds: float, connection: Any, timed_out: threading.Event) -> Iterator[None]:
    """Cancel the work of a driver's connection after some seconds, and set `timed_out`."""

    def cancel_query() -> None:
        timed_out.set()
        stop = getattr(connection, "interrupt", None) or getattr(connection, "cancel", None) or connection.close
        stop()

    timer = threading.Timer(seconds, cancel_query)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _array(where: str, name: str, cells: Sequence[Any]) -> "pyarrow.Array":
    """Return a column's values as an Arrow array: decimals become floats, times with a zone become UTC.

    Raises DataError if the column holds a type that a snapshot cannot.
    """
    import pyarrow as pa

    types = {type(cell) for cell in cells if cell is not None}
    if types <= {int, float, Decimal}:
        if types <= {int} and all(cell is None or -(2**63) <= cell < 2**63 for cell in cells):
            return pa.array(cells, pa.int64() if types else pa.null())
        return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    if types <= {datetime, date}:
        return pa.array([_instant(cell) for cell in cells], pa.timestamp("us"))
    if types <= {str, UUID}:
        return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    if types == {bool}:
        return pa.array(cells, pa.bool_())
    held = " and ".join(sorted(one_type.__name__ for one_type in types))
    raise DataError(
        f"{where}: column {name!r} holds {held}; a column holds numbers, texts, booleans or timestamps: cast it in the "
        "query",
        code="data.unsupported_type",
    )


def _instant(cell: date | datetime | None) -> datetime | None:
    if cell is None:
        return None
    if not isinstance(cell, datetime):
        return datetime(cell.year, cell.month, cell.day)
    return cell.astimezone(UTC).replace(tzinfo=None) if cell.tzinfo else cell
