"""Which of a suite's rules guard the requests to an endpoint, and which of them refuse one."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from expectations.rules import columns_named
from expectations.validate import Suite
from expectations.validate import _sentence as sentence
from pipeline.errors import CheckError, DataError
from pipeline.guard import Guard
from pipeline.sources import LogicalType

if TYPE_CHECKING:
    from pipeline.spec import ModelSpec

_RANGE, _SET, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToNotBeNull"
_OF_TYPES = {"ExpectColumnValuesToBeOfType", "ExpectColumnValuesToBeInTypeList"}
"""What an endpoint refuses in any case is a value of another type than the feature's."""


def guards_of(suite: Suite, types: Mapping[str, LogicalType]) -> tuple[tuple[Guard, ...], tuple[str, ...]]:
    """Return what a suite says of the values of features, and the sentences of row-level rules that no guard can hold.

    `types` are those of the features. Guards are ranges, sets and nulls; whether most rows or all must keep the rule
    makes no difference, since each value is counted. A rule with `meta={"refuse": True}` refuses requests that break
    it. Only ranges and nulls of features can, since an unseen category never refuses: CheckError for others, DataError
    where the data holds something else than the rule is about.
    """
    guards: dict[Guard, bool] = {}
    unguarded: list[str] = []
    for rule in (*suite.error, *suite.warn, *suite.quarantine):
        refuse = _refuses(rule)
        guard = _guard(rule, types)
        if refuse and isinstance(guard, Guard) and guard.kind == "set":
            guard = _broken(rule, "a category that is not expected is answered, and counted")
        if refuse and isinstance(guard, Exception):
            raise guard
        if isinstance(guard, Guard):
            guards[guard] = guards.get(guard, False) or refuse
        elif _is_row_level(rule) and {*columns_named(rule)} & {*types}:
            unguarded.append(sentence(rule))
    return tuple(replace(guard, refuse=refuse) for guard, refuse in guards.items()), tuple(dict.fromkeys(unguarded))


def check_guards(spec: "ModelSpec", guards: tuple[Guard, ...]) -> None:
    """Raise CheckError where the suite refuses nulls that the spec says may be there."""
    for guard in guards:
        if guard.kind == "null" and guard.refuse and guard.feature in spec.nullable:
            raise CheckError(
                f"the suite refuses requests where {guard.feature} is null, and the spec of {spec.name} says it is "
                "nullable; take one of them back"
            )


def _refuses(rule: Any) -> bool:
    refuse = (rule.meta or {}).get("refuse", False)
    if not isinstance(refuse, bool):
        raise CheckError(f"the rule {sentence(rule)!r} has refuse={refuse!r} in its meta; give True or False")
    return refuse


def _broken(rule: Any, why: str) -> CheckError:
    return CheckError(
        f"the rule {sentence(rule)!r} says refuse, but no request can be refused by it: {why}; take refuse out of its "
        "meta"
    )


def _guard(rule: Any, types: Mapping[str, LogicalType]) -> Guard | Exception:
    """Return a rule as a guard that refuses nothing, or what is to be raised where it should."""
    names = {cls.__name__ for cls in type(rule).__mro__}
    if not names & {_RANGE, _SET, _NULL}:
        return _broken(rule, "it is neither a range nor about nulls")
    if getattr(rule, "row_condition", None):
        return _broken(rule, "it has a condition")
    feature = rule.column
    if feature not in types:
        return _broken(rule, f"{feature!r} is no feature")
    kind = types[feature]
    if _NULL in names:
        return Guard(feature=feature, kind="null")
    if _SET in names:
        values = [value for value in rule.value_set or () if value is not None]
        if kind not in ("text", "number") or not all(_is_a(value, kind) for value in values):
            return _broken(rule, f"{feature!r} holds {kind}")
        return Guard(feature=feature, kind="set", values=tuple(float(v) if kind == "number" else v for v in values))
    low, high = (_bound(value, kind) for value in (rule.min_value, rule.max_value))
    if low is math.nan or high is math.nan:
        return DataError(f"column {feature!r} holds {kind}, which the rule {sentence(rule)!r} cannot be asked about")
    return Guard(
        feature=feature,
        kind="range",
        minimum=low,
        maximum=high,
        exclusive_minimum=bool(rule.strict_min) and low is not None,
        exclusive_maximum=bool(rule.strict_max) and high is not None,
    )


def _bound(value: Any, kind: LogicalType) -> float | str | None:
    """Return a bound as a guard has it; NaN for one that the values of a feature cannot be compared with."""
    if value is None:
        return None
    if kind == "number" and _is_a(value, "number"):
        return float(value)
    if kind == "timestamp" and hasattr(value, "isoformat"):
        time = datetime.fromisoformat(value.isoformat())
        return (time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time).isoformat()
    return math.nan


def _is_a(value: Any, kind: LogicalType) -> bool:
    return isinstance(value, str) if kind == "text" else isinstance(value, int | float) and not isinstance(value, bool)


def _is_row_level(rule: Any) -> bool:
    """Tell whether a rule is about values or rows one by one, beside their types, which are refused in any case."""
    return bool(getattr(rule, "map_metric", None)) and not {cls.__name__ for cls in type(rule).__mro__} & _OF_TYPES
