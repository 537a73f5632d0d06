"""What the evergreen of an earlier issue kept on disk is served, scored, compared with, gone back to and moved."""

import json
import lzma
import shutil
import sqlite3
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pandas as pd
import pyarrow.parquet as pq
import pytest
from make_golden import MODEL, golden_rows

from bentos import releasing
from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from bentos.package import Bento, digest_of
from bentos.score import score_packaged
from bentos.serving import processes
from bentos.trial import run_trial
from flows.release_transfer import pack, unpack
from pipeline import request_log
from pipeline.artifact import Artifact, load_artifact
from pipeline.compiled import columns_of
from pipeline.evaluate import Champion, evaluate
from pipeline.gate import decide
from pipeline.predict import disagreements
from pipeline.predict_in_package import predict_packaged
from pipeline.run_in_package import protocol_of
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, ingest, load_snapshot
from pipeline.spec import load_spec
from pipeline.split import Rule
from pipeline.train import train

FIXTURES = sorted((Path(__file__).parents[1] / "golden").glob("formats-*"))


@dataclass
class Golden:
    """A golden fixture, its archive opened."""

    fixture: Path
    archive: Path
    package: Path
    snapshot: Path
    facts: dict

    @property
    def artifact(self) -> Artifact:
        return load_artifact(self.package / "src" / "artifact", self.facts["digests"]["artifact"])

    @property
    def bento(self) -> Bento:
        return Bento(self.facts["bento"], self.package, digest_of(self.package))


@pytest.fixture(scope="module", params=FIXTURES, ids=lambda fixture: fixture.name)
def golden(request, tmp_path_factory):
    folder, fixture = tmp_path_factory.mktemp("golden"), request.param
    archive = folder / "release.tar"
    archive.write_bytes(lzma.decompress((fixture / "release.tar.xz").read_bytes()))
    with tarfile.open(archive) as content:
        content.extractall(folder / "open")
    facts = json.loads((fixture / "expected.json").read_text())
    (snapshot,) = (folder / "open" / "snapshot").glob("*.parquet")
    return Golden(fixture, archive, folder / "open" / "package", snapshot, facts)


