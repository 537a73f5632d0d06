"""What is checked at the end: every answer against what the ledger says was champion, and the ledger against itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bentos.ledger.releases import CHAMPION_EVENTS, Event, Release
from bentos.ledger.servers import ServerEvent

SECOND = 1.0
"""The ledger's times are whole seconds."""
EXPECTED = {"json": "200", "csv": "200", "wrong": "400"}


@dataclass(frozen=True)
class Answer:
    """One request: when it was begun and answered (seconds since 1970), of which kind, the status, who answered."""

    begun: float
    answered: float
    kind: str
    status: str
    release: str

    @property
    def right(self) -> bool:
        """Whether it was answered as such a request should be."""
        return self.status == EXPECTED[self.kind]


@dataclass(frozen=True)
class Kill:
    """A process that answers requests, or owns what does, and was killed; `until` everything answered again."""

    at: float
    kind: str
    until: float


@dataclass(frozen=True)
class Excursion:
    """A time in which the clock of everything but the clients was `ahead` seconds ahead of theirs, or behind."""

    began: float
    ended: float
    ahead: float


def lost(answers: Sequence[Answer], kills: Sequence[Kill]) -> tuple[list[Answer], list[Answer]]:
    """Return the requests not answered as they should be: those of killed processes, and those of no such process.

    A killed worker takes with it what was sent to it and not answered. A killed endpoint closes its socket, so that
    nothing is answered until it is back.
    """
    killed: list[Answer] = []
    others: list[Answer] = []
    for one in answers:
        if not one.right:
            theirs = any(kill.at - 0.5 <= one.answered and one.begun <= kill.until for kill in kills)
            (killed if theirs else others).append(one)
    return killed, others


def out_of_order(
    answers: Sequence[Answer], events: Sequence[Event], served: Sequence[ServerEvent], excursions: Sequence[Excursion]
) -> list[Answer]:
    """Return the answers of a release that another one had taken the place of, acknowledged, before they were asked."""
    wishes = sorted(moment(event.at, excursions) for event in events if event.kind in CHAMPION_EVENTS)
    alone = sorted((moment(one.at, excursions) + SECOND, str(one.release)) for one in served if one.kind == "alone")
    wrong: list[Answer] = []
    for begins, release in alone:
        ends = next((wish for wish in wishes if wish > begins - SECOND), float("inf"))
        wrong += [
            one
            for one in answers
            if one.release != "none" and begins < one.begun and one.answered < ends and one.release != release
        ]
    return wrong


def inconsistent(made: Sequence[Release], events: Sequence[Event], answers: Sequence[Answer]) -> list[str]:
    """Return what is wrong with the ledger, in sentences."""
    wrong = []
    numbers = [one.number for one in made]
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"releases are numbered {numbers}")
    sequences = [one.sequence for one in events]
    if sequences != list(range(sequences[0], sequences[0] + len(sequences))):
        wrong.append(f"events are numbered {sequences}")
    if strangers := {one.release for one in events} - {*numbers}:
        wrong.append(f"events name releases that were never made: {sorted(strangers)}")
    if unknown := {one.release for one in answers} - {*map(str, numbers), "none"}:
        wrong.append(f"answers name releases that were never made: {sorted(unknown)}")
    for one, times in Counter((one.digests["artifact"]) for one in made).items():
        if times > 1:
            wrong.append(f"artifact {one[:12]} was released {times} times")
    return wrong


def moment(said: str, excursions: Sequence[Excursion]) -> float:
    """Return when something was by the clients' clock, in seconds since 1970, that the ledger has by its own.

    An excursion is further away than the whole soak is long, so that a time has one meaning.
    """
    at = datetime.fromisoformat(said).timestamp()
    theirs = (at - one.ahead for one in excursions if one.began - SECOND <= at - one.ahead <= one.ended + SECOND)
    return next(theirs, at)
