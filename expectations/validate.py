"""Apply a suite to a table: the report, and which rows break quarantine rules."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from expectations.phrases import (
    MAX_LISTED,
    describe_mismatch,
    describe_rule,
    distinct,
    hidden_columns,
    json_text,
    list_examples,
    percent,
    shorten,
    subject_of,
    to_json_value,
)
from expectations.report import Quarantine, Report, RuleResult
from expectations.rules import ColumnReader, CrashedCheckError, RuleOutcome, column_reader, evaluate_rules
from expectations.suite import Severity, Suite, columns_named
from pipeline.errors import CheckError, did_you_mean

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

    from pipeline.snapshot import SnapshotFile


@dataclass(frozen=True)
class Failing:
    """The rows that break quarantine rules.

    Attributes:
        by_rule: a boolean mask over all rows for each rule that some rows break, by the rule in words.
    """

    by_rule: "Mapping[str, numpy.ndarray]"

    @property
    def any(self) -> "numpy.ndarray":
        """The rows that break at least one of the rules."""
        import numpy as np

        masks: numpy.ndarray = np.logical_or.reduce([*self.by_rule.values()])
        return masks


def validate(
    data: "pandas.DataFrame | pyarrow.Table | SnapshotFile", suite: Suite, sensitive: Collection[str] = ()
) -> Report:
    """Return the result of each rule of the suite on the data; the report shows no value of `sensitive` columns.

    Data without rows, a missing column and a column of the wrong type are rejected here, since Great Expectations
    passes the first and crashes on the others. Raises CheckError, naming the rule, if a check itself crashed.
    """
    return validate_and_quarantine(data, suite, sensitive)[0]


def validate_and_quarantine(
    data: "pandas.DataFrame | pyarrow.Table | SnapshotFile", suite: Suite, sensitive: Collection[str] = ()
) -> tuple[Report, Failing | None]:
    """Return the report, as `validate` does, and which rows to set aside; None if there are none."""
    columns = column_reader(data)
    if columns.rows == 0:
        no_rows = RuleResult(
            rule="the data has rows",
            expectation="",
            column=None,
            severity="error",
            passed=False,
            reason=f"the data has no rows, only the names of {len(columns.names)} columns; was the export cut short?",
            observed=0,
        )
        return Report(rows=0, columns=len(columns.names), rules=(no_rows,)), None

    rules = dict(enumerate(suite.rules))
    row_rules = {number: rule for number, (severity, rule) in rules.items() if severity == "quarantine"}
    outcomes = _evaluate(columns, row_rules, suite, sensitive, masks=True)
    results = {
        number: _result(rule, "quarantine", outcomes[number], columns.names, sensitive)
        for number, rule in row_rules.items()
    }
    failing, quarantine = _set_aside(columns.rows, suite, results, outcomes) if row_rules else (None, None)
    kept = columns.only(~failing.any) if failing else columns
    others = {number: rule for number, (_, rule) in rules.items() if number not in row_rules}
    outcomes = _evaluate(kept, others, suite, sensitive)
    for number, rule in others.items():
        results[number] = _result(rule, rules[number][0], outcomes[number], columns.names, sensitive)
    in_order = tuple(results[number] for number in rules)
    return Report(rows=columns.rows, columns=len(columns.names), rules=in_order, quarantine=quarantine), failing


def _evaluate(
    columns: ColumnReader, rules: Mapping[int, Any], suite: Suite, sensitive: Collection[str], masks: bool = False
) -> dict[int, RuleOutcome]:
    """Return the outcome of each rule, by its number."""
    named = {column for _, rule in suite.rules for column in columns_named(rule)}
    missing = {number: unfit for number, rule in rules.items() if (unfit := _missing(rule, columns.names, named))}
    present = {number: rule for number, rule in rules.items() if number not in missing}
    try:
        outcomes = evaluate_rules(columns, present, partial(_prepared, sensitive=sensitive), masks)
    except CrashedCheckError as error:
        others = f" ({error.others} more crashed)" if error.others else ""
        hidden = hidden_columns(error.rule, sensitive)
        cause = f"the cause is not shown, since it may hold values of {hidden}" if hidden else error.cause
        check = f"{describe_rule(error.rule, sensitive)!r} ({type(error.rule).__name__})"
        raise CheckError(
            f"the check {check} crashed{others}, which says nothing about the data: {cause}; fix the rule in the suite",
            code="check.crashed",
        ) from (None if hidden else error)
    return outcomes | {number: RuleOutcome(unfit) for number, unfit in missing.items()}


def _prepared(rule: Any, frame: "pandas.DataFrame", sensitive: Collection[str]) -> tuple[str | None, Any]:
    unfit = _unfit(rule, frame, sensitive)
    return unfit, None if unfit else _for_pandas(rule, frame)


def _set_aside(
    rows: int, suite: Suite, results: Mapping[int, RuleResult], outcomes: Mapping[int, RuleOutcome]
) -> tuple[Failing | None, Quarantine]:
    """Return which rows to set aside, None if the data is rejected instead, and how many break quarantine rules."""
    reasons: list[str] = []
    masks: dict[str, numpy.ndarray] = {}
    for number, result in results.items():
        rule, mask = suite.rules[number][1], outcomes[number].failing
        if mask is not None and mask.any():
            masks[result.rule] = mask | masks[result.rule] if result.rule in masks else mask
        # Without a mask no row can be told from another. A failure beyond `mostly` is more than a few bad rows.
        if not result.passed and (mask is None or _mostly(rule) < 1):
            reasons.append(result.reason or result.rule)
    failing = Failing(masks) if masks else None
    count = int(failing.any.sum()) if failing else 0
    share = count / rows
    if share > suite.quarantine_at_most:
        reasons.append(
            f"{count:,} of {rows:,} rows ({percent(share)}) break quarantine rules, and at most "
            f"{percent(suite.quarantine_at_most)} may be set aside"
        )
        reasons += [result.reason for result in results.values() if result.reason]
    aside = Quarantine(rows=count, share=share, at_most=suite.quarantine_at_most, reasons=tuple(dict.fromkeys(reasons)))
    return (None if reasons else failing), aside


def _mostly(rule: Any) -> float:
    mostly = getattr(rule, "mostly", 1)
    return mostly if isinstance(mostly, float) else 1.0


def _missing(rule: Any, names: Iterable[Any], named: Iterable[str]) -> str | None:
    """Return a sentence about the first column of a rule that the data does not have; None if it has all."""
    for column in columns_named(rule):
        if column not in names:
            # A renamed column is one that no rule names.
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
    """Return whether a rule is an expectation of one of these names, or of a class that a suite derives from one."""
    return not {cls.__name__ for cls in type(rule).__mro__}.isdisjoint(names)


def _unfit(rule: Any, frame: "pandas.DataFrame", sensitive: Collection[str]) -> str | None:
    """Return why a rule cannot be evaluated on the data: a column has another type than the rule's."""
    expected = _expected_type(rule, frame)
    for column in columns_named(rule) if expected else []:
        actual = _type_of(frame[column])
        if actual == "nothing" and not _is_a(rule, {"ExpectColumnValuesToBeBetween", *_OF_TEXT}):
            return f"column {column!r} is null in every row, but {_PLURALS[expected]} are expected"
        if actual in _PLURALS and actual != expected and (actual, expected) != ("boolean", "number"):
            values = frame[column].dropna()
            wrong = (_not_numbers(values) if (actual, expected) == ("text", "number") else values).head(100)
            examples = "" if column in sensitive else f" such as {list_examples(wrong)}"
            return f"column {column!r} holds {_PLURALS[actual]}{examples}, but {_PLURALS[expected]} are expected"
    return None


