"""Training on more rows than fit into memory: what learns them, in which order, and what is refused."""

# ruff: noqa: ARG002

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from tiny import a_classifier, a_snapshot, a_spec, a_table

from pipeline import incremental
from pipeline.compiled import CompiledModel, columns_of, compile_pipeline
from pipeline.errors import ArtifactError, SpecError, TrainingError
from pipeline.incremental import shuffle_to_disk
from pipeline.sample import stratified_sample
from pipeline.schema import describe, to_frame
from pipeline.snapshot import SnapshotFile
from pipeline.spec import BinaryClassification, MulticlassClassification
from pipeline.split import held_out
from pipeline.train import load_trained, train


class Ledger(RegressorMixin, BaseEstimator):
    """Keeps the first column of every batch that it learns, and the target."""

    def fit(self, X, y):
        self.learned_ = []
        return self

    def partial_fit(self, X, y):
        self.learned_ = [*getattr(self, "learned_", ()), np.asarray(X)[:, 0].tolist()]
        self.targets_ = [*getattr(self, "targets_", ()), np.asarray(y).tolist()]
        return self

    def predict(self, X):
        return np.zeros(len(X))


class Same(TransformerMixin, BaseEstimator):
    """Returns what it is given, and keeps nothing of what it is fitted on."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


class Own(Same):
    """Adds 1,000 to the rows that it is fitted on, as a target encoder answers these otherwise than others."""

    def fit_transform(self, X, y=None):
        return X + 1_000


@pytest.fixture
def trained(tmp_path):
    """Train one candidate on a table in batches, the snapshot's file in groups of so many rows."""

    def run(candidate, table, group_rows=None, make=a_spec, **changes):
        fields = {"features": ("number",), "sample": 60, "epochs": 1, "candidates": {"c": candidate}} | changes
        spec, snapshot = make(**fields), a_snapshot(table, tmp_path)
        if group_rows:
            pyarrow.parquet.write_table(table, snapshot.path, row_group_size=group_rows)
        return train(spec, snapshot, tmp_path / f"trained-{group_rows}", workers=1)

    return run


@pytest.fixture
def small(monkeypatch):
    """Parts of 50 rows, and batches of 20."""
    monkeypatch.setattr(incremental, "PART_ROWS", 50)
    monkeypatch.setattr(incremental, "BATCH_ROWS", 20)


def numbered(rows=400):
    return a_table(rows).append_column("number", pa.array(np.arange(float(rows))))


def held(found, table):
    return held_out(found.rule, table)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changes", [{}, {"time": "day"}, {"group": "town"}])
def test_every_training_row_is_learned_once_an_epoch_and_no_held_out_row_ever(changes, trained):
    table = numbered().append_column("day", pa.array([row * 37 % 400 for row in range(400)]))
    table = table.append_column("town", pa.array([f"t{row % 40}" for row in range(400)]))
    found = trained(Ledger(), table, epochs=3, **changes)
    learned = np.concatenate(found.estimator().learned_)
    training = np.flatnonzero(~held(found, table)).astype(float)
    first, second, third = np.split(learned, 3)
    for epoch in (first, second, third):
        assert sorted(epoch) == training.tolist()
    assert first.tolist() != second.tolist() != third.tolist()
    assert (found.training_rows, found.holdout_rows) == (len(training), 400 - len(training))


def test_a_rows_target_stays_its_own(trained):
    table = numbered().drop_columns("price")
    found = trained(Ledger(), table.append_column("price", pa.array(np.arange(400.0) * 7)))
    model = found.estimator()
    assert (np.concatenate(model.targets_) == 7 * np.concatenate(model.learned_)).all()


def test_it_says_how_often_and_on_how_many_rows_candidates_were_compared(trained):
    table = numbered()
    found = trained(Ledger(), table, epochs=2)
    assert (found.epochs, found.compared_on, found.sampled_from) == (2, 60, None)
    training = int((~held(found, table)).sum())
    assert found.rows == {"training": training, "holdout": 400 - training, "epochs": 2, "compared_on": 60}
    assert load_trained(found.folder) == found


def test_what_comes_before_the_learner_is_fitted_on_the_sample(trained):
    table = numbered()
    found = trained(make_pipeline(StandardScaler(), SGDRegressor()), table)
    mask = stratified_sample(a_spec(sample=60), table, ~held(found, table))
    assert found.estimator()[0].mean_ == pytest.approx(np.flatnonzero(mask).mean())


