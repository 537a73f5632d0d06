"""The ledger's database: its tables, and how an older one becomes one of this version.

SQLite by default, PostgreSQL by EVERGREEN_DATABASE_URL. Rows of releases, events and runs are only ever added.
`engine.begin()` is a transaction that writes, one at a time; `reading(engine)` one that reads, and waits for nobody.
"""

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Column,
    Connection,
    Engine,
    ExceptionContext,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    select,
    text,
)

from pipeline import formats
from pipeline.errors import LedgerError
from pipeline.files import no_space

METADATA = MetaData()

RELEASES = Table(
    "releases",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("bento", String(200), nullable=False),
    Column("digests", JSON, nullable=False),
    Column("verdict", JSON, nullable=False),
    Column("evaluation", JSON, nullable=False),
    Column("trial", JSON, nullable=False),
    Column("answers", JSON, nullable=False),
    Column("cause", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", String(40), nullable=False),
    Column("replaced", Integer),
    Column("canary", JSON),
    UniqueConstraint("model", "number"),
)
EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("release", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("instead", Integer),
    # Two processes that both saw the same last event cannot both add the next one: that is what makes one champion.
    UniqueConstraint("model", "sequence"),
)
RUNS = Table(
    "runs",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False, index=True),
    Column("outcome", String(32), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("digests", JSON, nullable=False),
    Column("release", Integer),
    Column("started", String(40), nullable=False),
    Column("seconds", JSON, nullable=False),
    Column("why", Text),
)
SERVER_EVENTS = Table(
    "served",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False, index=True),
    Column("server", String(200), nullable=False),
    Column("release", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(40), nullable=False),
)
SERVERS = Table(
    "servers",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("server", String(200), primary_key=True),
    Column("release", Integer),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    # The only row that changes: when the server was heard of last, in seconds since 1970.
    Column("seen", Integer, nullable=False),
)
OBSERVATIONS = Table(
    "looks",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False, index=True),
    Column("release", Integer),
    Column("at", String(40), nullable=False),
    Column("found", JSON, nullable=False),
)

VERSION = f"{formats.LEDGER.current:04}"
"""The newest migration in bentos/migrations/versions."""
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


LOCK_TIMEOUT = 30.0
"""How long a transaction waits for another process's; the longest of ours takes a fraction of a second."""
_SQLITE_WRITER = 120
"""The byte of the file beside an SQLite database that the one who writes has a lock on (sqlite.org/walformat.html)."""


def open_ledger(url: URL | str) -> Engine:
    """Connect to the ledger at a SQLAlchemy URL, making its tables, or bringing older ones to this version.

    Raises FormatError when it is of a later format than this code, and, as every transaction that writes, LedgerError
    when another process holds it for so long that something is wrong with that one, and StorageError when there is no
    space left.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _explain_full_disk)
    event.listen(engine, "handle_error", _explain_lock)
    with reading(engine) as connection:
        found = _version(connection)
    if found != VERSION:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                # Two first runs at once must not both create the tables.
                connection.execute(text("SELECT pg_advisory_xact_lock(20110101)"))
            _migrate(connection)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that reads: a process that was stopped while it wrote does not hold it up."""
    with engine.connect() as connection:
        yield connection.execution_options(reads=True)


@contextmanager
def model_lock(engine: Engine, name: str, waiting: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Hold a name that one process can hold at a time on all machines that share a PostgreSQL ledger.

    When another one holds it, `waiting` is called with what waits for it. The database frees it when the connection
    ends, however that does. An SQLite ledger is on one machine: there is nothing to do.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    key = {"space": 20110101, "name": name}
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT", reads=True)

        def take() -> None:
            connection.execute(text("SELECT pg_advisory_lock(:space, hashtext(:name))"), key)

        if not connection.scalar(text("SELECT pg_try_advisory_lock(:space, hashtext(:name))"), key):
            waiting(take)
        try:
            yield
        finally:
            # A pool would keep the connection, and with it what it holds.
            connection.invalidate()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    # Readers and one that writes do not wait for each other then, as long as all are on one machine. The file
    # remembers it; who cannot change it now, because the file is in use, reads and writes all the same, and the next
    # one to come changes it.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA busy_timeout = {1000 * LOCK_TIMEOUT:.0f}")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads", False)
    if connection.dialect.name == "sqlite":
        # A deferred transaction that reads first and writes later fails at once when another wrote in between.
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
    elif not reads:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {1000 * LOCK_TIMEOUT:.0f}")
        connection.exec_driver_sql(f"SET LOCAL application_name = 'evergreen {os.getpid()} on {socket.gethostname()}'")


def _explain_full_disk(context: ExceptionContext) -> None:
    error, engine = context.original_exception, context.engine
    if engine is not None and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        raise no_space(Path(str(engine.url.database))) from error


def _explain_lock(context: ExceptionContext) -> None:
    error, engine = context.original_exception, context.engine
    # Its lower byte is the kind of error, the rest says more.
    busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    if engine is None or not (busy or getattr(error, "sqlstate", None) == "55P03"):
        return
    holder, way_out = (_sqlite_holder if busy else _postgresql_holder)(engine)
    raise LedgerError(
        f"{holder} has been writing to the ledger for more than {LOCK_TIMEOUT:g} s, so nothing else can be written. "
        f"It hangs or was stopped: {way_out}. The ledger undoes what that process did not finish.",
        code="ledger.locked",
    ) from error


def _sqlite_holder(engine: Engine) -> tuple[str, str]:
    database = engine.url.database
    try:
        beside = Path(f"{database}-shm").stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        locks, beside = [], 0
    # As `1: POSIX  ADVISORY  WRITE 4711 08:01:131 120 120`.
    for _, _, _, kind, pid, file, first, *_ in (lock for lock in locks if "->" not in lock):
        if kind == "WRITE" and file.rpartition(":")[2] == str(beside) and first == str(_SQLITE_WRITER):
            return f"process {pid}", f"resume it with `kill -CONT {pid}`, or end it with `kill -9 {pid}`"
    return "another process", f"`lsof {database}` lists the processes that have it open; end the right one"


def _postgresql_holder(engine: Engine) -> tuple[str, str]:
    query = text(
        "SELECT pid, application_name FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1"
    )
    with reading(engine) as connection:
        found = connection.execute(query).one_or_none()
    if found is None:
        return "another process", "`SELECT * FROM pg_stat_activity` lists all clients; end the right one"
    return f"{found.application_name or 'a client'} (backend {found.pid})", (
        f"end it, or end its transaction with `SELECT pg_terminate_backend({found.pid})`"
    )


def _migrate(connection: Connection) -> None:
    found = _version(connection)
    if found == VERSION:
        return
    if found is not None:
        formats.check_format(formats.LEDGER, int(found), "the ledger")
    # Imported here: it takes longer than asking the ledger.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    if found is None and inspect(connection).has_table(RELEASES.name):
        command.stamp(config, "0001")
    command.upgrade(config, VERSION)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    found: str | None = connection.execute(select(_VERSIONS.c.version_num)).scalar()
    return found
