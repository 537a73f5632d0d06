"""The files that a path names: globs, partitions, compression by the name's ending, and change detection."""

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
    """A file of a source.

    Attributes:
        name: the path or address that errors show.
        path: where the file is on this machine.
        partition: the values of the path's partition columns, by name.
    """

    name: str
    path: Path
    partition: Mapping[str, str] = field(default_factory=dict)


def locate_files(source: Files, scratch: Path) -> Iterator[DataFile]:
    """Yield the files of a source in the order of their names; remote files are fetched into the scratch folder first.

    Raises SourceError if there are none, or one cannot be fetched.
    """
    for number, (name, partition) in enumerate(_named(source)):
        if not remote(source.path):
            yield DataFile(name, project_path(name), partition)
            continue
        # The ending is kept: it names the compression.
        local = scratch / f"{number}{PurePosixPath(urlsplit(name).path).suffix}"
        if not local.exists():
            part = local.with_name(f"{local.name}.part")
            remote_files().fetch(name, part)
            put(part, local)
        yield DataFile(name, local, partition)


def fingerprints(source: Files, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a fingerprint of each file of a source, by name; None if a change could go unnoticed.

    The fingerprint of a local file is its size, modification time and inode. A file that was just written has none: it
    could be written again within the clock's resolution. `known` holds the fingerprints of the last call.
    """
    fingerprint_of: dict[str, Any] = {}
    for name, _ in _named(source):
        if remote(source.path):
            fingerprint: Any = remote_files().fingerprint(name, known.get(name))
        else:
            stat = project_path(name).stat()
            settled = stat.st_mtime_ns < time.time_ns() - _CLOCK_RESOLUTION_NS
            fingerprint = [stat.st_size, stat.st_mtime_ns, stat.st_ino] if settled else None
        if fingerprint is None:
            return None
        fingerprint_of[name] = fingerprint
    return fingerprint_of


def remote_files() -> Any:
    """Return the module for remote files. It is imported by name, so that no package requires what it imports."""
    return import_module("pipeline.sources.remote")


def _named(source: Files) -> list[tuple[str, dict[str, str]]]:
    """Return the names and partitions of a source's files, without the partitions that `last` excludes."""
    pattern = source.path
    if not PARTITION.search(pattern) or (not remote(pattern) and project_path(pattern).is_file()):
        return [(name, {}) for name in _matching(pattern)]
    shape = _shape(pattern)
    # An object store may list names in another form than the pattern's.
    files = [(name, match.groupdict()) for name in _matching(PARTITION.sub("*", pattern)) if (match := shape(name))]
    if not files:
        raise _no_match(pattern)
    kept = _newest([partition for _, partition in files], source)
    return [(name, partition) for name, partition in files if partition in kept]


def _no_match(pattern: str) -> SourceError:
    return SourceError(
        f"no file matches {pattern!r} (looked from {_base()}); check the pattern", code="source.no_matching_file"
    )


def _matching(pattern: str) -> list[str]:
    if remote(pattern):
        addresses: list[str] = remote_files().addresses(pattern)
        return addresses
    path = project_path(pattern)
    if path.is_file() or not glob.has_magic(pattern):
        if not path.exists():
            raise SourceError(
                f"there is no file {pattern!r} (looked from {_base()}); check the path", code="source.no_such_file"
            )
        if not path.is_file():
            raise SourceError(
                f"{pattern!r} is not a file; name a file, or the files in it as {pattern.rstrip('/')}/*.csv",
                code="source.not_a_file",
            )
        return [str(Path(pattern))]
    names = glob.glob(pattern, root_dir=project_path(""), recursive=True)
    paths = sorted(Path(name) for name in names if project_path(name).is_file())
    if not paths:
        raise _no_match(pattern)
    return [str(path) for path in paths]


def _base() -> Path:
    return project_path("").absolute()


def _shape(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return a function that matches a file's name against the pattern, with a group for each partition column."""
    text = pattern if remote(pattern) else str(Path(pattern))
    parts = re.split(r"(\*\*/|\*|\?|(?<!\$)\{\w+\})", text)
    wildcards = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    seen: set[str] = set()

    def translated(part: str) -> str:
        if not PARTITION.fullmatch(part):
            return wildcards.get(part) or re.escape(part)
        again = part in seen
        seen.add(part)
        return f"(?P={part[1:-1]})" if again else f"(?P<{part[1:-1]}>[^/]+?)"

    return re.compile("".join(map(translated, parts))).fullmatch


def _newest(partitions: Sequence[dict[str, str]], source: Files) -> list[dict[str, str]]:
    """Return the partitions that `last` of the source keeps: the newest ones, by number or by time."""
    if source.last is None:
        return list(partitions)
    if isinstance(source.last, timedelta):
        days = [_day(partition, source.path) for partition in partitions]
        newest = max(days)
        return [partition for partition, day in zip(partitions, days, strict=True) if day > newest - source.last]
    ordered = sorted(partitions, key=lambda partition: [_natural(value) for value in partition.values()])
    distinct = [ordered[place] for place in range(len(ordered)) if place == 0 or ordered[place - 1] != ordered[place]]
    return distinct[-source.last :]


def _day(partition: Mapping[str, str], pattern: str) -> datetime:
    try:
        if {"year", "month", "day"} <= partition.keys():
            return datetime(int(partition["year"]), int(partition["month"]), int(partition["day"]))
        return datetime.fromisoformat(next(iter(partition.values()))).replace(tzinfo=None)
    except ValueError:
        raise DataError(
            f"{pattern}: the partition {dict(partition)} is not a day such as 2024-01-31; keep a number of partitions "
            "instead: last=30",
            code="data.partition_not_a_day",
        ) from None


def _natural(value: str) -> tuple[int, int, str]:
    return (0, int(value), "") if value.isdecimal() else (1, 0, value)


@contextmanager
def open_decompressed(place: DataFile) -> Iterator[IO[bytes]]:
    """Open a file for reading from beginning to end, decompressed.

    Raises SourceError if the system cannot read it, DataError if the file is empty or incomplete.
    """
    import pyarrow as pa

    suffix = place.path.suffix.lower()
    try:
        if place.path.stat().st_size == 0:
            raise DataError(f"{place.name}: the file is empty; write it again", code="data.empty_file")
        with _stream(place.path, _COMPRESSED.get(suffix)) as stream:
            yield stream
    except (lzma.LZMAError, OSError, EOFError, pa.ArrowException) as error:
        # Damage inside a compressed file is an OSError without a number; an error of the operating system has one.
        if isinstance(error, OSError) and error.errno is not None:
            raise SourceError(
                f"{place.name} could not be read: {error.strerror or error}; check the path and its permissions",
                code="source.unreadable",
            ) from error
        if suffix not in _COMPRESSED:
            raise
        raise DataError(
            f"{place.name}: not a whole {suffix[1:]} file; was the copy cut short? ({first_line(error)})",
            code="data.damaged_file",
        ) from error


def _stream(path: Path, codec: str | None) -> Any:
    import pyarrow as pa

    if codec is None:
        return path.open("rb", buffering=0)
    return lzma.open(path) if codec == "xz" else pa.CompressedInputStream(pa.OSFile(str(path)), codec)
