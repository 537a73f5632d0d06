"""The ledger's database: its tables, and how an older one becomes one of this version.

SQLite by default, PostgreSQL by EVERGREEN_DATABASE_URL. Rows of releases, events and runs are only ever added.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
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

from pipeline.errors import ReleaseError

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
)
SERVED = Table(
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

VERSION = "0002"
"""The newest migration in bentos/migrations/versions."""
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def open_ledger(url: str) -> Engine:
    """Connect to the ledger at a SQLAlchemy URL, making its tables, or bringing older ones to this version.

    Raises ReleaseError when it is of a later version than this code.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two first runs at once must not both create the tables.
            connection.execute(text("SELECT pg_advisory_xact_lock(20110101)"))
        _migrate(connection)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 30000")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    tables = set(inspect(connection).get_table_names())
    found = connection.execute(select(_VERSIONS.c.version_num)).scalar() if _VERSIONS.name in tables else None
    if found == VERSION:
        return
    if found is not None and found > VERSION:
        raise ReleaseError(
            f"the ledger is of version {found}, and this evergreen knows versions up to {VERSION}; use a later one"
        )
    # Imported here: it takes longer than asking the ledger.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    if found is None and RELEASES.name in tables:
        command.stamp(config, "0001")
    command.upgrade(config, VERSION)
