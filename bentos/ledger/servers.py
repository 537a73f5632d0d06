"""What servers say of themselves: which release each one serves, in which state, and from when to when it did."""

import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, delete, insert, select, update

from bentos.ledger.database import SERVER_EVENTS, SERVERS, reading

SERVING, ENDED, SILENT = "serving", "ended", "silent"
"""The kinds of a server's events that begin and end what it serves."""
END_REASONS = {ENDED: "the server ended", SILENT: "the server was not heard of any more"}

HEARTBEAT_TIMEOUT = 60
"""A server that was not heard of for so long is taken for gone."""


@dataclass(frozen=True)
class ServerStatus:
    """What a server said of itself last: the release it serves, how it is, and when that was, in seconds since 1970."""

    server: str
    release: int | None
    state: str
    reason: str
    seen: int

    @property
    def alive(self) -> bool:
        """Whether it was heard of lately."""
        return _lately(self.seen)

    @property
    def url(self) -> str:
        """Where it answers: one that listens everywhere does so under its machine's name."""
        address, _, machine = self.server.partition(" on ")
        return f"http://{address.replace('0.0.0.0', machine or '127.0.0.1')}/"


@dataclass(frozen=True)
class ServerEvent:
    """One event of a server: it serves a release, or refused it, and why."""

    server: str
    release: int
    kind: str
    reason: str
    at: str


@dataclass(frozen=True)
class ServingInterval:
    """A time in which a server served a release; `until` is None while it does, `end` says what ended it."""

    server: str
    release: int
    since: str
    until: str | None
    end: str


def heartbeat(engine: Engine, model: str, server: ServerStatus) -> None:
    """Say how a server is now; what it said before is forgotten."""
    values = {name: value for name, value in asdict(server).items() if name != "server"}
    named = (SERVERS.c.model == model) & (SERVERS.c.server == server.server)
    with engine.begin() as connection:
        if not connection.execute(update(SERVERS).where(named).values(**values)).rowcount:
            connection.execute(insert(SERVERS).values(model=model, **asdict(server)))


def deregister(engine: Engine, model: str, server: str) -> None:
    """Forget a server that has ended."""
    with engine.begin() as connection:
        connection.execute(delete(SERVERS).where((SERVERS.c.model == model) & (SERVERS.c.server == server)))


def live_servers(engine: Engine, model: str) -> list[ServerStatus]:
    """Return the servers of a model that were heard of lately."""
    with reading(engine) as connection:
        return live_servers_in(connection, model)


def live_servers_in(connection: Connection, model: str) -> list[ServerStatus]:
    """Return the servers of a model that were heard of lately, as a transaction sees them."""
    rows = connection.execute(select(SERVERS).where(SERVERS.c.model == model).order_by(SERVERS.c.server)).all()
    found = [ServerStatus(**{name: value for name, value in row._mapping.items() if name != "model"}) for row in rows]
    return [server for server in found if server.alive]


def register(engine: Engine, model: str, server: str) -> None:
    """Note when an earlier server of the same name, which was killed, was heard of last; before this one says anything.

    That one can say nothing any more, and the row that tells when it was there is the next server's.
    """
    named = (SERVERS.c.model == model) & (SERVERS.c.server == server)
    with engine.begin() as connection:
        last = connection.execute(select(SERVERS).where(named)).one_or_none()
        if last is not None and last.release is not None:
            event = ServerEvent(server, last.release, SILENT, "it was heard of last then", iso(last.seen))
            connection.execute(insert(SERVER_EVENTS).values(model=model, **asdict(event)))
        connection.execute(delete(SERVERS).where(named))


def add_server_event(engine: Engine, model: str, server: str, release: int, kind: str, reason: str) -> None:
    """Record that a server serves a release, or refused it."""
    event = ServerEvent(server, release, kind, reason, iso(time.time()))
    with engine.begin() as connection:
        connection.execute(insert(SERVER_EVENTS).values(model=model, **asdict(event)))


def server_events(engine: Engine, model: str) -> list[ServerEvent]:
    """Return what servers of a model said they serve or refused, oldest first."""
    with reading(engine) as connection:
        rows = connection.execute(
            select(SERVER_EVENTS).where(SERVER_EVENTS.c.model == model).order_by(SERVER_EVENTS.c.id)
        ).all()
    return [
        ServerEvent(**{name: value for name, value in row._mapping.items() if name not in ("id", "model")})
        for row in rows
    ]


def serving_intervals(engine: Engine, model: str) -> list[ServingInterval]:
    """Return which server served which release from when to when, as the servers said themselves, oldest first.

    One that was killed ends when it was heard of last. Of a canary see the events.
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
        if not _lately(seen.get(server, 0)):
            found.append(
                replace(span, until=iso(seen[server]) if server in seen else span.since, end=END_REASONS[SILENT])
            )
        else:
            found.append(span)
    return sorted(found, key=lambda span: span.since)


def _lately(seen: int) -> bool:
    # A time far ahead was told by a clock that was wrong.
    return abs(time.time() - seen) < HEARTBEAT_TIMEOUT


def iso(seconds: float) -> str:
    """Return a time, in seconds since 1970, as the ledger has it: ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
