"""The strict parser: it checks every row and field of a JSON or CSV body and names everything that is wrong.

`bentos.endpoint.parse_fast` parses plainly valid bodies many times faster; this module gets all others. `read_json` and
`read_csv` are the entry points.
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


class _DuplicateName(dict[str, Any]):
    """An object that has the name `name` twice; json.loads would silently keep the last one."""

    name: str


class _NotFinite(str):
    """One of the words NaN, Infinity and -Infinity, which json.loads accepts but JSON does not have."""


def read_json(body: bytes, schema: Schema, max_rows: int) -> Batch | Problem:
    """Return the rows of `{"records": [{feature: value, ...}, ...]}`, or why they are refused.

    The status is 413 for more than `max_rows` records, and 400 for everything that does not match the schema exactly.
    """
    objects = itertools.count()

    def count_objects(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # One object for the body and one for each record; more are refused before they take up memory.
        if next(objects) > max_rows:
            raise OverflowError
        return _object(pairs)

    try:
        value = json.loads(
            body.decode(), object_pairs_hook=count_objects, parse_int=_whole_number, parse_constant=_NotFinite
        )
    except OverflowError:
        return _too_many_rows(max_rows)
    except UnicodeDecodeError as error:
        return Problem(400, f"The body is not UTF-8: byte 0x{body[error.start]:02X} at position {error.start}.")
    except json.JSONDecodeError as error:
        return Problem(400, f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.")
    except RecursionError:
        return Problem(400, "The body is nested too deeply.")
    if not isinstance(value, dict):
        return Problem(400, f"The body is {_shown(value)}; {_WANTED}.")
    if isinstance(value, _DuplicateName):
        return Problem(400, f"The body has {_shown(value.name)} twice; {_WANTED}.")
    if others := [name for name in value if name != "records"]:
        return Problem(400, f"The body has {_shown(others[0])}; {_WANTED} and nothing else.")
    return _from_records(value.get("records"), schema, max_rows)


def _whole_number(word: str) -> float:
    # -0 is 0; adding 0.0 turns the negative zero of a float into zero.
    return float(word) + 0.0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        value = _DuplicateName(pairs)
        value.name = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return value


def _from_records(records: Any, schema: Schema, max_rows: int) -> Batch | Problem:
    if not isinstance(records, list) or not records:
        return Problem(400, f'"records" is {_shown(records)}; {_WANTED}, with at least one object.')
    if len(records) > max_rows:
        return _too_many_rows(max_rows)
    errors = ProblemCollector()
    features = {feature.name for feature in schema.features}
    others = {*schema.key, *schema.ignored}
    known = features | others
    rows = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {}
        if not isinstance(record, dict):
            errors.add(number, None, f"{_shown(record)} is not an object; give {{feature: value, ...}}")
            continue
        if isinstance(record, _DuplicateName):
            errors.add(number, record.name, "occurs twice in the record; give it once")
        for feature in schema.features:
            value = record.get(feature.name)
            if value is not None:
                try:
                    row[feature.name] = _FROM_JSON[feature.type](value)
                except ValueError as error:
                    errors.add(number, feature.name, f"{error}; give {NOUNS[feature.type]}")
            elif feature.required:
                state = "null" if feature.name in record else "missing"
                errors.add(number, feature.name, f"is {state} and is required; give {NOUNS[feature.type]}")
        for name, value in record.items():
            if name not in known:
                errors.add(number, name, "is not a column of the model's data", like=known)
            elif name in others and isinstance(value, dict | list | _NotFinite):
                errors.add(number, name, f"{_shown(value)} is not a single JSON value")
        rows.append(row)
    return errors.problem() or of_rows(rows, schema.features)


def _too_many_rows(max_rows: int) -> Problem:
    return Problem(413, f"The request has more rows than the limit of {max_rows}; send them in parts.")


def _json_number(value: Any) -> float:
    if type(value) is not float:
        raise ValueError(f"{_shown(value)} is not a number")
    return _finite(value)


def _json_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair is not a character") from None
    return value


def _json_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _json_timestamp(value: Any) -> datetime:
    if type(value) is not str:
        raise ValueError(f"{_shown(value)} is not a string")
    return timestamp(value)


_FROM_JSON: Mapping[LogicalType, Callable[[Any], Any]] = {
    "number": _json_number,
    "text": _json_text,
    "boolean": _json_boolean,
    "timestamp": _json_timestamp,
}


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number this large is infinite as a 64-bit float")
    return value


def timestamp(word: str) -> datetime:
    """Return a time as `pipeline.sources` stores it: without a zone, converted to UTC if it had one."""
    try:
        if not _TIME.fullmatch(word):
            raise ValueError
        time = datetime.fromisoformat(word.upper())
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(word)} is not an ISO 8601 time") from None


def _shown(value: Any) -> str:
    """Return a JSON value as text for a sentence, shortened to 40 characters."""
    if isinstance(value, _NotFinite):
        return str(value)
    if isinstance(value, dict | list):
        return ("an object" if isinstance(value, dict) else "a list") if value else json.dumps(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def read_csv(body: bytes, schema: Schema, max_rows: int) -> Batch | Problem:
    """Return the rows of a CSV with a header, its columns in any order, or why they are refused (see `read_json`).

    A field that is one of the schema's null words is null. An empty field is null unless its column is text.
    """
    text = body.decode("utf-8-sig", "surrogateescape")
    # Bytes that are not UTF-8 become lone surrogates, so that the error can name row and field.
    damage = _DAMAGE if _DAMAGE.search(text) else None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    errors, columns, number, line = ProblemCollector(), [], 0, 1
    header: list[str] = []
    try:
        for words in lines:
            if not words:
                pass
            elif not header:
                header = words
                _check_header(header, schema, damage, errors)
                if problem := errors.problem():
                    return problem
            elif number == max_rows:
                return _too_many_rows(max_rows)
            else:
                if len(words) != len(header):
                    has = f"{len(words)} field{'s' * (len(words) != 1)}"
                    errors.add(number, None, f"line {line} has {has}, but the header has {len(header)}")
                elif damage:
                    _check_damage(words, header, damage, number, line, errors)
                columns.append(words)
                number += 1
            line = lines.line_num + 1
    except csv.Error as error:
        errors.add(number if header else None, None, f"line {line}: {error}; is a quote left open?")
    if not header:
        return errors.problem() or Problem(400, "The body is empty; send a header row and at least one row below it.")
    if not columns:
        return errors.problem() or Problem(400, "The CSV has no row below the header; send at least one.")
    if problem := errors.problem():
        return problem
    return _from_words(dict(zip(header, map(list, zip(*columns, strict=True)), strict=True)), schema)


def _check_header(header: list[str], schema: Schema, damage: re.Pattern[str] | None, errors: ProblemCollector) -> None:
    known = {*(feature.name for feature in schema.features), *schema.key, *schema.ignored}
    for name, times in Counter(header).items():
        if damage and damage.search(name):
            errors.add(None, None, "the header, line 1, has a byte that is not UTF-8 text")
        elif name not in known:
            errors.add(None, name, "is not a column of the model's data", like=known)
        elif times > 1:
            errors.add(None, name, f"occurs {times} times in the header; give it once")
    for feature in schema.features:
        if feature.required and feature.name not in header:
            errors.add(None, feature.name, "is missing in the header and is required")


def _check_damage(
    words: list[str], header: list[str], damage: re.Pattern[str], number: int, line: int, errors: ProblemCollector
) -> None:
    for name, word in zip(header, words, strict=True):
        if match := damage.search(word):
            damaged = "a NUL byte" if match[0] == "\0" else f"byte 0x{ord(match[0]) - 0xDC00:02X}, which is not UTF-8"
            errors.add(number, name, f"line {line} has {damaged}")


def _from_words(columns: Mapping[str, list[str]], schema: Schema) -> Batch | Problem:
    errors = ProblemCollector()
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
                    errors.add(number, feature.name, f"{error}; give {WORD_NOUNS[feature.type]}")
            elif feature.required:
                noun = WORD_NOUNS[feature.type]
                errors.add(number, feature.name, f"{_shown(word)} is null and is required; give {noun}")
    keys = {name: columns[name] for name in schema.key if name in columns}
    return errors.problem() or of_rows(rows, schema.features, keys)


def _number(word: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"{_shown(word)} is not a number")
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
"""By type, a function that converts a field of a CSV without blanks around it; it raises ValueError with the reason."""
