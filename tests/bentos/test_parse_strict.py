"""What the wire takes, refuses and writes; no server."""

import csv
import io
import json
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.endpoint.batch import Batch, nulls_and_unseen, of_rows
from bentos.endpoint.formats import media_type, unanswered, write_csv, write_json
from bentos.endpoint.parse_strict import read_csv, read_json
from bentos.endpoint.problems import MAX_LISTED, Problem
from pipeline.predict import Answers
from pipeline.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature("area", "number", required=True),
        Feature("rooms", "number", required=False),
        Feature("town", "text", required=False, categories=("Ames", "Ürümqi")),
        Feature("new", "boolean", required=False),
        Feature("sold", "timestamp", required=False),
    ),
    key=("id", "part"),
    ignored=("price",),
    nulls=("NA", ""),
)
NOON = datetime(2024, 5, 31, 12)


def from_json(body: str | bytes, most_rows: int = 5) -> Batch | Problem:
    return read_json(body if isinstance(body, bytes) else body.encode(), SCHEMA, most_rows)


def from_csv(body: str | bytes, most_rows: int = 5, schema: Schema = SCHEMA) -> Batch | Problem:
    return read_csv(body if isinstance(body, bytes) else body.encode(), schema, most_rows)


def first_error(answer: Batch | Problem) -> tuple[int | None, str | None, str]:
    assert isinstance(answer, Problem)
    assert answer.status == 400
    error = answer.errors[0]
    assert error.problem in answer.detail
    return error.row, error.field, error.problem


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ('{"area": 1}', {"area": 1.0}),
        ('{"area": -1.5e3, "rooms": null}', {"area": -1500.0}),
        ('{"area": 12345678901234567890}', {"area": 12345678901234567000.0}),
        ('{"area": 1, "town": "Ürümqi", "new": false}', {"area": 1.0, "town": "Ürümqi", "new": False}),
        ('{"area": 1, "town": "NA"}', {"area": 1.0, "town": "NA"}),
        ('{"area": 1, "town": "\\ud83c\\udfe0"}', {"area": 1.0, "town": "🏠"}),
        ('{"area": 1, "sold": "2024-05-31T12:00:00"}', {"area": 1.0, "sold": NOON}),
        ('{"area": 1, "sold": "2024-05-31T14:00:00+02:00"}', {"area": 1.0, "sold": NOON}),
        ('{"area": 1, "sold": "2024-05-31 12:00Z"}', {"area": 1.0, "sold": NOON}),
        ('{"area": 1, "sold": "2024-05-31"}', {"area": 1.0, "sold": datetime(2024, 5, 31)}),
        ('{"area": 1, "id": "a", "part": 7, "price": null}', {"area": 1.0}),
    ],
)
def test_a_good_json_record_becomes_a_row_of_features_alone(record, row):
    assert from_json(f'{{"records": [{record}]}}') == of_rows([row], SCHEMA.features)


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        ("{}", "area", "missing"),
        ('{"area": null}', "area", "null"),
        ('{"area": "1"}', "area", '"1" is not a number'),
        ('{"area": true}', "area", "true is not a number"),
        ('{"area": [1]}', "area", "a list is not a number"),
        ('{"area": NaN}', "area", "NaN is not a number"),
        ('{"area": -Infinity}', "area", "-Infinity is not a number"),
        ('{"area": 1e999}', "area", "infinite"),
        ('{"area": ' + "9" * 5000 + "}", "area", "infinite"),
        ('{"area": 1, "town": 5}', "town", "5 is not a string"),
        ('{"area": 1, "town": "\\ud800"}', "town", "surrogate"),
        ('{"area": 1, "new": "true"}', "new", "neither true nor false"),
        ('{"area": 1, "new": 1}', "new", "neither true nor false"),
        ('{"area": 1, "sold": 20240531}', "sold", "20240531 is not a string"),
        ('{"area": 1, "sold": "yesterday"}', "sold", "not an ISO 8601 time"),
        ('{"area": 1, "sold": "2024-02-30"}', "sold", "not an ISO 8601 time"),
        ('{"area": 1, "sold": "2024-05-31x12:00"}', "sold", "not an ISO 8601 time"),
        ('{"area": 1, "sold": "0001-01-01T00:00+14:00"}', "sold", "not an ISO 8601 time"),
        ('{"area": 1, "Town": "Ames"}', "Town", "did you mean 'town'?"),
        ('{"area": 1, "zzz": null}', "zzz", "not a column"),
        ('{"area": 1, "id": {}}', "id", "not a single JSON value"),
        ('{"area": 1, "price": NaN}', "price", "NaN"),
        ('{"area": 1, "area": 2}', "area", "twice"),
        ("7", None, "7 is not an object"),
    ],
)
def test_a_bad_json_record_is_refused_naming_row_and_field(record, field, said):
    row, name, problem = first_error(from_json(f'{{"records": [{{"area": 1}}, {record}]}}'))
    assert (row, name) == (1, field)
    assert said in problem


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "not JSON"),
        ('{"records": [{"area": 1}]', "not JSON"),
        ('{"records": [{"area": 1}]} x', "not JSON"),
        ('{"records": [{"area": 01}]}', "not JSON"),
        ('{"records": [{"area": "\n"}]}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"records": ' * 100_000, "nested too deeply"),
        (b'{"records": [{"area": 1, "town": "\xff"}]}', "0xFF"),
        ('{"records": []}'.encode("utf-16"), "not UTF-8"),
        ("[]", "The body is []"),
        ("NaN", "The body is NaN"),
        ("{}", '"records" is null'),
        ('{"records": []}', '"records" is []'),
        ('{"records": {"area": 1}}', '"records" is an object'),
        ('{"records": [{"area": 1}], "options": 1}', '"options"'),
        ('{"records": [{"area": 1}], "records": []}', "twice"),
    ],
)
def test_a_body_that_is_no_list_of_records_is_refused(body, said):
    answer = from_json(body)
    assert isinstance(answer, Problem)
    assert answer.status == 400
    assert said in answer.detail


