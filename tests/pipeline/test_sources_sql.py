import os
import sqlite3
import threading
import time
import traceback
import uuid
from datetime import date, datetime

import pytest
import sqlalchemy as sa

from pipeline import digest
from pipeline.errors import DataError, SourceError, SpecError
from pipeline.snapshot import ingest
from pipeline.sources import Csv, DuckDb, Sql, origin, read, retry

POSTGRES = os.environ.get("EVERGREEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
SECRET = "s3cret/p@ss word"


@pytest.fixture(scope="module")
def server():
    engine = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 2})
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL answers at {POSTGRES}: {str(error.orig).splitlines()[0]}")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(server, monkeypatch):
    """A schema of its own, and its URL, with a password, in SHOP_DATABASE_URL."""
    name = f"evergreen_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    url = sa.make_url(POSTGRES).update_query_dict(
        {"options": f"-csearch_path={name} -ctimezone=America/Chicago", "application_name": name}
    )
    monkeypatch.setenv("SHOP_DATABASE_URL", url.set(password=SECRET).render_as_string(hide_password=False))

    def run(*statements):
        with server.begin() as connection:
            connection.execute(sa.text(f"SET search_path TO {name}"))
            for statement in statements:
                connection.execute(sa.text(statement))

    run.name = name
    yield run
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "BACKOFF", (0.01, 0.02))


def asked(query, **options):
    return Sql(url_env="SHOP_DATABASE_URL", query=query, **options)


TYPES = """
    CREATE TABLE sales (id bigint, small smallint, price numeric(12, 2), ratio double precision, exact numeric,
        street text, code char(3), garden boolean, sold timestamptz, listed timestamp, day date, ref uuid)
"""
ROWS = """
    INSERT INTO sales VALUES
    (2, 1, 10.50, 0.1, 9007199254740993, 'Köln', 'ab', true, '2024-07-01 10:00+02', '2024-07-01 10:00:00.000001',
     '2024-07-01', '00000000-0000-0000-0000-000000000001'),
    (1, NULL, 3.00, 'NaN', 1, '', NULL, NULL, NULL, NULL, NULL, NULL)
"""


def test_postgresql_types_are_numbers_texts_booleans_and_timestamps_in_utc(postgres):
    postgres(TYPES, ROWS)
    table = read(asked("select * from sales order by id"))
    assert table.to_pydict() == {
        "id": [1, 2],
        "small": [None, 1],
        "price": [3.0, 10.5],
        "ratio": [None, 0.1],
        "exact": [1.0, 9007199254740992.0],
        "street": [None, "Köln"],
        "code": [None, "ab "],
        "garden": [None, True],
        "sold": [None, datetime(2024, 7, 1, 8)],
        "listed": [None, datetime(2024, 7, 1, 10, 0, 0, 1)],
        "day": [None, datetime(2024, 7, 1)],
        "ref": [None, "00000000-0000-0000-0000-000000000001"],
    }


def test_a_query_has_the_digest_of_the_same_table_as_csv(postgres, tmp_path):
    postgres("CREATE TABLE t AS SELECT i AS id, i * 0.5 AS half, 'x ' || i AS name FROM generate_series(1, 40000) AS i")
    lines = [f"{i},{i * 0.5},x {i}" for i in range(1, 40001)]
    (tmp_path / "x.csv").write_text("\n".join(["id,half,name", *lines]) + "\n")
    source = asked("select * from t order by id")
    snapshot = ingest(source, tmp_path)
    assert snapshot.digest == digest.of_table(read(Csv(str(tmp_path / "x.csv"))))
    assert (snapshot.rows, snapshot.origin) == (40000, "SHOP_DATABASE_URL: select * from t order by id")


def test_parameters_are_values_or_functions_that_are_called_when_the_query_is_asked(postgres):
    postgres("CREATE TABLE t (id int, day date)", "INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-02-01')")
    query = "select id from t where day <= :run_date order by id"
    assert read(asked(query, parameters={"run_date": date(2024, 1, 31)}))["id"].to_pylist() == [1]
    assert read(asked(query, parameters={"run_date": date.today}))["id"].to_pylist() == [1, 2]


@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize(
    ("expression", "held"), [("ARRAY[1]", "list"), ("'a'::bytea", "bytes"), ("'1 day'::interval", "timedelta")]
)
def test_what_no_column_can_hold_is_refused_by_name(expression, held):
    with pytest.raises(DataError, match=f"SHOP_DATABASE_URL: column 'odd' holds {held}; .*: cast it in the query"):
        read(asked(f"select {expression} as odd order by 1"))


