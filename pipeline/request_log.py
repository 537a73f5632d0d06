"""The log of what an endpoint was asked and answered: whole Parquet files, of which the newest days and bytes stay.

Each worker writes files of its own. Their rows are a sample, in these columns; their metadata holds what the worker
counted of all requests meanwhile.

| column | holds |
|---|---|
| `time` | when the answer was there, in UTC |
| `request`, `row` | the request's id, and the row's place in it, from 0 |
| `release` | the release that answered; null where none was known |
| `prediction` | a number, or the label as text |
| `probability.<label>` | of a classifier |
| `key.<name>` | a key column as text, as it was sent; null where it was not |
| `feature.<name>` | a feature, null where it was; none that the spec calls sensitive |
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import FormatError
from pipeline.files import write_parquet
from pipeline.formats import REQUEST_LOG, check_format

if TYPE_CHECKING:
    import pyarrow

KEY, FEATURE, PROBABILITY = "key.", "feature.", "probability."
"""How the names of columns begin that hold what the caller's columns and labels are called."""
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_FACTS = b"evergreen"


@dataclass(frozen=True)
class Counts:
    """What one worker counted of all requests to predict from `began` to `ended`, in seconds since 1970.

    `refused` are answers with a status from 400 on, `errors` from 500 on. `seconds` are requests by the time to answer,
    in buckets that `edges` bound, the last one beyond them. `logged` rows are in the file, and the rows of `dropped`
    requests are not, though they were of the sample.
    """

    release: int | None
    began: float
    ended: float
    requests: int = 0
    refused: int = 0
    errors: int = 0
    rows: int = 0
    nulls: int = 0
    unseen: int = 0
    seconds: tuple[int, ...] = ()
    edges: tuple[float, ...] = ()
    logged: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Recorded:
    """What was read of a log.

    Attributes:
        tables: the logged rows, by release.
        counts: what the workers counted, in order.
        unreadable: names of the files that cannot be read, or the sentence that refuses their format.
    """

    tables: "dict[int | None, pyarrow.Table]"
    counts: tuple[Counts, ...]
    unreadable: tuple[str, ...] = ()


def write(folder: Path, table: "pyarrow.Table", counts: Counts) -> Path:
    """Write a file of the log, whole or not at all; OSError or StorageError when that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromtimestamp(counts.ended, UTC).strftime(_STAMP)
    path = folder / f"{stamp}-{os.getpid()}-{secrets.token_hex(3)}.parquet"
    facts = json.dumps({"format": REQUEST_LOG.current, **asdict(counts)}, allow_nan=False).encode()
    write_parquet(path, table.replace_schema_metadata({_FACTS: facts}))
    return path


def read(folder: Path, since: datetime) -> Recorded:
    """Return what was logged from a time in UTC on; a file that disappears meanwhile was too old to stay."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet

    parts: dict[int | None, list[pyarrow.Table]] = {}
    counts: list[Counts] = []
    unreadable: list[str] = []
    for written, path in files(folder):
        if written < since:
            continue
        try:
            # Not by path alone: a folder's name with "=" in it would become a column.
            with pyarrow.parquet.ParquetFile(path) as file:
                table = file.read(use_threads=False)
            facts = json.loads(table.schema.metadata[_FACTS])
            check_format(REQUEST_LOG, facts.get("format"), f"request log {path.name}")
            found = _counts(facts)
        except FileNotFoundError:
            continue
        except FormatError as error:
            unreadable.append(str(error))
            continue
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError):
            unreadable.append(path.name)
            continue
        counts.append(found)
        if table.num_rows:
            rows = table.filter(pc.greater_equal(table.column("time"), pa.scalar(since.replace(tzinfo=None))))
            parts.setdefault(found.release, []).append(rows.replace_schema_metadata(None))
    tables = {release: pa.concat_tables(found, promote_options="permissive") for release, found in parts.items()}
    return Recorded(tables, tuple(counts), tuple(unreadable))


def prune(folder: Path, most_bytes: int, days: float) -> None:
    """Remove what is older than so many days, and the oldest of what is more than so many bytes."""
    oldest = datetime.now(UTC) - timedelta(days=days)
    room = most_bytes
    for written, path in reversed(list(files(folder))):
        # Another worker may do the same at the same time.
        with suppress(FileNotFoundError):
            room -= path.stat().st_size
            if room < 0 or written < oldest:
                path.unlink()


def files(folder: Path) -> Iterator[tuple[datetime, Path]]:
    """Yield the files of a log with the times at which they were written, the oldest first."""
    for path in sorted(folder.glob("*.parquet")):
        if not path.name.startswith("."):
            with suppress(ValueError):
                yield datetime.strptime(path.name.partition("-")[0], _STAMP).replace(tzinfo=UTC), path


def _counts(value: dict[str, Any]) -> Counts:
    known = {name: value[name] for name in (field.name for field in fields(Counts)) if name in value}
    plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in known.items()}
    return Counts(**plain)
