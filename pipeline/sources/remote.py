"""Remote files: fetched whole into a local folder first, so that they cannot change or break off while being read.

HTTP goes through httpx, everything else through fsspec. An address names secrets as `${NAME}`, taken from the
environment. Credentials of object storage are where its own tools look for them, such as AWS_ACCESS_KEY_ID.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline.errors import SourceError
from pipeline.sources import retry
from pipeline.sources.columns import first_line
from pipeline.sources.retry import redact, retries_exhausted, with_retries

if TYPE_CHECKING:
    import httpx

Result = TypeVar("Result")

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
"""Seconds without a byte after which a try fails."""
_BLOCK = 2**20
_RETRYABLE_STATUS = (408, 425, 429, 500, 502, 503, 504)


def addresses(pattern: str) -> list[str]:
    """Return the addresses that a pattern names, in order, with `${NAME}` unchanged; SourceError if there are none."""
    protocol = pattern.partition("://")[0]
    if not re.search(r"[*?\[]", pattern) or protocol in ("http", "https"):
        return [pattern]
    if "${" in pattern:
        raise SourceError(
            f"{pattern}: a pattern cannot have ${{...}} in it; name the files, or leave it out",
            code="source.variable_in_pattern",
        )

    def listed() -> list[str]:
        system = _system(protocol)
        return sorted(system.unstrip_protocol(path) for path in system.glob(pattern))

    if matches := with_retries(lambda: _with_source_errors(pattern, (), listed)):
        return matches
    raise SourceError(
        f"nothing matches {pattern!r}; check the pattern and the credentials", code="source.no_matching_file"
    )


def fetch(address: str, target: Path) -> None:
    """Download an address to a file. Raises SourceError, without secrets, if all retries fail."""
    url, secrets = _filled(address)
    get = _get if address.startswith(("http://", "https://")) else _copy
    with_retries(lambda: _with_source_errors(address, secrets, lambda: get(url, target, secrets)))


def fingerprint(address: str, known: str | None) -> str | None:
    """Return a fingerprint of the content at an address: its strong ETag; None without one.

    With HTTP, one conditional request asks whether the `known` ETag still holds. There is no retry.
    """
    url, secrets = _filled(address)
    tag = _tag if address.startswith(("http://", "https://")) else _object_tag
    return _with_source_errors(address, secrets, lambda: tag(url, known, secrets))


def _tag(url: str, known: str | None, secrets: list[str]) -> str | None:
    headers = {"If-None-Match": known} if known else {}
    with _client(url, secrets) as (client, plain), client.stream("GET", plain, headers=headers) as response:
        if response.status_code == 304:
            return known
        tag = str(response.headers.get("ETag", ""))
        # A weak ETag, W/"...", does not promise the same bytes.
        return tag if response.status_code == 200 and tag.startswith('"') else None


def _object_tag(url: str, _known: str | None, _secrets: list[str]) -> str | None:
    info = _info(_system(url.partition("://")[0]), url)
    return f"{info['ETag']} {info['size']}" if info.get("ETag") and info.get("size") is not None else None


def _filled(address: str) -> tuple[str, list[str]]:
    """Return an address with the values of its environment variables, percent-encoded, and the list of values."""
    secrets = []

    def value(match: re.Match[str]) -> str:
        if (secret := os.environ.get(match[1])) is None:
            raise SourceError(
                f"{address}: {match[1]} is not set in the environment; set it", code="source.variable_not_set"
            )
        secrets.append(secret)
        return quote(secret, safe="")

    return re.sub(r"\$\{(\w+)\}", value, address), secrets


def _get(url: str, target: Path, secrets: list[str]) -> None:
    end = time.monotonic() + retry.RETRY_DEADLINE
    with _client(url, secrets) as (client, plain), client.stream("GET", plain) as response:
        status = response.status_code
        if status in _RETRYABLE_STATUS:
            raise ConnectionError(f"the server answered {status} {response.reason_phrase}")
        if status != 200:
            raise SourceError(f"the server answered {status} {response.reason_phrase}", code="source.http_status")
        with target.open("wb") as file:
            for block in response.iter_bytes(_BLOCK):
                file.write(block)
                if time.monotonic() > end:
                    raise TimeoutError(f"the download is not complete after {retry.RETRY_DEADLINE:.0f} s")


@contextmanager
def _client(url: str, secrets: list[str]) -> Iterator[tuple["httpx.Client", str]]:
    """Yield a client and the address without user and password.

    They travel in a header instead, because httpx logs addresses.
    """
    import httpx

    class Redacted(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg, record.args = redact(record.getMessage(), secrets), ()
            return True

    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    auth = httpx.URL(url).userinfo and httpx.BasicAuth(httpx.URL(url).username, httpx.URL(url).password)
    timeout = httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
    log, redacted = logging.getLogger("httpx"), Redacted()
    log.addFilter(redacted)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=True, auth=auth or None) as client:
            client.headers["Accept-Encoding"] = "identity"
            yield client, plain
    finally:
        log.removeFilter(redacted)


def _copy(url: str, target: Path, _secrets: list[str]) -> None:
    system = _system(url.partition("://")[0])
    before = _info(system, url)
    system.get_file(url, str(target))
    if _info(system, url) != before or target.stat().st_size != before.get("size", target.stat().st_size):
        raise ConnectionError("it changed while it was read")


def _info(system: Any, url: str) -> dict[str, Any]:
    system.invalidate_cache()
    info = system.info(url)
    return {name: info[name] for name in ("ETag", "size", "LastModified", "mtime") if name in info}


def _system(protocol: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        timeouts = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT, "retries": {"max_attempts": 1}}
        options["config_kwargs"] = timeouts
    try:
        return fsspec.filesystem(protocol, **options)
    except (ImportError, ValueError) as error:
        raise SourceError(
            f"nothing installed reads {protocol}:// ({first_line(error)}); install its fsspec package, or use https://",
            code="source.unsupported_protocol",
        ) from None


def _with_source_errors(address: str, secrets: Sequence[str], work: Callable[[], Result]) -> Result:
    """Return the result of `work`; turn its failure into a SourceError that names the address, without secrets.

    A failure that may be temporary becomes RetriesExhaustedError.
    """
    try:
        return work()
    except SourceError as error:
        broken = SourceError(redact(f"{address} could not be read: {error}", secrets), code=error.code)
    except (FileNotFoundError, PermissionError) as error:
        broken = SourceError(
            redact(f"{address} could not be read: {first_line(error)}; check the path and the credentials", secrets),
            code="source.unreadable",
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        broken = retries_exhausted(f"{address} could not be read: {first_line(error)}", error, secrets)
    # Outside the handlers, or the traceback of the caught error could show the secrets.
    raise broken
