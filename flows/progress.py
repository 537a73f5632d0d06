"""The progress of a run: a listener gets an event when a step begins, and one with its time and summary at the end."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """A step of a run that began or ended.

    Attributes:
        name: the step.
        seconds: how long it took; None when it begins.
        passed: whether it succeeded.
        summary: its result in a few words, or its error.
    """

    name: str
    seconds: float | None = None
    passed: bool = True
    summary: str = ""


@dataclass(frozen=True)
class RowProgress:
    """How far a step is that counts rows.

    Attributes:
        done: the rows so far.
        total: all rows; None if unknown.
        summary: a text to print after the count.
    """

    done: int
    total: int | None
    summary: str = ""


LISTENER: ContextVar[Callable[[Any], None] | None] = ContextVar("LISTENER", default=None)
"""Is called with each `Step` and `RowProgress` of the runs in this context."""


def timed(name: str, seconds: dict[str, float], work: Callable[..., Result], *args: Any) -> Result:
    """Call `work` and return its result; put its time into `seconds`, and report start and end to the listener."""
    report = LISTENER.get() or (lambda _: None)
    report(Step(name))
    started = time.perf_counter()
    try:
        result = work(*args)
    except BaseException as error:
        seconds[name] = round(time.perf_counter() - started, 3)
        report(Step(name, seconds[name], False, str(error)))
        raise
    seconds[name] = round(time.perf_counter() - started, 3)
    if LISTENER.get():
        from flows.summaries import summarize

        report(Step(name, seconds[name], getattr(result, "passed", True), summarize(result)))
    return result
