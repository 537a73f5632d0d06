"""Where raw rows come from, and how they become one table of numbers, texts, booleans and timestamps.

| module | is about |
|---|---|
| `kinds` | what a spec says: `Csv`, `Parquet`, `JsonLines`, `Sql`, `DuckDb`, `Function` |
| `stream` | a source's rows, table after table, in bounded memory |
| `columns` | the one type each column is stored in, learned from all rows |
| `csv`, `parquet`, `jsonl`, `sql`, `function` | how each kind is read |
| `places` | the files that a path names: globs, partitions, compression, and whether they changed |
| `remote` | files at addresses: HTTP and object storage |
| `patience` | what may heal by itself is tried again; no secret is told |
| `parallel` | work done in threads, in order |
"""

from pipeline.sources.columns import conform, logical_type
from pipeline.sources.source_types import (
    Csv,
    DuckDb,
    Files,
    Function,
    JsonLines,
    LogicalType,
    Parquet,
    Source,
    Sql,
    at,
    origin,
)
from pipeline.sources.stream import Write, names, read, stream

__all__ = [
    "Csv",
    "DuckDb",
    "Files",
    "Function",
    "JsonLines",
    "LogicalType",
    "Parquet",
    "Source",
    "Sql",
    "Write",
    "at",
    "conform",
    "logical_type",
    "names",
    "origin",
    "read",
    "stream",
]
