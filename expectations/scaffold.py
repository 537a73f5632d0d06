"""A profile -> a first suite, written as Python for a person to edit.

Bounds leave room: what the next honest export may hold passes. What a broken one holds does not: half of the rows, a
column of zeros or of nulls, another unit, another coding, words among the numbers.
"""

from datetime import datetime
from math import ceil, floor, log10, sqrt
from pathlib import Path
from typing import Any

from pipeline.init.profile import ColumnProfile, Profile
from pipeline.init.python_format import WIDTH, Call, block, comment, literal, names
from pipeline.init.scaffold import facts

MAX_LISTED = 100
"""Of a column with more categories than this, the words are not listed."""
WIDE_TABLE_FEATURES = 100
"""With more features, a number has no rule for its range beside that for its median."""
MIN_EXPECTED_COUNT = 20
"""What occurs at least so often is missed when an export has none of it."""


def suite_source(profile: Profile, name: str, path: str) -> str:
    """Return the module of the model's suite."""
    listed = [column for column in profile.features if _listed(column)]
    lines = [
        f'"""Good {name.replace("_", " ")}: what an export always holds, and what is worth a look when it does not.',
        "",
    ]
    file = Path(path).name.replace("\\", "/").replace('"', "'")
    lines += [
        f"A first suite, made by `evergreen init` of {profile.rows:,} rows of {file}; edit it, it is yours."[:WIDTH]
    ]
    lines += ['"""', ""]
    rules = _rules(profile)
    if any("datetime(" in rule for rule in rules):
        lines += ["from datetime import datetime", ""]
    lines += ["from great_expectations import expectations as gxe", "", "from expectations.suite import Suite", ""]
    if listed:
        lines += ["# Every value that was found, the most frequent first.", "WORDS: dict[str, list[object]] = {"]
        for column in listed:
            lines += names(f"{literal(column.name)}: ", column.values, indent=4, brackets="[]", end=",")
        lines += ["}", ""]
    lines += ["suite = Suite(", "    error=[", *rules, "    ],"]
    if warned := _warnings(profile, bool(listed)):
        lines += ["    warn=[", *warned, "    ],"]
    return "\n".join([*lines, ")"]) + "\n"


def _listed(column: ColumnProfile) -> bool:
    return column.role in ("category", "many") and 1 < len(column.values) <= MAX_LISTED


