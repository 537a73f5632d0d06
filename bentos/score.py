"""Score a table of any size by a packaged model: `python -m bentos.score REQUEST.json` in the folder of a package.

It tells how far it is on stdout, a JSON object a line: {"total": rows or null, "resumed": rows}, then again and again
{"rows", "rejected"}, and at last {"done": {...}} or {"error": {"type", "message", "code"}}. What is scored waits in
whole parts in a folder of its own; a process that is killed loses the part that it was at. The output appears whole at
the end.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentos.endpoint import formats
from bentos.endpoint.model import ServedModel
from bentos.scoring.output import Output, deliver
from bentos.scoring.predict import predict_table
from bentos.scoring.validation import Refused, RowValidator, accepted_rows
from pipeline import digest, sources
from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError, DataError, EvergreenError, ServerError, SourceError, StorageError
from pipeline.files import arrow_writer, read_json, scratch_folder, space_for, whole_file, write_json
from pipeline.processes import exit_with_parent, packaged_environment
from pipeline.run_in_package import protocol_of
from pipeline.sources import Csv, JsonLines, Parquet, Source, Sql
from pipeline.sources.locations import fingerprints

if TYPE_CHECKING:
    import pyarrow

THREADS = 2
"""So many tables are scored at the same time."""
PART_ROWS = 2**20
PART_SECONDS = 10.0
"""A part is whole after so many rows or seconds, whatever is first: more than that is never scored twice."""
PROGRESS_INTERVAL = 0.2
SOURCE_TYPES: Mapping[str, type[Csv] | type[Parquet] | type[JsonLines] | type[Sql]] = {
    kind.__name__: kind for kind in (Csv, Parquet, JsonLines, Sql)
}
ReportProgress = Callable[[Mapping[str, Any]], None]


class _ChangedError(Exception):
    """What was read before is not what is read now."""


@dataclass(frozen=True)
class _Scored:
    """A table of the source after it was scored."""

    rows: int
    name: str
    answers: "pyarrow.Table"
    rejected: "pyarrow.Table | None"


class _Parts:
    """The whole parts in a folder: of each its rows, how many are scored and rejected, and what tells its rows."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        path = folder / "request.json"
        self.known: list[dict[str, Any]] = []
        try:
            same = read_json(path) == json.loads(json.dumps(about))
        except (OSError, ValueError):
            same = False
        if same:
            while (folder / f"{len(self.known):06}.json").exists():
                self.known.append(read_json(folder / f"{len(self.known):06}.json"))
        else:
            self.forget()
            write_json(path, about)

    @property
    def reading(self) -> int:
        """Which reading of the source the parts are of: one may have to be read again, otherwise."""
        return self.known[-1]["reading"] if self.known else 1

    def count(self, what: str) -> int:
        """Sum up `rows`, `scored` or `rejected` over all parts."""
        return sum(part[what] for part in self.known)

    def files(self, kind: str) -> list[Path]:
        """Return the Arrow files of `scored` or `rejected` rows."""
        return [self.folder / f"{number:06}.{kind}.arrow" for number, part in enumerate(self.known) if part[kind]]

    def forget(self) -> None:
        """Remove all parts."""
        for path in self.folder.iterdir():
            if path.suffix in (".json", ".arrow") and path.name != "request.json":
                path.unlink()
        self.known = []

    def add(self, scored: Sequence[_Scored], reading: int) -> None:
        """Add a part, whole or not at all."""
        number = f"{len(self.known):06}"
        facts: dict[str, Any] = {"rows": sum(one.rows for one in scored), "reading": reading}
        facts["name"] = "".join(one.name for one in scored)
        for kind, tables in {
            "scored": [one.answers for one in scored],
            "rejected": [one.rejected for one in scored if one.rejected is not None],
        }.items():
            facts[kind] = sum(len(table) for table in tables)
            if facts[kind]:
                _write(tables, self.folder / f"{number}.{kind}.arrow")
        write_json(self.folder / f"{number}.json", facts)
        self.known.append(facts)


