import lzma
import re
import tomllib
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from project import CHECKOUT

from pipeline.errors import DataError, SourceError, SpecError
from pipeline.snapshot import ingest
from pipeline.sources import Csv, Function, Parquet, at, origin, read

ROWS = {
    "id": [1, 2, 3],
    "area": [50.5, None, 120.25],
    "street": ["Pave", None, 'the "old" mill,\nupstairs'],
    "garden": [True, False, None],
    "sold": [datetime(2024, 1, 1, 10), None, datetime(2024, 3, 1)],
}


@pytest.fixture
def reads(tmp_path):
    """Write bytes to a CSV file and read it."""

    def read_bytes(content, **options):
        path = tmp_path / "x.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(Csv(str(path), **options))

    return read_bytes


def test_the_same_table_is_equal_as_csv_and_as_parquet(tmp_path):
    table = pa.table(ROWS)
    pyarrow.csv.write_csv(table, tmp_path / "x.csv")
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    from_csv, from_parquet = read(Csv(str(tmp_path / "x.csv"))), read(Parquet(str(tmp_path / "x.parquet")))
    assert from_csv.equals(from_parquet)
    assert from_csv.to_pydict() == ROWS
    assert list(map(str, from_csv.schema.types)) == ["int64", "double", "string", "bool", "timestamp[us]"]


def test_the_files_of_a_glob_are_read_in_the_order_of_their_names(tmp_path):
    for name, first in {"b": 3, "a": 1, "c": 5}.items():
        (tmp_path / f"{name}.csv").write_text(f"id,x\n{first},t\n{first + 1},t\n")
    assert read(Csv(str(tmp_path / "*.csv")))["id"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_the_files_of_a_glob_may_order_their_columns_differently(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,t\n")
    (tmp_path / "b.csv").write_text("x,id\nu,2\n")
    assert read(Csv(str(tmp_path / "*.csv"))).to_pydict() == {"id": [1, 2], "x": ["t", "u"]}


@pytest.mark.parametrize("name", ["none.csv", "none-*.csv", ""])
def test_what_is_not_there_is_a_source_error(name, tmp_path):
    with pytest.raises(SourceError, match=r"there is no file|no file matches|is not a file; name a file"):
        read(Csv(str(tmp_path / name)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"x\.csv: the file is empty"),
        (b"\n", r"x\.csv: .*[Ee]mpty"),
        (b"\xef\xbb\xbf", r"x\.csv: .*[Ee]mpty"),
        (b"a,b\n", r"x\.csv: no rows; the header is there and nothing below it"),
        (b"a,b\n1,2\n3\n5,6\n", r"x\.csv, line 3: 1 field where the header has 2; the file is ragged or was cut short"),
        (b"a,b\n1,2\n3,4,5\n", r"x\.csv, line 3: 3 fields where the header has 2"),
        (b'a,b\n1,"two\nlines"\n3,4,5\n', r"x\.csv, line 4: 3 fields"),
        (b'a,b\r\n1,"two\r\nlines"\r\n3\r\n', r"x\.csv, line 4: 1 field"),
        (b"a,b,c\n1,2,3\n4,5", r"x\.csv, line 3: 2 fields where the header has 3"),
        (b"a,a\n1,2\n", r"x\.csv: two columns are named 'a'; rename one"),
        (b",a\n1,2\n", r"x\.csv: column 1 has no name; if it is an index, write the table without it"),
        (b"a, \n1,2\n", r"x\.csv: column 2 has no name"),
        (
            b"a,b\n1,x\n2,\xe9t\xe9\n",
            r"x\.csv, line 3: byte 0xE9 is not UTF-8; it reads 'été' in cp1252, .*: give that as",
        ),
        (b"a,\xe9\n1,x\n", r"x\.csv, line 1: byte 0xE9 is not UTF-8"),
        (b"a,b\n1,x\n2,y\0\n", r"x\.csv, line 3: a NUL byte; the file is damaged or is not CSV, or is UTF-16"),
        (b'a,b\n1,x\n"2,y\n3,z\n', r"x\.csv, line 3: .*is a quote left open\?"),
        (b"a;b\n1;2\n", r"x\.csv: one column 'a;b' with separator ','; by ';' there are 2: give separator=';'"),
        (b"a;b\n1,5;2\n", r"x\.csv: one column 'a;b' with separator ','; by ';' there are 2: give separator=';'"),
        ("a,b\n1,x\n".encode("utf-16"), r"x\.csv, line 1: byte 0xFF .* begins as utf-16 does: give encoding='utf-16'"),
        ("a,b\n1,x\n".encode("utf-16-le"), r"x\.csv, line 1: a NUL byte; .*or is UTF-16"),
    ],
)
def test_a_file_that_is_no_whole_table_is_refused_naming_file_and_line_or_column(content, sentence, reads):
    with pytest.raises(DataError, match=sentence):
        reads(content)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "UTF-16-LE", "iso8859-15"])
