import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from great_expectations import expectations as gxe

from expectations.report import markdown
from expectations.suite import Suite, load_suite
from expectations.validate import validate
from pipeline.errors import CheckError
from pipeline.models import _ames as ames
from pipeline.models.breast_cancer import biopsies
from pipeline.models.house_prices import spec
from pipeline.sources import Csv, read

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the real data in ../shared/data")

BETWEEN = gxe.ExpectColumnValuesToBeBetween(column="LotArea", min_value=1, max_value=300_000)


def houses(**columns):
    """Four houses that BETWEEN passes, with columns replaced or added."""
    return pd.DataFrame({"LotArea": [8450, 9600, 11250, 9550], "Street": ["Pave", "Grvl", None, "Pave"]} | columns)


def reasons(frame, *rules):
    return validate(frame, Suite(error=rules)).reasons


def test_importing_validate_imports_neither_great_expectations_nor_pandas():
    code = "import sys, expectations.validate; sys.exit(bool({'great_expectations', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_good_data_passes_and_its_report_says_what_was_checked():
    report = validate(houses(), Suite(error=[BETWEEN]))
    assert report.passed
    assert (report.rows, report.columns, report.reasons, report.warnings) == (4, 2, [], [])
    [rule] = report.rules
    assert rule.rule == "LotArea is between 1 and 300000"
    assert (rule.expectation, rule.column, rule.severity) == ("ExpectColumnValuesToBeBetween", "LotArea", "error")
    assert (rule.passed, rule.unexpected_count, rule.unexpected_share, rule.examples) == (True, 0, 0.0, ())


def test_an_empty_frame_is_never_a_pass():
    report = validate(houses().head(0), Suite(error=[BETWEEN]))
    assert not report.passed
    assert report.reasons == ["the data has no rows, only the names of 2 columns; was the export cut short?"]


def test_a_suite_without_error_rules_is_refused():
    with pytest.raises(CheckError, match="no error rules and would let anything pass"):
        Suite(error=[], warn=[BETWEEN])


def test_a_class_where_an_expectation_should_be_is_refused():
    with pytest.raises(CheckError, match="has ExpectColumnValuesToBeUnique, which is not an expectation"):
        validate(houses(), Suite(error=[gxe.ExpectColumnValuesToBeUnique]))


def test_every_violated_rule_is_reported_with_count_share_and_distinct_examples():
    frame = houses(LotArea=[0, -5, -5, 9550], Street=["Pave", "Mud", None, "Pave"])
    known = gxe.ExpectColumnValuesToBeInSet(column="Street", value_set=["Grvl", "Pave"])
    report = validate(frame, Suite(error=[BETWEEN, known]))
    assert report.reasons == [
        "column 'LotArea' breaks the rule 'LotArea is between 1 and 300000' in 3 of 4 values (75%), such as 0, -5",
        "column 'Street' breaks the rule \"Street is one of 'Grvl', 'Pave'\" in 1 of 3 values (33.3%), such as 'Mud'",
    ]
    assert [rule.unexpected_share for rule in report.rules] == [0.75, pytest.approx(1 / 3)]


def test_a_failed_warning_refuses_nothing():
    report = validate(houses(), Suite(error=[BETWEEN], warn=[gxe.ExpectColumnValuesToNotBeNull(column="Street")]))
    assert report.passed
    assert report.warnings == ["column 'Street' breaks the rule 'Street is not null' in 1 of 4 values (25%)"]


def test_a_warning_does_not_repeat_what_an_error_says_of_the_same_column():
    tight = gxe.ExpectColumnValuesToBeBetween(column="LotArea", min_value=1_000)
    report = validate(houses(LotArea=[0, 1, 2, 3]), Suite(error=[BETWEEN], warn=[tight]))
    assert len(report.reasons) == 1
    assert report.warnings == []


@pytest.mark.parametrize(("mostly", "passed"), [(0.75, True), (0.76, False)])
def test_mostly_tolerates_a_share_of_rows(mostly, passed):
    rule = gxe.ExpectColumnValuesToBeBetween(column="LotArea", min_value=1, max_value=10_000, mostly=mostly)
    report = validate(houses(), Suite(error=[rule]))
    assert report.passed is passed
    assert report.rules[0].rule == f"LotArea is between 1 and 10000, in at least {100 * mostly:g}% of values"


