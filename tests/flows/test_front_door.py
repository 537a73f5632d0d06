"""The Python front door, on a project that holds nothing but its own models, suites and data."""

import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from project import CHECKOUT, MODEL, SUITE, points, shuffled
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tiny import a_classifier, a_snapshot, a_spec

import evergreen
from bentos.endpoint.model import ServedModel
from flows.notebook import LoadedModel
from pipeline import digest
from pipeline.artifact import write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import Check, Verdict, decide
from pipeline.snapshot import SnapshotFile
from pipeline.train import train

ASK = """
import sys
from pathlib import Path
from bentos.endpoint import formats
from bentos.endpoint.model import ServedModel
from pipeline.artifact import load_artifact
answered = ServedModel(load_artifact(Path("artifact")), 1).answer(formats.JSON, sys.stdin.buffer.read())
sys.stdout.write(answered.body.decode())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, prefect_server):
    """A project of an installed evergreen, with a release; the current folder is one below it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipeline/models", "expectations/suites", "notebooks"):
        (folder / name).mkdir(parents=True)
    (folder / "pipeline" / "models" / "points.py").write_text(MODEL)
    (folder / "expectations" / "suites" / "points.py").write_text(SUITE)
    points().to_csv(folder / "points.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_server)
        for name in ("EVERGREEN_HOME", "EVERGREEN_PROJECT", "EVERGREEN_DATABASE_URL"):
            patch.delenv(name, raising=False)
        patch.chdir(folder / "notebooks")
        outcome = evergreen.run("points")
        assert outcome.outcome == "released", outcome
        yield folder


@pytest.fixture(scope="module")
def model(project):  # noqa: ARG001
    return evergreen.load("points")


def endpoint(project, records):
    """What the package answers to records, as the bytes of its response say, in a process with its own code."""
    [source] = (project / ".evergreen" / "bentoml" / "bentos" / "points").glob("*/src")
    body = json.dumps({"records": records}).encode()
    done = subprocess.run([sys.executable, "-c", ASK], cwd=source, input=body, capture_output=True, check=True)
    return json.loads(done.stdout)


def bits(values):
    return np.asarray(values, dtype=np.float64).view(np.int64).tolist()


def test_the_state_is_in_the_project_and_nothing_is_beside_the_code(project):
    assert (project / ".evergreen" / "ledger.sqlite").exists()
    assert not (project / "notebooks" / ".evergreen").exists()
    assert not (CHECKOUT / "pipeline" / "models" / "points.py").exists()


def test_a_package_carries_the_project_s_model_and_evergreen_s_own_code(project):
    [source] = (project / ".evergreen" / "bentoml" / "bentos" / "points").glob("*/src")
    assert [path.name for path in sorted((source / "pipeline" / "models").glob("*.py"))] == ["points.py"]
    assert (source / "pipeline" / "artifact.py").read_bytes() == (CHECKOUT / "pipeline" / "artifact.py").read_bytes()


def test_golden_rows_are_predicted_to_the_bit_as_the_package_answers_them(project, model):
    rows, _ = model._served.artifact.golden()
    assert bits(model.predict(rows)) == bits(endpoint(project, rows)["predictions"])
    assert bits(model.predict(pd.DataFrame(rows))) == bits(endpoint(project, rows)["predictions"])


def test_a_frame_is_predicted_to_the_bit_as_its_rows_are_sent_and_keeps_its_index(project, model):
    frame = points(40, seed=7).assign(z=np.pi).set_index(np.arange(100, 140))
    frame.loc[[103, 110], "z"] = np.nan
    records = [{"x": x, "z": None if np.isnan(z) else z} for x, z in zip(frame["x"], frame["z"], strict=True)]
    found = model.predict(frame)
    assert bits(found) == bits(endpoint(project, records)["predictions"])
    assert found.index.tolist() == frame.index.tolist()


def test_a_row_that_the_endpoint_refuses_is_named(model):
    with pytest.raises(evergreen.EvergreenError, match="row 1: field 'x': is null and is required"):
        model.predict(pd.DataFrame({"x": [1.0, None], "z": 0.0}))
    with pytest.raises(evergreen.EvergreenError, match="row 0: field 'x': Infinity is not a number"):
        model.predict(pd.DataFrame({"x": [np.inf], "z": 0.0}))
    with pytest.raises(evergreen.EvergreenError, match="give a DataFrame or a list of dicts"):
        model.predict({"x": 1.0})


def test_the_evaluation_has_the_held_out_rows_with_truth_and_prediction(model):
    found = model.evaluation()
    assert list(found.columns) == ["id", "x", "z", "truth", "prediction"]
    assert len(found) == model._release.evaluation["rows"]
    rmse = float(np.sqrt(((found["truth"] - found["prediction"]) ** 2).mean()))
    assert rmse == pytest.approx(model.metrics["rmse"], rel=1e-12)


def test_the_estimator_is_the_project_s_and_answers_as_the_model(model):
    frame = points(16, seed=3)[["x", "z"]]
    assert type(model.estimator[1]).__module__ == "pipeline.models.points"
    assert model.estimator.predict(frame).tolist() == pytest.approx(model.predict(frame).tolist(), rel=1e-12)


def test_history_and_snapshot_are_frames(project, model):
    found = evergreen.history("points")
    assert found.index.tolist() == [1]
    assert found.loc[1, "state"] == "champion"
    assert found.loc[1, "rmse"] == model.metrics["rmse"]
    pd.testing.assert_frame_equal(evergreen.snapshot("points"), pd.read_csv(project / "points.csv"))


@pytest.mark.usefixtures("project")
def test_a_run_on_a_frame_that_teaches_nothing_keeps_the_champion():
    outcome = evergreen.run("points", data=shuffled(points()))
    assert outcome.outcome == "kept"
    assert "rmse" in outcome._repr_html_()
    assert evergreen.load("points").release == 1


@pytest.mark.usefixtures("project")
def test_bad_data_is_told_and_a_relative_path_is_one_from_the_current_folder():
    points().assign(x=1e6).to_csv("bad.csv", index=False)
    found = evergreen.validate("points", "bad.csv")
    assert not found.passed
    assert "'x'" in found.reasons[0]
    assert found.rules["passed"].tolist().count(False) == 1
    assert evergreen.validate("points").passed


@pytest.mark.usefixtures("project")
def test_what_is_not_there_is_an_error_with_a_way_out(tmp_path, monkeypatch):
    with pytest.raises(evergreen.EvergreenError, match="did you mean 'points'"):
        evergreen.load("point")
    with pytest.raises(evergreen.EvergreenError, match="release 9"):
        evergreen.load("points", release=9)
    with pytest.raises(evergreen.EvergreenError, match=r"there is no file .*gone.csv"):
        evergreen.run("points", data="gone.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(evergreen.EvergreenError, match=r"no evergreen project .* set EVERGREEN_PROJECT"):
        evergreen.load("points")


def loaded(spec, table, folder):
    """A model of a table, without a project and a release."""
    snapshot = a_snapshot(table, folder)
    trained = train(spec, snapshot, folder / "trained", workers=1)
    evaluation = evaluate(spec, SnapshotFile(snapshot.path), trained.rule, trained.estimator(), None)
    verdict, digests = decide(evaluation, spec.gate), {"snapshot": snapshot.digest, "spec": digest.of_value(spec)}
    artifact = write_artifact(
        spec, snapshot, trained, evaluation, verdict, digests | {"code": "0" * 64}, (), folder / "artifact"
    )

    class Released:
        model, number, created, bento = spec.name, 1, "2026-01-01T00:00:00+00:00", "houses:1"

    Released.evaluation, Released.verdict = evaluation.to_dict(), verdict.to_dict()
    return LoadedModel(Released, ServedModel(artifact, 1))


def of_all_types(rows=120):
    rng = np.random.default_rng(0)
    area = rng.normal(0, 1, rows)
    return pa.table(
        {
            "id": np.arange(rows),
            "area": pa.array([None if place % 9 == 0 else value for place, value in enumerate(area.tolist())]),
            "town": pa.array(["<b>A</b>" if place % 3 else "B" for place in range(rows)]),
            "new": pa.array([None if place % 7 == 0 else bool(place % 2) for place in range(rows)]),
            "sold": pa.array([datetime(2024, 1, 1 + place % 28) for place in range(rows)], pa.timestamp("us")),
            "price": pa.array(["yes" if value > 0 else "no" for value in area.tolist()]),
        }
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    pipeline = make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["area", "new"]),
            (OneHotEncoder(handle_unknown="ignore"), ["town"]),
        ),
        LogisticRegression(),
    )
    spec = a_classifier(candidates={"logistic": pipeline}, sensitive=("town",))
    return loaded(spec, of_all_types(), tmp_path_factory.mktemp("classifier"))


