"""Quick reading takes only what strict reading takes, and reads it alike; what both count is counted alike."""

import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from bentos.endpoint import parse_fast
from bentos.endpoint.batch import Batch, concat, nulls_and_unseen, of_rows
from bentos.endpoint.parse_fast import QuickReader
from bentos.endpoint.parse_strict import read_csv, read_json
from bentos.endpoint.problems import Problem
from pipeline.compiled.operations import Coded
from pipeline.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature("town", "text", required=False, categories=("Ames", "Nevada")),
        Feature("area", "number", required=True),
        Feature("rooms", "number", required=False),
        Feature("kind", "text", required=True),
        Feature("new", "boolean", required=False),
        Feature("sold", "timestamp", required=False),
    ),
    key=("id",),
    ignored=("price",),
    nulls=("NA", ""),
)
HOUSE = {"area": 120, "rooms": 4.5, "town": "Ames", "kind": "flat", "new": True, "sold": "2024-05-31T12:00:00Z"}
READER = QuickReader(SCHEMA, max_rows=1000)


def plain(batch):
    """A batch's columns as lists of plain values, None where null."""
    return {name: [row.get(name) for row in batch.rows] for name in sorted(batch.columns)}


def agree(body, quickly, strictly):
    """Whether the quick reader took a body; if so, the strict one takes it, too, and reads the same."""
    if quickly is None:
        return False
    assert isinstance(strictly, Batch), (body, strictly)
    assert (plain(quickly), quickly.size, quickly.keys) == (plain(strictly), strictly.size, strictly.keys)
    return True


def of_json(body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return agree(body, READER.json(body), read_json(body, SCHEMA, 1000))


def of_csv(text):
    body = text if isinstance(text, bytes) else text.encode()
    return agree(body, READER.csv(body), read_csv(body, SCHEMA, 1000))


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    monkeypatch.setattr(parse_fast, "MIN_ARROW_BYTES", 0)


@pytest.mark.parametrize(
    "record",
    [
        HOUSE,
        {**HOUSE, "town": None, "new": None, "sold": None, "rooms": None},
        {"area": 1, "kind": "x"},
        {**HOUSE, "id": "a1", "price": 10},
        {**HOUSE, "area": 2**70},
        {**HOUSE, "kind": "Ürümqi 🏠"},
    ],
)
def test_a_plainly_right_record_is_read_quickly_alone_and_with_others(record):
    assert of_json({"records": [record]})
    assert of_json({"records": [HOUSE, record, HOUSE]})


@pytest.mark.parametrize(
    "body",
    [
        b'{"records": [{"area": 1, "kind": "x", "area": 2}]}',
        b'{"records": [{"area": 1, "kind": "x"}], "records": []}',
        b'{"records": [{"area": NaN, "kind": "x"}]}',
        b'{"records": [{"area": 1e999, "kind": "x"}]}',
        b'{"records": [{"area": true, "kind": "x"}]}',
        b'{"records": [{"area": "1", "kind": "x"}]}',
        b'{"records": [{"area": null, "kind": "x"}]}',
        b'{"records": [{"kind": "x"}]}',
        b'{"records": [{"area": 1, "kind": 5}]}',
        b'{"records": [{"area": 1, "kind": "\\ud800"}]}',
        b'{"records": [{"area": 1, "kind": "x", "new": 1}]}',
        b'{"records": [{"area": 1, "kind": "x", "sold": "noon"}]}',
        b'{"records": [{"area": 1, "kind": "x", "aera": 1}]}',
        b'{"records": [{"area": 1, "kind": "x", "id": {"a": 1}}]}',
        b'{"records": [{"area": 1, "kind": "x", "id": [1]}]}',
        b'{"records": [], "more": 1}',
        b'{"records": []}',
        b'{"records": [1]}',
        b'[{"area": 1, "kind": "x"}]',
        b"\xff",
        b"",
    ],
)
def test_what_is_not_plainly_right_is_left_to_the_strict_reader(body):
    assert READER.json(body) is None
    assert isinstance(read_json(body, SCHEMA, 1000), Problem)


@pytest.mark.parametrize("value", [5, True, 1.5, [1], {"a": 1}])
def test_among_many_records_what_is_no_text_is_left_to_the_strict_reader(value):
    body = json.dumps({"records": [HOUSE, {**HOUSE, "kind": value}, HOUSE]}).encode()
    assert READER.json(body) is None
    assert isinstance(read_json(body, SCHEMA, 1000), Problem)


def test_records_may_have_their_names_in_any_order():
    backwards = dict(reversed(HOUSE.items()))
    assert of_json({"records": [backwards, backwards]})
    assert of_json({"records": [HOUSE, {**backwards, "area": 7}, HOUSE]})


def test_colons_in_texts_hide_no_name_that_is_there_twice():
    assert of_json({"records": [{**HOUSE, "kind": "a:b:c"}]})
    for twice in ('"area": 2, "kind": "x:y"', '"area": 2, "kind": "\\u003a"', '"area": 2, "kind": ":\\u003a"'):
        body = f'{{"records": [{{"area": 1, {twice}}}]}}'.encode()
        assert READER.json(body) is None
        assert isinstance(read_json(body, SCHEMA, 1000), Problem)


def test_a_whole_number_has_no_negative_zero_however_it_is_read():
    body = b'{"records": [{"area": -0, "kind": "x"}]}'
    for batch in (READER.json(body), read_json(body, SCHEMA, 1000)):
        assert np.copysign(1.0, batch.columns["area"][0]) == 1.0


def test_more_rows_than_the_limit_are_not_even_parsed():
    assert QuickReader(SCHEMA, 2).json(json.dumps({"records": [HOUSE] * 3}).encode()) is None
    text = "area,kind\n" + "1,x\n" * 3
    assert QuickReader(SCHEMA, 2).csv(text.encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "area,kind\n1,x\n2.5,y\n",
        "kind,id,area,town,rooms\nx,007,-1e3,NA,\nNA x,,2,,NA\n",
        "area,kind,new,sold\n1,x,true,2024-05-31\n2,y,FALSE,2024-05-31T12:00:00+02:00\n3,z,,NA\n",
        "area,kind\r\n1,x\r\n2,y\r\n",
        "\ufeffarea,kind\n1,x\n",
        "area,kind\n\n1,x\n\n2,y\n",
        "area,kind\n 1 ,x\n",
        "area,kind,town\n1,Ü,日本\n",
        "area,kind,price\n1,x,abc\n",
        "area,kind\n1,x",
    ],
)
def test_a_plainly_right_csv_is_read_quickly(text):
    assert of_csv(text)