def test_a_missing_column_is_bad_data_and_is_said_once():
    rules = [BETWEEN, gxe.ExpectColumnValuesToNotBeNull(column="LotArea"), gxe.ExpectColumnToExist(column="LotArea")]
    report = validate(houses().rename(columns={"LotArea": "Lot_Area"}), Suite(error=rules, warn=rules))
    assert report.reasons == ["column 'LotArea' is missing; did you mean 'Lot_Area'?"]
    assert report.warnings == []
    assert [rule.passed for rule in report.rules] == [False] * 6


def test_missing_columns_of_a_table_rule_are_named():
    rule = gxe.ExpectTableColumnsToMatchSet(column_set=["LotArea", "Streets"], exact_match=False)
    assert reasons(houses(), rule)[0].endswith(": 'Streets' missing; did you mean 'Street'?")


@pytest.mark.parametrize(
    "rule",
    [
        BETWEEN,
        gxe.ExpectColumnMaxToBeBetween(column="LotArea", max_value=9),
        gxe.ExpectColumnMeanToBeBetween(column="LotArea", min_value=1),
        gxe.ExpectColumnQuantileValuesToBeBetween(
            column="LotArea", quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 1]]}
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="GrLivArea", column_B="LotArea"),
    ],
)
def test_text_where_numbers_are_expected_is_bad_data_and_no_broken_check(rule):
    frame = houses(LotArea=["8450", "abc", "11250", None], GrLivArea=[1, 2, 3, 4])
    assert reasons(frame, rule) == ["column 'LotArea' holds text such as 'abc', but numbers are expected"]


def test_an_expectation_derived_in_a_suite_is_treated_as_its_base():
    class ExpectPlausibleLot(gxe.ExpectColumnValuesToBeBetween):
        column: str = "LotArea"
        min_value: int = 1
        description: str = "a lot is some land"

    assert reasons(houses(LotArea=[0, 1, 2, 3]), ExpectPlausibleLot()) == [
        "column 'LotArea' breaks the rule 'a lot is some land' in 1 of 4 values (25%), such as 0"
    ]
    assert "holds text such as 'abc'" in reasons(houses(LotArea=["abc", "1", "2", "3"]), ExpectPlausibleLot())[0]


def test_timestamps_where_numbers_are_expected_are_bad_data():
    frame = houses(LotArea=pd.to_datetime(["2024-03-01"] * 4))
    told = "column 'LotArea' holds timestamps such as '2024-03-01T00:00:00', but numbers are expected"
    assert reasons(frame, BETWEEN) == [told]


@pytest.mark.parametrize("nothing", [[np.nan] * 4, [None] * 4, pd.Series([None] * 4, dtype="str")])
def test_a_column_of_nulls_breaks_the_rules_about_nulls_and_means_but_no_check(nothing):
    frame = houses(LotArea=nothing)
    told = reasons(frame, gxe.ExpectColumnValuesToNotBeNull(column="LotArea", mostly=0.1))
    assert "in 4 of 4 values (100%)" in told[0]
    assert len(reasons(frame, gxe.ExpectColumnMeanToBeBetween(column="LotArea", min_value=1))) == 1


def test_a_crashed_check_names_rule_and_cause_and_says_nothing_about_the_data():
    broken = gxe.ExpectColumnValuesToMatchRegex(column="Street", regex="[P")
    with pytest.raises(CheckError) as raised:
        validate(houses(LotArea=[0] * 4), Suite(error=[BETWEEN, broken]))
    message = str(raised.value)
    assert "Street values must match this regular expression: [P" in message
    assert "which says nothing about the data" in message
    assert "Invalid regular expression: missing ]" in message
    assert "LotArea" not in message


def test_a_crashed_warning_is_a_broken_check_too():
    with pytest.raises(CheckError, match="ExpectColumnValuesToMatchRegex"):
        validate(
            houses(), Suite(error=[BETWEEN], warn=[gxe.ExpectColumnValuesToMatchRegex(column="Street", regex="[P")])
        )


def from_parquet(folder):
    """A frame of every type a snapshot has, and read as one is."""
    table = pa.table(
        {
            "text": pa.array(["x", None]),
            "whole": pa.array([1, 2]),
            "decimal": pa.array([0.5, None]),
            "flag": pa.array([True, False]),
            "day": pa.array([0, 86_400_000_000], pa.timestamp("us")),
            "moment": pa.array([0, None], pa.timestamp("us", "UTC")),
        }
    )
    pyarrow.parquet.write_table(table, folder / "snapshot.parquet")
    return pyarrow.parquet.read_table(folder / "snapshot.parquet").to_pandas()


