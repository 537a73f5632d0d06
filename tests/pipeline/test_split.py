import hashlib
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from tiny import a_spec

from pipeline.errors import ArtifactError, DataError
from pipeline.snapshot import SnapshotFile
from pipeline.sources import Csv, read
from pipeline.spec import Holdout
from pipeline.split import Rule, held_out, holdout_rule, split

RULE = Rule(model="houses", by=("id",), share=0.2)


def ids(table, rule=RULE):
    return set(table.filter(held_out(rule, table))["id"].to_pylist())


def test_about_the_share_of_the_rows_is_held_out():
    table = pa.table({"id": range(10_000)})
    # Four standard deviations of a binomial share: 4 sqrt(0.2 * 0.8 / 10000) = 0.016.
    assert held_out(RULE, table).mean() == pytest.approx(0.2, abs=0.016)
    assert held_out(Rule("houses", ("id",), 0.5), table).mean() == pytest.approx(0.5, abs=0.02)


def test_a_row_is_held_out_by_the_keyed_hash_of_its_key_alone():
    def share(*key):
        hashed = hashlib.blake2b("\x1f".join(key).encode(), key=b"houses", digest_size=8).hexdigest()
        return int(hashed, 16) / 2**64

    table = pa.table({"id": [1, 20, 300, 4000, 5, 6], "town": ["a", "b", "c", "d", "e", "f"]})
    assert held_out(RULE, table).tolist() == [share(str(row)) < 0.2 for row in (1, 20, 300, 4000, 5, 6)]
    both = Rule("houses", ("town", "id"), 0.5)
    expected = [share(town, str(row)) < 0.5 for town, row in zip("abcdef", (1, 20, 300, 4000, 5, 6), strict=True)]
    assert held_out(both, table).tolist() == expected


def test_a_row_held_out_stays_held_out_when_rows_are_added_removed_or_reordered():
    table = pa.table({"id": range(500)})
    before = ids(table)
    more = pa.table({"id": [*reversed(range(1000))]})
    assert before < ids(more)
    assert ids(more) & set(range(500)) == before
    fewer = table.filter(np.arange(500) % 3 == 0)
    assert ids(fewer) == {row for row in before if row % 3 == 0}


def test_a_row_is_held_out_whether_its_key_is_whole_decimal_or_text_and_from_whichever_file(tmp_path):
    before = ids(pa.table({"id": range(200)}))
    assert ids(pa.table({"id": pa.array(range(200), pa.float64())})) == before
    assert {int(row) for row in ids(pa.table({"id": [str(row) for row in range(200)]}))} == before
    pyarrow.csv.write_csv(pa.table({"id": range(200)}), tmp_path / "x.csv")
    assert ids(read(Csv(str(tmp_path / "x.csv")))) == before


@pytest.mark.parametrize(
    "words",
    [
        [f"{row:05d}" for row in range(100)],
        [f"{row / 10:.2f}" for row in range(100)],
        [f"2024-01-{1 + row // 24:02d} {row % 24:02d}:00" for row in range(100)],
        [f"2024-01-{1 + row // 24:02d}T{row % 24:02d}:00:00+02:00" for row in range(100)],
        [str(2**53 + row) for row in range(100)],
    ],
)
def test_a_row_stays_held_out_when_a_new_row_makes_its_key_column_one_of_texts(words, tmp_path):
    (tmp_path / "x.csv").write_text("\n".join(["id,x", *(f"{word},1" for word in words)]))
    before = held_out(RULE, read(Csv(str(tmp_path / "x.csv"))))
    (tmp_path / "x.csv").write_text("\n".join(["id,x", *(f"{word},1" for word in [*words, "A1"])]))
    after = held_out(RULE, read(Csv(str(tmp_path / "x.csv"))))
    assert before.any()
    assert after[:-1].tolist() == before.tolist()


def test_without_a_key_rows_are_held_out_by_all_their_features_and_equal_ones_together():
    table = pa.table({"area": [row % 150 for row in range(300)], "town": ["a", None, "b"] * 100, "price": range(300)})
    rule = holdout_rule(a_spec(key=()), table)
    assert rule.by == ("area", "town")
    mask = held_out(rule, table)
    assert 0 < mask.sum() < 150
    assert mask[:150].tolist() == mask[150:].tolist()
    assert held_out(rule, table.take([*reversed(range(300))])).tolist() == mask[::-1].tolist()


def test_another_model_holds_out_other_rows():
    table = pa.table({"id": range(500)})
    assert ids(table) != ids(table, Rule("flats", ("id",), 0.2))


def test_a_smaller_share_holds_out_a_part_of_the_same_rows():
    table = pa.table({"id": range(500)})
    assert ids(table, Rule("houses", ("id",), 0.1)) < ids(table)


