"""The rows that make a function raise, found by halving: one bad row among n costs about 2 log2(n) calls more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answered(Generic[Result]):
    """Rows that were answered together.

    Attributes:
        start: The first of them.
        stop: The row behind the last of them.
        result: What the function returned for them.
    """

    start: int
    stop: int
    result: Result


@dataclass(frozen=True, slots=True)
class Refused:
    """A row for which the function raises even when it is asked for this row alone.

    Attributes:
        row: The row.
        error: What it raises.
    """

    row: int
    error: Exception


def bisect_rows(
    ask: Callable[[int, int], Result],
    rows: int,
    refusal: type[Exception] = Exception,
    fatal: tuple[type[Exception], ...] = (),
) -> Iterator[Answered[Result] | Refused]:
    """Ask for all rows at once, then for halves of what raised, and yield each part in the order of the rows.

    `ask` takes the first row of a part and the one behind its last. It is asked for no more parts than are taken.
    Raised is what is not a `refusal`, and what is `fatal` although it is one.

    >>> reciprocals = lambda start, stop: [1 / (row - 2) for row in range(start, stop)]
    >>> [part.row if isinstance(part, Refused) else part.result for part in bisect_rows(reciprocals, 4)]
    [[-0.5, -1.0], 2, [1.0]]
    """
    waiting = [(0, rows)] if rows else []
    while waiting:
        start, stop = waiting.pop()
        try:
            result = ask(start, stop)
        except fatal:
            raise
        except refusal as error:
            if stop - start == 1:
                yield Refused(start, error)
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
        else:
            yield Answered(start, stop, result)
