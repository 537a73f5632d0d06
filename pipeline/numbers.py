"""Numbers as people read them."""

import math


def number(value: float | None) -> str:
    """Return a value with four significant digits; whole and grouped from a thousand up; `undefined` without one."""
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e15 else f"{value:.4g}"


def signed(value: float) -> str:
    """Return a difference with its sign, digits as in `number`."""
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.4g}"