def test_a_model_that_counts_is_what_it_is_when_it_is_fitted_at_once(trained):
    rng = np.random.default_rng(1)
    labels = rng.choice(["no", "yes"], 3_000)
    table = pa.table({"id": range(3_000), "number": rng.normal(labels == "yes", 1.0), "price": labels})
    found = trained(GaussianNB(), table, make=a_classifier)
    training = table.filter(pa.array(~held(found, table)))
    whole = GaussianNB().fit(training.select(["number"]).to_pandas(), np.array(training["price"].to_pylist(), object))
    model = found.estimator()
    assert model.classes_.tolist() == ["no", "yes"]
    assert np.allclose(model.theta_, whole.theta_, rtol=1e-12)
    assert np.allclose(model.var_, whole.var_, rtol=1e-9)
    assert np.allclose(model.class_prior_, whole.class_prior_, rtol=1e-12)


@pytest.mark.usefixtures("small")
def test_rows_that_candidates_were_compared_on_are_learned_among_the_others(trained):
    table = numbered(4_000)
    found = trained(Ledger(), table, sample=400)
    sample = stratified_sample(a_spec(sample=400), table, ~held(found, table))
    of_sample = sample[np.concatenate(found.estimator().learned_).astype(int)]
    # Of about 3,200 rows 400 are of the sample: by chance 100 in each quarter, and none has them all.
    assert all(50 < quarter.sum() < 150 for quarter in np.array_split(of_sample, 4))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("labels", [(False, True), (1, 2), ("no", "yes"), ("a", "b", "c"), (3, 5, 7)])
def test_labels_are_what_they_are_without_batches(labels, trained):
    truth = np.array(labels, object)[np.arange(2_000) % len(labels)].tolist()
    table = pa.table({"id": range(2_000), "number": [float(labels.index(label)) for label in truth], "price": truth})
    binary = len(labels) == 2
    task = BinaryClassification(positive=labels[1]) if binary else MulticlassClassification()
    fields = {"make": a_classifier, "task": task, "metric": "accuracy", "sample": 300}
    candidate = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss"))
    one = trained(candidate, table, group_rows=900, epochs=5, **fields).estimator()
    other = trained(candidate, table, group_rows=901, epochs=None, **fields).estimator()
    assert one.classes_.tolist() == other.classes_.tolist() == list(labels)
    assert one.classes_.dtype == other.classes_.dtype
    frame = pd.DataFrame({"number": np.arange(float(len(labels)))})
    assert one.predict(frame)[[0, -1]].tolist() == [labels[0], labels[-1]]


