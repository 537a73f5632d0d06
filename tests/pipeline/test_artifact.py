import hashlib
import hmac
import json
import pickle
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from packed import resealed
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tiny import Column, a_classifier, a_snapshot, a_spec, a_table

from pipeline import digest
from pipeline.artifact import UNSEEN, load_artifact, write_artifact
from pipeline.compiled import columns_of, compile_pipeline
from pipeline.errors import ArtifactError, FormatError, TrainingError
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.guard import Guard
from pipeline.predict import disagreements, predict
from pipeline.schema import to_frame, to_table
from pipeline.split import held_out
from pipeline.train import train

DIGESTS = {"snapshot": "a" * 64, "spec": "b" * 64, "code": "c" * 64}
BOTH = a_table(60).append_column("town", pa.array(["Ames", "Nevada", "Boone"] * 20))


def encoder(**options):
    return make_column_transformer(
        (OneHotEncoder(**options), ["town"]), (SimpleImputer(), ["area", "rooms"]), verbose_feature_names_out=False
    )


def tolerant(model):
    return make_pipeline(encoder(handle_unknown="ignore"), model)


def strict(model):
    return make_pipeline(encoder(handle_unknown="error"), model)


@pytest.fixture
def written(tmp_path):
    """Train one candidate on a table and write its artifact."""

    def write(candidate, table=BOTH, make=a_spec, folder="artifact", guards=(), **changes):
        spec = make(candidates={"c": candidate}, folds=2, **changes)
        snapshot = a_snapshot(table, tmp_path)
        trained = train(spec, snapshot, tmp_path / "trained", workers=1)
        evaluation = evaluate(spec, table, trained.rule, trained.estimator(), None)
        verdict = decide(evaluation, spec.gate)
        place = tmp_path / folder
        return write_artifact(spec, snapshot, trained, evaluation, verdict, DIGESTS, ["numpy==2"], place, guards)

    return write


def parsed(rows, features):
    """The rows as the endpoint reads them from JSON."""
    times = {one.name for one in features if one.type == "timestamp"}
    return [
        {name: datetime.fromisoformat(v) if name in times and v is not None else v for name, v in row.items()}
        for row in json.loads(json.dumps(rows, allow_nan=False))
    ]


def test_golden_rows_are_json_and_are_answered_again_alone_and_together(written):
    sold = [None if row % 7 == 0 else datetime(2024, 1, 1) + timedelta(days=row) for row in range(60)]
    table = BOTH.append_column("sold", pa.array(sold, pa.timestamp("us")))
    table = table.append_column("new", pa.array([row % 2 == 0 for row in range(60)]))
    artifact = written(tolerant(HistGradientBoostingRegressor(max_iter=5)), table)
    rows, answers = artifact.golden()
    features = artifact.schema.features
    together = predict(artifact.estimator(), to_frame(to_table(parsed(rows, features), features), features))
    assert disagreements(together, answers, artifact.manifest["scale"]) == []
    for row, answer in zip(rows, answers.predictions, strict=True):
        alone = predict(artifact.estimator(), to_frame(to_table(parsed([row], features), features), features))
        assert alone.predictions[0] == answer


def test_golden_rows_of_a_classifier_keep_labels_and_probabilities(written):
    labels = np.where(BOTH["area"].to_numpy() > 60, "yes", "no").tolist()
    table = BOTH.set_column(BOTH.column_names.index("price"), "price", pa.array(labels))
    artifact = written(tolerant(LogisticRegression()), table, a_classifier)
    rows, answers = artifact.golden()
    assert answers.labels == ("no", "yes")
    assert answers.probabilities.shape == (len(rows), 2)
    assert set(answers.predictions) == {"no", "yes"}
    assert artifact.manifest["scale"] == 1.0


def test_golden_rows_are_held_out_rows_with_the_extremes_a_missing_and_an_unseen_one(written):
    area = [None if row == 33 else value for row, value in enumerate(BOTH["area"].to_pylist())]
    table = BOTH.set_column(BOTH.column_names.index("area"), "area", pa.array(area))
    artifact = written(tolerant(Ridge()), table)
    *real, missing, unseen = artifact.golden()[0]
    held = table.filter(held_out(_rule(artifact), table))
    seen = [{name: row[name] for name in ("area", "rooms", "town")} for row in held.to_pylist()]
    assert all(row in seen for row in real)
    areas = [row["area"] for row in seen if row["area"] is not None]
    assert {min(areas), max(areas)} <= {row["area"] for row in real}
    assert missing == {**real[0], "area": None}
    assert unseen == {**real[0], "town": UNSEEN}


