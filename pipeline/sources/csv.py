"""How CSV files are read: in blocks cut between records; Arrow parses each and guesses the types of its columns."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, NoReturn

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.columns import first_line
from pipeline.sources.locations import DataFile, open_decompressed
from pipeline.sources.parallel import in_order
from pipeline.sources.source_types import Csv

if TYPE_CHECKING:
    import pyarrow

BLOCK = 2**22
"""Bytes parsed at a time, more if a record is longer. Larger blocks lose more time to memory than they save."""
_THREADS = 2
_CONTENT = re.compile(rb"[^\r\n]")
_SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = ("utf-8", "cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "latin-1")
"""The encodings to suggest for a file that is not in its declared one, the most likely first."""


def tables(place: DataFile, source: Csv, forced: Mapping[str, "pyarrow.DataType"]) -> Iterator["pyarrow.Table"]:
    """Yield a file's tables, with the types that Arrow guesses from each block's words, or the forced ones.

    Raises DataError, naming file and line, if the file is not a complete CSV file.
    """
    import pyarrow as pa

    with open_decompressed(place) as stream:
        blocks = _blocks(place, source, stream)
        first = next(blocks, None)
        if not first:
            raise DataError(f"{place.name}: the file is empty; write a header and rows", code="data.empty_file")
        _refuse_other_separator(place, source, first)
        try:
            table = _parsed(first, source, forced, None)
            names = table.column_names
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            _locate_defect(place, source, error)
        rest = in_order(lambda block: _parsed(block, source, forced, names), blocks, _THREADS)
        parsed = chain([table], rest)
        while True:
            try:
                table = next(parsed, None)
            except (pa.ArrowInvalid, UnicodeDecodeError) as error:
                _locate_defect(place, source, error)
            if table is None:
                return
            if any(pa.types.is_binary(kind) for kind in table.schema.types):
                _locate_defect(place, source, ValueError("a text is not UTF-8"))
            yield table


def _parsed(
    block: memoryview, source: Csv, types: Mapping[str, "pyarrow.DataType"], names: Sequence[str] | None
) -> "pyarrow.Table":
    """Parse whole records; the first one is the header when no names are given."""
    import pyarrow as pa
    import pyarrow.csv

    text = {name: pa.string() for name, kind in source.types.items() if kind == "text"}
    # Columns of the other declared types are cast later: Arrow's guess knows zones and whole numbers.
    words = {name: kind for name, kind in types.items() if pa.types.is_string(kind)}
    for forced in ({**text, **types}, {**text, **words}):
        try:
            return pyarrow.csv.read_csv(
                pa.py_buffer(block),
                read_options=pyarrow.csv.ReadOptions(
                    block_size=len(block) + 1, column_names=None if names is None else list(names)
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=source.separator, newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    null_values=list(source.na_values),
                    strings_can_be_null=True,
                    decimal_point=source.decimal,
                    column_types=forced,
                ),
            )
        except pa.ArrowInvalid:
            # A forced type does not fit. Without it Arrow guesses again, and ColumnTypes notices the difference.
            if forced == {**text, **words}:
                raise
    raise AssertionError("the second try raises")


def _blocks(place: DataFile, source: Csv, stream: IO[bytes]) -> Iterator[memoryview]:
    """Yield a file's content as UTF-8, in blocks of whole records; DataError when it is in another encoding."""
    decoder = None if codecs.lookup(source.encoding).name == "utf-8" else _decoder(source.encoding)
    waiting, begun, size = b"", False, BLOCK
    while block := stream.read(size):
        if decoder is not None:
            try:
                block = decoder.decode(block).encode()
            except UnicodeDecodeError as error:
                _locate_encoding(place, source, error)
        if not begun:
            block = block.removeprefix(codecs.BOM_UTF8)
        if b"\0" in block:
            _locate_nul(place, source)
        waiting = waiting + block if waiting else block
        if end := _last_record(waiting, source.separator):
            if not begun or _CONTENT.search(waiting, 0, end):
                yield memoryview(waiting)[:end]
                begun = True
            waiting = waiting[end:]
        # The next read is as long as the waiting record, so that a long record is not scanned many times.
        size = max(BLOCK, len(waiting))
    if decoder is not None:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            _locate_encoding(place, source, error)
    if waiting and _ends_inside_quotes(waiting, source.separator):
        _read_strictly(place, source)
        raise DataError(
            f"{place.name}: the file ends inside a quoted text; is a quote left open?", code="data.open_quote"
        )
    if waiting.strip(b"\r\n") or (waiting and not begun):
        yield memoryview(waiting)


