"""What the endpoint shows people: the files of the page at /, the model card, and the OpenAPI page at /docs."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import guard
from pipeline.format_numbers import describe_fitted_rows
from pipeline.metrics import METRICS


@dataclass(frozen=True)
class File:
    """A file of the page for people."""

    name: str
    media: bytes


STATIC = Path(__file__).resolve().parent.parent / "static"
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


def card(manifest: Mapping[str, Any], release: int | None, example: Any) -> dict[str, Any]:
    """Return the model card; to the contract's fields it adds what the page for people shows.

    `example` is a row that may be shown: see `pipeline.guard.without_sensitive`.
    """
    task, evaluation = dict(manifest["task"]), manifest["evaluation"]
    features = guard.shown(manifest["schema"]["features"], manifest.get("guards", ()))
    for feature in features:
        if feature["name"] in manifest.get("sensitive", ()):
            feature.pop("categories", None)
    return {
        "model": manifest["model"],
        "release": release,
        "task": task.pop("kind"),
        **task,
        "target": manifest["target"],
        **({"labels": manifest["labels"]} if manifest["labels"] else {}),
        "features": features,
        "key": manifest["schema"]["key"],
        "metric": manifest["metric"],
        "metrics": evaluation["challenger"],
        "champion": evaluation.get("champion"),
        "higher_is_better": {name: METRICS[name].greater_is_better for name in evaluation["challenger"]},
        "importance": manifest.get("importance") or [],
        "reasons": manifest["verdict"]["reasons"],
        "estimator": manifest["estimator"],
        "rows": {**manifest["rows"], "fitted_on": describe_fitted_rows(manifest["rows"])},
        "limits": manifest["limits"],
        "snapshot": manifest["digests"]["snapshot"],
        "created": manifest["created"],
        "example": example,
    }
