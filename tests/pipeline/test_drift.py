"""What changed since the champion was trained: tables compared, with statistics worked out by hand or by SciPy."""

import json
import math
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples
from tiny import a_classifier, a_spec

from pipeline import drift
from pipeline.drift import compare
from pipeline.population_stability import population_stability
from pipeline.spec import Drift
from pipeline.split import Rule

ALL, NONE = Rule("houses", ("id",), 1.0), Rule("houses", ("id",), 0.0)


def table(**columns):
    """A table with an id; columns that are not given are left out."""
    rows = len(next(iter(columns.values())))
    return pa.table({"id": range(rows), **columns})


def changes(then, now, spec=None, rule=NONE):
    return compare(spec or a_spec(), then, now, 3, rule)


def of(column, then, now, spec=None):
    """What a feature that held `then` and holds `now` is found to have done."""
    first, second = (table(x=values, price=np.zeros(len(values))) for values in (then, now))
    (found,) = [one for one in changes(first, second, spec).columns if one.column == column]
    return found


def normal(rows, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, rows)


def test_few_numbers_are_compared_by_kolmogorov_smirnov():
    then, now = normal(300), normal(200, 1.0, seed=1)
    found = of("x", then, now)
    assert found.test == "Kolmogorov-Smirnov"
    assert found.value == pytest.approx(scipy.stats.ks_2samp(then, now).statistic)
    # The critical value for p = 0.001 is sqrt(-ln(p / 2) / 2) = 1.949, times sqrt((n + m) / (n m)).
    assert found.threshold == pytest.approx(math.sqrt(-math.log(0.0005) / 2) * math.sqrt(500 / 60_000), rel=1e-3)
    assert found.drifted


def test_many_numbers_are_compared_by_the_population_stability_index_of_the_deciles_of_then():
    then, now = np.arange(10_000.0), np.concatenate([np.arange(5_000.0), np.arange(5_000.0)])
    found = of("x", then, now)
    # The lower five tenths hold 20% each instead of 10%, the others nothing: sum of (q - p) ln(q / p), by hand with
    # half a row in each bin.
    p, twice, none = 1000.5 / 10_005, 2000.5 / 10_005, 0.5 / 10_005
    index = 5 * (twice - p) * math.log(twice / p) + 5 * (none - p) * math.log(none / p)
    assert found.test == "population stability index"
    assert found.value == pytest.approx(index, rel=1e-3)
    assert (found.threshold, found.drifted) == (0.2, True)


def test_few_categories_are_compared_by_chi_squared():
    found = of("x", ["a"] * 60 + ["b"] * 40, ["a"] * 20 + ["b"] * 80)
    # Expected are 40 and 60 on either side: 4 differences of 20 squared, by 40 and by 60.
    assert (found.test, found.value) == ("chi-squared", pytest.approx(2 * 400 / 40 + 2 * 400 / 60))
    assert found.threshold == pytest.approx(10.828, abs=1e-3)
    assert found.drifted


def test_many_categories_are_compared_by_their_jensen_shannon_distance():
    found = of("x", ["a"] * 5000, ["a"] * 2500 + ["b"] * 2500)
    # Half of the divergence of each side from the middle, (3/4, 1/4), in bits.
    divergence = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2))
    assert (found.test, found.value) == ("Jensen-Shannon distance", pytest.approx(math.sqrt(divergence)))
    assert (found.threshold, found.drifted) == (0.1, True)
    assert (found.new, found.new_examples, found.lost) == (1, ("b",), 0)
    assert (found.histogram.bars, found.histogram.then, found.histogram.now) == (("a", "b"), (1, 0), (0.5, 0.5))


def test_numbers_of_few_values_are_compared_as_categories_and_booleans_are():
    assert of("x", [1, 2, 3] * 100, [1, 2, 3] * 100).test == "chi-squared"
    assert of("x", [True, False] * 100, [True] * 200).drifted


