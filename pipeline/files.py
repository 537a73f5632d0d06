"""State on disk: the only module of evergreen that writes, renames and serializes files.

A file or folder appears whole or not at all: it is written beside its final path, flushed to disk, then renamed. Files
with a known digest are checked against it before use. tests/end_to_end/test_state.py keeps other modules from writing.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.errors import ArtifactError, StorageError
from pipeline.processes import alive

if TYPE_CHECKING:
    import numpy
    import pyarrow

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
    """Yield an empty temporary folder inside a folder; it is removed when the block ends."""
    part = Path(tempfile.mkdtemp(prefix=f"{_PART}{os.getpid()}-", dir=folder))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put(part: Path, path: Path) -> None:
    """Flush a file and rename it to its final path, on the same file system."""
    _flush(part)
    part.rename(path)
    _flush(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `path`, replacing what was there, when the block ends without an error."""
    part = _part(path)
    # In a container, a killed process and the one that resumes its work may have the same id.
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
    """Raise StorageError if writing `path` in this block fails because the disk is full."""
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
        "with `evergreen gc`, then run again",
        code="storage.full",
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_parquet(path: Path, table: "pyarrow.Table") -> None:
    """Write a table to a Parquet file, whole or not at all."""
    import pyarrow.parquet

    with whole_file(path) as part:
        pyarrow.parquet.write_table(table, part, compression="zstd")


def parquet_writer(part: Path, schema: "pyarrow.Schema", compression: str = "zstd") -> "pyarrow.parquet.ParquetWriter":
    """Return a writer of a Parquet file in pieces; `part` is a path that `whole_file` or `scratch_folder` gave."""
    import pyarrow as pa
    import pyarrow.parquet

    # Numbers rarely repeat, so a dictionary of them costs more time than the space it saves is worth.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pyarrow.parquet.ParquetWriter(part, schema, compression=compression, use_dictionary=texts)


def arrow_writer(part: Path, schema: "pyarrow.Schema") -> "pyarrow.ipc.RecordBatchFileWriter":
    """Return a writer of an Arrow file in pieces; `part` is a path that `whole_file` or `scratch_folder` gave."""
    import pyarrow as pa

    return pa.ipc.new_file(str(part), schema)


def write_arrays(path: Path, arrays: "Mapping[str, numpy.ndarray]") -> None:
    """Write named arrays to an `.npz` file, whole or not at all."""
    import numpy as np

    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def pickle_bytes(value: Any) -> bytes:
    """Return a value pickled and compressed, as `joblib.load` reads it."""
    import joblib

    joblib.dump(value, pickled := io.BytesIO(), compress=3)
    return pickled.getvalue()


@contextmanager
def open_checked(path: Path, expected: str) -> Iterator[BinaryIO]:
    """Check a file's digest and yield the open file; raises ArtifactError if the digest is not the expected one."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}; restore it, or train and release the model again",
            code="artifact.unreadable",
        ) from error
    # The same open file is checked and read, so a file that replaces it in the meantime is never read unchecked.
    with file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ArtifactError(
                f"{path} has changed since it was written: its digest is {found}, not {expected}; restore it, or train "
                "and release the model again",
                code="artifact.changed",
            )
        file.seek(0)
        yield file


def link_or_copy(source: Path, path: Path) -> None:
    """Make a file available at a second path: by a hard link, or by a copy if the file system has none."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def discard(path: Path, aside: Path) -> None:
    """Remove a file or folder; it is first moved into the folder `aside`, so that nobody sees it half removed."""
    part = _part(aside / path.name)
    shutil.rmtree(part, ignore_errors=True)
    path.rename(part)
    shutil.rmtree(part) if part.is_dir() else part.unlink()


def sweep(folder: Path) -> None:
    """Remove unfinished files below a folder that dead processes left behind."""
    # Not Path.rglob: it raises if a folder disappears, as the unfinished folders of running processes do.
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            pid = name.removeprefix(_PART).split("-")[0]
            if name.startswith(_PART) and not (pid.isdigit() and alive(int(pid))):
                part = Path(parent, name)
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
