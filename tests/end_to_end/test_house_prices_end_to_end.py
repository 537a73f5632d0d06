"""The whole loop on real data: from a table to an endpoint that answers every row as the pipeline itself does."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from project import CHECKOUT, Project
from serving import served

from pipeline.artifact import load_artifact

DATA = CHECKOUT.parent / "shared/data"
TABLE, UNLABELLED = DATA / "house_prices.csv", DATA / "house_prices_unlabelled.csv"

pytestmark = pytest.mark.slow
real_data = pytest.mark.skipif(not UNLABELLED.exists(), reason=f"there is no {UNLABELLED}")


def run(folder, url, *arguments):
    """Run the project's own model in an empty home; return what it said, and the project."""
    env = {"EVERGREEN_HOME": str(folder / "home"), "PREFECT_API_URL": url}
    project = Project(CHECKOUT, env)
    code, said = project.json("run", *arguments)
    assert (code, said["outcome"], said["release"]) == (0, "released", 1), said
    project.released = said
    return project


def estimator_of(project):
    """The released estimator, unpickled here."""
    tag = project.released["bento"].replace(":", "/")
    bentos = f"{project.env['EVERGREEN_HOME']}/bentoml/bentos"
    artifact = load_artifact(CHECKOUT / bentos / tag / "src/artifact")
    return artifact.estimator(), [feature.name for feature in artifact.schema.features]


def records(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def near(values):
    return pytest.approx(np.asarray(values), rel=1e-12, abs=0)


@pytest.fixture(scope="module")
def houses(tmp_path_factory, prefect_server):
    return run(tmp_path_factory.mktemp("houses"), prefect_server, "house_prices", "--data", str(TABLE))


@pytest.fixture(scope="module")
def server(houses, tmp_path_factory):
    with served(houses, "house_prices", tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def unlabelled():
    """The unlabelled rows, their null words as missing."""
    return pd.read_csv(UNLABELLED, keep_default_na=False, na_values=["NA", ""])


@pytest.fixture(scope="module")
def answered(server):
    """What the endpoint answers to the unlabelled file, sent as it is, in one request."""
    response = server.send(UNLABELLED.read_bytes())
    assert response.status_code == 200, response.text
    return list(csv.reader(io.StringIO(response.text)))


@real_data
def test_the_real_1460_sales_release_a_model_of_the_accuracy_that_is_claimed(houses):
    said = houses.released

    assert said["rows"] == 1460
    assert said["metrics"]["challenger"]["rmsle"] < 0.16
    assert said["metrics"]["baseline"]["rmsle"] > 0.35


@real_data
def test_every_unlabelled_row_is_answered_in_order_as_csv_in_one_request(answered, unlabelled):
    header, *rows = answered

    assert header == ["Id", "prediction"]
    assert len(rows) == 1459
    assert [int(row[0]) for row in rows] == unlabelled["Id"].tolist()
    predictions = np.array([float(row[1]) for row in rows])
    assert np.isfinite(predictions).all()
    assert (predictions > 10_000).all()
    assert 100_000 < np.median(predictions) < 250_000


@real_data
def test_json_of_the_same_rows_and_the_estimator_itself_answer_the_same(server, houses, answered, unlabelled):
    predictions = [float(row[1]) for row in answered[1:]]
    said = server.ask(*records(unlabelled)).json()
    estimator, features = estimator_of(houses)
    numbers = unlabelled.select_dtypes("number").columns

    assert (said["model"], said["release"]) == ("house_prices", 1)
    assert said["predictions"] == near(predictions)
    assert estimator.predict(unlabelled.astype(dict.fromkeys(numbers, "float64"))[features]) == near(predictions)


@real_data
def test_a_row_alone_is_answered_as_in_the_batch_nulls_included(server, answered, unlabelled):
    rows = unlabelled.sample(50, random_state=0)
    assert rows[["LotFrontage", "GarageType", "FireplaceQu"]].isna().any().all()

    alone = [server.ask(row).json()["predictions"][0] for row in records(rows)]

    predictions = [float(row[1]) for row in answered[1:]]
    assert alone == near([predictions[position] for position in rows.index])


@real_data
@pytest.mark.parametrize("name", ["GrLivArea", "OverallQual", "LotArea"])
def test_a_row_without_a_required_feature_is_refused_whole_naming_row_and_field(server, unlabelled, name):
    first, second = records(unlabelled.head(2))
    absent = {feature: value for feature, value in second.items() if feature != name}
    null = unlabelled.head(2).astype({name: "float64"})
    null.loc[1, name] = None

    for response, row in [
        (server.ask(first, absent), 1),
        (server.ask(first, second | {name: None}), 1),
        (server.send(null.to_csv(index=False, na_rep="NA")), 1),
        # A column that is not there is missing in every row, so none is named.
        (server.send(unlabelled.drop(columns=name).to_csv(index=False, na_rep="NA")), None),
    ]:
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        error = response.json()["errors"][0]
        assert (error["row"], error["field"]) == (row, name)


def test_breast_cancer_is_answered_with_labels_and_the_probabilities_of_the_estimator(tmp_path, prefect_server):
    from pipeline.models.breast_cancer import biopsies

    project = run(tmp_path, prefect_server, "breast_cancer")
    estimator, features = estimator_of(project)
    rows = biopsies()
    expected = estimator.predict_proba(rows[features])
    labels = estimator.classes_.tolist()
    assert labels == ["benign", "malignant"]

    with served(project, "breast_cancer", tmp_path / "log") as server:
        said = server.ask(*records(rows)).json()
        header, *table = csv.reader(io.StringIO(server.send(rows.to_csv(index=False)).text))

    assert [list(row) for row in said["probabilities"]] == [labels] * 569
    probabilities = np.array([list(row.values()) for row in said["probabilities"]])
    assert probabilities == pytest.approx(expected, rel=0, abs=1e-12)
    assert probabilities.sum(axis=1) == near(np.ones(569))
    assert said["predictions"] == [labels[column] for column in expected.argmax(axis=1)]
    assert np.mean(rows["diagnosis"] == said["predictions"]) > 0.95
    assert header == ["id", "prediction", "probability_benign", "probability_malignant"]
    assert [row[1] for row in table] == said["predictions"]
    assert np.array([row[2:] for row in table], dtype=float).tolist() == probabilities.tolist()
