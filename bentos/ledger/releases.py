"""Releases and their events: what is served, what was served, and why.

The champion is the release of the last event among CHAMPION_EVENTS. Which release a server really serves is in
`bentos.ledger.servers`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select
from sqlalchemy.exc import IntegrityError

from bentos.ledger.database import EVENTS, RELEASES, RUNS, reading
from bentos.ledger.runs import Run
from bentos.ledger.servers import iso, live_servers_in
from pipeline.errors import OvertakenError, ReleaseError
from pipeline.run_digests import same_model, same_package
from pipeline.spec import Canary

RELEASED, PROMOTED, ROLLED_BACK, RETIRED = "released", "promoted", "rolled back to", "retired"
"""The kinds of events that decide which release is champion: the release of the last one, or none after RETIRED."""
CHAMPION_EVENTS = (RELEASED, PROMOTED, ROLLED_BACK, RETIRED)
CANARY, STOPPED = "canary", "canary stopped"
"""A release answers a share of the requests, and the end of that."""
AWAITING, HELD, UNHELD, ARCHIVED = "awaiting-approval", "held", "unheld", "archived"
ERASED = "rows forgotten"
"""Rows of a person were erased from a model's snapshots or logs. It does not change the state of any release."""


@dataclass(frozen=True)
class Release:
    """One package that passed every check, and why it was released.

    Attributes:
        model: the name of the model.
        number: counts the releases of a model from 1.
        bento: the tag of its package.
        digests: the digests of what it was made from and of the package, by name.
        verdict: the gate's verdict, as JSON values.
        evaluation: metrics of challenger and champion on the held-out rows.
        trial: the package's trial, see `bentos.trial.Trial`.
        cause: who or what asked for it, such as "person" or "schedule".
        reason: why it was released, a sentence.
        created: when, ISO 8601 in UTC.
        replaced: the champion that it was evaluated against; None if there was none.
        answers: whether the compiled plan or the estimator answers, and the proof or the reason.
        canary: the canary settings of its spec; None without a canary.
    """

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
    canary: dict[str, Any] | None = None

    @property
    def canary_settings(self) -> Canary:
        """The settings of its canary; the defaults of the spec if it has none."""
        return Canary(**(self.canary or {}))


@dataclass(frozen=True)
class Event:
    """One change of state of a release.

    Attributes:
        sequence: counts the events of a model from 1.
        release: the number of the release.
        kind: what happened, one of the constants above.
        cause: who or what asked for it.
        reason: why, a sentence.
        at: when, ISO 8601 in UTC.
        instead: the champion that the release replaced; None if it replaced none.
    """

    sequence: int
    release: int
    kind: str
    cause: str
    reason: str
    at: str
    instead: int | None = None


@dataclass(frozen=True)
class DesiredState:
    """What servers should serve.

    Attributes:
        champion: the champion; None if there is none.
        canary: the release that should answer a share of the requests; None if there is none.
        since: since when it is a canary, ISO 8601; None without one.
        held: the event by which a person holds the champion; None without a hold.
        stopped: the event that stopped the last canary, if nothing was released since; None otherwise.
    """

    champion: Release | None
    canary: Release | None = None
    since: str | None = None
    held: Event | None = None
    stopped: Event | None = None


def answered_by(release: Release) -> str:
    """Describe what answers requests to a release: its compiled plan or the estimator, and why."""
    answers = release.answers
    if answers.get("by") == "plan":
        return f"by the compiled plan, proven equal on {answers['proof']['rows']:,} rows"
    return f"by the estimator itself: {answers.get('why') or 'it was not compiled'}"


def champion(engine: Engine, model: str) -> Release | None:
    """Return the release that should be served now; None when nothing was released, or the champion was retired."""
    return desired_state(engine, model).champion


