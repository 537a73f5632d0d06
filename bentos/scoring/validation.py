"""The rows of a table held to the endpoint's contract, column by column: who would be refused there, and why.

Words, as a CSV has them, are read as the endpoint reads those of a CSV; what has a type already is held to the same
schema.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bentos.endpoint import parse_strict
from bentos.endpoint.batch import Batch
from bentos.endpoint.guardrails import RequestGuard, refusal
from pipeline.compiled.operations import Coded
from pipeline.errors import DataError, did_you_mean
from pipeline.guard import Guard
from pipeline.schema import Feature, Schema
from pipeline.sources import logical_type

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a row is refused: its position in the table, the field (None: the whole row), and the sentence."""

    row: int
    field: str | None
    problem: str


class RowValidator:
    """The contract of one model, ready to look at tables; `decimal` stands before the fraction of a written number."""

    def __init__(self, schema: Schema, guards: Sequence[Guard], decimal: str = ".") -> None:
        self.schema, self.decimal = schema, decimal
        self.guard = RequestGuard(guard for guard in guards if guard.refuse)

    def check_names(self, names: Sequence[str]) -> None:
        """Raise DataError for what the endpoint would refuse as a whole: an unknown column, or a required one missing.

        Key columns, the target and other columns of the snapshot are accepted and not used.
        """
        features = {feature.name for feature in self.schema.features}
        known = {*features, *self.schema.key, *self.schema.ignored}
        for name in names:
            if name not in known:
                raise DataError(
                    f"column {name!r} is not a column of the model's data{did_you_mean(name, known)}",
                    code="data.unknown_column",
                )
        for feature in self.schema.features:
            if feature.required and feature.name not in names:
                raise DataError(
                    f"column {feature.name!r} is missing and required; add it to the table", code="data.missing_column"
                )

    def validate(self, table: "pyarrow.Table") -> tuple["pyarrow.Table", list[Refused]]:
        """Return the features of all rows in the types that a model takes, and the rows that are refused, in order.

        What is refused is null there. Raises DataError when a column holds something else than the feature of its name.
        """
        import pyarrow as pa

        refused: list[Refused] = []
        columns = {one.name: self._column(one, table, refused) for one in self.schema.features}
        features = pa.table(columns)
        if self.guard:
            # What cannot be read reaches no guard.
            unread = {one.row for one in refused}
            refused += [one for one in self._guarded(features) if one.row not in unread]
        return features, sorted(refused, key=lambda one: one.row)

    def _column(self, feature: Feature, table: "pyarrow.Table", refused: list[Refused]) -> "pyarrow.ChunkedArray":
        import pyarrow as pa

        kind = {"number": pa.float64(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us"), "text": pa.string()}
        if feature.name not in table.column_names:
            column = pa.chunked_array([pa.nulls(table.num_rows, kind[feature.type])])
        else:
            column = table.column(feature.name)
        if pa.types.is_null(column.type):
            column = column.cast(kind[feature.type])
        words = pa.types.is_string(column.type) and feature.type != "text"
        if not words and logical_type(column.type) != feature.type:
            raise DataError(
                f"column {feature.name!r} holds {logical_type(column.type)} such as {_first(column)!r}, but the model "
                f"needs {feature.type}; convert the column",
                code="data.wrong_type",
            )
        # Words that cannot be read are no nulls.
        problems: dict[int, str] = {}
        if words:
            column, problems = self._read(feature, column)
        else:
            column = column.cast(kind[feature.type], safe=False)
            if feature.type == "number":
                column, problems = _finite(column)
        refused += [Refused(row, feature.name, said) for row, said in problems.items()]
        if feature.required and column.null_count:
            lack = f"is null and is required; give {parse_strict.NOUNS[feature.type]}"
            nulls = np.flatnonzero(column.is_null().to_numpy())
            refused += [Refused(row, feature.name, lack) for row in nulls.tolist() if row not in problems]
        return column

    def _read(self, feature: Feature, column: "pyarrow.ChunkedArray") -> tuple["pyarrow.ChunkedArray", dict[int, str]]:
        """Return what words say, and by row why some say nothing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        words = pc.utf8_trim(column, " \t")
        empty = pc.is_in(words, pa.array([*self.schema.nulls, ""], pa.string()))
        words = pc.if_else(empty, pa.scalar(None, pa.string()), words)
        if feature.type == "number":
            if self.decimal != ".":
                words = pc.replace_substring(words, self.decimal, ".")
            try:
                numbers = words.cast(pa.float64())
                # Arrow takes the words nan and inf for numbers.
                if pc.all(pc.is_finite(numbers)).as_py() is not False:
                    return numbers, {}
            except pa.ArrowInvalid:
                pass
        kind = {"number": pa.float64(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us")}[feature.type]
        convert, noun = parse_strict.FROM_WORD[feature.type], parse_strict.WORD_NOUNS[feature.type]
        coded = words.combine_chunks().dictionary_encode()
        values: list[Any] = []
        unread: dict[int, str] = {}
        for code, word in enumerate(coded.dictionary.to_pylist()):
            try:
                values.append(convert(word))
            except ValueError as error:
                values.append(None)
                unread[code] = f"{error}; give {noun}"
        read = pa.array(values, kind).take(coded.indices)
        if not unread:
            return pa.chunked_array([read]), {}
        codes = coded.indices.fill_null(-1).to_numpy()
        rows = np.flatnonzero(np.isin(codes, list(unread)))
        return pa.chunked_array([read]), {row: unread[int(codes[row])] for row in rows.tolist()}

    def _guarded(self, features: "pyarrow.Table") -> list[Refused]:
        """Return the rows whose values the suite refuses."""
        names = [one[1] for one in self.guard.ranges]
        types = {feature.name: feature.type for feature in self.schema.features}
        columns = {name: _plain(features.column(name), types[name]) for name in names}
        found: list[Refused] = []
        for guard, rows in self.guard.broken(Batch(columns, features.num_rows)):
            found += [Refused(row, guard.feature, refusal(guard, columns[guard.feature][row])) for row in rows]
        return found


def accepted_rows(refused: Sequence[Refused], rows: int) -> NDArray[np.bool_]:
    """Return, per row, whether it is not refused."""
    mask = np.ones(rows, dtype=bool)
    mask[[one.row for one in refused]] = False
    return mask


def _finite(column: "pyarrow.ChunkedArray") -> tuple["pyarrow.ChunkedArray", dict[int, str]]:
    """Return numbers with null for infinities, and by row what is wrong with those."""
    import pyarrow as pa
    import pyarrow.compute as pc

    infinite = pc.is_inf(column)
    if not pc.any(infinite).as_py():
        return column, {}
    said = f"a number this large is infinite as a 64-bit float; give {parse_strict.NOUNS['number']}"
    rows = np.flatnonzero(pc.fill_null(infinite, False).to_numpy())
    return pc.if_else(infinite, pa.scalar(None, pa.float64()), column), dict.fromkeys(rows.tolist(), said)


def _plain(column: "pyarrow.ChunkedArray", kind: str) -> Any:
    """Return a column as a batch has it."""
    if kind == "number":
        return column.to_numpy()
    if kind == "text":
        coded = column.combine_chunks().dictionary_encode("encode")
        return Coded(coded.dictionary.to_pylist(), coded.indices.to_numpy())
    return column.to_pylist()


def _first(column: "pyarrow.ChunkedArray") -> Any:
    return next((value for value in column.slice(0, 1000).to_pylist() if value is not None), None)
