"""The fast parser: plainly valid bodies become columns; for all others it returns None.

`bentos.endpoint.parse_strict` then parses the body. The fast parser never accepts a body that the strict parser would
refuse or read differently. It is fast because it checks many values at once: types as a set, names by their count, and
a CSV with Arrow.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from bentos.endpoint import parse_strict
from bentos.endpoint.batch import Batch
from pipeline.compiled.operations import Coded, coded
from pipeline.schema import Feature, Schema
from pipeline.sources import LogicalType

if TYPE_CHECKING:
    import pyarrow

MIN_ARROW_BYTES = 16_384
"""From this size on Arrow parses a CSV faster than the strict parser, import included."""
MIN_NUMPY_BYTES = 16_384
"""From this size on NumPy counts a character faster than `bytes.count`."""
_TYPE_ORDER: tuple[LogicalType, ...] = ("number", "boolean", "timestamp", "text")
_TYPES: Mapping[LogicalType, frozenset[type]] = {
    "number": frozenset({float, int}),
    "boolean": frozenset({bool}),
    "text": frozenset({str}),
    "timestamp": frozenset({str}),
}
_NULL = frozenset({type(None)})


class QuickReader:
    """Parses the bodies of requests to one model.

    `max_rows` is the limit of the endpoint; larger bodies are left to the strict parser, which refuses them.
    """

    def __init__(self, schema: Schema, max_rows: int) -> None:
        self.schema, self.max_rows = schema, max_rows
        # Features of one type side by side, so that one set of value types checks all their columns.
        features = sorted(schema.features, key=lambda feature: (_TYPE_ORDER.index(feature.type), feature.required))
        self.names = tuple(feature.name for feature in features)
        self.groups = _groups(features)
        self.groups_without_texts = _groups([feature for feature in features if feature.type != "text"])
        self.texts = [(index, _types(feature)) for index, feature in enumerate(features) if feature.type == "text"]
        self.numbers = sum(feature.type == "number" for feature in features)
        self.times = tuple(feature.name for feature in features if feature.type == "timestamp")
        self.others = (*schema.key, *(name for name in schema.ignored if name not in schema.key))
        self.blank: dict[str, None] = dict.fromkeys((*self.names, *self.others))
        pick = itemgetter(*self.names)
        self.pick: Callable[[Any], tuple[Any, ...]] = pick if len(self.names) > 1 else lambda record: (pick(record),)

    def json(self, body: bytes) -> Batch | None:
        """Return the rows of `{"records": [{feature: value, ...}, ...]}`; None if the strict parser must decide."""
        # One object for the body and one for each record: more braces are more records than allowed, or nested objects.
        if _count(body, "{") > self.max_rows + 1:
            return None
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(value) is not dict or len(value) != 1:
            return None
        records = value.get("records")
        if type(records) is not list or not 0 < len(records) <= self.max_rows or set(map(type, records)) != {dict}:
            return None
        return None if _may_have_duplicate_names(body, records) else self._columns_of(records)

    def _columns_of(self, records: list[dict[str, Any]]) -> Batch | None:
        columns: list[Any] | None = self._columns_in_same_order(records) or self._columns_by_name(records)
        if columns is None or not _have_types(columns, self.groups if len(records) == 1 else self.groups_without_texts):
            return None
        if len(records) > 1:
            columns[: self.numbers] = np.array(columns[: self.numbers], dtype=np.float64)
            if not self._code_texts(columns):
                return None
        by_name = dict(zip(self.names, columns, strict=True))
        try:
            for name in self.times:
                by_name[name] = [None if value is None else parse_strict.timestamp(value) for value in by_name[name]]
        except ValueError:
            return None
        return Batch(by_name, len(records))

    def _code_texts(self, columns: list[Any]) -> bool:
        """Replace columns of text by their distinct texts and codes; return False if a value is not a text."""
        try:
            for index, types in self.texts:
                columns[index] = coded(columns[index])
                if not types.issuperset(map(type, columns[index].distinct)):
                    return False
        except TypeError:
            # A list or an object, which cannot be hashed.
            return False
        return True

    def _columns_in_same_order(self, records: list[dict[str, Any]]) -> list[Any] | None:
        """Return the columns if every record has exactly the features, all in the same order; None otherwise."""
        names = tuple(records[0])
        if len(records) == 1 or len(names) != len(self.names) or set(map(tuple, records)) != {names}:
            return None
        columns = dict(zip(names, zip(*map(dict.values, records), strict=True), strict=True))
        return list(self.pick(columns)) if columns.keys() == set(self.names) else None

    def _columns_by_name(self, records: list[dict[str, Any]]) -> list[Any] | None:
        """Return the columns of records in any order; None if a record has a name that the snapshot does not have."""
        try:
            rows = [self.pick(record) for record in records]
            whole = sum(map(len, records)) == len(records) * len(self.names)
        except KeyError:
            whole = False
        if not whole:
            records = [{**self.blank, **record} for record in records]
            if sum(map(len, records)) != len(records) * len(self.blank):
                return None
            if any(type(record[name]) in (dict, list) for record in records for name in self.others):
                return None
            rows = [self.pick(record) for record in records]
        return list(zip(*rows, strict=True))

    def csv(self, body: bytes) -> Batch | None:
        """Return the rows of a large CSV without quotes; None if the strict parser must look at it."""
        if len(body) < MIN_ARROW_BYTES or b'"' in body or b"\0" in body or _has_lone(body, "\r", "\n"):
            return None
        try:
            header = body[: body.index(b"\n")].decode("utf-8-sig").rstrip("\r").split(",")
        except (ValueError, UnicodeDecodeError):
            return None
        if len(set(header)) != len(header) or not self.blank.keys() >= set(header):
            return None
        if any(feature.required and feature.name not in header for feature in self.schema.features):
            return None
        table = self._table(body, header)
        if table is None or not 0 < table.num_rows <= self.max_rows:
            return None
        chunks = {name: column.chunks for name, column in zip(table.column_names, table.columns, strict=True)}
        columns: dict[str, Any] = {}
        for feature in self.schema.features:
            parts = chunks.get(feature.name)
            if parts is not None and len(parts) != 1:
                return None
            column = [None] * table.num_rows if parts is None else self._column(feature, parts[0])
            if column is None:
                return None
            columns[feature.name] = column
        keys = {name: table.column(name).to_pylist() for name in self.schema.key if name in header}
        return Batch(columns, table.num_rows, keys)

    def _table(self, body: bytes, header: list[str]) -> "pyarrow.Table | None":
        import pyarrow as pa
        from pyarrow import csv

        text = pa.dictionary(pa.int32(), pa.string())
        types = {feature.name: pa.float64() if feature.type == "number" else text for feature in self.schema.features}
        types |= {name: pa.string() for name in self.schema.key}
        options = csv.ConvertOptions(
            column_types=types,
            include_columns=[name for name in header if name in types],
            null_values=[*self.schema.nulls, ""],
            strings_can_be_null=False,
        )
        try:
            return csv.read_csv(
                pa.BufferReader(body),
                # One block, because each block would get its own dictionary of texts.
                read_options=csv.ReadOptions(use_threads=False, block_size=len(body) + 1),
                parse_options=csv.ParseOptions(quote_char=False),
                convert_options=options,
            )
        except pa.ArrowException:
            return None

    def _column(self, feature: Feature, chunk: "pyarrow.Array") -> Any:
        """Return a feature's values; None if the strict parser must decide."""
        if feature.type == "number":
            values = chunk.to_numpy(zero_copy_only=False)
            missing = np.isnan(values)
            # Arrow parses the words nan and inf as numbers.
            finite = int(missing.sum()) == chunk.null_count and not np.isinf(values).any()
            return values if finite and not (feature.required and chunk.null_count) else None
        nulls = {*self.schema.nulls} if feature.type == "text" else {*self.schema.nulls, ""}
        convert = parse_strict.FROM_WORD[feature.type]
        try:
            distinct = [None if word in nulls else convert(word) for word in chunk.dictionary.to_pylist()]
        except ValueError:
            return None
        if feature.required and None in distinct:
            return None
        coded = Coded(distinct, chunk.indices.to_numpy())
        return coded if feature.type == "text" else list(coded)