class _Scoring:
    """One scoring: takes the tables of a source in order, scores what no part has yet, and gathers parts."""

    def __init__(
        self,
        served: ServedModel,
        admission: RowValidator,
        parts: _Parts,
        tell: ReportProgress,
        *,
        named: bool,
        retried: bool,
    ) -> None:
        """`named` tells rows apart by their content; `retried` sources that begin again do so with the same rows."""
        self.served, self.admission, self.parts, self.tell = served, admission, parts, tell
        self.named, self.retried = named, retried
        self.reading = 0
        self.busy = {"checking": 0.0, "predicting": 0.0, "writing": 0.0}
        self.resumed = parts.count("rows")
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        self.waiting: deque[Future[_Scored]] = deque()
        self.done: list[_Scored] = []
        self.told = 0.0

    def begin(self) -> sources.Write:
        """Begin to take the rows of a source from its first one on."""
        self.reading += 1
        self._drop()
        if not self.retried and self.reading > self.parts.reading:
            self.parts.forget()
            self.resumed = 0
        self.row = 0
        self.skip = [(part["rows"], part["name"]) for part in self.parts.known]
        self.skipped: list[tuple[int, str]] = []
        self.checked = False
        return self._take

    def end(self) -> None:
        """Score what is under way, and make the last part whole."""
        while self.waiting:
            self._next()
        if self.skip:
            raise _ChangedError
        self._close()
        self.pool.shutdown()

    def _take(self, table: "pyarrow.Table") -> None:
        if not self.checked:
            self.admission.check_names(table.column_names)
            self.checked = True
        # A reading that is going to be void.
        if not table.num_rows or (not self.retried and self.reading < self.parts.reading):
            return
        first, self.row = self.row, self.row + table.num_rows
        if self.skip:
            self._skip(table)
            return
        self.waiting.append(self.pool.submit(self._score, table, first))
        if len(self.waiting) > THREADS:
            self._next()

    def _skip(self, table: "pyarrow.Table") -> None:
        self.skipped.append((table.num_rows, self._name(table)))
        rows, name = sum(rows for rows, _ in self.skipped), "".join(name for _, name in self.skipped)
        wanted = self.skip[0]
        if rows > wanted[0] or (rows == wanted[0] and name != wanted[1]):
            raise _ChangedError
        if rows == wanted[0]:
            self.skip.pop(0)
            self.skipped.clear()

    def _name(self, table: "pyarrow.Table") -> str:
        """Return what tells these rows from others, where the source's files do not."""
        return digest.of_table(table)[:16] if self.named else ""

    def _next(self) -> None:
        scored = self.waiting.popleft().result()
        if not self.done:
            self.since = time.monotonic()
        self.done.append(scored)
        if sum(one.rows for one in self.done) >= PART_ROWS or time.monotonic() - self.since > PART_SECONDS:
            self._close()
        if time.monotonic() - self.told > PROGRESS_INTERVAL:
            self.told = time.monotonic()
            rejected = sum(len(one.rejected) for one in self.done if one.rejected is not None)
            rows = sum(one.rows for one in self.done)
            self.tell({"rows": self.parts.count("rows") + rows, "rejected": self.parts.count("rejected") + rejected})

    def _close(self) -> None:
        started = time.perf_counter()
        if self.done:
            self.parts.add(self.done, self.reading)
            self.done = []
        self.busy["writing"] += time.perf_counter() - started

    def _drop(self) -> None:
        while self.waiting:
            self.waiting.popleft().cancel()
        self.done = []

    def _score(self, table: "pyarrow.Table", first: int) -> _Scored:
        import pyarrow as pa

        started = time.perf_counter()
        features, refused = self.admission.validate(table)
        mask = pa.array(accepted_rows(refused, table.num_rows)) if refused else None
        good = features if mask is None else features.filter(mask)
        admitted = time.perf_counter()
        answers, none = predict_table(self.served, good)
        predicted = time.perf_counter()
        if none:
            places = (
                range(table.num_rows) if mask is None else mask.to_numpy(zero_copy_only=False).nonzero()[0].tolist()
            )
            refused += [Refused(places[one], None, "the model has no answer for this row") for one in none]
            refused.sort(key=lambda one: one.row)
            mask = pa.array(accepted_rows(refused, table.num_rows))
        scored = _answered(table, first, mask, answers, self.served.schema.key)
        rejected = _set_aside(table, first, refused, self.served) if refused else None
        self.busy["checking"] += admitted - started
        self.busy["predicting"] += predicted - admitted
        return _Scored(table.num_rows, self._name(table), scored, rejected)


