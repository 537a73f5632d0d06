"""The files that a path names, and what they hold, decompressed as the endings of their names say."""

import glob
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import DataError, SourceError
from pipeline.sources.columns import first_line

_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}


@dataclass(frozen=True)
class Place:
    """A file of a source: the name that errors show, and where it is on this machine."""

    name: str
    path: Path


def places(pattern: str) -> list[Place]:
    """Return the files that a path or a glob names, in the order of their names; SourceError when there are none."""
    path = Path(pattern)
    if path.is_file() or not glob.has_magic(pattern):
        if not path.exists():
            raise SourceError(f"there is no file {pattern!r} (looked from {Path.cwd()}); check the path")
        if not path.is_file():
            raise SourceError(
                f"{pattern!r} is not a file; name a file, or the files in it as {pattern.rstrip('/')}/*.csv"
            )
        return [Place(str(path), path)]
    paths = sorted(Path(found) for found in glob.glob(pattern, recursive=True))
    if not paths:
        raise SourceError(f"no file matches {pattern!r} (looked from {Path.cwd()}); check the pattern")
    return [Place(str(path), path) for path in paths]


@contextmanager
def opened(place: Place) -> Iterator[IO[bytes]]:
    """Open a file to be read from its beginning to its end, decompressed.

    SourceError when the system refuses, DataError when the file is empty or not whole.
    """
    import pyarrow as pa

    how = place.path.suffix.lower()
    try:
        if place.path.stat().st_size == 0:
            raise DataError(f"{place.name}: the file is empty")
        with _stream(place.path, _COMPRESSED.get(how)) as stream:
            yield stream
    except (lzma.LZMAError, OSError, EOFError, pa.ArrowException) as error:
        # Damage inside a compressed file is an OSError too, but has no number of the operating system.
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(f"{place.name} could not be read: {error.strerror or error}") from error
        if how not in _COMPRESSED:
            raise
        raise DataError(
            f"{place.name}: not a whole {how[1:]} file; was the copy cut short? ({first_line(error)})"
        ) from error


def _stream(path: Path, how: str | None) -> Any:
    import pyarrow as pa

    if how is None:
        return path.open("rb", buffering=0)
    return lzma.open(path) if how == "xz" else pa.CompressedInputStream(pa.OSFile(str(path)), how)
