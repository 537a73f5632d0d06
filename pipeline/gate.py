"""Evaluation in, verdict out: may this challenger be released?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from pipeline.evaluate import Evaluation, Interval, Slice
from pipeline.format_numbers import format_number, format_signed
from pipeline.spec import Gate


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes:
        passed: whether the challenger meets it.
        sentence: the condition with its numbers, for people.
    """

    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate.

    Attributes:
        passed: whether the challenger may be released.
        checks: every condition, those that were not met first.
    """

    passed: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the conditions that refused it, or, if it passed, of all conditions."""
        return tuple(check.sentence for check in self.checks if check.passed == self.passed)

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{'✓' if check.passed else '✗'} {escape(check.sentence)}</li>" for check in self.checks)
        return f"<p><b>{'passed' if self.passed else 'refused'}</b></p><ul>{rows}</ul>"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {**asdict(self), "reasons": list(self.reasons)}


def decide(evaluation: Evaluation, gate: Gate) -> Verdict:
    """Judge an evaluation against the threshold, the baseline and the champion, on all rows and on each slice.

    Against the baseline the whole interval must be on the better side. Against the champion its worse end may be worse
    by at most the tolerance. The first model has no champion to beat.
    """
    checks = [
        _threshold(evaluation, gate),
        _baseline(evaluation),
        *_champion(evaluation, gate),
    ]
    checks.sort(key=lambda check: check.passed)
    return Verdict(all(check.passed for check in checks), tuple(checks))


def _threshold(evaluation: Evaluation, gate: Gate) -> Check:
    metric, value = evaluation.metric, evaluation.challenger.get(evaluation.metric)
    bound, limit = ("at least", gate.at_least) if evaluation.greater_is_better else ("at most", gate.at_most)
    assert limit is not None
    if value is None:
        return Check(
            False,
            f"{metric} of the challenger is undefined on {evaluation.rows:,} held-out rows",
        )
    passed = value >= limit if evaluation.greater_is_better else value <= limit
    sign = ("is" if passed else "is not") + f" {bound}"
    return Check(
        passed,
        f"{metric} {format_number(value)} {sign} the threshold {format_number(limit)}, "
        f"on {evaluation.rows:,} held-out rows",
    )


def _baseline(evaluation: Evaluation) -> Check:
    metric, interval = evaluation.metric, evaluation.against_baseline
    if interval is None:
        return Check(
            False,
            f"{metric} of challenger and baseline cannot be compared on {evaluation.rows:,} held-out rows",
        )
    passed = _worse_end(interval, evaluation.greater_is_better) < 0
    numbers = _numbers(evaluation.challenger, evaluation.baseline, evaluation, interval)
    return Check(
        passed,
        f"{'better' if passed else 'not surely better'} than always guessing: {numbers}",
    )


def _champion(evaluation: Evaluation, gate: Gate) -> Iterator[Check]:
    if evaluation.champion_release is None:
        return
    name, interval = (
        f"the champion, release {evaluation.champion_release}",
        evaluation.against_champion,
    )
    if evaluation.champion is None or interval is None:
        why = evaluation.incomparable or f"its {evaluation.metric} is undefined on these rows"
        way_out = "run `evergreen retire` on the model to judge the next challenger as the first one"
        yield Check(False, f"not compared with {name}: {why}; {way_out}")
        return
    worse = _worse_end(interval, evaluation.greater_is_better)
    passed = worse <= gate.tolerance
    numbers = _numbers(evaluation.challenger, evaluation.champion, evaluation, interval)
    yield Check(
        passed,
        f"{'not worse than' if passed else 'may be worse than'} {name}: {numbers}; the worse end of the interval is "
        f"{format_number(abs(worse))} {'worse' if worse >= 0 else 'better'}, "
        f"tolerance {format_number(gate.tolerance)}",
    )
    for part in evaluation.slices:
        if part.interval is None:
            continue
        if _better_end(part.interval, evaluation.greater_is_better) > gate.slice_tolerance:
            yield Check(False, _slice_sentence(part, part.interval, evaluation, gate))


def _slice_sentence(part: Slice, interval: Interval, evaluation: Evaluation, gate: Gate) -> str:
    return (
        f"worse than the champion, release {evaluation.champion_release}, if {part.column} is {part.value} "
        f"({part.rows:,} rows): {evaluation.metric} {format_number(part.challenger)} "
        f"against {format_number(part.champion)}, "
        f"{_percent(interval)} interval {format_signed(interval.low)} to {format_signed(interval.high)}, "
        f"slice tolerance {format_number(gate.slice_tolerance)}"
    )


def _worse_end(interval: Interval, greater_is_better: bool) -> float:
    """Return how much worse than the other the challenger is at the worse end; negative if it is better even there."""
    return -interval.low if greater_is_better else interval.high


def _better_end(interval: Interval, greater_is_better: bool) -> float:
    return -interval.high if greater_is_better else interval.low


def _numbers(
    challenger: dict[str, float | None],
    other: dict[str, float | None],
    evaluation: Evaluation,
    interval: Interval,
) -> str:
    metric = evaluation.metric
    ends = f"{format_signed(interval.low)} to {format_signed(interval.high)}"
    return (
        f"{metric} {format_number(challenger[metric])} against {format_number(other[metric])}, "
        f"difference {format_signed(interval.difference)}, {_percent(interval)} interval {ends}"
    )


def _percent(interval: Interval) -> str:
    return f"{interval.confidence * 100:.4g}%"
