"""Small charts as SVG inside of a page: no script, no image, coloured by the page's own style, light or dark.

Every chart says in words, as its accessible name, what it shows. Names from the data are escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

Points = Sequence[tuple[float, float]]

_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 30, 46
"""The room around the axes, in the units of the drawing."""


@dataclass(frozen=True)
class Scale:
    """Where values lie between two ends: 0 at `low`, 1 at `high`; by their logarithm where that is told better."""

    low: float
    high: float
    logarithmic: bool = False
    times: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, at an end where it is beyond it."""
        low, high, value = (math.log(one) if self.logarithmic else one for one in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Return round values between the ends, with how they are written."""
        if self.times:
            steps = [self.low + (self.high - self.low) * part / 3 for part in range(4)]
            return [(step, f"{datetime.fromtimestamp(step, UTC):%Y-%m-%d}") for step in steps]
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            bases = (1, 2, 5) if self.high / self.low < 1_000 else (1,)
            round_ones = [base * 10.0**power for power in powers for base in bases]
        else:
            step = _step((self.high - self.low) / most)
            round_ones = [step * part for part in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [(one, _word(one)) for one in round_ones if self.low <= one <= self.high]


def scale_of(values: Sequence[float], *, maybe_logarithmic: bool = False, times: bool = False) -> Scale:
    """Return a scale with a little room around all of some values; logarithmic where they span a decade."""
    low, high = min(values), max(values)
    if maybe_logarithmic and low > 0 and high / low >= 8:
        return Scale(low / 1.05, high * 1.05, logarithmic=True)
    room = 0.03 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - room, high + room, times=times)


def scatter(points: Points, x: Scale, y: Scale, labels: tuple[str, str], said: str, diagonal: bool = False) -> Markup:
    """Return dots; `diagonal` draws where both values are the same, for which both scales must be."""
    line = _line([(x.low, x.low), (x.high, x.high)], x, y, "reference", 360) if diagonal else ""
    dots = Markup("").join(
        Markup('<circle class="dot" cx="{}" cy="{}" r="2.6"/>').format(*_place(one, x, y, 360)) for one in points
    )
    return _chart(Markup(line) + dots, x, y, labels, said, 360)


def curve(
    points: Points,
    x: Scale,
    y: Scale,
    labels: tuple[str, str],
    said: str,
    *,
    diagonal: bool = False,
    height: int = 260,
) -> Markup:
    """Return a line through points, each with a dot."""
    line = _line([(x.low, x.low), (x.high, x.high)], x, y, "reference", height) if diagonal else Markup("")
    dots = Markup("").join(
        Markup('<circle class="mark" cx="{}" cy="{}" r="3.5"/>').format(*_place(one, x, y, height)) for one in points
    )
    return _chart(line + _line(points, x, y, "line", height) + dots, x, y, labels, said, height)


def histogram(values: Sequence[float], label: str, said: str, most: int = 24) -> Markup:
    """Return how often values occur, by equal steps; what is far out is counted in the outermost steps."""
    ordered = sorted(values)
    edge = max(len(ordered) // 100, 0)
    low, high = ordered[edge], ordered[len(ordered) - 1 - edge]
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = [0] * most
    for value in ordered:
        counts[min(max(int((value - low) / (high - low) * most), 0), most - 1)] += 1
    x, y = Scale(low, high), Scale(0, max(counts) * 1.05)
    bars = Markup("")
    for place, count in enumerate(counts):
        left, top = _place((low + (high - low) * place / most, count), x, y, 260)
        right, bottom = _place((low + (high - low) * (place + 1) / most, 0), x, y, 260)
        bars += Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>').format(
            left, top, round(right - left - 1, 1), round(bottom - top, 1)
        )
    if low < 0 < high:
        bars += _line([(0, 0), (0, y.high)], x, y, "reference", 260)
    return _chart(bars, x, y, (label, "rows"), said, 260)


def dots(rows: Sequence[tuple[str, float]], x: Scale, label: str, said: str) -> Markup:
    """Return a line of the drawing for each name, with a dot where its value lies."""
    left, right, height = 150, 480 - _RIGHT, 24 * len(rows) + _BOTTOM
    inside = Markup("")
    for place, (name, value) in enumerate(rows):
        across, down = round(left + x.at(value) * (right - left), 1), 24 * place + 12
        short = name if len(name) <= 18 else f"{name[:17]}…"
        inside += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, right, down, down)
        inside += Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(left - 8, down + 4, short)
        inside += Markup('<circle class="mark" cx="{}" cy="{}" r="4.5"/>').format(across, down)
    for value, word in _apart([(left + x.at(value) * (right - left), word) for value, word in x.ticks(4)]):
        inside += Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(value, height - 26, word)
    inside += Markup('<text x="{}" y="{}" text-anchor="middle" class="label">{}</text>').format(
        (left + right) / 2, height - 6, label
    )
    return _svg(inside, said, height)


def whiskers(low: float, middle: float, high: float, said: str) -> Markup:
    """Return an interval around a value, with a line at zero."""
    ends = scale_of([low, high, 0.0])

    def across(value: float) -> float:
        return round(10 + ends.at(value) * 460, 1)

    inside = Markup('<line class="reference" x1="{0}" x2="{0}" y1="2" y2="26"/>').format(across(0.0))
    inside += Markup('<line class="line" x1="{}" x2="{}" y1="14" y2="14"/>').format(across(low), across(high))
    for end in (low, high):
        inside += Markup('<line class="line" x1="{0}" x2="{0}" y1="9" y2="19"/>').format(across(end))
    inside += Markup('<circle class="mark" cx="{}" cy="14" r="4.5"/>').format(across(middle))
    return _svg(inside, said, 28)


def _chart(inside: Markup, x: Scale, y: Scale, labels: tuple[str, str], said: str, height: int) -> Markup:
    grid = Markup("")
    for value, word in y.ticks():
        _, down = _place((x.low, value), x, y, height)
        grid += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, 480 - _RIGHT, down, down)
        grid += Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_LEFT - 6, down + 4, word)
    for across, word in _apart([(_place((value, y.low), x, y, height)[0], word) for value, word in x.ticks()]):
        grid += Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            across, _TOP, height - _BOTTOM
        )
        grid += Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(across, height - _BOTTOM + 16, word)
    names = Markup('<text x="{}" y="{}" text-anchor="middle" class="label">{}</text>').format(
        (480 + _LEFT - _RIGHT) / 2, height - 6, labels[0]
    )
    names += Markup('<text x="0" y="14" class="label">{}</text>').format(labels[1])
    return _svg(grid + inside + names, said, height)


def _svg(inside: Markup, said: str, height: int) -> Markup:
    return Markup('<svg viewBox="0 0 480 {}" role="img" aria-label="{}">{}</svg>').format(height, said, inside)


def _place(point: tuple[float, float], x: Scale, y: Scale, height: int) -> tuple[float, float]:
    across = _LEFT + x.at(point[0]) * (480 - _LEFT - _RIGHT)
    down = height - _BOTTOM - y.at(point[1]) * (height - _BOTTOM - _TOP)
    return round(across, 1), round(down, 1)


def _line(points: Points, x: Scale, y: Scale, kind: str, height: int) -> Markup:
    places = " ".join(f"{across},{down}" for across, down in (_place(one, x, y, height) for one in points))
    return Markup('<polyline class="{}" points="{}"/>').format(kind, places)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the ticks but for those whose words would lie on the one before."""
    kept: list[tuple[float, str]] = []
    free = -math.inf
    for across, word in ticks:
        if across - 4 * len(word) >= free:
            kept.append((round(across, 1), word))
            free = across + 4 * len(word) + 8
    return kept


def _word(value: float) -> str:
    """Return a value as a tick says it: grouped from ten thousand up, since a year is not."""
    return f"{value:,.10g}" if abs(value) >= 10_000 else f"{value:.10g}"


def _step(rough: float) -> float:
    """Return the least round step that is at least so much."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(base * power for base in (1, 2, 5, 10) if base * power >= rough * 0.999)
