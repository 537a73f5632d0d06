"""A release that answers a share of the requests first: the two sides compared, and the alarms that send it back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pipeline.population_stability import population_stability
from pipeline.spec import Canary

LATENCY_FLOOR_SECONDS = 0.005
"""What is quicker than this is all the same quick: other work on the machine makes more of a difference."""


RELATIVE_TOLERANCE = 1e-6
"""Numbers that differ by at most so much of the larger one are the same prediction."""


@dataclass(frozen=True)
class ShadowDiff:
    """How much a shadow's predictions differ from the champion's to the same rows; `furthest` is in the target's unit.

    Where predictions are labels, `total` and `furthest` stay 0.
    """

    rows: int = 0
    others: int = 0
    total: float = 0.0
    furthest: float = 0.0

    def __add__(self, other: "ShadowDiff") -> "ShadowDiff":
        return ShadowDiff(
            self.rows + other.rows,
            self.others + other.others,
            self.total + other.total,
            max(self.furthest, other.furthest),
        )

    def __str__(self) -> str:
        if not self.rows:
            return "no prediction was compared"
        said = (
            f"of {self.rows:,} predictions {self.others:,} differ from the champion's ({self.others / self.rows:.1%})"
        )
        return (
            f"{said}, by {self.total / self.rows:.3g} on average and {self.furthest:.3g} at most"
            if self.total
            else said
        )


def compare_predictions(champion: Sequence[Any], shadow: Sequence[Any]) -> ShadowDiff:
    """Compare two answers to the same rows, value by value; CSV's numbers are words."""
    found = ShadowDiff()
    for ours, theirs in zip(champion, shadow, strict=True):
        try:
            distance = abs(float(ours) - float(theirs))
            same = distance <= RELATIVE_TOLERANCE * max(abs(float(ours)), abs(float(theirs)))
        except ValueError:
            distance, same = 0.0, ours == theirs
        found += ShadowDiff(1, int(not same), distance, distance)
    return found


def describe_share(settings: Canary) -> str:
    """Say how a canary, or a shadow, takes part; what follows "release 3 "."""
    share, minutes = f"{settings.share:.0%} of the requests", f"for {settings.minutes:g} minutes"
    if settings.shadow:
        return f"is asked a copy of {share} {minutes}, and nobody sees what it answers"
    return f"answers {share} {minutes}"


@dataclass(frozen=True)
class Counters:
    """What one side has answered: counts of requests, of answers by time and of predictions by value."""

    requests: int = 0
    errors: int = 0
    rows: int = 0
    nulls: int = 0
    unseen: int = 0
    seconds: tuple[int, ...] = ()
    """Requests by the time to answer, in the buckets of `bentos.endpoint.metrics.SECONDS`, the last one beyond them."""
    predictions: tuple[tuple[str, int], ...] = ()
    """Predictions by label, or by the bucket that a number falls in."""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Counters":
        """Return what a worker said of itself."""
        known = {field.name for field in fields(cls)}
        plain = {name: value for name, value in said.items() if name in known}
        plain["seconds"] = tuple(said.get("seconds", ()))
        plain["predictions"] = tuple(sorted(said.get("predictions", {}).items()))
        return cls(**plain)

    def __add__(self, other: "Counters") -> "Counters":
        return self._with(other, 1)

    def __sub__(self, other: "Counters") -> "Counters":
        return self._with(other, -1)

    def _with(self, other: "Counters", sign: int) -> "Counters":
        width = max(len(self.seconds), len(other.seconds))
        seconds = [_at(self.seconds, place) + sign * _at(other.seconds, place) for place in range(width)]
        ours, theirs = dict(self.predictions), dict(other.predictions)
        predictions = {name: ours.get(name, 0) + sign * theirs.get(name, 0) for name in {*ours, *theirs}}
        return Counters(
            self.requests + sign * other.requests,
            self.errors + sign * other.errors,
            self.rows + sign * other.rows,
            self.nulls + sign * other.nulls,
            self.unseen + sign * other.unseen,
            tuple(seconds),
            tuple(sorted(predictions.items())),
        )


def _at(counts: Sequence[int], place: int) -> int:
    return counts[place] if place < len(counts) else 0


def alarm(champion: Counters, canary: Counters, settings: Canary, edges: Sequence[float]) -> str | None:
    """Return why a canary should answer no more, a sentence with both numbers; None while all is quiet.

    Nothing is judged before both sides have answered the `requests` of the settings, but for errors, of which that many
    times the share allowed is enough at any time. `edges` bound `seconds`.
    """
    least, allowed = settings.min_requests, settings.max_error_increase
    bad, usual_bad = _share(canary.errors, canary.requests), _share(champion.errors, champion.requests)
    # So many errors are too many, whatever is still to come.
    if canary.errors > max(3.0, allowed * least) and bad > usual_bad + allowed:
        return _describe("errors", bad, usual_bad)
    if min(canary.requests, champion.requests) < least:
        return None
    nulls = _share(champion.nulls, champion.rows), _share(canary.nulls, canary.rows)
    unseen = _share(champion.unseen, champion.rows), _share(canary.unseen, canary.rows)
    for name, (ours, theirs), more in (
        ("errors", (usual_bad, bad), allowed),
        ("nulls", nulls, settings.max_null_increase),
        ("unseen", unseen, settings.max_unseen_increase),
    ):
        if theirs > ours + more:
            return _describe(name, theirs, ours)
    slow, usual = quantile(canary.seconds, edges, 0.95), quantile(champion.seconds, edges, 0.95)
    if slow > settings.max_latency_ratio * max(usual, LATENCY_FLOOR_SECONDS):
        return (
            f"latency: 95% of its requests take up to {slow * 1000:g} ms, the champion's {usual * 1000:g} ms; "
            f"{settings.max_latency_ratio:g} times that is allowed"
        )
    shift, noise = psi(champion.predictions, canary.predictions)
    if shift > settings.max_psi + noise:
        return (
            f"predictions: their distribution differs from the champion's by {shift:.2f} (population stability index; "
            f"{settings.max_psi:g} is allowed, and {noise:.2f} for chance)"
        )
    return None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _describe(name: str, theirs: float, ours: float) -> str:
    what = {
        "errors": "of its requests ended in an error",
        "nulls": "nulls in a row",
        "unseen": "values in a row that its training never saw",
    }[name]
    if name == "errors":
        return f"errors: {theirs:.1%} {what}, {ours:.1%} of the champion's"
    return f"{name}: {theirs:.3g} {what}, {ours:.3g} at the champion"


def quantile(counts: Sequence[int], edges: Sequence[float], share: float) -> float:
    """Return the upper edge of the bucket that holds a quantile; beyond the last one, twice that."""
    wanted, seen = share * sum(counts), 0
    for place, count in enumerate(counts):
        seen += count
        if seen >= wanted and seen:
            return edges[place] if place < len(edges) else 2 * edges[-1]
    return 0.0


def psi(expected: Sequence[tuple[str, int]], found: Sequence[tuple[str, int]]) -> tuple[float, float]:
    """Return the population stability index of two counts by bucket, and twice what chance alone makes of it.

    Under no change it is about (buckets - 1)(1/n + 1/m) (Yurdakul, 2018).
    """
    ours, theirs = dict(expected), dict(found)
    n, m = sum(ours.values()), sum(theirs.values())
    if not n or not m:
        return 0.0, 0.0
    buckets = sorted({*ours, *theirs})
    index = population_stability(*([counts.get(name, 0) for name in buckets] for counts in (ours, theirs)))
    return index, 2 * (len(buckets) - 1) * (1 / n + 1 / m)