def test_a_file_in_another_encoding_is_read_as_it_was_meant(encoding, reads):
    table = reads("año;straße\n1;Köln\n2;\n".encode(encoding), separator=";", encoding=encoding)
    assert table.to_pydict() == {"año": [1, 2], "straße": ["Köln", None]}


def test_a_byte_that_the_encoding_does_not_have_is_named_with_its_line(reads):
    with pytest.raises(DataError, match=r"x\.csv, line 2: byte 0x81 is not cp1252; it reads .* in "):
        reads(b"a,b\n1,x\x81y\n", encoding="cp1252")


def test_numbers_with_a_decimal_comma_are_numbers_and_texts_keep_theirs(reads):
    table = reads("a;b;c\n1,5;x,y;1\n-2,25;1.5;2\n", separator=";", decimal=",")
    assert table.to_pydict() == {"a": [1.5, -2.25], "b": ["x,y", "1.5"], "c": [1, 2]}


@pytest.mark.parametrize("separator", [";", "\t", "|", " "])
def test_a_quoted_separator_is_a_part_of_the_text(separator, reads):
    table = reads(f'a{separator}b\n1{separator}"x{separator}y"\n', separator=separator)
    assert table.to_pydict() == {"a": [1], "b": [f"x{separator}y"]}


def test_one_column_whose_name_has_a_semicolon_is_one_column(reads):
    assert reads("net; gross\n1\n2\n").to_pydict() == {"net; gross": [1, 2]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decimal": ","}, r"separator and decimal are both ','; is the separator ';'\?"),
        ({"separator": "::"}, "separator is '::'; give one character"),
        ({"separator": "x"}, "separator is 'x'; give one character that is not a letter"),
        ({"decimal": ""}, "decimal is ''; give one character"),
        ({"encoding": "utf8000"}, "'utf8000' is not an encoding that Python knows; give one such as 'cp1252'"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused_when_it_is_written(options, sentence):
    with pytest.raises(SpecError, match=sentence):
        Csv("x.csv", **options)


def compressed(content, ending):
    buffer = pa.BufferOutputStream()
    if ending == "xz":
        return lzma.compress(content)
    with pa.CompressedOutputStream(buffer, {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}[ending]) as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2", "xz"])
def test_a_compressed_file_is_read_by_its_ending_and_refused_when_it_was_cut_short(ending, tmp_path):
    rows = "".join(f"{number},{number * 7919 % 1000}\n" for number in range(5_000))
    content = compressed(f"a,b\n{rows}".encode(), ending)
    path = tmp_path / f"x.csv.{ending}"
    path.write_bytes(content)
    assert read(Csv(str(path)))["b"][4_999].as_py() == 4_999 * 7919 % 1000
    for damaged in (content[: len(content) // 2], content[:-3], b"a,b\n1,2\n"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"x\.csv\.{ending}: not a whole {ending} file; was the copy cut short\?"):
            read(Csv(str(path)))


@pytest.mark.parametrize("content", [b'a,b\n1,x\n2,"y\n3,z\n', b'a,b\n1,x\n2,"y'])
def test_a_quote_left_open_in_the_last_column_never_swallows_the_rows_below(content, reads):
    with pytest.raises(DataError, match=r"x\.csv, line 3: .*is a quote left open\?"):
        reads(content)


def test_a_quote_in_the_middle_of_a_text_is_a_character_like_others(reads):
    assert reads('a,b\n1,5" pipe\n2,z\n')["b"].to_pylist() == ['5" pipe', "z"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(share, tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table(ROWS), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"x\.parquet: not a whole Parquet file; was the copy cut short\?"):
        read(Parquet(str(path)))


def test_a_damaged_parquet_file_never_raises_anything_but_a_data_error(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table(ROWS), path)
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x80]) + content[position + 1 :])
        with suppress(DataError):
            read(Parquet(str(path)))


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path):
    (tmp_path / "sales[1].csv").write_text("id,x\n1,t\n")
    assert read(Csv(str(tmp_path / "sales[1].csv")))["id"].to_pylist() == [1]


def test_a_text_longer_than_a_block_of_the_reader_is_read(reads):
    assert reads(f"a,b\n1,{'x' * 3_000_000}\n2,y\n").num_rows == 2


def test_null_words_are_nulls_in_parquet_files_and_frames_too(tmp_path):
    frame = pd.DataFrame({"a": ["NA", "x", ""], "b": [1, 2, 3]})
    frame.to_parquet(tmp_path / "x.parquet")
    for source in (
        Parquet(str(tmp_path / "x.parquet"), na_values=("NA", "")),
        Function(lambda: frame, na_values=("NA", "")),
    ):
        assert read(source)["a"].to_pylist() == [None, "x", None]
    assert read(Function(lambda: frame, na_values=()))["a"].to_pylist() == ["NA", "x", ""]


def test_a_type_declared_for_a_column_that_is_not_there_is_refused(reads):
    with pytest.raises(DataError, match=r"types has 'zip', which is not a column; did you mean 'Zip'\?"):
        reads("Zip,b\n00501,1\n", types={"zip": "text"})


def test_a_file_of_a_glob_with_other_columns_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,area\n1,2\n")
    (tmp_path / "b.csv").write_text("id,Area\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv: other columns than .*a\.csv: it lacks 'area' and adds 'Area'"):
        read(Csv(str(tmp_path / "*.csv")))


def test_nothing_is_left_behind_when_ingest_fails(tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    folder = tmp_path / "snapshots"
    folder.mkdir()
    with pytest.raises(DataError):
        ingest(Csv(str(tmp_path / "bad.csv")), folder)
    with pytest.raises(SourceError):
        ingest(Csv(str(tmp_path / "none.csv")), folder)
    assert list(folder.iterdir()) == []


def test_a_column_of_numbers_in_one_file_and_texts_in_the_next_is_text_with_its_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("zip,n\n007,007\n")
    (tmp_path / "b.csv").write_text("zip,n\nA1,8\n")
    assert read(Csv(str(tmp_path / "*.csv"))).to_pydict() == {"zip": ["007", "A1"], "n": [7, 8]}


def test_a_column_of_parquet_files_that_disagree_about_its_type_is_refused(tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="column 'a' holds number and text in different files"):
        read(Parquet(str(tmp_path / "*.parquet")))


def test_a_type_is_told_by_all_rows_not_by_the_first_ones(reads):
    table = reads("a,b\n" + "1,2\n" * 300_000 + "1.5,007\nx,3\n")
    assert (table["a"][-1].as_py(), table["b"][-2].as_py()) == ("x", 7)
    assert str(table["b"].type) == "int64"


def test_a_byte_order_mark_and_windows_line_ends_do_not_count(reads):
    assert reads(b"\xef\xbb\xbfa,b\r\n1,x\r\n").to_pydict() == {"a": [1], "b": ["x"]}


def test_null_words_are_nulls_quoted_too_and_other_words_are_not(reads):
    table = reads('a,b\nNA,x\n"NA","NA"\n3,\n4,null\n', na_values=("NA", ""))
    assert table.to_pydict() == {"a": [None, None, 3, 4], "b": ["x", None, None, "null"]}


def test_a_column_of_nothing_but_nulls_is_a_number(reads):
    table = reads("a,b\n,1\n,2\n")
    assert table["a"].to_pylist() == [None, None]
    assert str(table["a"].type) == "double"


def test_a_declared_type_wins_over_what_the_words_look_like(reads):
    types = {"zip": "text", "garden": "boolean", "sold": "timestamp", "n": "number"}
    table = reads("zip,garden,sold,n\n00501,1,2024-01-01,9007199254740993\n10001,0,,2\n", types=types)
    assert table.to_pydict() == {
        "zip": ["00501", "10001"],
        "garden": [True, False],
        "sold": [datetime(2024, 1, 1), None],
        "n": [9007199254740993, 2],
    }


@pytest.mark.parametrize(
    ("types", "word"),
    [({"a": "number"}, "x"), ({"a": "boolean"}, "maybe"), ({"a": "timestamp"}, "soon"), ({"a": "timestamp"}, "7")],
)
def test_a_value_that_is_not_of_the_declared_type_is_refused_naming_file_and_column(types, word, reads):
    with pytest.raises(DataError, match=rf"x\.csv: column 'a' is declared {types['a']}"):
        reads(f"a,b\n{word},1\n", types=types)


def test_times_of_day_stay_the_words_they_are(reads):
    assert reads("a,b\n10:00,1\n23:59:59,2\n")["a"].to_pylist() == ["10:00", "23:59:59"]


@pytest.mark.parametrize(
    ("words", "instants"),
    [
        (["2024-01-01", "2024-06-30"], [datetime(2024, 1, 1), datetime(2024, 6, 30)]),
        (["2024-01-01 10:00", "2024-06-30"], [datetime(2024, 1, 1, 10), datetime(2024, 6, 30)]),
        (["2024-01-01T10:00:00.000001", ""], [datetime(2024, 1, 1, 10, 0, 0, 1), None]),
        (["2024-01-01T10:00:00+02:00", "2024-01-01T10:00:00Z"], [datetime(2024, 1, 1, 8), datetime(2024, 1, 1, 10)]),
    ],
)
@pytest.mark.parametrize("types", [{}, {"a": "timestamp"}])
def test_dates_and_times_are_timestamps_in_utc(words, instants, types, reads):
    assert reads("a,b\n" + "".join(f"{word},1\n" for word in words), types=types)["a"].to_pylist() == instants


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("1.0 2.0", [1, 2]),
        ("1.5 2.0", [1.5, 2.0]),
        ("1e3 nan", [1000, None]),
        ("9007199254740993 -1", [9007199254740993, -1]),
        ("true False", [True, False]),
        ("0 1", [0, 1]),
    ],
)
def test_a_number_is_whole_when_all_its_values_are_and_keeps_its_digits(words, values, reads):
    found = reads("a\n" + words.replace(" ", "\n") + "\n")["a"].to_pylist()
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([1.0, float("nan")]), [1, None]),
        (pa.array([1, 2], pa.int8()), [1, 2]),
        (pa.array([2**60, 1], pa.uint64()), [float(2**60), 1.0]),
        (pa.array([Decimal("1.50"), Decimal("2.00")]), [1.5, 2.0]),
        (pa.array([date(2024, 1, 1), None]), [datetime(2024, 1, 1), None]),
        (pa.array([datetime(2024, 1, 1, 10, tzinfo=UTC)]), [datetime(2024, 1, 1, 10)]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
        (pa.array(["x"], pa.large_string()), ["x"]),
    ],
)
def test_a_parquet_column_becomes_the_one_type_its_logical_type_is_stored_in(cells, expected, tmp_path):
    path = str(tmp_path / "x.parquet")
    pyarrow.parquet.write_table(pa.table({"a": cells}), path)
    table = read(Parquet(path))
    assert table["a"].to_pylist() == expected
    assert str(table["a"].type) in {"int64", "double", "string", "timestamp[us]"}


