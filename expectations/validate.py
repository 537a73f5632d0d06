"""Is this data good? A suite of Great Expectations rules against a frame, answered as a plain report."""

import importlib
import json
import math
import os
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import CheckError, did_you_mean
from pipeline.guard import Guard

if TYPE_CHECKING:
    import pandas

Severity = Literal["error", "warn"]

MOST_EXAMPLES = 5
"""How many distinct unexpected values a report shows, at most."""
MOST_LISTED = 8
"""How many values of a set a report spells out."""
MOST_CHARACTERS = 80
"""What a report shows of one text; the rest is cut."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What good data is: Great Expectations rules by severity. A failed `warn` rule is reported and refuses nothing.

    Any expectation that Great Expectations has for pandas will do. Types are those of pandas 3: "int64" (with nulls
    "float64"), "float64", "str", "bool", "datetime64", and "Timestamp" where there is a time zone.
    Raises CheckError when there are no error rules, since such a suite would let anything pass.
    """

    error: Sequence[Any]
    warn: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not self.error:
            raise CheckError("the suite has no error rules and would let anything pass; give it at least one")


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What became of one rule. `unexpected_share` is between 0 and 1; nulls count only where a rule is about them."""

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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What validation found: the size of the data and what became of each rule, in the order of the suite.

    `guards` is what an endpoint of a model trained on the data holds requests to, `unguarded` the rules it does not.
    """

    rows: int
    columns: int
    rules: tuple[RuleResult, ...]
    guards: tuple[Guard, ...] = ()
    unguarded: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every error rule passed."""
        return not self._failed("error")

    @property
    def reasons(self) -> list[str]:
        """One sentence for each failed error rule; what several rules say alike is said once."""
        return list(dict.fromkeys(rule.reason for rule in self._failed("error") if rule.reason))

    @property
    def warnings(self) -> list[str]:
        """One sentence for each failed warn rule, unless a failed error rule of its kind tells of the same column."""
        told = {(rule.expectation, rule.column) for rule in self._failed("error")}
        news = [rule for rule in self._failed("warn") if (rule.expectation, rule.column) not in told]
        return list(dict.fromkeys(rule.reason for rule in news if rule.reason and rule.reason not in self.reasons))

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
        size = {"rows": self.rows, "columns": self.columns}
        return {"passed": self.passed, **size, "reasons": self.reasons, "warnings": self.warnings, "rules": rules}


def load_suite(name: str) -> Suite:
    """Import expectations/suites/<name>.py and return its suite.

    Raises CheckError when there is no such module, it cannot be imported, or it holds no suite.
    """
    import expectations.suites

    file = f"expectations/suites/{name}.py"
    known = sorted(module.name for module in pkgutil.iter_modules(expectations.suites.__path__))
    if name not in known:
        hint = did_you_mean(name, known)
        raise CheckError(f"there is no suite {name!r}; create {file} with `suite = Suite(error=[...])`{hint}")
    _send_no_analytics()
    try:
        module = importlib.import_module(f"expectations.suites.{name}")
    except Exception as error:
        raise CheckError(f"{file} is broken, which says nothing about the data: {_cause(error)}") from error
    suite = getattr(module, "suite", None)
    if not isinstance(suite, Suite):
        raise CheckError(f"{file} has no `suite = Suite(error=[...])`; add it")
    return suite


def validate(frame: "pandas.DataFrame", suite: Suite) -> Report:
    """Return what became of each rule of the suite on the frame.

    No rows, a missing column and a column of the wrong type are bad data and decided here, since Great Expectations
    passes the first and crashes on the others. Raises CheckError, naming the rule, when a check itself crashed.
    """
    rows, columns = frame.shape
    if rows == 0:
        nothing = RuleResult(
            rule="the data has rows",
            expectation="",
            column=None,
            severity="error",
            passed=False,
            reason=f"the data has no rows, only the names of {columns} columns; was the export cut short?",
            observed=0,
        )
        return Report(rows=rows, columns=columns, rules=(nothing,))

    rules: list[tuple[Severity, Any]] = [("error", rule) for rule in suite.error]
    rules += [("warn", rule) for rule in suite.warn]
    for _, rule in rules:
        if not hasattr(rule, "expectation_type") or isinstance(rule, type):
            name = getattr(rule, "__name__", repr(rule))
            raise CheckError(f"the suite has {name:.80}, which is no expectation; write gxe.Expect...(column=...)")
    named = {column for _, rule in rules for column in _columns_of(rule)}
    unfit = {number: _unfit(rule, frame, named) for number, (_, rule) in enumerate(rules)}
    checked = _ask_gx(frame, {n: _for_pandas(rule, frame) for n, (_, rule) in enumerate(rules) if not unfit[n]})
    return Report(
        rows=rows,
        columns=columns,
        rules=tuple(
            _result(rule, severity, checked[number], frame.columns)
            if number in checked
            else _result_of(rule, severity, passed=False, reason=unfit[number])
            for number, (severity, rule) in enumerate(rules)
        ),
    )


def _send_no_analytics() -> None:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def _ask_gx(frame: "pandas.DataFrame", rules: Mapping[int, Any]) -> dict[int, Any]:
    """Run rules in Great Expectations, as one batch, and return its results by the number of the rule."""
    if not rules:
        return {}
    _send_no_analytics()
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # Results come back in another order than rules went in, so each rule carries its number in its meta.
    numbered = [rule.copy(update={"meta": {"number": number}}) for number, rule in rules.items()]
    # Without a configuration there are progress bars, and a folder for documentation sites comes and goes.
    quiet = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False)
    )
    context = gx.get_context(mode="ephemeral", project_config=quiet)
    source = context.data_sources.add_pandas("pandas")
    try:
        table = source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("whole")
        batch = table.get_batch(batch_parameters={"dataframe": frame})
        # BASIC never lists the index of unexpected rows. Of 100 unexpected values a few distinct ones are shown.
        answer: Any = batch.validate(
            gx.ExpectationSuite(name="suite", expectations=numbered),
            result_format={"result_format": "BASIC", "partial_unexpected_count": 100},
        )
    except Exception as error:
        raise CheckError(f"Great Expectations crashed, which says nothing about the data: {_cause(error)}") from error
    finally:
        # The last context stays alive inside Great Expectations, and the frame with it unless the source goes.
        context.data_sources.delete("pandas")

    results = {result.expectation_config.meta["number"]: result for result in answer.results}
    crashed = {number: cause for number in sorted(rules) if (cause := _crash(results[number].exception_info))}
    if crashed:
        number, cause = next(iter(crashed.items()))
        others = f" ({len(crashed) - 1} more crashed)" if len(crashed) > 1 else ""
        raise CheckError(
            f"the check {_sentence(rules[number])!r} ({type(rules[number]).__name__}) crashed{others}, which says "
            f"nothing about the data: {cause}; mend the rule in the suite"
        )
    return results


def _crash(exception_info: Mapping[str, Any]) -> str | None:
    """Return why a check crashed: Great Expectations tells it once for the rule, or for each metric the rule needs."""
    told = [exception_info] if "raised_exception" in exception_info else exception_info.values()
    return next((info["exception_message"] for info in told if info["raised_exception"]), None)


def _cause(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _columns_of(rule: Any) -> list[str]:
    """Return the columns a rule is about; one that asks whether columns are there is about the table."""
    single = [getattr(rule, name, None) for name in ("column", "column_A", "column_B")]
    several = [] if type(rule).__name__.startswith("ExpectTable") else getattr(rule, "column_list", [])
    return [column for column in (*single, *several) if isinstance(column, str)]


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


def _unfit(rule: Any, frame: "pandas.DataFrame", named: Iterable[str]) -> str | None:
    """Say why the data cannot even be asked about a rule: a column is missing, or of another type than the rule's."""
    for column in _columns_of(rule):
        if column not in frame.columns:
            # A renamed column is one that no rule knows.
            return f"column {column!r} is missing{did_you_mean(column, set(map(str, frame.columns)) - set(named))}"
    wanted = _wanted(rule, frame)
    for column in _columns_of(rule) if wanted else []:
        held = _kind(frame[column])
        if held == "nothing" and not _is_a(rule, {"ExpectColumnValuesToBeBetween", *_OF_TEXT}):
            return f"column {column!r} is null in every row where {_PLURALS[wanted]} are expected"
        if held in _PLURALS and held != wanted and (held, wanted) != ("boolean", "number"):
            values = frame[column].dropna()
            told = _examples((_no_numbers(values) if (held, wanted) == ("text", "number") else values).head(100))
            return f"column {column!r} holds {_PLURALS[held]} such as {told} where {_PLURALS[wanted]} are expected"
    return None