def _rule(artifact):
    from pipeline.split import Rule

    return Rule.from_dict(artifact.manifest["holdout"])


def test_of_very_many_held_out_rows_golden_ones_are_taken_from_a_sample_that_is_the_same_again(written, monkeypatch):
    whole = written(tolerant(Ridge())).golden()[0]
    monkeypatch.setattr("pipeline.artifact.MAX_HELD_OUT", 7)
    artifact = written(tolerant(Ridge()))
    *real, _, _ = artifact.golden()[0]
    held = BOTH.filter(held_out(_rule(artifact), BOTH)).to_pylist()
    assert len(real) == 7 < len(held) <= len(whole)
    assert all(row in [{name: one[name] for name in row} for one in held] for row in real)
    assert written(tolerant(Ridge())).golden()[0][:7] == real


def test_an_unseen_category_is_no_golden_row_of_a_pipeline_that_refuses_it(written):
    rows, answers = written(strict(Ridge())).golden()
    assert len(rows) == len(answers.predictions)
    assert UNSEEN not in {row["town"] for row in rows}


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (make_pipeline(make_column_transformer(("passthrough", ["area", "rooms"])), Ridge()), "ValueError: Input X"),
        (Column("area"), "ValueError: it predicts nan"),
    ],
)
def test_a_pipeline_that_cannot_answer_what_its_spec_lets_be_null_is_refused_by_name(candidate, why, written, tmp_path):
    with pytest.raises(TrainingError, match=rf"houses allows 'area' to be null, .* cannot predict such a row: {why}"):
        written(candidate, nullable=("area",))
    assert not (tmp_path / "artifact").exists()


def test_the_manifest_says_what_was_made_from_what(written, tmp_path):
    artifact = written(tolerant(Ridge()))
    manifest = artifact.manifest
    mask = held_out(_rule(artifact), BOTH)
    assert manifest["digests"] == DIGESTS | {"model": digest.of_file(tmp_path / "artifact" / "model.joblib")}
    assert (manifest["model"], manifest["target"], manifest["estimator"]) == ("houses", "price", "c")
    assert manifest["task"] == {"unit": "USD", "kind": "regression"}
    assert manifest["rows"] == {"training": int((~mask).sum()), "holdout": int(mask.sum())}
    assert manifest["scale"] == pytest.approx(np.std(BOTH["price"].to_numpy()[~mask]))
    assert manifest["requirements"] == ["numpy==2"]
    assert manifest["verdict"]["passed"] in (True, False)
    assert [one.name for one in artifact.schema.features] == ["area", "rooms", "town"]


def test_an_artifact_is_loaded_by_its_digest_wherever_it_lies(written, tmp_path):
    artifact = written(tolerant(Ridge()))
    shutil.copytree(artifact.folder, tmp_path / "copy")
    assert load_artifact(tmp_path / "copy", artifact.digest).manifest == artifact.manifest


FILES = ["model.joblib", "golden.json", "plan.json", "plan.npz"]
KEY = "EVERGREEN_SIGNING_KEY"


