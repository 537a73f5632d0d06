"""What a model takes: features with types, nulls and categories, and the one way rows become the frame it is given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, did_you_mean
from pipeline.sources import LogicalType, logical_type

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from pipeline.snapshot import SnapshotFile
    from pipeline.spec import ModelSpec

MAX_CATEGORIES = 200
"""A text feature with more distinct values than this is free text or an identifier; its values are not listed."""


@dataclass(frozen=True)
class Feature:
    """One feature of a model.

    Attributes:
        name: its column.
        type: its logical type.
        required: whether a request must have a value for it.
        categories: the values in training; None for other types than text, or if there are more than MAX_CATEGORIES.
    """

    name: str
    type: LogicalType
    required: bool
    categories: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the feature as the model card shows it; without `categories` if they are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Schema:
    """What a request to a model may contain.

    Attributes:
        features: in the model's order.
        key: columns that identify a row.
        ignored: other columns of the data, which are accepted and not used.
        nulls: texts that mean a null.
    """

    features: tuple[Feature, ...]
    key: tuple[str, ...]
    ignored: tuple[str, ...]
    nulls: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON values; `from_dict` takes them back."""
        return asdict(self) | {"features": [feature.to_dict() for feature in self.features]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Schema":
        """Return the schema that `to_dict` wrote."""
        features = (
            Feature(**{**feature, "categories": _tuple(feature.get("categories"))}) for feature in value["features"]
        )
        return cls(
            tuple(features),
            tuple(value["key"]),
            tuple(value["ignored"]),
            tuple(value["nulls"]),
        )


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def feature_names(spec: "ModelSpec", columns: Sequence[str]) -> tuple[str, ...]:
    """Return the spec's features; if it names none, every column that is not key, target, time or group."""
    outside = {*spec.key, spec.target, spec.time, spec.group}
    return spec.features or tuple(name for name in columns if name not in outside)


def check_columns(spec: "ModelSpec", table: "pyarrow.Table | SnapshotFile") -> None:
    """Raise DataError, naming the column, unless the spec can be trained on the table.

    The table needs every column that the spec names, no nulls in target, key and time, no infinities, and a target
    whose type and labels fit the task.
    """
    roles = {
        "target": (spec.target,),
        "key column": spec.key,
        "feature": feature_names(spec, table.column_names),
    }
    roles |= {
        "time column": (spec.time,) if spec.time else (),
        "group column": (spec.group,) if spec.group else (),
    }
    roles |= {"slice": spec.gate.slices}
    for role, columns in roles.items():
        for column in columns:
            if column not in table.column_names:
                article = "a" if role in {"feature", "key column", "slice"} else "the"
                hint = did_you_mean(column, table.column_names)
                raise DataError(
                    f"column {column!r} is {article} {role} of {spec.name} but the data has no such column{hint}",
                    code="data.missing_column",
                )
    for role, columns in {
        "target": (spec.target,),
        "key column": spec.key,
        "time column": roles["time column"],
    }.items():
        for column in columns:
            if missing := table.column(column).null_count:
                row = table.column(column).is_null().index(True).as_py() + 1
                raise DataError(
                    f"column {column!r}, the {role} of {spec.name}, is null in {missing} rows, the first is row {row}; "
                    "fill or remove them",
                    code="data.null_column",
                )
    for column in (spec.target, *feature_names(spec, table.column_names)):
        if (row := _first_infinity(table.column(column))) is not None:
            raise DataError(
                f"column {column!r} holds an infinity in row {row + 1}, which no request can send; replace it",
                code="data.infinity",
            )
    _check_target(spec, table)


def _first_infinity(column: "pyarrow.ChunkedArray") -> int | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type):
        return None
    row = pc.is_inf(column).index(True).as_py()
    return None if row < 0 else int(row)