def _count(body: bytes, sign: str) -> int:
    """Return how often an ASCII character occurs."""
    if len(body) < MIN_NUMPY_BYTES:
        return body.count(sign.encode())
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(sign)))


def _has_lone(body: bytes, sign: str, after: str) -> bool:
    """Return whether an ASCII character occurs anywhere without another one right after it."""
    characters = np.frombuffer(body, np.uint8)
    found = np.flatnonzero(characters == ord(sign))
    return bool(len(found)) and (int(found[-1]) + 1 == len(body) or bool((characters[found + 1] != ord(after)).any()))


def _may_have_duplicate_names(body: bytes, records: list[dict[str, Any]]) -> bool:
    """Return whether an object of a body may have a name twice; orjson silently keeps the last one.

    JSON has one colon after each name; all other colons are within texts. So if the body has more colons than there are
    names and colons in texts after parsing, a name occurs twice. A text may have a colon written as an escape, which is
    not a colon in the body; then the answer is True, to be safe.
    """
    in_texts = _count(body, ":") - 1 - sum(map(len, records))
    return in_texts != 0 and (b"\\u003" in body or in_texts != _colons_in_texts(records))


def _colons_in_texts(records: list[dict[str, Any]]) -> int:
    texts = chain.from_iterable((*record, *record.values()) for record in records)
    return sum(text.count(":") for text in texts if type(text) is str)


def _have_types(columns: Sequence[Sequence[Any]], groups: Sequence[tuple[int, int, frozenset[type]]]) -> bool:
    """Return whether all values have types that their features allow."""
    return all(types.issuperset(map(type, chain.from_iterable(columns[start:stop]))) for start, stop, types in groups)


def _types(feature: Feature) -> frozenset[type]:
    return _TYPES[feature.type] | (frozenset() if feature.required else _NULL)


def _groups(features: list[Feature]) -> list[tuple[int, int, frozenset[type]]]:
    """Return runs of features that allow the same value types: start, stop and those types."""
    groups: list[tuple[int, int, frozenset[type]]] = []
    for index, feature in enumerate(features):
        types = _types(feature)
        if groups and groups[-1][2] == types:
            groups[-1] = (groups[-1][0], index + 1, types)
        else:
            groups.append((index, index + 1, types))
    return groups