def score(request: Mapping[str, Any], tell: ReportProgress) -> dict[str, Any]:
    """Score the rows of a source by the artifact in this folder, and deliver answers and rejected rows.

    Returns how many rows there were, were scored, were rejected, and were scored by a process before this one, and the
    seconds that it took. Raises SourceError and DataError as sources do, DataError also for what the endpoint would
    refuse as a whole.
    """
    started = time.perf_counter()
    artifact = load_artifact(Path("artifact"), request["artifact"])
    served = ServedModel(artifact, request["release"])
    served.check()
    source = _source(request["source"], artifact.schema.nulls)
    admission = RowValidator(artifact.schema, artifact.guards, getattr(source, "decimal", "."))
    folder = Path(request["folder"])
    found = fingerprints(source, {}) if isinstance(source, Csv | Parquet | JsonLines) else None
    about = {"artifact": request["artifact"], "source": request["source"], "output": request["output"]}
    seconds = {"start": time.perf_counter() - started}
    while True:
        parts = _Parts(folder, about | {"marks": found})
        scoring = _Scoring(served, admission, parts, tell, named=found is None, retried=isinstance(source, Sql))
        tell({"total": _rows(source), "resumed": scoring.resumed})
        began = time.perf_counter()
        try:
            with scratch_folder(folder) as scratch, space_for(folder):
                sources.stream(source, scratch, scoring.begin)
                scoring.end()
            break
        except _ChangedError:
            parts.forget()
    seconds |= {"scoring": time.perf_counter() - began, **scoring.busy}
    began = time.perf_counter()
    rejected = Path(request["rejected"])
    if parts.count("rejected"):
        deliver(parts.files("rejected"), Output("csv", str(rejected)))
    else:
        rejected.unlink(missing_ok=True)
    if not parts.count("scored"):
        raise DataError(
            f"none of {parts.count('rows'):,} rows can be scored; {rejected} has the reasons",
            code="data.nothing_to_score",
        )
    deliver(parts.files("scored"), Output(**request["output"]))
    seconds["output"] = time.perf_counter() - began
    return {
        **{what: parts.count(what) for what in ("rows", "scored", "rejected")},
        "resumed": scoring.resumed,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _source(said: Mapping[str, Any], nulls: Sequence[str]) -> Source:
    """Return a source as it is scored: the words of a CSV stay as they are written, but for the model's null words."""
    fields = {name: value for name, value in said.items() if name != "kind"}
    source = SOURCE_TYPES[said["kind"]](**fields | {"na_values": tuple(nulls), "types": {}})
    return replace(source, types=dict.fromkeys(sources.names(source), "text")) if isinstance(source, Csv) else source


def _rows(source: Source) -> int | None:
    """Return how many rows a source has, where that is written down."""
    import glob

    import pyarrow.parquet

    if not isinstance(source, Parquet) or "{" in source.path or "://" in source.path:
        return None
    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in glob.glob(source.path) or [source.path])


def _answered(
    table: "pyarrow.Table", first: int, mask: "pyarrow.Array | None", answers: Any, key: Sequence[str]
) -> "pyarrow.Table":
    """Return the key columns, or the row's number where there are none, then the answers, of rows that have some."""
    import numpy as np
    import pyarrow as pa

    columns = {name: table.column(name) for name in key if name in table.column_names}
    if not columns:
        columns["row"] = pa.chunked_array([np.arange(first + 1, first + 1 + table.num_rows)])
    told = pa.table(columns)
    if mask is not None:
        told = told.filter(mask)
    if answers is None:
        return told.slice(0, 0)
    told = told.append_column(
        "prediction", pa.array(answers.predictions.tolist() if answers.labels else answers.predictions)
    )
    if answers.probabilities is not None:
        for label, shares in zip(answers.labels, answers.probabilities.T, strict=True):
            told = told.append_column(f"probability_{formats.word(label)}", pa.array(np.ascontiguousarray(shares)))
    return told