def test_texts_booleans_times_and_nulls_are_read_as_from_a_request(classifier):
    frame = of_all_types(30).to_pandas().drop(columns="price")
    frame["town"] = frame["town"].astype("category").cat.add_categories(["never seen"])
    frame.loc[4, "town"] = "never seen"
    records = [
        {**row, "sold": row["sold"].isoformat(), "town": "never seen" if row["id"] == 4 else row["town"]}
        for row in of_all_types(30).drop(["price"]).to_pylist()
    ]
    answered = json.loads(classifier._served.answer("application/json", json.dumps({"records": records}).encode()).body)
    assert classifier.predict(frame).tolist() == answered["predictions"]
    found = classifier.predict_proba(frame)
    assert list(found.columns) == ["no", "yes"]
    assert bits(found["yes"]) == bits([one["yes"] for one in answered["probabilities"]])


def test_a_regression_has_no_probabilities_and_every_bit_of_its_predictions(tmp_path):
    rng = np.random.default_rng(5)
    area = rng.normal(0, 1, 200)
    table = pa.table({"id": np.arange(200), "area": area, "price": 3 * area + rng.normal(0, 0.1, 200)})
    model = loaded(a_spec(candidates={"ridge": Ridge()}), table, tmp_path)
    values = np.concatenate([rng.normal(0, 1, 500), np.nextafter(1, [0, 2]), [5e-324, -0.0, 1e-300, 0.1 + 0.2]])
    body = json.dumps({"records": [{"area": value} for value in values.tolist()]}).encode()
    answered = json.loads(model._served.answer("application/json", body).body)["predictions"]
    assert bits(model.predict(pd.DataFrame({"area": values}))) == bits(answered)
    with pytest.raises(evergreen.EvergreenError, match="has no probabilities; use predict"):
        model.predict_proba(pd.DataFrame({"area": values}))