def desired_state(engine: Engine, model: str) -> DesiredState:
    """Return what should be served now, and whether a person holds it."""
    with reading(engine) as connection:
        number = _champion_of(connection, model)
        answering = _last_event(connection, model, (*CHAMPION_EVENTS, CANARY, STOPPED))
        canary = answering.release if answering and answering.kind == CANARY else None
        held = _last_event(connection, model, (HELD, UNHELD))
        return DesiredState(
            None if number is None else _release(connection, model, number),
            None if canary is None else _release(connection, model, canary),
            answering.at if answering and answering.kind == CANARY else None,
            held if held and held.kind == HELD else None,
            answering if answering and answering.kind == STOPPED else None,
        )


def add_release(engine: Engine, release: Release, run: Run | None = None, kind: str = RELEASED) -> Release:
    """Add a release and record the run that made it, in one transaction; return it with its number.

    It becomes champion, or with another `kind` a CANARY or one AWAITING approval. `release.number` is ignored. Raises
    ReleaseError when the champion is no longer the one it was evaluated against, `release.replaced`, and when a person
    holds the champion.
    """
    try:
        with engine.begin() as connection:
            last = _last_event(connection, release.model)
            _check_unchanged(release, _champion_of(connection, release.model))
            _check_not_held(connection, release.model)
            taken = select(RELEASES.c.number).where(RELEASES.c.model == release.model)
            number = max(connection.execute(taken).scalars(), default=0) + 1
            numbered = Release(**{**asdict(release), "number": number})
            connection.execute(insert(RELEASES).values(**asdict(numbered)))
            instead = release.replaced if kind == RELEASED else None
            _add_event(connection, release.model, last, number, kind, release.cause, release.reason, instead)
            if run is not None:
                connection.execute(insert(RUNS).values(**{**asdict(run), "release": number}))
            return numbered
    except IntegrityError:
        now = champion(engine, release.model)
        _check_unchanged(release, now.number if now else None)
        raise


def _champion_of(connection: Connection, model: str) -> int | None:
    last = _last_event(connection, model, CHAMPION_EVENTS)
    return None if last is None or last.kind == RETIRED else last.release


def _check_unchanged(release: Release, now: int | None) -> None:
    if now != release.replaced:
        judged = f"release {release.replaced}" if release.replaced else "no champion"
        raise ReleaseError(
            f"{release.bento} was evaluated against {judged} of {release.model}, but the champion is now "
            f"{f'release {now}' if now else 'none'} (another run finished first). Run again.",
            code="release.outdated",
        )


def _check_not_held(connection: Connection, model: str) -> None:
    held = _last_event(connection, model, (HELD, UNHELD))
    if held and held.kind == HELD:
        raise ReleaseError(hold_sentence(model, held), code="release.held")


def hold_sentence(model: str, held: Event) -> str:
    """Return a sentence: a person holds the champion, since when, why, and how to end the hold."""
    return (
        f"{model} is held at release {held.release} since {held.at} ({held.reason}); `evergreen unhold {model}` ends it"
    )


def get_release(engine: Engine, model: str, number: int) -> Release:
    """Return a release; ReleaseError when there is none of that number."""
    with reading(engine) as connection:
        return _release(connection, model, number)


def awaiting(engine: Engine, model: str) -> list[int]:
    """Return the releases that await approval and were evaluated against the current champion."""
    with reading(engine) as connection:
        return _awaiting(connection, model)


def _awaiting(connection: Connection, model: str) -> list[int]:
    now = _champion_of(connection, model)
    found = [number for number, state in states(_events_of(connection, model)).items() if state == AWAITING]
    return [number for number in found if _release(connection, model, number).replaced == now]


def next_champion(engine: Engine, model: str) -> str:
    """Describe how a model without a champion gets one: by a person's approval, or by a run."""
    with reading(engine) as connection:
        return _next_champion(connection, model)


def _next_champion(connection: Connection, model: str) -> str:
    if waiting := _awaiting(connection, model):
        return f"release {waiting[-1]} awaits approval, and `evergreen promote {model} {waiting[-1]}` makes it champion"
    return f"`evergreen run {model}` makes one"


