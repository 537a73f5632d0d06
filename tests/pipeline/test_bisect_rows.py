"""Rows that make a function raise are found by halving, and the others are answered in few calls."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bisect_rows import Answered, Refused, bisect_rows


def asking(bad, error=ValueError):
    """A function of rows that raises when any is bad, and the parts that it was asked for."""
    asked = []

    def ask(start, stop):
        asked.append((start, stop))
        if any(start <= row < stop for row in bad):
            raise error
        return [*range(start, stop)]

    return ask, asked


@given(st.integers(0, 70), st.sets(st.integers(0, 69)))
def test_every_row_is_answered_or_refused_once_and_in_order(rows, bad):
    ask, _ = asking(bad)
    found = []
    for part in bisect_rows(ask, rows):
        found += [part.row] if isinstance(part, Refused) else part.result
        assert isinstance(part, Refused) == (found[-1] in bad)
    assert found == [*range(rows)]


def test_rows_that_are_all_good_are_asked_once():
    ask, asked = asking(set())
    assert [*bisect_rows(ask, 1000)] == [Answered(0, 1000, [*range(1000)])]
    assert asked == [(0, 1000)]


def test_one_bad_row_costs_two_calls_for_each_halving():
    ask, asked = asking({777})
    (refused,) = [part for part in bisect_rows(ask, 1024) if isinstance(part, Refused)]
    assert (refused.row, type(refused.error)) == (777, ValueError)
    assert len(asked) == 1 + 2 * math.log2(1024)


def test_who_takes_only_the_first_refusals_asks_for_no_more():
    ask, asked = asking({0, 900})
    assert isinstance(next(bisect_rows(ask, 1000)), Refused)
    assert all(start == 0 for start, _ in asked)


def test_an_error_that_says_nothing_of_rows_is_raised_at_once():
    ask, asked = asking({3}, MemoryError)
    with pytest.raises(MemoryError):
        [*bisect_rows(ask, 10, fatal=(MemoryError,))]
    with pytest.raises(MemoryError):
        [*bisect_rows(ask, 10, refusal=ValueError)]
    assert asked == [(0, 10)] * 2
