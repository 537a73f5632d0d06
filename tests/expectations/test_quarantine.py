import json
import math

import great_expectations as gx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from great_expectations import expectations as gxe
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from expectations.rules import column_reader, evaluate_rules
from expectations.suite import Suite
from expectations.validate import _for_pandas, validate, validate_and_quarantine
from pipeline.errors import CheckError
from pipeline.snapshot import SnapshotFile

ENOUGH = gxe.ExpectTableRowCountToBeBetween(min_value=1)


def sales():
    """Twelve rows with every type, nulls, and a few of everything that a rule may dislike."""
    return pa.table(
        {
            "id": [1, 2, 3, 3, 5, 6, 7, 8, 9, 10, 11, 12],
            "low": [1.0, 2.0, None, 4.0, 5.0, 99.0, 7.0, 8.0, None, 10.0, 11.0, 12.0],
            "high": [2.0, 1.0, 3.0, 5.0, None, 100.0, 8.0, 8.0, None, 11.0, 12.0, 13.0],
            "word": ["a", "b", None, "zz", "a", "b", "A", "", "c", "a", "b", "c"],
            "json": ["{}", "[1]", "[]", None, "1", "{}", "2", "{}", "{}", "{}", "[]", "{}"],
            "day": ["2024-01-31", "2024-02-30", None, "soon", *["2024-03-01"] * 8],
            "sold": pa.array([0, 10**15, None, 10**16, *[2 * 10**15] * 8], pa.timestamp("us")),
            "new": pa.array([True, False, None, True, *[False] * 8]),
        }
    )


BY_ROW = [
    gxe.ExpectColumnValuesToBeBetween(column="low", min_value=2, max_value=11),
    gxe.ExpectColumnValuesToBeBetween(column="low", min_value=2, strict_min=True, mostly=0.5),
    gxe.ExpectColumnValuesToBeBetween(column="sold", min_value="1990-01-01"),
    gxe.ExpectColumnValuesToNotBeNull(column="low"),
    gxe.ExpectColumnValuesToBeNull(column="low"),
    gxe.ExpectColumnValuesToBeUnique(column="id"),
    gxe.ExpectColumnValuesToBeInSet(column="word", value_set=["a", "b"]),
    gxe.ExpectColumnValuesToNotBeInSet(column="word", value_set=["zz"]),
    gxe.ExpectColumnValuesToMatchRegex(column="word", regex="^[a-z]$"),
    gxe.ExpectColumnValuesToNotMatchRegex(column="word", regex="^z"),
    gxe.ExpectColumnValuesToMatchRegexList(column="word", regex_list=["a", "b"]),
    gxe.ExpectColumnValuesToNotMatchRegexList(column="word", regex_list=["z", "c"]),
    gxe.ExpectColumnValueLengthsToBeBetween(column="word", min_value=1, max_value=1),
    gxe.ExpectColumnValueLengthsToEqual(column="word", value=1),
    gxe.ExpectColumnValueZScoresToBeLessThan(column="low", threshold=2, double_sided=True),
    gxe.ExpectColumnValuesToBeDateutilParseable(column="day"),
    gxe.ExpectColumnValuesToMatchStrftimeFormat(column="day", strftime_format="%Y-%m-%d"),
    gxe.ExpectColumnValuesToBeJsonParseable(column="day"),
    gxe.ExpectColumnValuesToMatchJsonSchema(column="json", json_schema={"type": "object"}),
    gxe.ExpectColumnValuesToBeIncreasing(column="low"),
    gxe.ExpectColumnValuesToBeDecreasing(column="low"),
    gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="high", column_B="low"),
    gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A="high", column_B="low", or_equal=True, ignore_row_if="either_value_is_missing"
    ),
    gxe.ExpectColumnPairValuesToBeEqual(column_A="high", column_B="low"),
    gxe.ExpectColumnPairValuesToBeInSet(column_A="word", column_B="new", value_pairs_set=[("a", True), ("b", False)]),
    gxe.ExpectCompoundColumnsToBeUnique(column_list=["word", "new"]),
    gxe.ExpectSelectColumnValuesToBeUniqueWithinRecord(column_list=["low", "high"]),
    gxe.ExpectMulticolumnSumToEqual(column_list=["low", "high"], sum_total=3),
    gxe.ExpectColumnValuesToBeBetween(
        column="low", max_value=5, row_condition='word == "a"', condition_parser="pandas"
    ),
    gxe.ExpectColumnPairValuesAToBeGreaterThanB(
        column_A="high", column_B="low", row_condition="new == False", condition_parser="pandas"
    ),
    gxe.ExpectCompoundColumnsToBeUnique(column_list=["word", "new"], row_condition="id > 5", condition_parser="pandas"),
]