def test_the_model_is_shown_escaped_and_without_values_of_sensitive_columns(classifier):
    shown = classifier._repr_html_() + classifier.verdict._repr_html_() + json.dumps(classifier.card)
    assert "town" in shown
    assert "<b>A</b>" not in shown
    assert "&lt;b&gt;A" not in shown
    hostile = Verdict(False, (Check(False, "<script>alert(1)</script>"),))
    assert "<script>" not in hostile._repr_html_()
    outcome = evergreen.Outcome("houses", "kept", ("<script>",), metrics={"challenger": {"<i>": 1.0}})
    assert "<script>" not in outcome._repr_html_()
    assert "<i>" not in outcome._repr_html_()


def test_importing_it_imports_no_framework_and_loading_no_prefect(run_python):
    code = "import sys, evergreen; print({'pandas', 'sklearn', 'prefect', 'bentoml', 'flows'} & set(sys.modules))"
    assert run_python(code) == "set()"
    code = (
        "import sys, evergreen; evergreen.load; print({'prefect', 'bentoml', 'great_expectations'} & set(sys.modules))"
    )
    assert run_python(code) == "set()"


def test_the_table_of_contents_names_what_is_there():
    for name in evergreen.__all__:
        assert getattr(evergreen, name).__doc__, name
    assert dir(evergreen) == evergreen.__all__
    with pytest.raises(AttributeError, match="has no attribute 'fit'; it has "):
        evergreen.fit  # noqa: B018
