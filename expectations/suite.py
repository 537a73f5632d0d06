"""What a suite is: Great Expectations rules by severity, loaded from `expectations/suites/<model>.py`.

Great Expectations itself is imported only when a suite is loaded.
"""

import importlib
import os
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline import digest
from pipeline.errors import CheckError, did_you_mean
from pipeline.project import project_folder, project_package

Severity = Literal["error", "warn", "quarantine"]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The rules that good data keeps, by severity. Any expectation that Great Expectations has for pandas will do.

    Types are those of pandas 3: "int64" ("float64" if there are nulls), "float64", "str", "bool", "datetime64", and
    "Timestamp" for times with a time zone.

    Attributes:
        error: rules that data must keep; data that breaks one is rejected. At least one is needed.
        warn: rules whose failure is reported and rejects nothing.
        quarantine: rules about single rows. Rows that break one are set aside, and the other rules judge the rest. If
            fewer rows than the rule's own `mostly` keep it, the data is rejected instead.
        quarantine_at_most: maximum share of all rows that may be set aside, from 0 to under 1. If more would be, the
            data is rejected.

    Raises CheckError if there is no error rule, since such a suite would let anything pass, and for a quarantine rule
    that is not about single rows.
    """

    error: Sequence[Any]
    warn: Sequence[Any] = ()
    quarantine: Sequence[Any] = ()
    quarantine_at_most: float = 0.05

    def __post_init__(self) -> None:
        if not self.error:
            raise CheckError(
                "the suite has no error rules and would let anything pass; give it at least one",
                code="check.no_error_rules",
            )
        if not 0 <= self.quarantine_at_most < 1:
            raise CheckError(
                f"quarantine_at_most is {self.quarantine_at_most}; give a share of the rows, from 0 to under 1, "
                "such as 0.05",
                code="check.quarantine_share",
            )
        for severity, rule in self.rules:
            if not hasattr(rule, "expectation_type") or isinstance(rule, type):
                name = getattr(rule, "__name__", repr(rule))
                raise CheckError(
                    f"the suite has {name:.80}, which is not an expectation; write gxe.Expect...(column=...)",
                    code="check.not_an_expectation",
                )
            if severity == "quarantine" and not getattr(rule, "map_metric", None):
                raise CheckError(
                    f"the suite has {type(rule).__name__} under quarantine, but it is not about single rows, so no row "
                    "can be set aside by it; move it to error or warn",
                    code="check.not_about_rows",
                )

    @property
    def rules(self) -> list[tuple[Severity, Any]]:
        """All rules with their severities, in the order of a report."""
        by_severity: dict[Severity, Sequence[Any]] = {
            "error": self.error,
            "warn": self.warn,
            "quarantine": self.quarantine,
        }
        return [(severity, rule) for severity, rules in by_severity.items() for rule in rules]


def load_suite(name: str) -> Suite:
    """Import expectations/suites/<name>.py and return its suite.

    Raises CheckError if there is no such module, it cannot be imported, or it holds no suite.
    """
    file = f"expectations/suites/{name}.py"
    known = sorted(module.name for module in pkgutil.iter_modules(project_package("expectations").__path__))
    if name not in known:
        hint = did_you_mean(name, known)
        raise CheckError(
            f"there is no suite {name!r}; create {file} with `suite = Suite(error=[...])`{hint}",
            code="check.no_suite",
        )
    send_no_analytics()
    try:
        module = importlib.import_module(f"expectations.suites.{name}")
    except Exception as error:
        raise CheckError(
            f"{file} is broken, which says nothing about the data: {cause_of(error)}",
            code=error.code if isinstance(error, CheckError) else "check.suite_broken",
        ) from error
    suite = getattr(module, "suite", None)
    if not isinstance(suite, Suite):
        raise CheckError(f"{file} has no `suite = Suite(error=[...])`; add it", code="check.suite_without_rules")
    return suite


def suite_digest(name: str) -> str | None:
    """Return the digest of a suite's file if it may set rows aside and so decides what is trained on; else None.

    The file is read and not imported, since an import takes seconds. Without the word "quarantine" there is none.
    """
    file = project_folder() / "expectations" / "suites" / f"{name}.py"
    if file.exists() and "quarantine" in file.read_text(encoding="utf-8"):
        return digest.of_file(file)
    return None


def columns_named(rule: Any) -> list[str]:
    """Return the columns a rule is about; none for a rule about the table, such as which columns there are."""
    single = [getattr(rule, name, None) for name in ("column", "column_A", "column_B")]
    several = [] if type(rule).__name__.startswith("ExpectTable") else getattr(rule, "column_list", [])
    return [column for column in (*single, *several) if isinstance(column, str)]


def send_no_analytics() -> None:
    """Keep Great Expectations from reporting its use; call before it is imported."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def cause_of(error: BaseException) -> str:
    """Return an error's class and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
