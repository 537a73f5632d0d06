"""Canaries: compare a release that answers a share of the requests with the champion, and decide when to stop it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pipeline.population_stability import population_stability
from pipeline.spec import Canary

LATENCY_FLOOR_SECONDS = 0.005
"""Latencies below this count as equal, because other load on the machine changes them more."""


RELATIVE_TOLERANCE = 1e-6
"""Numbers whose difference is at most this part of the larger one are the same prediction."""


@dataclass(frozen=True)
class ShadowDiff:
    """How much a shadow's predictions differ from the champion's for the same rows.

    Attributes:
        rows: how many predictions were compared.
        others: how many of them differ.
        total: the sum of all absolute differences, in the target's unit; 0 for labels.
        furthest: the largest absolute difference, in the target's unit; 0 for labels.
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
        text = (
            f"of {self.rows:,} predictions {self.others:,} differ from the champion's ({self.others / self.rows:.1%})"
        )
        return (
            f"{text}, by {self.total / self.rows:.3g} on average and {self.furthest:.3g} at most"
            if self.total
            else text
        )


def compare_predictions(champion: Sequence[Any], shadow: Sequence[Any]) -> ShadowDiff:
    """Compare two answers to the same rows value by value; numbers may be text, as in CSV."""
    difference = ShadowDiff()
    for ours, theirs in zip(champion, shadow, strict=True):
        try:
            distance = abs(float(ours) - float(theirs))
            same = distance <= RELATIVE_TOLERANCE * max(abs(float(ours)), abs(float(theirs)))
        except ValueError:
            distance, same = 0.0, ours == theirs
        difference += ShadowDiff(1, int(not same), distance, distance)
    return difference


def describe_share(settings: Canary) -> str:
    """Describe what a canary or a shadow gets; the text continues "release 3 "."""
    share, minutes = f"{settings.share:.0%} of the requests", f"for {settings.minutes:g} minutes"
    if settings.shadow:
        return f"gets a copy of {share} {minutes}; its answers are only compared"
    return f"answers {share} {minutes}"


@dataclass(frozen=True)
class Counters:
    """What one side has answered.

    Attributes:
        requests: how many requests to /predict it answered.
        errors: how many of them ended in a status of 500 or more.
        rows: how many rows it predicted.
        nulls: how many feature values were null.
        unseen: how many feature values training never saw.
        seconds: requests by time to answer, in the buckets of `bentos.endpoint.metrics.SECONDS` and one beyond them.
        predictions: predictions by label, or by the bucket of a number.
    """

    requests: int = 0
    errors: int = 0
    rows: int = 0
    nulls: int = 0
    unseen: int = 0
    seconds: tuple[int, ...] = ()
    predictions: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> "Counters":
        """Return the counters in a worker's report."""
        known = {field.name for field in fields(cls)}
        plain = {name: value for name, value in report.items() if name in known}
        plain["seconds"] = tuple(report.get("seconds", ()))
        plain["predictions"] = tuple(sorted(report.get("predictions", {}).items()))
        return cls(**plain)

    def __add__(self, other: "Counters") -> "Counters":
        return self._with(other, 1)

    def __sub__(self, other: "Counters") -> "Counters":
        return self._with(other, -1)

    def _with(self, other: "Counters", sign: int) -> "Counters":
        width = max(len(self.seconds), len(other.seconds))
        seconds = [_at(self.seconds, index) + sign * _at(other.seconds, index) for index in range(width)]
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


def _at(counts: Sequence[int], index: int) -> int:
    return counts[index] if index < len(counts) else 0


def alarm(champion: Counters, canary: Counters, settings: Canary, edges: Sequence[float]) -> str | None:
    """Return why a canary must be stopped, a sentence with the numbers of both sides; None if nothing is wrong.

    Nothing is compared before both sides have answered `min_requests`, except errors: more than
    `max_error_increase * min_requests` of them (and more than 3) are enough at any time. `edges` bound `seconds`.
    """
    min_requests, allowed = settings.min_requests, settings.max_error_increase
    bad, usual_bad = _share(canary.errors, canary.requests), _share(champion.errors, champion.requests)
    # This many errors are too many even if all further requests succeed.
    if canary.errors > max(3.0, allowed * min_requests) and bad > usual_bad + allowed:
        return _describe("errors", bad, usual_bad)
    if min(canary.requests, champion.requests) < min_requests:
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
            f"at most {settings.max_latency_ratio:g} times that is allowed"
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
    text = {
        "errors": "of its requests ended in an error",
        "nulls": "nulls in a row",
        "unseen": "values in a row that its training never saw",
    }[name]
    if name == "errors":
        return f"errors: {theirs:.1%} {text}, {ours:.1%} of the champion's"
    return f"{name}: {theirs:.3g} {text}, {ours:.3g} for the champion"


def quantile(counts: Sequence[int], edges: Sequence[float], share: float) -> float:
    """Return the upper edge of the bucket that holds a quantile; twice the last edge if it lies beyond."""
    rank, seen = share * sum(counts), 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= rank and seen:
            return edges[index] if index < len(edges) else 2 * edges[-1]
    return 0.0


def psi(expected: Sequence[tuple[str, int]], actual: Sequence[tuple[str, int]]) -> tuple[float, float]:
    """Return the population stability index of two counts by bucket, and twice its expected value under chance alone.

    Without a change that expectation is about (buckets - 1)(1/n + 1/m) (Yurdakul, 2018).
    """
    ours, theirs = dict(expected), dict(actual)
    n, m = sum(ours.values()), sum(theirs.values())
    if not n or not m:
        return 0.0, 0.0
    buckets = sorted({*ours, *theirs})
    index = population_stability(*([counts.get(name, 0) for name in buckets] for counts in (ours, theirs)))
    return index, 2 * (len(buckets) - 1) * (1 / n + 1 / m)