def test_type_rules_know_the_types_of_pandas_3(tmp_path):
    frame = from_parquet(tmp_path)
    types = {"text": "str", "whole": "int64", "decimal": "float64", "flag": "bool"}
    types |= {"day": "datetime64", "moment": "Timestamp"}
    assert str(frame["text"].dtype) == "str"
    for column, name in types.items():
        others = [other for other in types.values() if other != name]
        one = gxe.ExpectColumnValuesToBeOfType(column=column, type_=name)
        several = gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=[others[0], name])
        assert reasons(frame, one, several) == []
        wrong = gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=others)
        assert reasons(frame, wrong)[0].endswith(f": found '{name}'")


def test_a_date_bounds_timestamps_with_and_without_a_time_zone(tmp_path):
    frame = from_parquet(tmp_path)
    for column in ("day", "moment"):
        assert reasons(frame, gxe.ExpectColumnValuesToBeBetween(column=column, min_value="1970-01-01")) == []
        assert len(reasons(frame, gxe.ExpectColumnMaxToBeBetween(column=column, max_value="1969-12-31"))) == 1


def test_a_report_is_json_without_nan():
    frame = houses(LotArea=[np.nan, np.inf, 0.0, 1.5], Sold=pd.to_datetime(["2024-01-01", None, None, None]))
    rules = [
        BETWEEN,
        gxe.ExpectColumnValuesToNotBeNull(column="LotArea"),
        gxe.ExpectColumnValuesToBeNull(column="Sold"),
        gxe.ExpectColumnMeanToBeBetween(column="LotArea", max_value=1),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["LotArea", "Sold"]),
    ]
    report = validate(frame, Suite(error=rules))
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again == report.to_dict()
    assert again["passed"] is False
    assert [rule["examples"] for rule in again["rules"]] == [["inf", 0.0], [None], ["2024-01-01T00:00:00"], [], []]
    assert again["rules"][3]["observed"] == "inf"


def test_results_come_in_the_order_of_the_suite():
    rules = [
        gxe.ExpectColumnValuesToBeUnique(column="LotArea"),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        BETWEEN,
    ]
    report = validate(houses(), Suite(error=rules, warn=rules[:1]))
    assert [rule.rule for rule in report.rules] == [
        "LotArea is unique",
        "the number of rows is at least 1",
        "LotArea is between 1 and 300000",
        "LotArea is unique",
    ]


def test_rules_about_the_set_of_values_read_like_the_others():
    names = {"column": "Street", "value_set": ["Pave", "Grvl"]}
    rules = [
        gxe.ExpectColumnDistinctValuesToBeInSet(**names),
        gxe.ExpectColumnDistinctValuesToContainSet(**names),
        gxe.ExpectColumnDistinctValuesToEqualSet(**names),
    ]
    assert [rule.rule for rule in validate(houses(), Suite(error=rules)).rules] == [
        "the values of Street are among 'Pave', 'Grvl'",
        "Street has each of 'Pave', 'Grvl'",
        "Street has each of 'Pave', 'Grvl', and no other value",
    ]


def test_a_description_replaces_the_words_of_a_rule():
    rule = gxe.ExpectTableRowCountToBeBetween(min_value=9, description="a month has nine sales or more")
    assert reasons(houses(), rule) == ["the data breaks the rule 'a month has nine sales or more': found 4"]


def test_markdown_shows_failures_first_then_warnings_then_what_passed():
    suite = Suite(
        error=[gxe.ExpectColumnValuesToNotBeNull(column="Street", mostly=0.5), BETWEEN],
        warn=[gxe.ExpectTableRowCountToBeBetween(min_value=9)],
    )
    assert markdown(validate(houses(LotArea=[0, 1, 2, 3]), suite)) == (
        "**Data rejected**: 4 rows, 2 columns; 1 of 3 rules hold.\n\n"
        "## Failed\n\n"
        "- column 'LotArea' breaks the rule 'LotArea is between 1 and 300000' in 1 of 4 values (25%), such as 0\n\n"
        "## Warnings\n\n"
        "- the data breaks the rule 'the number of rows is at least 9': found 4\n\n"
        "## Passed\n\n"
        "- Street is not null, in at least 50% of values (1 tolerated (25%))\n"
    )


def test_validating_prints_nothing_writes_nothing_and_lets_the_frame_go(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = houses()
    held = weakref.ref(frame)
    validate(frame, Suite(error=[BETWEEN]))
    del frame
    gc.collect()
    assert held() is None
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def suites(tmp_path, monkeypatch):
    """The folder expectations/suites of a project, empty."""
    (tmp_path / "pipeline" / "models").mkdir(parents=True)
    folder = tmp_path / "expectations" / "suites"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path))
    return folder


