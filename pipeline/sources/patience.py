"""What fails over a network is tried again, with growing pauses and an end; what is said about it holds no secret."""

import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import quote, quote_plus, unquote

from pipeline.errors import SourceError
from pipeline.sources.columns import first_line

Result = TypeVar("Result")

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds between one try and the next; there is one try more than there are pauses."""
LIMIT = 900.0
"""No try is begun after so many seconds."""


class UnansweredError(SourceError):
    """A source failed in a way that may heal by itself."""


def patiently(work: Callable[[], Result]) -> Result:
    """Return what `work` returns; it is tried again when it raises UnansweredError, until patience is at its end."""
    end = time.monotonic() + LIMIT
    for pause in PAUSES:
        try:
            return work()
        except UnansweredError:
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
    return work()


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text with every secret, however it was quoted, replaced by ***, and passwords in addresses too."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), unquote(secret)}:
            if form:
                text = text.replace(form, "***")
    return re.sub(r"(?<=://)[^/\s:@]*:[^/\s@]*(?=@)", "***", text)


def unanswered(message: str, error: Exception, secrets: Iterable[str] = ()) -> UnansweredError:
    """Return the error that a source did not answer; its cause is told without secrets, in one line.

    It is to be raised outside of the block that caught `error`: what a traceback shows would hold them otherwise.
    """
    found = UnansweredError(without(message, secrets))
    found.__cause__ = ConnectionError(without(f"{type(error).__name__}: {first_line(error)}"[:500], secrets))
    return found
