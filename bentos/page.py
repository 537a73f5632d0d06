"""What the endpoint shows people: the page at /, the OpenAPI page at /docs and the description behind it."""

import json
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from bentos import problems, wire
from pipeline.numbers import number

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8886 }
th, td { min-width: 6rem }
pre { overflow: auto; padding: 1rem; border: 1px solid #8886; border-radius: .4rem }
"""

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}
"""Sent with the page at /: it needs nothing from anywhere."""

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


def html(card: Mapping[str, Any], example: Mapping[str, Any], url: str) -> str:
    """Return the page for people: what the model is, what it takes, and a request to `url` to paste."""
    body = json.dumps({"records": [example]}, ensure_ascii=False)
    command = f"curl {shlex.quote(url)} -H 'Content-Type: {wire.JSON}' -d {shlex.quote(body)}"
    release = "no release" if card["release"] is None else f"release {card['release']}"
    facts = {
        "Predicts": f"{card['target']} ({card['task']})",
        "Release": release,
        "Created": card["created"],
        "Snapshot": card["snapshot"],
        **{f"Held-out {name}": number(value) for name, value in card["metrics"].items()},
    }
    features = [
        (one["name"], one["type"], _required(one), ", ".join(one.get("categories", []))) for one in card["features"]
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(card["model"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(card["model"])}</h1>
<p><a href="docs">API</a>, <a href="model">model card</a>, <a href="metrics">metrics</a></p>
<table>{_rows(facts.items())}</table>
<h2>Ask it</h2>
<pre><code>{escape(command)}</code></pre>
<h2>Features</h2>
<table><tr><th>name</th><th>type</th><th></th><th>categories seen in training</th></tr>{_rows(features)}</table>
</body>
</html>
"""


def _required(feature: Mapping[str, Any]) -> str:
    return "required" if feature["required"] else "may be null"


def _rows(rows: Any) -> str:
    return "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)


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
