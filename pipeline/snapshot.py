"""Snapshots of raw rows: an immutable Parquet file named by the digest of its content, and a manifest beside it."""

import filecmp
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import digest, sources
from pipeline.errors import ArtifactError, DataError, FormatError
from pipeline.files import (
    parquet_writer,
    put,
    read_json,
    scratch_folder,
    space_for,
    write_json,
    write_parquet,
)
from pipeline.formats import SNAPSHOT, check_format
from pipeline.ingest_cache import IngestCache
from pipeline.sources import Source, logical_type

if TYPE_CHECKING:
    import numpy
    import pyarrow

TABLE = "main"
"""The name of a snapshot's only table in its manifest; later there may be several."""
ERASURE_SUFFIX = ".forgotten"
"""The suffix of the file beside a snapshot that records which rows were erased from it: see `pipeline.erase`."""
GROUP_ROWS, GROUP_BYTES = 100_000, 2**26
"""A row group is written when it has this many rows or bytes: few large groups are read faster than many small ones."""


@dataclass(frozen=True)
class Snapshot:
    """One ingest: where its file is, and what its manifest says.

    Attributes:
        path: the Parquet file of its table.
        digest: the digest of the table, 64 hexadecimal digits; the file is named by it.
        rows: number of rows of the table.
        columns: the logical type of each column.
        origin: where the rows came from, for people.
        created: when they were ingested, in UTC.
    """

    path: Path
    digest: str
    rows: int
    columns: dict[str, str]
    origin: str
    created: str

    @property
    def short(self) -> str:
        """The first digits of the digest, for people."""
        return self.digest[: digest.SHORT]


def ingest(source: Source, folder: Path) -> Snapshot:
    """Read a source and write its rows as `<digest>.parquet` to the folder, never holding all of them in memory.

    The same table, read again, keeps its file and its first manifest. Files that are known to be unchanged are not
    read again. Nothing is written if the source cannot be read (SourceError) or is not a usable table (DataError).
    """
    seen = IngestCache(source, folder)
    if known := seen.snapshot():
        path = folder / f"{known}.parquet"
        with suppress(ArtifactError):
            if not path.with_suffix(ERASURE_SUFFIX).exists():
                return load_snapshot(path)
    with space_for(folder), scratch_folder(folder) as scratch:
        snapshot = _add(_write_rows(source, scratch), folder, sources.origin(source))
        seen.remember(snapshot.digest)
        return snapshot


def _add(part: Path, folder: Path, origin: str) -> Snapshot:
    """Move a Parquet file into the folder, named by its digest, unless the same snapshot is already there."""
    name = digest.of_parquet(part)
    path = folder / f"{name}.parquet"
    if not _is_intact(path, name, part):
        put(part, path)
        _write_first_manifest(path, name, origin)
    return load_snapshot(path)


def set_aside(snapshot: Snapshot, failing: "Mapping[str, numpy.ndarray]") -> tuple[Snapshot, Path]:
    """Write the rows that pass as a snapshot of their own, and the rows that fail beside it (the quarantine).

    `failing` maps a reason to a mask over the snapshot's rows. Returns the new snapshot and the path of the quarantine,
    a Parquet file of the failing rows in order. Its column `_row` is a row's number in the snapshot, from 1; `_reasons`
    lists why it failed.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet

    folder, failed = snapshot.path.parent, np.logical_or.reduce([*failing.values()])
    with space_for(folder), scratch_folder(folder) as scratch:
        parts, row = [], 0
        with _damage_is_artifact_error(snapshot.path):
            file = pyarrow.parquet.ParquetFile(snapshot.path)
        with file, parquet_writer(scratch / "good.parquet", file.schema_arrow) as good:
            for number in range(file.num_row_groups):
                with _damage_is_artifact_error(snapshot.path):
                    group = file.read_row_group(number)
                mask = pa.array(failed[row : row + len(group)])
                good.write_table(group.filter(pc.invert(mask)))
                parts.append(group.filter(mask))
                row += len(group)
        left = _add(scratch / "good.parquet", folder, snapshot.origin)
        aside = pa.concat_tables(parts)
        rows = np.flatnonzero(failed)
        reasons = [[reason for reason, mask in failing.items() if mask[row]] for row in rows]
        for name, values in (("_row", pa.array(rows + 1)), ("_reasons", pa.array(reasons, pa.list_(pa.string())))):
            while name in aside.column_names:
                name += "_"
            aside = aside.append_column(name, values)
        beside = left.path.with_suffix(".quarantine") / f"{snapshot.digest}.parquet"
        beside.parent.mkdir(exist_ok=True)
        write_parquet(beside, aside)
    return left, beside


def _write_rows(source: Source, scratch: Path) -> Path:
    """Write a source's rows to one Parquet file in a scratch folder, and return its path."""
    segments = _Segments(scratch)
    try:
        # It calls `begin` once, or again if it has to read the source from its first row under other types.
        schema = sources.stream(source, scratch, segments.begin)
    except BaseException:
        segments.abandon()
        raise
    return segments.finish(schema)


