"""Strict reading: every row and field of a JSON or CSV body looked at, and what is wrong with each named.

`bentos.endpoint.parse_fast` reads the same bodies many times faster, and leaves to this module all that is not plainly
right.
"""

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from bentos.endpoint.batch import Batch, of_rows
from bentos.endpoint.problems import Problem, ProblemCollector
from pipeline.schema import Schema
from pipeline.sources import LogicalType

NOUNS: Mapping[LogicalType, str] = {
    "number": "a number",
    "text": "a string",
    "boolean": "true or false",
    "timestamp": 'an ISO 8601 string such as "2024-05-31T12:00:00Z"',
}
WORD_NOUNS: Mapping[LogicalType, str] = {
    "number": "a number such as -1.5 or 2e3",
    "text": "a text",
    "boolean": "true or false",
    "timestamp": "an ISO 8601 time such as 2024-05-31T12:00:00Z",
}
_WANTED = 'send {"records": [{feature: value, ...}, ...]}'
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# datetime.fromisoformat takes any character between date and time.
_TIME = re.compile(r"[-0-9W]+([Tt ][-+:.,0-9Zz]+)?")
_DAMAGE = re.compile("[\0\udc80-\udcff]")


class _Doubled(dict[str, Any]):
    """An object that has the name `twice` twice; json.loads would keep the last in silence."""

    twice: str


class _NotFinite(str):
    """One of the words NaN, Infinity and -Infinity, which json.loads takes and JSON does not have."""


def read_json(body: bytes, schema: Schema, most_rows: int) -> Batch | Problem:
    """Return the rows of `{"records": [{feature: value, ...}, ...]}`, or why they are refused.

    Refused with 413 are more than `most_rows` records, with 400 everything that is not exactly what the schema says.
    """
    objects = itertools.count()

    def counted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # One object holds the records; more than one each is refused before it takes up memory.
        if next(objects) > most_rows:
            raise OverflowError
        return _object(pairs)

    try:
        value = json.loads(body.decode(), object_pairs_hook=counted, parse_int=_whole, parse_constant=_NotFinite)
    except OverflowError:
        return _too_many_rows(most_rows)
    except UnicodeDecodeError as error:
        return Problem(400, f"The body is not UTF-8: byte 0x{body[error.start]:02X} at position {error.start}.")
    except json.JSONDecodeError as error:
        return Problem(400, f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.")
    except RecursionError:
        return Problem(400, "The body is nested too deeply.")
    if not isinstance(value, dict):
        return Problem(400, f"The body is {_shown(value)}; {_WANTED}.")
    if isinstance(value, _Doubled):
        return Problem(400, f"The body has {_shown(value.twice)} twice; {_WANTED}.")
    if others := [name for name in value if name != "records"]:
        return Problem(400, f"The body has {_shown(others[0])}; {_WANTED} and nothing else.")
    return _from_records(value.get("records"), schema, most_rows)


def _whole(word: str) -> float:
    # A whole number has no negative zero.
    return float(word) + 0.0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = _Doubled(pairs)
        found.twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return found


def _from_records(records: Any, schema: Schema, most_rows: int) -> Batch | Problem:
    if not isinstance(records, list) or not records:
        return Problem(400, f'"records" is {_shown(records)}; {_WANTED}, with one object at least.')
    if len(records) > most_rows:
        return _too_many_rows(most_rows)
    found = ProblemCollector()
    features = {feature.name for feature in schema.features}
    others = {*schema.key, *schema.ignored}
    known = features | others
    rows = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {}
        if not isinstance(record, dict):
            found.add(number, None, f"{_shown(record)} is no object; give {{feature: value, ...}}")
            continue
        if isinstance(record, _Doubled):
            found.add(number, record.twice, "is there twice, and JSON does not say which counts")
        for feature in schema.features:
            value = record.get(feature.name)
            if value is not None:
                try:
                    row[feature.name] = _FROM_JSON[feature.type](value)
                except ValueError as error:
                    found.add(number, feature.name, f"{error}; give {NOUNS[feature.type]}")
            elif feature.required:
                lack = "null" if feature.name in record else "missing"
                found.add(number, feature.name, f"is {lack} and is required; give {NOUNS[feature.type]}")
        for name, value in record.items():
            if name not in known:
                found.add(number, name, "is no column of the model's data", like=known)
            elif name in others and isinstance(value, dict | list | _NotFinite):
                found.add(number, name, f"{_shown(value)} is no single JSON value")
        rows.append(row)
    return found.problem() or of_rows(rows, schema.features)


def _too_many_rows(most_rows: int) -> Problem:
    return Problem(413, f"The request has more than {most_rows} rows, which is the most; send them in parts.")


def _json_number(value: Any) -> float:
    if type(value) is not float:
        raise ValueError(f"{_shown(value)} is no number")
    return _finite(value)


def _json_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is no string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair is no character") from None
    return value


def _json_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _json_timestamp(value: Any) -> datetime:
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is no string")
    return timestamp(value)


_FROM_JSON: Mapping[LogicalType, Callable[[Any], Any]] = {
    "number": _json_number,
    "text": _json_text,
    "boolean": _json_boolean,
    "timestamp": _json_timestamp,
}


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number this large is infinite to a model")
    return value


def timestamp(word: str) -> datetime:
    """Return a time as pipeline.sources stores it: without a zone, in UTC if it had one."""
    try:
        if not _TIME.fullmatch(word):
            raise ValueError
        time = datetime.fromisoformat(word.upper())
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(word)} is no ISO 8601 time") from None


