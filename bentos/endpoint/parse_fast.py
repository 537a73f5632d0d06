"""Quick reading: bodies that are plainly right become columns at once; all others are left to
`bentos.endpoint.parse_strict`.

It never takes what the strict reader would refuse or read otherwise, and it looks at no value one by one where it can
look at all: types as a set, names by their number, a CSV by Arrow.
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
"""From this many bytes on Arrow is the quicker, and worth its import."""
MIN_NUMPY_BYTES = 16_384
"""From this many bytes on NumPy counts quicker."""
_KINDS: tuple[LogicalType, ...] = ("number", "boolean", "timestamp", "text")
_TYPES: Mapping[LogicalType, frozenset[type]] = {
    "number": frozenset({float, int}),
    "boolean": frozenset({bool}),
    "text": frozenset({str}),
    "timestamp": frozenset({str}),
}
_NULL = frozenset({type(None)})


class QuickReader:
    """Reads the bodies of requests to one model."""

    def __init__(self, schema: Schema, most_rows: int) -> None:
        self.schema, self.most_rows = schema, most_rows
        # Features of one kind side by side, so that one look at the types of many values is enough.
        features = sorted(schema.features, key=lambda one: (_KINDS.index(one.type), one.required))
        self.names = tuple(feature.name for feature in features)
        self.groups = _groups(features)
        self.groups_without_texts = _groups([feature for feature in features if feature.type != "text"])
        self.texts = [(place, _types(one)) for place, one in enumerate(features) if one.type == "text"]
        self.numbers = sum(feature.type == "number" for feature in features)
        self.times = tuple(feature.name for feature in features if feature.type == "timestamp")
        self.others = (*schema.key, *(name for name in schema.ignored if name not in schema.key))
        self.blank: dict[str, None] = dict.fromkeys((*self.names, *self.others))
        pick = itemgetter(*self.names)
        self.pick: Callable[[Any], tuple[Any, ...]] = pick if len(self.names) > 1 else lambda record: (pick(record),)

    def json(self, body: bytes) -> Batch | None:
        """Return the rows of `{"records": [{feature: value, ...}, ...]}`."""
        # One object holds the records; more than one each is refused before it is parsed.
        if _count(body, "{") > self.most_rows + 1:
            return None
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(value) is not dict or len(value) != 1:
            return None
        records = value.get("records")
        if type(records) is not list or not 0 < len(records) <= self.most_rows or set(map(type, records)) != {dict}:
            return None
        return None if _may_repeat_a_name(body, records) else self._of_records(records)

    def _of_records(self, records: list[dict[str, Any]]) -> Batch | None:
        columns: list[Any] | None = self._alike(records) or self._picked(records)
        if columns is None or not _right(columns, self.groups if len(records) == 1 else self.groups_without_texts):
            return None
        if len(records) > 1:
            columns[: self.numbers] = np.array(columns[: self.numbers], dtype=np.float64)
            if not self._code_texts(columns):
                return None
        found = dict(zip(self.names, columns, strict=True))
        try:
            for name in self.times:
                found[name] = [None if value is None else parse_strict.timestamp(value) for value in found[name]]
        except ValueError:
            return None
        return Batch(found, len(records))

    def _code_texts(self, columns: list[Any]) -> bool:
        """Replace columns of text by their distinct words and codes; False when a value is not a text."""
        try:
            for place, types in self.texts:
                columns[place] = coded(columns[place])
                if not types.issuperset(map(type, columns[place].distinct)):
                    return False
        except TypeError:
            # A list or an object, which has no hash.
            return False
        return True

    def _alike(self, records: list[dict[str, Any]]) -> list[Any] | None:
        """Return the columns of records that name exactly the features, all in the same order; None for others."""
        names = tuple(records[0])
        if len(records) == 1 or len(names) != len(self.names) or set(map(tuple, records)) != {names}:
            return None
        columns = dict(zip(names, zip(*map(dict.values, records), strict=True), strict=True))
        return list(self.pick(columns)) if columns.keys() == set(self.names) else None

    def _picked(self, records: list[dict[str, Any]]) -> list[Any] | None:
        """Return the columns of records; None where one has a name that the snapshot does not have."""
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
        """Return the rows of a large CSV without quotes."""
        if len(body) < MIN_ARROW_BYTES or b'"' in body or b"\0" in body or _alone(body, "\r", "\n"):
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
        if table is None or not 0 < table.num_rows <= self.most_rows:
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

        words = pa.dictionary(pa.int32(), pa.string())
        types = {one.name: pa.float64() if one.type == "number" else words for one in self.schema.features}
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
                # One block: what is cut in two would be two tables, with words numbered twice.
                read_options=csv.ReadOptions(use_threads=False, block_size=len(body) + 1),
                parse_options=csv.ParseOptions(quote_char=False),
                convert_options=options,
            )
        except pa.ArrowException:
            return None

    def _column(self, feature: Feature, chunk: "pyarrow.Array") -> Any:
        """Return a feature's values, or None where the strict reader should look at them."""
        if feature.type == "number":
            values = chunk.to_numpy(zero_copy_only=False)
            missing = np.isnan(values)
            # Arrow takes the words nan and inf for numbers.
            right = int(missing.sum()) == chunk.null_count and not np.isinf(values).any()
            return values if right and not (feature.required and chunk.null_count) else None
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
    """Count the places of an ASCII character."""
    if len(body) < MIN_NUMPY_BYTES:
        return body.count(sign.encode())
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(sign)))


def _alone(body: bytes, sign: str, after: str) -> bool:
    """Tell whether an ASCII character is anywhere not followed by another one."""
    signs = np.frombuffer(body, np.uint8)
    places = np.flatnonzero(signs == ord(sign))
    return bool(len(places)) and (int(places[-1]) + 1 == len(body) or bool((signs[places + 1] != ord(after)).any()))


def _may_repeat_a_name(body: bytes, records: list[dict[str, Any]]) -> bool:
    """Tell whether an object of a body may have a name twice, of which the parser kept the last in silence.

    In JSON a colon stands behind each name, and else only within texts. A body with a name twice has a colon more than
    there are names and colons within texts after parsing. A colon in a text that is written as an escape is not in the
    body; then nothing is sure.
    """
    in_texts = _count(body, ":") - 1 - sum(map(len, records))
    return in_texts != 0 and (b"\\u003" in body or in_texts != _colons_in_texts(records))


def _colons_in_texts(records: list[dict[str, Any]]) -> int:
    texts = chain.from_iterable((*record, *record.values()) for record in records)
    return sum(text.count(":") for text in texts if type(text) is str)


def _right(columns: Sequence[Sequence[Any]], groups: Sequence[tuple[int, int, frozenset[type]]]) -> bool:
    """Tell whether all values are of the types that their features may have."""
    return all(types.issuperset(map(type, chain.from_iterable(columns[start:stop]))) for start, stop, types in groups)


def _types(feature: Feature) -> frozenset[type]:
    return _TYPES[feature.type] | (frozenset() if feature.required else _NULL)


def _groups(features: list[Feature]) -> list[tuple[int, int, frozenset[type]]]:
    """Return the places of the features of each kind, with the types that their values may have."""
    groups: list[tuple[int, int, frozenset[type]]] = []
    for place, feature in enumerate(features):
        types = _types(feature)
        if groups and groups[-1][2] == types:
            groups[-1] = (groups[-1][0], place + 1, types)
        else:
            groups.append((place, place + 1, types))
    return groups
