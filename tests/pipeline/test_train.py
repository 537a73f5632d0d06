import pickle
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from tiny import (
    Broken,
    Column,
    Drawing,
    Nowhere,
    Recorder,
    Unclonable,
    a_classifier,
    a_snapshot,
    a_spec,
    a_table,
    tiny_forest,
)

from pipeline import digest
from pipeline.errors import ArtifactError, DataError, TrainingError
from pipeline.schema import describe, to_frame
from pipeline.spec import Gate, Holdout
from pipeline.split import held_out, holdout_rule
from pipeline.train import load_estimator, load_trained, prepare, train

FEATURES = ("area", "rooms")


@pytest.fixture
def trained(tmp_path):
    """Train candidates on a table, by default in this process."""

    def run(table=None, workers=1, folder="trained", classifier=False, **changes):
        spec = (a_classifier if classifier else a_spec)(**{"features": FEATURES} | changes)
        snapshot = a_snapshot(a_table() if table is None else table, tmp_path)
        return train(spec, snapshot, tmp_path / folder, workers)

    return run


def predictions(found, table=None):
    table = a_table() if table is None else table
    spec = a_spec(features=FEATURES)
    return found.estimator().predict(to_frame(table, describe(spec, table).features))


AGAIN = """
import sys
from pathlib import Path
from tiny import *
from pipeline.schema import describe, to_frame
from pipeline.train import train
if __name__ == "__main__":
    table, spec = a_table(), a_spec(features=("area", "rooms"), candidates={"c": eval(sys.argv[2])})
    found = train(spec, a_snapshot(table, Path(sys.argv[1])), Path(sys.argv[1]) / "again", workers=1)
    print(found.estimator().predict(to_frame(table, describe(spec, table).features)).tobytes().hex())
"""


@pytest.mark.parametrize("candidate", ["tiny_forest()", "Drawing()"])
def test_the_same_snapshot_and_spec_give_the_same_predictions_again_and_in_another_process(
    candidate, trained, run_python, tmp_path
):
    built = {"tiny_forest()": tiny_forest, "Drawing()": Drawing}[candidate]
    first = predictions(trained(candidates={"c": built()}))
    np.random.seed(12345)
    second = predictions(trained(candidates={"c": built()}, folder="second"))
    assert np.array_equal(first, second)
    assert run_python(AGAIN, tmp_path, candidate, PYTHONHASHSEED="7") == first.tobytes().hex()


def test_training_in_parallel_gives_what_training_in_one_process_gives(trained):
    candidates = {"forest": tiny_forest(), "drawing": Drawing()}
    alone, parallel = trained(candidates=candidates), trained(candidates=candidates, workers=2, folder="parallel")
    assert [one.scores for one in alone.candidates] == [one.scores for one in parallel.candidates]
    assert np.array_equal(predictions(alone), predictions(parallel))


def test_another_seed_is_another_forest(trained):
    first = predictions(trained(candidates={"forest": tiny_forest()}))
    assert not np.array_equal(first, predictions(trained(candidates={"forest": tiny_forest()}, seed=1, folder="other")))


def test_unset_random_states_are_seeded_and_every_forest_is_left_one_thread():
    forest = RandomForestRegressor(n_jobs=-1)
    search = prepare(GridSearchCV(forest, {"max_depth": [1]}, n_jobs=4), seed=7)
    assert (search.n_jobs, search.estimator.n_jobs, search.estimator.random_state) == (1, 1, 7)
    assert prepare(RandomForestRegressor(random_state=3), seed=7).random_state == 3
    assert (forest.n_jobs, forest.random_state) == (-1, None)


