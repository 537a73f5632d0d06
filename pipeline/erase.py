"""Rows taken out of what was frozen of them, for a person who may ask for that; what is left keeps its name.

A snapshot that lost rows is no longer what its digest says. A record beside it, `<digest>.forgotten`, tells how many it
lost and when; whose they were is there by a digest alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import digest
from pipeline.errors import ArtifactError
from pipeline.files import parquet_writer, read_json, whole_file, write_json
from pipeline.snapshot import ERASURE_SUFFIX, load_snapshot, write_manifest

if TYPE_CHECKING:
    import pyarrow


def erase_from_snapshot(path: Path, key: Mapping[str, str], why: str) -> "pyarrow.Table":
    """Take the rows with these values of key columns out of a snapshot's Parquet file, and return them.

    Values are given as text and compared in the column's type. The snapshot's manifest and its record are written
    first: when this is killed, the same again ends it. Raises ArtifactError when the file is damaged.
    """
    rows, left = matching(path, key)
    if rows.num_rows:
        record = _record(path)
        whose = digest.of_value(dict(sorted(key.items())))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path.with_suffix(ERASURE_SUFFIX), {**record, whose: {"rows": rows.num_rows, "at": at, "why": why}})
        write_manifest(replace(load_snapshot(path), rows=left))
        erase_from_file(path, key)
    return rows


def erase_from_file(path: Path, key: Mapping[str, str], prefix: str = "") -> None:
    """Write a Parquet file anew, whole or not at all, without the rows with these values of key columns.

    `prefix` is what the names of the key columns begin with there. Row group by row group, never all in memory.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet

    with (
        pyarrow.parquet.ParquetFile(path) as file,
        whole_file(path) as part,
        parquet_writer(part, file.schema_arrow) as left,
    ):
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            left.write_table(group.filter(pc.invert(_mask(group, key, prefix))))


def matching(path: Path, key: Mapping[str, str], prefix: str = "") -> tuple["pyarrow.Table", int]:
    """Return the rows of a Parquet file with these values of key columns, and how many others there are.

    None match where the file lacks one of the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet

    names = [f"{prefix}{name}" for name in key]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            parts = [file.schema_arrow.empty_table()]
            if {*names} <= {*file.schema_arrow.names}:
                for number in range(file.num_row_groups):
                    mask = _mask(file.read_row_group(number, columns=names), key, prefix)
                    if mask.true_count:
                        parts.append(file.read_row_group(number).filter(mask))
            found = pa.concat_tables(parts)
            return found, file.metadata.num_rows - found.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read, so it is not known whether it holds such rows ({error}); restore or delete it",
            code="artifact.unreadable",
        ) from error


def can_hold(path: Path, name: str, text: str) -> bool:
    """Tell whether a Parquet file has a column of that name whose type could hold a value given as text."""
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    return name in schema.names and _cast(text, schema.field(name).type) is not None


def check_whole(path: Path) -> None:
    """Raise ArtifactError when rows of the snapshot at `path` were forgotten: nothing can be trained on it again."""
    if record := _record(path):
        rows = sum(erasure["rows"] for erasure in record.values())
        last = max(erasure["at"] for erasure in record.values())
        raise ArtifactError(
            f"{rows} {'rows' if rows > 1 else 'row'} of snapshot {path.stem[: digest.SHORT]} "
            f"{'were' if rows > 1 else 'was'} erased, the last on {last}; what was trained on it cannot be reproduced",
            code="artifact.rows_erased",
        )


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path.with_suffix(ERASURE_SUFFIX)))
    except FileNotFoundError:
        return {}


def _mask(table: "pyarrow.Table", key: Mapping[str, str], prefix: str) -> "pyarrow.BooleanArray":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.array(np.ones(len(table), bool))
    for name, text in key.items():
        column = table.column(f"{prefix}{name}").combine_chunks()
        value = _cast(text, column.type)
        if value is None:
            return pa.array(np.zeros(len(table), bool))
        found = pc.and_(found, pc.fill_null(pc.equal(column, value), False))
    return found


def _cast(text: str, kind: "pyarrow.DataType") -> "pyarrow.Scalar | None":
    import pyarrow as pa

    try:
        return pa.scalar(text).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
