"""Raw rows, frozen: one immutable Parquet file named by the digest of its content, and a manifest beside it."""

import filecmp
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import digest, sources
from pipeline.errors import ArtifactError, DataError
from pipeline.files import put, read_json, scratch_folder, space_for, write_json
from pipeline.sources import Source, logical_type

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Snapshot:
    """One ingest: where its file is, and what its manifest says."""

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

    The same table, read again, is the same file with its first manifest. Nothing is written when the source cannot be
    read (SourceError) or holds no usable table (DataError).
    """
    with space_for(folder), scratch_folder(folder) as scratch:
        part = _frozen(source, scratch)
        name = digest.of_parquet(part)
        path = folder / f"{name}.parquet"
        if not _whole(path, name, part):
            put(part, path)
            _describe(path, name, source)
    return load_snapshot(path)


def _frozen(source: Source, scratch: Path) -> Path:
    """Write a source's rows to one Parquet file; where a type is known late only, what was written before is redone."""
    import pyarrow.parquet

    segments: list[_Segment] = []

    def write(table: "pyarrow.Table") -> None:
        if not segments or not segments[-1].schema.equals(table.schema):
            close()
            segments.append(_Segment(scratch / f"{len(segments)}.parquet", table.schema))
        segments[-1].writer.write_table(table)

    def close() -> None:
        for segment in segments[-1:]:
            segment.writer.close()

    def begin() -> sources.Write:
        close()
        segments.clear()
        return write

    try:
        schema = sources.stream(source, begin)
    finally:
        close()
    if len(segments) == 1 and segments[0].schema.equals(schema):
        return segments[0].path
    with _writer(scratch / "whole.parquet", schema) as whole:
        for segment in segments:
            with pyarrow.parquet.ParquetFile(segment.path) as file:
                for number in range(file.num_row_groups):
                    whole.write_table(sources.conform(file.read_row_group(number), schema))
            segment.path.unlink()
    return scratch / "whole.parquet"


class _Segment:
    """A part of what is written, all in the types that were known then."""

    def __init__(self, path: Path, schema: "pyarrow.Schema") -> None:
        self.path, self.schema, self.writer = path, schema, _writer(path, schema)


def _writer(path: Path, schema: "pyarrow.Schema") -> "pyarrow.parquet.ParquetWriter":
    import pyarrow as pa
    import pyarrow.parquet

    # Numbers seldom repeat: a dictionary of them costs more time than it saves space.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts)


def _describe(path: Path, name: str, source: Source) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        columns: dict[str, str] = {field.name: logical_type(field.type) for field in file.schema_arrow}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    snapshot = Snapshot(path, name, rows, columns, sources.origin(source), created)
    write_json(_manifest(path), {key: value for key, value in asdict(snapshot).items() if key != "path"})


def _whole(path: Path, name: str, same: Path) -> bool:
    """Tell whether a snapshot is there with its manifest, and its file still holds what its name says.

    That it does is known at once when its bytes are those of the file `same`.
    """
    import pyarrow as pa

    try:
        if load_snapshot(path).digest != name:
            return False
        return filecmp.cmp(path, same, shallow=False) or digest.of_parquet(path) == name
    except (ArtifactError, DataError, UnicodeDecodeError, pa.ArrowException, OSError):
        return False


def load_snapshot(path: Path) -> Snapshot:
    """Return the snapshot whose Parquet file is at `path`."""
    try:
        manifest: dict[str, Any] = read_json(_manifest(path))
        return Snapshot(path=path, **manifest)
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"snapshot {path.name} has no readable manifest ({error}); run again to ingest anew"
        ) from error


def read_snapshot(snapshot: Snapshot) -> "pyarrow.Table":
    """Return a snapshot's rows; raises ArtifactError when the file is damaged."""
    return _parquet(snapshot.path)


def _parquet(path: Path) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise ArtifactError(f"snapshot {path.name} cannot be read ({error}); run again to ingest anew") from error


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")
