"""The operations on timestamps at run time: parts of the calendar and differences, as in pandas.

A timestamp is a number here: microseconds since 1970 in UTC, NaN if missing. A float64 is exact for all of them from
1684 to 2255; the estimator predicts rows with others.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.compiled.plan import Array, Run, UnanswerableError, operation

MAX_EXACT = 2.0**53
"""From here on a float64 cannot represent every microsecond."""
SECOND = 1_000_000
DAY = 86_400 * SECOND


class Moments:
    """Whole microseconds since 1970, split into the parts of the calendar by NumPy's dates."""

    def __init__(self, microseconds: Array) -> None:
        self.day, self.time = np.divmod(microseconds, DAY)
        month = self.day.view("datetime64[D]").astype("datetime64[M]")
        year = month.astype("datetime64[Y]")
        self.month, self.year = month.astype(np.int64) % 12 + 1, year.astype(np.int64) + 1970
        self.day_of_month = self.day - _days(month) + 1
        self.day_of_year = self.day - _days(year) + 1
        self.days_in_month = _days(month + 1) - _days(month)
        self.days_in_year = _days(year + 1) - _days(year)
        # 1 January 1970 was a Thursday; Monday is 0.
        self.day_of_week = (self.day + 3) % 7

    def week(self) -> Array:
        """Return the week of ISO 8601: which Thursday of its year the Thursday of this week is."""
        thursday = self.day - self.day_of_week + 3
        return (thursday - _days(thursday.view("datetime64[D]").astype("datetime64[Y]"))) // 7 + 1


def _days(starts: Array) -> Array:
    """Return the first days of months or years, counted from 1970."""
    return starts.astype("datetime64[D]").astype(np.int64)


def _month_end(m: Moments) -> Array:
    return m.day_of_month == m.days_in_month


def _month_start(m: Moments) -> Array:
    return m.day_of_month == 1


Part = tuple[Callable[[Moments], Array], float | None]
"""The function of a part, and its value for a missing timestamp (None: refused)."""

PARTS: Mapping[str, Part] = {
    "month": (lambda m: m.month, np.nan),
    "quarter": (lambda m: (m.month + 2) // 3, np.nan),
    "semester": (lambda m: (m.month + 5) // 6, 2.0),
    "year": (lambda m: m.year, np.nan),
    "week": (Moments.week, None),
    "day_of_week": (lambda m: m.day_of_week, np.nan),
    "day_of_month": (lambda m: m.day_of_month, np.nan),
    "day_of_year": (lambda m: m.day_of_year, np.nan),
    "weekend": (lambda m: m.day_of_week >= 5, 1.0),
    "month_start": (_month_start, 0.0),
    "month_end": (_month_end, 0.0),
    "quarter_start": (lambda m: _month_start(m) & (m.month % 3 == 1), 0.0),
    "quarter_end": (lambda m: _month_end(m) & (m.month % 3 == 0), 0.0),
    "year_start": (lambda m: m.day_of_year == 1, 0.0),
    "year_end": (lambda m: m.day_of_year == m.days_in_year, 0.0),
    "leap_year": (lambda m: m.days_in_year == 366, 0.0),
    "days_in_month": (lambda m: m.days_in_month, None),
    "hour": (lambda m: m.time // (3_600 * SECOND), np.nan),
    "minute": (lambda m: m.time // (60 * SECOND) % 60, np.nan),
    "second": (lambda m: m.time // SECOND % 60, np.nan),
}
"""By feature-engine's names."""


@operation("calendar")
def calendar(parts: Sequence[str]) -> Run:
    """The parts of every column, side by side: shape (rows, columns times parts)."""
    chosen = [PARTS[part] for part in parts]
    strict = any(missing is None for _, missing in chosen)

    def run(x: Array) -> Array:
        moments, missing = _whole(x)
        if strict and missing.any():
            raise UnanswerableError("a part of the calendar has no value for a missing timestamp")
        calendar_of = Moments(moments)
        out = np.empty((*x.shape, len(chosen)))
        for place, (part, otherwise) in enumerate(chosen):
            out[:, :, place] = part(calendar_of)
            if otherwise is not None:
                out[missing, place] = otherwise
        return out.reshape(len(x), -1)

    return run


@operation("elapsed")
def elapsed(left: Sequence[int], right: Sequence[int], nanoseconds: int) -> Run:
    """Some columns minus others, in units of this many nanoseconds."""

    def run(x: Array) -> Array:
        moments, missing = _whole(x)
        difference = moments[:, left] - moments[:, right]
        # Beyond 292 years, pandas' count of nanoseconds overflows.
        if (np.abs(difference) > np.iinfo(np.int64).max // 1000).any():
            raise UnanswerableError("timestamps are too far apart")
        return np.where(missing[:, left] | missing[:, right], np.nan, difference * 1000 / nanoseconds)

    return run


def _whole(x: Array) -> tuple[Array, Array]:
    """Return microseconds as whole numbers, 0 if missing, and a mask of the missing ones."""
    if (np.abs(x) >= MAX_EXACT).any():
        raise UnanswerableError("a timestamp is too far from 1970")
    missing = np.isnan(x)
    return np.where(missing, 0.0, x).astype(np.int64), missing