def test_a_query_without_rows_is_refused(postgres):
    postgres("CREATE TABLE t (id int)")
    with pytest.raises(DataError, match="no rows"):
        read(asked("select id from t order by id"))


@pytest.mark.usefixtures("postgres")
def test_a_query_that_takes_too_long_is_broken_off():
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"the query was not answered within 0\.3 s, after 0 rows; give a longer"):
        read(asked("select pg_sleep(30)::text as slow order by 1", timeout=0.3))
    assert time.monotonic() - started < 20


def test_the_query_goes_on_in_the_database_no_longer_than_its_time(postgres, server):
    with pytest.raises(SourceError):
        read(asked("select pg_sleep(30)::text as slow order by 1", timeout=0.3))
    running = sa.text("select count(*) from pg_stat_activity where application_name = :name and state = 'active'")
    with server.connect() as connection:
        assert connection.execute(running, {"name": postgres.name}).scalar() == 0


def killed(server, name, stop):
    """Kill the backends of an application, until told to stop."""
    kill = sa.text("select pg_terminate_backend(pid) from pg_stat_activity where application_name = :name")
    with server.connect() as connection:
        while not stop.is_set():
            if connection.execute(kill, {"name": name}).rowcount:
                stop.hits += 1
                if stop.hits == stop.most:
                    return
            time.sleep(0.02)


@pytest.mark.parametrize("most", [1, 100])
def test_a_connection_killed_while_rows_are_read_is_made_anew_until_patience_ends(most, postgres, server, tmp_path):
    postgres("CREATE TABLE t AS SELECT i AS id, repeat('x', 300) AS name FROM generate_series(1, 200000) AS i")
    stop = threading.Event()
    stop.hits, stop.most = 0, most
    thread = threading.Thread(target=killed, args=(server, postgres.name, stop))
    thread.start()
    try:
        if most == 1:
            assert ingest(asked("select * from t order by id"), tmp_path).rows == 200_000
        else:
            with pytest.raises(SourceError, match=r"the database connection failed after \d+ rows"):
                ingest(asked("select * from t order by id"), tmp_path)
            assert list(tmp_path.iterdir()) == []
    finally:
        stop.set()
        thread.join()
    assert stop.hits >= 1


def everything(error):
    """All that a traceback shows of an error, and the causes and contexts of it."""
    return "".join(traceback.format_exception(error)) + repr([error, error.__cause__, error.__context__])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret%2Fp%40ss%20word@127.0.0.1:1/x",
        "postgresql+psycopg://me:s3cret%2Fp%40ss%20word@no.such.host.invalid/x",
        "postgresql+nothing://me:s3cret%2Fp%40ss%20word@host/x",
        "nothing://me:s3cret%2Fp%40ss%20word@host/x",
        "me:s3cret%2Fp%40ss%20word@host/x",
        "postgresql+psycopg://me:s3cret%2Fp%40ss%20word@127.0.0.1:5432/no_such_database_here",
        "postgresql+psycopg://me:s3cret%2Fp%40ss%20word@127.0.0.1:port/x",
        "sqlite:////no/such/folder/s3cret%2Fp%40ss%20word.sqlite?password=s3cret%2Fp%40ss%20word",
    ],
)
def test_no_error_shows_a_password(url, monkeypatch, caplog):
    monkeypatch.setenv("SHOP_DATABASE_URL", url)
    caplog.set_level("DEBUG")
    with pytest.raises(SourceError) as broken:
        read(asked("select 1 as a order by 1"))
    for text in (everything(broken.value), caplog.text):
        assert "s3cret" not in text
        assert "p%40ss" not in text


@pytest.mark.usefixtures("postgres")
def test_no_error_of_a_query_shows_a_password():
    for query in ("select * from nowhere order by 1", "select 1/0 as a order by 1", "selec order by"):
        with pytest.raises(SourceError, match="SHOP_DATABASE_URL: the database refuses the query: ") as broken:
            read(asked(query))
        assert "s3cret" not in everything(broken.value)
        # Nothing that a second try would heal.
        assert broken.value.__cause__ is None


