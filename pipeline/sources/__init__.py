"""Where raw rows come from, and how they become one table of numbers, texts, booleans and timestamps.

| module | is about |
|---|---|
| `kinds` | what a spec says: `Csv`, `Parquet`, `Function` |
| `columns` | the one type each column is stored in, learned from all rows |
| `stream` | a source's rows, table after table, in bounded memory |
| `csv`, `parquet`, `function` | how each kind is read |
| `places` | the files that a path names |
"""

from pipeline.sources.columns import conform, logical_type
from pipeline.sources.kinds import Csv, Function, LogicalType, Parquet, Source, at, origin
from pipeline.sources.stream import Write, read, stream

__all__ = [
    "Csv",
    "Function",
    "LogicalType",
    "Parquet",
    "Source",
    "Write",
    "at",
    "conform",
    "logical_type",
    "origin",
    "read",
    "stream",
]
