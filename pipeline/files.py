"""Files that appear whole or not at all: written beside their place, flushed to disk, then renamed."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError
from pipeline.processes import alive

NO_SPACE = os.strerror(errno.ENOSPC)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PART = ".part-"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block ends without an error."""
    part = _part(path)
    try:
        with space_for(path):
            yield part
            put(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder inside of a folder; it is removed when the block ends."""
    part = Path(tempfile.mkdtemp(prefix=f"{_PART}{os.getpid()}-", dir=folder))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put(part: Path, path: Path) -> None:
    """Let a whole file appear in its place, on the same file system."""
    _flush(part)
    part.rename(path)
    _flush(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `path`, replacing what was there, when the block ends without an error."""
    part = _part(path)
    # In a container, a process that was killed and the one that goes on may have the same id.
    shutil.rmtree(part, ignore_errors=True)
    try:
        with space_for(path):
            part.mkdir()
            yield part
            for file in part.rglob("*"):
                _flush(file)
            _flush(part)
            if path.exists():
                path.rename(_part(path, "-old"))
            part.rename(path)
            _flush(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(_part(path, "-old"), ignore_errors=True)


@contextmanager
def space_for(path: Path) -> Iterator[None]:
    """Say, as a StorageError, that there is no space left to write `path` when that is why writing fails."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or NO_SPACE in str(error):
            raise no_space(path) from error
        raise


def no_space(path: Path) -> StorageError:
    """Return the error that there is no space left to write `path`."""
    return StorageError(
        f"no space left to write {path}; nothing of it was written and no champion has changed: free some, for example "
        "with `evergreen gc`, then run again"
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN and infinity are refused, since JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def discard(path: Path, aside: Path) -> None:
    """Remove a file or a folder; it is first moved into the folder `aside`, so that nobody sees it half removed."""
    part = _part(aside / path.name)
    shutil.rmtree(part, ignore_errors=True)
    path.rename(part)
    shutil.rmtree(part) if part.is_dir() else part.unlink()


def sweep(folder: Path) -> None:
    """Remove what processes that died in the middle of writing left below a folder."""
    # Not Path.rglob: it raises when a folder disappears under it, as those of the living do.
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            pid = name.removeprefix(_PART).split("-")[0]
            if name.startswith(_PART) and not (pid.isdigit() and alive(int(pid))):
                part = Path(place, name)
                shutil.rmtree(part, ignore_errors=True) if name in folders else part.unlink(missing_ok=True)
        folders[:] = [name for name in folders if not name.startswith(_PART)]


def _part(path: Path, suffix: str = "") -> Path:
    return path.with_name(f"{_PART}{os.getpid()}-{path.name}{suffix}")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