@pytest.mark.parametrize("changes", [{}, {"time": "day"}, {"group": "town"}])
def test_held_out_rows_never_reach_fit(changes, trained, tmp_path):
    table = a_table(120)
    table = table.append_column("number", table["id"])
    table = table.append_column("day", pa.array([row * 37 % 120 for row in range(120)]))
    table = table.append_column("town", pa.array([f"t{row % 12}" for row in range(120)]))
    log = tmp_path / "fits"
    found = trained(table, candidates={"r": Recorder(str(log))}, features=("number",), folds=3, **changes)
    mask = held_out(found.rule, table)
    fits = [{int(row) for row in line.split(",")} for line in log.read_text().splitlines()]
    assert len(fits) == 4
    assert fits[-1] == set(np.flatnonzero(~mask).tolist())
    assert all(fit < fits[-1] for fit in fits[:-1])
    assert (found.training_rows, found.holdout_rows) == (int((~mask).sum()), int(mask.sum()))


def test_with_a_time_column_every_fold_is_trained_on_the_past_only(trained, tmp_path):
    days = np.random.default_rng(3).permutation(100)
    table = a_table(100).append_column("day", pa.array(days)).append_column("when", pa.array(days))
    log = tmp_path / "fits"
    trained(table, candidates={"r": Recorder(str(log))}, features=("when",), folds=4, time="day")
    fits = [[int(day) for day in line.split(",")] for line in log.read_text().splitlines()]
    # 80 training days in 4 folds of 16 scored days, each after all that came before.
    assert fits == [[*range(16)], [*range(32)], [*range(48)], [*range(64)], [*range(80)]]


def test_no_group_is_in_both_parts_of_a_fold(trained, tmp_path):
    table = a_table(300).append_column("town", pa.array([row % 30 for row in range(300)]))
    table = table.append_column("number", table["town"])
    log = tmp_path / "fits"
    found = trained(table, candidates={"r": Recorder(str(log))}, features=("number",), folds=3, group="town")
    *folds, last = [[int(town) for town in line.split(",")] for line in log.read_text().splitlines()]
    assert len(folds) == 3
    assert all(len(towns) == 10 * len(set(towns)) for towns in folds)
    # Every training town is left out of exactly one fold.
    left_out = [town for towns in folds for town in set(last) - set(towns)]
    assert sorted(left_out) == sorted(set(last))
    assert found.training_rows == len(last)


def test_the_challenger_is_the_candidate_with_the_best_mean_over_the_folds(trained):
    # Two predict what a column holds, so that their errors are known: 0 and 3 everywhere.
    table = pa.table({"id": range(50), "area": np.arange(50.0), "price": np.arange(50.0)})
    candidates = {"bad": Column("area", error=3.0), "good": Column("area")}
    found = trained(table, features=("area",), candidates=candidates)
    assert found.chosen == "good"
    assert [one.name for one in found.candidates] == ["bad", "good"]
    assert found.candidates[0].scores == pytest.approx([3.0] * 5)
    assert (found.candidates[0].mean, found.candidates[0].deviation) == pytest.approx((3.0, 0.0))
    assert found.candidates[1].scores == (0.0,) * 5


def test_where_more_is_better_the_candidate_with_the_greatest_mean_is_chosen(trained):
    table = pa.table({"id": range(50), "area": np.arange(50.0), "price": np.arange(50.0)})
    candidates = {"bad": Column("area", error=30.0), "good": Column("area")}
    found = trained(table, features=("area",), candidates=candidates, metric="r2", gate=Gate(at_least=0.5))
    assert found.chosen == "good"


def test_a_candidate_that_raises_is_reported_with_its_reason_and_left_out(trained):
    found = trained(
        candidates={
            "broken": Broken(),
            "unclonable": Unclonable(),
            "nowhere": Nowhere(),
            "ridge": Ridge(),
        }
    )
    broken, unclonable, nowhere, ridge = found.candidates
    assert found.chosen == "ridge"
    assert ridge.error is None
    assert broken.error.startswith("ValueError: the ")
    assert broken.mean is None
    assert "Cannot clone object" in unclonable.error
    assert nowhere.error == "its rmse is nan, which cannot be ranked"


