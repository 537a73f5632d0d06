"""How runs of the flow ended, and what monitoring observed of a served model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Engine, Row, delete, insert, select

from bentos.ledger.database import OBSERVATIONS, RUNS, reading

VERDICTS = ("released", "canary", "awaiting-approval", "kept", "model-rejected")
"""Outcomes that settle a snapshot, spec and code: the next run on the same inputs is `unchanged`."""


@dataclass(frozen=True)
class Run:
    """How a run of the flow ended.

    Attributes:
        model: the name of the model.
        outcome: how it ended, such as "released" or "data-rejected".
        cause: who or what started it, such as "person", "schedule" or "drift".
        reasons: why it ended so, sentences.
        digests: the digests of its inputs and outputs, by name.
        release: the number of its release; None without one.
        started: when, ISO 8601 in UTC.
        seconds: how long each step took.
        why: why its cause started it; None if unknown.
    """

    model: str
    outcome: str
    cause: str
    reasons: list[str]
    digests: dict[str, str]
    release: int | None
    started: str
    seconds: dict[str, float] = field(default_factory=dict)
    why: str | None = None


@dataclass(frozen=True)
class Observation:
    """What one run of monitoring observed of a served model.

    Attributes:
        release: the release that was champion; None without one.
        at: when, ISO 8601 in UTC.
        found: the report as JSON values, see `flows.monitor`.
    """

    release: int | None
    at: str
    found: dict[str, Any]


def add_run(engine: Engine, run: Run) -> None:
    """Record how a run ended."""
    with engine.begin() as connection:
        connection.execute(insert(RUNS).values(**asdict(run)))


def last_run(engine: Engine, model: str, outcomes: Sequence[str] | None = None) -> Run | None:
    """Return the newest run of a model, or the newest with one of the outcomes."""
    query = select(RUNS).where(RUNS.c.model == model).order_by(RUNS.c.id.desc()).limit(1)
    if outcomes is not None:
        query = query.where(RUNS.c.outcome.in_(outcomes))
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    return _as_run(row) if row else None


def _as_run(row: Row[Any]) -> Run:
    return Run(**{name: value for name, value in row._mapping.items() if name != "id"})


def newest_runs(engine: Engine, model: str, most: int | None = None) -> list[Run]:
    """Return the newest runs of a model, or all, the oldest of them first."""
    query = select(RUNS).where(RUNS.c.model == model).order_by(RUNS.c.id.desc()).limit(most)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [_as_run(row) for row in reversed(rows)]


def add_observation(engine: Engine, model: str, observation: Observation, keep: int) -> None:
    """Record an observation of a model; only its newest `keep` observations stay."""
    with engine.begin() as connection:
        connection.execute(insert(OBSERVATIONS).values(model=model, **asdict(observation)))
        ours = select(OBSERVATIONS.c.id).where(OBSERVATIONS.c.model == model).order_by(OBSERVATIONS.c.id.desc())
        old = connection.execute(ours.offset(keep).limit(1)).scalar()
        if old is not None:
            connection.execute(delete(OBSERVATIONS).where((OBSERVATIONS.c.model == model) & (OBSERVATIONS.c.id <= old)))


def observations(engine: Engine, model: str, most: int) -> list[Observation]:
    """Return the newest observations of a model, the oldest of them first."""
    query = select(OBSERVATIONS).where(OBSERVATIONS.c.model == model).order_by(OBSERVATIONS.c.id.desc()).limit(most)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [Observation(row.release, row.at, row.found) for row in reversed(rows)]