def _wanted(rule: Any, frame: "pandas.DataFrame") -> str:
    """Return the type of values that a rule can be asked about, or "" when any will do."""
    if _is_a(rule, _OF_BOUNDS):
        return "timestamp" if any(hasattr(bound, "year") for bound in (rule.min_value, rule.max_value)) else "number"
    if _is_a(rule, ["ExpectColumnPairValuesAToBeGreaterThanB"]):
        kinds = {_kind(frame[column]) for column in _columns_of(rule)}
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


def _result(rule: Any, severity: Severity, answer: Any, columns: Iterable[Any]) -> RuleResult:
    """Return what Great Expectations found about a rule."""
    found = answer.result
    examples = _distinct(found.get("partial_unexpected_list") or [])
    observed = found.get("observed_value")
    observed = _plain(observed[:MOST_LISTED] if isinstance(observed, list) else observed)
    count, share = found.get("unexpected_count"), None
    if "element_count" in found:
        asked = found["element_count"] - found.get("missing_count", 0)
        share = count / asked if asked else 0.0
        seen = f" in {count:,} of {asked:,} values ({_percent(share)})"
        seen += f", such as {_examples(examples)}" if any(example is not None for example in examples) else ""
    else:
        held = _examples(examples) or ("no value" if observed is None else _cut(_shown(observed)))
        mismatch = _mismatch(rule, found, columns)
        seen = f": {mismatch}" if mismatch else f": found {held}"
    match _columns_of(rule):
        case []:
            subject = "the data breaks"
        case [column]:
            subject = f"column {column!r} breaks"
        case several:
            subject = f"columns {_and(map(repr, several))} break"
    return _result_of(
        rule,
        severity,
        passed=bool(answer.success),
        reason=None if answer.success else f"{subject} the rule {_sentence(rule)!r}{seen}",
        observed=observed,
        unexpected_count=count,
        unexpected_share=share,
        examples=tuple(examples),
    )