@pytest.mark.usefixtures("small")
def test_a_batch_without_one_of_the_labels_is_learned_like_the_others(trained):
    labels = ["rare" if row % 50 == 0 else "common" for row in range(1_000)]
    table = pa.table({"id": range(1_000), "number": [float(label == "rare") for label in labels], "price": labels})
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss"))
    found = trained(
        pipeline, table, make=a_classifier, sample=200, epochs=5, task=BinaryClassification(positive="rare")
    )
    frame = pd.DataFrame({"number": [0.0, 1.0]})
    assert found.estimator().predict(frame).tolist() == ["common", "rare"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("group", [7, 64])
def test_how_the_snapshots_file_was_written_changes_nothing(group, trained):
    candidate = make_pipeline(StandardScaler(), SGDRegressor())
    one, other = (trained(candidate, numbered(), group_rows=size).estimator()[-1] for size in (400, group))
    assert one.coef_.tolist() == other.coef_.tolist()
    assert one.t_ == other.t_


@pytest.mark.usefixtures("small")
def test_every_row_is_in_one_part_of_about_the_size_that_is_wanted(tmp_path):
    table, mask = numbered(1_000), np.arange(1_000) % 2 == 0
    spec, file = a_spec(features=("number",)), SnapshotFile(a_snapshot(table, tmp_path).path)
    parts = [read() for read in shuffle_to_disk(spec, file, mask, describe(spec, file).features, tmp_path)]
    assert len(parts) == 10
    assert all(20 < len(part) < 90 for part in parts)
    # The table is sorted; each part has rows of all of it.
    assert all(part["number"].to_numpy().min() < 200 and part["number"].to_numpy().max() > 800 for part in parts)
    together = pa.concat_tables(parts).sort_by("number")
    assert together.equals(table.filter(pa.array(mask)).select(["number", "price"]))


@pytest.mark.usefixtures("small")
def test_a_wide_tables_parts_have_fewer_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(incremental, "PART_CELLS", 90)
    spec, file = a_spec(features=("area", "rooms", "number")), SnapshotFile(a_snapshot(numbered(), tmp_path).path)
    parts = shuffle_to_disk(spec, file, np.ones(400, bool), describe(spec, file).features, tmp_path)
    assert len(parts) == 400 / 30 + 2 / 3


@pytest.mark.usefixtures("small")
def test_a_sorted_table_is_learned_as_well_as_a_mixed_one(trained):
    rng = np.random.default_rng(3)
    number = rng.normal(size=20_000)
    price = number + rng.normal(size=20_000)
    table = pa.table({"id": range(20_000), "number": number, "price": price}).sort_by("price")
    found = trained(make_pipeline(StandardScaler(), SGDRegressor()), table)
    rows = table.filter(pa.array(held(found, table)))
    error = found.estimator().predict(rows.select(["number"]).to_pandas()) - rows["price"].to_numpy()
    # No model is better than the noise, of deviation 1.
    assert np.sqrt(np.mean(error**2)) < 1.05


@pytest.mark.usefixtures("small")
def test_what_learns_is_given_the_samples_own_rows_as_their_transformers_made_them(trained):
    table = numbered()
    found = trained(make_pipeline(Own(), Ledger()), table)
    training = ~held(found, table)
    sample = stratified_sample(a_spec(sample=60), table, training)
    learned = np.concatenate(found.estimator()[-1].learned_)
    expected = np.where(sample, np.arange(400.0) + 1_000, np.arange(400.0))[training]
    assert sorted(learned) == sorted(expected)


@pytest.mark.usefixtures("small")
def test_a_transformer_that_keeps_nothing_may_come_last(trained):
    found = trained(make_pipeline(StandardScaler(), Same(), "passthrough", Ledger()), numbered())
    assert len(np.concatenate(found.estimator()[-1].learned_)) == found.training_rows


@pytest.mark.usefixtures("small")
def test_a_step_that_goes_by_the_frames_index_is_given_one_without_doubles(trained):
    joined = FunctionTransformer(again)
    found = trained(make_pipeline(joined, Ledger()), numbered(), features=("number", "area"))
    assert len(np.concatenate(found.estimator()[-1].learned_)) == found.training_rows


def again(frame):
    return frame[["number"]].join(frame["area"])


def test_candidates_are_compared_as_they_are_without_batches(trained):
    candidates = {"candidates": {"c": make_pipeline(StandardScaler(), SGDRegressor())}}
    one = trained(None, numbered(), group_rows=5, epochs=1, **candidates)
    other = trained(None, numbered(), group_rows=6, epochs=None, **candidates)
    assert one.candidates[0].scores == other.candidates[0].scores


def test_what_a_sample_lacks_and_a_transformer_refuses_is_said(trained):
    towns = ["rare" if row == 7 else "common" for row in range(400)]
    table = numbered().append_column("town", pa.array(towns))
    with pytest.raises(TrainingError, match=r"its transformers fitted on the sample: .*unknown categories.*'rare'"):
        trained(make_pipeline(OneHotEncoder(), SGDRegressor()), table, features=("town",))


def test_a_changed_target_is_learned_changed_and_answered_as_it_was(trained):
    candidate = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), SGDRegressor(eta0=0.05)), func=np.log1p, inverse_func=np.expm1
    )
    table = numbered(4_000)
    found = trained(candidate, table, sample=500, epochs=10, features=("area", "rooms"))
    spec = a_spec(features=("area", "rooms"))
    said = found.estimator().predict(to_frame(table, describe(spec, table).features))
    # The logarithm of a sum is no sum of logarithms: 3 area + 10 rooms is met within some percent.
    assert np.median(np.abs(said / table["price"].to_numpy() - 1)) < 0.1
    assert found.estimator().regressor.__class__ is found.estimator().regressor_.__class__


def test_a_search_finds_its_parameters_on_the_sample_and_the_best_learns_all_rows(trained):
    search = GridSearchCV(make_pipeline(StandardScaler(), SGDRegressor()), {"sgdregressor__alpha": [1e-4, 1e4]})
    table = numbered()
    found = trained(search, table, features=("area", "rooms"))
    model = found.estimator()
    assert model.best_params_ == {"sgdregressor__alpha": 1e-4}
    # SGD counts the rows that it has learned, from 1.
    assert model.best_estimator_[-1].t_ == 1 + int((~held(found, table)).sum())


@pytest.mark.parametrize(
    ("learner", "grid", "sentence"),
    [
        (MLPRegressor(), {"solver": ["lbfgs"]}, r"the search chose MLPRegressor\(.*solver='lbfgs'\), which has no"),
        (SGDRegressor(), {"early_stopping": [True]}, r"the search chose SGDRegressor\(.*\), which sets rows aside"),
    ],
)
def test_a_search_that_chooses_what_cannot_learn_in_batches_is_left_out(learner, grid, sentence, trained):
    with pytest.raises(TrainingError, match=sentence):
        trained(GridSearchCV(learner, grid), numbered(), features=("area", "rooms"))