def test_rare_categories_are_compared_as_one():
    """A hundred words of one row each would make any test drift, or none."""
    then, now = ([f"w{n}" for n in range(start, start + 30)] + ["a"] * 70 for start in (0, 30))
    found = of("x", then, now)
    assert (found.value, found.drifted, found.new, found.lost) == (0, False, 30, 30)


def test_free_text_is_compared_by_its_lengths():
    then, now = [f"house {n}" for n in range(300)], [f"house {n} " + "x" * 50 for n in range(300)]
    found = of("x", then, now)
    assert (found.test, found.drifted, found.new) == ("Kolmogorov-Smirnov of the lengths", True, 0)


def test_times_are_compared_and_their_histogram_has_dates():
    start = datetime(2024, 1, 1)
    then, now = ([start + timedelta(days=d + n) for n in range(300)] for d in (0, 200))
    found = of("x", then, now)
    assert found.drifted
    assert found.histogram.bars[0].startswith("2024-01")
    assert sum(found.histogram.then) == pytest.approx(1)


def test_a_share_of_nulls_that_moved_beyond_its_threshold_and_chance_is_drift():
    def holes(rows, share):
        return [None if n < rows * share else float(n % 7) for n in range(rows)]

    found = of("x", holes(5000, 0.1), holes(5000, 0.2))
    assert (found.nulls_then, found.nulls_now, found.nulls_threshold) == (0.1, 0.2, 0.05)
    assert (found.moved, found.drifted) == (False, True)
    # Of 50 rows, 10% more nulls are no news.
    assert not of("x", holes(50, 0.1), holes(50, 0.2)).drifted


def test_a_column_without_values_on_one_side_is_told_by_its_nulls():
    found = of("x", pa.nulls(200, pa.float64()), np.arange(200.0))
    assert (found.test, found.value, found.drifted) == (None, None, True)
    assert not of("x", pa.nulls(200, pa.float64()), pa.nulls(200, pa.float64())).drifted
    assert changes(
        table(x=pa.nulls(200, pa.float64()), price=[1.0] * 200), table(x=["a"] * 200, price=[1.0] * 200)
    ).passed


def test_a_constant_that_moves_is_drift_and_one_that_stays_is_none():
    assert not of("x", [1.5] * 5000, [1.5] * 5000).drifted
    assert of("x", [1.5] * 5000, [2.5] * 5000).drifted


@pytest.mark.parametrize("rows", [500, 5000])
def test_rows_of_the_same_world_drift_in_nothing(rows):
    def world(seed):
        rng = np.random.default_rng(seed)
        return pa.table(
            {"id": range(rows)}
            | {f"n{n}": rng.normal(0, 1, rows) for n in range(20)}
            | {f"t{n}": rng.choice([*"abcdefghijklmnopqrstuvwxyz"], rows) for n in range(20)}
            | {"price": rng.lognormal(0, 1, rows)}
        )

    assert changes(world(0), world(1)).drifted == []


VALUES = st.one_of(
    st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=1, max_size=40),
)


@settings(deadline=None, max_examples=examples(60))
@given(VALUES, st.randoms(), st.sampled_from([2, 2_000]))
def test_the_same_rows_in_another_order_never_drift(values, random, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "MIN_EFFECT_SIZE_ROWS", large)
        shuffled = random.sample(values, len(values))
        kind = pa.array(values).type
        kind = pa.float64() if pa.types.is_null(kind) else kind
        found = of("x", pa.array(values, kind), pa.array(shuffled, kind))
    assert not found.drifted
    assert found.value in (None, pytest.approx(0, abs=1e-6))
    assert (found.new, found.lost) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=20))
def test_the_population_stability_index_is_the_same_from_either_side_and_never_negative(counts):
    then, now = np.array(counts).T
    assert population_stability(then, now) == pytest.approx(population_stability(now, then))
    assert population_stability(then, now) >= 0
    assert population_stability(then, then) == 0


