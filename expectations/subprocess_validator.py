"""Validation in a process of its own, which imports Great Expectations while its caller does something else, if at all.

Run as a script (`python -m expectations.subprocess_validator MODEL FOLDER`) it is that process: it answers one request.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

import pipeline.errors
from expectations.validate import Report
from pipeline.errors import CheckError, EvergreenError
from pipeline.files import read_json, write_bytes, write_json
from pipeline.processes import supervised_child
from pipeline.project import CODE_FOLDER
from pipeline.snapshot import Snapshot

POLL_INTERVAL = 0.02


@dataclass(frozen=True)
class Validator:
    """A process that will validate one snapshot of a model, once it has imported what that takes."""

    model: str
    folder: Path
    child: "subprocess.Popen[bytes]"

    def begin(self) -> None:
        """Let it import now, since there is probably something to validate; asked to `check`, it does so anyway."""
        (self.folder / "begin").touch()

    def check(self, snapshot: Snapshot) -> Report:
        """Return what `check_snapshot` finds, and raise what it raises; CheckError when the process breaks."""
        write_json(self.folder / "request.json", {**asdict(snapshot), "path": str(snapshot.path)})
        answer = self.folder / "answer"
        while not answer.exists():
            if self.child.poll() is not None and not answer.exists():
                log = (self.folder / "log").read_text(errors="replace")[-2000:].strip()
                raise CheckError(
                    f"the process that validates ended with {self.child.returncode}, which says nothing about the "
                    f"data; was there too little memory? It said: {log or 'nothing'}"
                )
            time.sleep(POLL_INTERVAL)
        # Written by this very code a moment ago, in a folder that nobody else may enter.
        told: Report | tuple[str, str, str | None] = pickle.loads(answer.read_bytes())
        if isinstance(told, Report):
            return told
        name, message, error_code = told
        if kind := getattr(pipeline.errors, name, None):
            raise kind(message, code=error_code)
        raise CheckError(f"validation broke, which says nothing about the data: {name}: {message}")


STARTED_VALIDATOR: ContextVar[Validator | None] = ContextVar("STARTED", default=None)
"""The process that was started for the run in this context, if it was already."""


@contextmanager
def start_validator(model: str) -> Iterator[Validator]:
    """Start the process that validates for a model; it ends with the block, or when it has answered.

    It imports nothing before it is told to `begin`: a run that finds nothing new needs none of it.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-validate-") as name:
        folder = Path(name)
        path = os.pathsep.join(part for part in (str(CODE_FOLDER), os.environ.get("PYTHONPATH")) if part)
        command = [sys.executable, "-m", "expectations.subprocess_validator", model, str(folder)]
        with supervised_child(command, {**os.environ, "PYTHONPATH": path}, Path.cwd(), folder / "log") as child:
            yield Validator(model, folder, child)


def _answer(model: str, folder: Path) -> None:
    """Import what is needed, wait for the request and answer it."""
    told: Report | tuple[str, str, str | None]
    request = folder / "request.json"
    while not request.exists() and not (folder / "begin").exists():
        time.sleep(POLL_INTERVAL)
    try:
        from expectations.check import check_snapshot
        from expectations.validate import load_suite

        load_suite(model)
        while not request.exists():
            time.sleep(POLL_INTERVAL)
        asked = read_json(request)
        told = check_snapshot(model, Snapshot(**{**asked, "path": Path(asked["path"])}))
    except EvergreenError as error:
        known = next(cls for cls in type(error).__mro__ if cls.__module__ == "pipeline.errors")
        told = known.__name__, str(error), error.code
    except Exception as error:
        told = type(error).__name__, str(error), None
    write_bytes(folder / "answer", pickle.dumps(told))


if __name__ == "__main__":
    _answer(sys.argv[1], Path(sys.argv[2]))
