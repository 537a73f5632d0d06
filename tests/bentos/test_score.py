import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from packed import artifacts_of
from project import copy_of_the_project, points

from bentos.endpoint.batch import Batch
from bentos.endpoint.parse_strict import read_csv
from bentos.endpoint.problems import Problem
from bentos.score import score_packaged
from bentos.scoring.output import Output
from bentos.scoring.validation import RowValidator
from pipeline.errors import ArtifactError, DataError, FormatError, SourceError
from pipeline.guard import Guard
from pipeline.run_in_package import write_protocol
from pipeline.schema import Feature, Schema

COMPILED = '''
"""Sizes and colours, yes or no."""

from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeline.sources import Csv
from pipeline.spec import BinaryClassification, Gate, ModelSpec

spec = ModelSpec(
    name="colours",
    source=Csv("colours.csv", na_values=("", "NA")),
    key=("id",),
    target="bought",
    task=BinaryClassification(positive="yes"),
    candidates={
        "logistic": make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), ["size", "new"]),
                # A colour it has not seen it refuses: the endpoint has no answer for such a row.
                (OneHotEncoder(handle_unknown="error"), ["colour"]),
            ),
            LogisticRegression(),
        )
    },
    metric="roc_auc",
    gate=Gate(at_least=0.5),
)
'''


def colours(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"{number:05}" for number in range(rows)],
            "size": rng.normal(10, 3, rows).round(3),
            "new": rng.random(rows) < 0.5,
            "colour": rng.choice(["red", "green", "blue"], rows),
        }
    )
    frame["bought"] = np.where(frame["size"] + 3 * frame["new"] + rng.normal(0, 2, rows) > 11, "yes", "no")
    frame.loc[::7, "size"] = np.nan
    return frame


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Packages, as far as scoring goes: `points` answers by its estimator, `colours` by its plan."""
    folder = tmp_path_factory.mktemp("score")
    (folder / "project").mkdir()
    project = copy_of_the_project(folder / "project", "http://127.0.0.1:9/api")
    project.write("pipeline/models/colours.py", COMPILED)
    project.data(colours(), "colours.csv")
    found = {}
    for artifact in artifacts_of(project, "points", "colours"):
        package = folder / artifact.manifest["model"]
        package.mkdir()
        for room in ("pipeline", "bentos"):
            (package / room).symlink_to(project.folder / room)
        (package / "artifact").symlink_to(artifact.folder)
        write_protocol(package)
        found[package.name] = (package, artifact)
    assert {name: one.manifest["answers"]["by"] for name, (_, one) in found.items()} == {
        "points": "estimator",
        "colours": "plan",
    }
    return found


@pytest.fixture
def scored(packages, tmp_path):
    """Score a source by one of the packages; return what came of it."""

    def run(model, source, output, heard=None):
        package, _ = packages[model]
        tell = (lambda _: None) if heard is None else heard.append
        return score_packaged(package, request(packages, tmp_path, model, source, output), tell)

    return run


def request(packages, folder, model, source, output):
    artifact = packages[model][1]
    (folder / "waiting").mkdir(exist_ok=True)
    return {
        "artifact": artifact.digest,
        "release": 7,
        "source": source,
        "output": {"kind": output.kind, "where": output.where, "url_env": output.url_env},
        "rejected": str(folder / "rejected.csv"),
        "folder": str(folder / "waiting"),
    }


def parquet(path):
    return {"kind": "Parquet", "path": str(path)}


def csv(path, **dialect):
    return {"kind": "Csv", "path": str(path), "separator": ",", "decimal": ".", "encoding": "utf-8"} | dialect


ENDPOINT = """
import json, sys
from pathlib import Path
from bentos.endpoint import formats
from bentos.endpoint.problems import Problem
from bentos.endpoint.model import ServedModel
from pipeline.artifact import load_artifact

served = ServedModel(load_artifact(Path("artifact")), 7)
records = json.loads(sys.stdin.read())

def ask(rows):
    answered = served.answer(formats.JSON, json.dumps({"records": rows}).encode())
    return None if isinstance(answered, Problem) else json.loads(answered.body)

