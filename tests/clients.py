"""Clients that ask a server all the time: `python clients.py PORT SECONDS KEPT RECONNECTING BODY`, a report as JSON.

Some keep their connection until they are asked to close it, the others make a new one for every request. No request is
ever repeated: what is not answered with a 200 has failed.
"""

import asyncio
import json
import sys
import time


async def client(port, body, keep, until, report):
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request = (head + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + body
    reader = writer = None
    while time.time() < until:
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
        await asyncio.sleep(0.005)


async def main(port, seconds, kept, reconnecting, body):
    report = []
    until = time.time() + seconds
    clients = [client(port, body, number < kept, until, report) for number in range(kept + reconnecting)]
    await asyncio.gather(*clients)
    return report


if __name__ == "__main__":
    port, seconds, kept, reconnecting = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print(json.dumps(asyncio.run(main(port, seconds, kept, reconnecting, sys.argv[5].encode()))))
