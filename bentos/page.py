"""What the endpoint shows people: the files of the page at /, the model card, and the OpenAPI page at /docs."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentos import problems, wire
from pipeline.metrics import METRICS


@dataclass(frozen=True)
class File:
    """A file of the page for people."""

    name: str
    media: bytes


STATIC = Path(__file__).resolve().parent / "static"
FILES = {
    "/": File("index.html", b"text/html; charset=utf-8"),
    "/page.js": File("page.js", b"text/javascript; charset=utf-8"),
    "/page.css": File("page.css", b"text/css; charset=utf-8"),
}
"""By path: what is built from bentos/web."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with the page: it needs nothing from anywhere else."""

# BentoML's own page loads a tag manager and a validator from other hosts; its Swagger files are served beside it.
DOCS = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>API</title>
<link rel="stylesheet" href="static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "docs.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null })</script>
</body>
</html>
"""
DOCS_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'"
}


@dataclass(frozen=True)
class Content:
    """What a file holds, as it is and compressed, and a name for just that."""

    plain: bytes
    gzipped: bytes
    etag: str


def files() -> dict[str, Content]:
    """Return the files of the page, by name."""
    found = {}
    for file in FILES.values():
        plain = (STATIC / file.name).read_bytes()
        etag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
        found[file.name] = Content(plain, gzip.compress(plain, mtime=0), etag)
    return found


def openapi(theirs: dict[str, Any], card: Mapping[str, Any], others: list[str], example: Any) -> dict[str, Any]:
    """Return BentoML's OpenAPI description, `theirs`, with what it cannot know of /predict and /model.

    `others` are the columns that are accepted and not used, `example` is a row.
    """
    refusal = {"description": "A problem", "content": {problems.MEDIA_TYPE: {"schema": {"type": "object"}}}}
    refusals = {str(status): refusal for status in (400, 413, 415, 500)}
    record = {
        "type": "object",
        "additionalProperties": False,
        "required": [one["name"] for one in card["features"] if one["required"]],
        "properties": {**{one["name"]: _property(one) for one in card["features"]}, **{name: {} for name in others}},
    }
    request = {
        "type": "object",
        "additionalProperties": False,
        "required": ["records"],
        "properties": {"records": {"type": "array", "minItems": 1, "items": record}},
    }
    answer = theirs["paths"]["/predict"]["post"]
    csv = {wire.CSV: {"schema": {"type": "string"}}}
    sent = {wire.JSON: {"schema": request, "example": {"records": [example]}}, **csv}
    answer["requestBody"] = {"required": True, "content": sent}
    answer["responses"] = {"200": _described("Predictions, one per row, in order", csv), **refusals}
    theirs["paths"]["/model"] = {
        "get": {
            "tags": answer["tags"],
            "description": "The model card.",
            "operationId": "model",
            "responses": {"200": _described("The card", {})},
        }
    }
    about = f"Predicts {card['target']} ({card['task']})."
    return {**theirs, "info": {"title": card["model"], "version": theirs["info"]["version"], "description": about}}


def _described(what: str, also: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {wire.JSON: {"schema": {"type": "object"}}, **also}}


def _property(feature: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string" if feature["type"] in ("text", "timestamp") else feature["type"]}
    if feature["type"] == "timestamp":
        found["description"] = "ISO 8601; UTC where it names no zone"
    if "categories" in feature:
        found["description"] = "In training: " + ", ".join(feature["categories"])
    return found if feature["required"] else {**found, "nullable": True}


def card(manifest: Mapping[str, Any], release: int | None, example: Any) -> dict[str, Any]:
    """Return the model card; to the contract's fields it adds what the page for people shows."""
    task, evaluation = dict(manifest["task"]), manifest["evaluation"]
    return {
        "model": manifest["model"],
        "release": release,
        "task": task.pop("kind"),
        **task,
        "target": manifest["target"],
        **({"labels": manifest["labels"]} if manifest["labels"] else {}),
        "features": manifest["schema"]["features"],
        "key": manifest["schema"]["key"],
        "metric": manifest["metric"],
        "metrics": evaluation["challenger"],
        "champion": evaluation.get("champion"),
        "higher_is_better": {name: METRICS[name].greater_is_better for name in evaluation["challenger"]},
        "importance": manifest.get("importance") or [],
        "reasons": manifest["verdict"]["reasons"],
        "estimator": manifest["estimator"],
        "rows": manifest["rows"],
        "limits": manifest["limits"],
        "snapshot": manifest["digests"]["snapshot"],
        "created": manifest["created"],
        "example": example,
    }