def _result_of(rule: Any, severity: Severity, **found: Any) -> RuleResult:
    columns = _columns_of(rule)
    return RuleResult(
        rule=_sentence(rule),
        expectation=type(rule).__name__,
        column=columns[0] if len(columns) == 1 else None,
        severity=severity,
        **found,
    )


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


def _sentence(rule: Any) -> str:
    """Say a rule in a few words: those of its description, else ours, else those of Great Expectations."""
    name, column = type(rule).__name__, getattr(rule, "column", None)
    if rule.description:
        return str(rule.description)
    if getattr(rule, "row_condition", None):
        return _in_gx_words(rule)
    match name:
        case "ExpectColumnValuesToBeBetween":
            words = f"{column} is {_range(rule)}"
        case "ExpectColumnValuesToBeInSet":
            words = f"{column} is one of {_listed(rule.value_set or ())}"
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
            return _in_gx_words(rule)
    mostly = getattr(rule, "mostly", 1)
    return f"{words}, in at least {100 * mostly:g}% of values" if isinstance(mostly, float) and mostly < 1 else words


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
        lines += ["", "## Passed", "", "| rule | severity | found |", "|---|---|---|"]
        lines += [f"| {_one_line(rule.rule)} | {rule.severity} | {_one_line(_found(rule))} |" for rule in passed]
    return "\n".join(lines) + "\n"


def _found(rule: RuleResult) -> str:
    if rule.unexpected_count and rule.unexpected_share is not None:
        return f"{rule.unexpected_count:,} tolerated ({_percent(rule.unexpected_share)})"
    return "" if rule.observed is None else _cut(_shown(rule.observed))


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _percent(share: float) -> str:
    return "under 0.1%" if 0 < share < 0.001 else f"{100 * share:.1f}%".replace(".0%", "%")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _shown(value: Any) -> str:
    """Write a value as JSON does, whole numbers without a fraction."""
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the first few distinct values, as JSON values."""
    distinct = {json.dumps(plain): plain for plain in map(_plain, values)}
    return list(distinct.values())[:MOST_EXAMPLES]


def _listed(values: Iterable[Any]) -> str:
    first, more = [*values][:MOST_LISTED], len([*values]) - MOST_LISTED
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
