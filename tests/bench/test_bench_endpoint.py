"""The pure parts of the endpoint's comparison: what wrk printed, ratios, verdicts, Markdown, and the forms of rows."""

import json

import pytest

from bench.endpoint import forms
from bench.endpoint.report import Target, ratios, spread, table, targets_table, verdict
from bench.endpoint.wrk import Measured, parsed

LAST_LINE = '{"requests": 500, "seconds": 2.5, "median_ms": 4.25, "p99_ms": 9.5, "refused": %d, "broken": %d}\n'
PRINTED = "Running 2s test @ http://127.0.0.1:3000/predict\n  1 threads and 8 connections\n" + LAST_LINE
URL = "http://127.0.0.1:3000/predict"


def target(*found, **changes):
    return Target(**{"work": "a row", "against": "peer", "ratios": found, "least": 2.0, "moonshot": 4.0} | changes)


def test_the_last_line_of_wrk_tells_rate_and_latencies():
    assert parsed(PRINTED % (0, 0), URL) == Measured(rate=200.0, median_ms=4.25, p99_ms=9.5, requests=500)


@pytest.mark.parametrize(("refused", "broken"), [(1, 0), (0, 3)])
def test_a_measurement_in_which_an_answer_was_refused_or_did_not_come_does_not_count(refused, broken):
    with pytest.raises(RuntimeError, match=f"refused {refused} and broke {broken}"):
        parsed(PRINTED % (refused, broken), URL)


def test_a_measurement_without_an_answer_does_not_count():
    with pytest.raises(RuntimeError, match="answered 0 requests"):
        parsed((PRINTED % (0, 0)).replace("500", "0"), URL)


def test_ratios_are_taken_round_by_round():
    assert ratios([100.0, 300.0], [50.0, 100.0]) == (2.0, 3.0)


def test_rounds_that_do_not_pair_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        ratios([100.0, 300.0], [50.0])


@pytest.mark.parametrize(
    ("found", "said"),
    [((1.0, 1.9, 9.0), "**not met**"), ((1.0, 2.0, 9.0), "met"), ((1.0, 4.0, 9.0), "moonshot"), ((), "not measured")],
)
def test_the_median_ratio_decides(found, said):
    assert verdict(target(*found)) == said


@pytest.mark.parametrize(("found", "said"), [(0.6, "**not met**"), (0.5, "met"), (0.25, "moonshot")])
def test_where_less_is_better_the_ratio_must_not_exceed_the_target(found, said):
    assert verdict(target(found, least=0.5, moonshot=0.25, less_is_better=True)) == said


def test_where_only_a_moonshot_is_asked_for_nothing_is_missed():
    assert verdict(target(1.2, least=None, moonshot=1.0, less_is_better=True)) == "not yet"
    assert targets_table([target(1.2, least=None)]).splitlines()[2].startswith("| a row | peer | - | 4x |")


def test_a_ratio_is_shown_with_its_least_and_greatest():
    assert spread([2.0, 12.34, 1.0]) == "2.00x (1.00 to 12.3)"
    assert spread([1234.4]) == "1,234x (1,234 to 1,234)"
    assert spread([]) == "-"


def test_a_table_is_markdown_and_a_bar_does_not_break_it():
    assert table(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"


def test_a_target_is_a_line_with_its_limits_and_its_verdict():
    line = targets_table([target(3.0), target(0.3, least=0.5, moonshot=0.25, less_is_better=True)]).splitlines()[2:]
    assert line == [
        "| a row | peer | 2x | 4x | 3.00x (3.00 to 3.00) | met |",
        "| a row | peer | at most 0.5x | at most 0.25x | 0.30x (0.30 to 0.30) | met |",
    ]


ROWS = [{"Number00": 1.5, "Text00": "a"}, {"Number00": None, "Text00": 'b,"'}]


def test_a_null_is_an_empty_field_of_a_csv():
    assert forms.CSV.write(ROWS) == b'Number00,Text00\r\n1.5,a\r\n,"b,"""\r\n'


def test_each_form_of_json_holds_the_rows_as_its_server_wants_them():
    assert json.loads(forms.RECORDS.write(ROWS)) == {"records": ROWS}
    assert json.loads(forms.MLFLOW_RECORDS.write(ROWS)) == {"dataframe_records": ROWS}
    assert json.loads(forms.MLFLOW_SPLIT.write(ROWS)) == {
        "dataframe_split": {"columns": ["Number00", "Text00"], "data": [[1.5, "a"], [None, 'b,"']]}
    }
    tensors = json.loads(forms.V2.write(ROWS))["inputs"]
    assert [(one["name"], one["shape"], one["datatype"], one["data"]) for one in tensors] == [
        ("Number00", [2, 1], "FP64", [1.5, None]),
        ("Text00", [2, 1], "BYTES", ["a", 'b,"']),
    ]


def test_predictions_are_read_from_each_servers_answer():
    assert forms.RECORDS.read(b'{"predictions": [1.5, 2.0], "model": "m", "release": 1}') == [1.5, 2.0]
    assert forms.FRAME.read(b"[1.5, 2.0]") == [1.5, 2.0]
    assert forms.V2.read(b'{"outputs": [{"name": "predict", "data": [1.5, 2.0]}]}') == [1.5, 2.0]
    assert forms.CSV.read(b"Id,prediction\r\n7,1.5\r\n8,2.0\r\n") == [1.5, 2.0]