def _check_target(spec: "ModelSpec", table: "pyarrow.Table | SnapshotFile") -> None:
    target_type = logical_type(table.schema.field(spec.target).type)
    column = table.column(spec.target)
    # For a regression, where every row may have its own value, 1,000 are enough to show examples.
    labels = (column[:1_000] if spec.task.kind == "regression" else column).unique().to_pylist()
    shown = ", ".join(repr(label) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
    if spec.target in spec.sensitive:
        shown = "values that are not shown"
    match spec.task.kind:
        case "regression" if target_type != "number":
            raise DataError(
                f"the task of {spec.name} is regression, but its target {spec.target!r} holds {target_type} such as "
                f"{shown}; use a column of numbers, or another task",
                code="data.target_type",
            )
        case "binary" if len(labels) != 2 or spec.task.positive not in labels:  # type: ignore[union-attr]
            positive = spec.task.positive  # type: ignore[union-attr]
            raise DataError(
                f"the target {spec.target!r} should hold {positive!r} and one other label, but holds {len(labels)}: "
                f"{shown}; fix the data, or the task",
                code="data.target_labels",
            )
        case "multiclass" if len(labels) < 3:
            raise DataError(
                f"the target {spec.target!r} should hold three labels or more, but holds {len(labels)}: {shown}; fix "
                "the data, or the task",
                code="data.target_labels",
            )


def describe(spec: "ModelSpec", table: "pyarrow.Table") -> Schema:
    """Return the schema of requests to a model that is trained on this table."""
    names = feature_names(spec, table.column_names)
    return Schema(
        features=tuple(_feature(spec, name, table.column(name)) for name in names),
        key=spec.key,
        ignored=tuple(name for name in table.column_names if name not in {*names, *spec.key}),
        nulls=spec.source.na_values,
    )


def _feature(spec: "ModelSpec", name: str, column: "pyarrow.ChunkedArray") -> Feature:
    kind = logical_type(column.type)
    if spec.required is not None:
        required = name in spec.required
    else:
        required = column.null_count == 0 and name not in spec.nullable
    categories = None
    if kind == "text":
        values = column.unique().drop_null()
        categories = tuple(sorted(values.to_pylist())) if len(values) <= MAX_CATEGORIES else None
    return Feature(name, kind, required, categories)


def to_frame(table: "pyarrow.Table", features: Sequence[Feature]) -> "pandas.DataFrame":
    """Return the frame that estimators take, the same in training and in serving.

    One column per feature, in order: numbers and booleans as float64 with NaN, text as pandas' `str` with NaN,
    timestamps as datetime64[us] with NaT. A column that the table lacks is all null. A null is never None, and a type
    never depends on the other rows, so a single row is predicted as it is in a batch.
    """
    import pandas as pd
    import pyarrow as pa

    arrow = {
        "number": pa.float64(),
        "boolean": pa.float64(),
        "timestamp": pa.timestamp("us"),
        "text": pa.string(),
    }
    columns = {}
    for feature in features:
        kind = arrow[feature.type]
        if feature.name in table.column_names:
            column = table.column(feature.name)
            if pa.types.is_boolean(column.type) and feature.type == "boolean":
                column = column.cast(pa.int8())
            column = column.cast(kind, safe=False)
        else:
            column = pa.chunked_array([pa.nulls(table.num_rows, kind)])
        columns[feature.name] = (
            pd.Series(column.to_pandas(), dtype="str")
            if feature.type == "text"
            else pd.Series(column.to_numpy(zero_copy_only=False))
        )
    return pd.DataFrame(columns)


def to_table(rows: Sequence[Mapping[str, Any]], features: Sequence[Feature]) -> "pyarrow.Table":
    """Return rows of plain values (numbers, texts, booleans, datetimes, None) as a table; missing ones become null."""
    return table_of({feature.name: [row.get(feature.name) for row in rows] for feature in features}, features)


def table_of(columns: Mapping[str, Sequence[Any]], features: Sequence[Feature]) -> "pyarrow.Table":
    """Return columns of plain values, one per feature, None where null, as a table."""
    import pyarrow as pa

    arrow = {
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us"),
        "text": pa.string(),
    }
    return pa.table({feature.name: pa.array(list(columns[feature.name]), arrow[feature.type]) for feature in features})