def as_it_is(rule, frame):
    """Let a rule be asked, a date in it written as what it is compared with."""
    return None, _for_pandas(rule, frame)


def great_expectations_says(frame, rule):
    """The rows that Great Expectations itself lists as unexpected, through its public ways alone."""
    context = gx.get_context(mode="ephemeral")
    source = context.data_sources.add_pandas("pandas")
    batch = source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("whole")
    found = batch.get_batch(batch_parameters={"dataframe": frame}).validate(
        rule, result_format={"result_format": "COMPLETE"}
    )
    assert found.exception_info["raised_exception"] is False, found.exception_info
    return found


@pytest.mark.parametrize("rule", BY_ROW, ids=lambda rule: type(rule).__name__)
def test_what_is_set_aside_is_what_great_expectations_lists_one_by_one(rule, tmp_path):
    pyarrow.parquet.write_table(sales(), tmp_path / "sales.parquet", row_group_size=5)
    theirs = great_expectations_says(sales().to_pandas(), _for_pandas(rule, sales().to_pandas()))
    for data in (sales(), sales().to_pandas(), SnapshotFile(tmp_path / "sales.parquet")):
        ours = evaluate_rules(column_reader(data), {0: rule}, as_it_is, masks=True)[0]
        assert [*np.flatnonzero(ours.failing)] == theirs.result["unexpected_index_list"]
        for name in ("element_count", "unexpected_count", "missing_count"):
            assert ours.answer.result.get(name) == theirs.result.get(name)
        assert ours.answer.success == theirs.success
        ours_shown = ours.answer.result["partial_unexpected_list"]
        assert list(map(str, ours_shown)) == list(map(str, theirs.result["partial_unexpected_list"]))


def test_rules_of_one_column_asked_together_are_answered_as_one_by_one():
    together = evaluate_rules(column_reader(sales()), dict(enumerate(BY_ROW)), as_it_is, masks=True)
    for number, rule in enumerate(BY_ROW):
        alone = evaluate_rules(column_reader(sales()), {0: rule}, as_it_is, masks=True)[0]
        assert [*together[number].failing] == [*alone.failing]
        assert together[number].answer.success == alone.answer.success


def test_rows_that_break_a_quarantine_rule_are_set_aside_and_the_other_rules_judge_the_rest():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 1e9], "y": [1, 2, 3, 4]})
    suite = Suite(
        error=[gxe.ExpectColumnMeanToBeBetween(column="x", max_value=3), gxe.ExpectTableRowCountToEqual(value=3)],
        quarantine=[gxe.ExpectColumnValuesToBeBetween(column="x", max_value=100)],
        quarantine_at_most=0.25,
    )
    report, failing = validate_and_quarantine(frame, suite)
    assert report.passed
    assert [*failing.any] == [False, False, False, True]
    assert (report.rows, report.quarantine.rows, report.quarantine.share) == (4, 1, 0.25)
    assert report.warnings == [
        "1 of 4 rows (25%) are set aside",
        "column 'x' breaks the rule 'x is at most 100' in 1 of 4 values (25%), such as 1000000000",
    ]
    assert [(rule.severity, rule.passed) for rule in report.rules] == [
        ("error", True),
        ("error", True),
        ("quarantine", False),
    ]