def _expected_type(rule: Any, frame: "pandas.DataFrame") -> str:
    """Return the type of values that a rule can be evaluated on, one of _PLURALS; "" for any type."""
    if _is_a(rule, _OF_BOUNDS):
        return "timestamp" if any(hasattr(bound, "year") for bound in (rule.min_value, rule.max_value)) else "number"
    if _is_a(rule, ["ExpectColumnPairValuesAToBeGreaterThanB"]):
        types = {_type_of(frame[column]) for column in columns_named(rule)}
        return next((name for name in ("timestamp", "number") if name in types), "")
    return "number" if _is_a(rule, _OF_NUMBERS) else "text" if _is_a(rule, _OF_TEXT) else ""


def _type_of(column: "pandas.Series") -> str:
    """Return which of _PLURALS a column holds, "nothing" if all is null, or pandas' word for any other type."""
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_numeric_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype):
        return "timestamp"
    if column.isna().all():
        return "nothing"
    inferred = types.infer_dtype(column, skipna=True)
    return {"string": "text", "date": "timestamp", "datetime": "timestamp"}.get(inferred, inferred)


def _not_numbers(texts: "pandas.Series") -> "pandas.Series":
    """Return the texts that are not numbers, or all of them if each is a number in quotes."""
    import pandas as pd

    broken = texts[pd.to_numeric(texts, errors="coerce").isna()]
    return broken if len(broken) else texts