def test_a_suite_that_is_not_there_names_the_file_to_create():
    with pytest.raises(CheckError, match=r"create expectations/suites/churn\.py with `suite = Suite"):
        load_suite("churn")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("", r"trial_suite\.py has no `suite = Suite\(error=\[\.\.\.\]\)`; add it"),
        ("suite = []", r"trial_suite\.py has no `suite = Suite"),
        (
            "from expectations.suite import Suite\nsuite = Suite(error=[])",
            r"trial_suite\.py is broken.*no error rules",
        ),
        ("suite = 1 / 0", r"trial_suite\.py is broken, which says nothing about the data: ZeroDivisionError"),
    ],
)
def test_a_module_without_a_whole_suite_is_a_broken_check(suites, code, told):
    (suites / "trial_suite.py").write_text(code)
    with pytest.raises(CheckError, match=told):
        load_suite("trial_suite")


def test_the_simulated_market_passes_the_house_prices_suite():
    report = validate(ames.market(), load_suite("house_prices"))
    assert (report.reasons, report.warnings) == ([], [])


def test_no_house_prices_rule_asks_for_more_than_the_model_uses():
    suite = load_suite("house_prices")
    about = {rule.column for rule in suite.error if hasattr(rule, "column")}
    assert about == {*spec.key, *spec.features, spec.target}


def test_the_biopsies_pass_the_breast_cancer_suite_and_other_words_do_not():
    suite = load_suite("breast_cancer")
    report = validate(biopsies(), suite)
    assert (report.reasons, report.warnings) == ([], [])
    recoded = biopsies().replace({"diagnosis": {"malignant": "M", "benign": "B"}})
    [reason] = validate(recoded, suite).reasons
    assert "column 'diagnosis' breaks" in reason
    assert reason.endswith(": 'benign', 'malignant' missing, found 'B', 'M'")


@pytest.fixture(scope="module")
def sales():
    return read(Csv(str(DATA / "house_prices.csv"), na_values=("NA", ""))).to_pandas()


@needs_data
def test_the_real_sales_pass_without_a_warning(sales):
    report = validate(sales, load_suite("house_prices"))
    assert (report.reasons, report.warnings) == ([], [])


@needs_data
def test_sales_the_suite_was_not_written_from_pass_too():
    table = read(Csv(str(DATA / "ames_sales.csv"), na_values=("NA", ""))).to_pandas()
    names = {name: name.replace(" ", "").replace("/", "") for name in table.columns} | {"Order": "Id"}
    assert validate(table.rename(columns=names), load_suite("house_prices")).reasons == []


def one_to_the_right(sales):
    shifted = sales.columns[3:-1]
    return sales.assign(**dict(zip(shifted[1:], (sales[name] for name in shifted[:-1]), strict=True)))


@needs_data
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            lambda sales: sales.rename(columns={"LotArea": "Lot Area"}),
            "column 'LotArea' is missing; did you mean 'Lot Area'?",
        ),
        (
            lambda sales: sales.assign(SalePrice=sales["SalePrice"] / 1000),
            "column 'SalePrice' breaks the rule 'SalePrice is between 5000 and 10000000' in 1,460 of 1,460 values "
            "(100%), such as 208.5, 181.5, 223.5, 140, 250",
        ),
        (one_to_the_right, "column 'Fireplaces' holds text such as 'Typ', 'Min1', but numbers are expected"),
        (
            lambda sales: pd.concat([sales, sales.head(10)]),
            "column 'Id' breaks the rule 'Id is unique' in 20 of 1,470 values (1.4%), such as 1, 2, 3, 4, 5",
        ),
        (
            lambda sales: sales.assign(GarageCars=np.nan),
            "column 'GarageCars' breaks the rule 'GarageCars is not null, in at least 98% of values' in 1,460 of 1,460 "
            "values (100%)",
        ),
        (
            lambda sales: sales.head(50),
            "the data breaks the rule 'the number of rows is at least 200': found 50",
        ),
        (
            lambda sales: sales.assign(GrLivArea=sales["GrLivArea"] * 0.0929),
            "column 'GrLivArea' breaks the rule 'GrLivArea is between 100 and 20000' in",
        ),
    ],
    ids=["renamed", "in thousands", "shifted", "duplicated", "all null", "cut short", "in square metres"],
)
def test_a_broken_export_is_refused_with_the_sentence_that_tells_why(sales, broken, told):
    report = validate(broken(sales), load_suite("house_prices"))
    assert not report.passed
    assert any(reason.startswith(told) for reason in report.reasons), report.reasons