def test_more_than_the_stated_share_is_refused_with_the_reason_and_nothing_is_set_aside():
    frame = pd.DataFrame({"x": [1.0, 2.0, 1e9, 1e9]})
    rule = gxe.ExpectColumnValuesToBeBetween(column="x", max_value=100)
    report, failing = validate_and_quarantine(frame, Suite(error=[ENOUGH], quarantine=[rule]))
    assert not report.passed
    assert failing is None
    assert report.reasons == [
        "2 of 4 rows (50%) break quarantine rules, and at most 5% may be set aside",
        "column 'x' breaks the rule 'x is at most 100' in 2 of 4 values (50%), such as 1000000000",
    ]
    assert report.warnings == []


def test_a_row_that_breaks_two_rules_counts_once_and_keeps_both_reasons():
    frame = pd.DataFrame({"x": [1.0, -1.0, None, 4.0], "y": [1, -1, 3, 4]})
    rules = [gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0) for name in ("x", "y")]
    report, failing = validate_and_quarantine(frame, Suite(error=[ENOUGH], quarantine=rules, quarantine_at_most=0.3))
    assert report.quarantine.rows == 1
    assert {rule: [*mask] for rule, mask in failing.by_rule.items()} == {
        "x is at least 0": [False, True, False, False],
        "y is at least 0": [False, True, False, False],
    }


@pytest.mark.parametrize(("mostly", "passed"), [(0.5, True), (0.9, False)])
def test_fewer_good_values_than_a_quarantine_rules_mostly_refuse_the_data(mostly, passed):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, -1.0]})
    rule = gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0, mostly=mostly)
    report, failing = validate_and_quarantine(frame, Suite(error=[ENOUGH], quarantine=[rule], quarantine_at_most=0.5))
    assert report.passed is passed
    assert report.quarantine.rows == 1
    assert (failing is not None) is passed


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (pd.DataFrame({"X": [1.0]}), "column 'x' is missing; did you mean 'X'?"),
        (pd.DataFrame({"x": ["many"]}), "column 'x' holds text such as 'many', but numbers are expected"),
    ],
)
def test_a_quarantine_rule_that_cannot_be_asked_refuses_the_data(frame, told):
    rule = gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0)
    report, failing = validate_and_quarantine(frame, Suite(error=[ENOUGH], quarantine=[rule]))
    assert (report.passed, report.reasons, failing) == (False, [told], None)


def test_a_crashed_quarantine_check_says_nothing_about_the_data():
    broken = gxe.ExpectColumnValuesToMatchRegex(column="x", regex="[P")
    with pytest.raises(CheckError, match="which says nothing about the data"):
        validate(pd.DataFrame({"x": ["a"]}), Suite(error=[ENOUGH], quarantine=[broken]))


@pytest.mark.parametrize(
    ("quarantine", "at_most", "told"),
    [
        ([gxe.ExpectColumnMeanToBeBetween(column="x", max_value=1)], 0.05, "is not about single rows"),
        ([ENOUGH], 0.05, "is not about single rows"),
        ([], 1, "quarantine_at_most is 1; give a share of the rows, from 0 to under 1"),
    ],
)
def test_a_quarantine_that_cannot_be_is_refused(quarantine, at_most, told):
    with pytest.raises(CheckError, match=told):
        Suite(error=[ENOUGH], quarantine=quarantine, quarantine_at_most=at_most)


def test_a_report_tells_its_quarantine_as_json():
    suite = Suite(error=[ENOUGH], quarantine=[gxe.ExpectColumnValuesToBeUnique(column="id")], quarantine_at_most=0.2)
    told = json.loads(json.dumps(validate(sales(), suite).to_dict(), allow_nan=False))
    assert told["quarantine"] == {
        "rows": 2,
        "share": pytest.approx(1 / 6),
        "at_most": 0.2,
        "reasons": [],
        "file": None,
        "snapshot": None,
    }


