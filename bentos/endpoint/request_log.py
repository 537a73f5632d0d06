"""The log of requests: a sample of what was asked and answered, written to files by a thread that no request waits for.

A request that is in the sample costs one tuple in a queue. The thread reads its body again, which costs no more than
keeping what was read would, and leaves the interpreter to requests after every fraction of a millisecond. What the
queue has no room for is dropped and counted, and so is what the disk does not take.

BentoML's own hooks (`bentoml.monitor`) write each row as JSON while its request waits, raise what the disk raises into
it, keep every file for ever, and know no sample; so they are not used.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any

import orjson

from bentos.endpoint import formats
from bentos.endpoint.batch import Batch
from bentos.endpoint.metrics import SECONDS, Metrics
from bentos.endpoint.model import ServedModel
from pipeline import request_log
from pipeline.files import sweep
from pipeline.predict import Answers
from pipeline.request_log import FEATURE, KEY, PROBABILITY, Counts
from pipeline.sources import LogicalType

if TYPE_CHECKING:
    import pyarrow

WRITE_INTERVAL = 60.0
"""How long rows wait for a file at most."""
WRITE_BYTES = 8 * 2**20
"""From so many bytes of bodies on a file is written at once."""
MAX_BYTES = 32 * 2**20
"""So many bytes of bodies wait at most; with more, requests are not logged."""
POLL_INTERVAL = 0.5
TIME_SLICE = 0.0005
"""How long the thread works before it lets others run, and for how long it does."""
CHUNK = 1000
CLOSE_TIMEOUT = 5.0
"""How long the end of a worker waits for the last file."""

_Noted = tuple[float, str, bytes, Answers, bytes]

logger = logging.getLogger("evergreen")


class Recorder:
    """Keeps a sample of what one worker is asked and answers, in files of its own."""

    def __init__(self, served: ServedModel, metrics: Metrics, folder: Path, settings: Mapping[str, Any]) -> None:
        """`settings` are those of `pipeline.spec.RequestLog`, with the names that are `sensitive`."""
        self._served, self._metrics, self._folder = served, metrics, folder
        self._share: float = settings["sample_rate"]
        self._most_bytes, self._days = settings["max_bytes"], settings["retention_days"]
        hidden = {*settings["sensitive"]}
        self._features = [feature for feature in served.schema.features if feature.name not in hidden]
        self._keys = [name for name in served.schema.key if name not in hidden]
        self._waiting: deque[_Noted] = deque()
        # Each is added to by one thread alone, so that neither needs a lock.
        self._came = self._gone = 0
        self._dropped = 0
        self._before: dict[str, Any] = {"dropped": 0}
        self._began = time.time()
        self._troubled = False
        self._worked = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def note(self, media: str, body: bytes, answers: Answers, request: bytes) -> None:
        """Keep a request and its answers, if it is in the sample and there is room."""
        if random() >= self._share:
            return
        if self._came - self._gone > MAX_BYTES:
            self._dropped += 1
            self._metrics.not_logged()
            return
        self._came += len(body)
        self._waiting.append((time.time(), media, body, answers, request))

    def close(self) -> None:
        """Write what waits, unless that takes too long."""
        self._metrics.flush()
        self._over.set()
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        written = time.monotonic()
        over = False
        while not over:
            over = self._over.wait(POLL_INTERVAL)
            now = time.monotonic()
            if over or now - written >= WRITE_INTERVAL or self._came - self._gone >= WRITE_BYTES:
                written = now
                try:
                    self._write()
                    self._troubled = False
                except Exception as error:
                    # Whatever it is, it must end neither this thread nor a request; said once, not every minute.
                    if not self._troubled:
                        logger.error("the log of requests cannot be written: %s: %s", type(error).__name__, error)
                    self._troubled = True

    def _write(self) -> None:
        """Write a file of what waits and what was counted, if there is any, and remove what is too old or too much."""
        noted = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            if noted or self._counts(0).requests:
                sweep(self._folder)
                table = self._table(noted)
                counts = self._counts(table.num_rows)
                request_log.write(self._folder, table, counts)
                self._began = counts.ended
                self._before = self._now
                self._metrics.logged(table.num_rows)
        except BaseException:
            self._dropped += len(noted)
            self._metrics.lost(len(noted))
            raise
        finally:
            self._gone += sum(len(body) for _, _, body, _, _ in noted)
            if self._folder.exists():
                request_log.prune(self._folder, self._most_bytes, self._days)

    def _counts(self, logged: int) -> Counts:
        """Return what was counted since the last file that was written."""
        self._now = now = {**self._metrics.counters(), "dropped": self._dropped}
        before = self._before

        def since(name: str) -> int:
            return int(now[name] - before.get(name, 0))

        answers = {
            status: count - before.get("statuses", {}).get(status, 0) for status, count in now["statuses"].items()
        }
        quick = before.get("seconds", [0] * len(now["seconds"]))
        return Counts(
            release=self._served.release,
            began=self._began,
            ended=time.time(),
            requests=sum(answers.values()),
            refused=sum(count for status, count in answers.items() if int(status) >= 400),
            errors=sum(count for status, count in answers.items() if int(status) >= 500),
            rows=since("rows"),
            nulls=since("nulls"),
            unseen=since("unseen"),
            seconds=tuple(count - one for count, one in zip(now["seconds"], quick, strict=True)),
            edges=SECONDS,
            logged=logged,
            dropped=since("dropped"),
        )

    def _table(self, noted: Sequence[_Noted]) -> "pyarrow.Table":
        import pyarrow as pa

        schema = self._schema()
        chunks: list[pyarrow.RecordBatch] = []
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        for one in noted:
            self._add(columns, *one)
            self._rest()
            if len(columns["time"]) >= CHUNK:
                chunks.append(self._chunk(columns, schema))
                columns = {name: [] for name in schema.names}
        chunks.append(self._chunk(columns, schema))
        return pa.Table.from_batches(chunks, schema)

    def _schema(self) -> "pyarrow.Schema":
        import pyarrow as pa

        arrow: Mapping[LogicalType, Any] = {
            "number": pa.float64(),
            "boolean": pa.bool_(),
            "timestamp": pa.timestamp("us"),
            "text": pa.string(),
        }
        labels = self._served.artifact.manifest["labels"]
        return pa.schema(
            [
                ("time", pa.timestamp("us")),
                ("request", pa.string()),
                ("row", pa.int32()),
                ("release", pa.int32()),
                ("prediction", pa.string() if labels else pa.float64()),
                *((f"{PROBABILITY}{formats.word(label)}", pa.float64()) for label in labels),
                *((f"{KEY}{name}", pa.string()) for name in self._keys),
                *((f"{FEATURE}{feature.name}", arrow[feature.type]) for feature in self._features),
            ]
        )

    def _add(
        self, columns: dict[str, list[Any]], at: float, media: str, body: bytes, answers: Answers, request: bytes
    ) -> None:
        """Add the rows of a request to columns."""
        batch = self._served.read(media, body)
        if not isinstance(batch, Batch):
            return
        size, plain = batch.size, batch.part(0, batch.size).columns
        columns["time"] += [int(at * 1e6)] * size
        columns["request"] += [request.decode()] * size
        columns["row"] += range(size)
        columns["release"] += [self._served.release] * size
        predictions = answers.predictions.tolist()
        columns["prediction"] += map(formats.word, predictions) if answers.labels else predictions
        for place, label in enumerate(answers.labels):
            found = answers.probabilities
            columns[f"{PROBABILITY}{formats.word(label)}"] += (
                [None] * size if found is None else found[:, place].tolist()
            )
        for name, values in self._keys_of(media, body, batch).items():
            columns[f"{KEY}{name}"] += values
        for feature in self._features:
            columns[f"{FEATURE}{feature.name}"] += plain[feature.name]

    def _keys_of(self, media: str, body: bytes, batch: Batch) -> dict[str, Sequence[str | None]]:
        if not self._keys:
            return {}
        nothing = [None] * batch.size
        if media == formats.CSV:
            return {name: [one or None for one in batch.keys.get(name, nothing)] for name in self._keys}
        try:
            records = orjson.loads(body)["records"]
        except orjson.JSONDecodeError:
            records = json.loads(body)["records"]
        return {name: [_text(record.get(name)) for record in records] for name in self._keys}

    def _chunk(self, columns: dict[str, list[Any]], schema: "pyarrow.Schema") -> "pyarrow.RecordBatch":
        import pyarrow as pa

        arrays = []
        for field in schema:
            values: Any = columns[field.name]
            if pa.types.is_floating(field.type):
                # Arrow takes no whole number that a float cannot hold to the last digit.
                values = [None if value is None else float(value) for value in values]
            arrays.append(pa.array(values, field.type))
            self._rest()
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _rest(self) -> None:
        """Let other threads run, after a while."""
        if time.perf_counter() - self._worked > TIME_SLICE and not self._over.is_set():
            time.sleep(TIME_SLICE)
            self._worked = time.perf_counter()


def _text(value: Any) -> str | None:
    """Return a key as a CSV would have it: whole numbers without a fraction."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        value = int(value)
    return formats.word(value)
