"""Columns of a request or an Arrow table as inputs of a compiled model, with the conversions of `schema.to_frame`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.compiled.operations import Coded, Texts
from pipeline.compiled.plan import Array, Plan

if TYPE_CHECKING:
    import pyarrow


def columns_of(columns: "Mapping[str, Sequence[Any]] | pyarrow.Table", plan: Plan) -> tuple[Array, Sequence[Texts]]:
    """Return the numbers, shape (rows, numbers + times), NaN where null, and the texts by feature, None where null.

    Columns hold plain values, already checked against the schema, None where null; those of a table may be absent.
    Timestamps are datetimes in UTC without a zone, and become microseconds since 1970.
    """
    if not isinstance(columns, Mapping):
        return _from_arrow(columns, plan)
    texts = plan.pick_texts(columns)
    if not plan.numbers and not plan.times:
        return np.empty((len(next(iter(columns.values()))), 0)), texts
    # float64 makes None NaN and True 1.
    if not plan.times and len(columns[plan.numbers[0]]) == 1:
        return np.array([[value for (value,) in plan.pick_numbers(columns)]], dtype=np.float64), texts
    # The last bits of sums over a row depend on its memory layout, so all matrices have the same one.
    times = [_microseconds(np.array(columns[name], dtype="datetime64[us]")) for name in plan.times]
    numbers = np.array([*(columns[name] for name in plan.numbers), *times], dtype=np.float64)
    return np.ascontiguousarray(numbers.T), texts


def _from_arrow(table: "pyarrow.Table", plan: Plan) -> tuple[Array, list[Texts]]:
    import pyarrow as pa

    numbers = np.full((table.num_rows, len(plan.numbers + plan.times)), np.nan)
    present = set(table.column_names)
    for place, name in enumerate(plan.numbers):
        if name in present:
            column = table.column(name)
            if pa.types.is_boolean(column.type):
                column = column.cast(pa.int8())
            numbers[:, place] = column.cast(pa.float64(), safe=False).to_numpy()
    for place, name in enumerate(plan.times, start=len(plan.numbers)):
        if name in present:
            column = table.column(name).cast(pa.timestamp("us"), safe=False)
            numbers[:, place] = _microseconds(column.to_numpy())
    nulls = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    return numbers, [_coded(table.column(name) if name in present else nulls) for name in plan.texts]


def _microseconds(moments: Array) -> Array:
    return np.where(np.isnat(moments), np.nan, moments.view(np.int64))


def _coded(column: "pyarrow.ChunkedArray") -> Texts:
    import pyarrow as pa

    coded = column.cast(pa.string()).combine_chunks().dictionary_encode("encode")
    return Coded(coded.dictionary.to_pylist(), coded.indices.to_numpy())
