"""The load: wrk on a core of its own, sending one body after the other from a folder of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")
SERVERS_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True)
class Measured:
    """What one measurement found: requests a second, latencies in milliseconds, and how many were answered at all."""

    rate: float
    median_ms: float
    p99_ms: float
    requests: int


@dataclass(frozen=True)
class Bodies:
    """A folder of request bodies, named 1, 2, 3 and so on, all of one media type."""

    media: str
    folder: Path
    count: int


def write_bodies(media: str, bodies: Sequence[bytes], folder: Path) -> Bodies:
    """Write bodies as `load.lua` reads them."""
    folder.mkdir(parents=True)
    for number, body in enumerate(bodies, start=1):
        (folder / str(number)).write_bytes(body)
    return Bodies(media, folder, len(bodies))


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that keeps to one core, where there is taskset and more than one core to choose from."""
    if shutil.which("taskset") and (os.cpu_count() or 1) > 1:
        return ["taskset", "--cpu-list", str(core), *command]
    return [*command]


def load(url: str, bodies: Bodies, connections: int, seconds: float) -> Measured:
    """Send bodies over so many connections for so long; RuntimeError unless every answer came and was a 2xx."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("there is no wrk here: install wrk (on Debian: apt install wrk)")
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    command = [wrk, *options, "--timeout", "30s", "--script", str(SCRIPT), url]
    command += ["--", bodies.media, str(bodies.folder), str(bodies.count)]
    done = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"wrk broke: {done.stderr or done.stdout}")
    return parsed(done.stdout, url)


def parsed(output: str, url: str) -> Measured:
    """Return what the last line of wrk's output says; RuntimeError when an answer was refused or did not come."""
    found = json.loads(output.strip().splitlines()[-1])
    if found["refused"] or found["broken"] or not found["requests"]:
        raise RuntimeError(
            f"{url} answered {found['requests']} requests, refused {found['refused']} and broke {found['broken']}; "
            "a rate counts only when all were answered"
        )
    return Measured(found["requests"] / found["seconds"], found["median_ms"], found["p99_ms"], found["requests"])
