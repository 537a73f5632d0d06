"""Score a table of any size by a packaged model: `python -m bentos.score REQUEST.json` in the folder of a package.

It reports progress on stdout, one JSON object a line: {"total": rows or null, "resumed": rows}, then repeatedly
{"rows", "rejected"}, and at the end {"done": {...}} or {"error": {"type", "message", "code"}}. Scored rows wait in
complete parts in a folder; a killed process loses only its current part, and the next one resumes after the others. The
output appears whole at the end.
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
"""How many tables are scored at the same time."""
PART_ROWS = 2**20
PART_SECONDS = 10.0
"""A part is complete after this many rows or seconds, so a resumed run never scores more than that twice."""
PROGRESS_INTERVAL = 0.2
SOURCE_TYPES: Mapping[str, type[Csv] | type[Parquet] | type[JsonLines] | type[Sql]] = {
    kind.__name__: kind for kind in (Csv, Parquet, JsonLines, Sql)
}
ReportProgress = Callable[[Mapping[str, Any]], None]


class _ChangedError(Exception):
    """The source has other rows than when the existing parts were scored."""


@dataclass(frozen=True)
class _Scored:
    """A table of the source after it was scored.

    Attributes:
        rows: how many rows the table had.
        name: a digest of its rows; empty if the source's files tell whether rows changed.
        answers: keys and answers of the rows that have some.
        rejected: the other rows and why they were rejected; None if there are none.
    """

    rows: int
    name: str
    answers: "pyarrow.Table"
    rejected: "pyarrow.Table | None"


class _Parts:
    """The complete parts in a folder: for each its rows, how many were scored and rejected, and a digest."""

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
        """Which reading of the source the parts come from; a source may have to be read again from its start."""
        return self.known[-1]["reading"] if self.known else 1

    def count(self, name: str) -> int:
        """Sum up `rows`, `scored` or `rejected` over all parts."""
        return sum(part[name] for part in self.known)

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
        """Add a part atomically."""
        number = f"{len(self.known):06}"
        facts: dict[str, Any] = {"rows": sum(table.rows for table in scored), "reading": reading}
        facts["name"] = "".join(table.name for table in scored)
        for kind, tables in {
            "scored": [table.answers for table in scored],
            "rejected": [table.rejected for table in scored if table.rejected is not None],
        }.items():
            facts[kind] = sum(len(table) for table in tables)
            if facts[kind]:
                _write(tables, self.folder / f"{number}.{kind}.arrow")
        write_json(self.folder / f"{number}.json", facts)
        self.known.append(facts)


class _Scoring:
    """One scoring: takes the tables of a source in order, skips those in parts, and scores the others."""

    def __init__(
        self,
        served: ServedModel,
        validator: RowValidator,
        parts: _Parts,
        report: ReportProgress,
        *,
        named: bool,
        retried: bool,
    ) -> None:
        """`named`: digests tell whether rows changed. `retried`: a source that is read again has the same rows."""
        self.served, self.validator, self.parts, self.report = served, validator, parts, report
        self.named, self.retried = named, retried
        self.reading = 0
        self.busy = {"checking": 0.0, "predicting": 0.0, "writing": 0.0}
        self.resumed = parts.count("rows")
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="score")
        self.waiting: deque[Future[_Scored]] = deque()
        self.done: list[_Scored] = []
        self.reported_at = 0.0

    def begin(self) -> sources.Write:
        """Start to take the rows of a source from its first one."""
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
        """Finish the tables that are being scored, and complete the last part."""
        while self.waiting:
            self._next()
        if self.skip:
            raise _ChangedError
        self._close()
        self.pool.shutdown()

    def _take(self, table: "pyarrow.Table") -> None:
        if not self.checked:
            self.validator.check_names(table.column_names)
            self.checked = True
        # An empty table, or a reading whose rows the parts do not need.
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
        expected_rows, expected_name = self.skip[0]
        if rows > expected_rows or (rows == expected_rows and name != expected_name):
            raise _ChangedError
        if rows == expected_rows:
            self.skip.pop(0)
            self.skipped.clear()

    def _name(self, table: "pyarrow.Table") -> str:
        """Return a digest of these rows; empty if the source's files tell whether rows changed."""
        return digest.of_table(table)[:16] if self.named else ""

    def _next(self) -> None:
        scored = self.waiting.popleft().result()
        if not self.done:
            self.since = time.monotonic()
        self.done.append(scored)
        if sum(table.rows for table in self.done) >= PART_ROWS or time.monotonic() - self.since > PART_SECONDS:
            self._close()
        if time.monotonic() - self.reported_at > PROGRESS_INTERVAL:
            self.reported_at = time.monotonic()
            rejected = sum(len(table.rejected) for table in self.done if table.rejected is not None)
            rows = sum(table.rows for table in self.done)
            self.report({"rows": self.parts.count("rows") + rows, "rejected": self.parts.count("rejected") + rejected})

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
        features, refused = self.validator.validate(table)
        mask = pa.array(accepted_rows(refused, table.num_rows)) if refused else None
        good = features if mask is None else features.filter(mask)
        validated = time.perf_counter()
        answers, unanswered = predict_table(self.served, good)
        predicted = time.perf_counter()
        if unanswered:
            positions = (
                range(table.num_rows) if mask is None else mask.to_numpy(zero_copy_only=False).nonzero()[0].tolist()
            )
            refused += [Refused(positions[row], None, "the model has no answer for this row") for row in unanswered]
            refused.sort(key=lambda refusal: refusal.row)
            mask = pa.array(accepted_rows(refused, table.num_rows))
        scored = _with_keys(table, first, mask, answers, self.served.schema.key)
        rejected = _rejected_table(table, first, refused, self.served) if refused else None
        self.busy["checking"] += validated - started
        self.busy["predicting"] += predicted - validated
        return _Scored(table.num_rows, self._name(table), scored, rejected)


