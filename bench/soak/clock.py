"""A clock that can be set for the processes that go by it alone; see clock.c, which they preload."""

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def build(folder: Path) -> Path | None:
    """Make a clock in a folder, which is right at first, and return its file; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    clock = folder / "clock"
    clock.write_bytes(struct.pack("q", 0))
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(clock.with_suffix(".so")), str(SOURCE)], check=True)
    return clock


def environment(clock: Path) -> dict[str, str]:
    """Return the environment variables of processes that go by a clock."""
    return {"LD_PRELOAD": str(clock.with_suffix(".so")), "SOAK_CLOCK": str(clock)}


def turn(clock: Path, ahead: int) -> None:
    """Set a clock to so many seconds ahead; negative, behind."""
    # In place: processes have it in their memory, and must not find it empty.
    with clock.open("r+b") as file:
        file.write(struct.pack("q", ahead))