class _Segments:
    """Parquet files in a folder, one for each time that the types of the columns changed while rows were read.

    A column's type may be known late: after many empty cells, or when a word follows numbers. The rows written before
    keep their types until `finish` converts all segments to the final ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: list[_Segment] = []

    def begin(self) -> sources.Write:
        """Discard what was written, and return the function that writes rows."""
        self._close_last()
        self._segments.clear()
        return self._write

    def abandon(self) -> None:
        """Close the open file, unfinished."""
        for segment in self._segments[-1:]:
            segment.abandon()

    def finish(self, schema: "pyarrow.Schema") -> Path:
        """Return one file that holds all rows in the final types."""
        import pyarrow.parquet

        self._close_last()
        if len(self._segments) == 1 and self._segments[0].schema.equals(schema):
            return self._segments[0].path
        path = self._folder / "whole.parquet"
        with parquet_writer(path, schema) as whole:
            for segment in self._segments:
                with pyarrow.parquet.ParquetFile(segment.path) as file:
                    for number in range(file.num_row_groups):
                        whole.write_table(sources.conform(file.read_row_group(number), schema))
                segment.path.unlink()
        return path

    def _write(self, table: "pyarrow.Table") -> None:
        if not self._segments or not self._segments[-1].schema.equals(table.schema):
            self._close_last()
            self._segments.append(_Segment(self._folder / f"{len(self._segments)}.parquet", table.schema))
        self._segments[-1].write(table)

    def _close_last(self) -> None:
        for segment in self._segments[-1:]:
            segment.close()


class _Segment:
    """One Parquet file, all of whose rows have the same types."""

    def __init__(self, path: Path, schema: "pyarrow.Schema") -> None:
        self.path, self.schema = path, schema
        self._writer = parquet_writer(path, schema)
        self._waiting: list[pyarrow.Table] = []

    def write(self, table: "pyarrow.Table") -> None:
        """Add rows; they are written when there are enough for a row group."""
        self._waiting.append(table)
        rows = sum(len(waiting) for waiting in self._waiting)
        size = sum(waiting.nbytes for waiting in self._waiting)
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rows that wait for a full row group, and finish the file."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Close the file without finishing it."""
        with suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()


def _write_first_manifest(path: Path, name: str, origin: str) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        columns: dict[str, str] = {field.name: logical_type(field.type) for field in file.schema_arrow}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    snapshot = Snapshot(path, name, rows, columns, origin, created)
    # Rows that were erased from it before are in it again.
    path.with_suffix(ERASURE_SUFFIX).unlink(missing_ok=True)
    write_manifest(snapshot)


def _is_intact(path: Path, name: str, same: Path) -> bool:
    """Return whether a snapshot is there with its manifest, and the content of its file has the digest in its name.

    Comparing its bytes with the file `same` first is faster than computing the digest.
    """
    import pyarrow as pa

    try:
        found = load_snapshot(path)
    except FormatError as error:
        # A manifest that is too old is written again. A newer one may hold more than this evergreen would write.
        if error.code == "format.too_new":
            raise
        return False
    except ArtifactError:
        return False
    try:
        if found.digest != name or path.with_suffix(ERASURE_SUFFIX).exists():
            return False
        return filecmp.cmp(path, same, shallow=False) or digest.of_parquet(path) == name
    except (DataError, UnicodeDecodeError, pa.ArrowException, OSError):
        return False