@pytest.mark.parametrize(
    "text",
    [
        "area,kind\nnan,x\n",
        "area,kind\ninf,x\n",
        "area,kind\n0x10,x\n",
        "area,kind\n1_0,x\n",
        "area,kind\n,x\n",
        "area,kind\n1,\n",
        "area,kind\n1\n",
        "area,kind\n1,x,y\n",
        "area,kind,area\n1,x,2\n",
        "area,kind,aera\n1,x,2\n",
        "area\n1\n",
        "area,kind\n",
        "area,kind,new\n1,x,yes\n",
        "area,kind,sold\n1,x,noon\n",
        "area,kind\n1,x\0\n",
        b"area,kind\n1,\xe9\n",
        "",
        "\n",
    ],
)
def test_a_csv_that_is_not_plainly_right_is_left_to_the_strict_reader(text):
    assert not of_csv(text)
    body = text if isinstance(text, bytes) else text.encode()
    assert isinstance(read_csv(body, SCHEMA, 1000), Problem)


WORDS = st.sampled_from(
    [
        "1",
        "-2.5",
        "1e5",
        "+3",
        ".5",
        "5.",
        " 1",
        "1 ",
        "NA",
        "",
        "nan",
        "inf",
        "1e999",
        "true",
        "False",
        "x",
        "a b",
        "2024-05-31",
        "2024-05-31T12:00:00Z",
        "Ames",
        "日本",
        "0x1",
        "1_0",
        "\t2",
        "-0",
        "1,5",
        '"1"',
        '"a',
        "a\r",
        "''",
    ]
)
NAMES = st.sampled_from(["area", "rooms", "town", "kind", "new", "sold", "id", "price", "area ", "Area", ""])


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=7), st.lists(st.lists(WORDS, min_size=1, max_size=7), max_size=4))
def test_no_csv_is_taken_quickly_that_is_refused_or_read_otherwise_strictly(header, rows):
    of_csv("\n".join(",".join(words) for words in [header, *rows]) + "\n")
    whole = [[*row, *["1"] * len(header)][: len(header)] for row in rows]
    of_csv("\n".join(",".join(words) for words in [["area", "kind", *header], *[["1", "x", *row] for row in whole]]))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["2024-05-31", "2024-05-31T12:00:00Z", "NA", "", {"a": 1}, [1], {}]),
)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=8), max_size=4), st.booleans())
def test_no_json_is_taken_quickly_that_is_refused_or_read_otherwise_strictly(records, whole):
    held = [{**HOUSE, **record} for record in records] if whole else records
    of_json(json.dumps({"records": held}).encode("utf-8", "surrogatepass"))


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_no_damaged_body_is_taken_quickly_that_is_refused_strictly(data):
    body = bytearray(json.dumps({"records": [HOUSE, HOUSE]}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = ord(data.draw(st.sampled_from(string.printable)))
    of_json(bytes(body))


def test_nulls_and_unseen_categories_are_counted_alike_in_every_form_of_a_column():
    categories = {"town": frozenset({"Ames", "Nevada"})}
    rows = [
        {"town": "Ames", "area": 1.0},
        {"town": None, "area": None},
        {"town": "Rome", "area": 2.0},
        {"town": "Rome"},
    ]
    features = (Feature("town", "text", False), Feature("area", "number", False))
    coded = Coded(["Rome", None, "Ames"], np.array([2, 1, 0, 0]))
    arrays = Batch({"town": coded, "area": np.array([1.0, np.nan, 2.0, np.nan])}, 4)
    for batch in (of_rows(rows, features), arrays, concat([arrays.part(0, 3), arrays.part(3, 4)])):
        assert nulls_and_unseen(batch, categories) == ({"town": 1, "area": 2}, {"town": 2})
    assert nulls_and_unseen(of_rows(rows[1:2], features), categories) == ({"town": 1, "area": 1}, {})
    assert nulls_and_unseen(of_rows(rows[2:3], features), categories) == ({}, {"town": 1})
