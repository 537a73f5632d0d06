"""Heartbeats and events of servers: which release each one serves, in which state, and from when to when."""

import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, delete, insert, select, update

from bentos.ledger.database import SERVER_EVENTS, SERVERS, reading

SERVING, ENDED, SILENT = "serving", "ended", "silent"
"""The kinds of events that start and end the time in which a server serves a release."""
END_REASONS = {ENDED: "the server ended", SILENT: "the server sent no more heartbeats"}

HEARTBEAT_TIMEOUT = 60
"""A server without a heartbeat for this many seconds counts as gone."""


@dataclass(frozen=True)
class ServerStatus:
    """The last heartbeat of a server.

    Attributes:
        server: its name, as `host:port on machine`.
        release: the release that it serves; None before the first one is ready.
        state: its state, see `bentos.serving.server_states`.
        reason: why it is degraded, or how a shadow differs; otherwise empty.
        seen: when the heartbeat was sent, in seconds since 1970.
    """

    server: str
    release: int | None
    state: str
    reason: str
    seen: int

    @property
    def alive(self) -> bool:
        """Whether its last heartbeat is recent."""
        return _is_recent(self.seen)

    @property
    def url(self) -> str:
        """Its URL; a server that listens on all addresses has the name of its machine."""
        address, _, machine = self.server.partition(" on ")
        return f"http://{address.replace('0.0.0.0', machine or '127.0.0.1')}/"


@dataclass(frozen=True)
class ServerEvent:
    """One event of a server.

    Attributes:
        server: its name, as `host:port on machine`.
        release: the release that it is about.
        kind: what happened, such as SERVING, "refused" or "alarm".
        reason: why, a sentence.
        at: when, ISO 8601 in UTC.
    """

    server: str
    release: int
    kind: str
    reason: str
    at: str


@dataclass(frozen=True)
class ServingInterval:
    """A time in which a server served a release.

    Attributes:
        server: its name, as `host:port on machine`.
        release: the release.
        since: when it started, ISO 8601 in UTC.
        until: when it ended, ISO 8601 in UTC; None while it lasts.
        end: what ended it; empty while it lasts.
    """

    server: str
    release: int
    since: str
    until: str | None
    end: str


def heartbeat(engine: Engine, model: str, server: ServerStatus) -> None:
    """Write a heartbeat; it replaces the server's last one."""
    values = {name: value for name, value in asdict(server).items() if name != "server"}
    named = (SERVERS.c.model == model) & (SERVERS.c.server == server.server)
    with engine.begin() as connection:
        if not connection.execute(update(SERVERS).where(named).values(**values)).rowcount:
            connection.execute(insert(SERVERS).values(model=model, **asdict(server)))


def deregister(engine: Engine, model: str, server: str) -> None:
    """Remove the heartbeat of a server that has ended."""
    with engine.begin() as connection:
        connection.execute(delete(SERVERS).where((SERVERS.c.model == model) & (SERVERS.c.server == server)))


def live_servers(engine: Engine, model: str) -> list[ServerStatus]:
    """Return the servers of a model whose last heartbeat is recent."""
    with reading(engine) as connection:
        return live_servers_in(connection, model)


def live_servers_in(connection: Connection, model: str) -> list[ServerStatus]:
    """Return the servers of a model whose last heartbeat is recent, as a transaction sees them."""
    rows = connection.execute(select(SERVERS).where(SERVERS.c.model == model).order_by(SERVERS.c.server)).all()
    found = [ServerStatus(**{name: value for name, value in row._mapping.items() if name != "model"}) for row in rows]
    return [server for server in found if server.alive]


def register(engine: Engine, model: str, server: str) -> None:
    """Prepare the first heartbeat of a server: record the end of an earlier one of the same name that was killed.

    A killed server cannot record its own end, and the new server's heartbeat will replace its last one.
    """
    named = (SERVERS.c.model == model) & (SERVERS.c.server == server)
    with engine.begin() as connection:
        last = connection.execute(select(SERVERS).where(named)).one_or_none()
        if last is not None and last.release is not None:
            event = ServerEvent(server, last.release, SILENT, "its last heartbeat was sent then", iso(last.seen))
            connection.execute(insert(SERVER_EVENTS).values(model=model, **asdict(event)))
        connection.execute(delete(SERVERS).where(named))


def add_server_event(engine: Engine, model: str, server: str, release: int, kind: str, reason: str) -> None:
    """Record that a server serves a release, or refused it."""
    event = ServerEvent(server, release, kind, reason, iso(time.time()))
    with engine.begin() as connection:
        connection.execute(insert(SERVER_EVENTS).values(model=model, **asdict(event)))


def server_events(engine: Engine, model: str) -> list[ServerEvent]:
    """Return the events of a model's servers, oldest first."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(SERVER_EVENTS).where(SERVER_EVENTS.c.model == model).order_by(SERVER_EVENTS.c.id)
        ).all()
    return [
        ServerEvent(**{name: value for name, value in row._mapping.items() if name not in ("id", "model")})
        for row in rows
    ]


def serving_intervals(engine: Engine, model: str) -> list[ServingInterval]:
    """Return which server served which release from when to when, by the servers' own events, oldest first.

    The interval of a killed server ends with its last heartbeat. Canaries are not included; see the events.
    """
    with reading(engine) as connection:
        rows = connection.execute(select(SERVERS).where(SERVERS.c.model == model)).all()
    seen = {row.server: row.seen for row in rows}
    found: list[ServingInterval] = []
    going: dict[str, ServingInterval] = {}
    for event in server_events(engine, model):
        if event.kind not in (SERVING, ENDED, SILENT):
            continue
        before = going.pop(event.server, None)
        if before is not None:
            end = f"release {event.release} was served" if event.kind == SERVING else END_REASONS[event.kind]
            found.append(replace(before, until=event.at, end=end))
        if event.kind == SERVING:
            going[event.server] = ServingInterval(event.server, event.release, event.at, None, "")
    for server, span in going.items():
        if not _is_recent(seen.get(server, 0)):
            found.append(
                replace(span, until=iso(seen[server]) if server in seen else span.since, end=END_REASONS[SILENT])
            )
        else:
            found.append(span)
    return sorted(found, key=lambda span: span.since)


def _is_recent(seen: int) -> bool:
    # A time far in the future comes from a clock that was wrong.
    return abs(time.time() - seen) < HEARTBEAT_TIMEOUT


def iso(seconds: float) -> str:
    """Return a time, in seconds since 1970, as the ledger has it: ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