@pytest.mark.parametrize("by", [("a", "b"), ("a",)])
def test_a_snapshots_rows_are_held_out_like_the_tables_however_its_file_is_written(by, tmp_path):
    table = pa.table({"a": [*range(299), None], "b": [f"t{row % 7}" for row in range(300)]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=13)
    rule = Rule("houses", by, 0.2)
    assert held_out(rule, SnapshotFile(tmp_path / "x.parquet")).tolist() == held_out(rule, table).tolist()


def test_rows_that_are_removed_from_a_snapshot_meanwhile_are_said(tmp_path):
    table, path = pa.table({"id": range(10)}), tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, path)
    before = SnapshotFile(path)
    pyarrow.parquet.write_table(table.slice(1), tmp_path / "y.parquet")
    (tmp_path / "y.parquet").rename(path)
    with pytest.raises(
        ArtifactError, match=r"rows of snapshot x\.parquet were erased .* had 10 rows and now has 9; run"
    ):
        held_out(RULE, before)
    assert len(held_out(RULE, SnapshotFile(path))) == 9


def test_whole_groups_are_held_out():
    table = pa.table({"id": range(600), "town": [f"t{row % 60}" for row in range(600)]})
    rule = holdout_rule(a_spec(group="town"), table)
    mask = held_out(rule, table)
    towns = np.array(table["town"].to_pylist())
    assert mask.any()
    assert not set(towns[mask]) & set(towns[~mask])


def days(count):
    start = datetime(2024, 1, 1)
    shuffled = np.random.default_rng(0).permutation(count)
    return pa.table({"id": range(count), "sold": [start + timedelta(days=int(day)) for day in shuffled]})


@pytest.mark.parametrize(
    ("holdout", "newest"), [(Holdout(fraction=0.2), 20), (Holdout(fraction=0.5), 50), (Holdout(days=9), 10)]
)
def test_with_a_time_column_the_newest_window_is_held_out(holdout, newest):
    table = days(100)
    mask = held_out(holdout_rule(a_spec(time="sold", holdout=holdout), table), table)
    sold = table["sold"].to_numpy()
    assert mask.sum() == newest
    assert sold[~mask].max() < sold[mask].min()


def test_rows_of_one_instant_are_never_on_both_sides():
    table = pa.table({"id": range(100), "sold": [row // 30 for row in range(100)]})
    mask = held_out(holdout_rule(a_spec(time="sold"), table), table)
    # The newest 20 rows begin within the 30 of instant 2.
    assert mask.tolist() == [row >= 60 for row in range(100)]


def test_a_rule_means_the_same_rows_after_it_was_written_down_and_when_newer_rows_came():
    table = days(100)
    rule = holdout_rule(a_spec(time="sold"), table)
    assert Rule.from_dict(rule.to_dict()) == rule
    newer = days(130)
    mask = held_out(Rule.from_dict(rule.to_dict()), newer)
    assert mask.tolist() == [sold >= datetime(2024, 1, 1) + timedelta(days=80) for sold in newer["sold"].to_pylist()]


@pytest.mark.parametrize(
    ("table", "spec", "sentence"),
    [
        (pa.table({"id": [1]}), a_spec(), "1 rows leave none to (train on|hold out); use more rows"),
        (pa.table({"id": [1, 2], "sold": [7, 7]}), a_spec(time="sold"), "2 rows leave none to train on"),
        (days(10), a_spec(time="sold", holdout=Holdout(days=30)), "10 rows leave none to train on"),
    ],
)
def test_a_side_without_rows_is_refused(table, spec, sentence):
    with pytest.raises(DataError, match=sentence):
        split(holdout_rule(spec, table), table)


def test_a_rule_of_times_does_not_tell_numbers():
    rule = holdout_rule(a_spec(time="sold"), days(100))
    with pytest.raises(DataError, match="'sold' holds values such as 7, but the holdout starts at 2024-03-21"):
        held_out(rule, pa.table({"id": [1], "sold": [7]}))


@pytest.mark.parametrize(
    ("sold", "holdout", "sentence"),
    [
        (["x", "y"], Holdout(), "time column 'sold' holds values such as 'x'; use timestamps or numbers"),
        ([1, 2], Holdout(days=3), "in days, but time column 'sold' does not hold timestamps; use fraction="),
    ],
)
def test_a_time_column_that_holds_no_times_is_refused(sold, holdout, sentence):
    with pytest.raises(DataError, match=sentence):
        holdout_rule(a_spec(time="sold", holdout=holdout), pa.table({"id": [1, 2], "sold": sold}))