def still_valid(engine: Engine, model: str, run: Run) -> bool:
    """Return whether the outcome of a run is still valid, so that a run on the same inputs would find nothing new.

    It is not valid after the champion was retired. Nor is it if its release was a canary or awaited approval while
    another one became champion, because it was never evaluated against that one.
    """
    with reading(engine) as connection:
        events, now = _events_of(connection, model), _champion_of(connection, model)
    if run.release is None:
        return run.outcome == "model-rejected" or now is not None
    if _state_of(run.release, events) in ("champion", CANARY, AWAITING):
        return True
    kinds = {event.kind for event in events if event.release == run.release}
    return now is not None and bool(kinds & {RELEASED, PROMOTED, ROLLED_BACK})


def rollback_target(engine: Engine, model: str, to: int | None) -> Release:
    """Return the target of a rollback: release `to`, or the one that the champion replaced.

    After `retire` it is the retired one. Raises ReleaseError when there is none, or it is champion already.
    """
    with reading(engine) as connection:
        return _rollback_target(connection, model, to)


def _rollback_target(connection: Connection, model: str, to: int | None) -> Release:
    last = _last_event(connection, model, CHAMPION_EVENTS)
    if last is None:
        raise ReleaseError(
            f"{model} has no release to roll back; {_next_champion(connection, model)}", code="release.none"
        )
    now = _champion_of(connection, model)
    back = last.release if now is None else _release(connection, model, now).replaced
    wanted = back if to is None else to
    if wanted is None:
        raise ReleaseError(
            f"release {now} of {model} did not replace another release, so a rollback has no target. "
            f"Name one with `--to`, or retrain with `evergreen run {model}`.",
            code="release.no_rollback_target",
        )
    if wanted == now:
        raise ReleaseError(
            f"release {wanted} of {model} is the champion already; name another release",
            code="release.already_champion",
        )
    release = _release(connection, model, wanted)
    events = _events_of(connection, model)
    if not {event.kind for event in events if event.release == wanted} & {RELEASED, PROMOTED}:
        waits = _state_of(wanted, events) in (CANARY, AWAITING)
        hint = f"; `evergreen promote {model} {wanted}` makes it champion" if waits else ""
        raise ReleaseError(
            f"release {wanted} of {model} was never champion, so a rollback to it is not possible{hint}",
            code="release.never_champion",
        )
    return release


def rollback(engine: Engine, model: str, to: int | None, cause: str, why: str = "") -> Release:
    """Make an earlier release champion again: release `to`, or the one that the champion replaced. Nothing is rebuilt.

    The release that it replaces is blocked from then on, see `blocked_by`. Raises ReleaseError as `rollback_target`,
    and OvertakenError when another process changed the champion first.
    """
    with _first_writer_wins(engine, model) as connection:
        last = _last_event(connection, model)
        now = _champion_of(connection, model)
        release = _rollback_target(connection, model, to)
        instead = "after it was retired" if now is None else f"instead of release {now}"
        reason = f"{instead}: {why}" if why else instead
        _add_event(connection, model, last, release.number, ROLLED_BACK, cause, reason, now)
        return release


def blocked_by(engine: Engine, model: str, digests: Mapping[str, str], package: bool = False) -> Event | None:
    """Return the rollback or stopped canary that blocks the model of these digests from being released again.

    It is the last one that replaced such a release, unless the release became champion again since. With `package` the
    packages are compared instead of the models, so that another package of the same model is not blocked.
    """
    same = same_package if package else same_model
    with reading(engine) as connection:
        numbers = {
            release.number
            for release in map(_as_release, connection.execute(select(RELEASES).where(RELEASES.c.model == model)))
            if same(release.digests, digests)
        }
        block = None
        for event in _events_of(connection, model):
            if event.kind in (RELEASED, PROMOTED, ROLLED_BACK) and event.release in numbers:
                block = None
            elif (
                event.kind in (ROLLED_BACK, STOPPED)
                and (event.instead if event.kind == ROLLED_BACK else event.release) in numbers
            ):
                block = event
        return block


