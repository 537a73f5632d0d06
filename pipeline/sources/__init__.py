"""Sources of raw rows, and how they become one table of numbers, texts, booleans and timestamps.

| module | is about |
|---|---|
| `source_types` | what a spec can name: `Csv`, `Parquet`, `JsonLines`, `Sql`, `DuckDb`, `Function` |
| `stream` | a source's rows, table after table, in bounded memory |
| `columns` | the one type in which each column is stored, inferred from all rows |
| `csv`, `parquet`, `jsonl`, `sql`, `function` | how each type of source is read |
| `locations` | the files that a path names: globs, partitions, compression, and whether they changed |
| `remote` | remote files: HTTP and object storage |
| `retry` | retries with backoff, and errors without secrets |
| `parallel` | work in threads, with results in order |
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