def _rules(profile: Profile) -> list[str]:
    lines = comment(
        f"{profile.rows:,} rows were there: half of them is a broken export, a thousand times as many another table.", 8
    )
    lines += _rule("TableRowCountToBeBetween", min_value=profile.rows // 2 + 1, max_value=profile.rows * 1_000)
    if profile.key:
        lines += comment("One row is one of these.", 8)
        lines += _rule("ColumnValuesToNotBeNull", column=profile.key)
        lines += _rule("ColumnValuesToBeUnique", column=profile.key)
    if profile.group:
        lines += _rule("ColumnValuesToNotBeNull", column=profile.group)
    lines += _target(profile)
    for column in profile.features:
        lines += comment(f"{_one_line(column.name)}: {facts(column)}.", 8)
        lines += _never_null(profile, column)
        # Great Expectations takes its time for each rule; a median tells most of what a range does.
        wide = len(profile.features) > WIDE_TABLE_FEATURES and column.role in ("number", "skewed")
        lines += _middle(column) if wide else _held(column)
    return lines


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _target(profile: Profile) -> list[str]:
    target = profile.target
    said = "the target" if profile.kind == "regression" else "the target, one of the classes, each of which occurs"
    lines = comment(f"{_one_line(target.name)}, {said}: {facts(target)}.", 8)
    lines += _rule("ColumnValuesToNotBeNull", column=target.name)
    if profile.kind == "regression":
        return lines + _range(target) + _middle(target)
    labels = [_label(target, value) for value in target.values]
    lines += _rule("ColumnValuesToBeInSet", column=target.name, value_set=labels)
    return lines + _rule("ColumnUniqueValueCountToBeBetween", column=target.name, min_value=len(_sure(profile)))


def _label(target: ColumnProfile, value: Any) -> Any:
    return int(value) if target.whole else value


def _sure(profile: Profile) -> tuple[Any, ...]:
    """Return the classes that even half of the rows hold, most likely: with two, both."""
    values = profile.target.values
    return (
        values[:2]
        if len(values) == 2 or profile.target.least < MIN_EXPECTED_COUNT
        else values[: max(2, len(values) // 2)]
    )


def _never_null(profile: Profile, column: ColumnProfile) -> list[str]:
    if column.name == profile.time:
        return _rule("ColumnValuesToNotBeNull", column=column.name)
    # Three deviations of what another sample would have, half as many nulls more, and 2 in a hundred at least.
    share = column.nulls
    room = max(0.02, 0.5 * share, 3 * sqrt(share * (1 - share) / profile.rows))
    mostly = floor(100 * (1 - share - room)) / 100
    if mostly <= 0:
        return []
    return _rule("ColumnValuesToNotBeNull", column=column.name, mostly=mostly)


def _held(column: ColumnProfile) -> list[str]:
    match column.role:
        case "number" | "skewed" | "place":
            return _range(column) + _middle(column)
        case "date":
            assert column.first is not None
            assert column.last is not None
            years = column.first.year - 1, column.last.year + 10
            return _between(column.name, *(datetime(year, 1, 1) for year in years))
        case "written date":
            return _rule(
                "ColumnValuesToMatchStrftimeFormat", column=column.name, strftime_format=column.form, mostly=0.99
            )
        case "text":
            return _rule("ColumnValueLengthsToBeBetween", column=column.name, min_value=1, mostly=0.99)
        case "boolean":
            return _several(column)
    lines = []
    if _listed(column):
        words = f"WORDS[{literal(column.name)}]"
        lines = _rule("ColumnValuesToBeInSet", column=column.name, value_set=_Code(words), mostly=0.9)
        return lines + _several(column)
    least, most = max(2, column.distinct // 4), column.distinct * 10
    return _rule("ColumnUniqueValueCountToBeBetween", column=column.name, min_value=least, max_value=most)


def _range(column: ColumnProfile) -> list[str]:
    """Return the rule of what a number can be: as far again as it reaches now, on its side of 0, but for 1%."""
    span = column.high - column.low or abs(column.high) or 1.0
    low, high = _out(column.low - span / 2, down=True), _out(column.high + span, down=False)
    if column.low >= 0:
        low = max(low, 0.0)
    if column.high <= 0:
        high = min(high, 0.0)
    if column.role == "place":
        most = 90.0 if max(abs(column.low), abs(column.high)) <= 90 else 180.0
        low, high = max(low, -most), min(high, most)
    return _between(column.name, low, high)


def _between(name: str, low: Any, high: Any) -> list[str]:
    return _rule("ColumnValuesToBeBetween", column=name, min_value=low, max_value=high, mostly=0.99)


def _middle(column: ColumnProfile) -> list[str]:
    """Return the rule of where the median is: among the middle half of the values, and as far again as that reaches.

    Another unit moves it out. Where 0 is in, a second rule refuses a column of zeros.
    """
    _, first, median, third, _ = column.quantiles
    room = (third - first) / 2
    low, high = first - room, third + room
    if column.low >= 0:
        low = max(low, median / 5)
    if column.high <= 0:
        high = min(high, median / 5)
    zero = low <= 0 <= high
    low, high = _out(low, down=True), _out(high, down=False)
    lines = _rule("ColumnMedianToBeBetween", column=column.name, min_value=low, max_value=high)
    return lines + (_several(column) if zero or low <= 0 <= high else [])


def _several(column: ColumnProfile) -> list[str]:
    """Return the rule that there is more than one value, where even half of the rows would have two."""
    if column.values and column.least < MIN_EXPECTED_COUNT:
        return []
    return _rule("ColumnUniqueValueCountToBeBetween", column=column.name, min_value=2)


def _out(value: float, down: bool) -> float:
    """Return a bound with two digits, rounded outwards.

    >>> _out(1234.0, down=True), _out(-0.5601, down=True), _out(0.29, down=False), _out(1e15 + 1, down=False)
    (1200.0, -0.57, 0.29, 1100000000000000.0)
    """
    if value == 0:
        return 0.0
    step = 10.0 ** (floor(log10(abs(value))) - 1)
    digits = max(0, 1 - floor(log10(abs(value))))
    # 0.29 is 28.999999999999996 hundredths; a large number that is taken for a round one is not rounded inwards.
    steps = (floor if down else ceil)(round(value / step, 6))
    bound = round(steps * step, digits)
    if bound > value if down else bound < value:
        bound = round((steps - 1 if down else steps + 1) * step, digits)
    return bound


def _warnings(profile: Profile, listed: bool) -> list[str]:
    lines = []
    if listed:
        lines += ["        # A new value is news; many of them are another coding, which the errors tell."]
        lines += [
            "        *(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=words) for name, words in WORDS.items()),"
        ]
    if profile.kind == "regression":
        _, first, _, third, _ = profile.target.quantiles
        if first < third:
            lines += ["        # The usual: half of the values were between these."]
            bounds = {"min_value": _out(first, down=True), "max_value": _out(third, down=False)}
            lines += _rule("ColumnMedianToBeBetween", column=profile.target.name, **bounds)
    return lines


class _Code(str):
    """Python source that stands for itself."""


def _rule(name: str, **arguments: Any) -> list[str]:
    return block(Call(f"gxe.Expect{name}(", [_argument(*item) for item in arguments.items()]), indent=8, comma=",")


def _argument(name: str, value: Any) -> str | Call:
    if isinstance(value, list):
        return Call(f"{name}=[", [literal(one) for one in value], "]")
    return f"{name}={value if isinstance(value, _Code) else literal(value)}"
