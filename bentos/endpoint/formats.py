"""JSON and CSV in and out: bytes to columns of plain values, answers to bytes; what is refused is a Problem."""

import csv
import io
import json
from collections.abc import Mapping
from email.message import Message
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from bentos.endpoint.problems import Problem
from pipeline.predict import Answers

JSON = "application/json"
CSV = "text/csv"


@lru_cache(maxsize=64)
def media_type(content_type: bytes, content_encoding: bytes) -> str | Problem:
    """Return JSON or CSV, or the refusal of a body that is neither, is compressed or is not UTF-8."""
    header = Message()
    header["content-type"] = content_type.decode("latin-1")
    found, charset = header.get_content_type(), header.get_content_charset() or "utf-8"
    if not content_type or found not in (JSON, CSV):
        said = f"is {content_type[:100].decode('latin-1')!r}" if content_type else "is missing"
        return Problem(415, f"The Content-Type {said}; send {JSON} or {CSV}.")
    if charset not in ("utf-8", "utf8"):
        return Problem(415, f"The charset of the body is {charset[:100]!r}; send UTF-8.")
    if content_encoding not in (b"", b"identity"):
        return Problem(415, f"The Content-Encoding is {content_encoding[:100].decode('latin-1')!r}; send it as it is.")
    return found


def unanswered(answers: Answers) -> list[int]:
    """Return the rows whose prediction or probabilities are not finite, which neither JSON nor a reader can take."""
    bad = np.zeros(len(answers.predictions), dtype=bool)
    if answers.predictions.dtype.kind == "f":
        bad |= ~np.isfinite(answers.predictions)
    if answers.probabilities is not None:
        bad |= ~np.isfinite(answers.probabilities).all(axis=1)
    return np.flatnonzero(bad).tolist()


def write_json(answers: Answers, model: str, release: int | None) -> bytes:
    """Return answers as the JSON body of a response; numbers in the fewest digits that tell them from any other."""
    body: dict[str, Any] = {"predictions": answers.predictions.tolist(), "model": model, "release": release}
    if answers.probabilities is not None:
        labels = [word(label) for label in answers.labels]
        body["probabilities"] = [dict(zip(labels, row, strict=True)) for row in answers.probabilities.tolist()]
    return orjson.dumps(body)


def write_csv(answers: Answers, keys: Mapping[str, list[str]]) -> bytes:
    """Return answers as CSV: the key columns as they were sent, `prediction`, and a `probability_<label>` each."""
    header, columns = [*keys, "prediction"], [*keys.values(), _words(answers.predictions)]
    if answers.probabilities is not None:
        header += [f"probability_{word(label)}" for label in answers.labels]
        columns += map(_words, answers.probabilities.T)
    rows = [header, *zip(*columns, strict=True)]
    plain = "\r\n".join((*map(",".join, rows), ""))
    counts = {"\r": len(rows), "\n": len(rows), ",": len(rows) * (len(header) - 1), '"': 0}
    # No more of these than there should be, so nothing needs quotes, which an empty line does, too.
    if "\r\n\r\n" not in plain and all(plain.count(sign) == count for sign, count in counts.items()):
        return plain.encode()
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _words(values: Any) -> list[str]:
    """Return the words of an array of numbers or labels."""
    if values.dtype.kind == "f" and len(values):
        # orjson writes a thousand numbers in the time in which Python writes fifty.
        return orjson.dumps(values.tolist())[1:-1].decode().split(",")
    return list(map(word, values.tolist()))


def word(value: Any) -> str:
    """Return a label or value as CSV and JSON keys spell it: text as it is, anything else as JSON writes it."""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, str) else json.dumps(value)
