import json
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from great_expectations import expectations as gxe
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from expectations import prefilter
from expectations.suite import Suite, columns_named
from expectations.validate import validate, validate_and_quarantine
from pipeline.errors import ArtifactError
from pipeline.snapshot import SnapshotFile

ENOUGH = gxe.ExpectTableRowCountToBeBetween(min_value=1)
WORDS = ["a", "b", "ä"]


def column(values, kind):
    return st.lists(st.one_of(st.none(), values), min_size=12, max_size=12).map(lambda cells: pa.array(cells, kind))


TABLES = st.fixed_dictionaries(
    {
        "whole": column(st.sampled_from([-1, 0, 5, 2**53, 2**53 + 1]), pa.int64()),
        "real": column(st.sampled_from([-1.5, -0.0, 0.0, 1e300, float("inf"), float("-inf")]), pa.float64()),
        "word": column(st.sampled_from([*WORDS, "", "never"]), pa.string()),
        "flag": column(st.booleans(), pa.bool_()),
        "time": column(st.sampled_from([datetime(2020, 1, 1), datetime(1500, 1, 1)]), pa.timestamp("us")),
        "id": st.permutations(range(12)).map(lambda cells: pa.array(cells, pa.int64())),
        "none": column(st.nothing(), pa.float64()),
    }
).map(pa.table)


def rules(mostly):
    between, some = gxe.ExpectColumnValuesToBeBetween, {"mostly": mostly}
    return [
        *(gxe.ExpectColumnValuesToNotBeNull(column=name, **some) for name in ("whole", "real", "word", "flag", "time")),
        gxe.ExpectColumnValuesToNotBeNull(column="none", **some),
        between(column="whole", min_value=0, max_value=2**53, strict_max=True, **some),
        between(column="whole", min_value=-0.5, **some),
        between(column="real", min_value=-1.5, max_value=1e300, strict_min=True, **some),
        between(column="real", max_value=0, **some),
        between(column="id", min_value=0, max_value=11, **some),
        between(column="none", min_value=0, **some),
        gxe.ExpectColumnValuesToBeInSet(column="word", value_set=WORDS, **some),
        gxe.ExpectColumnValuesToBeInSet(column="word", value_set=[*WORDS, "", "never"], **some),
        *(
            gxe.ExpectColumnValuesToBeUnique(column=name, **some)
            for name in ("whole", "real", "word", "flag", "time", "id")
        ),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["word", "flag"]),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["whole", "real", "time"]),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["whole", "id"]),
        gxe.ExpectColumnValuesToBeInTypeList(column="whole", type_list=["int64"]),
        gxe.ExpectColumnValuesToBeInTypeList(column="word", type_list=["str"]),
        gxe.ExpectColumnValuesToBeOfType(column="real", type_="float64"),
        gxe.ExpectColumnValuesToBeOfType(column="time", type_="datetime64"),
    ]


def told(report):
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


@settings(deadline=None, max_examples=examples(15))
@given(table=TABLES, mostly=st.sampled_from([1.0, 0.6]), group=st.integers(1, 12))
def test_a_report_is_the_same_whether_rows_are_left_out_beforehand_or_not(table, mostly, group, tmp_path_factory):
    every = rules(mostly)
    names = [type(rule).__name__ for rule in every if prefilter.can_prefilter(rule, columns_named(rule), table.schema)]
    assert len(names) > 20, "what is compared here is sifted"
    path = tmp_path_factory.mktemp("sieve") / "x.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    plain = validate(table.to_pandas(), Suite(error=every))
    for data in (table, SnapshotFile(path)):
        assert told(validate(data, Suite(error=every))) == told(plain)


@settings(deadline=None, max_examples=examples(15))
@given(table=TABLES, group=st.integers(1, 12))
def test_what_is_set_aside_and_what_is_said_of_the_rest_is_the_same_too(table, group, tmp_path_factory):
    # A frame keeps whole numbers as floats when the nulls among them were set aside; a snapshot does not.
    whole = table.column("whole").fill_null(5)
    table = table.set_column(table.schema.get_field_index("whole"), "whole", whole)
    by_row = [rule for rule in rules(1.0) if rule.map_metric and not hasattr(rule, "type_list")][6:]
    by_row = [rule for rule in by_row if "Type" not in type(rule).__name__]
    suite = Suite(error=[ENOUGH, *rules(0.3)], quarantine=by_row, quarantine_at_most=0.999)
    path = tmp_path_factory.mktemp("sieve") / "x.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    plain, theirs = validate_and_quarantine(table.to_pandas(), suite)
    for data in (table, SnapshotFile(path)):
        report, ours = validate_and_quarantine(data, suite)
        assert told(report) == told(plain)
        assert (ours is None) == (theirs is None)
        if ours and theirs:
            assert {rule: [*mask] for rule, mask in ours.by_rule.items()} == {
                rule: [*mask] for rule, mask in theirs.by_rule.items()
            }


class Even(gxe.ExpectColumnValuesToBeBetween):
    """A rule of somebody's own."""


@pytest.mark.parametrize(
    "rule",
    [
        Even(column="id", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="id", min_value=0, row_condition="id > 1", condition_parser="pandas"),
        gxe.ExpectColumnValuesToBeBetween(column="id", min_value=np.datetime64("2020-01-01").item()),
        gxe.ExpectColumnValuesToBeBetween(column="id", min_value={"$PARAMETER": "least"}),
        gxe.ExpectColumnValuesToBeInSet(column="id", value_set=[1]),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["id", "id2"], ignore_row_if="any_value_is_missing"),
        gxe.ExpectColumnMeanToBeBetween(column="id", min_value=0),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_what_cannot_be_told_beforehand_is_judged_on_all_rows(rule):
    schema = pa.schema([("id", pa.int64()), ("id2", pa.int64())])
    assert not prefilter.can_prefilter(rule, columns_named(rule), schema)


def test_a_range_that_the_files_statistics_prove_is_not_even_read(tmp_path, monkeypatch):
    pyarrow.parquet.write_table(pa.table({"x": [1.0, None, 3.0]}), tmp_path / "x.parquet")
    stored = SnapshotFile(tmp_path / "x.parquet")
    monkeypatch.setattr(stored, "select", None)
    report = validate(stored, Suite(error=[gxe.ExpectColumnValuesToBeBetween(column="x", min_value=1, max_value=3)]))
    assert (report.passed, report.rules[0].unexpected_count, report.rules[0].unexpected_share) == (True, 0, 0.0)


def test_a_damaged_file_is_said_when_a_column_of_texts_is_read(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table({"x": ["a", "b"] * 5000}), path, use_dictionary=False, compression="zstd")
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        validate(SnapshotFile(path), Suite(error=[gxe.ExpectColumnValuesToBeInSet(column="x", value_set=["a"])]))