def flip(path, at=10):
    """Change one bit of a file, in a copy of its own: a file may be another folder's as well."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_manifest_names_every_file_by_its_digest_and_its_own_names_the_artifact(written):
    artifact = written(tolerant(Ridge()))
    others = {path.name: path.read_bytes() for path in artifact.folder.iterdir() if path.name != "manifest.json"}
    assert sorted(others) == sorted(FILES)
    assert artifact.manifest["files"] == {name: hashlib.sha256(found).hexdigest() for name, found in others.items()}
    assert artifact.digest == hashlib.sha256((artifact.folder / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("expected", [True, False], ids=["in the ledger", "in no ledger"])
@pytest.mark.parametrize("name", FILES)
def test_an_artifact_with_one_changed_byte_is_refused_and_the_file_named(name, expected, written):
    artifact = written(tolerant(Ridge()))
    flip(artifact.folder / name)
    with pytest.raises(ArtifactError, match=rf"artifact/{name} has changed since it was written: its digest is"):
        load_artifact(artifact.folder, artifact.digest if expected else None)
    if name == "model.joblib":
        with pytest.raises(ArtifactError, match="has changed since it was written"):
            artifact.estimator()


def test_an_edited_manifest_is_refused_by_the_ledgers_digest(written):
    artifact = written(tolerant(Ridge()))
    resealed(artifact.folder, verdict={"passed": True, "reasons": ["trust me"]})
    with pytest.raises(ArtifactError, match=r"has changed since it was written: the digest of manifest.json is"):
        load_artifact(artifact.folder, artifact.digest)


def test_a_swapped_file_is_refused_before_anything_in_it_runs_even_when_the_manifest_was_edited_to_fit(
    written, tmp_path
):
    artifact = written(tolerant(Ridge()))
    bomb = artifact.folder / "model.joblib"
    bomb.unlink()
    bomb.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ArtifactError, match=r"model.joblib has changed since it was written"):
        load_artifact(artifact.folder).estimator()

    fits = resealed(artifact.folder)

    with pytest.raises(ArtifactError, match=r"manifest.json is"):
        load_artifact(artifact.folder, artifact.digest).estimator()
    assert not (tmp_path / "ran").exists()
    # The bomb is a real one.
    load_artifact(artifact.folder, fits).estimator()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_an_artifact_that_lacks_a_file_is_refused(name, written):
    artifact = written(tolerant(Ridge()))
    (artifact.folder / name).unlink()
    with pytest.raises(ArtifactError, match=rf"is not an artifact: {name} cannot be read|lacks the file {name}"):
        load_artifact(artifact.folder)


def test_an_artifact_with_a_file_too_many_is_refused(written):
    artifact = written(tolerant(Ridge()))
    (artifact.folder / "deep").mkdir()
    (artifact.folder / "deep" / "model.so").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"has deep/model.so, which is not in manifest.json"):
        load_artifact(artifact.folder, artifact.digest)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "files": 3}', "\udcff"])
def test_a_manifest_that_is_none_is_refused(text, written):
    artifact = written(tolerant(Ridge()))
    (artifact.folder / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"is not an artifact: manifest.json is not as evergreen writes it"):
        load_artifact(artifact.folder)


def test_an_artifact_of_another_format_is_refused(written):
    artifact = written(tolerant(Ridge()))
    resealed(artifact.folder, format=99)
    with pytest.raises(FormatError) as refused:
        load_artifact(artifact.folder)
    assert refused.value.code == "format.too_new"


def test_with_a_key_what_was_signed_with_it_is_loaded_and_nothing_else(written, monkeypatch):
    unsigned = written(tolerant(Ridge()), folder="unsigned")
    monkeypatch.setenv(KEY, "ours")
    signed = written(tolerant(Ridge()), folder="signed")
    content = (signed.folder / "manifest.json").read_bytes()
    assert (signed.folder / "manifest.sig").read_text() == hmac.new(b"ours", content, "sha256").hexdigest() + "\n"

    assert load_artifact(signed.folder).digest == signed.digest
    with pytest.raises(ArtifactError, match=r"unsigned is not signed: manifest.sig cannot be read .* MODEL --force"):
        load_artifact(unsigned.folder, unsigned.digest)
    resealed(signed.folder, model="other")
    with pytest.raises(ArtifactError, match=r"signed: manifest.sig does not match manifest.json and this EVERGREEN"):
        load_artifact(signed.folder)


@pytest.mark.parametrize("said", [b"", b"\xff\n", b"0" * 64, b"0" * 1000])
def test_another_key_or_signature_is_refused(said, written, monkeypatch):
    monkeypatch.setenv(KEY, "ours")
    signed = written(tolerant(Ridge()))
    monkeypatch.setenv(KEY, "theirs")
    with pytest.raises(ArtifactError, match=r"manifest.sig does not match"):
        load_artifact(signed.folder)
    monkeypatch.setenv(KEY, "ours")
    (signed.folder / "manifest.sig").write_bytes(said)
    with pytest.raises(ArtifactError, match=r"manifest.sig does not match"):
        load_artifact(signed.folder)


def test_without_a_key_signatures_are_not_looked_at_and_a_signature_is_in_no_digest(written, monkeypatch):
    monkeypatch.setenv(KEY, "ours")
    signed = written(tolerant(Ridge()))
    monkeypatch.delenv(KEY)
    (signed.folder / "manifest.sig").write_bytes(b"anything")
    assert load_artifact(signed.folder).digest == signed.digest


def test_the_same_training_written_twice_has_one_digest_with_a_key_and_without(tmp_path, monkeypatch):
    spec = a_spec(candidates={"c": tolerant(Ridge())}, folds=2)
    snapshot = a_snapshot(BOTH, tmp_path)
    trained = train(spec, snapshot, tmp_path / "trained", workers=1)
    evaluation = evaluate(spec, BOTH, trained.rule, trained.estimator(), None)
    verdict = decide(evaluation, spec.gate)
    found = set()
    for name, key in (("one", ""), ("two", ""), ("three", "ours")):
        monkeypatch.setenv(KEY, key)
        made = write_artifact(spec, snapshot, trained, evaluation, verdict, DIGESTS, [], tmp_path / name)
        found.add(made.digest)
    assert len(found) == 1


def test_a_pipeline_of_known_steps_is_answered_by_a_plan_proven_on_thousands_of_rows(written):
    artifact = written(tolerant(Ridge()))

    answers = artifact.manifest["answers"]
    assert (answers["by"], answers["why"]) == ("plan", None)
    assert answers["proof"]["rows"] > 2000
    rows, golden = artifact.golden()
    program = artifact.compiled_model()
    again = program(
        *columns_of(to_table(parsed(rows, artifact.schema.features), artifact.schema.features), program.plan)
    )
    assert disagreements(again, golden, artifact.manifest["scale"]) == []


@pytest.mark.parametrize(("model", "by"), [(Ridge(), "plan"), (KNeighborsRegressor(), "estimator")])
def test_the_manifest_says_how_much_each_feature_counts(model, by, written):
    manifest = written(tolerant(model)).manifest
    assert manifest["answers"]["by"] == by
    # The price is 3 area + 10 rooms, and the area has by far the larger spread.
    assert manifest["importance"][0]["feature"] == "area"
    assert manifest["importance"][0]["importance"] > 10
    assert {line["feature"] for line in manifest["importance"]} == {"area", "rooms", "town"}


def test_a_step_the_compiler_does_not_know_leaves_the_estimator_to_answer_and_is_named(written):
    artifact = written(tolerant(KNeighborsRegressor()))

    answers = artifact.manifest["answers"]
    assert answers["by"] == "estimator"
    assert "KNeighborsRegressor" in answers["why"]
    assert artifact.compiled_model() is None


def test_a_plan_that_answers_otherwise_is_not_packaged_and_the_proof_is_kept(written, monkeypatch):
    def wrong(estimator, features):
        plan = compile_pipeline(estimator, features)
        last = plan.operations[-1]
        changed = replace(last, parameters={**last.parameters, "intercept": last.parameters["intercept"] + 1e-6})
        return replace(plan, operations=(*plan.operations[:-1], changed))

    monkeypatch.setattr("pipeline.artifact.compile_pipeline", wrong)
    artifact = written(tolerant(Ridge()))

    answers = artifact.manifest["answers"]
    assert answers["by"] == "estimator"
    assert answers["why"].startswith("the plan answers otherwise")
    assert answers["proof"]["wrong"] > 0
    assert not (artifact.folder / "plan.json").exists()


def test_golden_rows_are_such_as_the_guards_accept_and_refused_nulls_make_a_feature_required(written):
    table = BOTH.set_column(1, "area", pa.array([None if row % 9 == 0 else row for row in range(60)], pa.float64()))
    guards = (
        Guard(feature="area", kind="range", minimum=10.0, maximum=50.0, refuse=True),
        Guard(feature="area", kind="null", refuse=True),
        Guard(feature="rooms", kind="range", maximum=0.0),
    )
    artifact = written(tolerant(Ridge()), table, guards=guards)
    rows, _ = artifact.golden()
    assert len(rows) > 5
    assert all(10 <= row["area"] <= 50 for row in rows)
    assert artifact.guards == guards
    assert [one.required for one in artifact.schema.features if one.name == "area"] == [True]


def test_guards_that_would_refuse_every_held_out_row_are_an_error(written):
    nowhere = Guard(feature="area", kind="range", minimum=1000.0, refuse=True)
    with pytest.raises(TrainingError, match=r"would refuse every held-out row, .* unless area is at least 1000"):
        written(tolerant(Ridge()), guards=[nowhere])
