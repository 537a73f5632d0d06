"""The request log: a sample of requests and their answers, written to files by a thread. No request waits for it.

A sampled request costs one tuple in a queue. The thread parses its body again, which costs no more than keeping the
parsed rows would, and yields to requests every fraction of a millisecond. If the queue or the disk is full, requests
are dropped and counted in /metrics.

BentoML's own hooks (`bentoml.monitor`) are not used: they write each row as JSON while its request waits, raise disk
errors into it, keep every file for ever, and have no sampling.
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
"""The max seconds that rows wait before they are written to a file."""
WRITE_BYTES = 8 * 2**20
"""When this many bytes of bodies wait, a file is written at once."""
MAX_BYTES = 32 * 2**20
"""The max bytes of bodies that wait; requests beyond that are dropped and counted."""
POLL_INTERVAL = 0.5
TIME_SLICE = 0.0005
"""How many seconds the thread works before it lets other threads run, and how many it then sleeps."""
CHUNK = 1000
CLOSE_TIMEOUT = 5.0
"""How many seconds the end of a worker waits for the last file."""

_Entry = tuple[float, str, bytes, Answers, bytes]

logger = logging.getLogger("evergreen")


class Recorder:
    """Logs a sample of one worker's requests and answers, in files of its own."""

    def __init__(self, served: ServedModel, metrics: Metrics, folder: Path, settings: Mapping[str, Any]) -> None:
        """`settings` has the fields of `pipeline.spec.RequestLog`, and in `sensitive` the names that are not logged."""
        self._served, self._metrics, self._folder = served, metrics, folder
        self._sample_rate: float = settings["sample_rate"]
        self._max_bytes, self._retention_days = settings["max_bytes"], settings["retention_days"]
        hidden = {*settings["sensitive"]}
        self._features = [feature for feature in served.schema.features if feature.name not in hidden]
        self._keys = [name for name in served.schema.key if name not in hidden]
        self._waiting: deque[_Entry] = deque()
        # Each of the two has one thread that adds to it, so neither needs a lock.
        self._bytes_queued = self._bytes_written = 0
        self._dropped = 0
        self._before: dict[str, Any] = {"dropped": 0}
        self._began = time.time()
        self._failing = False
        self._slice_started = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def note(self, media: str, body: bytes, answers: Answers, request: bytes) -> None:
        """Queue a request and its answers if it is sampled; drop and count it if the queue is full."""
        if random() >= self._sample_rate:
            return
        if self._bytes_queued - self._bytes_written > MAX_BYTES:
            self._dropped += 1
            self._metrics.not_logged()
            return
        self._bytes_queued += len(body)
        self._waiting.append((time.time(), media, body, answers, request))

    def close(self) -> None:
        """Write the queued requests, waiting at most CLOSE_TIMEOUT."""
        self._metrics.flush()
        self._closing.set()
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        written = time.monotonic()
        closing = False
        while not closing:
            closing = self._closing.wait(POLL_INTERVAL)
            now = time.monotonic()
            if closing or now - written >= WRITE_INTERVAL or self._bytes_queued - self._bytes_written >= WRITE_BYTES:
                written = now
                try:
                    self._write()
                    self._failing = False
                except Exception as error:
                    # No error may end this thread or a request. It is logged once, not every minute.
                    if not self._failing:
                        logger.error("the request log cannot be written: %s: %s", type(error).__name__, error)
                    self._failing = True

    def _write(self) -> None:
        """Write queued requests and counts to a file, if there are any, and delete old files."""
        entries = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            if entries or self._counts(0).requests:
                sweep(self._folder)
                table = self._table(entries)
                counts = self._counts(table.num_rows)
                request_log.write(self._folder, table, counts)
                self._began = counts.ended
                self._before = self._now
                self._metrics.logged(table.num_rows)
        except BaseException:
            self._dropped += len(entries)
            self._metrics.lost(len(entries))
            raise
        finally:
            self._bytes_written += sum(len(body) for _, _, body, _, _ in entries)
            if self._folder.exists():
                request_log.prune(self._folder, self._max_bytes, self._retention_days)

    def _counts(self, logged: int) -> Counts:
        """Return the counts since the last file; `logged` is the number of rows in this file."""
        self._now = now = {**self._metrics.counters(), "dropped": self._dropped}
        before = self._before

        def since(name: str) -> int:
            return int(now[name] - before.get(name, 0))

        answers = {
            status: count - before.get("statuses", {}).get(status, 0) for status, count in now["statuses"].items()
        }
        seconds_before = before.get("seconds", [0] * len(now["seconds"]))
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
            seconds=tuple(count - old for count, old in zip(now["seconds"], seconds_before, strict=True)),
            edges=SECONDS,
            logged=logged,
            dropped=since("dropped"),
        )

    def _table(self, entries: Sequence[_Entry]) -> "pyarrow.Table":
        import pyarrow as pa

        schema = self._schema()
        chunks: list[pyarrow.RecordBatch] = []
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        for entry in entries:
            self._add(columns, *entry)
            self._yield_to_requests()
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
        for index, label in enumerate(answers.labels):
            probabilities = answers.probabilities
            columns[f"{PROBABILITY}{formats.word(label)}"] += (
                [None] * size if probabilities is None else probabilities[:, index].tolist()
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
            return {name: [value or None for value in batch.keys.get(name, nothing)] for name in self._keys}
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
                # Arrow refuses whole numbers that a float cannot hold exactly.
                values = [None if value is None else float(value) for value in values]
            arrays.append(pa.array(values, field.type))
            self._yield_to_requests()
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _yield_to_requests(self) -> None:
        """Sleep for TIME_SLICE if the thread has worked for longer than that, unless the worker is ending."""
        if time.perf_counter() - self._slice_started > TIME_SLICE and not self._closing.is_set():
            time.sleep(TIME_SLICE)
            self._slice_started = time.perf_counter()


def _text(value: Any) -> str | None:
    """Return a key as text, as in a CSV: whole numbers without a fraction."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        value = int(value)
    return formats.word(value)
