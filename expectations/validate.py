"""Is this data good? A suite of Great Expectations rules against a frame, answered as a plain report."""

import importlib
import json
import math
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from expectations.rules import (
    ColumnReader,
    CrashedCheckError,
    RuleOutcome,
    cause_of,
    column_reader,
    columns_named,
    evaluate_rules,
    send_no_analytics,
)
from pipeline import digest
from pipeline.errors import CheckError, did_you_mean
from pipeline.guard import Guard
from pipeline.project import project_folder, project_package

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

    from pipeline.snapshot import SnapshotFile

Severity = Literal["error", "warn", "quarantine"]

MAX_EXAMPLES = 5
"""How many distinct unexpected values a report shows, at most."""
MAX_LISTED = 8
"""How many values of a set a report spells out."""
MAX_CHARACTERS = 80
"""What a report shows of one text; the rest is cut."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What good data is: Great Expectations rules by severity. A failed `warn` rule is reported and refuses nothing.

    Rows that break a `quarantine` rule are set aside, and the other rules judge what is left; when more than a share
    of `quarantine_at_most` of all rows would be, or fewer than the rule's own `mostly` keep it, the data is refused.
    Any expectation that Great Expectations has for pandas will do. Types are those of pandas 3: "int64" (with nulls
    "float64"), "float64", "str", "bool", "datetime64", and "Timestamp" where there is a time zone.
    Raises CheckError when there are no error rules, since such a suite would let anything pass, and for a quarantine
    rule that is about no single row.
    """

    error: Sequence[Any]
    warn: Sequence[Any] = ()
    quarantine: Sequence[Any] = ()
    quarantine_at_most: float = 0.05

    def __post_init__(self) -> None:
        if not self.error:
            raise CheckError("the suite has no error rules and would let anything pass; give it at least one")
        if not 0 <= self.quarantine_at_most < 1:
            raise CheckError(
                f"quarantine_at_most is {self.quarantine_at_most}; give a share of the rows, from 0 to under 1, as 0.05"
            )
        for severity, rule in self.rules:
            if not hasattr(rule, "expectation_type") or isinstance(rule, type):
                name = getattr(rule, "__name__", repr(rule))
                raise CheckError(f"the suite has {name:.80}, which is no expectation; write gxe.Expect...(column=...)")
            if severity == "quarantine" and not getattr(rule, "map_metric", None):
                raise CheckError(
                    f"the suite has {type(rule).__name__} under quarantine, but it says of no single row whether it is "
                    "good; move it to error or warn"
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


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What became of one rule. `unexpected_share` is between 0 and 1; nulls count only where a rule is about them.

    `threshold` is what the rule asks for, in words or as a value to compare `observed` or the share with.
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
    """How many rows break quarantine rules, and which part of all rows that is, between 0 and 1.

    They are set aside unless there are `reasons` to refuse the data instead. Once they are, `file` holds them with
    why, and `snapshot` is the digest of the rows that are left.
    """

    rows: int
    share: float
    at_most: float
    reasons: tuple[str, ...] = ()
    file: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What validation found: the size of the data and what became of each rule, in the order of the suite.

    `quarantine` is None for a suite without quarantine rules. What it sets aside is part of `rows`, and the error and
    warn rules are about the others.
    `guards` is what an endpoint of a model trained on the data holds requests to, `unguarded` the rules it does not.
    """

    rows: int
    columns: int
    rules: tuple[RuleResult, ...]
    quarantine: Quarantine | None = None
    guards: tuple[Guard, ...] = ()
    unguarded: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every error rule passed, and no more rows are to be set aside than may be."""
        return not self._failed("error") and not (self.quarantine and self.quarantine.reasons)

    @property
    def reasons(self) -> list[str]:
        """One sentence for each failed error rule; what several rules say alike is said once."""
        refused = self.quarantine.reasons if self.quarantine else ()
        return list(dict.fromkeys([*(rule.reason for rule in self._failed("error") if rule.reason), *refused]))

    @property
    def warnings(self) -> list[str]:
        """One sentence for each failed warn rule, unless a failed error rule of its kind tells of the same column.

        Before them, what was set aside and why.
        """
        told = {(rule.expectation, rule.column) for rule in self._failed("error")}
        news = [rule for rule in self._failed("warn") if (rule.expectation, rule.column) not in told]
        aside = [rule.reason for rule in self._failed("quarantine")]
        if self.quarantine and self.quarantine.rows and not self.quarantine.reasons:
            where = f", in {self.quarantine.file}" if self.quarantine.file else ""
            share = f"{self.quarantine.rows:,} of {self.rows:,} rows ({_percent(self.quarantine.share)})"
            aside = [f"{share} are set aside{where}", *aside]
        said = dict.fromkeys([*aside, *(rule.reason for rule in news)])
        return [reason for reason in said if reason and reason not in self.reasons]

    def refused(self, reason: str) -> "Report":
        """Return the same report with one more failed rule, first: the data lacks what the model's spec names."""
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


def load_suite(name: str) -> Suite:
    """Import expectations/suites/<name>.py and return its suite.

    Raises CheckError when there is no such module, it cannot be imported, or it holds no suite.
    """
    file = f"expectations/suites/{name}.py"
    known = sorted(module.name for module in pkgutil.iter_modules(project_package("expectations").__path__))
    if name not in known:
        hint = did_you_mean(name, known)
        raise CheckError(f"there is no suite {name!r}; create {file} with `suite = Suite(error=[...])`{hint}")
    send_no_analytics()
    try:
        module = importlib.import_module(f"expectations.suites.{name}")
    except Exception as error:
        raise CheckError(f"{file} is broken, which says nothing about the data: {cause_of(error)}") from error
    suite = getattr(module, "suite", None)
    if not isinstance(suite, Suite):
        raise CheckError(f"{file} has no `suite = Suite(error=[...])`; add it")
    return suite


@dataclass(frozen=True)
class Failing:
    """Which rows break quarantine rules: a mask for each rule that some break, by the words of the rule."""

    by_rule: "Mapping[str, numpy.ndarray]"

    @property
    def any(self) -> "numpy.ndarray":
        """The rows that break one or more of them."""
        import numpy as np

        masks: numpy.ndarray = np.logical_or.reduce([*self.by_rule.values()])
        return masks


def suite_digest(name: str) -> str | None:
    """Return the digest of a suite's file when it may set rows aside, and so decides what is trained on; else None.

    The file is read and not imported, since importing it takes seconds: one that never says "quarantine" has none.
    """
    file = project_folder() / "expectations" / "suites" / f"{name}.py"
    if file.exists() and "quarantine" in file.read_text(encoding="utf-8"):
        return digest.of_file(file)
    return None


def validate(
    data: "pandas.DataFrame | pyarrow.Table | SnapshotFile", suite: Suite, sensitive: Collection[str] = ()
) -> Report:
    """Return what became of each rule of the suite on the data; of `sensitive` columns the report shows no value.

    No rows, a missing column and a column of the wrong type are bad data and decided here, since Great Expectations
    passes the first and crashes on the others. Raises CheckError, naming the rule, when a check itself crashed.
    """
    return validate_and_quarantine(data, suite, sensitive)[0]


def validate_and_quarantine(
    data: "pandas.DataFrame | pyarrow.Table | SnapshotFile", suite: Suite, sensitive: Collection[str] = ()
) -> tuple[Report, Failing | None]:
    """Return the report, as `validate` does, and which rows it sets aside; None when that is none of them."""
    columns = column_reader(data)
    if columns.rows == 0:
        nothing = RuleResult(
            rule="the data has rows",
            expectation="",
            column=None,
            severity="error",
            passed=False,
            reason=f"the data has no rows, only the names of {len(columns.names)} columns; was the export cut short?",
            observed=0,
        )
        return Report(rows=0, columns=len(columns.names), rules=(nothing,)), None

    rules = dict(enumerate(suite.rules))
    aside = {number: rule for number, (severity, rule) in rules.items() if severity == "quarantine"}
    found = _find(columns, aside, suite, sensitive, masks=True)
    results = {
        number: _result(rule, "quarantine", found[number], columns.names, sensitive) for number, rule in aside.items()
    }
    failing, quarantine = _set_aside(columns.rows, suite, results, found) if aside else (None, None)
    kept = columns.only(~failing.any) if failing else columns
    others = {number: rule for number, (_, rule) in rules.items() if number not in aside}
    found = _find(kept, others, suite, sensitive)
    for number, rule in others.items():
        results[number] = _result(rule, rules[number][0], found[number], columns.names, sensitive)
    told = tuple(results[number] for number in rules)
    return Report(rows=columns.rows, columns=len(columns.names), rules=told, quarantine=quarantine), failing


def _find(
    columns: ColumnReader, rules: Mapping[int, Any], suite: Suite, sensitive: Collection[str], masks: bool = False
) -> dict[int, RuleOutcome]:
    """Return what was found about each rule, by its number."""
    named = {column for _, rule in suite.rules for column in columns_named(rule)}
    missing = {number: unfit for number, rule in rules.items() if (unfit := _missing(rule, columns.names, named))}
    askable = {number: rule for number, rule in rules.items() if number not in missing}
    try:
        found = evaluate_rules(columns, askable, partial(_prepared, sensitive=sensitive), masks)
    except CrashedCheckError as error:
        others = f" ({error.others} more crashed)" if error.others else ""
        hidden = _hidden(error.rule, sensitive)
        cause = f"the cause is not shown, since it may hold values of {hidden}" if hidden else error.cause
        check = f"{_sentence(error.rule, sensitive)!r} ({type(error.rule).__name__})"
        raise CheckError(
            f"the check {check} crashed{others}, which says nothing about the data: {cause}; mend the rule in the suite"
        ) from (None if hidden else error)
    return found | {number: RuleOutcome(unfit) for number, unfit in missing.items()}


def _prepared(rule: Any, frame: "pandas.DataFrame", sensitive: Collection[str]) -> tuple[str | None, Any]:
    unfit = _unfit(rule, frame, sensitive)
    return unfit, None if unfit else _for_pandas(rule, frame)


def _set_aside(
    rows: int, suite: Suite, results: Mapping[int, RuleResult], found: Mapping[int, RuleOutcome]
) -> tuple[Failing | None, Quarantine]:
    """Return which rows are to be set aside, unless that is refused, and how many would be."""
    reasons: list[str] = []
    masks: dict[str, numpy.ndarray] = {}
    for number, result in results.items():
        rule, mask = suite.rules[number][1], found[number].failing
        if mask is not None and mask.any():
            masks[result.rule] = mask | masks[result.rule] if result.rule in masks else mask
        # A rule that could not be asked tells no row from another; what fails beyond `mostly` is another matter than
        # a few bad rows.
        if not result.passed and (mask is None or _mostly(rule) < 1):
            reasons.append(result.reason or result.rule)
    failing = Failing(masks) if masks else None
    count = int(failing.any.sum()) if failing else 0
    share = count / rows
    if share > suite.quarantine_at_most:
        reasons.append(
            f"{count:,} of {rows:,} rows ({_percent(share)}) break quarantine rules, and at most "
            f"{_percent(suite.quarantine_at_most)} may be set aside"
        )
        reasons += [result.reason for result in results.values() if result.reason]
    aside = Quarantine(rows=count, share=share, at_most=suite.quarantine_at_most, reasons=tuple(dict.fromkeys(reasons)))
    return (None if reasons else failing), aside


def _mostly(rule: Any) -> float:
    mostly = getattr(rule, "mostly", 1)
    return mostly if isinstance(mostly, float) else 1.0


def _hidden(rule: Any, sensitive: Collection[str]) -> str:
    """Return the sensitive columns that a rule is about, in words; "" when it is about none."""
    return _and([repr(column) for column in columns_named(rule) if column in sensitive])


def _missing(rule: Any, names: Iterable[Any], named: Iterable[str]) -> str | None:
    """Say which column of a rule the data does not have, if there is one."""
    for column in columns_named(rule):
        if column not in names:
            # A renamed column is one that no rule knows.
            return f"column {column!r} is missing{did_you_mean(column, set(map(str, names)) - set(named))}"
    return None


_OF_NUMBERS = {
    "ExpectColumnKLDivergenceToBeLessThan",
    "ExpectColumnMeanToBeBetween",
    "ExpectColumnMedianToBeBetween",
    "ExpectColumnQuantileValuesToBeBetween",
    "ExpectColumnStdevToBeBetween",
    "ExpectColumnSumToBeBetween",
    "ExpectColumnValueZScoresToBeLessThan",
    "ExpectMulticolumnSumToEqual",
}
_OF_TEXT = {"ExpectColumnValuesToBeDateutilParseable", "ExpectColumnValuesToMatchStrftimeFormat"}
_OF_BOUNDS = {"ExpectColumnMaxToBeBetween", "ExpectColumnMinToBeBetween", "ExpectColumnValuesToBeBetween"}
_PLURALS = {"number": "numbers", "text": "text", "timestamp": "timestamps", "boolean": "booleans"}


def _is_a(rule: Any, names: Iterable[str]) -> bool:
    """Tell whether a rule is an expectation of one of these names, or of a class that a suite derives from one."""
    return not {cls.__name__ for cls in type(rule).__mro__}.isdisjoint(names)


def _unfit(rule: Any, frame: "pandas.DataFrame", sensitive: Collection[str]) -> str | None:
    """Say why the data cannot even be asked about a rule: a column is of another type than the rule's."""
    wanted = _wanted(rule, frame)
    for column in columns_named(rule) if wanted else []:
        held = _kind(frame[column])
        if held == "nothing" and not _is_a(rule, {"ExpectColumnValuesToBeBetween", *_OF_TEXT}):
            return f"column {column!r} is null in every row where {_PLURALS[wanted]} are expected"
        if held in _PLURALS and held != wanted and (held, wanted) != ("boolean", "number"):
            values = frame[column].dropna()
            wrong = (_no_numbers(values) if (held, wanted) == ("text", "number") else values).head(100)
            told = "" if column in sensitive else f" such as {_examples(wrong)}"
            return f"column {column!r} holds {_PLURALS[held]}{told} where {_PLURALS[wanted]} are expected"
    return None


def _wanted(rule: Any, frame: "pandas.DataFrame") -> str:
    """Return the type of values that a rule can be asked about, or "" when any will do."""
    if _is_a(rule, _OF_BOUNDS):
        return "timestamp" if any(hasattr(bound, "year") for bound in (rule.min_value, rule.max_value)) else "number"
    if _is_a(rule, ["ExpectColumnPairValuesAToBeGreaterThanB"]):
        kinds = {_kind(frame[column]) for column in columns_named(rule)}
        return next((kind for kind in ("timestamp", "number") if kind in kinds), "")
    return "number" if _is_a(rule, _OF_NUMBERS) else "text" if _is_a(rule, _OF_TEXT) else ""


def _kind(column: "pandas.Series") -> str:
    """Return which of _PLURALS a column holds, "nothing", or another word where the type does not matter."""
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "timestamp"
    if column.isna().all():
        return "nothing"
    held = types.infer_dtype(column, skipna=True)
    return {"string": "text", "date": "timestamp", "datetime": "timestamp"}.get(held, held)


def _no_numbers(texts: "pandas.Series") -> "pandas.Series":
    """Return the texts that are no numbers, or all of them when each is a number in quotes."""
    import pandas as pd

    broken = texts[pd.to_numeric(texts, errors="coerce").isna()]
    return broken if len(broken) else texts


def _for_pandas(rule: Any, frame: "pandas.DataFrame") -> Any:
    """Return the rule as Great Expectations 1.x can answer it for the types of pandas 3."""
    import pandas as pd
    from great_expectations import expectations as gxe

    if isinstance(rule, gxe.ExpectColumnValuesToBeInTypeList):
        # It compares with numpy's types alone and never finds `str` in a list; ...ToBeOfType does.
        held = frame[rule.column].dtype.type.__name__
        if held in (rule.type_list or ()):
            return gxe.ExpectColumnValuesToBeOfType(column=rule.column, type_=held)
    if _is_a(rule, _OF_BOUNDS) and pd.api.types.is_datetime64_any_dtype(frame[rule.column].dtype):
        # A date cannot be compared with a timestamp, nor one without a time zone with one that has it.
        zone = getattr(frame[rule.column].dtype, "tz", None)
        return rule.copy(update={name: _timestamp(getattr(rule, name), zone) for name in ("min_value", "max_value")})
    return rule


def _timestamp(bound: Any, zone: Any) -> Any:
    import pandas as pd

    if bound is None:
        return None
    stamp = pd.Timestamp(bound)
    return stamp.tz_localize(zone) if stamp.tzinfo is None else stamp


def _result(
    rule: Any, severity: Severity, asked: RuleOutcome, columns: Iterable[Any], sensitive: Collection[str]
) -> RuleResult:
    """Return what was found about a rule; of a sensitive column no value, but how many are unexpected."""
    sentence = _sentence(rule, sensitive)
    if asked.unfit:
        return _result_of(rule, severity, sentence, passed=False, reason=asked.unfit)
    answer, hidden = asked.answer, _hidden(rule, sensitive)
    found = answer.result
    examples = [] if hidden else _distinct(found.get("partial_unexpected_list") or [])
    observed = None if hidden else found.get("observed_value")
    observed = _plain(observed[:MAX_LISTED] if isinstance(observed, list) else observed)
    count, share = found.get("unexpected_count"), None
    if "element_count" in found:
        values = found["element_count"] - found.get("missing_count", 0)
        share = count / values if values else 0.0
        seen = f" in {count:,} of {values:,} values ({_percent(share)})"
        seen += f", such as {_examples(examples)}" if any(example is not None for example in examples) else ""
    elif hidden:
        seen = f"; what it found is not shown, since {hidden} {'are' if ' and ' in hidden else 'is'} sensitive"
    else:
        held = _examples(examples) or ("no value" if observed is None else _cut(_shown(observed)))
        mismatch = _mismatch(rule, found, columns)
        seen = f": {mismatch}" if mismatch else f": found {held}"
    match columns_named(rule):
        case []:
            subject = "the data breaks"
        case [column]:
            subject = f"column {column!r} breaks"
        case several:
            subject = f"columns {_and(map(repr, several))} break"
    return _result_of(
        rule,
        severity,
        sentence,
        passed=bool(answer.success),
        reason=None if answer.success else f"{subject} the rule {sentence!r}{seen}",
        observed=observed,
        unexpected_count=count,
        unexpected_share=share,
        examples=tuple(examples),
    )


def _result_of(rule: Any, severity: Severity, sentence: str, **found: Any) -> RuleResult:
    columns = columns_named(rule)
    return RuleResult(
        rule=sentence,
        expectation=type(rule).__name__,
        column=columns[0] if len(columns) == 1 else None,
        severity=severity,
        threshold=_threshold(rule),
        **found,
    )


def _threshold(rule: Any) -> Any:
    """Return what a rule holds its value against, in JSON values: its bounds, else the share of rows that must hold."""
    limits = {name: getattr(rule, name, None) for name in ("min_value", "max_value")}
    bounds = {name: _plain(limit) for name, limit in limits.items() if limit is not None}
    return bounds or ({"mostly": _mostly(rule)} if getattr(rule, "map_metric", None) else None)


def _mismatch(rule: Any, found: Mapping[str, Any], columns: Iterable[Any]) -> str:
    """Say which of the values or columns that should be there are missing, and which columns are too many."""
    if values := found.get("partial_missing_list"):
        held = _examples(sorted(found.get("partial_unexpected_list") or [], key=str))
        return f"{_examples(sorted(values, key=str))} missing" + (f", found {held}" if held else "")
    names = (found.get("details") or {}).get("mismatched")
    if not isinstance(names, dict):
        return ""
    missing, unexpected = names.get("missing") or [], names.get("unexpected") or []
    said = [f"{_examples(missing)} missing{did_you_mean(missing[0], map(str, columns))}"] if missing else []
    said += [f"{_examples(unexpected)} not expected"] if unexpected and rule.exact_match else []
    return "; ".join(said)


_SUMMARIES = {
    "ExpectColumnMaxToBeBetween": "the largest",
    "ExpectColumnMeanToBeBetween": "the mean of",
    "ExpectColumnMedianToBeBetween": "the median of",
    "ExpectColumnMinToBeBetween": "the smallest",
    "ExpectColumnStdevToBeBetween": "the standard deviation of",
    "ExpectColumnSumToBeBetween": "the sum of",
    "ExpectColumnUniqueValueCountToBeBetween": "the number of distinct values of",
    "ExpectColumnProportionOfNonNullValuesToBeBetween": "the share of values that are not null in",
    "ExpectColumnProportionOfUniqueValuesToBeBetween": "the share of distinct values in",
}


def _sentence(rule: Any, sensitive: Collection[str] = ()) -> str:
    """Say a rule in a few words: those of its description, else ours, else those of Great Expectations.

    Of a sensitive column the values that a rule lists are not said: they may have been taken from the data.
    """
    name, column, hidden = type(rule).__name__, getattr(rule, "column", None), _hidden(rule, sensitive)
    if rule.description:
        return str(rule.description)
    if getattr(rule, "row_condition", None):
        return f"{name} of {hidden}" if hidden else _in_gx_words(rule)
    match name:
        case "ExpectColumnValuesToBeBetween":
            words = f"{column} is {_range(rule)}"
        case "ExpectColumnValuesToBeInSet":
            words = f"{column} is one of {_set(rule, hidden)}"
        case "ExpectColumnDistinctValuesToBeInSet":
            words = f"the values of {column} are among {_set(rule, hidden)}"
        case "ExpectColumnDistinctValuesToContainSet":
            words = f"{column} has each of {_set(rule, hidden)}"
        case "ExpectColumnDistinctValuesToEqualSet":
            words = f"{column} has each of {_set(rule, hidden)}, and no other value"
        case "ExpectColumnValuesToNotBeNull":
            words = f"{column} is not null"
        case "ExpectColumnValuesToBeUnique":
            words = f"{column} is unique"
        case "ExpectCompoundColumnsToBeUnique":
            words = f"{_and(rule.column_list)} are unique together"
        case "ExpectColumnValuesToBeInTypeList":
            words = f"{column} is of type {' or '.join(rule.type_list or ())}"
        case "ExpectColumnValuesToBeOfType":
            words = f"{column} is of type {rule.type_}"
        case "ExpectColumnPairValuesAToBeGreaterThanB":
            words = f"{rule.column_A} is {'at least' if rule.or_equal else 'greater than'} {rule.column_B}"
        case "ExpectColumnToExist":
            words = f"there is a column {column}"
        case "ExpectTableRowCountToBeBetween":
            words = f"the number of rows is {_range(rule)}"
        case _ if name in _SUMMARIES:
            words = f"{_SUMMARIES[name]} {column} is {_range(rule)}"
        case _:
            return f"{name} of {hidden}" if hidden else _in_gx_words(rule)
    mostly = getattr(rule, "mostly", 1)
    return f"{words}, in at least {100 * mostly:g}% of values" if isinstance(mostly, float) and mostly < 1 else words


def _set(rule: Any, hidden: str) -> str:
    values = rule.value_set or ()
    return f"{len(values):,} value{'' if len(values) == 1 else 's'}" if hidden else _listed(values)


def _range(rule: Any) -> str:
    low, high = rule.min_value, rule.max_value
    strict_low, strict_high = getattr(rule, "strict_min", False), getattr(rule, "strict_max", False)
    if low is not None and high is not None and not strict_low and not strict_high:
        return f"between {_shown(low)} and {_shown(high)}"
    parts = [f"{'more than' if strict_low else 'at least'} {_shown(low)}"] if low is not None else []
    parts += [f"{'less than' if strict_high else 'at most'} {_shown(high)}"] if high is not None else []
    return " and ".join(parts)


def _in_gx_words(rule: Any) -> str:
    import string

    rule = rule.copy()
    try:
        rule.render()
        said = rule.rendered_content[0].value
        values = {name: parameter["value"] for name, parameter in (said.params or {}).items()}
        words = string.Template(said.template or "").safe_substitute(values).rstrip(".")
    except Exception:  # an expectation without a renderer, or a broken one, still has a name
        words = ""
    return words or type(rule).__name__


def markdown(report: Report) -> str:
    """Return the report for a person to read: a summary, what failed, what to look at, and what passed."""
    lines = [
        f"**Data {'passed' if report.passed else 'rejected'}**: {report.rows:,} rows, {report.columns:,} columns; "
        f"{sum(rule.passed for rule in report.rules):,} of {len(report.rules):,} rules hold."
    ]
    for heading, sentences in (("Failed", report.reasons), ("Warnings", report.warnings)):
        if sentences:
            lines += ["", f"## {heading}", "", *(f"- {_one_line(sentence)}" for sentence in sentences)]
    if passed := [rule for rule in report.rules if rule.passed]:
        # No table: in the Prefect UI a long rule would push the other columns out of sight.
        lines += ["", "## Passed", "", *(f"- {_one_line(rule.rule)}{_aside(rule)}" for rule in passed)]
    return "\n".join(lines) + "\n"


def _aside(rule: RuleResult) -> str:
    severity = "" if rule.severity == "error" else rule.severity
    words = ", ".join(filter(None, [severity, _one_line(_found(rule))]))
    return f" ({words})" if words else ""


def _found(rule: RuleResult) -> str:
    if rule.unexpected_count and rule.unexpected_share is not None:
        return f"{rule.unexpected_count:,} tolerated ({_percent(rule.unexpected_share)})"
    return "" if rule.observed is None else _cut(_shown(rule.observed))


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _and(names: Iterable[str]) -> str:
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _percent(share: float) -> str:
    return "under 0.1%" if 0 < share < 0.001 else f"{100 * share:.1f}%".replace(".0%", "%")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."


def _shown(value: Any) -> str:
    """Write a value as JSON does, whole numbers without a fraction."""
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the first few distinct values, as JSON values."""
    distinct = {json.dumps(plain): plain for plain in map(_plain, values)}
    return list(distinct.values())[:MAX_EXAMPLES]


def _listed(values: Iterable[Any]) -> str:
    first, more = [*values][:MAX_LISTED], len([*values]) - MAX_LISTED
    return ", ".join(map(_shown, first)) + (f" and {more} more" if more > 0 else "")


def _examples(values: Iterable[Any]) -> str:
    return ", ".join(map(_shown, _distinct(values)))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no numpy, NaN and NaT as None, times in ISO 8601, long text cut."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if hasattr(value, "isoformat"):
        return None if value != value else value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value))
