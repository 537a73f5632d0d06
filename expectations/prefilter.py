"""Find the rows that may break a rule, from the statistics in a snapshot's file and with numpy.

Great Expectations then evaluates only these rows and gets the counts of the whole table. Results are identical, since
a row that is left out certainly keeps the rule, or is null and the rule is not about nulls.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.drift import mix_hashes

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

ROWS, NULLS, ASKED = "table.row_count", "column_values.nonnull.unexpected_count", "filtered_row_count"
"""Great Expectations' names for the counts of all rows, of nulls, and of the rows that a rule evaluates."""
_CORE = "great_expectations.expectations.core"
_OF_TYPES = {"ExpectColumnValuesToBeOfType", "ExpectColumnValuesToBeInTypeList"}
_PREFILTERED = {
    "ExpectColumnValuesToNotBeNull",
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToBeInSet",
    "ExpectColumnValuesToBeUnique",
    "ExpectCompoundColumnsToBeUnique",
    *_OF_TYPES,
}


@dataclass(frozen=True)
class Part:
    """The columns that some rules are about.

    `frame` has all of them, or those that may break a rule, each under its number from 0. `known` are counts of the
    whole table, by the end of what Great Expectations calls them.
    """

    frame: "pandas.DataFrame"
    rows: int
    known: Mapping[str, int] = field(default_factory=dict)


def can_prefilter(rule: Any, columns: Collection[str], schema: "pyarrow.Schema | None") -> bool:
    """Return whether prefilter() can find the rows that may break a rule; it cannot for derived classes."""
    name = type(rule).__name__
    if schema is None or name not in _PREFILTERED or not type(rule).__module__.startswith(_CORE):
        return False
    if getattr(rule, "row_condition", None) or not all(column in schema.names for column in columns):
        return False
    types = {str(schema.field(column).type) for column in columns}
    match name:
        case "ExpectColumnValuesToBeBetween":
            bounds = (rule.min_value, rule.max_value)
            return types <= {"int64", "double"} and any(map(_is_number, bounds)) and all(map(_is_bound, bounds))
        case "ExpectColumnValuesToBeInSet":
            words = rule.value_set
            return types == {"string"} and isinstance(words, list) and all(isinstance(word, str) for word in words)
        case "ExpectCompoundColumnsToBeUnique":
            return str(rule.ignore_row_if) == "all_values_are_missing" and types <= {*_HASHED}
        case "ExpectColumnValuesToBeUnique":
            return types <= {*_HASHED}
        case _ if name in _OF_TYPES:
            # Booleans with nulls are objects, whose types are checked value by value.
            return types <= {*_HASHED} - {"bool"}
    return True


