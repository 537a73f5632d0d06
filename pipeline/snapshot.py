"""Raw rows, frozen: one immutable Parquet file named by the digest of its content, and a manifest beside it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import digest, sources
from pipeline.errors import ArtifactError, DataError
from pipeline.files import read_json, whole_file, write_json
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
    """Read a source and freeze its rows as `<digest>.parquet` in the folder.

    The same table, read again, is the same file with its first manifest. Nothing is written when the source cannot be
    read (SourceError) or holds no usable table (DataError).
    """
    import pyarrow.parquet

    table = sources.read(source)
    name = digest.of_table(table)
    path = folder / f"{name}.parquet"
    if not _whole(path, name):
        with whole_file(path) as part:
            pyarrow.parquet.write_table(table, part, compression="zstd")
        columns: dict[str, str] = {field.name: logical_type(field.type) for field in table.schema}
        origin = sources.origin(source)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        snapshot = Snapshot(path, name, table.num_rows, columns, origin, created)
        write_json(
            _manifest(path),
            {key: value for key, value in asdict(snapshot).items() if key != "path"},
        )
    return load_snapshot(path)


def _whole(path: Path, name: str) -> bool:
    """Tell whether a snapshot is there with its manifest, and its file still holds what its name says."""
    try:
        return load_snapshot(path).digest == digest.of_table(_parquet(path)) == name
    except (ArtifactError, DataError, UnicodeDecodeError):
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