def promote(engine: Engine, model: str, number: int, cause: str, why: str) -> Release:
    """Make a canary, or a release that awaits approval, champion.

    A release that awaits approval starts as a canary if its spec has one and a server is up. Raises ReleaseError when
    the release is neither, was evaluated against another champion, or another process changed the champion first.
    """
    with _first_writer_wins(engine, model) as connection:
        last = _last_event(connection, model)
        release = _release(connection, model, number)
        state = _state_of(number, _events_of(connection, model))
        if state not in (CANARY, AWAITING):
            raise ReleaseError(
                f"release {number} of {model} is {state} and cannot be promoted; "
                "only a canary or a release that awaits approval can be",
                code="release.not_promotable",
            )
        _check_unchanged(release, _champion_of(connection, model))
        if cause != "person":
            _check_not_held(connection, model)
        if state == AWAITING and release.canary and live_servers_in(connection, model):
            _add_event(connection, model, last, number, CANARY, cause, why)
        else:
            _add_event(connection, model, last, number, PROMOTED, cause, why, release.replaced)
        return release


def stop_canary(engine: Engine, model: str, number: int, cause: str, why: str) -> Release:
    """Let the champion answer all requests again; ReleaseError when the release is not a canary now."""
    with _first_writer_wins(engine, model) as connection:
        last = _last_event(connection, model)
        state = _state_of(number, _events_of(connection, model))
        if state != CANARY:
            raise ReleaseError(
                f"release {number} of {model} is {state}, not a canary; `evergreen status {model}` shows the canary",
                code="release.not_a_canary",
            )
        _add_event(connection, model, last, number, STOPPED, cause, why)
        return _release(connection, model, number)


def hold(engine: Engine, model: str, why: str) -> Release:
    """Keep the champion until `unhold`, so that no run replaces it; ReleaseError without one or if it is held."""
    with _first_writer_wins(engine, model) as connection:
        _check_not_held(connection, model)
        now = _champion_of(connection, model)
        if now is None:
            raise ReleaseError(
                f"{model} has no champion to hold; {_next_champion(connection, model)}", code="release.no_champion"
            )
        _add_event(connection, model, _last_event(connection, model), now, HELD, "person", why)
        return _release(connection, model, now)


def unhold(engine: Engine, model: str, why: str) -> Release | None:
    """Let runs release again; return the current champion. Raises ReleaseError when nothing is held."""
    with _first_writer_wins(engine, model) as connection:
        held = _last_event(connection, model, (HELD, UNHELD))
        if held is None or held.kind != HELD:
            raise ReleaseError(
                f"{model} is not held; `evergreen hold {model}` holds its champion", code="release.not_held"
            )
        _add_event(connection, model, _last_event(connection, model), held.release, UNHELD, "person", why)
        now = _champion_of(connection, model)
        return None if now is None else _release(connection, model, now)


def mark_archived(engine: Engine, model: str, numbers: Sequence[int], cause: str, why: str) -> None:
    """Record that the packages of releases were removed; ReleaseError when one may be served now."""
    for number in numbers:
        with _first_writer_wins(engine, model) as connection:
            state = _state_of(number, _events_of(connection, model))
            if state in ("champion", CANARY, AWAITING):
                raise ReleaseError(
                    f"release {number} of {model} is {state} and may be served, so its package must stay",
                    code="release.in_use",
                )
            if state == ARCHIVED:
                continue
            _add_event(connection, model, _last_event(connection, model), number, ARCHIVED, cause, why)


def record_erasure(engine: Engine, model: str, why: str) -> None:
    """Record that rows were erased from a model's snapshots and logs, as an event of the newest event's release.

    A model without events has no release to record it with; then only the snapshot's own record exists.
    """
    with _first_writer_wins(engine, model) as connection:
        if last := _last_event(connection, model):
            _add_event(connection, model, last, last.release, ERASED, "person", why)


