"""Run a module of a package in a process of its own, with the code it was packaged with."""

import subprocess
import sys
from pathlib import Path

from pipeline.errors import ArtifactError, ServerError
from pipeline.processes import packaged_environment


def run_packaged(source: Path, module: str, *arguments: str) -> None:
    """Run a module found in a package's source folder, in that folder, to its end.

    Raises ArtifactError with what it said last when it fails, ServerError when something ended it.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=source,
        env=packaged_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode < 0:
        raise ServerError(
            f"the process that asked {source.parent.name} was ended by signal {-done.returncode}; run again"
        )
    if done.returncode != 0:
        raise ArtifactError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