alone = [ask([record]) for record in records]
taken = [record for record, answer in zip(records, alone) if answer]
print(json.dumps([alone, ask(taken)]))
"""


def endpoint(package, frame):
    """What the endpoint answers to each row alone, None where it refuses; and to all that it takes at once."""
    records = [{name: value for name, value in row.items() if value == value} for row in frame.to_dict("records")]
    code = [sys.executable, "-c", ENDPOINT]
    done = subprocess.run(code, cwd=package, input=json.dumps(records), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_scores_of_a_plan_are_the_endpoints_to_the_last_bit(packages, scored, tmp_path):
    frame = colours(2_000, seed=1).drop(columns="bought")
    frame.to_parquet(tmp_path / "in.parquet")
    found = scored("colours", parquet(tmp_path / "in.parquet"), Output("parquet", str(tmp_path / "out.parquet")))
    assert (found["rows"], found["scored"], found["rejected"]) == (2_000, 2_000, 0)
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.column_names == ["id", "prediction", "probability_no", "probability_yes"]
    assert out.column("id").to_pylist() == frame["id"].tolist()
    alone, together = endpoint(packages["colours"][0], frame)
    assert out.column("prediction").to_pylist() == together["predictions"]
    for label in ("no", "yes"):
        probabilities = out.column(f"probability_{label}").to_pylist()
        assert probabilities == [one[label] for one in together["probabilities"]]
        assert probabilities == [one["probabilities"][0][label] for one in alone]


def test_scores_of_an_estimator_are_the_endpoints_to_the_last_bit(packages, scored, tmp_path):
    frame = points(2_500, seed=1)[["id", "x", "z"]]
    frame.to_csv(tmp_path / "in.csv", index=False)
    scored("points", csv(tmp_path / "in.csv"), Output("parquet", str(tmp_path / "out.parquet")))
    out = pq.read_table(tmp_path / "out.parquet")
    alone, together = endpoint(packages["points"][0], frame)
    assert out.column("prediction").to_pylist() == together["predictions"]
    assert out.column("prediction").to_pylist() == [one["predictions"][0] for one in alone]
    assert out.column("id").to_pylist() == [str(number) for number in range(2_500)]


def test_rows_that_the_model_has_no_answer_for_spoil_no_other(packages, scored, tmp_path):
    frame = colours(1_000, seed=2).drop(columns="bought")
    frame.loc[[0, 499, 998], "colour"] = "mauve"
    frame.to_parquet(tmp_path / "in.parquet")
    found = scored("colours", parquet(tmp_path / "in.parquet"), Output("csv", str(tmp_path / "out.csv")))
    assert (found["scored"], found["rejected"]) == (997, 3)
    rejected = pd.read_csv(tmp_path / "rejected.csv", dtype=str)
    assert rejected["_row"].tolist() == ["1", "500", "999"]
    assert set(rejected["_reason"]) == {"the model has no answer for this row"}
    assert rejected["id"].tolist() == ["00000", "00499", "00998"]
    alone, _ = endpoint(packages["colours"][0], frame)
    out = pd.read_csv(tmp_path / "out.csv", dtype={"id": str})
    assert [place for place, one in enumerate(alone) if one is None] == [0, 499, 998]
    assert out["id"].tolist() == [f"{place:05}" for place, one in enumerate(alone) if one]
    assert out["probability_yes"].tolist() == [one["probabilities"][0]["yes"] for one in alone if one]


SCHEMA = Schema(
    features=(
        Feature("n", "number", required=True),
        Feature("m", "number", required=False),
        Feature("b", "boolean", required=False),
        Feature("t", "timestamp", required=False),
        Feature("w", "text", required=True),
    ),
    key=("id",),
    ignored=("y",),
    nulls=("NA",),
)
ROWS = [
    {"n": "1", "m": " 2.5 ", "b": "true", "t": "2024-05-31T12:00:00Z", "w": "a"},
    {"n": "abc", "m": "NA", "b": "", "t": "NA", "w": ""},
    {"n": "", "m": "", "b": "FALSE", "t": "2024-05-31", "w": "b"},
    {"n": "nan", "m": "inf", "b": "yes", "t": "soon", "w": "NA"},
    {"n": "1e400", "m": "+5", "b": " False", "t": "2024-05-31 12:00", "w": " NA"},
    {"n": "-.5e1", "m": "5.", "b": "", "t": "", "w": "x,y"},
    {"n": "11", "m": "0x10", "b": "1", "t": "2024-W22-5", "w": "b"},
    {"n": "11", "m": "1_000", "b": "", "t": "", "w": "b"},
    {"n": "11", "m": "1", "b": "", "t": "", "w": "b"},
]


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_words_are_accepted_read_and_refused_as_the_endpoint_does(row):
    guards = [Guard(feature="n", kind="range", maximum=10.0, refuse=True)]
    admission = RowValidator(SCHEMA, guards)
    # Among all others, as well as alone.
    words = {name: pa.array([one[name] for one in ROWS], pa.string()) for name in ROWS[0]}
    nulls = {
        name: pa.array([None if value == "NA" else value for value in column.to_pylist()])
        for name, column in words.items()
    }
    features, refused = admission.validate(pa.table(nulls))
    body = ",".join(ROWS[row]) + "\n" + ",".join(f'"{word}"' for word in ROWS[row].values()) + "\n"
    theirs = read_csv(body.encode(), SCHEMA, 1)
    if isinstance(theirs, Batch):
        theirs = admission.guard.check(theirs)
    ours = [(one.field, one.problem) for one in refused if one.row == row]
    if isinstance(theirs, Problem):
        assert [field for field, _ in ours] == [error.field for error in theirs.errors]
        for (_, said), error in zip(ours, theirs.errors, strict=True):
            assert said == error.problem or ("is null and is required" in said and "is required" in error.problem)
    else:
        assert ours == []
        values = {
            name: column.to_pylist()[row] for name, column in zip(features.column_names, features.columns, strict=True)
        }
        assert values == {name: column[0] for name, column in theirs.columns.items()}


def test_typed_columns_are_held_to_the_same_schema():
    admission = RowValidator(SCHEMA, [])
    table = pa.table(
        {
            "n": [1, None, 3],
            "m": [float("inf"), 1.0, None],
            "b": [True, None, False],
            "t": pa.array([datetime(2024, 5, 31), None, None], pa.timestamp("us")),
            "w": ["a", "b", None],
        }
    )
    features, refused = admission.validate(table)
    assert [(one.row, one.field) for one in refused] == [(0, "m"), (1, "n"), (2, "w")]
    assert features.column("n").to_pylist() == [1.0, None, 3.0]
    with pytest.raises(DataError, match="column 'b' holds number such as 1, but the model needs boolean"):
        admission.validate(table.set_column(2, "b", pa.array([1, 0, 1])))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["n", "w", "z"], "column 'z' is not a column of the model's data"),
        (["id", "y", "w", "m"], "column 'n' is missing and required"),
    ],
)
def test_a_table_is_refused_as_a_whole_for_its_names(names, said):
    with pytest.raises(DataError, match=said):
        RowValidator(SCHEMA, []).check_names(names)


KILLED = """
import os, signal, sys
from pathlib import Path
import bentos.score as scoring
scoring.PART_ROWS = 1
add = scoring._Parts.add
def then_die(parts, *given):
    add(parts, *given)
    if len(parts.known) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