def test_every_error_counts_and_the_first_hundred_are_listed():
    answer = from_json(json.dumps({"records": [{"area": "x", "zzz": 1}] * 60}), most_rows=60)
    assert isinstance(answer, Problem)
    assert len(answer.errors) == MAX_LISTED == 100
    assert "120 errors were found; the first 100 are listed" in answer.detail
    assert "Row 0 is the first" in answer.detail


def test_rows_over_the_limit_are_413_even_where_none_is_an_object():
    answer = from_json(json.dumps({"records": [1] * 6}), most_rows=5)
    assert isinstance(answer, Problem)
    assert answer.status == 413


def test_an_endless_name_is_shortened_and_costs_no_search():
    row, name, _ = first_error(from_json(json.dumps({"records": [{"area": 1, "a" * 1_000_000: 1}]})))
    assert row == 0
    assert name == "a" * 100 + "..."


def test_a_problem_is_json_whatever_the_request_held():
    answer = from_json('{"records": [{"area": "\\ud800\\u0000\\"", "\\udfff": 1}]}')
    assert isinstance(answer, Problem)
    said = json.loads(answer.body().decode())
    assert said["type"] == "about:blank"
    assert (said["status"], said["title"]) == (400, "Bad Request")
    assert [(error["row"], error["field"]) for error in said["errors"]] == [(0, "area"), (0, "\udfff")]


