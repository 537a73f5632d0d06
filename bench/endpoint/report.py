"""What was measured as ratios, verdicts and Markdown; no server and no clock is asked here."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One line of the first table: what is compared with what, one ratio per round, and what it should come to.

    Where `least` is None, only the moonshot is asked for.
    """

    work: str
    against: str
    ratios: tuple[float, ...]
    least: float | None
    moonshot: float
    less_is_better: bool = False


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Divide round by round, so that what slowed a whole round down slows both sides of a ratio."""
    return tuple(one / other for one, other in zip(ours, theirs, strict=True))


def verdict(target: Target) -> str:
    """Say whether the median ratio meets the target, or the moonshot, too."""
    if not target.ratios:
        return "not measured"

    def reached(limit: float) -> bool:
        middle = statistics.median(target.ratios)
        return middle <= limit if target.less_is_better else middle >= limit

    if reached(target.moonshot):
        return "moonshot"
    if target.least is None:
        return "not yet"
    return "met" if reached(target.least) else "**not met**"


def spread(values: Sequence[float]) -> str:
    """Return the median with the least and the greatest, as in `2.1x (1.9 to 2.4)`."""
    if not values:
        return "-"
    return f"{times(statistics.median(values))}x ({times(min(values))} to {times(max(values))})"


def times(value: float) -> str:
    """Return a ratio in as many digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a | within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def targets_table(targets: Sequence[Target]) -> str:
    """Return the first table: every target, what it came to, and whether that is enough."""
    rows = []
    for target in targets:
        sign = "at most " if target.less_is_better else ""
        limits = ["-" if limit is None else f"{sign}{limit:g}x" for limit in (target.least, target.moonshot)]
        rows.append([target.work, target.against, *limits, spread(target.ratios), verdict(target)])
    return table(["work", "against", "at least", "moonshot", "median (min to max)", ""], rows)
