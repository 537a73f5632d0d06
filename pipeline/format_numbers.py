"""Numbers as people read them."""

import math
from collections.abc import Mapping


def format_number(value: float | None) -> str:
    """Return a value with four significant digits; whole and grouped from a thousand up; `undefined` without one."""
    if value is None or not math.isfinite(value):
        return "undefined"
    if 1e-7 <= abs(value) < 1e-4:
        # Where Python would write 8.074e-05.
        return f"{value:.{3 - math.floor(math.log10(abs(value)))}f}".rstrip("0")
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e15 else f"{value:.4g}"


def format_difference(difference: float, greater_is_better: bool) -> str:
    """Say a difference of a metric, one less another, as so much better or worse."""
    if difference == 0:
        return "no worse"
    return f"{format_number(abs(difference))} {'better' if (difference > 0) == greater_is_better else 'worse'}"


def format_signed(value: float) -> str:
    """Return a difference with its sign, if it is any, digits as in `format_number`."""
    return f"{'+' if value > 0 else ''}{format_number(value)}"


def format_times(times: int) -> str:
    """Say how often something is done.

    >>> format_times(1), format_times(3)
    ('once', '3 times over')
    """
    return "once" if times == 1 else f"{times} times over"


def describe_fitted_rows(rows: Mapping[str, int]) -> str:
    """Say how many rows a model was fitted on, and which, from what a manifest says of its rows.

    >>> describe_fitted_rows({"training": 60, "holdout": 80, "sampled_from": 320})
    '60 rows, a stratified sample of 320'
    >>> describe_fitted_rows({"training": 320, "holdout": 80, "epochs": 2, "compared_on": 60})
    '320 rows in batches, 2 times over (chosen, and its transformers fitted, on a stratified sample of 60)'
    """
    said = f"{rows['training']:,} row{'' if rows['training'] == 1 else 's'}"
    if epochs := rows.get("epochs"):
        said += f" in batches, {format_times(epochs)}"
        if rows["compared_on"] < rows["training"]:
            sample = f"a stratified sample of {rows['compared_on']:,}"
            said += f" (chosen, and its transformers fitted, on {sample})"
    return said + (f", a stratified sample of {rows['sampled_from']:,}" if rows.get("sampled_from") else "")
