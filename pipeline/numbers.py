"""Numbers as people read them."""

import math


def number(value: float | None) -> str:
    """Return a value with four significant digits; whole and grouped from a thousand up; `undefined` without one."""
    if value is None or not math.isfinite(value):
        return "undefined"
    if 1e-7 <= abs(value) < 1e-4:
        # Where Python would write 8.074e-05.
        return f"{value:.{3 - math.floor(math.log10(abs(value)))}f}".rstrip("0")
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e15 else f"{value:.4g}"


def compared(difference: float, greater_is_better: bool) -> str:
    """Say a difference of a metric, one less another, as so much better or worse."""
    if difference == 0:
        return "no worse"
    return f"{number(abs(difference))} {'better' if (difference > 0) == greater_is_better else 'worse'}"


def signed(value: float) -> str:
    """Return a difference with its sign, if it is any, digits as in `number`."""
    return f"{'+' if value > 0 else ''}{number(value)}"
