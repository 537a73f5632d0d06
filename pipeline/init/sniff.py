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
"""So many bytes of a file are looked at before it is read."""
MISSING = ("NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "?")
"""Words that are a missing value wherever they stand."""
PERHAPS_MISSING = ("-", "--", ".", "None", "none", "missing", "unknown", "Unknown", "na", "nil")
"""Words that are a missing value among numbers and dates, and may be a category among words."""
_CODES = {"zip", "zipcode", "postal", "postcode", "postalcode", "plz", "phone", "telephone", "ean", "isbn", "fips"}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_DECIMAL_POINT = re.compile(r"\s*[+-]?\d+\.\d+\s*")


def sniffed(data: str) -> tuple[Files, list[str]]:
    """Return a file, or a glob of them, as a source, and what was decided about how it is written.

    Raises SourceError when there is no such file, DataError when it cannot be told where a row's values end.
    """
    if isinstance(source := at(Csv(data), data), Parquet | JsonLines):
        return source, []
    first = Path(data if Path(data).is_file() else next(iter(sorted(glob.glob(data, recursive=True))), data))
    if not first.is_file():
        raise SourceError(f"there is no file {data!r} (looked from {Path.cwd()}); check the path")
    text, encoding = _decoded(_beginning(first))
    separator, rows = _separated(first, text)
    header, rows = rows[0], rows[1:]
    if rows and all(_NUMBER.fullmatch(name) for name in header):
        raise DataError(f"{first}: the first row, {_shown(header)}, is no header; write one with the columns' names")
    cells = [value for row in rows for value in row]
    commas, points = (sum(bool(form.fullmatch(value)) for value in cells) for form in (_DECIMAL_COMMA, _DECIMAL_POINT))
    decimal = "," if separator != "," and commas > points else "."
    types: dict[str, LogicalType] = {}
    for place, name in enumerate(header):
        if _CODES & set(words_of(name)) and any(row[place].strip().isdecimal() for row in rows):
            types[name] = "text"
    source = Csv(data, types=types, separator=separator, decimal=decimal, encoding=encoding)
    said = []
    if separator != ",":
        said.append(f"values are separated by {separator!r}")
    if decimal != ".":
        said.append("numbers have a decimal comma")
    if encoding != "utf-8":
        said.append(f"the file is not UTF-8; it is read as {encoding}")
    said += [f"{name!r} is read as text: a code of digits may begin with a 0" for name in types]
    return source, said


def whole(source: Files) -> tuple["pyarrow.Table", Files, list[str]]:
    """Read a source, find its words for a missing value, and return the table read with them, the source, and they.

    Raises what `pipeline.sources.read` does.
    """
    try:
        table = read(source)
    except DataError as error:
        # Only the beginning was looked at before; the first umlaut may come late.
        if not isinstance(source, Csv) or source.encoding != "utf-8" or "is not UTF-8" not in str(error):
            raise
        source = replace(source, encoding="cp1252")
        table, source, said = whole(source)
        return table, source, ["the file is not UTF-8; it is read as cp1252", *said]
    decimal = source.decimal if isinstance(source, Csv) else "."
    found: dict[str, list[str]] = {}
    texts = [field.name for field in table.schema if str(field.type) == "string"]

    def missing(name: str) -> list[str]:
        return _missing(table.column(name), decimal, declared=name in source.types)

    for name, words in zip(texts, in_order(missing, texts, os.cpu_count() or 1), strict=True):
        for word in words:
            found.setdefault(word, []).append(name)
    if not found:
        return table, source, []
    source = replace(source, na_values=(*source.na_values, *sorted(found)))
    said = [f"{word!r} means a missing value, as in {_shown(names)}" for word, names in sorted(found.items())]
    return read(source), source, said


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
    others = [word for word in _some(column) if word not in known and word.strip()]
    if others and all(is_number(word, decimal) or is_iso_date(word) for word in others):
        # What else stands among numbers, far down, keeps the column one of texts; that is told as such.
        return [*certain, *(word for word in known if word not in certain)]
    return certain


def _some(column: "pyarrow.ChunkedArray") -> list[str]:
    """Return up to 1,000 distinct texts of a column, from all of its parts."""
    import numpy as np

    places = np.unique(np.linspace(0, len(column) - 1, min(len(column), 5_000)).astype(np.int64))
    return [word for word in column.take(places).unique().to_pylist() if word is not None][:1_000]


def is_number(word: str, decimal: str = ".") -> bool:
    """Tell whether a word is a number."""
    return bool(_NUMBER.fullmatch(word if decimal == "." else word.replace(".", "x").replace(decimal, ".")))


def is_iso_date(word: str) -> bool:
    """Tell whether a word is a date as ISO 8601 writes it."""
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
        raise SourceError(f"{path} could not be read: {error}") from error


def _decoded(content: bytes) -> tuple[str, str]:
    """Return the beginning of a file as text, and its encoding: what its mark says, UTF-8, else Windows' own."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content[: len(content) // 2 * 2].decode(encoding, errors="ignore"), encoding
    try:
        # A character may be cut in two where the sample ends.
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
        raise DataError(f"{path}: the file is empty")
    lines = text.splitlines(keepends=True)
    # The last line may be cut.
    sample = "".join(lines[:-1] if len(text.encode()) >= SAMPLE - 4 and len(lines) > 1 else lines)
    found: dict[str, list[list[str]]] = {}
    for separator in (",", ";", "\t", "|"):
        try:
            rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator) if row]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1:
            found[separator] = [row for row in rows if len(row) == len(rows[0])]
    if not found:
        raise DataError(
            f"{path}: one column only, so nothing to predict the target from; is it CSV, with , ; | or a tab "
            "between the values?"
        )
    separator = max(found, key=lambda one: (len(found[one]), len(found[one][0])))
    return separator, found[separator][:2_000]


def check_header(source: Files, names: Sequence[str]) -> None:
    """Raise DataError when two columns have names that a person would take for one."""
    seen: Mapping[str, str] = {}
    for name in names:
        plain = " ".join(name.split()).casefold()
        if plain in seen:
            raise DataError(
                f"{source.path}: only case or blanks tell the columns {seen[plain]!r} and {name!r} apart; rename one"
            )
        seen = {**seen, plain: name}


def _shown(values: Iterable[str]) -> str:
    first, more = [*values][:3], len([*values]) - 3
    return ", ".join(map(repr, first)) + (f" and {more} more" if more > 0 else "")
