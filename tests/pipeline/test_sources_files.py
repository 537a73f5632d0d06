import json
import os
import time
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples

from pipeline import digest
from pipeline.errors import DataError, SourceError, SpecError
from pipeline.ingest_cache import IngestCache
from pipeline.snapshot import ingest, load_snapshot
from pipeline.sources import Csv, Function, JsonLines, Parquet, at, read


@pytest.fixture
def reads(tmp_path):
    """Write lines to a JSON Lines file and read it."""

    def read_lines(*lines, **options):
        path = tmp_path / "x.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read(JsonLines(str(path), **options))

    return read_lines


def test_a_name_that_a_line_lacks_is_null_and_columns_stand_in_the_order_in_which_they_came(reads, monkeypatch):
    lines = ['{"b": 1, "a": "x"}', '{"a": "y"}', '{"c": true, "b": 2.5}']
    expected = {"b": [1, None, 2.5], "a": ["x", "y", None], "c": [None, None, True]}
    for block in (16, 2**24):
        monkeypatch.setattr("pipeline.sources.jsonl.BLOCK", block)
        table = reads(*lines)
        assert table.to_pydict() == expected
        assert table.column_names == ["b", "a", "c"]


@pytest.mark.parametrize("block", [16, 2**24])
@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (['"2024-01-01"', "null", '"2024-01-02 10:00:00"'], [datetime(2024, 1, 1), None, datetime(2024, 1, 2, 10)]),
        (['"2024-01-01T10:00:00.000001"', '"2024-01-02"'], [datetime(2024, 1, 1, 10, 0, 0, 1), datetime(2024, 1, 2)]),
        (['"2024-01-01T10:00:00.5+02:00"'], [datetime(2024, 1, 1, 8, 0, 0, 500_000)]),
        (['"2024-01-01"', '"soon"'], ["2024-01-01", "soon"]),
        (['"007"', '"1"'], ["007", "1"]),
        (["1.0", "2"], [1, 2]),
        (["9007199254740993", "1"], [9007199254740993, 1]),
        (['""', '"x"'], [None, "x"]),
    ],
)
def test_a_json_value_is_what_its_column_holds(cells, expected, block, reads, monkeypatch):
    monkeypatch.setattr("pipeline.sources.jsonl.BLOCK", block)
    assert reads(*(f'{{"a": {cell}}}' for cell in cells))["a"].to_pylist() == expected


def test_a_declared_text_is_the_words_that_were_written(reads):
    assert reads('{"a": "2024-01-01", "b": 501}', types={"a": "text", "b": "text"}).to_pydict() == {
        "a": ["2024-01-01"],
        "b": ["501"],
    }


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (['{"a": 1}', '{"a": "x"}'], "line 2: column 'a' holds a text where it held a number"),
        (['{"a": 1}', '{"a": 2'], "line 2: not JSON: .*was it cut short"),
        (["[1]"], "line 1: not a JSON object; each line is one row"),
        (['{"a": 1, "a": 2}'], "line 1: not JSON: 'a' twice"),
        (['{"a": [1]}'], "column 'a' holds list"),
        (["{}"], "lines whose objects have no names; each line is one row"),
    ],
)
@pytest.mark.parametrize("block", [4, 2**24])
def test_a_line_that_is_no_row_is_refused_by_its_number(lines, sentence, block, reads, monkeypatch):
    monkeypatch.setattr("pipeline.sources.jsonl.BLOCK", block)
    with pytest.raises(DataError, match=sentence):
        reads(*lines)


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).map(lambda word: f"~{word}")
CELLS = {
    "whole": (pa.int64(), st.integers(-(2**53) + 1, 2**53 - 1)),
    "decimal": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0)),
    "text": (pa.string(), WORDS),
    "boolean": (pa.bool_(), st.booleans()),
    "instant": (pa.timestamp("us"), st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 12))
    columns = {"end": pa.array(range(rows))}
    for name in draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, unique=True)):
        kind, cells = CELLS[name]
        columns[name] = pa.array(draw(st.lists(st.none() | cells, min_size=rows, max_size=rows)), kind)
    return pa.table(columns)