def _set_aside(table: "pyarrow.Table", first: int, refused: Sequence[Refused], served: ServedModel) -> "pyarrow.Table":
    """Return the rows that are refused, once each: number, fields and reasons, then key and features as they came."""
    import pyarrow as pa

    reasons: dict[int, list[Refused]] = {}
    for one in refused:
        reasons.setdefault(one.row, []).append(one)
    columns: dict[str, Any] = {
        "_row": pa.array([first + row + 1 for row in reasons], pa.int64()),
        "_field": pa.array([", ".join(one.field for one in why if one.field) for why in reasons.values()], pa.string()),
        "_reason": pa.array(["; ".join(map(_said, why)) for why in reasons.values()], pa.string()),
    }
    rows = table.take(list(reasons))
    wanted = [*served.schema.key, *(feature.name for feature in served.schema.features)]
    columns |= {name: rows.column(name).cast(pa.string()) for name in wanted if name in table.column_names}
    return pa.table(columns)


def _said(one: Refused) -> str:
    return one.problem if one.field is None else f"{one.field}: {one.problem}"


def _write(tables: Sequence["pyarrow.Table"], path: Path) -> None:
    import pyarrow as pa

    whole = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    with whole_file(path) as part, arrow_writer(part, whole.schema) as writer:
        writer.write_table(whole)


def score_packaged(package: Path, request: Mapping[str, Any], tell: ReportProgress) -> dict[str, Any]:
    """Do `score` in a process of its own, in the source folder of a package, with the code it was packaged with.

    `request` says the digest of the `artifact`, the `release`, the `source` (its kind and fields), the `output`, the
    file for `rejected` rows, and the `folder` where parts wait, which is removed at the end. Raises DataError and
    SourceError as `score` does, ArtifactError where the package cannot score, ServerError when something ended it.
    """
    module = protocol_of(package).modules["score"]
    folder = Path(request["folder"])
    write_json(folder / "asked.json", request)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(folder / "asked.json")],
            cwd=package,
            # As in a server's worker.
            env=packaged_environment() | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            said = _listen(child, tell)
        finally:
            child.kill()
            child.wait()
    if said is None:
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise ServerError(
            f"the scoring process ended without a result{': ' if last else ''}{''.join(last)}; run the same command "
            "again: it resumes after the last complete part",
            code="server.ended_early",
        )
    if "error" in said:
        raise _raised(**said["error"])
    shutil.rmtree(folder)
    done: dict[str, Any] = said["done"]
    return done


def _listen(child: "subprocess.Popen[str]", tell: ReportProgress) -> dict[str, Any] | None:
    assert child.stdout is not None
    for line in child.stdout:
        said: dict[str, Any] = json.loads(line)
        if "done" in said or "error" in said:
            return said
        tell(said)
    return None


def _raised(type: str, message: str, code: str | None = None) -> Exception:
    known = {kind.__name__: kind for kind in (ArtifactError, DataError, ServerError, SourceError, StorageError)}
    return known[type](message, code=code) if type in known else ServerError(f"{type}: {message}", code="server.failed")


def _run(path: Path) -> None:
    """Answer one request; what stdout is for others goes to stderr."""
    import filelock

    exit_with_parent(os.getppid())
    voice = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(said: Mapping[str, Any]) -> None:
        voice.write(json.dumps(said, allow_nan=False) + "\n")

    try:
        request = read_json(path)
        # A process whose parent was killed needs a moment to end.
        with filelock.FileLock(Path(request["folder"]) / "lock", timeout=5):
            tell({"done": score(request, tell)})
    except filelock.Timeout:
        message = "another process scores into the same output; wait until it has ended"
        tell({"error": {"type": "StorageError", "message": message, "code": "storage.in_use"}})
    except Exception as error:
        code = error.code if isinstance(error, EvergreenError) else None
        tell({"error": {"type": type(error).__name__, "message": str(error), "code": code}})


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
