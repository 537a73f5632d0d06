"""Raw rows, frozen: one immutable Parquet file named by the digest of its content, and a manifest beside it."""

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
"""The name that a manifest gives the one table of a snapshot; later there may be several."""
ERASURE_SUFFIX = ".forgotten"
"""How the file beside a snapshot ends that tells what was forgotten of it: see `pipeline.erase`."""
GROUP_ROWS, GROUP_BYTES = 100_000, 2**26
"""A row group is written when there are so many rows, or so many bytes: few are read faster than many."""


@dataclass(frozen=True)
class Snapshot:
    """One ingest: where its file is, and what its manifest says.

    Attributes:
        path: the Parquet file of its table.
        digest: of all that the table holds; the file is named by it.
        rows: how many rows the table has.
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
    """Read a source and freeze its rows as `<digest>.parquet` in the folder, never all of them in memory.

    The same table, read again, is the same file with its first manifest; files that are surely unchanged are not read
    again. Nothing is written when the source cannot be read (SourceError) or holds no usable table (DataError).
    """
    seen = IngestCache(source, folder)
    if known := seen.snapshot():
        path = folder / f"{known}.parquet"
        with suppress(ArtifactError):
            if not path.with_suffix(ERASURE_SUFFIX).exists():
                return load_snapshot(path)
    with space_for(folder), scratch_folder(folder) as scratch:
        snapshot = _placed(_frozen(source, scratch), folder, sources.origin(source))
        seen.remember(snapshot.digest)
        return snapshot


def _placed(part: Path, folder: Path, origin: str) -> Snapshot:
    """Put a Parquet file into the folder under the name of its content, unless it is there already."""
    name = digest.of_parquet(part)
    path = folder / f"{name}.parquet"
    if not _whole(path, name, part):
        put(part, path)
        _describe(path, name, origin)
    return load_snapshot(path)


def set_aside(snapshot: Snapshot, failing: "Mapping[str, numpy.ndarray]") -> tuple[Snapshot, Path]:
    """Freeze the rows that fail nothing as a snapshot of their own, and write the others beside it.

    `failing` has, by the reason, a mask over the snapshot's rows. Returns the new snapshot and the Parquet file of what
    was set aside: the rows in their order, `_row` their number in the snapshot from 1, `_reasons` why each is there.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet

    folder, failed = snapshot.path.parent, np.logical_or.reduce([*failing.values()])
    with space_for(folder), scratch_folder(folder) as scratch:
        parts, row = [], 0
        with _whole_parquet(snapshot.path):
            file = pyarrow.parquet.ParquetFile(snapshot.path)
        with file, parquet_writer(scratch / "good.parquet", file.schema_arrow) as good:
            for number in range(file.num_row_groups):
                with _whole_parquet(snapshot.path):
                    group = file.read_row_group(number)
                mask = pa.array(failed[row : row + len(group)])
                good.write_table(group.filter(pc.invert(mask)))
                parts.append(group.filter(mask))
                row += len(group)
        left = _placed(scratch / "good.parquet", folder, snapshot.origin)
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


def _frozen(source: Source, scratch: Path) -> Path:
    """Write a source's rows to one Parquet file; where a type is known late only, what was written before is redone."""
    import pyarrow.parquet

    segments: list[_Segment] = []

    def write(table: "pyarrow.Table") -> None:
        if not segments or not segments[-1].schema.equals(table.schema):
            close()
            segments.append(_Segment(scratch / f"{len(segments)}.parquet", table.schema))
        segments[-1].write(table)

    def close() -> None:
        for segment in segments[-1:]:
            segment.close()

    def begin() -> sources.Write:
        close()
        segments.clear()
        return write

    try:
        schema = sources.stream(source, scratch, begin)
    except BaseException:
        for segment in segments[-1:]:
            segment.abandon()
        raise
    close()
    if len(segments) == 1 and segments[0].schema.equals(schema):
        return segments[0].path
    with parquet_writer(scratch / "whole.parquet", schema) as whole:
        for segment in segments:
            with pyarrow.parquet.ParquetFile(segment.path) as file:
                for number in range(file.num_row_groups):
                    whole.write_table(sources.conform(file.read_row_group(number), schema))
            segment.path.unlink()
    return scratch / "whole.parquet"


class _Segment:
    """A part of what is written, all in the types that were known then."""

    def __init__(self, path: Path, schema: "pyarrow.Schema") -> None:
        self.path, self.schema = path, schema
        self._writer = parquet_writer(path, schema)
        self._waiting: list[pyarrow.Table] = []

    def write(self, table: "pyarrow.Table") -> None:
        """Add rows; they are written when there are enough for a row group."""
        self._waiting.append(table)
        rows, size = (sum(each) for each in zip(*((len(one), one.nbytes) for one in self._waiting), strict=True))
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        with suppress(OSError):
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()