@given(table=tables(), block=st.sampled_from([32, 100, 2**24]))
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_table_has_one_digest_as_csv_parquet_and_json_lines_read_in_blocks_of_any_size(
    table, block, tmp_path, monkeypatch
):
    for module in ("csv", "jsonl"):
        monkeypatch.setattr(f"pipeline.sources.{module}.BLOCK", block)
    path = str(tmp_path / "x")
    pyarrow.parquet.write_table(table, f"{path}.parquet")
    pyarrow.csv.write_csv(table, f"{path}.csv")
    with open(f"{path}.jsonl", "w", encoding="utf-8") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, default=lambda instant: instant.isoformat(sep=" ")) + "\n")
    # A column of one boolean in words, or of nothing but nulls, is told by no words.
    found = [read(Csv(f"{path}.csv")), read(Parquet(f"{path}.parquet")), read(JsonLines(f"{path}.jsonl"))]
    assert len({digest.of_table(one) for one in found}) == 1
    assert found[0].to_pydict() == table.to_pydict()


def partitioned(folder, days):
    for number, day in enumerate(days):
        (folder / f"day={day}").mkdir(parents=True)
        (folder / f"day={day}" / "part.csv").write_text(f"id\n{number}\n")
    return str(folder / "day={day}" / "*.csv")


def test_what_a_path_names_becomes_a_column(tmp_path):
    table = read(Csv(partitioned(tmp_path, ["2024-01-02", "2024-01-01"])))
    assert table.to_pydict() == {"id": [1, 0], "day": [datetime(2024, 1, 1), datetime(2024, 1, 2)]}
    (tmp_path / "sales-north-7.csv").write_text("id\n1\n")
    (tmp_path / "sales-south-8.csv").write_text("id\n2\n")
    table = read(Csv(str(tmp_path / "sales-{region}-{shop}.csv")))
    assert table.to_pydict() == {"id": [1, 2], "region": ["north", "south"], "shop": [7, 8]}


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (1, [2]),
        (2, [1, 2]),
        (9, [0, 1, 2]),
        (timedelta(days=1), [2]),
        (timedelta(days=28), [2]),
        (timedelta(29), [1, 2]),
    ],
)
def test_the_last_partitions_are_kept(last, kept, tmp_path):
    pattern = partitioned(tmp_path, ["2023-12-31", "2024-02-01", "2024-02-29"])
    assert read(Csv(pattern, last=last))["id"].to_pylist() == kept


