"""Python as the house formats it: lines of at most 120 characters, double quotes, one item a line where it must be."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH = 120


def literal(value: Any) -> str:
    """Return a plain value as Python source.

    >>> print(literal("a"), literal('5"'), literal(1000000), literal(0.5), literal(("a",)), literal(1e18))
    "a" '5"' 1_000_000 0.5 ("a",) 1e18
    """
    if isinstance(value, str):
        single = repr(value)
        if single[0] == '"' or value.count('"') > value.count("'"):
            return single
        return '"' + single[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, int | float):
        if not float(value).is_integer() or abs(value) >= 1e15:
            return repr(value).replace("e+", "e")
        return f"{int(value):_}" if abs(value) >= 10_000 else str(int(value))
    if isinstance(value, datetime):
        return f"datetime({value.year}, {value.month}, {value.day})"
    if isinstance(value, tuple):
        return f"({literal(value[0])},)" if len(value) == 1 else f"({', '.join(map(literal, value))})"
    return "[" + ", ".join(map(literal, value)) + "]"


@dataclass(frozen=True)
class Call:
    """A call or another bracketed list.

    Attributes:
        start: the text before the items, with the opening bracket.
        items: the items, which may be calls too.
        end: the closing bracket.
    """

    start: str
    items: Sequence["str | Call"]
    end: str = ")"

    def __str__(self) -> str:
        return f"{self.start}{', '.join(map(str, self.items))}{self.end}"


def block(node: str | Call, indent: int = 0, comma: str = "") -> list[str]:
    """Return a call on one line if it fits, else on three, else with an item per line, recursively.

    >>> print(*block(Call("f(", ["x" * 9, "y" * 9]), 4, ","), *block(Call("name_of(", ["x" * 58, "y" * 56])), sep="\\n")
    ... # doctest: +ELLIPSIS
        f(xxxxxxxxx, yyyyyyyyy),
    name_of(
        xxx...xxx, yyy...yyy
    )
    """
    blank = " " * indent
    one = f"{blank}{node}{comma}"
    if isinstance(node, str) or len(one) <= WIDTH:
        return [one]
    body = f"{blank}    {', '.join(map(str, node.items))}"
    inner = [body] if len(body) <= WIDTH else [line for item in node.items for line in block(item, indent + 4, ",")]
    return [f"{blank}{node.start}", *inner, f"{blank}{node.end}{comma}"]


def names(title: str, values: Sequence[Any], indent: int = 0, brackets: str = "()", end: str = "") -> list[str]:
    """Return an assignment of many values to a name, with as many values per line as fit.

    >>> print(*names("A", ["b"]), *names("V", [f"V{i}" for i in range(1, 29)]), sep="\\n")
    A = ("b",)
    V = tuple(f"V{number}" for number in range(1, 29))
    """
    opening, closing = brackets[0], brackets[1]
    if brackets == "()" and (run := _run(values)):
        prefix, first, last = run
        return [f'{title} = tuple(f"{prefix}{{number}}" for number in range({first}, {last + 1}))']
    items = [literal(value) for value in values]
    comma = "," if brackets == "()" and len(items) == 1 else ""
    blank = " " * indent
    one = f"{blank}{title}{opening}{', '.join(items)}{comma}{closing}{end}"
    if brackets == "()":
        one = f"{blank}{title} = ({', '.join(items)}{comma})"
    if len(one) <= WIDTH:
        return [one]
    start = f"{title} = (" if brackets == "()" else f"{title}{opening}"
    inner = " " * (indent + 4)
    body = f"{inner}{', '.join(items)}"
    if len(body) <= WIDTH:
        return [f"{blank}{start}", body, f"{blank}{closing}{end}"]
    return [
        f"{blank}{start}",
        *(f"{inner}{row}" for row in _rows(items, WIDTH - len(inner) - 4)),
        f"{blank}{closing}{end}",
    ]


def _rows(items: Sequence[str], width: int) -> list[str]:
    rows: list[list[str]] = [[]]
    for item in items:
        if rows[-1] and len(", ".join([*rows[-1], item])) > width:
            rows.append([])
        rows[-1].append(item)
    return [f"*({', '.join(row)})," if len(row) > 1 else f"{row[0]}," for row in rows]


def _run(values: Sequence[Any]) -> tuple[str, int, int] | None:
    """Return the prefix, first and last number of names that count up, such as V1 to V28."""
    parts = [re.fullmatch(r"([A-Za-z_ ]*)(0|[1-9]\d*)", value) for value in values if isinstance(value, str)]
    if len(parts) != len(values) or len(values) < 8:
        return None
    found = [(part[1], int(part[2])) for part in parts if part]
    if len(found) != len(values):
        return None
    prefix, first = found[0]
    counts = all(one == (prefix, first + place) for place, one in enumerate(found))
    return (prefix, first, first + len(found) - 1) if counts else None


def comment(text: str, indent: int = 0) -> list[str]:
    """Return a comment, wrapped to the line length."""
    import textwrap

    width = WIDTH - indent - 2
    return [f"{' ' * indent}# {line}" for line in textwrap.wrap(" ".join(text.split()), width, break_long_words=False)]


def imports(found: Iterable[tuple[str, str]]) -> list[str]:
    """Return `from module import names` lines, sorted as the linter has them."""
    by_module: dict[str, set[str]] = {}
    for module, name in found:
        by_module.setdefault(module, set()).add(name)
    lines: list[str] = []
    for module, members in sorted(by_module.items()):
        ordered = sorted(members, key=lambda name: (name[0].islower(), name))
        one = f"from {module} import {', '.join(ordered)}"
        wrapped = [f"from {module} import (", *(f"    {name}," for name in ordered), ")"]
        lines += [one] if len(one) <= WIDTH else wrapped
    return lines
