"""Validation in a process of its own, which imports Great Expectations while its caller does something else.

Run as a script (`python -m expectations.subprocess_validator MODEL FOLDER`), it is that process, for one request.
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
from expectations.report import Report
from pipeline.errors import CheckError, EvergreenError
from pipeline.files import read_json, write_bytes, write_json
from pipeline.processes import supervised_child
from pipeline.project import CODE_FOLDER
from pipeline.snapshot import Snapshot

POLL_INTERVAL = 0.02
"""Seconds."""


@dataclass(frozen=True)
class Validator:
    """A process that validates one snapshot of a model.

    Attributes:
        model: the name of the model.
        folder: a temporary folder through which request and answer are passed.
        child: the process.
    """

    model: str
    folder: Path
    child: "subprocess.Popen[bytes]"

    def begin(self) -> None:
        """Start its imports now, since there is probably something to validate. `check` starts them otherwise."""
        (self.folder / "begin").touch()

    def check(self, snapshot: Snapshot) -> Report:
        """Return what `check_snapshot` returns and raise what it raises; CheckError if it ended without one."""
        write_json(self.folder / "request.json", {**asdict(snapshot), "path": str(snapshot.path)})
        answer = self.folder / "answer"
        while not answer.exists():
            if self.child.poll() is not None and not answer.exists():
                log = (self.folder / "log").read_text(errors="replace")[-2000:].strip()
                raise CheckError(
                    f"the validation process ended with exit code {self.child.returncode}, which says nothing about "
                    f"the data; was there too little memory? Its output: {log or 'none'}",
                    code="check.process_ended",
                )
            time.sleep(POLL_INTERVAL)
        # This code wrote it a moment ago, in a folder that nobody else may enter.
        result: Report | tuple[str, str, str | None] = pickle.loads(answer.read_bytes())
        if isinstance(result, Report):
            return result
        name, message, code = result
        if error_class := getattr(pipeline.errors, name, None):
            raise error_class(message, code=code)
        raise CheckError(
            f"validation broke, which says nothing about the data: {name}: {message}", code="check.validation_broke"
        )


STARTED_VALIDATOR: ContextVar[Validator | None] = ContextVar("STARTED", default=None)
"""The process that was started for the run in this context; None if none was."""


@contextmanager
def start_validator(model: str) -> Iterator[Validator]:
    """Start the process that validates for a model; it ends with the block, or after its answer.

    It imports nothing before `begin` or `check`: a run that finds nothing new does not need the imports.
    """
    with tempfile.TemporaryDirectory(prefix="evergreen-validate-") as name:
        folder = Path(name)
        path = os.pathsep.join(part for part in (str(CODE_FOLDER), os.environ.get("PYTHONPATH")) if part)
        command = [sys.executable, "-m", "expectations.subprocess_validator", model, str(folder)]
        with supervised_child(command, {**os.environ, "PYTHONPATH": path}, Path.cwd(), folder / "log") as child:
            yield Validator(model, folder, child)


def _answer(model: str, folder: Path) -> None:
    """Import what validation needs, wait for the request and answer it."""
    result: Report | tuple[str, str, str | None]
    request = folder / "request.json"
    while not request.exists() and not (folder / "begin").exists():
        time.sleep(POLL_INTERVAL)
    try:
        from expectations.check import check_snapshot
        from expectations.suite import load_suite

        load_suite(model)
        while not request.exists():
            time.sleep(POLL_INTERVAL)
        snapshot = read_json(request)
        result = check_snapshot(model, Snapshot(**{**snapshot, "path": Path(snapshot["path"])}))
    except EvergreenError as error:
        known = next(cls for cls in type(error).__mro__ if cls.__module__ == "pipeline.errors")
        result = known.__name__, str(error), error.code
    except Exception as error:
        result = type(error).__name__, str(error), None
    write_bytes(folder / "answer", pickle.dumps(result))


if __name__ == "__main__":
    _answer(sys.argv[1], Path(sys.argv[2]))
