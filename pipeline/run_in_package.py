"""What evergreen may ask of a package, which may be older than this code, and how it starts a module of one.

A package keeps the code it was made with. So whoever starts a process of it asks the package itself which module to
start and which orders that process understands: this file in its source folder, `package.json`, says so.
docs/internals/formats.md has the arguments and messages of each.
"""

import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ArtifactError, ServerError
from pipeline.files import read_json, write_json
from pipeline.formats import PACKAGE, check_format
from pipeline.processes import packaged_environment

MANIFEST = "package.json"
EntryPoint = Literal["worker", "score", "answer", "reproduce"]
Order = Literal["drain", "degraded", "share", "shadow"]


@dataclass(frozen=True)
class Protocol:
    """How processes of a package are started, and what is said on a worker's line.

    Attributes:
        format: the number of the package format.
        modules: the module to start with `python -m`, by what it is started for.
        orders: what a worker can be told to do.
        states: what a worker says of itself.
    """

    format: int
    modules: dict[str, str]
    orders: tuple[str, ...]
    states: tuple[str, ...]


PROTOCOL = Protocol(
    format=PACKAGE.current,
    modules={
        "worker": "bentos.worker",
        "score": "bentos.score",
        "answer": "pipeline.predict_in_package",
        "reproduce": "pipeline.reproduce",
    },
    orders=("drain", "degraded", "share", "shadow"),
    states=("ready", "alive", "stuck"),
)
"""The protocol of packages that are made by this code."""


def write_protocol(source: Path) -> None:
    """Write the protocol of this code into the source folder of a package that carries this code."""
    write_json(source / MANIFEST, asdict(PROTOCOL))


def protocol_of(source: Path) -> Protocol:
    """Return what the package whose source folder is `source` understands.

    Raises FormatError when it is of a format that this evergreen does not read, ArtifactError when it is damaged.
    """
    name = f"package {source.parent.parent.name}:{source.parent.name}"
    if not (source / MANIFEST).exists():
        check_format(PACKAGE, None, name)
    try:
        facts = read_json(source / MANIFEST)
        check_format(PACKAGE, facts["format"], name)
        return Protocol(facts["format"], facts["modules"], tuple(facts["orders"]), tuple(facts["states"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactError(
            f"{name} has no readable {MANIFEST} ({type(error).__name__}: {error}); restore it",
            code="artifact.package_unreadable",
        ) from error


def run_packaged(source: Path, entry: EntryPoint, *arguments: str) -> None:
    """Run an entry point of the package whose source folder is `source`, in that folder, to its end.

    Raises ArtifactError with what it said last when it fails, ServerError when something ended it, and FormatError as
    `protocol_of` does.
    """
    done = subprocess.run(
        [sys.executable, "-m", protocol_of(source).modules[entry], *arguments],
        cwd=source,
        env=packaged_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode < 0:
        raise ServerError(
            f"the {entry!r} process of {source.parent.name} was killed by signal {-done.returncode}; run again",
            code="process.killed",
        )
    if done.returncode != 0:
        last_line = (
            done.stderr.strip().splitlines() or [f"its process exited with {done.returncode}, without output"]
        )[-1]
        raise ArtifactError(last_line, code="artifact.package_failed")
