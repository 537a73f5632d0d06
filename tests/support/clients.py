"""Clients that ask a server all the time: `python clients.py PORT SECONDS KEPT RECONNECTING BODY [PAUSE]`.

Some keep their connection until they are asked to close it, the others make a new one for every request. No request is
ever repeated: what is not answered with a 200 has failed. When the time is over, or on SIGTERM, they print a report as
JSON: of each request when it was begun and answered, its status, and the release that answered.
"""

import asyncio
import json
import random
import signal
import sys
import time

over = []
"""Not empty once they were told to end."""


async def client(port, body, keep, until, pause, report):
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request = (head + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + body
    reader = writer = None
    while time.time() < until and not over:
        begun = time.time()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in answer.decode().lower().split("\r\n")[1:] if ": " in line)
            await reader.readexactly(int(headers["content-length"]))
            status, release = answer.split(b" ", 2)[1].decode(), headers["evergreen-release"]
            close = not keep or headers.get("connection") == "close"
        except (OSError, asyncio.IncompleteReadError) as error:
            status, release, close = type(error).__name__, "none", True
        report.append((begun, time.time(), status, release))
        if close and writer is not None:
            writer.close()
            writer = None
        # Not all at once, for ever after.
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))


async def main(port, seconds, kept, reconnecting, body, pause=0.005):
    report = []
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.append, True)
    until = time.time() + seconds
    clients = [client(port, body, number < kept, until, pause, report) for number in range(kept + reconnecting)]
    await asyncio.gather(*clients)
    return report


if __name__ == "__main__":
    port, seconds, kept, reconnecting, body, *pause = sys.argv[1:]
    options = int(port), float(seconds), int(kept), int(reconnecting), body.encode(), *map(float, pause)
    print(json.dumps(asyncio.run(main(*options))))