def retire(engine: Engine, model: str, cause: str) -> Release:
    """Leave a model without a champion, so that the next challenger is judged as a first one; return the old champion.

    Use it when no challenger can be compared with the champion: its package is lost, or the data lacks its columns.
    Raises ReleaseError when there is no champion, or another process changed it first.
    """
    with _first_writer_wins(engine, model) as connection:
        now = _champion_of(connection, model)
        if now is None:
            raise ReleaseError(
                f"{model} has no champion to retire; {_next_champion(connection, model)}", code="release.no_champion"
            )
        last = _last_event(connection, model)
        _add_event(connection, model, last, now, RETIRED, cause, "the next model is judged as a first one")
        return _release(connection, model, now)


def states(events: Sequence[Event]) -> dict[int, str]:
    """Return the state of every release by number, from all events of its model in order."""
    return {number: _state_of(number, events) for number in sorted({event.release for event in events})}


def _state_of(number: int, events: Sequence[Event]) -> str:
    state = "unknown"
    for event in events:
        if event.kind in (HELD, UNHELD, ERASED):
            continue
        if event.release == number:
            state = "champion" if event.kind in (RELEASED, PROMOTED, ROLLED_BACK) else event.kind
        elif event.kind in CHAMPION_EVENTS and state == "champion":
            state = "rolled back" if event.kind == ROLLED_BACK else "replaced"
        elif event.kind in (*CHAMPION_EVENTS, CANARY) and state in (CANARY, AWAITING):
            state = "replaced"
    return state


@contextmanager
def _first_writer_wins(engine: Engine, model: str) -> Iterator[Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    except IntegrityError as error:
        raise OvertakenError(
            f"another process changed the champion of {model} at the same moment; "
            f"see `evergreen status {model}`, then try again",
            code="release.overtaken",
        ) from error


def history(engine: Engine, model: str) -> tuple[list[Release], list[Event]]:
    """Return all releases of a model and all their changes of state, oldest first."""
    with reading(engine) as connection:
        releases = connection.execute(
            select(RELEASES).where(RELEASES.c.model == model).order_by(RELEASES.c.number)
        ).all()
        events = connection.execute(select(EVENTS).where(EVENTS.c.model == model).order_by(EVENTS.c.sequence)).all()
    return [_as_release(row) for row in releases], [_as_event(row) for row in events]


def models(engine: Engine) -> list[str]:
    """Return the models the ledger knows, by a release or a run, sorted."""
    with reading(engine) as connection:
        found = {*connection.execute(select(RELEASES.c.model)).scalars()}
        return sorted(found | {*connection.execute(select(RUNS.c.model)).scalars()})


def _last_event(connection: Connection, model: str, kinds: Sequence[str] | None = None) -> Event | None:
    query = select(EVENTS).where(EVENTS.c.model == model).order_by(EVENTS.c.sequence.desc()).limit(1)
    if kinds is not None:
        query = query.where(EVENTS.c.kind.in_(kinds))
    row = connection.execute(query).one_or_none()
    return _as_event(row) if row else None


def _events_of(connection: Connection, model: str) -> list[Event]:
    query = select(EVENTS).where(EVENTS.c.model == model).order_by(EVENTS.c.sequence)
    return [_as_event(row) for row in connection.execute(query)]


def _add_event(
    connection: Connection,
    model: str,
    last: Event | None,
    release: int,
    kind: str,
    cause: str,
    reason: str,
    instead: int | None = None,
) -> None:
    sequence = last.sequence + 1 if last else 1
    values = Event(sequence, release, kind, cause, reason, iso(time.time()), instead)
    connection.execute(insert(EVENTS).values(model=model, **asdict(values)))


def _release(connection: Connection, model: str, number: int) -> Release:
    query = select(RELEASES).where(RELEASES.c.model == model, RELEASES.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        known = connection.execute(select(RELEASES.c.number).where(RELEASES.c.model == model)).scalars()
        raise ReleaseError(
            f"{model} has no release {number}; there are: {', '.join(map(str, sorted(known))) or 'none'}",
            code="release.unknown",
        )
    return _as_release(row)


def _as_release(row: Row[Any]) -> Release:
    return Release(**{name: value for name, value in row._mapping.items() if name != "id"})


def _as_event(row: Row[Any]) -> Event:
    return Event(**{name: value for name, value in row._mapping.items() if name not in ("id", "model")})