@pytest.mark.parametrize("cells", [pa.array([[1]]), pa.array([b"x"]), pa.array([time(10)])])
def test_a_column_of_lists_bytes_or_times_is_refused_by_name(cells, tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": cells}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: column 'a' holds .*numbers, texts, booleans or timestamps"):
        read(Parquet(str(tmp_path / "x.parquet")))


def a_frame():
    return pd.DataFrame(ROWS)


def test_a_function_is_read_as_the_frame_it_returns_and_named_by_its_import_path():
    assert read(Function(a_frame)).to_pydict() == ROWS
    assert origin(Function(a_frame)) == "test_sources.a_frame()"


@pytest.mark.parametrize(
    ("function", "error", "sentence"),
    [
        (lambda: 1 / 0, SourceError, "raised ZeroDivisionError: division by zero"),
        (lambda: None, SourceError, "returned a NoneType; return a pandas DataFrame"),
        (lambda: a_frame().head(0), DataError, "no rows"),
        (lambda: pd.DataFrame({"a": [1, "x"]}), DataError, "mixes types in a column"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), DataError, "two columns are named 'a'; rename one"),
    ],
)
def test_a_function_that_returns_no_usable_frame_is_refused(function, error, sentence):
    with pytest.raises(error, match=sentence):
        read(Function(function))


