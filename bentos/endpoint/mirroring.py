"""A share of the requests answered by another release's worker, over a socket of this machine."""

import asyncio
import csv
import io
import json
import logging
from dataclasses import dataclass
from typing import Any

from bentos.canary import ShadowDiff, compare_predictions

FORWARD_TIMEOUT = 10.0
MAX_COPIES = 8
"""How many copies may be under way at once."""

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

    def selects(self) -> bool:
        """Tell whether the next request goes there; evenly spread."""
        self._credit += self.share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    async def forward(self, media: str, body: bytes, request: bytes) -> Forwarded | None:
        """Return the other worker's answer, or None where it has none or a server's error."""
        # Imported here: only servers with a canary need it.
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=FORWARD_TIMEOUT)
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

    def observe(self, media: str, body: bytes, request: bytes, answer: bytes) -> None:
        """Note what was answered here to a request; a canary does not care."""

    async def close(self) -> None:
        """End its connections."""
        if self._session is not None:
            await self._session.close()


class Shadow(Route):
    """Where a copy of a share of the requests goes, after they were answered here; its answers are only compared."""

    def __init__(self, path: str, share: float) -> None:
        super().__init__(path, share)
        self.found = ShadowDiff()
        self._under_way: set[asyncio.Task[None]] = set()

    def selects(self) -> bool:
        """Tell that no request goes there itself."""
        return False

    def observe(self, media: str, body: bytes, request: bytes, answer: bytes) -> None:
        """Send a copy of a request that was answered here, unless so many are under way that it is too slow."""
        if super().selects() and len(self._under_way) < MAX_COPIES:
            task = asyncio.get_running_loop().create_task(self._compare(media, body, request, answer))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _compare(self, media: str, body: bytes, request: bytes, answer: bytes) -> None:
        theirs = await self.forward(media, body, request)
        if theirs is None:
            return
        if theirs.status != 200:
            # It refuses what the champion answers.
            self.failed += 1
            return
        # Large ones take long to read, and others wait for their answers.
        self.found += await asyncio.to_thread(_differences, media, answer, theirs.body)


def _differences(media: str, ours: bytes, theirs: bytes) -> ShadowDiff:
    return compare_predictions(_predictions(media, ours), _predictions(media, theirs))


def _predictions(media: str, body: bytes) -> list[Any]:
    if media == "text/csv":
        return [row["prediction"] for row in csv.DictReader(io.StringIO(body.decode()))]
    found: list[Any] = json.loads(body)["predictions"]
    return found
