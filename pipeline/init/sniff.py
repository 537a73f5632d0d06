"""How a table's file is written: separator, decimal mark, encoding, the words for a missing value."""

import codecs
import csv
import glob
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError, SourceError
from pipeline.sources import Csv, Files, JsonLines, LogicalType, Parquet, at, read
from pipeline.sources.parallel import in_order

if TYPE_CHECKING:
    import pyarrow

SAMPLE = 2**20
"""Bytes at the beginning of a file from which its dialect is guessed."""
MISSING = ("NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "?")
"""Words that always mean a missing value."""
PERHAPS_MISSING = ("-", "--", ".", "None", "none", "missing", "unknown", "Unknown", "na", "nil")
"""Words that mean a missing value among numbers and dates, but may be a category among words."""
_CODES = {"zip", "zipcode", "postal", "postcode", "postalcode", "plz", "phone", "telephone", "ean", "isbn", "fips"}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_DECIMAL_POINT = re.compile(r"\s*[+-]?\d+\.\d+\s*")


def sniffed(data: str) -> tuple[Files, list[str]]:
    """Return a file, or a glob of them, as a source, and notes on the dialect that was guessed.

    Raises SourceError if there is no such file, DataError if no separator gives columns.
    """
    if isinstance(source := at(Csv(data), data), Parquet | JsonLines):
        return source, []
    first = Path(data if Path(data).is_file() else next(iter(sorted(glob.glob(data, recursive=True))), data))
    if not first.is_file():
        raise SourceError(
            f"there is no file {data!r} (looked from {Path.cwd()}); check the path", code="source.no_such_file"
        )
    text, encoding = _decoded(_beginning(first))
    separator, rows = _separated(first, text)
    header, rows = rows[0], rows[1:]
    if rows and all(_NUMBER.fullmatch(name) for name in header):
        raise DataError(
            f"{first}: the first row, {_shown(header)}, is not a header; write one with the columns' names",
            code="data.no_header",
        )
    cells = [value for row in rows for value in row]
    commas, points = (sum(bool(form.fullmatch(value)) for value in cells) for form in (_DECIMAL_COMMA, _DECIMAL_POINT))
    decimal = "," if separator != "," and commas > points else "."
    types: dict[str, LogicalType] = {}
    for place, name in enumerate(header):
        if _CODES & set(words_of(name)) and any(row[place].strip().isdecimal() for row in rows):
            types[name] = "text"
    source = Csv(data, types=types, separator=separator, decimal=decimal, encoding=encoding)
    notes = []
    if separator != ",":
        notes.append(f"values are separated by {separator!r}")
    if decimal != ".":
        notes.append("numbers have a decimal comma")
    if encoding != "utf-8":
        notes.append(f"the file is not UTF-8; it is read as {encoding}")
    notes += [f"{name!r} is read as text: a code of digits may begin with a 0" for name in types]
    return source, notes


def whole(source: Files) -> tuple["pyarrow.Table", Files, list[str]]:
    """Return a source's table, the source with its words for a missing value, and notes on these words.

    Raises as `pipeline.sources.read` does.
    """
    try:
        table = read(source)
    except DataError as error:
        # The encoding was guessed from the beginning only; the first umlaut may come later.
        if not isinstance(source, Csv) or source.encoding != "utf-8" or "is not UTF-8" not in str(error):
            raise
        source = replace(source, encoding="cp1252")
        table, source, notes = whole(source)
        return table, source, ["the file is not UTF-8; it is read as cp1252", *notes]
    decimal = source.decimal if isinstance(source, Csv) else "."
    columns_with: dict[str, list[str]] = {}
    texts = [field.name for field in table.schema if str(field.type) == "string"]

    def missing(name: str) -> list[str]:
        return _missing(table.column(name), decimal, declared=name in source.types)

    for name, words in zip(texts, in_order(missing, texts, os.cpu_count() or 1), strict=True):
        for word in words:
            columns_with.setdefault(word, []).append(name)
    if not columns_with:
        return table, source, []
    source = replace(source, na_values=(*source.na_values, *sorted(columns_with)))
    notes = [f"{word!r} means a missing value, as in {_shown(names)}" for word, names in sorted(columns_with.items())]
    return read(source), source, notes


def _missing(column: "pyarrow.ChunkedArray", decimal: str, declared: bool) -> list[str]:
    """Return the words in a column of texts that mean a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct, words = column.unique(), pa.array([*MISSING, *PERHAPS_MISSING])
    known = words.filter(pc.is_in(words, distinct)).to_pylist()
    blank = distinct.filter(pc.equal(pc.utf8_trim_whitespace(distinct), "")).to_pylist()
    certain = [*(word for word in known if word in MISSING), *(word for word in blank if word is not None)]
    if declared:
        return certain
    others = [word for word in _distinct_sample(column) if word not in known and word.strip()]
    if others and all(is_number(word, decimal) or is_iso_date(word) for word in others):
        # Another word further down keeps this a text column, which the profile then reports.
        return [*certain, *(word for word in known if word not in certain)]
    return certain


def _distinct_sample(column: "pyarrow.ChunkedArray") -> list[str]:
    """Return up to 1,000 distinct texts from 5,000 evenly spread rows of a column."""
    import numpy as np

    places = np.unique(np.linspace(0, len(column) - 1, min(len(column), 5_000)).astype(np.int64))
    return [word for word in column.take(places).unique().to_pylist() if word is not None][:1_000]


def is_number(word: str, decimal: str = ".") -> bool:
    """Return whether a word is a number."""
    return bool(_NUMBER.fullmatch(word if decimal == "." else word.replace(".", "x").replace(decimal, ".")))


def is_iso_date(word: str) -> bool:
    """Return whether a word is an ISO 8601 date, with or without a time."""
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", word))


def words_of(name: str) -> list[str]:
    """Return the words of a column's name, in lower case.

    >>> words_of("pickupLatitude_2"), words_of("Yr Sold"), words_of("PID")
    (['pickup', 'latitude', '2'], ['yr', 'sold'], ['pid'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)]


def _beginning(path: Path) -> bytes:
    import pyarrow as pa

    try:
        if path.suffix == ".xz":
            import lzma

            with lzma.open(path) as file:
                return file.read(SAMPLE)
        with pa.input_stream(str(path), compression="detect") as stream:
            return bytes(stream.read(SAMPLE))
    except (OSError, EOFError) as error:
        raise SourceError(
            f"{path} could not be read: {error}; check the file and its permissions", code="source.unreadable"
        ) from error


def _decoded(content: bytes) -> tuple[str, str]:
    """Return the beginning of a file as text, and its encoding: by its byte order mark, else UTF-8, else cp1252."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content[: len(content) // 2 * 2].decode(encoding, errors="ignore"), encoding
    try:
        # The sample may end within a character.
        return codecs.getincrementaldecoder("utf-8-sig")().decode(content), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "latin-1"


def _separated(path: Path, text: str) -> tuple[str, list[list[str]]]:
    """Return the separator that gives every row as many values as the header, and the rows of the sample."""
    if not text.strip():
        raise DataError(f"{path}: the file is empty; write a header and rows", code="data.empty_file")
    lines = text.splitlines(keepends=True)
    # The last line may be cut.
    sample = "".join(lines[:-1] if len(text.encode()) >= SAMPLE - 4 and len(lines) > 1 else lines)
    rows_by_separator: dict[str, list[list[str]]] = {}
    for separator in (",", ";", "\t", "|"):
        try:
            rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator) if row]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1:
            rows_by_separator[separator] = [row for row in rows if len(row) == len(rows[0])]
    if not rows_by_separator:
        raise DataError(
            f"{path}: one column only, so nothing to predict the target from; is it CSV, with , ; | or a tab "
            "between the values?",
            code="data.single_column",
        )
    separator, rows = max(rows_by_separator.items(), key=lambda item: (len(item[1]), len(item[1][0])))
    return separator, rows[:2_000]


def check_header(source: Files, names: Sequence[str]) -> None:
    """Raise DataError if two columns have names that a person would take for the same."""
    seen: Mapping[str, str] = {}
    for name in names:
        plain = " ".join(name.split()).casefold()
        if plain in seen:
            raise DataError(
                f"{source.path}: only case or blanks tell the columns {seen[plain]!r} and {name!r} apart; rename one",
                code="data.similar_column_names",
            )
        seen = {**seen, plain: name}


def _shown(values: Iterable[str]) -> str:
    first, more = [*values][:3], len([*values]) - 3
    return ", ".join(map(repr, first)) + (f" and {more} more" if more > 0 else "")