def load_snapshot(path: Path) -> Snapshot:
    """Return the snapshot whose Parquet file is at `path`.

    Raises ArtifactError if its manifest cannot be read, FormatError if this evergreen does not read its format.
    """
    try:
        manifest: dict[str, Any] = read_json(_manifest(path))
        check_format(SNAPSHOT, manifest.get("format"), f"snapshot {path.name}")
        table = manifest["tables"][TABLE]
        return Snapshot(
            path, manifest["digest"], table["rows"], table["columns"], manifest["origin"], manifest["created"]
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArtifactError(
            f"snapshot {path.name} has no readable manifest ({error}); run again to ingest the source again",
            code="artifact.snapshot_unreadable",
        ) from error


def write_manifest(snapshot: Snapshot) -> None:
    """Write the manifest of a snapshot beside its file."""
    facts = {
        "format": SNAPSHOT.current,
        "digest": snapshot.digest,
        "origin": snapshot.origin,
        "created": snapshot.created,
        "tables": {TABLE: {"rows": snapshot.rows, "columns": snapshot.columns}},
    }
    write_json(_manifest(snapshot.path), facts)


@dataclass(frozen=True)
class Statistics:
    """Statistics of a column that its Parquet file holds.

    Attributes:
        nulls: number of nulls.
        least: the smallest value; None if it is not known.
        greatest: the largest value; None if it is not known.
    """

    nulls: int
    least: Any = None
    greatest: Any = None


class SnapshotFile:
    """A snapshot's file with the attributes of an Arrow table; columns are read from disk on each call."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.path = path
        with _damage_is_artifact_error(path):
            self._file = pyarrow.parquet.ParquetFile(path)
        self.schema: pyarrow.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names
        self.num_rows: int = self._file.metadata.num_rows

    def select(self, names: Sequence[str]) -> "pyarrow.Table":
        """Read some columns, in this order; raises ArtifactError if the file is damaged."""
        with _damage_is_artifact_error(self.path):
            return self._file.read(columns=[*names], use_threads=False).select([*names])

    def column(self, name: str) -> "pyarrow.ChunkedArray":
        """Read one column."""
        return self.select([name]).column(name)

    def filter(self, mask: "numpy.ndarray", names: Sequence[str] | None = None) -> "pyarrow.Table":
        """Read the rows that a mask selects, one row group after the other; with `names` only these columns."""
        import pyarrow as pa

        empty = self.schema.empty_table().select([*(names or self.column_names)])
        return pa.concat_tables([empty, *self.groups(mask, names)])

    def groups(self, mask: "numpy.ndarray", names: Sequence[str] | None = None) -> Iterator["pyarrow.Table"]:
        """Yield the rows that a mask selects, one row group at a time; with `names` only these columns.

        Raises ArtifactError if the mask has another length, for example because rows were erased in the meantime.
        """
        import pyarrow as pa

        self.check(len(mask))
        row, columns = 0, [*(names or self.column_names)]
        for number in range(self._file.num_row_groups):
            part = mask[row : row + self._file.metadata.row_group(number).num_rows]
            row += len(part)
            if part.any():
                with _damage_is_artifact_error(self.path):
                    group = self._file.read_row_group(number, columns=columns)
                yield group.select(columns).filter(pa.array(part))

    def check(self, rows: int) -> None:
        """Raise ArtifactError unless the file has this many rows; some may have been erased in the meantime."""
        if rows != self.num_rows:
            raise ArtifactError(
                f"rows of snapshot {self.path.name} were erased in the meantime: it had {rows} rows and now has "
                f"{self.num_rows}; run again",
                code="artifact.rows_removed",
            )

    def digest(self) -> str:
        """Compute the digest of the file's table, which is also its name, without holding all of it in memory."""
        with _damage_is_artifact_error(self.path):
            return digest.of_parquet(self.path)

    def coded(self, name: str) -> "pyarrow.ChunkedArray":
        """Read one column of texts as dictionary codes, which is faster than reading the texts."""
        import pyarrow.parquet

        with _damage_is_artifact_error(self.path):
            file = pyarrow.parquet.ParquetFile(self.path, metadata=self._file.metadata, read_dictionary=[name])
            return file.read(columns=[name], use_threads=False).column(name)

    def statistics(self, name: str) -> Statistics | None:
        """Return a column's statistics, with min and max for numbers only; None if the file has no statistics."""
        metadata, position = self._file.metadata, self.column_names.index(name)
        groups = [metadata.row_group(number).column(position).statistics for number in range(metadata.num_row_groups)]
        if not all(group is not None and group.has_null_count for group in groups):
            return None
        nulls = sum(group.null_count for group in groups)
        known = [group for group in groups if group.num_values]
        if str(self.schema.field(name).type) not in ("int64", "double") or not all(
            group.has_min_max for group in known
        ):
            return Statistics(nulls)
        ends = [end for group in known for end in (group.min, group.max)]
        return Statistics(nulls, min(ends), max(ends)) if ends else Statistics(nulls)


@contextmanager
def _damage_is_artifact_error(path: Path) -> Iterator[None]:
    """Raise ArtifactError if reading the snapshot's file in this block fails because the file is damaged."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise ArtifactError(
            f"snapshot {path.name} cannot be read ({error}); run again to ingest the source again",
            code="artifact.snapshot_unreadable",
        ) from error


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")