scoring._Parts.add = then_die
scoring._run(Path(sys.argv[1]))
"""


@pytest.fixture
def killed_after_two_parts(packages, tmp_path):
    """A file of 3 tables; the process that scored it was killed when two parts were whole. Its request."""
    frame = pd.concat([colours(300, seed=3).drop(columns="bought")] * 1_100, ignore_index=True)
    frame.to_parquet(tmp_path / "in.parquet")
    os.utime(tmp_path / "in.parquet", (1e9, 1e9))
    (tmp_path / "out.parquet").write_text("as it was")
    asked = request(
        packages,
        tmp_path,
        "colours",
        parquet(tmp_path / "in.parquet"),
        Output("parquet", str(tmp_path / "out.parquet")),
    )
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "asked.json")], cwd=packages["colours"][0], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out.parquet").read_text() == "as it was"
    return asked


def test_a_killed_process_is_gone_on_with_at_the_last_whole_part(packages, killed_after_two_parts, tmp_path, scored):
    # What a process was in the middle of writing.
    (tmp_path / "waiting" / "000002.scored.arrow").write_bytes(b"half")
    heard = []
    found = score_packaged(packages["colours"][0], killed_after_two_parts, heard.append)
    assert heard[0] == {"total": 330_000, "resumed": 2**18}
    assert (found["rows"], found["scored"], found["resumed"]) == (330_000, 330_000, 2**18)
    resumed = pq.read_table(tmp_path / "out.parquet")
    assert not (tmp_path / "waiting").exists()
    again = scored("colours", parquet(tmp_path / "in.parquet"), Output("parquet", str(tmp_path / "again.parquet")))
    assert again["resumed"] == 0
    assert resumed.equals(pq.read_table(tmp_path / "again.parquet"))


def test_nothing_is_gone_on_with_when_the_rows_changed(packages, killed_after_two_parts, tmp_path):
    os.utime(tmp_path / "in.parquet", (1e9, 1e9 + 1))
    found = score_packaged(packages["colours"][0], killed_after_two_parts, lambda _: None)
    assert (found["scored"], found["resumed"]) == (330_000, 0)


def test_csv_parquet_and_sql_give_the_same_scores(scored, tmp_path, monkeypatch):
    frame = colours(500, seed=4).drop(columns="bought")
    frame.to_parquet(tmp_path / "in.parquet")
    frame.to_csv(tmp_path / "in.csv", index=False, sep=";", decimal=",", na_rep="NA")
    monkeypatch.setenv("SHOP", f"sqlite:///{tmp_path}/shop.sqlite")
    engine = sa.create_engine(os.environ["SHOP"])
    frame.to_sql("orders", engine, index=False)
    query = "select * from orders order by id"
    table = Output("sql", "scores", "SHOP")
    # SQLite has no booleans: 0 and 1 are numbers.
    with pytest.raises(DataError, match="'new' holds number"):
        scored("colours", {"kind": "Sql", "url_env": "SHOP", "query": query}, table)
    words = "case new when 1 then 'true' else 'false' end as new"
    query = f"select id, size, {words}, colour from orders order by id"
    scored("colours", {"kind": "Sql", "url_env": "SHOP", "query": query}, table)
    # Again: the rows that were there make way.
    scored("colours", {"kind": "Sql", "url_env": "SHOP", "query": query}, table)
    scored("colours", parquet(tmp_path / "in.parquet"), Output("csv", str(tmp_path / "out.csv")))
    scored("colours", csv(tmp_path / "in.csv", separator=";", decimal=","), Output("parquet", str(tmp_path / "out.pq")))
    by_sql = pd.read_sql("select * from scores order by id", engine)
    by_csv = pd.read_csv(tmp_path / "out.csv", dtype={"id": str})
    by_parquet = pd.read_parquet(tmp_path / "out.pq")
    assert len(by_sql) == 500
    for other in (by_csv, by_parquet):
        assert other["id"].tolist() == by_sql["id"].tolist()
        assert other["prediction"].tolist() == by_sql["prediction"].tolist()
        assert other["probability_yes"].tolist() == by_sql["probability_yes"].tolist()


def test_postgresql_takes_scores_whole_or_not_at_all(scored, tmp_path, monkeypatch):
    url = "postgresql+psycopg://root@127.0.0.1:5432/postgres"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    table = f"scores_{os.getpid()}"
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"create table {table} (id text, prediction text)"))
    except sa.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL: {error}")
    monkeypatch.setenv("SHOP", url)
    frame = colours(500, seed=4).drop(columns="bought")
    frame.loc[0, "id"] = 'a "quoted", id'
    frame.to_parquet(tmp_path / "in.parquet")
    try:
        with pytest.raises(SourceError, match="has the columns id, prediction, and scores have id, prediction, prob"):
            scored("colours", parquet(tmp_path / "in.parquet"), Output("sql", table, "SHOP"))
        with engine.begin() as connection:
            connection.execute(sa.text(f"drop table {table}"))
        scored("colours", parquet(tmp_path / "in.parquet"), Output("sql", table, "SHOP"))
        scored("colours", parquet(tmp_path / "in.parquet"), Output("parquet", str(tmp_path / "out.parquet")))
        by_sql = pd.read_sql(f"select * from {table}", engine).set_index("id")
        by_parquet = pd.read_parquet(tmp_path / "out.parquet").set_index("id")
        assert len(by_sql) == 500
        assert by_sql.loc[by_parquet.index].equals(by_parquet)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text(f"drop table if exists {table}"))


def test_a_table_without_a_key_has_the_numbers_of_its_rows(scored, tmp_path):
    frame = points(20)[["x", "z"]]
    frame.loc[1, "x"] = np.inf
    frame.to_parquet(tmp_path / "in.parquet")
    scored("points", parquet(tmp_path / "in.parquet"), Output("csv", str(tmp_path / "out.csv")))
    assert pd.read_csv(tmp_path / "out.csv")["row"].tolist() == [1, *range(3, 21)]


def test_when_no_row_can_be_scored_there_is_no_output_and_the_reasons_are_kept(scored, tmp_path):
    points(20).assign(x="many").to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(DataError, match="none of 20 rows can be scored"):
        scored("points", csv(tmp_path / "in.csv"), Output("csv", str(tmp_path / "out.csv")))
    assert not (tmp_path / "out.csv").exists()
    rejected = pd.read_csv(tmp_path / "rejected.csv")
    assert rejected["_field"].tolist() == ["x"] * 20
    assert rejected["_reason"][0] == 'x: "many" is not a number; give a number such as -1.5 or 2e3'


def test_another_artifact_than_the_ledgers_scores_nothing(packages, tmp_path):
    points(20).to_parquet(tmp_path / "in.parquet")
    asked = request(
        packages, tmp_path, "points", parquet(tmp_path / "in.parquet"), Output("csv", str(tmp_path / "out.csv"))
    )
    with pytest.raises(ArtifactError):
        score_packaged(packages["points"][0], asked | {"artifact": "0" * 64}, lambda _: None)
    bare = tmp_path / "bare"
    shutil.copytree(packages["points"][0], bare, symlinks=True)
    (bare / "package.json").unlink()
    with pytest.raises(FormatError) as refused:
        score_packaged(bare, asked, lambda _: None)
    assert refused.value.code == "format.too_old"


@pytest.mark.slow
def test_the_command_scores_by_the_champions_package(prefect_server, tmp_path):
    (tmp_path / "p").mkdir()
    project = copy_of_the_project(tmp_path / "p", prefect_server)
    code, said = project.json("score", "points", "points.csv", "out.parquet")
    assert (code, said["error"]["type"]) == (1, "ReleaseError")
    found = project.evergreen("run", "points")
    assert found[0] == 0, found
    rows = points(50).astype({"x": str})
    rows.loc[3, "x"] = "?"
    project.data(rows, "in.csv")
    code, said = project.json("score", "points", "in.csv", "out.parquet")
    assert code == 0, said
    assert (said["release"], said["rows"], said["scored"], said["rejected"]) == (1, 50, 49, 1)
    assert Path(said["rejected_file"]) == project.folder / "out.rejected.csv"
    assert pq.read_table(project.folder / "out.parquet").column_names == ["id", "prediction"]
    code, _, shown = project.evergreen("score", "points", "in.csv", "out.parquet")
    assert code == 0, shown
    project.data(rows.drop(columns="x"), "in.csv")
    assert project.json("score", "points", "in.csv", "out.parquet")[0] == 3
    assert project.json("score", "points", "in.csv", "out.xlsx")[0] == 2