def test_a_sample_as_large_as_the_table_is_compared_on_all_of_it(trained):
    found = trained(Ledger(), numbered(), sample=1_000)
    assert found.compared_on == found.training_rows


@pytest.mark.parametrize(
    ("make", "learner"),
    [
        (a_spec, SGDRegressor()),
        (a_classifier, SGDClassifier(loss="log_loss")),
        (a_classifier, GaussianNB()),
    ],
)
def test_what_learned_in_batches_is_compiled_and_answers_the_same(make, learner, trained):
    rng = np.random.default_rng(4)
    towns = rng.choice(["Ames", "Boone", None], 2_000)
    table = a_table(2_000).append_column("town", pa.array(towns))
    if make is a_classifier:
        labels = np.where(table["price"].to_numpy() > 200, "yes", "no")
        table = table.drop_columns("price").append_column("price", pa.array(labels))
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["area", "rooms"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
    )
    features = ("area", "rooms", "town")
    found = trained(make_pipeline(columns, learner), table, make=make, sample=300, epochs=2, features=features)
    schema = describe(make(features=features), table).features
    program = CompiledModel(compile_pipeline(found.estimator(), schema))
    said = program(*columns_of(table, program.plan)).predictions
    expected = found.estimator().predict(to_frame(table, schema))
    assert (said == expected).all() if make is a_classifier else np.allclose(said, expected, rtol=1e-12, atol=0)


class Refusing(Ledger):
    """Learns no batches after all."""

    def partial_fit(self, X, y):
        raise ValueError("only with what is called warm_start")


def test_a_learner_that_refuses_batches_is_left_out_with_its_own_words(trained):
    with pytest.raises(TrainingError, match="only with what is called warm_start"):
        trained(Refusing(), numbered())


def test_a_network_learns_in_batches_and_is_answered_by_itself(trained):
    candidate = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(5,), learning_rate_init=0.1))
    table = numbered(2_000)
    found = trained(candidate, table, features=("area", "rooms"), sample=300, epochs=20)
    rows = to_frame(table, describe(a_spec(features=("area", "rooms")), table).features)
    error = found.estimator().predict(rows) - table["price"].to_numpy()
    # The noise of the price has a deviation of 5, the price itself of 73.
    assert np.sqrt(np.mean(error**2)) < 10


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0, "sample": 60}, "epochs is 0; set how often all rows are learned, 1 or more"),
        ({"epochs": 2}, "epochs is 2 but there is no sample to compare candidates .*; set sample="),
        (
            {"epochs": 2, "sample": 60, "candidates": {"ridge": make_pipeline(StandardScaler(), Ridge())}},
            r"epochs is 2, but candidate 'ridge' ends in Ridge\(\), which has no partial_fit; remove the candidate, or",
        ),
        (
            {"epochs": 2, "sample": 60, "candidates": {"mlp": MLPRegressor(solver="lbfgs")}},
            r"candidate 'mlp' ends in MLPRegressor\(solver='lbfgs'\), which has no partial_fit",
        ),
        (
            {"epochs": 2, "sample": 60, "candidates": {"sgd": SGDRegressor(early_stopping=True)}},
            r"'sgd' ends in SGDRegressor\(early_stopping=True\), which sets rows aside .*; remove the cand",
        ),
        (
            {"epochs": 2, "sample": 60, "candidates": {"sgd": SGDClassifier(class_weight="balanced")}},
            r"'sgd' ends in SGDClassifier\(class_weight='balanced'\), which weighs labels by their counts",
        ),
        ({"epochs": "2", "sample": 60}, "epochs is '2'; set how often all rows are learned, 1 or more"),
        ({"epochs": True, "sample": 60}, "epochs is True; set how often all rows are learned, 1 or more"),
    ],
)
def test_epochs_are_refused_where_they_cannot_be(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        a_spec(**changes)


def test_a_mask_of_another_file_is_refused(tmp_path):
    pyarrow.parquet.write_table(pa.table({"a": range(10)}), tmp_path / "x.parquet")
    sentence = r"rows of snapshot x\.parquet were erased in the meantime: it had 11 rows and now has 10; run"
    with pytest.raises(ArtifactError, match=sentence):
        SnapshotFile(tmp_path / "x.parquet").filter(np.ones(11, bool))
