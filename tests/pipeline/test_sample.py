import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from tiny import Recorder, a_classifier, a_snapshot, a_spec, a_table

from pipeline.errors import SpecError
from pipeline.sample import sample_rows, stratified_sample
from pipeline.snapshot import SnapshotFile
from pipeline.split import held_out
from pipeline.train import load_trained, train


def labels(**counts):
    words = [word for word, count in counts.items() for _ in range(count)]
    return pa.table({"id": range(len(words)), "price": words})


def drawn(spec, table, rows=None):
    mask = stratified_sample(spec, table, np.ones(len(table), bool) if rows is None else rows)
    return table.filter(pa.array(mask))


def test_each_label_keeps_its_share():
    spec = a_classifier(sample=100)
    found = drawn(spec, labels(yes=300, no=700))["price"].to_pylist()
    assert (found.count("yes"), found.count("no")) == (30, 70)


def test_a_rare_label_keeps_a_row_for_each_fold():
    found = drawn(a_classifier(sample=100), labels(yes=7, no=9_993))["price"].to_pylist()
    assert (found.count("yes"), found.count("no")) == (5, 95)


def test_each_tenth_of_a_number_keeps_its_share():
    table = pa.table({"id": range(1000), "price": np.arange(1000.0) ** 3})
    places = drawn(a_spec(sample=200), table)["id"].to_numpy()
    assert np.histogram(places, np.arange(0, 1001, 100))[0].tolist() == [20] * 10


def test_the_seed_decides_which_rows_and_no_more_are_drawn_than_there_are():
    table = a_table(500)
    first, again, other = (drawn(a_spec(sample=100, seed=seed), table)["id"].to_pylist() for seed in (0, 0, 1))
    assert first == again != other
    assert drawn(a_spec(sample=500), table).equals(table)
    assert drawn(a_spec(), table).equals(table)


@settings(deadline=None, max_examples=examples(50))
@given(st.lists(st.integers(1, 400), min_size=3, max_size=8), st.integers(50, 300), st.integers(0, 3))
def test_a_sample_has_its_size_and_none_of_the_rows_that_were_held_out(counts, most, seed):
    table = labels(**{f"label {place}": count for place, count in enumerate(counts)})
    rows = np.random.default_rng(seed).random(len(table)) < 0.8
    mask = stratified_sample(a_classifier(sample=most, seed=seed), table, rows)
    assert not (mask & ~rows).any()
    assert mask.sum() == min(most, rows.sum())


def test_a_model_is_trained_on_a_sample_of_what_is_not_held_out_and_says_of_how_many(tmp_path):
    table = a_table(400).append_column("number", pa.array(range(400)))
    log = tmp_path / "fits"
    spec = a_spec(candidates={"r": Recorder(str(log))}, features=("number",), sample=60)
    found = train(spec, a_snapshot(table, tmp_path), tmp_path / "trained", workers=1)
    mask = held_out(found.rule, table)
    last = {int(row) for row in log.read_text().splitlines()[-1].split(",")}
    assert last == set(np.flatnonzero(stratified_sample(spec, table, ~mask)).tolist())
    assert (found.training_rows, found.holdout_rows, found.sampled_from) == (60, mask.sum(), (~mask).sum())
    assert load_trained(found.folder) == found


def test_a_model_trained_on_all_rows_is_no_sample(tmp_path):
    found = train(a_spec(sample=1000), a_snapshot(a_table(), tmp_path), tmp_path / "trained", workers=1)
    assert found.sampled_from is None


def test_a_sample_too_small_for_its_folds_is_refused():
    with pytest.raises(SpecError, match="sample is 49; set the number of rows to train on, 50 or more"):
        a_spec(sample=49)


@pytest.mark.parametrize("names", [None, ["b"], ["b", "a"]])
def test_rows_of_a_stored_table_are_read_by_a_mask(names, tmp_path):
    table = pa.table({"a": range(10), "b": [f"word {n}" for n in range(10)]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    mask = np.array([False] * 3 + [True, False, True] + [True] * 4)
    found = SnapshotFile(tmp_path / "x.parquet").filter(mask, names)
    assert found.equals(table.filter(pa.array(mask)).select(names or ["a", "b"]))
    assert SnapshotFile(tmp_path / "x.parquet").filter(np.zeros(10, bool), names).num_rows == 0


def test_at_most_so_many_rows_are_drawn_from_those_that_are_asked_for_and_all_where_there_are_no_more():
    rows = np.arange(1000) % 3 == 0
    few = sample_rows(50, rows, seed=1)
    assert few.sum() == 50
    assert rows[few].all()
    assert (sample_rows(50, rows, seed=1) == few).all()
    assert not (sample_rows(50, rows, seed=2) == few).all()
    # From all over: half of them in each half, give or take four standard deviations.
    assert 11 <= few[:500].sum() <= 39
    assert (sample_rows(334, rows) == rows).all()