def _for_pandas(rule: Any, frame: "pandas.DataFrame") -> Any:
    """Return the rule in a form that Great Expectations 1.x can evaluate on the types of pandas 3."""
    import pandas as pd
    from great_expectations import expectations as gxe

    if isinstance(rule, gxe.ExpectColumnValuesToBeInTypeList):
        # It compares with numpy's types alone and never finds `str` in a list; ...ToBeOfType does.
        actual = frame[rule.column].dtype.type.__name__
        if actual in (rule.type_list or ()):
            return gxe.ExpectColumnValuesToBeOfType(column=rule.column, type_=actual)
    if _is_a(rule, _OF_BOUNDS) and pd.api.types.is_datetime64_any_dtype(frame[rule.column].dtype):
        # pandas compares neither a date with a timestamp, nor a time without a time zone with one that has it.
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
    rule: Any, severity: Severity, outcome: RuleOutcome, columns: Iterable[Any], sensitive: Collection[str]
) -> RuleResult:
    """Return the result of a rule; for a sensitive column without values, only with the number of unexpected ones."""
    sentence = describe_rule(rule, sensitive)
    if outcome.unfit:
        return _result_of(rule, severity, sentence, passed=False, reason=outcome.unfit)
    hidden = hidden_columns(rule, sensitive)
    measured = outcome.answer.result
    examples = [] if hidden else distinct(measured.get("partial_unexpected_list") or [])
    observed = None if hidden else measured.get("observed_value")
    observed = to_json_value(observed[:MAX_LISTED] if isinstance(observed, list) else observed)
    count, share = measured.get("unexpected_count"), None
    if "element_count" in measured:
        values = measured["element_count"] - measured.get("missing_count", 0)
        share = count / values if values else 0.0
        details = f" in {count:,} of {values:,} values ({percent(share)})"
        details += f", such as {list_examples(examples)}" if any(value is not None for value in examples) else ""
    elif hidden:
        details = f"; the value is not shown, since {hidden} {'are' if ' and ' in hidden else 'is'} sensitive"
    else:
        value = list_examples(examples) or ("no value" if observed is None else shorten(json_text(observed)))
        mismatch = describe_mismatch(rule, measured, columns)
        details = f": {mismatch}" if mismatch else f": found {value}"
    return _result_of(
        rule,
        severity,
        sentence,
        passed=bool(outcome.answer.success),
        reason=None if outcome.answer.success else f"{subject_of(rule)} the rule {sentence!r}{details}",
        observed=observed,
        unexpected_count=count,
        unexpected_share=share,
        examples=tuple(examples),
    )


def _result_of(rule: Any, severity: Severity, sentence: str, **measured: Any) -> RuleResult:
    columns = columns_named(rule)
    return RuleResult(
        rule=sentence,
        expectation=type(rule).__name__,
        column=columns[0] if len(columns) == 1 else None,
        severity=severity,
        threshold=_threshold(rule),
        **measured,
    )


def _threshold(rule: Any) -> Any:
    """Return a rule's threshold as JSON values: its bounds, or the minimum share of values that must keep it."""
    limits = {name: getattr(rule, name, None) for name in ("min_value", "max_value")}
    bounds = {name: to_json_value(limit) for name, limit in limits.items() if limit is not None}
    return bounds or ({"mostly": _mostly(rule)} if getattr(rule, "map_metric", None) else None)