def test_numbered_partitions_are_ordered_by_their_numbers(tmp_path):
    for number in (2, 9, 10):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x.csv").write_text(f"id\n{number}\n")
    assert read(Csv(str(tmp_path / "{week}" / "x.csv"), last=2))["id"].to_pylist() == [10, 9]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": "x/*.csv", "last": 3}, r"last keeps the newest partitions, but the path has none; write \{day\}"),
        ({"path": "x/{day}.csv", "last": 0}, "last is 0; give a number of partitions, or a timedelta, of more than 0"),
        (
            {"path": "https://me:geheim@host/x.csv"},
            r"a password; put it into the environment and write \$\{NAME\}",
        ),
    ],
)
def test_a_path_that_cannot_be_is_refused_when_it_is_written(options, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        Csv(**options)
    assert "geheim" not in str(refused.value)


def test_partitions_that_are_no_days_have_no_last_days(tmp_path):
    sentence = "is not a day such as 2024-01-31; keep a number of partitions instead: last=30"
    with pytest.raises(DataError, match=sentence):
        read(Csv(partitioned(tmp_path, ["north"]), last=timedelta(3)))


def test_the_kind_of_another_place_is_told_by_the_ending_of_its_name_even_when_it_is_compressed():
    assert at(Csv("x.csv"), "y.jsonl.gz") == JsonLines("y.jsonl.gz")
    assert at(Csv("{day}.csv", last=3), "y.csv.zst") == Csv("y.csv.zst")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "snapshots").mkdir()
    return tmp_path / "snapshots"


def settle(*paths):
    """Let files be as old as most files are."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - 10**10,) * 2)


@pytest.fixture
def reading(monkeypatch):
    """Count how often a source is read."""
    from pipeline import sources

    count, stream = [], sources.stream
    monkeypatch.setattr(sources, "stream", lambda *given: count.append(1) or stream(*given))
    return count


def test_a_file_that_did_not_change_is_not_read_again_and_one_that_did_is(tmp_path, folder, reading):
    path = tmp_path / "x.csv"
    path.write_text("id,a\n1,2\n")
    settle(path)
    first = ingest(Csv(str(path)), folder)
    assert ingest(Csv(str(path)), folder) == first
    assert len(reading) == 1
    path.write_text("id,a\n1,3\n")
    settle(path)
    assert ingest(Csv(str(path)), folder).digest != first.digest
    assert len(reading) == 2


def test_whether_files_changed_since_they_were_frozen_is_told_without_reading_them(tmp_path, folder, reading):
    path = tmp_path / "x.csv"
    path.write_text("id,a\n1,2\n")
    settle(path)
    source = Csv(str(path))
    assert IngestCache(source, folder).changed() is None
    ingest(source, folder)
    assert IngestCache(source, folder).changed() is False
    path.write_text("id,a\n1,2\n2,3\n")
    assert IngestCache(source, folder).changed() is None
    settle(path)
    assert IngestCache(source, folder).changed() is True
    assert len(reading) == 1


def test_a_file_written_just_now_is_read_each_time(tmp_path, folder, reading):
    path = tmp_path / "x.csv"
    path.write_text("id,a\n1,2\n")
    assert ingest(Csv(str(path)), folder) == ingest(Csv(str(path)), folder)
    assert len(reading) == 2


@pytest.mark.parametrize(
    "what", ["types", "file added", "file gone", "snapshot flipped", "snapshot gone", "record cut"]
)
def test_what_is_not_surely_the_same_is_read_again(what, tmp_path, folder, reading):
    paths = [tmp_path / f"{name}.csv" for name in "ab"]
    for path in paths:
        path.write_text("id,a\n1,2\n")
    settle(*paths)
    source = Csv(str(tmp_path / "*.csv"))
    first = ingest(source, folder)
    match what:
        case "types":
            source = Csv(str(tmp_path / "*.csv"), types={"a": "text"})
        case "file added":
            (tmp_path / "c.csv").write_text("id,a\n1,2\n")
            settle(tmp_path / "c.csv")
        case "file gone":
            paths[1].unlink()
        case "snapshot flipped":
            content = first.path.read_bytes()
            first.path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        case "snapshot gone":
            first.path.unlink()
        case "record cut":
            [record] = (folder / "seen").iterdir()
            record.write_text(record.read_text()[:20])
    again = ingest(source, folder)
    assert len(reading) == 2
    assert load_snapshot(again.path) == again
    assert digest.of_parquet(again.path) == again.digest == digest.of_table(read(source))


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_what_was_read(tmp_path, folder, monkeypatch):
    from pipeline import sources

    path = tmp_path / "x.csv"
    path.write_text("id,a\n1,2\n")
    settle(path)
    stream = sources.stream

    def meddled(*given):
        schema = stream(*given)
        path.write_text("id,a\n1,9\n")
        settle(path)
        return schema

    with monkeypatch.context() as patch:
        patch.setattr(sources, "stream", meddled)
        first = ingest(Csv(str(path)), folder)
    assert ingest(Csv(str(path)), folder).digest != first.digest


def test_a_function_is_called_each_time(folder, reading):
    import pandas as pd

    source = Function(lambda: pd.DataFrame({"a": [1]}))
    assert ingest(source, folder) == ingest(source, folder)
    assert len(reading) == 2


def test_a_source_that_is_gone_is_an_error_although_it_was_seen(tmp_path, folder):
    path = tmp_path / "x.csv"
    path.write_text("id,a\n1,2\n")
    settle(path)
    ingest(Csv(str(path)), folder)
    path.unlink()
    with pytest.raises(SourceError, match="there is no file"):
        ingest(Csv(str(path)), folder)