@pytest.fixture(autouse=True)
def model(monkeypatch, tmp_path_factory):
    """The model of the fixtures, in today's words."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("pipeline/models", "expectations/suites"):
        (project / folder).mkdir(parents=True)
    (project / "pipeline/models/golden.py").write_text(MODEL)
    monkeypatch.setenv("EVERGREEN_PROJECT", str(project))


def home(folder):
    return Settings(home=folder, database_url="")


def test_a_fixture_is_small_and_holds_no_pickle(golden):
    assert sum(file.stat().st_size for file in golden.fixture.rglob("*") if file.is_file()) < 300_000
    assert not [*golden.package.rglob("*.joblib"), *golden.package.rglob("*.pkl")]


def test_its_artifact_answers_the_golden_rows_by_its_plan(golden):
    artifact = golden.artifact
    program, (_, expected) = artifact.compiled_model(), artifact.golden()
    answers = program(*columns_of(artifact.golden_table(), program.plan))
    assert disagreements(answers, expected, artifact.manifest["scale"]) == []
    assert expected.predictions.tolist() == pytest.approx(golden.facts["predictions"])


def test_its_snapshot_holds_what_its_name_says(golden):
    snapshot = load_snapshot(golden.snapshot)
    assert (snapshot.digest, snapshot.rows) == (golden.facts["digests"]["snapshot"], 120)
    assert SnapshotFile(snapshot.path).digest() == snapshot.digest


def test_its_package_is_served_as_it_was_trained(golden):
    trial = run_trial(golden.bento, golden.artifact)
    assert (trial.passed, trial.problems) == (True, ())


def test_a_worker_of_its_package_obeys_a_server_of_today(golden, tmp_path):
    with processes.listen("127.0.0.1", 0) as listener, (tmp_path / "log").open("wb") as log:
        worker = processes.start(golden.bento, 1, listener, tmp_path, {}, log=log)
        try:
            assert worker.becomes_ready(120), (tmp_path / "log").read_text()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/predict"
            answer = httpx.post(url, json={"records": golden.artifact.golden()[0]}, trust_env=False)
            assert answer.json()["predictions"] == pytest.approx(golden.facts["predictions"])
            worker.send("degraded", why="a test")
            worker.send("share", path=None, share=0.0)
            worker.send("drain")
            assert worker.process.wait(60) == 0, (tmp_path / "log").read_text()
        finally:
            worker.kill()


def test_its_package_scores_a_table(golden, tmp_path):
    pq.write_table(golden.artifact.golden_table(), tmp_path / "in.parquet")
    (tmp_path / "waiting").mkdir()
    request = {
        "artifact": golden.facts["digests"]["artifact"],
        "release": 1,
        "source": {"kind": "Parquet", "path": str(tmp_path / "in.parquet")},
        "output": {"kind": "parquet", "where": str(tmp_path / "out.parquet"), "url_env": ""},
        "rejected": str(tmp_path / "rejected.csv"),
        "folder": str(tmp_path / "waiting"),
    }
    done = score_packaged(golden.package / "src", request, lambda _: None)
    assert (done["rows"], done["scored"]) == (golden.facts["rows"], golden.facts["rows"])
    scored = pd.read_parquet(tmp_path / "out.parquet")
    assert scored["prediction"].tolist() == pytest.approx(golden.facts["predictions"])


def test_a_challenger_of_today_is_compared_with_it(golden, tmp_path):
    golden_rows(seed=1).to_csv(tmp_path / "golden.csv", index=False)
    spec, artifact = load_spec("golden"), golden.artifact
    snapshot = ingest(type(spec.source)(str(tmp_path / "golden.csv")), tmp_path)
    trained = train(spec, snapshot, tmp_path / "trained", workers=1)
    champion = Champion(
        release=1,
        predict=lambda rows: predict_packaged(golden.package / "src", artifact.digest, rows),
        required=tuple(feature.name for feature in artifact.schema.features if feature.required),
        rule=Rule.from_dict(artifact.manifest["holdout"]),
    )
    evaluation = evaluate(spec, SnapshotFile(snapshot.path), trained.rule, trained.estimator(), champion)
    # The noise of the prices has a deviation of 0.1, and what is imputed adds a little.
    assert 0.05 < evaluation.champion["rmse"] < 0.5
    assert decide(evaluation, spec.gate).passed


def test_it_is_imported_into_an_empty_home_and_archived_from_there_again(golden, tmp_path):
    first, second = home(tmp_path / "first"), home(tmp_path / "second")
    ledger = open_ledger(first.ledger_url)
    arrived = unpack(first, ledger, golden.archive)
    assert (arrived.state, arrived.release.number) == ("champion", 1)
    pack(first, ledger, arrived.release, tmp_path / "again.tar")
    again = unpack(second, open_ledger(second.ledger_url), tmp_path / "again.tar")
    assert again.release.digests == golden.facts["digests"]


def test_its_ledger_is_migrated_and_gone_back_to_it(golden, tmp_path):
    settings = home(tmp_path / "home")
    with sqlite3.connect(settings.folder() / "ledger.sqlite") as database:
        database.executescript((golden.fixture / "ledger.sql").read_text())
    ledger = open_ledger(settings.ledger_url)
    assert releases.champion(ledger, "golden").number == 2
    place = settings.folder("bentoml", "bentos", "golden") / golden.facts["bento"].partition(":")[2]
    shutil.copytree(golden.package, place)
    back = releasing.rollback(ledger, settings.folder("bentoml"), "golden", None, "person", "a test").release
    assert (back.number, releases.champion(ledger, "golden").number) == (1, 1)
    assert back.evaluation["challenger"] == golden.facts["metrics"]


def test_its_request_log_is_read(golden):
    log = request_log.read(golden.fixture / "requests", datetime(2020, 1, 1, tzinfo=UTC))
    assert log.unreadable == ()
    assert log.tables[1].column("prediction").to_pylist() == pytest.approx(golden.facts["predictions"])
    assert [(one.requests, one.rows) for one in log.counts] == [(1, golden.facts["rows"])]


def test_its_package_says_what_may_be_started_inside_it(golden):
    protocol = protocol_of(golden.package / "src")
    for module in protocol.modules.values():
        assert (golden.package / "src").joinpath(*module.split(".")).with_suffix(".py").exists()
