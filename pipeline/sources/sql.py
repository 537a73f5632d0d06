"""Rows that a database's query answers, streamed."""

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
"""What a database says when asking it again is no use, although its driver calls it a failed connection."""


def tables(source: Sql) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield the rows of a query; SourceError, without the URL's password, when the database does not answer it."""
    import pyarrow as pa
    import sqlalchemy as sa

    url, secrets = database_url(source.url_env)
    where, rows = source.url_env, 0
    broken: SourceError | None = None
    late = threading.Event()
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, **_connecting(url))
        asked = engine.connect().execution_options(stream_results=True, yield_per=_ROWS, **_reading(url))
        with asked as connection, _ended_after(source.timeout, connection.connection.driver_connection, late):
            answer = connection.execute(sa.text(source.query), _values(source.parameters))
            names = list(answer.keys())
            yield where, pa.table([pa.nulls(0)] * len(names), names=names)
            for part in answer.partitions():
                cells = zip(*part, strict=True)
                yield where, pa.table([_array(where, *one) for one in zip(names, cells, strict=True)], names=names)
                rows += len(part)
    except DataError:
        raise
    except Exception as error:
        said = first_line(getattr(error, "orig", None) or error)
        if late.is_set():
            broken = SourceError(
                f"{where}: the query was not answered within {source.timeout:g} s, after {rows} rows; give a longer "
                "timeout= or let the query ask for less"
            )
        elif isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not any(
            word in said for word in _NOT_RETRYABLE
        ):
            broken = retries_exhausted(f"{where}: the database broke off after {rows} rows: {said}", error, secrets)
        elif isinstance(error, sa.exc.SQLAlchemyError | ImportError):
            broken = SourceError(redact(f"{where}: the database refuses: {said}", secrets))
        else:
            raise
    # Outside of the handler: a traceback of what was caught could show the URL.
    if broken is not None:
        raise broken


def duckdb_tables(source: DuckDb, scratch: Path) -> Iterator[tuple[str, "pyarrow.Table"]]:
    """Yield the rows of a DuckDB query; SourceError when it cannot be answered.

    What it sorts and does not fit into its share of the memory is put into the folder `scratch`.
    """
    import duckdb
    import pyarrow as pa

    late = threading.Event()
    try:
        with duckdb.connect(source.database or ":memory:", read_only=source.database is not None) as connection:
            folder = str(scratch).replace("'", "''")
            connection.execute(f"SET memory_limit = '512MB'; SET temp_directory = '{folder}'; SET TimeZone = 'UTC'")
            with _ended_after(source.timeout, connection, late):
                answer = connection.execute(source.query, _values(source.parameters) or None)
                reader = answer.fetch_record_batch(_ROWS * 8)
                yield origin(source), reader.schema.empty_table()
                for batch in reader:
                    yield origin(source), pa.Table.from_batches([batch])
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if late.is_set():
            raise SourceError(
                f"{origin(source)}: not answered within {source.timeout:g} s; give a longer timeout= or ask for less"
            ) from None
        raise SourceError(f"{origin(source)}: {first_line(error)}") from None


def database_url(name: str) -> tuple["sqlalchemy.URL", list[str]]:
    """Return the database's URL from the environment variable `name`, and what of it is secret; else SourceError."""
    import sqlalchemy as sa

    text = os.environ.get(name, "")
    if not text:
        raise SourceError(f"{name} is not set in the environment; set it to the database's SQLAlchemy URL")
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None:
        raise SourceError(f"{name} is no SQLAlchemy URL; give one such as postgresql+psycopg://host/database")
    if url.drivername == "postgresql":
        # psycopg is the driver that is installed; SQLAlchemy would look for another one.
        url = url.set(drivername="postgresql+psycopg")
    secrets = [text, str(url.password or ""), *(str(value) for key, value in url.query.items() if "pass" in key)]
    return url, [secret for secret in secrets if secret]


def _connecting(url: "sqlalchemy.URL") -> dict[str, Any]:
    """Return how to connect so that a server that went silent is noticed."""
    if not url.drivername.startswith("postgresql") or "psycopg" not in url.get_driver_name():
        return {}
    silent = {"keepalives_idle": 15, "keepalives_interval": 15, "keepalives_count": 3}
    patient = {"connect_timeout": _CONNECT_TIMEOUT, "tcp_user_timeout": _READ_TIMEOUT * 1000}
    return {"connect_args": {**silent, **patient}}


def _reading(url: "sqlalchemy.URL") -> dict[str, Any]:
    return {"postgresql_readonly": True} if url.drivername.startswith("postgresql") else {}


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in parameters.items()}


@contextmanager
def _ended_after(seconds: float, connection: Any, late: threading.Event) -> Iterator[None]:
    """Let the driver's connection break off what it does after so many seconds, and tell so."""

    def end() -> None:
        late.set()
        stop = getattr(connection, "interrupt", None) or getattr(connection, "cancel", None) or connection.close
        stop()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _array(where: str, name: str, cells: Sequence[Any]) -> "pyarrow.Array":
    """Return a column's values as Arrow has them: decimals are floats, times with a zone are in UTC."""
    import pyarrow as pa

    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {int, float, Decimal}:
        if kinds <= {int} and all(cell is None or -(2**63) <= cell < 2**63 for cell in cells):
            return pa.array(cells, pa.int64() if kinds else pa.null())
        return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    if kinds <= {datetime, date}:
        return pa.array([_instant(cell) for cell in cells], pa.timestamp("us"))
    if kinds <= {str, UUID}:
        return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    if kinds == {bool}:
        return pa.array(cells, pa.bool_())
    held = " and ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"{where}: column {name!r} holds {held}; a column holds numbers, texts, booleans or timestamps: cast it in the "
        "query"
    )


def _instant(cell: date | datetime | None) -> datetime | None:
    if cell is None:
        return None
    if not isinstance(cell, datetime):
        return datetime(cell.year, cell.month, cell.day)
    return cell.astimezone(UTC).replace(tzinfo=None) if cell.tzinfo else cell
