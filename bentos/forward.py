"""A share of the requests answered by another release's worker, over a socket of this machine."""

import logging
from dataclasses import dataclass
from typing import Any

FORWARD_SECONDS = 10.0

logger = logging.getLogger("evergreen")


@dataclass(frozen=True)
class Forwarded:
    """What the other worker answered."""

    status: int
    media: bytes
    body: bytes
    release: bytes
    headers: dict[str, str]


class Route:
    """Where a share of the requests goes. What fails there is answered here: nobody is refused for a canary's sake."""

    def __init__(self, path: str, share: float) -> None:
        self.path, self.share = path, share
        self.failed = 0
        self._credit = 0.0
        self._session: Any = None

    def takes(self) -> bool:
        """Tell whether the next request goes there; evenly spread."""
        self._credit += self.share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    async def ask(self, media: str, body: bytes, request: bytes) -> Forwarded | None:
        """Return the other worker's answer, or None where it has none or a server's error."""
        # Imported here: only servers with a canary need it.
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=FORWARD_SECONDS)
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.path), timeout=timeout)
        headers = {"Content-Type": media, "X-Request-ID": request.decode()}
        try:
            async with self._session.post("http://canary/predict", data=body, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failed += 1
            logger.warning("request %s: the canary did not answer (%s)", request.decode(), type(error).__name__)
            return None
        if response.status >= 500 or response.status == 429:
            self.failed += 1
            return None
        return Forwarded(
            response.status,
            response.headers.get("Content-Type", "").encode(),
            answer,
            response.headers.get("Evergreen-Release", "none").encode(),
            {name: response.headers[name] for name in ("Allow", "Retry-After") if name in response.headers},
        )

    async def close(self) -> None:
        """End its connections."""
        if self._session is not None:
            await self._session.close()
