"""What a run is doing: each step announced when it begins and, with its seconds and a few words, when it ends."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """A step of a run: under way while `seconds` is None, then with what came out of it in a few words."""

    name: str
    seconds: float | None = None
    passed: bool = True
    summary: str = ""


@dataclass(frozen=True)
class RowProgress:
    """How many rows a step has done, of how many, where that is known, and what is to be said of them."""

    done: int
    total: int | None
    summary: str = ""


LISTENER: ContextVar[Callable[[Any], None] | None] = ContextVar("LISTENER", default=None)
"""Who is told of the steps of the runs in this context, and of the rows of a step that counts them."""


def timed(name: str, seconds: dict[str, float], work: Callable[..., Result], *args: Any) -> Result:
    """Do a step's work and return its result, its time put into `seconds`, the listener told."""
    tell = LISTENER.get() or (lambda _: None)
    tell(Step(name))
    started = time.perf_counter()
    try:
        result = work(*args)
    except BaseException as error:
        seconds[name] = round(time.perf_counter() - started, 3)
        tell(Step(name, seconds[name], False, str(error)))
        raise
    seconds[name] = round(time.perf_counter() - started, 3)
    if LISTENER.get():
        from flows.summaries import summarize

        tell(Step(name, seconds[name], getattr(result, "passed", True), summarize(result)))
    return result
