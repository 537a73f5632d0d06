"""The files that a path names, and what they hold, decompressed as the endings of their names say."""

import glob
import lzma
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from pipeline.errors import DataError, SourceError
from pipeline.files import put
from pipeline.project import project_path
from pipeline.sources.columns import first_line
from pipeline.sources.source_types import PARTITION, Files, remote

_CLOCK_RESOLUTION_NS = 2 * 10**9
"""Nanoseconds; the coarsest clock of a file system in use counts 2 seconds."""
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}


@dataclass(frozen=True)
class DataFile:
    """A file of a source: the name that errors show, where it is on this machine, and the partition it belongs to."""

    name: str
    path: Path
    partition: Mapping[str, str] = field(default_factory=dict)


def locate_files(source: Files, scratch: Path) -> Iterator[DataFile]:
    """Yield the files of a source in the order of their names; those at addresses are fetched into the scratch folder.

    Raises SourceError when there are none, or one cannot be fetched.
    """
    for number, (name, partition) in enumerate(_named(source)):
        if not remote(source.path):
            yield DataFile(name, project_path(name), partition)
            continue
        # With its ending, which tells how it is compressed.
        local = scratch / f"{number}{PurePosixPath(urlsplit(name).path).suffix}"
        if not local.exists():
            part = local.with_name(f"{local.name}.part")
            remote_files().fetch(name, part)
            put(part, local)
        yield DataFile(name, local, partition)


def fingerprints(source: Files, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what tells one content of a source's files from the next, by name; None when that is not sure.

    Of a file on this machine that is its size, place and time, unless it was written just now: it could be written
    again within the same tick. `known` is what was found before.
    """
    found: dict[str, Any] = {}
    for name, _ in _named(source):
        if remote(source.path):
            one: Any = remote_files().mark(name, known.get(name))
        else:
            stat = project_path(name).stat()
            settled = stat.st_mtime_ns < time.time_ns() - _CLOCK_RESOLUTION_NS
            one = [stat.st_size, stat.st_mtime_ns, stat.st_ino] if settled else None
        if one is None:
            return None
        found[name] = one
    return found


def remote_files() -> Any:
    """Return the module that reads what is at addresses; by its name, so that no package asks for what it imports."""
    return import_module("pipeline.sources.remote")


def _named(source: Files) -> list[tuple[str, dict[str, str]]]:
    """Return the names of a source's files, and their partitions, after those that are too old were left out."""
    pattern = source.path
    if not PARTITION.search(pattern) or (not remote(pattern) and project_path(pattern).is_file()):
        return [(name, {}) for name in _matching(pattern)]
    shape = _shape(pattern)
    # An object store names what it lists in its own way.
    found = [(name, match.groupdict()) for name in _matching(PARTITION.sub("*", pattern)) if (match := shape(name))]
    if not found:
        raise SourceError(f"no file matches {pattern!r} (looked from {_base()}); check the pattern")
    kept = _newest([partition for _, partition in found], source)
    return [(name, partition) for name, partition in found if partition in kept]


def _matching(pattern: str) -> list[str]:
    if remote(pattern):
        addresses: list[str] = remote_files().addresses(pattern)
        return addresses
    path = project_path(pattern)
    if path.is_file() or not glob.has_magic(pattern):
        if not path.exists():
            raise SourceError(f"there is no file {pattern!r} (looked from {_base()}); check the path")
        if not path.is_file():
            raise SourceError(
                f"{pattern!r} is not a file; name a file, or the files in it as {pattern.rstrip('/')}/*.csv"
            )
        return [str(Path(pattern))]
    names = glob.glob(pattern, root_dir=project_path(""), recursive=True)
    found = sorted(Path(name) for name in names if project_path(name).is_file())
    if not found:
        raise SourceError(f"no file matches {pattern!r} (looked from {_base()}); check the pattern")
    return [str(path) for path in found]


def _base() -> Path:
    return project_path("").absolute()


def _shape(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what finds the values of a pattern's partitions in a name that the pattern matches."""
    text = pattern if remote(pattern) else str(Path(pattern))
    parts = re.split(r"(\*\*/|\*|\?|(?<!\$)\{\w+\})", text)
    known = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    seen: set[str] = set()

    def translated(part: str) -> str:
        if not PARTITION.fullmatch(part):
            return known.get(part) or re.escape(part)
        again = part in seen
        seen.add(part)
        return f"(?P={part[1:-1]})" if again else f"(?P<{part[1:-1]}>[^/]+?)"

    return re.compile("".join(map(translated, parts))).fullmatch


def _newest(partitions: Sequence[dict[str, str]], source: Files) -> list[dict[str, str]]:
    """Return the partitions that the source's `last` keeps: so many of them, or those of the newest days."""
    if source.last is None:
        return list(partitions)
    if isinstance(source.last, timedelta):
        days = [_day(partition, source.path) for partition in partitions]
        newest = max(days)
        return [one for one, day in zip(partitions, days, strict=True) if day > newest - source.last]
    ordered = sorted(partitions, key=lambda one: [_natural(value) for value in one.values()])
    distinct = [one for number, one in enumerate(ordered) if number == 0 or ordered[number - 1] != one]
    return distinct[-source.last :]


def _day(partition: Mapping[str, str], pattern: str) -> datetime:
    try:
        if {"year", "month", "day"} <= partition.keys():
            return datetime(int(partition["year"]), int(partition["month"]), int(partition["day"]))
        return datetime.fromisoformat(next(iter(partition.values()))).replace(tzinfo=None)
    except ValueError:
        raise DataError(
            f"{pattern}: the partition {dict(partition)} is no day such as 2024-01-31; keep a number of partitions "
            "instead: last=30"
        ) from None


def _natural(value: str) -> tuple[int, int, str]:
    return (0, int(value), "") if value.isdecimal() else (1, 0, value)


@contextmanager
def open_decompressed(place: DataFile) -> Iterator[IO[bytes]]:
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