def test_a_spec_names_the_environment_and_never_holds_a_url(monkeypatch):
    with pytest.raises(SpecError, match="put the URL into one, such as SHOP_DATABASE_URL") as refused:
        Sql(url_env="postgresql://me:geheim@host/x", query="select 1 order by 1")
    assert "geheim" not in str(refused.value)
    monkeypatch.delenv("SHOP_DATABASE_URL", raising=False)
    with pytest.raises(SourceError, match="SHOP_DATABASE_URL is not set in the environment; set it"):
        read(asked("select 1 as a order by 1"))


@pytest.mark.parametrize(
    "query", ["select 1", "select 'order by 1'", "select 1 -- order by 1", "select 1 /* order\nby 1 */"]
)
def test_a_query_without_an_order_of_its_rows_is_refused(query):
    for kind in (asked, lambda query: DuckDb(query=query)):
        with pytest.raises(SpecError, match=r"has no ORDER BY, .*; order by the key"):
            kind(query)


def test_the_digest_of_a_spec_does_not_depend_on_the_environment(monkeypatch):
    source = asked("select 1 as a order by 1", parameters={"run_date": date.today})
    before = digest.of_value(source)
    monkeypatch.setenv("SHOP_DATABASE_URL", "postgresql://me:geheim@host/x")
    assert digest.of_value(source) == before


def test_sqlite_is_read_and_its_dates_are_texts_unless_declared(tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
        connection.execute("create table t (id integer, price real, day text, mixed)")
        connection.executemany("insert into t values (?, ?, ?, ?)", [(2, None, "2024-01-01", 1), (1, 2.5, None, 2.5)])
    monkeypatch.setenv("SHOP_DATABASE_URL", f"sqlite:///{tmp_path}/shop.sqlite")
    query = "select * from t where id >= :least order by id"
    assert read(asked(query, parameters={"least": 1})).to_pydict() == {
        "id": [1, 2],
        "price": [2.5, None],
        "day": [None, "2024-01-01"],
        "mixed": [2.5, 1.0],
    }
    table = read(asked(query, parameters={"least": 2}, types={"day": "timestamp"}))
    assert table["day"].to_pylist() == [datetime(2024, 1, 1)]


def test_a_sqlite_query_that_takes_too_long_is_broken_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_DATABASE_URL", f"sqlite:///{tmp_path}/shop.sqlite")
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) as i from n order by 1"
    with pytest.raises(SourceError, match=r"not answered within 0\.2 s"):
        read(asked(endless, timeout=0.2))


def test_duckdb_reads_local_files_by_a_query(tmp_path):
    (tmp_path / "a.csv").write_text("id,price,day\n2,1.5,2024-01-01\n1,,2024-01-02\n")
    query = f"select *, price::decimal(9, 2) as exact from '{tmp_path}/*.csv' where id >= $least order by id"
    assert read(DuckDb(query=query, parameters={"least": 1})).to_pydict() == {
        "id": [1, 2],
        "price": [None, 1.5],
        "day": [datetime(2024, 1, 2), datetime(2024, 1, 1)],
        "exact": [None, 1.5],
    }
    assert origin(DuckDb(query=query)).startswith("DuckDB: select *")


def test_a_duckdb_file_is_opened_to_be_read_only(tmp_path):
    import duckdb

    path = str(tmp_path / "x.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(
            "create table t as select range id, timestamptz '2024-07-01 10:00:00+02:00' as at from range(3)"
        )
    table = read(DuckDb(query="select * from t order by id desc", database=path))
    assert table.to_pydict() == {"id": [2, 1, 0], "at": [datetime(2024, 7, 1, 8)] * 3}
    with pytest.raises(SourceError, match="read-only"):
        read(DuckDb(query="insert into t select 4, now() order by 1", database=path))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("select * from 'none.parquet' order by 1", "DuckDB: select .*none.parquet"),
        ("selec order by 1", "syntax error|Parser Error"),
    ],
)
def test_a_duckdb_query_that_cannot_be_answered_is_a_source_error(query, sentence):
    with pytest.raises(SourceError, match=sentence):
        read(DuckDb(query=query))


def test_a_duckdb_query_that_takes_too_long_is_broken_off():
    endless = "select count(*) as n from range(100000000) a, range(100000) b where a.range + b.range = 7 order by 1"
    with pytest.raises(SourceError, match=r"not answered within 0\.2 s"):
        read(DuckDb(query=endless, timeout=0.2))