def test_a_sample_is_compared_of_many_rows_and_said():
    before, after = (table(x=normal(3000, seed=seed), price=normal(3000, seed=9)) for seed in (0, 1))
    assert changes(before, after).sampled is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "MAX_ROWS", 2500)
        found = changes(before, after)
    assert (found.sampled, found.drifted) == (2500, [])


BEFORE = table(area=[20.0, 30.0, 40.0, 50.0], town=["Ames", "Ames", "Boone", "Boone"], price=[1.0, 2.0, 3.0, 4.0])


def test_nothing_is_said_of_a_table_that_did_not_change():
    found = changes(BEFORE, BEFORE, rule=ALL)
    assert (found.passed, found.errors, found.notes, found.relabelled) == (True, (), (), 0)


def test_a_lost_feature_is_an_error_that_names_it_and_what_it_may_be_called_now():
    found = changes(BEFORE, BEFORE.rename_columns(["id", "area", "Town", "price"]))
    assert not found.passed
    assert found.errors == (
        "column 'town', which release 3 of houses was trained on, is missing from the data; did you mean 'Town'?; "
        "restore it, or remove it from the spec's features, or run `evergreen retire houses`",
    )
    assert found.notes == ("column 'Town' is new since release 3, and is a feature now",)


def test_a_feature_that_the_spec_names_no_more_may_go():
    found = changes(BEFORE, BEFORE.drop(["town"]), a_spec(features=("area",)))
    assert (found.errors, found.notes) == ((), ("column 'town', which is not used, is gone since release 3",))


def test_a_retyped_feature_is_an_error_that_names_it():
    words = BEFORE.set_column(1, "area", pa.array(["20", "30", "?", "50"]))
    assert changes(BEFORE, words).errors == (
        "column 'area' changed type from number to text since release 3; fix the data, or set types={'area': ...} on "
        "the source",
    )


def test_whole_numbers_are_no_other_type():
    assert changes(BEFORE, BEFORE.set_column(1, "area", pa.array([20, 30, 40, 50]))).passed


def test_another_order_of_columns_is_noted():
    moved = BEFORE.select(["price", "town", "id", "area"])
    assert changes(BEFORE, moved).notes == ("the columns are in another order than when release 3 was trained",)


def test_new_categories_are_noted():
    found = changes(BEFORE, BEFORE.set_column(2, "town", pa.array(["Ames", "Ames", "Nevada", "Ankeny"])))
    assert found.passed
    assert found.notes == ("new categories since release 3: 2 of town ('Ankeny', 'Nevada')",)


def test_of_a_sensitive_column_neither_values_nor_a_histogram_are_told():
    then, now = (table(town=[word] * 3000, price=[1.0] * 3000) for word in ("Ames", "Nevada"))
    found = changes(then, now, a_spec(sensitive=("town",)))
    (town,) = found.drifted
    assert (town.column, town.new, town.lost, town.histogram) == ("town", 1, 1, None)
    assert not {"Ames", "Nevada"} & set(json.dumps(found.to_dict()).replace('"', " ").split())
    assert "new categories since release 3: 1 of town" in found.notes


def test_drift_is_reported_in_one_sentence_and_refuses_where_the_spec_says_so():
    then, now = (table(x=normal(300, shift), y=normal(300), price=normal(300)) for shift in (0.0, 3.0))
    found = changes(then, now)
    assert found.passed
    (note,) = found.notes
    assert note.startswith("1 of 2 features drifted since release 3: x: Kolmogorov-Smirnov 0.")
    refused = changes(then, now, a_spec(drift=Drift(refuse=True)))
    assert (refused.passed, refused.notes) == (False, ())
    assert refused.errors == (f"{note}; if the world changed and the data is right, set drift= in the spec",)


def test_the_target_is_compared_and_told_of_first():
    then, now = (table(x=normal(300, shift), price=normal(300, shift)) for shift in (0.0, 3.0))
    found = changes(then, now)
    assert [one.column for one in found.drifted] == ["price", "x"]
    assert found.notes[0].startswith("the target 'price' drifted since release 3: price: Kolmogorov-Smirnov 0.")


