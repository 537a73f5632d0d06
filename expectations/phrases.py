"""Rules and values in words: the sentence of a rule, why a rule failed, and values as a report shows them."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from expectations.suite import columns_named
from pipeline.errors import did_you_mean

MAX_EXAMPLES = 5
"""Maximum number of distinct unexpected values in a report."""
MAX_LISTED = 8
"""Maximum number of a set's values that a report lists."""
MAX_CHARACTERS = 80
"""Maximum characters of one text in a report; the rest is cut."""

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


def describe_rule(rule: Any, sensitive: Collection[str] = ()) -> str:
    """Return a rule in a few words: its own description, else evergreen's sentence, else Great Expectations' text.

    For a sensitive column the values that a rule lists are left out, since they may have been taken from the data.
    """
    name, column, hidden = type(rule).__name__, getattr(rule, "column", None), hidden_columns(rule, sensitive)
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
            words = f"{join_names(rule.column_list)} are unique together"
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
    return f"{len(values):,} value{'' if len(values) == 1 else 's'}" if hidden else list_values(values)


def _range(rule: Any) -> str:
    low, high = rule.min_value, rule.max_value
    strict_low, strict_high = getattr(rule, "strict_min", False), getattr(rule, "strict_max", False)
    if low is not None and high is not None and not strict_low and not strict_high:
        return f"between {json_text(low)} and {json_text(high)}"
    parts = [f"{'more than' if strict_low else 'at least'} {json_text(low)}"] if low is not None else []
    parts += [f"{'less than' if strict_high else 'at most'} {json_text(high)}"] if high is not None else []
    return " and ".join(parts)


def _in_gx_words(rule: Any) -> str:
    import string

    rule = rule.copy()
    try:
        rule.render()
        text = rule.rendered_content[0].value
        values = {name: parameter["value"] for name, parameter in (text.params or {}).items()}
        words = string.Template(text.template or "").safe_substitute(values).rstrip(".")
    except Exception:  # an expectation without a renderer, or a broken one, still has a name
        words = ""
    return words or type(rule).__name__


def subject_of(rule: Any) -> str:
    """Return the columns that break a rule as the beginning of a sentence: "column 'x' breaks"."""
    match columns_named(rule):
        case []:
            return "the data breaks"
        case [column]:
            return f"column {column!r} breaks"
        case columns:
            return f"columns {join_names(map(repr, columns))} break"


def hidden_columns(rule: Any, sensitive: Collection[str]) -> str:
    """Return the sensitive columns that a rule is about, in words; "" if there are none."""
    return join_names([repr(column) for column in columns_named(rule) if column in sensitive])


def describe_mismatch(rule: Any, measured: Mapping[str, Any], columns: Iterable[Any]) -> str:
    """Return which expected values or columns are missing, and which columns are not expected; "" if neither.

    `measured` is the `result` of Great Expectations, `columns` are the names of the columns that the data has.
    """
    if values := measured.get("partial_missing_list"):
        others = list_examples(sorted(measured.get("partial_unexpected_list") or [], key=str))
        return f"{list_examples(sorted(values, key=str))} missing" + (f", found {others}" if others else "")
    names = (measured.get("details") or {}).get("mismatched")
    if not isinstance(names, dict):
        return ""
    missing, unexpected = names.get("missing") or [], names.get("unexpected") or []
    parts = [f"{list_examples(missing)} missing{did_you_mean(missing[0], map(str, columns))}"] if missing else []
    parts += [f"{list_examples(unexpected)} not expected"] if unexpected and rule.exact_match else []
    return "; ".join(parts)


def join_names(names: Iterable[str]) -> str:
    """Return names as a list in words.

    >>> join_names(["a", "b", "c"]), join_names([])
    ('a, b and c', '')
    """
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage with one digit at most.

    >>> percent(0.5), percent(0.0123), percent(0.0001)
    ('50%', '1.2%', 'under 0.1%')
    """
    return "under 0.1%" if 0 < share < 0.001 else f"{100 * share:.1f}%".replace(".0%", "%")


def shorten(text: str) -> str:
    """Return a text cut to MAX_CHARACTERS."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."


def json_text(value: Any) -> str:
    """Return a value as JSON text, whole numbers without a fraction and text in single quotes."""
    value = to_json_value(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the first MAX_EXAMPLES distinct values, as JSON values."""
    by_text = {json.dumps(value): value for value in map(to_json_value, values)}
    return list(by_text.values())[:MAX_EXAMPLES]


def list_values(values: Iterable[Any]) -> str:
    """Return the first MAX_LISTED values in words, and how many more there are."""
    first, more = [*values][:MAX_LISTED], len([*values]) - MAX_LISTED
    return ", ".join(map(json_text, first)) + (f" and {more} more" if more > 0 else "")


def list_examples(values: Iterable[Any]) -> str:
    """Return the first few distinct values in words."""
    return ", ".join(map(json_text, distinct(values)))


def to_json_value(value: Any) -> Any:
    """Return a value as a JSON value: numpy's scalars as Python's, NaN and NaT as None, times in ISO 8601, text cut."""
    if isinstance(value, dict):
        return {str(name): to_json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(part) for part in value]
    if hasattr(value, "isoformat"):
        return None if value != value else value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return shorten(str(value))
