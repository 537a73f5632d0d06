"""The ledger: what is served, what was served, why.

Rows are only ever added; the champion is the release that the last event names.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError

from pipeline.errors import ReleaseError

_METADATA = MetaData()

_RELEASES = Table(
    "releases",
    _METADATA,
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
    UniqueConstraint("model", "number"),
)
_EVENTS = Table(
    "events",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("release", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("cause", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(40), nullable=False),
    # Two processes that both saw the same last event cannot both add the next one: that is what makes one champion.
    UniqueConstraint("model", "sequence"),
)
_RUNS = Table(
    "runs",
    _METADATA,
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

WITHDRAWN = "withdrawn"
"""The kind of event that leaves a model without a champion; every other kind makes its release champion."""

VERDICTS = ("released", "kept", "model-rejected")
"""Outcomes that end the matter for a snapshot, spec and code: the next run on the same is `unchanged`."""


@dataclass(frozen=True)
class Release:
    """A row of the ledger: one package that passed everything, and why it was released."""

    model: str
    number: int
    bento: str
    digests: dict[str, str]
    verdict: dict[str, Any]
    evaluation: dict[str, Any]
    trial: dict[str, Any]
    cause: str
    reason: str
    created: str
    replaced: int | None = None
    answers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One change of state of a release: `released` and `rolled back to` make it champion, `withdrawn` leaves none."""

    sequence: int
    release: int
    kind: str
    cause: str
    reason: str
    at: str


@dataclass(frozen=True)
class Run:
    """How a run of the flow ended."""

    model: str
    outcome: str
    cause: str
    reasons: list[str]
    digests: dict[str, str]
    release: int | None
    started: str
    seconds: dict[str, float] = field(default_factory=dict)


def answered_by(release: Release) -> str:
    """Say what answers requests to a release: its compiled plan, or the estimator itself, and why."""
    answers = release.answers
    if answers.get("by") == "plan":
        return f"by the compiled plan, proven equal on {answers['proof']['rows']:,} rows"
    return f"by the estimator itself: {answers.get('why') or 'it was not compiled'}"


