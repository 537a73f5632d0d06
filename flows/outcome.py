"""How a run ended: one of nine outcomes, with its reasons and numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Name = Literal[
    "released",
    "canary",
    "awaiting-approval",
    "unchanged",
    "kept",
    "tried",
    "model-rejected",
    "data-rejected",
    "trial-failed",
]

EXIT_CODES: dict[Name, int] = {
    "released": 0,
    "canary": 0,
    "awaiting-approval": 0,
    "unchanged": 0,
    "kept": 0,
    "tried": 0,
    "data-rejected": 3,
    "trial-failed": 4,
    "model-rejected": 5,
}
"""The exit code of `evergreen run`; an outcome with another code than 0 is a failed state in Prefect."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what `run` prints.

    Attributes:
        model: its name.
        outcome: how it ended; "tried" is `--no-release`: everything passed, nothing was released.
        reasons: why it ended so.
        release: the release that was made; None without one.
        bento: the tag of its package.
        snapshot: the digest of the rows.
        rows: how many there are.
        metrics: of "challenger", "champion" and "baseline", on the same held-out rows.
        seconds: how long each step took.
        warnings: findings that a person should review.
        report: the report of the run, as a path.
        resumed: the work of an unfinished run that this one did not repeat, as a sentence.
    """

    model: str
    outcome: Name
    reasons: tuple[str, ...] = ()
    release: int | None = None
    bento: str | None = None
    snapshot: str | None = None
    rows: int | None = None
    metrics: dict[str, dict[str, float | None] | None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: str | None = None
    resumed: str | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return EXIT_CODES[self.outcome]

    @property
    def state(self) -> str:
        """The name of the run's final Prefect state, such as DataRejected."""
        return "".join(word.capitalize() for word in self.outcome.split("-"))

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as `run --json` prints it."""
        return {**asdict(self), "reasons": list(self.reasons), "warnings": list(self.warnings)}

    def _repr_html_(self) -> str:
        from flows.notebook_html import outcome_html

        title = f"{self.model}: {self.outcome}" + (f", release {self.release}" if self.release else "")
        reasons = [*([self.resumed] if self.resumed else []), *self.reasons]
        return outcome_html(title, reasons, self.warnings, self.metrics)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Outcome":
        """Return the outcome that `to_dict` wrote."""
        return cls(**{**value, "reasons": tuple(value["reasons"]), "warnings": tuple(value["warnings"])})