def test_rows_that_are_there_twice_and_keys_that_are_are_counted():
    now = pa.table(
        {"id": [1, 1, 3, 4], "area": [20.0, 30.0, 20.0, 20.0], "town": ["Ames"] * 4, "price": [1.0, 2.0, 1.0, 9.0]}
    )
    found = changes(BEFORE, now)
    assert (found.rows_then.duplicate, found.rows_now.duplicate, found.rows_now.keys_twice) == (0, 1, 1)
    assert "1 rows (25.0%) are the same as another one in every feature and the target" in found.notes[0]
    assert "1 rows have the key of an earlier row, and a key should name one row" in found.notes


def test_keys_that_no_float_tells_apart_are_different_keys():
    keys = [2**53, 2**53 + 1, -(2**60), 2**60 + 1]
    now = pa.table({"id": keys, "area": pa.array([2**53, 2**53, None, 1]), "town": ["Ames"] * 4, "price": [1.0] * 4})
    found = changes(BEFORE, now).rows_now
    assert (found.keys_twice, found.duplicate) == (0, 1)


def test_rows_with_the_same_features_and_another_label_are_in_conflict():
    area, town = [20.0, 20.0, 20.0, 30.0], ["Ames", "Ames", "Ames", None]
    before = table(area=[1.0, 2.0, 3.0, 4.0], town=town, price=["yes", "no", "yes", "no"])
    now = table(area=area, town=town, price=["yes", "no", "yes", "no"])
    found = changes(before, now, a_classifier())
    assert (found.rows_then.conflicting, found.rows_now.conflicting, found.rows_now.duplicate) == (0, 3, 1)
    assert any("3 rows (75.0%) have the features of another one and another label" in note for note in found.notes)
    # Two houses alike may well have two prices.
    assert changes(BEFORE, now.set_column(3, "price", pa.array([1.0, 2.0, 3.0, 4.0]))).rows_now.conflicting == 0


def test_held_out_rows_with_another_label_now_are_counted_wherever_they_stand():
    now = BEFORE.set_column(3, "price", pa.array([1.0, 2.5, 3.0, 9.0])).take([3, 1, 0])
    assert changes(BEFORE, now, rule=ALL).relabelled == 2
    assert "2 rows that release 3 was judged by have another 'price' now" in changes(BEFORE, now, rule=ALL).notes
    assert changes(BEFORE, now, rule=NONE).relabelled == 0
    newest = Rule("houses", ("id",), 0.5, time="area", start=45.0)
    assert changes(BEFORE, now, rule=newest).relabelled == 1


def test_keys_that_are_there_twice_or_of_another_type_tell_of_no_other_label():
    twice = pa.concat_tables([BEFORE, BEFORE.slice(0, 1).set_column(3, "price", pa.array([7.0]))])
    assert changes(BEFORE, twice, rule=ALL).relabelled == 0
    words = BEFORE.set_column(0, "id", pa.array(["a", "b", "c", "d"]))
    assert changes(BEFORE, words, rule=ALL).relabelled is None


def test_what_changed_is_json():
    rows = table(x=[1.0, None, 3.0, 4.0], price=[1.0, 2.0, 3.0, 4.0])
    said = json.loads(json.dumps(changes(BEFORE, rows, a_spec(features=("x",))).to_dict(), allow_nan=False))
    assert said["since"] == 3
    assert {one["column"]: one["drifted"] for one in said["columns"]} == {"price": False}


def test_without_a_key_no_row_has_the_key_of_another_and_no_label_is_compared():
    rows = table(x=[1.0, 2.0, 3.0, 4.0], price=[1.0, 2.0, 3.0, 4.0])
    found = changes(rows, rows, a_spec(key=()), ALL)
    assert found.rows_now.keys_twice == 0
    assert found.relabelled is None
