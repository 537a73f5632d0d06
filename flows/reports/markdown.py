"""Pieces of Markdown that the reports are made of: tables, lists, escaped text, images."""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.drift import DRIFT_HEADINGS, ColumnDrift, drift_cells


def document(*parts: str) -> str:
    """Return paragraphs as a document; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def bullets(sentences: Iterable[str]) -> str:
    """Return sentences as a list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already: the first column is text, all others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def drift_table(columns: Sequence[ColumnDrift], max_columns: int) -> Iterator[str]:
    """Yield a table of how far the first `max_columns` columns moved, and how many columns are not shown."""
    shown = columns[:max_columns]
    if shown:
        # The name of a drifted column is bold, and so is its value if that is why.
        rows = (
            [strong(text(name), column.drifted), test, strong(value, column.moved), *others]
            for column in shown
            for name, test, value, *others in [drift_cells(column)]
        )
        yield table([*DRIFT_HEADINGS], rows)
    if len(columns) > len(shown):
        yield f"{len(columns) - len(shown):,} more columns, which moved less, are not shown."


def text(value: Any) -> str:
    """Return a value as Markdown that shows it literally: on one line, with all markup escaped."""
    markup = r"[\\`*\[<|~&]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(markup, r"\\\g<0>", " ".join(str(value).split()))


def strong(text: str, condition: bool) -> str:
    """Return a text in bold if the condition holds."""
    return f"**{text}**" if condition else text


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def data_uri(png: bytes) -> str:
    """Return a PNG image as a URI that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