@pytest.mark.parametrize("read", [from_json, from_csv])
def test_more_rows_than_the_limit_are_413(read):
    body = json.dumps({"records": [{"area": 1}] * 6}) if read is from_json else "area\n" + "1\n" * 6
    answer = read(body, most_rows=5)
    assert isinstance(answer, Problem)
    assert answer.status == 413
    assert isinstance(read(body, most_rows=6), Batch)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("area\n1\n2.5", [{"area": 1.0}, {"area": 2.5}]),
        ("town,area\r\nAmes,1\r\n", [{"town": "Ames", "area": 1.0}]),
        ("\ufeffarea,rooms\n-.5e1,\n", [{"area": -5.0}]),
        ('area,town\n1,"a ""b"",\nc"\n', [{"area": 1.0, "town": 'a "b",\nc'}]),
        ("area,town,rooms\n1,NA,NA\n1,,\n", [{"area": 1.0}, {"area": 1.0}]),
        (
            "area,new\n1,true\n2,FALSE\n3,True\n4,\n",
            [*({"area": a, "new": a != 2} for a in (1.0, 2.0, 3.0)), {"area": 4.0}],
        ),
        ("area,sold\n1,2024-05-31T14:00:00+02:00\n", [{"area": 1.0, "sold": NOON}]),
        ("area,price,id\n1,NA,x\n", [{"area": 1.0}]),
        ("\narea\n\n1\n\n", [{"area": 1.0}]),
    ],
)
def test_a_good_csv_becomes_rows_of_features_alone(body, rows):
    answer = from_csv(body)
    assert isinstance(answer, Batch)
    assert answer.rows == rows


def test_the_empty_text_is_a_text_where_the_source_does_not_call_it_null():
    schema = Schema(SCHEMA.features, SCHEMA.key, SCHEMA.ignored, nulls=("NA",))
    answer = from_csv("area,town,rooms\n1,,\n", schema=schema)
    assert answer == of_rows([{"area": 1.0, "town": ""}], SCHEMA.features)


@pytest.mark.parametrize(
    ("body", "row", "field", "said"),
    [
        ("area\n1\nx\n", 1, "area", '"x" is not a number'),
        *(
            (f"area\n1\n{word}\n", 1, "area", "is not a number")
            for word in ("1_000", "nan", "inf", "0x1F", "1 1", "1e", "\u0661", "--1", "1.2.3", ".")
        ),
        ("area\n1\n1e999\n", 1, "area", "infinite"),
        ("area,new\n1,true\n1,yes\n", 1, "new", "neither true nor false"),
        ("area,new\n1,true\n1,1\n", 1, "new", "neither true nor false"),
        ("area,sold\n1,\n1,noon\n", 1, "sold", "not an ISO 8601 time"),
        ("area,rooms\n1,1\nNA,1\n", 1, "area", "required"),
        ("area,rooms\n1,1\n,1\n", 1, "area", "required"),
        ("rooms\n1\n", None, "area", "missing"),
        ("area,Town\n1,x\n", None, "Town", "did you mean 'town'?"),
        ("area,area\n1,1\n", None, "area", "2 times"),
        ("area,\n1,1\n", None, "", "not a column"),
        ("area,town\n1,x\n1\n", 1, None, "line 3 has 1 field, but the header has 2"),
        ("area,town\n1,x\n1,x,y\n", 1, None, "line 3 has 3 fields, but the header has 2"),
        ('area,town\n1,"a\nb"\n1,"x\n', 1, None, "line 4: unexpected end of data"),
        ('area,town\n1,"x"y\n', 0, None, "line 2"),
        ('"area\n1\n', None, None, "line 1"),
        ("area,town\n1,x\n1,a\0b\n", 1, "town", "line 3 has a NUL byte"),
        (b"area,town\n1,x\n1,\xe9\n", 1, "town", "line 3 has byte 0xE9, which is not UTF-8"),
        (b"area,id\n1,x\n1,\xe9\n", 1, "id", "not UTF-8"),
        (b"area,\xe9\n1,x\n", None, None, "header"),
        ("area\n1\n".encode("utf-16"), None, None, "header"),
    ],
)
def test_a_bad_csv_is_refused_naming_row_and_field(body, row, field, said):
    found = first_error(from_csv(body))
    assert found[:2] == (row, field)
    assert said in found[2]


@pytest.mark.parametrize(("body", "said"), [("", "empty"), ("\n", "empty"), ("area\n", "no row below the header")])
def test_a_csv_without_rows_is_refused(body, said):
    answer = from_csv(body)
    assert isinstance(answer, Problem)
    assert answer.status == 400
    assert said in answer.detail