def _last_record(block: bytes, separator: str) -> int:
    """Return where the last whole record of a block ends, 0 when none does."""
    starts, ends = _quoted(block, separator) if b'"' in block else (np.empty(0, int), np.empty(0, int))
    end = len(block)
    while True:
        end = max(block.rfind(b"\n", 0, end), block.rfind(b"\r", 0, end))
        number = int(np.searchsorted(starts, end, "right")) - 1
        if end < 0 or number < 0 or end >= ends[number]:
            return end + 1
        end = int(starts[number])


def _ends_inside_quotes(block: bytes, separator: str) -> bool:
    return b'"' in block and bool((_quoted(block, separator)[1] > len(block)).any())


def _quoted(block: bytes, separator: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where quoted texts begin and end in a block that begins with a record.

    A text that is never closed ends beyond the block. As in Arrow, a quote opens a text only where a field begins. An
    escaped quote counts as the end of one text and the beginning of another.
    """
    content = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(content == ord('"'))
    beside = np.zeros(256, bool)
    beside[list(f'{separator}\r\n"'.encode())] = True
    opening, closing = quotes[0::2], quotes[1::2]
    # The first may have nothing before it, the last nothing after it.
    before = opening[1:] if len(opening) and opening[0] == 0 else opening
    after = closing[:-1] if len(closing) and closing[-1] == len(block) - 1 else closing
    if all(beside.take(content.take(places)).all() for places in (before - 1, after + 1)):
        return opening, np.append(closing, [len(block) + 1] * (len(quotes) % 2))
    # Some quotes are ordinary characters, as in 5" pipe: then a regular expression finds the texts.
    text = re.compile(rb'(?:\A|(?<=[\r\n%s]))"[^"]*(?:""[^"]*)*("|\Z)' % re.escape(separator).encode())
    matches = [(match.start(), match.end() - 1 if match[1] else len(block) + 1) for match in text.finditer(block)]
    spans = np.array(matches, dtype=np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(encoding)()


def _locate_encoding(place: DataFile, source: Csv, cause: Exception | None = None) -> None:
    """Raise DataError, naming the first byte that is not in the encoding, its line and likely other encodings."""
    decoder, lines = _decoder(source.encoding), 1
    with open_decompressed(place) as stream:
        begin = b""
        while block := stream.read(BLOCK):
            begin = begin or block[:4]
            try:
                decoder.decode(block)
            except UnicodeDecodeError as broken:
                # `object` begins with the bytes that the decoder still held from the block before.
                content = bytes(broken.object)
                line = lines + content.count(b"\n", 0, broken.start)
                raise DataError(
                    f"{place.name}, line {line}: byte 0x{content[broken.start]:02X} is not {_named(source.encoding)}; "
                    f"{_other_encodings(begin, content, broken.start, source.encoding)}, or write the file again as "
                    "UTF-8",
                    code="data.wrong_encoding",
                ) from cause
            lines += block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise DataError(
            f"{place.name}: the file ends in the middle of a {_named(source.encoding)} character; was the copy cut "
            "short?",
            code="data.damaged_file",
        ) from cause


def _named(encoding: str) -> str:
    return "UTF-8" if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig") else encoding


def _other_encodings(begin: bytes, content: bytes, position: int, encoding: str) -> str:
    """Return what the word around a byte reads as in other encodings, or the encoding of the byte order mark."""
    for mark, name in {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8"}.items():
        if begin.startswith(mark):
            return f"the file begins as {name} does: give encoding={name!r}"
    # Messages show no more than one word of the data.
    start = max(content.rfind(end, max(0, position - 20), position) for end in (b" ", b",", b";", b"\t", b"\n", b'"'))
    word = re.split(rb'[ ,;\t\r\n"]', content[start + 1 : position + 20])[0]
    readings: dict[str, str] = {}
    for name in _ENCODINGS:
        try:
            text = word.decode(name)
        except UnicodeDecodeError:
            continue
        if codecs.lookup(name) != codecs.lookup(encoding) and text.isprintable() and text not in readings.values():
            readings[name] = text
    if not readings:
        return "give its encoding, such as encoding='cp1252'"
    shown = ", ".join(f"{text!r} in {name}" for name, text in [*readings.items()][:3])
    return f"it reads {shown}: give that as encoding="


def _locate_nul(place: DataFile, source: Csv) -> NoReturn:
    _locate_encoding(place, source)
    line = 1
    with open_decompressed(place) as stream:
        while (block := stream.read(BLOCK)) and b"\0" not in block:
            line += block.count(b"\n")
    line += block.count(b"\n", 0, block.find(b"\0"))
    raise DataError(
        f"{place.name}, line {line}: a NUL byte; the file is damaged or is not CSV, or is UTF-16: encoding='utf-16'",
        code="data.nul_byte",
    )


def _refuse_other_separator(place: DataFile, source: Csv, first: memoryview) -> None:
    """Raise DataError if the header is one column, but another separator cuts header and first row into several."""
    text = bytes(first[: 2**16]).decode(errors="replace")
    lines = [line for line in text.splitlines() if line][:2]
    header = next(csv.reader(lines, delimiter=source.separator), [])
    if len(header) == 1 and (other := _other_separator(lines, source)):
        count = len(next(csv.reader(lines, delimiter=other)))
        raise DataError(
            f"{place.name}: one column {header[0]!r:.80} with separator {source.separator!r}; by {other!r} there are "
            f"{count}: give separator={other!r}",
            code="data.wrong_separator",
        )


def _other_separator(lines: Sequence[str], source: Csv) -> str | None:
    """Return the separator that cuts a header and a first row into the same number of fields; None without one."""
    for other in _SEPARATORS:
        cut = [len(row) for row in csv.reader(lines, delimiter=other)]
        if other != source.separator and min(cut) > 1 and len(set(cut)) == 1:
            return other
    return None


def _locate_defect(place: DataFile, source: Csv, error: Exception) -> NoReturn:
    """Raise DataError, naming the line that made Arrow refuse a CSV file."""
    _locate_encoding(place, source, error)
    _read_strictly(place, source, error)
    raise DataError(
        f"{place.name}: the CSV cannot be parsed: {first_line(error)}; write the file again", code="data.unparsable"
    ) from error


def _read_strictly(place: DataFile, source: Csv, cause: Exception | None = None) -> None:
    """Raise DataError, naming the first line with another number of fields, or with a quote out of place."""
    with open_decompressed(place) as stream:
        encoding = "utf-8-sig" if _named(source.encoding) == "UTF-8" else source.encoding
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        rows = csv.reader(text, strict=True, delimiter=source.separator)
        header: list[str] = []
        line = 1
        limit = csv.field_size_limit(sys.maxsize)
        try:
            for row in rows:
                header = header or row
                if row and len(row) != len(header):
                    fields = "field" if len(row) == 1 else "fields"
                    raise DataError(
                        f"{place.name}, line {line}: {len(row)} {fields} where the header has {len(header)}; "
                        "the file is ragged or was cut short",
                        code="data.ragged_rows",
                    ) from cause
                line = rows.line_num + 1
        except csv.Error as broken:
            raise DataError(
                f"{place.name}, line {line}: {broken}; is a quote left open?", code="data.open_quote"
            ) from (cause or broken)
        finally:
            csv.field_size_limit(limit)