def open_ledger(url: str) -> Engine:
    """Connect to the ledger at a SQLAlchemy URL, making its tables where there are none."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two first runs at once must not both create the tables.
            connection.execute(text("SELECT pg_advisory_xact_lock(20110101)"))
        _METADATA.create_all(connection)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 30000")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once when another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def champion(engine: Engine, model: str) -> Release | None:
    """Return the release that should be served now; None when nothing was released, or all was withdrawn."""
    with engine.begin() as connection:
        number = _champion_of(_last_event(connection, model))
        return None if number is None else _release(connection, model, number)


def add_release(engine: Engine, release: Release, run: Run | None = None) -> Release:
    """Make a release champion and record the run that made it, in one transaction; return it with its number.

    `release.number` is ignored. Raises ReleaseError when the champion is no longer the one it was judged against,
    `release.replaced`: another process came first.
    """
    try:
        with engine.begin() as connection:
            last = _last_event(connection, release.model)
            _check_unchanged(release, _champion_of(last))
            taken = select(_RELEASES.c.number).where(_RELEASES.c.model == release.model)
            number = max(connection.execute(taken).scalars(), default=0) + 1
            numbered = Release(**{**asdict(release), "number": number})
            connection.execute(insert(_RELEASES).values(**asdict(numbered)))
            _add_event(connection, release.model, last, number, "released", release.cause, release.reason)
            if run is not None:
                connection.execute(insert(_RUNS).values(**{**asdict(run), "release": number}))
            return numbered
    except IntegrityError:
        now = champion(engine, release.model)
        _check_unchanged(release, now.number if now else None)
        raise


def _champion_of(last: Event | None) -> int | None:
    return None if last is None or last.kind == WITHDRAWN else last.release


def _check_unchanged(release: Release, now: int | None) -> None:
    if now != release.replaced:
        judged = f"release {release.replaced}" if release.replaced else "no champion"
        raise ReleaseError(
            f"{release.bento} was judged against {judged} of {release.model}, but the champion is now release {now}; "
            "another run came first, so run again to be judged against it"
        )


def rollback(engine: Engine, model: str, to: int | None, cause: str) -> Release:
    """Make an earlier release champion again: release `to`, or what the champion replaced. Nothing is rebuilt.

    After `withdraw`, what was withdrawn comes back. Raises ReleaseError when there is no such release, it is champion
    already, or another process came first.
    """
    with _first_come(engine, model) as connection:
        last = _last_event(connection, model)
        if last is None:
            raise ReleaseError(f"{model} has no release to roll back; `evergreen run {model}` makes the first")
        now = _champion_of(last)
        back = last.release if now is None else _release(connection, model, now).replaced
        wanted = back if to is None else to
        if wanted is None:
            raise ReleaseError(f"release {now} of {model} replaced none, so there is nothing to go back to")
        if wanted == now:
            raise ReleaseError(f"release {wanted} of {model} is the champion already")
        release = _release(connection, model, wanted)
        instead = "after it was withdrawn" if now is None else f"instead of release {now}"
        _add_event(connection, model, last, wanted, "rolled back to", cause, instead)
        return release


def withdraw(engine: Engine, model: str, cause: str) -> Release:
    """Leave a model without a champion, so that the next challenger is judged as a first one; return what it was.

    This is the way on from a champion that no challenger can be compared with: its package was lost, or the data no
    longer has what it takes. Raises ReleaseError when there is no champion, or another process came first.
    """
    with _first_come(engine, model) as connection:
        last = _last_event(connection, model)
        now = _champion_of(last)
        if now is None:
            raise ReleaseError(f"{model} has no champion to withdraw")
        _add_event(connection, model, last, now, WITHDRAWN, cause, "the next model is judged as a first one")
        return _release(connection, model, now)


@contextmanager
def _first_come(engine: Engine, model: str) -> Iterator[Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError as error:
        raise ReleaseError(
            f"the champion of {model} changed just now; see `evergreen status {model}`, then try again"
        ) from error


def history(engine: Engine, model: str) -> tuple[list[Release], list[Event]]:
    """Return all releases of a model and all their changes of state, oldest first."""
    with engine.begin() as connection:
        releases = connection.execute(
            select(_RELEASES).where(_RELEASES.c.model == model).order_by(_RELEASES.c.number)
        ).all()
        events = connection.execute(select(_EVENTS).where(_EVENTS.c.model == model).order_by(_EVENTS.c.sequence)).all()
    return [_as_release(row) for row in releases], [_as_event(row) for row in events]


def models(engine: Engine) -> list[str]:
    """Return the models the ledger knows, by a release or a run, sorted."""
    with engine.begin() as connection:
        found = {*connection.execute(select(_RELEASES.c.model)).scalars()}
        return sorted(found | {*connection.execute(select(_RUNS.c.model)).scalars()})


def add_run(engine: Engine, run: Run) -> None:
    """Record how a run ended."""
    with engine.begin() as connection:
        connection.execute(insert(_RUNS).values(**asdict(run)))


def last_run(engine: Engine, model: str, outcomes: Sequence[str] | None = None) -> Run | None:
    """Return the newest run of a model, or the newest with one of the outcomes."""
    query = select(_RUNS).where(_RUNS.c.model == model).order_by(_RUNS.c.id.desc()).limit(1)
    if outcomes is not None:
        query = query.where(_RUNS.c.outcome.in_(outcomes))
    with engine.begin() as connection:
        row = connection.execute(query).one_or_none()
    return Run(**{name: value for name, value in row._mapping.items() if name != "id"}) if row else None


def _last_event(connection: Connection, model: str) -> Event | None:
    query = select(_EVENTS).where(_EVENTS.c.model == model).order_by(_EVENTS.c.sequence.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return _as_event(row) if row else None


def _add_event(
    connection: Connection, model: str, last: Event | None, release: int, kind: str, cause: str, reason: str
) -> None:
    sequence = last.sequence + 1 if last else 1
    values = Event(sequence, release, kind, cause, reason, datetime.now(UTC).isoformat(timespec="seconds"))
    connection.execute(insert(_EVENTS).values(model=model, **asdict(values)))


def _release(connection: Connection, model: str, number: int) -> Release:
    query = select(_RELEASES).where(_RELEASES.c.model == model, _RELEASES.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        known = connection.execute(select(_RELEASES.c.number).where(_RELEASES.c.model == model)).scalars()
        raise ReleaseError(
            f"{model} has no release {number}; there are: {', '.join(map(str, sorted(known))) or 'none'}"
        )
    return _as_release(row)


def _as_release(row: Row[Any]) -> Release:
    return Release(**{name: value for name, value in row._mapping.items() if name != "id"})


def _as_event(row: Row[Any]) -> Event:
    return Event(**{name: value for name, value in row._mapping.items() if name not in ("id", "model")})
