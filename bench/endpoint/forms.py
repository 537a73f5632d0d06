"""How each server wants rows to be sent, and where in its answer the predictions are."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """One form of a request: its media type, rows to a body, and an answer to predictions."""

    media: str
    write: Callable[[Sequence[Row]], bytes]
    read: Callable[[bytes], list[float]]


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _split(rows: Sequence[Row]) -> bytes:
    return _json({"dataframe_split": {"columns": [*rows[0]], "data": [[*row.values()] for row in rows]}})


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _from_csv(body: bytes) -> list[float]:
    return [float(row["prediction"]) for row in csv.DictReader(io.StringIO(body.decode()))]


def _tensors(rows: Sequence[Row]) -> bytes:
    """Return rows in the V2 inference protocol, as MLServer's own PandasCodec writes a frame: a tensor a column."""
    inputs = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        text = name.startswith("Text")
        tensor = {"name": name, "shape": [len(rows), 1], "datatype": "BYTES" if text else "FP64", "data": values}
        inputs.append(tensor | ({"parameters": {"content_type": "str"}} if text else {}))
    return _json({"parameters": {"content_type": "pd"}, "inputs": inputs})


def _predictions(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["predictions"]
    return found


def _outputs(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["outputs"][0]["data"]
    return found


def _list(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)
    return found


RECORDS = Form("application/json", lambda rows: _json({"records": rows}), _predictions)
FRAME = Form("application/json", lambda rows: _json({"records": rows}), _list)
MLFLOW_SPLIT = Form("application/json", _split, _predictions)
MLFLOW_RECORDS = Form("application/json", lambda rows: _json({"dataframe_records": rows}), _predictions)
CSV = Form("text/csv", _csv, _from_csv)
MLFLOW_CSV = Form("text/csv", _csv, _predictions)
V2 = Form("application/json", _tensors, _outputs)