def test_nothing_of_a_sensitive_column_is_shown():
    frame = pd.DataFrame({"name": ["Ann", "Bob", "Carla"], "age": [30, 200, 40], "note": ["x", "y", "z"]})
    rules = [
        gxe.ExpectColumnValuesToBeInSet(column="name", value_set=["Dora"]),
        gxe.ExpectColumnValuesToBeBetween(column="name", max_value=3),
        gxe.ExpectColumnDistinctValuesToBeInSet(column="name", value_set=["Dora"]),
        gxe.ExpectColumnMaxToBeBetween(column="age", max_value=100),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["name", "note"]),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="note", column_B="name"),
        gxe.ExpectColumnMostCommonValueToBeInSet(column="name", value_set=["Dora"]),
        gxe.ExpectColumnValuesToNotBeNull(column="name", row_condition='name == "Dora"', condition_parser="pandas"),
    ]
    report = validate(frame, Suite(error=rules), sensitive=("name", "age"))
    shown = str(report.to_dict())
    # Those that a rule lists may have been taken from the data, as `evergreen init` takes them.
    assert not any(value in shown for value in ("Ann", "Bob", "Carla", "200", "Dora"))
    assert report.reasons[0] == "column 'name' breaks the rule 'name is one of 1 value' in 3 of 3 values (100%)"
    assert "column 'name' holds text, but numbers are expected" in report.reasons
    assert any("not shown, since 'age' is sensitive" in reason for reason in report.reasons)


def test_a_check_that_crashes_on_a_sensitive_column_does_not_quote_it():
    frame = pd.DataFrame({"name": pd.Series(["Ann", 3], dtype=object)})
    rule = gxe.ExpectColumnValuesToMatchStrftimeFormat(column="name", strftime_format="%Y")
    with pytest.raises(CheckError) as raised:
        validate(frame, Suite(error=[rule]), sensitive=("name",))
    assert "the cause is not shown, since it may hold values of 'name'" in str(raised.value)
    assert raised.value.__cause__ is None


NUMBERS = st.lists(st.one_of(st.none(), st.floats(-10, 10), st.just(math.inf)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=examples(40))
@given(NUMBERS, st.integers(-10, 10))
def test_good_and_quarantined_rows_are_all_rows_none_twice_in_their_order(numbers, least):
    table = pa.table({"row": range(len(numbers)), "x": pa.array(numbers, pa.float64())})
    rules = [
        gxe.ExpectColumnValuesToBeBetween(column="x", min_value=least),
        gxe.ExpectColumnValuesToBeUnique(column="x"),
    ]
    known = [number for number in numbers if number is not None]
    bad = [number is not None and (number < least or known.count(number) > 1) for number in numbers]
    report, failing = validate_and_quarantine(table, Suite(error=[ENOUGH], quarantine=rules, quarantine_at_most=0.999))
    if all(bad):
        assert not report.passed
        return
    mask = failing.any if failing else np.zeros(len(numbers), bool)
    assert [*mask] == bad
    assert report.quarantine.rows == sum(bad)
    good, aside = table.filter(pa.array(~mask))["row"].to_pylist(), table.filter(pa.array(mask))["row"].to_pylist()
    assert sorted(good + aside) == [*range(len(numbers))]
    assert (good, aside) == (sorted(good), sorted(aside))


@pytest.mark.parametrize(
    "rule",
    [
        gxe.ExpectTableRowCountToEqual(value=12),
        gxe.ExpectTableColumnCountToEqual(value=8),
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=sales().column_names),
        gxe.ExpectTableColumnsToMatchSet(column_set=["id", "low"], exact_match=False),
        gxe.ExpectColumnToExist(column="low", column_index=1),
        gxe.ExpectColumnMeanToBeBetween(column="low", min_value=1, max_value=5),
        gxe.ExpectColumnQuantileValuesToBeBetween(
            column="low", quantile_ranges={"quantiles": [0.1, 0.5], "value_ranges": [[0, 5], [0, 1]]}
        ),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="word", value_set=["a", "b"]),
        gxe.ExpectColumnMostCommonValueToBeInSet(column="word", value_set=["a"]),
        gxe.ExpectColumnUniqueValueCountToBeBetween(column="word", max_value=3),
        gxe.ExpectColumnMaxToBeBetween(
            column="low", max_value=50, row_condition='word == "a"', condition_parser="pandas"
        ),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_rules_about_no_single_row_are_answered_as_by_great_expectations_too(rule):
    theirs = great_expectations_says(sales().to_pandas(), rule)
    ours = evaluate_rules(column_reader(sales()), {0: rule}, as_it_is)[0].answer
    assert ours.success == theirs.success
    assert str(ours.result) == str(theirs.result)