def test_a_candidate_that_raises_only_on_all_training_rows_is_left_out_for_the_next_best(trained):
    table = pa.table({"id": range(50), "area": np.arange(50.0), "price": np.arange(50.0)})
    training = int((~held_out(holdout_rule(a_spec(), table), table)).sum())
    candidates = {"column": Column("area", error=100.0), "broken": Broken(rows=training)}
    found = trained(table, features=("area",), candidates=candidates)
    assert found.chosen == "column"
    assert found.candidates[1].error == f"on all training rows: ValueError: the {training} rows are too many"


def test_when_all_candidates_raise_training_fails_with_each_reason(trained, tmp_path):
    with pytest.raises(TrainingError) as failed:
        trained(candidates={"broken": Broken(), "nowhere": Nowhere()})
    assert "no candidate of houses could be trained: broken: ValueError: the" in str(failed.value)
    assert "nowhere: its rmse is nan" in str(failed.value)
    assert not (tmp_path / "trained").exists()


def test_a_classifier_without_probabilities_is_left_out_where_the_metric_needs_them(trained):
    table = a_table()
    labels = pa.array(np.where(np.arange(200) % 3 == 0, "yes", "no").tolist())
    table = table.set_column(table.column_names.index("price"), "price", labels)
    with pytest.raises(
        TrainingError, match="svc: ValueError: the metric needs probabilities, but the estimator has no"
    ):
        trained(table, classifier=True, candidates={"svc": SVC()})


def test_a_search_is_a_candidate_like_others(trained):
    found = trained(candidates={"search": GridSearchCV(Lasso(), {"alpha": [0.1, 1000.0]}, cv=3), "ridge": Ridge(1e6)})
    assert found.chosen == "search"
    assert found.estimator().best_params_ == {"alpha": 0.1}


def test_what_a_candidate_warned_of_is_noted(trained):
    found = trained(candidates={"lasso": Lasso(alpha=0.0, max_iter=1)})
    assert any(note.startswith("ConvergenceWarning: ") for note in found.candidates[0].notes)


@pytest.mark.parametrize(("rare", "said"), [(4, r"'yes' in 4 of \d+"), (0, r"'no' in each of \d+")])
def test_a_label_that_is_too_rare_for_the_folds_is_refused_by_name(trained, rare, said):
    labels = ["yes" if row < rare else "no" for row in range(100)]
    table = a_table(100).drop_columns("price").append_column("price", pa.array(labels))
    shares = Holdout(fraction=0.01)
    with pytest.raises(
        DataError, match=f"the target 'price' is {said} training rows of .*, which cannot be split into 5 folds"
    ):
        trained(table, classifier=True, holdout=shares, candidates={"c": SVC()})


def test_too_few_rows_for_the_folds_are_refused(trained):
    with pytest.raises(DataError, match="training rows of houses cannot be split into 150 folds"):
        trained(a_table(100), folds=150, holdout=Holdout(fraction=0.1))


def test_what_was_trained_is_read_back_from_its_folder_and_answers_the_same(trained):
    found = trained()
    again = load_trained(found.folder)
    assert again == found
    spec, table = a_spec(features=FEATURES), a_table()
    mask = held_out(found.rule, table)
    frame = to_frame(table, describe(spec, table).features)
    expected = Ridge().fit(frame[~mask], table["price"].to_numpy()[~mask]).predict(frame)
    np.testing.assert_allclose(predictions(again), expected, rtol=1e-12)


def test_a_folder_without_a_trained_model_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no trained model .*run again to train it"):
        load_trained(tmp_path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_with_another_digest_is_refused_before_anything_in_it_runs(tmp_path):
    bomb = tmp_path / "model.joblib"
    bomb.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ArtifactError, match="has changed since it was written: its digest is"):
        load_estimator(bomb, "0" * 64)
    assert not (tmp_path / "ran").exists()
    # The bomb is a real one: with its own digest it goes off.
    load_estimator(bomb, digest.of_file(bomb))
    assert (tmp_path / "ran").exists()


def test_a_changed_byte_of_a_trained_model_is_refused(trained):
    found = trained()
    path = found.folder / "model.joblib"
    joblib.dump(Ridge(), path)
    with pytest.raises(ArtifactError, match="has changed since it was written"):
        found.estimator()
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        found.estimator()
