"""The result of a validation: a Report with one RuleResult for each rule, as JSON values and as Markdown."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from expectations.phrases import json_text, percent, shorten
from expectations.suite import Severity
from pipeline.guard import Guard


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """The result of one rule.

    Attributes:
        rule: the rule in words.
        expectation: the name of the Great Expectations class; "" for evergreen's own rules.
        column: the column the rule is about; None for a rule about several columns or the table.
        severity: `error`, `warn` or `quarantine`.
        passed: whether the data keeps the rule.
        reason: why the rule failed, as a sentence; None if it passed.
        observed: the value that Great Expectations measured, as JSON; None if the rule is about single values.
        unexpected_count: number of values that break the rule.
        unexpected_share: the share of values that break it, from 0 to 1. Nulls count only if the rule is about nulls.
        examples: a few distinct values that break it.
        threshold: the bounds that `observed` must keep, or the minimum share of values as `mostly`.
    """

    rule: str
    expectation: str
    column: str | None
    severity: Severity
    passed: bool
    reason: str | None = None
    observed: Any = None
    unexpected_count: int | None = None
    unexpected_share: float | None = None
    examples: tuple[Any, ...] = ()
    threshold: Any = None


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """The rows that break quarantine rules. They are set aside unless there are `reasons` to reject the data instead.

    Attributes:
        rows: how many rows break a quarantine rule.
        share: their share of all rows, from 0 to 1.
        at_most: the maximum share that may be set aside.
        reasons: why the data is rejected instead; empty if the rows are set aside.
        file: path of the file that holds the rows set aside with their reasons, once it is written.
        snapshot: digest of the snapshot of the remaining rows, once it is written.
    """

    rows: int
    share: float
    at_most: float
    reasons: tuple[str, ...] = ()
    file: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The size of the data and the result of each rule.

    Attributes:
        rows: number of rows, those set aside included.
        columns: number of columns.
        rules: the result of each rule, in the order of the suite. Error and warn rules are about the rows that are not
            set aside.
        quarantine: the rows that break quarantine rules; None for a suite without such rules.
        guards: the rules that an endpoint of a model trained on the data applies to requests.
        unguarded: the rules, in words, that an endpoint cannot apply.
    """

    rows: int
    columns: int
    rules: tuple[RuleResult, ...]
    quarantine: Quarantine | None = None
    guards: tuple[Guard, ...] = ()
    unguarded: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every error rule passed and the rows to set aside are not too many."""
        return not self._failed("error") and not (self.quarantine and self.quarantine.reasons)

    @property
    def reasons(self) -> list[str]:
        """One sentence for each failed error rule; equal sentences are listed once."""
        rejected = self.quarantine.reasons if self.quarantine else ()
        return list(dict.fromkeys([*(rule.reason for rule in self._failed("error") if rule.reason), *rejected]))

    @property
    def warnings(self) -> list[str]:
        """What was set aside and why, then one sentence for each failed warn rule.

        A warn rule is left out if an error rule of the same expectation and column failed.
        """
        reported = {(rule.expectation, rule.column) for rule in self._failed("error")}
        warned = [rule for rule in self._failed("warn") if (rule.expectation, rule.column) not in reported]
        aside = [rule.reason for rule in self._failed("quarantine")]
        if self.quarantine and self.quarantine.rows and not self.quarantine.reasons:
            where = f", in {self.quarantine.file}" if self.quarantine.file else ""
            share = f"{self.quarantine.rows:,} of {self.rows:,} rows ({percent(self.quarantine.share)})"
            aside = [f"{share} are set aside{where}", *aside]
        sentences = dict.fromkeys([*aside, *(rule.reason for rule in warned)])
        return [sentence for sentence in sentences if sentence and sentence not in self.reasons]

    def refused(self, reason: str) -> "Report":
        """Return the report with one more failed rule, first: the data lacks what the model's spec names."""
        broken = RuleResult(
            rule="the data has what the spec names",
            expectation="",
            column=None,
            severity="error",
            passed=False,
            reason=reason,
        )
        return replace(self, rules=(broken, *self.rules))

    def _failed(self, severity: Severity) -> list[RuleResult]:
        return [rule for rule in self.rules if rule.severity == severity and not rule.passed]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        rules = [asdict(rule) | {"examples": list(rule.examples)} for rule in self.rules]
        aside = self.quarantine and asdict(self.quarantine) | {"reasons": list(self.quarantine.reasons)}
        size = {"rows": self.rows, "columns": self.columns, "quarantine": aside}
        return {"passed": self.passed, **size, "reasons": self.reasons, "warnings": self.warnings, "rules": rules}


def markdown(report: Report) -> str:
    """Return the report as Markdown: a summary, the failed rules, the warnings and the rules that passed."""
    lines = [
        f"**Data {'passed' if report.passed else 'rejected'}**: {report.rows:,} rows, {report.columns:,} columns; "
        f"{sum(rule.passed for rule in report.rules):,} of {len(report.rules):,} rules hold."
    ]
    for heading, sentences in (("Failed", report.reasons), ("Warnings", report.warnings)):
        if sentences:
            lines += ["", f"## {heading}", "", *(f"- {_one_line(sentence)}" for sentence in sentences)]
    if passed := [rule for rule in report.rules if rule.passed]:
        # A list and not a table: in the Prefect UI a long rule would push the other columns out of sight.
        lines += ["", "## Passed", "", *(f"- {_one_line(rule.rule)}{_in_brackets(rule)}" for rule in passed)]
    return "\n".join(lines) + "\n"


def _in_brackets(rule: RuleResult) -> str:
    """Return the severity and the measured value of a rule that passed, in brackets; "" if there is neither."""
    severity = "" if rule.severity == "error" else rule.severity
    words = ", ".join(filter(None, [severity, _one_line(_measured(rule))]))
    return f" ({words})" if words else ""


def _measured(rule: RuleResult) -> str:
    if rule.unexpected_count and rule.unexpected_share is not None:
        return f"{rule.unexpected_count:,} tolerated ({percent(rule.unexpected_share)})"
    return "" if rule.observed is None else shorten(json_text(rule.observed))


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
