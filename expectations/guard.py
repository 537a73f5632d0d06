"""Which rules of a suite an endpoint applies to requests as guards, and which of these refuse a request."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from expectations.phrases import describe_rule
from expectations.suite import Suite, columns_named
from pipeline.errors import CheckError, DataError
from pipeline.guard import Guard
from pipeline.sources import LogicalType

if TYPE_CHECKING:
    from pipeline.spec import ModelSpec

_RANGE, _SET, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToNotBeNull"
_OF_TYPES = {"ExpectColumnValuesToBeOfType", "ExpectColumnValuesToBeInTypeList"}
"""Rules about types: an endpoint refuses a value of another type than the feature's in any case."""


def guards_of(suite: Suite, types: Mapping[str, LogicalType]) -> tuple[tuple[Guard, ...], tuple[str, ...]]:
    """Return the guards that a suite's rules give, and in words the row-level rules that no guard can express.

    `types` are the types of the features by name. Guards are about ranges, sets and nulls. `mostly` makes no
    difference, since each value is counted. A rule with `meta={"refuse": True}` refuses requests that break it.
    Raises CheckError if such a rule is not about the range or the nulls of a feature; an unseen category never refuses
    a request. Raises DataError if the data has another type than such a rule is about.
    """
    guards: dict[Guard, bool] = {}
    unguarded: list[str] = []
    for rule in (*suite.error, *suite.warn, *suite.quarantine):
        refuse = _refuses(rule)
        guard = _guard(rule, types)
        if refuse and isinstance(guard, Guard) and guard.kind == "set":
            guard = _cannot_refuse(rule, "an unexpected category is predicted and counted")
        if refuse and isinstance(guard, Exception):
            raise guard
        if isinstance(guard, Guard):
            guards[guard] = guards.get(guard, False) or refuse
        elif _is_row_level(rule) and {*columns_named(rule)} & {*types}:
            unguarded.append(describe_rule(rule))
    return tuple(replace(guard, refuse=refuse) for guard, refuse in guards.items()), tuple(dict.fromkeys(unguarded))


def check_guards(spec: "ModelSpec", guards: tuple[Guard, ...]) -> None:
    """Raise CheckError if the suite refuses nulls that the spec allows."""
    for guard in guards:
        if guard.kind == "null" and guard.refuse and guard.feature in spec.nullable:
            raise CheckError(
                f"the suite refuses requests in which {guard.feature} is null, but the spec of {spec.name} lists it as "
                "nullable; remove one of the two",
                code="check.refuses_nullable",
            )


def _refuses(rule: Any) -> bool:
    refuse = (rule.meta or {}).get("refuse", False)
    if not isinstance(refuse, bool):
        raise CheckError(
            f"the rule {describe_rule(rule)!r} has refuse={refuse!r} in its meta; give True or False",
            code="check.refuse_not_boolean",
        )
    return refuse


def _cannot_refuse(rule: Any, why: str) -> CheckError:
    return CheckError(
        f"the rule {describe_rule(rule)!r} has refuse in its meta, but it cannot refuse a request: {why}; remove "
        "refuse from its meta",
        code="check.cannot_refuse",
    )


def _guard(rule: Any, types: Mapping[str, LogicalType]) -> Guard | Exception:
    """Return a rule as a guard that refuses nothing, or the error to raise if the rule should refuse requests."""
    names = {cls.__name__ for cls in type(rule).__mro__}
    if not names & {_RANGE, _SET, _NULL}:
        return _cannot_refuse(rule, "it is neither a range nor about nulls")
    if getattr(rule, "row_condition", None):
        return _cannot_refuse(rule, "it has a condition")
    feature = rule.column
    if feature not in types:
        return _cannot_refuse(rule, f"{feature!r} is not a feature")
    feature_type = types[feature]
    if _NULL in names:
        return Guard(feature=feature, kind="null")
    if _SET in names:
        values = [value for value in rule.value_set or () if value is not None]
        if feature_type not in ("text", "number") or not all(_is_a(value, feature_type) for value in values):
            return _cannot_refuse(rule, f"{feature!r} holds {feature_type}")
        numeric = feature_type == "number"
        return Guard(feature=feature, kind="set", values=tuple(float(v) if numeric else v for v in values))
    low, high = (_bound(value, feature_type) for value in (rule.min_value, rule.max_value))
    if low is math.nan or high is math.nan:
        return DataError(
            f"column {feature!r} holds {feature_type}, which the bounds of the rule {describe_rule(rule)!r} cannot be "
            "compared with; fix the data or the rule",
            code="data.wrong_type_for_rule",
        )
    return Guard(
        feature=feature,
        kind="range",
        minimum=low,
        maximum=high,
        exclusive_minimum=bool(rule.strict_min) and low is not None,
        exclusive_maximum=bool(rule.strict_max) and high is not None,
    )


def _bound(value: Any, feature_type: LogicalType) -> float | str | None:
    """Return a bound as a guard has it; NaN if the values of a feature cannot be compared with it."""
    if value is None:
        return None
    if feature_type == "number" and _is_a(value, "number"):
        return float(value)
    if feature_type == "timestamp" and hasattr(value, "isoformat"):
        time = datetime.fromisoformat(value.isoformat())
        return (time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time).isoformat()
    return math.nan


def _is_a(value: Any, feature_type: LogicalType) -> bool:
    if feature_type == "text":
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_row_level(rule: Any) -> bool:
    """Return whether a rule is about single values or rows. Types are left out: wrong ones are refused in any case."""
    return bool(getattr(rule, "map_metric", None)) and not {cls.__name__ for cls in type(rule).__mro__} & _OF_TYPES