_HASHED = ("int64", "double", "string", "bool", "timestamp[us]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_bound(value: Any) -> bool:
    return value is None or _is_number(value)


def prefilter(data: Any, keep: "numpy.ndarray | None", rows: int, names: Sequence[str], rules: Sequence[Any]) -> Part:
    """Return the rows that may break one of the rules; `data` is an Arrow table or a SnapshotFile."""
    import numpy as np
    import pyarrow as pa

    columns = [_Column(data, keep, name) for name in names]
    masks = [mask for rule in rules if (mask := _doubtful(rule, columns)) is not None]
    if masks:
        doubtful = np.logical_or.reduce(masks)
        table = pa.table({column.name: column.values.filter(pa.array(doubtful)) for column in columns})
        numbers = np.flatnonzero(doubtful)
    else:
        table, numbers = data.schema.empty_table().select([*names]), np.arange(0)
    for position, column in enumerate(columns):
        column_type = table.schema.field(position).type
        if pa.types.is_dictionary(column_type):
            table = table.set_column(position, column.name, table.column(position).cast(pa.string()))
        elif pa.types.is_integer(column_type) and column.nulls:
            # pandas holds whole numbers with nulls as floats. The type stays the same if no null is among these rows.
            table = table.set_column(position, column.name, table.column(position).cast(pa.float64(), safe=False))
    frame = table.to_pandas(split_blocks=True, ignore_metadata=True, use_threads=False)
    return Part(frame.set_index(numbers), rows, {ROWS: rows, **_counts(columns, rows)})


def _counts(columns: Sequence["_Column"], rows: int) -> dict[str, int]:
    import numpy as np

    if len(columns) == 1:
        return {NULLS: columns[0].nulls, ASKED: rows - columns[0].nulls}
    if not all(column.nulls for column in columns):
        return {ASKED: rows}
    return {ASKED: rows - int(np.logical_and.reduce([column.null() for column in columns]).sum())}


def _doubtful(rule: Any, columns: Sequence["_Column"]) -> "numpy.ndarray | None":
    """Return which rows may break a rule; None if there are none."""
    column = columns[0]
    match type(rule).__name__:
        case "ExpectColumnValuesToNotBeNull":
            return column.null() if column.nulls else None
        case "ExpectColumnValuesToBeBetween":
            return _outside(rule, column)
        case "ExpectColumnValuesToBeInSet":
            return _unknown(column, rule.value_set)
        case "ExpectColumnValuesToBeUnique" | "ExpectCompoundColumnsToBeUnique":
            return _repeated(columns)
    # The type of a column is known without its values.
    return None


def _outside(rule: Any, column: "_Column") -> "numpy.ndarray | None":
    import numpy as np

    def within(values: Any) -> Any:
        """Return which values are in the range, compared as pandas compares them; missing values are not."""
        inside = np.ones(np.shape(values), dtype=bool)
        if rule.min_value is not None:
            inside &= (values > rule.min_value) if rule.strict_min else (values >= rule.min_value)
        if rule.max_value is not None:
            inside &= (values < rule.max_value) if rule.strict_max else (values <= rule.max_value)
        return inside

    # As whole numbers and as floats, since pandas may hold either.
    if (ends := column.ends) and within(np.array(ends)).all() and within(np.array(ends, dtype=float)).all():
        return None
    outside: numpy.ndarray = ~within(column.values.to_numpy())
    if column.nulls:
        outside &= ~column.null()
    return outside if outside.any() else None


def _unknown(column: "_Column", words: Sequence[str]) -> "numpy.ndarray | None":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    known, parts = pa.array(words, pa.string()), []
    for chunk in column.values.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        strange = ~pc.is_in(coded.dictionary, known).to_numpy(zero_copy_only=False)
        if strange.any():
            codes = coded.indices.fill_null(0).to_numpy()
            parts.append(strange[codes] & chunk.is_valid().to_numpy(zero_copy_only=False))
        else:
            parts.append(np.zeros(len(chunk), dtype=bool))
    mask: numpy.ndarray = np.concatenate(parts) if parts else np.zeros(0, dtype=bool)
    return mask if mask.any() else None


def _repeated(columns: Sequence["_Column"]) -> "numpy.ndarray | None":
    """Return the rows whose hash occurs twice: all repeated rows, and rarely one that is not repeated."""
    import numpy as np

    hashes = np.zeros(len(columns[0].values), dtype=np.uint64)
    for column in columns:
        hashes = mix_hashes(hashes, column.values)
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.isin(hashes, twice) if len(twice) else None


class _Column:
    """One column; its values and counts are read only when needed."""

    def __init__(self, data: Any, keep: "numpy.ndarray | None", name: str) -> None:
        self._data, self._keep, self.name = data, keep, name
        self._statistics = data.statistics(name) if hasattr(data, "statistics") else None

    @cached_property
    def values(self) -> "pyarrow.ChunkedArray":
        """All values; texts of a stored table as codes of a dictionary."""
        import pyarrow as pa

        stored = hasattr(self._data, "coded") and pa.types.is_string(self._data.schema.field(self.name).type)
        column = self._data.coded(self.name) if stored else self._data.column(self.name)
        return column if self._keep is None else column.filter(pa.array(self._keep))

    @cached_property
    def nulls(self) -> int:
        """How many values are missing, as pandas has it: null, or not a number."""
        if self._statistics is not None and self._keep is None:
            return int(self._statistics.nulls)
        return int(self.null().sum())

    @property
    def ends(self) -> tuple[Any, Any] | None:
        """A lower and an upper bound of the values, if they are known without reading them."""
        return (
            (self._statistics.least, self._statistics.greatest)
            if self._statistics and self._statistics.least is not None
            else None
        )

    def null(self) -> "numpy.ndarray":
        """Return which values are missing."""
        import pyarrow.compute as pc

        mask: numpy.ndarray = pc.is_null(self.values, nan_is_null=True).to_numpy()
        return mask
