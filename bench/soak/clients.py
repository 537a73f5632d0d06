"""Clients that ask all the time, as JSON, as CSV and sometimes wrongly: `python clients.py PORT REPORT ASKED`.

ASKED is a JSON file with the bodies. Each answer is a line of JSON in REPORT: when its request was begun and answered,
what was asked, the status (or the name of the error) and the release. No request is ever repeated. SIGTERM ends it.
"""

import asyncio
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

CLIENTS = 8
RETRY_INTERVAL = 0.05
REQUEST_TIMEOUT = 70.0
"""Longer than a server may take; what is not answered by then is lost."""

over: list[bool] = []


async def client(number: int, port: int, asked: dict[str, Any], report: TextIO) -> None:
    """Ask until it is over; the odd ones keep their connection."""
    reader = writer = None
    keep = number % 2 == 1
    while not over:
        kind = random.choices(["json", "csv", "wrong"], [8, 2, 1])[0]
        media, body = asked[kind]["media"], asked[kind]["body"].encode()
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        request = (head + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + body
        begun = time.time()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")  # type: ignore[union-attr]
                lines = answer.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                await reader.readexactly(int(headers["content-length"]))  # type: ignore[union-attr]
            status, release = lines[0].split(" ", 2)[1], headers.get("evergreen-release", "none")
            close = not keep or headers.get("connection") == "close"
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            status, release, close = type(error).__name__, "none", True
        report.write(json.dumps([begun, time.time(), kind, status, release]) + "\n")
        if close and writer is not None:
            writer.close()
            writer = None
        await asyncio.sleep(RETRY_INTERVAL * random.uniform(0.5, 1.5))


async def main(port: int, path: Path, asked: dict[str, Any]) -> None:
    """Run the clients side by side."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.append, True)
    with path.open("w", buffering=1) as report:
        await asyncio.gather(*(client(number, port, asked, report) for number in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())))