def _describe(path: Path, name: str, origin: str) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        columns: dict[str, str] = {field.name: logical_type(field.type) for field in file.schema_arrow}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    snapshot = Snapshot(path, name, rows, columns, origin, created)
    # What was forgotten of it before is in it again.
    path.with_suffix(ERASURE_SUFFIX).unlink(missing_ok=True)
    write_manifest(snapshot)


def _whole(path: Path, name: str, same: Path) -> bool:
    """Tell whether a snapshot is there with its manifest, and its file still holds what its name says.

    That it does is known at once when its bytes are those of the file `same`.
    """
    import pyarrow as pa

    try:
        found = load_snapshot(path)
    except FormatError as error:
        # One that is too old is written again; one that is newer may hold more than this evergreen would write.
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

    Raises ArtifactError when its manifest cannot be read, FormatError when it is of a format that is not read here.
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
    """What a file says of a column: how many nulls, and the least and the greatest value where that is known."""

    nulls: int
    least: Any = None
    greatest: Any = None


class SnapshotFile:
    """A snapshot's file under the names that an Arrow table has, of which columns are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.path = path
        with _whole_parquet(path):
            self._file = pyarrow.parquet.ParquetFile(path)
        self.schema: pyarrow.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names
        self.num_rows: int = self._file.metadata.num_rows

    def select(self, names: Sequence[str]) -> "pyarrow.Table":
        """Read some columns, in this order; raises ArtifactError when the file is damaged."""
        with _whole_parquet(self.path):
            return self._file.read(columns=[*names], use_threads=False).select([*names])

    def column(self, name: str) -> "pyarrow.ChunkedArray":
        """Read one column."""
        return self.select([name]).column(name)

    def filter(self, mask: "numpy.ndarray", names: Sequence[str] | None = None) -> "pyarrow.Table":
        """Read the rows for which a mask is true, one row group after the other; with `names` only these columns."""
        import pyarrow as pa

        empty = self.schema.empty_table().select([*(names or self.column_names)])
        return pa.concat_tables([empty, *self.groups(mask, names)])

    def groups(self, mask: "numpy.ndarray", names: Sequence[str] | None = None) -> Iterator["pyarrow.Table"]:
        """Yield the rows for which a mask is true, those of one row group at a time; with `names` only these columns.

        Raises ArtifactError when the mask is one of another file, as when rows were forgotten meanwhile.
        """
        import pyarrow as pa

        self.check(len(mask))
        row, columns = 0, [*(names or self.column_names)]
        for number in range(self._file.num_row_groups):
            part = mask[row : row + self._file.metadata.row_group(number).num_rows]
            row += len(part)
            if part.any():
                with _whole_parquet(self.path):
                    group = self._file.read_row_group(number, columns=columns)
                yield group.select(columns).filter(pa.array(part))

    def check(self, rows: int) -> None:
        """Raise ArtifactError when the file has not so many rows, as when some were forgotten meanwhile."""
        if rows != self.num_rows:
            raise ArtifactError(
                f"rows of snapshot {self.path.name} were erased in the meantime: it had {rows} rows and now has "
                f"{self.num_rows}; run again",
                code="artifact.rows_removed",
            )

    def digest(self) -> str:
        """Return the digest of all that the file holds, which is its name; reads it, but never all of it at a time."""
        with _whole_parquet(self.path):
            return digest.of_parquet(self.path)

    def coded(self, name: str) -> "pyarrow.ChunkedArray":
        """Read one column of texts as codes of a dictionary, which costs a part of reading them."""
        import pyarrow.parquet

        with _whole_parquet(self.path):
            file = pyarrow.parquet.ParquetFile(self.path, metadata=self._file.metadata, read_dictionary=[name])
            return file.read(columns=[name], use_threads=False).column(name)

    def statistics(self, name: str) -> Statistics | None:
        """Return what the file says of a column of numbers or of another one's nulls; None where it says nothing."""
        metadata, place = self._file.metadata, self.column_names.index(name)
        found = [metadata.row_group(number).column(place).statistics for number in range(metadata.num_row_groups)]
        if not all(one is not None and one.has_null_count for one in found):
            return None
        nulls = sum(one.null_count for one in found)
        known = [one for one in found if one.num_values]
        if str(self.schema.field(name).type) not in ("int64", "double") or not all(one.has_min_max for one in known):
            return Statistics(nulls)
        ends = [end for one in known for end in (one.min, one.max)]
        return Statistics(nulls, min(ends), max(ends)) if ends else Statistics(nulls)


@contextmanager
def _whole_parquet(path: Path) -> Iterator[None]:
    """Say, as an ArtifactError, that a snapshot's file is damaged when that is why reading fails."""
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