def score(request: Mapping[str, Any], report: ReportProgress) -> dict[str, Any]:
    """Score the rows of a source with the artifact in this folder, and write answers and rejected rows.

    Returns how many rows there were, were scored, were rejected and were scored by an earlier process, and the seconds
    of each step. Raises SourceError and DataError as sources do, and DataError for a table that the endpoint would
    refuse as a whole.
    """
    started = time.perf_counter()
    artifact = load_artifact(Path("artifact"), request["artifact"])
    served = ServedModel(artifact, request["release"])
    served.check()
    source = _source(request["source"], artifact.schema.nulls)
    validator = RowValidator(artifact.schema, artifact.guards, getattr(source, "decimal", "."))
    folder = Path(request["folder"])
    marks = fingerprints(source, {}) if isinstance(source, Csv | Parquet | JsonLines) else None
    about = {"artifact": request["artifact"], "source": request["source"], "output": request["output"]}
    seconds = {"start": time.perf_counter() - started}
    while True:
        parts = _Parts(folder, about | {"marks": marks})
        scoring = _Scoring(served, validator, parts, report, named=marks is None, retried=isinstance(source, Sql))
        report({"total": _rows(source), "resumed": scoring.resumed})
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
        **{name: parts.count(name) for name in ("rows", "scored", "rejected")},
        "resumed": scoring.resumed,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _source(settings: Mapping[str, Any], nulls: Sequence[str]) -> Source:
    """Return the source to score: all CSV columns as text, except that the model's null words are null."""
    fields = {name: value for name, value in settings.items() if name != "kind"}
    source = SOURCE_TYPES[settings["kind"]](**fields | {"na_values": tuple(nulls), "types": {}})
    return replace(source, types=dict.fromkeys(sources.names(source), "text")) if isinstance(source, Csv) else source


def _rows(source: Source) -> int | None:
    """Return how many rows a source has, if its files say so without being read; otherwise None."""
    import glob

    import pyarrow.parquet

    if not isinstance(source, Parquet) or "{" in source.path or "://" in source.path:
        return None
    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in glob.glob(source.path) or [source.path])