def test_csv_answers_echo_the_keys_as_sent_and_numbers_round_trip():
    batch = from_csv('part,area,id\n007,1,"a,""b"\nNA,2,\n')
    assert isinstance(batch, Batch)
    body = write_csv(Answers(np.array([0.1 + 0.2, -1e300])), batch.keys).decode()
    assert body == 'id,part,prediction\r\n"a,""b",007,0.30000000000000004\r\n,NA,-1e+300\r\n'


@given(st.lists(st.tuples(st.text('a",\r\n ', max_size=3), st.sampled_from(["", "yes", "no, never"])), min_size=1))
def test_csv_answers_are_quoted_where_and_only_where_csv_needs_quotes(rows):
    keys, labels = [list(column) for column in zip(*rows, strict=True)]
    for sent, header in (({"id": keys}, ["id", "prediction"]), ({}, ["prediction"])):
        body = write_csv(Answers(np.array(labels, dtype=object), ("", "yes", "no, never")), sent).decode()
        expected = io.StringIO(newline="")
        csv.writer(expected).writerows([header, *zip(*sent.values(), labels, strict=True)])
        assert body == expected.getvalue()


def test_csv_answers_of_a_classifier_have_a_column_of_probabilities_per_label():
    answers = Answers(np.array([True, False]), (False, True), np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert write_csv(answers, {}).decode().splitlines() == [
        "prediction,probability_false,probability_true",
        "true,0.25,0.75",
        "false,1.0,0.0",
    ]


@pytest.mark.parametrize(
    ("labels", "predictions", "names"),
    [
        (("no", "yes"), np.array(["yes", "no"], dtype=object), ["no", "yes"]),
        ((0, 1), np.array([1, 0]), ["0", "1"]),
        ((False, True), np.array([True, False]), ["false", "true"]),
    ],
)
def test_json_answers_keep_the_type_of_labels_and_name_probabilities_by_them(labels, predictions, names):
    answers = Answers(predictions, labels, np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert json.loads(write_json(answers, "m", 3)) == {
        "predictions": [labels[1], labels[0]],
        "model": "m",
        "release": 3,
        "probabilities": [dict(zip(names, row, strict=True)) for row in ([0.25, 0.75], [1.0, 0.0])],
    }


def test_a_regression_answers_without_probabilities():
    assert json.loads(write_json(Answers(np.array([0.1 + 0.2])), "m", None)) == {
        "predictions": [0.30000000000000004],
        "model": "m",
        "release": None,
    }


def test_values_that_are_no_listed_category_are_counted_and_nulls_are_not():
    rows = [{"town": "Ames"}, {"town": "Rome"}, {}, {"town": "Rome"}, {"town": "Oslo"}]
    known = {"town": frozenset({"Ames", "Ürümqi"})}
    assert nulls_and_unseen(of_rows(rows, SCHEMA.features), known)[1] == {"town": 3}
    assert nulls_and_unseen(of_rows(rows[:1], SCHEMA.features), known)[1] == {}


def test_rows_with_an_infinite_or_missing_answer_are_told():
    assert unanswered(Answers(np.array([1.0, np.inf, np.nan]))) == [1, 2]
    assert unanswered(Answers(np.array(["a", "b"]), ("a", "b"), np.array([[0.5, 0.5], [np.nan, 1.0]]))) == [1]


@pytest.mark.parametrize(
    ("content_type", "encoding", "found"),
    [
        ("application/json", "", "application/json"),
        ("Application/JSON; charset=UTF-8", "", "application/json"),
        ('text/csv; header=present; charset="utf-8"', "identity", "text/csv"),
        ("text/csv; charset=latin-1", "", 415),
        ("application/json", "gzip", 415),
        ("", "", 415),
        ("text/plain", "", 415),
        ("multipart/form-data; boundary=x", "", 415),
        ("application/vnd.bentoml+pickle", "", 415),
        ("json", "", 415),
    ],
)
def test_only_json_and_csv_in_utf8_and_uncompressed_are_read(content_type, encoding, found):
    answer = media_type(content_type.encode(), encoding.encode())
    assert (answer.status if isinstance(answer, Problem) else answer) == found
