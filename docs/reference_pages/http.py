"""reference/http.md: the paths of the endpoint, and every status that it can answer."""

import ast
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from bentos.endpoint import openapi
from bentos.endpoint.asgi import BENTOML_PATHS, PUBLIC_PATHS, Contract
from bentos.endpoint.metrics import CLIENT_CLOSED_REQUEST
from docs.reference_pages.markdown import code, meanings, modules, page, table

ROWS = (
    ("a nullable feature that is absent, null, or an empty text", "predicted, as in training"),
    ("a category that training never saw", "predicted as the pipeline does, and counted"),
    ("key columns, the target and other columns of the data", "accepted; they never reach the model"),
    ("one bad row among good ones", "400 for the whole request; other requests are not affected"),
    ("a row alone, or among others", "the same prediction"),
)


def routes() -> dict[str, tuple[str, ...]]:
    """Return the methods of every path that the contract itself answers; BentoML answers GET and HEAD on its own."""
    endpoint: Any = SimpleNamespace(
        served=SimpleNamespace(predict_batched=None), metrics=SimpleNamespace(together=None)
    )
    app: Any = None
    log: Any = SimpleNamespace()
    own = {path: methods for path, (methods, _) in Contract(app, endpoint, log)._routes.items()}
    return own | dict.fromkeys((*BENTOML_PATHS, "/static_content/"), ("GET", "HEAD"))


def statuses_in_code() -> set[int]:
    """Return every status that the endpoint's code can answer, or that its OpenAPI document promises."""
    found = {200, CLIENT_CLOSED_REQUEST}
    for file, tree in modules().items():
        if not file.startswith(("bentos/endpoint/", "bentos/scoring/", "bentos/service.py")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name, given = ast.unparse(node.func), [*node.args, *(one.value for one in node.keywords)]
                if name in ("Problem", "Reply"):
                    numbers = [one.value for one in given if isinstance(one, ast.Constant)]
                    found |= {one for one in numbers if isinstance(one, int) and 200 <= one < 600}
    for operations in document()["paths"].values():
        for operation in operations.values():
            found |= {int(status) for status in operation["responses"]}
    return found


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a model that needs a token."""
    card = {
        "model": "houses",
        "release": 1,
        "task": "regression",
        "target": "price",
        "features": [{"name": "area", "type": "number", "required": True}],
        "example": {"area": 1.0},
        "limits": {"max_rows": 10_000},
    }
    return openapi.describe(card, (), guarded=True)


def http_page() -> str:
    """Return the page."""
    about = (
        "Every answer has the headers `Evergreen-Release` and `X-Request-ID`. A refusal is a problem as in RFC 9457 "
        "(`application/problem+json`, [schema](schemas/http/problem.json)); no refusal shows a stack trace, a path or "
        "training data. With `EVERGREEN_TOKENS`, every path but the public ones needs `Authorization: Bearer TOKEN`."
    )
    texts = meanings("path", routes())
    paths = [
        [code(path), ", ".join(methods), "yes" if path in PUBLIC_PATHS else "", texts[path]]
        for path, methods in routes().items()
    ]
    promised = {
        path: sorted(operation["responses"])
        for path, operations in document()["paths"].items()
        for operation in operations.values()
    }
    reasons = meanings("status", map(str, sorted(statuses_in_code())))
    statuses = [[status, _phrase(int(status)), text] for status, text in reasons.items()]
    return page(
        "HTTP",
        about,
        "## Paths",
        table(["path", "methods", "public", "what it answers"], paths),
        "## Statuses",
        table(["status", "", "when"], statuses),
        "## Statuses of each path, as `/docs.json` says",
        table(["path", "statuses"], [[code(path), ", ".join(words)] for path, words in promised.items()]),
        "## What becomes of a row",
        table(["row", "answer"], ROWS),
    )


def _phrase(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
