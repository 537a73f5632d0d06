"""Tables that wait in Arrow files become one CSV file, Parquet file or database table: whole or not at all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import SourceError
from pipeline.files import parquet_writer, whole_file
from pipeline.sources import conform

if TYPE_CHECKING:
    import pyarrow
    import sqlalchemy

_ROWS = 2**16


@dataclass(frozen=True)
class Output:
    """Where scores go: a file at `where`, or the table `where` of the database whose URL `url_env` holds."""

    kind: Literal["csv", "parquet", "sql"]
    where: str
    url_env: str = ""


def deliver(parts: Sequence[Path], output: Output) -> None:
    """Write the tables of Arrow files, one after the other, to an output, in bounded memory.

    A file is replaced at the very end, and a database table filled in one transaction, in which all rows that were
    there are removed. Raises SourceError, without the URL's password, where a database refuses.
    """
    if output.kind == "sql":
        _to_database(parts, output)
        return
    with whole_file(Path(output.where)) as part:
        (_to_csv if output.kind == "csv" else _to_parquet)(parts, part)


def joint_schema(parts: Sequence[Path]) -> "pyarrow.Schema":
    """Return the schema that the tables of all files have room in: a key may turn out to be a float late."""
    import pyarrow as pa

    schemas = []
    for part in parts:
        with pa.OSFile(str(part)) as file:
            schemas.append(pa.ipc.open_file(file).schema)
    return pa.unify_schemas(schemas, promote_options="permissive")


def tables(parts: Sequence[Path], schema: "pyarrow.Schema") -> Iterator["pyarrow.Table"]:
    """Yield the tables of all files in one schema."""
    import pyarrow as pa

    for part in parts:
        with pa.OSFile(str(part)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield conform(pa.Table.from_batches([reader.get_batch(number)]), schema)


def _to_csv(parts: Sequence[Path], path: Path) -> None:
    import pyarrow.csv

    schema = joint_schema(parts)
    with pyarrow.csv.CSVWriter(path, schema) as writer:
        for table in tables(parts, schema):
            writer.write_table(table)


def _to_parquet(parts: Sequence[Path], path: Path) -> None:
    schema = joint_schema(parts)
    with parquet_writer(path, schema, "snappy") as writer:
        for table in tables(parts, schema):
            writer.write_table(table)


def _to_database(parts: Sequence[Path], output: Output) -> None:
    import sqlalchemy as sa

    from pipeline.sources.retry import redact
    from pipeline.sources.sql import database_url

    url, secrets = database_url(output.url_env)
    schema = joint_schema(parts)
    refusal = ""
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            table = _table(connection, output, schema)
            for rows in tables(parts, schema):
                _insert(connection, table, rows)
    except SourceError:
        raise
    except Exception as error:
        # Of a driver's own errors, only what COPY raises comes as it is.
        if not isinstance(error, sa.exc.SQLAlchemyError | ImportError | OSError) and not hasattr(error, "sqlstate"):
            raise
        refusal = redact(str(getattr(error, "orig", None) or error).splitlines()[0], secrets)
    # Outside of the handler: a traceback of what was caught could show the URL.
    if refusal:
        raise SourceError(
            f"{output.url_env}: the database refuses table {output.where!r}: {refusal}", code="source.write_refused"
        )


def _table(connection: "sqlalchemy.Connection", output: Output, schema: "pyarrow.Schema") -> "sqlalchemy.Table":
    """Return the table, empty; SourceError when one is there that has other columns."""
    import pyarrow as pa
    import sqlalchemy as sa

    kinds = {pa.int64(): sa.BigInteger, pa.bool_(): sa.Boolean, pa.timestamp("us"): sa.DateTime, pa.string(): sa.Text}
    columns: list[Any] = [sa.Column(field.name, kinds.get(field.type, sa.Double)) for field in schema]
    name, _, last = output.where.rpartition(".")
    table = sa.Table(last, sa.MetaData(), *columns, schema=name or None)
    inspector = sa.inspect(connection)
    if not inspector.has_table(last, schema=name or None):
        table.create(connection)
        return table
    held = [column["name"] for column in inspector.get_columns(last, schema=name or None)]
    if sorted(held) != sorted(schema.names):
        raise SourceError(
            f"{output.url_env}: table {output.where!r} has the columns {', '.join(held)}, and scores have "
            f"{', '.join(schema.names)}; name another table, or drop it",
            code="source.other_columns",
        )
    connection.execute(table.delete())
    return table


def _insert(connection: "sqlalchemy.Connection", table: "sqlalchemy.Table", rows: "pyarrow.Table") -> None:
    import pyarrow as pa
    import pyarrow.csv

    if connection.dialect.name == "postgresql" and connection.dialect.driver == "psycopg":
        # COPY takes a million rows in the time in which INSERT takes fifty thousand.
        quote = connection.dialect.identifier_preparer
        names = ", ".join(quote.quote(name) for name in rows.column_names)
        cursor: Any = connection.connection.cursor()
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(include_header=False))
        with cursor, cursor.copy(f"COPY {quote.format_table(table)} ({names}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(sink.getvalue().to_pybytes())
        return
    for start in range(0, rows.num_rows, _ROWS):
        connection.execute(table.insert(), rows.slice(start, _ROWS).to_pylist())