def _with_keys(
    table: "pyarrow.Table", first: int, mask: "pyarrow.Array | None", answers: Any, key: Sequence[str]
) -> "pyarrow.Table":
    """Return key columns and answers of the rows with answers; without a key, the row's number counted from 1."""
    import numpy as np
    import pyarrow as pa

    columns = {name: table.column(name) for name in key if name in table.column_names}
    if not columns:
        columns["row"] = pa.chunked_array([np.arange(first + 1, first + 1 + table.num_rows)])
    result = pa.table(columns)
    if mask is not None:
        result = result.filter(mask)
    if answers is None:
        return result.slice(0, 0)
    result = result.append_column(
        "prediction", pa.array(answers.predictions.tolist() if answers.labels else answers.predictions)
    )
    if answers.probabilities is not None:
        for label, shares in zip(answers.labels, answers.probabilities.T, strict=True):
            result = result.append_column(f"probability_{formats.word(label)}", pa.array(np.ascontiguousarray(shares)))
    return result


def _rejected_table(
    table: "pyarrow.Table", first: int, refused: Sequence[Refused], served: ServedModel
) -> "pyarrow.Table":
    """Return each refused row once: its number, fields and reasons, then key and features as they came."""
    import pyarrow as pa

    reasons: dict[int, list[Refused]] = {}
    for refusal in refused:
        reasons.setdefault(refusal.row, []).append(refusal)
    columns: dict[str, Any] = {
        "_row": pa.array([first + row + 1 for row in reasons], pa.int64()),
        "_field": pa.array(
            [", ".join(refusal.field for refusal in why if refusal.field) for why in reasons.values()], pa.string()
        ),
        "_reason": pa.array(["; ".join(map(_describe, why)) for why in reasons.values()], pa.string()),
    }
    rows = table.take(list(reasons))
    names = [*served.schema.key, *(feature.name for feature in served.schema.features)]
    columns |= {name: rows.column(name).cast(pa.string()) for name in names if name in table.column_names}
    return pa.table(columns)


def _describe(refusal: Refused) -> str:
    return refusal.problem if refusal.field is None else f"{refusal.field}: {refusal.problem}"


def _write(tables: Sequence["pyarrow.Table"], path: Path) -> None:
    import pyarrow as pa

    whole = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    with whole_file(path) as part, arrow_writer(part, whole.schema) as writer:
        writer.write_table(whole)


def score_packaged(package: Path, request: Mapping[str, Any], report: ReportProgress) -> dict[str, Any]:
    """Run `score` in a process in the source folder of a package, with the packaged code.

    `request` has the digest of the `artifact`, the `release`, the `source` (its kind and fields), the `output`, the
    file for `rejected` rows, and the `folder` for parts, which is removed at the end. Raises DataError and SourceError
    as `score` does, ArtifactError when the package cannot score, and ServerError when the process was killed.
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
            result = _listen(child, report)
        finally:
            child.kill()
            child.wait()
    if result is None:
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise ServerError(
            f"the scoring process ended without a result{': ' if last else ''}{''.join(last)}; run the same command "
            "again: it resumes after the last complete part",
            code="server.ended_early",
        )
    if "error" in result:
        raise _exception(**result["error"])
    shutil.rmtree(folder)
    done: dict[str, Any] = result["done"]
    return done


def _listen(child: "subprocess.Popen[str]", report: ReportProgress) -> dict[str, Any] | None:
    assert child.stdout is not None
    for line in child.stdout:
        message: dict[str, Any] = json.loads(line)
        if "done" in message or "error" in message:
            return message
        report(message)
    return None


def _exception(type: str, message: str, code: str | None = None) -> Exception:
    known = {kind.__name__: kind for kind in (ArtifactError, DataError, ServerError, SourceError, StorageError)}
    return known[type](message, code=code) if type in known else ServerError(f"{type}: {message}", code="server.failed")


def _run(path: Path) -> None:
    """Score one request. Messages go to the real stdout; whatever else is printed goes to stderr."""
    import filelock

    exit_with_parent(os.getppid())
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def report(message: Mapping[str, Any]) -> None:
        output.write(json.dumps(message, allow_nan=False) + "\n")

    try:
        request = read_json(path)
        # A process whose parent was killed needs a moment to end.
        with filelock.FileLock(Path(request["folder"]) / "lock", timeout=5):
            report({"done": score(request, report)})
    except filelock.Timeout:
        text = "another process scores into the same output; wait until it has ended"
        report({"error": {"type": "StorageError", "message": text, "code": "storage.in_use"}})
    except Exception as error:
        code = error.code if isinstance(error, EvergreenError) else None
        report({"error": {"type": type(error).__name__, "message": str(error), "code": code}})


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