def _shown(value: Any) -> str:
    """Return a JSON value as a sentence can show it."""
    if isinstance(value, _NotFinite):
        return str(value)
    if isinstance(value, dict | list):
        return ("an object" if isinstance(value, dict) else "a list") if value else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def read_csv(body: bytes, schema: Schema, most_rows: int) -> Batch | Problem:
    """Return the rows of a CSV with a header, its columns in any order, or why they are refused (see `read_json`).

    A field that is one of the schema's null words is null; so is an empty one, unless its column is text.
    """
    text = body.decode("utf-8-sig", "surrogateescape")
    # What is not UTF-8 is now a lone surrogate, so that its row and field can be told.
    damage = _DAMAGE if _DAMAGE.search(text) else None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, columns, number, line = ProblemCollector(), [], 0, 1
    header: list[str] = []
    try:
        for words in lines:
            if not words:
                pass
            elif not header:
                header = words
                _check_header(header, schema, damage, found)
                if problem := found.problem():
                    return problem
            elif number == most_rows:
                return _too_many_rows(most_rows)
            else:
                if len(words) != len(header):
                    has = f"{len(words)} field{'s' * (len(words) != 1)}"
                    found.add(number, None, f"line {line} has {has} where the header has {len(header)}")
                elif damage:
                    _check_damage(words, header, damage, number, line, found)
                columns.append(words)
                number += 1
            line = lines.line_num + 1
    except csv.Error as error:
        found.add(number if header else None, None, f"line {line}: {error}; is a quote left open?")
    if not header:
        return found.problem() or Problem(400, "The body is empty; send a header row and at least one row below it.")
    if not columns:
        return found.problem() or Problem(400, "There is no row below the header; send at least one.")
    if problem := found.problem():
        return problem
    return _from_words(dict(zip(header, map(list, zip(*columns, strict=True)), strict=True)), schema)


def _check_header(header: list[str], schema: Schema, damage: re.Pattern[str] | None, found: ProblemCollector) -> None:
    known = {*(feature.name for feature in schema.features), *schema.key, *schema.ignored}
    for name, times in Counter(header).items():
        if damage and damage.search(name):
            found.add(None, None, "the header, line 1, has a byte that is not UTF-8 text")
        elif name not in known:
            found.add(None, name, "is no column of the model's data", like=known)
        elif times > 1:
            found.add(None, name, f"is there {times} times in the header")
    for feature in schema.features:
        if feature.required and feature.name not in header:
            found.add(None, feature.name, "is missing in the header and is required")


def _check_damage(
    words: list[str], header: list[str], damage: re.Pattern[str], number: int, line: int, found: ProblemCollector
) -> None:
    for name, word in zip(header, words, strict=True):
        if match := damage.search(word):
            what = "a NUL byte" if match[0] == "\0" else f"byte 0x{ord(match[0]) - 0xDC00:02X}, which is not UTF-8"
            found.add(number, name, f"line {line} has {what}")


def _from_words(columns: Mapping[str, list[str]], schema: Schema) -> Batch | Problem:
    found = ProblemCollector()
    rows: list[dict[str, Any]] = [{} for _ in next(iter(columns.values()))]
    nulls = set(schema.nulls)
    for feature in schema.features:
        convert = FROM_WORD[feature.type]
        null = nulls if feature.type == "text" else nulls | {""}
        for number, word in enumerate(columns.get(feature.name, ())):
            if feature.type != "text":
                word = word.strip(" \t")
            if word not in null:
                try:
                    rows[number][feature.name] = convert(word)
                except ValueError as error:
                    found.add(number, feature.name, f"{error}; give {WORD_NOUNS[feature.type]}")
            elif feature.required:
                give = WORD_NOUNS[feature.type]
                found.add(number, feature.name, f"{_shown(word)} is null, and it is required; give {give}")
    keys = {name: columns[name] for name in schema.key if name in columns}
    return found.problem() or of_rows(rows, schema.features, keys)


def _number(word: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"{_shown(word)} is no number")
    return _finite(float(word))


def _boolean(word: str) -> bool:
    if word not in _BOOLEANS:
        raise ValueError(f"{_shown(word)} is neither true nor false")
    return _BOOLEANS[word]


FROM_WORD: Mapping[LogicalType, Callable[[str], Any]] = {
    "number": _number,
    "text": str,
    "boolean": _boolean,
    "timestamp": timestamp,
}
"""By type: a function that takes the word of a CSV, blanks around it gone; ValueError says what the word is not."""
