"""Refusals of the endpoint as plain values: problem details as in RFC 9457."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus

from pipeline.errors import did_you_mean

MEDIA_TYPE = "application/problem+json"
MAX_LISTED = 100
"""The max number of errors that one answer lists; its detail says how many were found."""
_LONGEST_NAME = 100


@dataclass(frozen=True)
class BadValue:
    """One error in the records.

    Attributes:
        row: which record, counted from 0; None if the error is not about a record.
        field: which column; None if the error is not about a column.
        problem: what is wrong.
    """

    row: int | None
    field: str | None
    problem: str

    def __str__(self) -> str:
        row = "" if self.row is None else f"row {self.row}: "
        name = "" if self.field is None else f"field {self.field!r}: "
        return row + name + self.problem


@dataclass(frozen=True)
class Problem:
    """A refusal.

    Attributes:
        status: the HTTP status.
        detail: what is wrong, a sentence.
        errors: the errors of single records.
        headers: more headers of the answer.
        broken: how many values broke a rule of the guard, by feature and rule.
    """

    status: int
    detail: str
    errors: tuple[BadValue, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the problem as JSON; its type is about:blank, so its title is the phrase of its status."""
        title = HTTPStatus(self.status).phrase
        fields: dict[str, object] = {"type": "about:blank", "title": title, "status": self.status}
        fields["detail"] = self.detail
        if self.errors:
            fields["errors"] = [asdict(error) for error in self.errors]
        return json.dumps(fields).encode()


class ProblemCollector:
    """Collects errors: it keeps the first MAX_LISTED in full and counts the others."""

    def __init__(self) -> None:
        self.listed: list[BadValue] = []
        self.count = 0

    def add(self, row: int | None, name: str | None, problem: str, like: Iterable[str] = ()) -> None:
        """Add an error; when `like` has a name close to the field's, the error asks whether that was meant."""
        self.count += 1
        if self.count > MAX_LISTED:
            return
        if name is not None and len(name) > _LONGEST_NAME:
            name = name[:_LONGEST_NAME] + "..."
        elif name is not None:
            problem += did_you_mean(name, like)
        self.listed.append(BadValue(row, name, problem))

    def problem(self) -> Problem | None:
        """Return the refusal, status 400: the first error and how many were found; None when none was."""
        if not self.count:
            return None
        detail = str(self.listed[0])
        detail += "" if detail.endswith("?") else "."
        if self.count > MAX_LISTED:
            detail += f" {self.count} errors were found; the first {MAX_LISTED} are listed."
        elif self.count > 1:
            detail += f" {self.count} errors were found."
        if any(error.row is not None for error in self.listed):
            detail += " Row 0 is the first."
        return Problem(400, detail, tuple(self.listed))
