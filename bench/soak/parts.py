"""The processes of a project that runs, found by their environment, and what they are by their command line."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KINDS: Mapping[str, tuple[str, ...]] = {
    "service worker": ("bentos.worker",),
    "Prefect server": ("prefect", "server", "start"),
    "Prefect worker": ("prefect", "worker", "start"),
    "flow run": ("prefect.engine",),
    "endpoint": ("serve",),
    "evergreen up": ("up",),
}
"""By kind of process: words that its command line has, the first kind that fits."""
SUPERVISOR = "processes.py"
"""What holds a process on a leash has its words, too."""


@dataclass(frozen=True)
class Part:
    """A process: its kind, and its memory in MB."""

    pid: int
    kind: str
    mb: float


def running(home: Path) -> list[Part]:
    """Return the processes whose EVERGREEN_HOME is this one, those of no kind above as "other"."""
    found = []
    needle = f"EVERGREEN_HOME={home}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if needle not in (place / "environ").read_bytes().split(b"\0"):
                continue
            words = [word.decode(errors="replace") for word in (place / "cmdline").read_bytes().split(b"\0")]
            if not any(words):
                continue
            kind = _kind(words)
            pages = int((place / "statm").read_text().split()[1])
            found.append(Part(int(place.name), kind, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
    return found


def _kind(words: list[str]) -> str:
    if any(word.endswith(SUPERVISOR) for word in words):
        return "leash"
    names = {Path(word).name for word in words}
    return next((kind for kind, needed in KINDS.items() if names.issuperset(needed)), "other")


def kill(part: Part) -> bool:
    """Kill a process with -9; False when it was gone already."""
    try:
        os.kill(part.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
