"""Where a request's time goes inside the worker: `python -m bench.endpoint.stages ARTIFACT POOL` prints it as JSON.

Each stage is timed by itself, over and over, and its fastest time counts, so that stages can be compared; what HTTP,
the event loop, the log and the change of threads cost is not in it. Beside them are parsers that do nothing else.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from bench.endpoint import forms
from bentos.endpoint import formats
from bentos.endpoint.batch import nulls_and_unseen
from bentos.endpoint.model import ServedModel
from pipeline.artifact import load_artifact

SECONDS = 1.0
"""How long each stage is repeated."""


def stages(served: ServedModel, media: str, body: bytes) -> dict[str, float]:
    """Return the microseconds of each stage of answering a body with a compiled plan."""
    batch = served.read(media, body)
    answers = served.predict_inline(batch)  # type: ignore[arg-type]
    return {
        "parser alone": _fastest(_parser(media), body),
        "read": _fastest(served.read, media, body),
        "plan": _fastest(served.predict_inline, batch),
        "count nulls and unseen": _fastest(nulls_and_unseen, batch, served.categories),
        "write": _fastest(served.write, media, answers, batch),
        "all in a row": _fastest(served.answer_inline, media, body),
    }


def _parser(media: str) -> Callable[[bytes], Any]:
    if media == formats.JSON:
        return orjson.loads
    import pyarrow as pa
    import pyarrow.csv

    one_thread = pyarrow.csv.ReadOptions(use_threads=False, block_size=2**27)
    return lambda body: pyarrow.csv.read_csv(pa.BufferReader(body), read_options=one_thread)


def _fastest(work: Callable[..., Any], *given: Any) -> float:
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while (begun := time.perf_counter()) < end:
        work(*given)
        fastest = min(fastest, time.perf_counter() - begun)
    return fastest * 1e6


def main() -> None:
    """Print the stages of one row and of all rows of the pool."""
    artifact, pool = map(Path, sys.argv[1:])
    served, rows = ServedModel(load_artifact(artifact), 1), json.loads(pool.read_text())
    asked = {
        "1 row JSON": (forms.RECORDS, rows[:1]),
        f"{len(rows):,} rows CSV": (forms.CSV, rows),
        f"{len(rows):,} rows JSON": (forms.RECORDS, rows),
    }
    print(json.dumps({title: stages(served, form.media, form.write(some)) for title, (form, some) in asked.items()}))


if __name__ == "__main__":
    main()
