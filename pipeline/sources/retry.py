"""What fails over a network is tried again, with growing pauses and an end; what is said about it holds no secret."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from urllib.parse import quote, quote_plus, unquote

from pipeline.errors import SourceError
from pipeline.sources.columns import first_line

Result = TypeVar("Result")

BACKOFF = (1.0, 2.0, 4.0, 8.0)
"""Seconds between one try and the next while somebody waits: five tries, one more than there are pauses."""
SCHEDULED_PAUSES = (5.0, 30.0, 120.0, 600.0)
"""The same when nobody waits, as in a scheduled run: five tries, too, in 13 minutes."""
RETRY_DEADLINE = 900.0
"""No try is begun once the tries, without the pauses, have taken so many seconds."""
_SCHEDULED: ContextVar[bool] = ContextVar("scheduled", default=False)


class RetriesExhaustedError(SourceError):
    """A source failed in a way that may heal by itself, and was asked again: nobody else needs to."""


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Let what fails inside of the block be tried again after SCHEDULED_PAUSES."""
    token = _SCHEDULED.set(True)
    try:
        yield
    finally:
        _SCHEDULED.reset(token)


def with_retries(work: Callable[[], Result]) -> Result:
    """Return what `work` returns; retry it when it raises UnansweredError, five tries in all.

    This is the only layer that retries it: a run does not retry what raised UnansweredError.
    """
    spent = 0.0
    for pause in SCHEDULED_PAUSES if _SCHEDULED.get() else BACKOFF:
        started = time.monotonic()
        try:
            return work()
        except RetriesExhaustedError:
            spent += time.monotonic() - started
            if spent > RETRY_DEADLINE:
                raise
        time.sleep(pause)
    return work()


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with every secret, however it was quoted, replaced by ***, and passwords in addresses too."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), unquote(secret)}:
            if form:
                text = text.replace(form, "***")
    return re.sub(r"(?<=://)[^/\s:@]*:[^/\s@]*(?=@)", "***", text)


def retries_exhausted(message: str, error: Exception, secrets: Iterable[str] = ()) -> RetriesExhaustedError:
    """Return the error that a source did not answer; its cause is told without secrets, in one line.

    It is to be raised outside of the block that caught `error`: what a traceback shows would hold them otherwise.
    """
    found = RetriesExhaustedError(redact(message, secrets))
    found.__cause__ = ConnectionError(redact(f"{type(error).__name__}: {first_line(error)}"[:500], secrets))
    return found
