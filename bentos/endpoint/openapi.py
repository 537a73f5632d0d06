"""The HTTP contract as OpenAPI describes it, for one model: every path that programs ask, all that each may answer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bentos.endpoint import formats, problems

VERSION = "3.0.2"
_SCALAR = {"anyOf": [{"type": "string", "nullable": True}, {"type": "number"}, {"type": "boolean"}]}
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "number": {"type": "number"},
    "text": {"type": "string"},
    "boolean": {"type": "boolean"},
    "timestamp": {
        "type": "string",
        "format": "date-time",
        "description": "ISO 8601; without a zone, and as a date alone, it is in UTC",
    },
}
_BOUNDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusive_minimum": "exclusiveMinimum",
    "exclusive_maximum": "exclusiveMaximum",
}
"""Of a feature in the model card, and in OpenAPI."""
_ALWAYS = {
    400: "What was sent is not HTTP",
    405: "The path has no such method",
    408: "The head did not arrive in time",
    431: "The head is too long",
    500: "Something broke; the server's log says what",
}
"""The refusals that every path may answer."""
_PREDICT = {
    400: "The records are malformed or wrong, or the model has no answer to some; `errors` names row and field",
    408: "The head or the body did not arrive in time",
    413: "The body has too many bytes or too many rows; send it in parts",
    415: "The body is neither JSON nor CSV, is compressed or is not UTF-8",
    429: "Too many requests are under way",
    504: "The prediction took too long; send fewer rows",
}
_UNAUTHORIZED = {401: "A token is configured, and what was sent is none"}
_OPEN = ("/livez", "/readyz")
_HEADERS = {
    "Evergreen-Release": {"description": "The release that answered, or `none`", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "The id that was sent, or one of the server's", "schema": {"type": "string"}},
}
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "An id for this request, of up to 128 letters, digits and `._:/+=@-`; any other is replaced",
    "schema": {"type": "string"},
}


def describe(card: Mapping[str, Any], others: Sequence[str], guarded: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the endpoint whose card is given.

    `others` are the columns that are accepted and not used; `guarded` says whether a bearer token is needed.
    """
    request = {
        formats.JSON: {"schema": _ref("Request"), "example": {"records": [card["example"]]}},
        formats.CSV: {
            "schema": {"type": "string", "minLength": 1, "description": "A header row and at least one row, in UTF-8"}
        },
    }
    answer = {formats.JSON: {"schema": _ref("Predictions")}, formats.CSV: {"schema": {"type": "string"}}}
    predict = _operation("predict", "Predict records, each an object of features by name, or the rows of a CSV.")
    text = {"text/plain": {"schema": {"type": "string"}}}
    paths = {
        "/predict": {
            "post": {
                **predict,
                "requestBody": {"required": True, "content": request},
                "responses": {"200": _answer("One prediction per row, in order", answer), **_refusals(_PREDICT)},
            }
        },
        "/model": _get("model", "The model card.", _json("Card")),
        "/history": _get("history", "The releases of the model, the newest first.", _json("History")),
        "/metrics": _get("metrics", "What was counted, for Prometheus.", text),
        "/livez": _get("livez", "Whether the process lives.", text),
        "/readyz": _get("readyz", "Whether requests are answered.", {**text, **_json("Degraded")}),
    }
    paths["/readyz"]["get"]["responses"] |= _refusals({503: "Not ready yet"})
    if guarded:
        for path, operations in paths.items():
            for operation in operations.values():
                if path not in _OPEN:
                    operation["security"] = [{"bearer": []}]
                    operation["responses"] |= _refusals(_UNAUTHORIZED)
    return {
        "openapi": VERSION,
        "info": {
            "title": card["model"],
            "version": str(card["release"] or "none"),
            "description": f"Predicts {card['target']} ({card['task']}).",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": _schemas(card, others),
            **({"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}} if guarded else {}),
        },
    }


def _schemas(card: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    most = card["limits"]["max_rows"]
    release = {"type": "integer", "minimum": 1, "nullable": True}
    return {
        "Request": _object(
            {"records": {"type": "array", "minItems": 1, "maxItems": most, "items": _ref("Record")}}, closed=True
        ),
        "Record": {
            **_object({one["name"]: _feature(one) for one in card["features"]} | dict.fromkeys(others, _SCALAR), True),
            "required": [one["name"] for one in card["features"] if one["required"]],
        },
        "Predictions": _predictions(card, most, release),
        "Card": _object(
            {
                "model": {"type": "string", "enum": [card["model"]]},
                "release": release,
                "task": {"type": "string"},
                "target": {"type": "string"},
                "features": {
                    "type": "array",
                    "items": _object(
                        {
                            "name": {"type": "string"},
                            "type": {"type": "string", "enum": list(_TYPES)},
                            "required": {"type": "boolean"},
                        }
                    ),
                },
                "metrics": {"type": "object"},
                "limits": {"type": "object"},
                "snapshot": {"type": "string"},
                "created": {"type": "string", "format": "date-time"},
            }
        ),
        "History": _object(
            {
                "model": {"type": "string", "enum": [card["model"]]},
                "releases": {"type": "array", "items": _object({"release": {"type": "integer", "minimum": 1}})},
            },
            closed=True,
        ),
        "Degraded": _object({"status": {"type": "string", "enum": ["degraded"]}, "reason": {"type": "string"}}, True),
        "Problem": _problem(),
    }


def _predictions(card: Mapping[str, Any], most: int, release: Mapping[str, Any]) -> dict[str, Any]:
    labels = card.get("labels")
    rows = {"type": "array", "minItems": 1, "maxItems": most}
    found = _object(
        {
            "predictions": {**rows, "items": {"enum": labels} if labels else {"type": "number"}},
            "model": {"type": "string", "enum": [card["model"]]},
            "release": release,
        },
        closed=True,
    )
    if labels:
        share = {"type": "number", "minimum": 0, "maximum": 1}
        found["properties"]["probabilities"] = {
            **rows,
            "description": "Of each row the probability of each label; absent where the estimator has none",
            "items": _object({formats.word(label): share for label in labels}, closed=True),
        }
    return found


def _problem() -> dict[str, Any]:
    error = {
        "row": {"type": "integer", "minimum": 0, "nullable": True, "description": "Row 0 is the first"},
        "field": {"type": "string", "nullable": True},
        "problem": {"type": "string"},
    }
    found = _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
        },
        closed=True,
    )
    found["properties"]["errors"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": problems.MAX_LISTED,
        "items": _object(error, closed=True),
    }
    return found


def _feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(_TYPES[feature["type"]])
    if feature["type"] == "number":
        # OpenAPI 3.0 says by a flag beside the bound that the bound itself is not allowed.
        for name, word in _BOUNDS.items():
            if name in feature:
                found[word] = feature[name]
    elif bounds := [f"{name} {feature[name]}" for name in ("minimum", "maximum") if name in feature]:
        found["description"] += "; " + ", ".join(bounds)
    if "categories" in feature:
        found["description"] = "In training: " + ", ".join(feature["categories"])
    return found if feature["required"] else {**found, "nullable": True}


def _object(properties: Mapping[str, Any], closed: bool = False) -> dict[str, Any]:
    found = {"type": "object", "required": list(properties), "properties": dict(properties)}
    return {**found, "additionalProperties": False} if closed else found


def _get(name: str, about: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"get": {**_operation(name, about), "responses": {"200": _answer(about, content), **_refusals({})}}}


def _operation(name: str, about: str) -> dict[str, Any]:
    return {"operationId": name, "description": about, "parameters": [_REQUEST_ID]}


def _answer(about: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": about, "headers": _HEADERS, "content": content}


def _refusals(statuses: Mapping[int, str]) -> dict[str, Any]:
    content = {problems.MEDIA_TYPE: {"schema": _ref("Problem")}}
    found = {}
    for status, about in sorted({**_ALWAYS, **statuses}.items()):
        found[str(status)] = {"description": about, "content": content}
    if "429" in found:
        found["429"]["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return found


def _json(name: str) -> dict[str, Any]:
    return {formats.JSON: {"schema": _ref(name)}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