def test_the_same_source_elsewhere_is_read_by_the_ending_of_its_name():
    source = Function(a_frame, na_values=("NA",), types={"zip": "text"})
    assert at(source, "x.csv") == Csv("x.csv", na_values=("NA",), types={"zip": "text"})
    assert at(source, "X.PARQUET") == Parquet("X.PARQUET", na_values=("NA",), types={"zip": "text"})
    assert at(source, "x.parquet") == Parquet("x.parquet", na_values=("NA",), types={"zip": "text"})
    ours = Csv("a.csv", separator=";", decimal=",", encoding="cp1252")
    assert at(ours, "b.csv.gz") == Csv("b.csv.gz", separator=";", decimal=",", encoding="cp1252")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "data.empty_file"),
        ("a\n", "data.no_rows"),
        ("a,a\n1,2\n", "data.duplicate_column"),
        ("a,\n1,2\n", "data.unnamed_column"),
        ("a,b\n1,2\n3\n", "data.ragged_rows"),
        ("a;b\n1;2\n", "data.wrong_separator"),
        (b"a,b\n1,\x81\n", "data.wrong_encoding"),
        (b"a,b\n1,\0\n", "data.nul_byte"),
        ('a,b\n1,"open\n', "data.open_quote"),
    ],
)
def test_what_is_wrong_with_a_file_has_a_code(content, code, reads):
    with pytest.raises(DataError) as error:
        reads(content)
    assert error.value.code == code


def test_every_code_in_the_catalogue_of_sources_is_given():
    catalogue = tomllib.loads((CHECKOUT / "docs/errors/sources.toml").read_text())
    files = [file for room in ("sources", "init") for file in (CHECKOUT / "pipeline" / room).glob("*.py")]
    codes = {code for file in files for code in re.findall(r'code="([a-z_.]+)"', file.read_text())}
    assert codes >= set(catalogue)
