"""Network failures are retried with exponential backoff, up to a deadline; error messages hold no secrets."""

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
"""Seconds between two tries while somebody waits: five tries, one more than there are pauses."""
SCHEDULED_PAUSES = (5.0, 30.0, 120.0, 600.0)
"""The same if nobody waits, as in a scheduled run: five tries in 13 minutes."""
RETRY_DEADLINE = 900.0
"""Seconds: after the tries, without the pauses, took longer than this, there is no further try."""
_SCHEDULED: ContextVar[bool] = ContextVar("scheduled", default=False)


class RetriesExhaustedError(SourceError):
    """A source failed in a way that may be temporary, and all retries failed too: callers need not retry.

    Its code is `source.unreachable`.
    """


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Retry failures inside the block after SCHEDULED_PAUSES instead of BACKOFF."""
    token = _SCHEDULED.set(True)
    try:
        yield
    finally:
        _SCHEDULED.reset(token)


def with_retries(work: Callable[[], Result]) -> Result:
    """Return the result of `work`; retry when it raises RetriesExhaustedError, five tries in all.

    This is the only layer that retries: a run does not retry after RetriesExhaustedError.
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
    """Return the error for a source that does not respond; its cause is one line without secrets.

    Raise it outside the block that caught `error`, or the traceback would show the secrets.
    """
    exhausted = RetriesExhaustedError(redact(message, secrets), code="source.unreachable")
    exhausted.__cause__ = ConnectionError(redact(f"{type(error).__name__}: {first_line(error)}"[:500], secrets))
    return exhausted
