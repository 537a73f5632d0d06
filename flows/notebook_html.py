"""HTML that a notebook shows for a loaded model, an outcome and a verdict: small tables, with everything escaped."""

from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from pipeline.format_numbers import format_number


def facts(title: str, values: Mapping[str, str]) -> str:
    """Return a title and a table of facts by name."""
    rows = Markup("").join(
        Markup("<tr><th style='text-align: left'>{}</th><td style='text-align: left'>{}</td></tr>").format(name, text)
        for name, text in values.items()
    )
    return str(Markup("<p><b>{}</b></p><table>{}</table>").format(title, rows))


def metrics(values: Mapping[str, Mapping[str, float | None] | None]) -> str:
    """Return a table of metrics, a column for each model that has some."""
    models = {name: found for name, found in values.items() if found}
    names = list(dict.fromkeys(name for found in models.values() for name in found))
    head = Markup("").join(Markup("<th>{}</th>").format(model) for model in models)
    rows = Markup("").join(
        Markup("<tr><th style='text-align: left'>{}</th>{}</tr>").format(
            name, Markup("").join(Markup("<td>{}</td>").format(_number(found.get(name))) for found in models.values())
        )
        for name in names
    )
    return str(Markup("<table><tr><th></th>{}</tr>{}</table>").format(head, rows))


def sentences(items: Iterable[str]) -> str:
    """Return sentences as a list."""
    return str(Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(item) for item in items)))


def outcome_html(title: str, reasons: Iterable[str], warnings: Iterable[str], found: Mapping[str, Any] | None) -> str:
    """Return the outcome of a run: its reasons, its warnings and the metrics of the compared models."""
    warned = [f"warning: {warning}" for warning in warnings]
    table = metrics({who: found.get(who) for who in ("challenger", "champion", "baseline")}) if found else ""
    return str(Markup("<p><b>{}</b></p>").format(title)) + sentences([*reasons, *warned]) + table


def _number(value: float | None) -> str:
    return "undefined" if value is None else format_number(value)
