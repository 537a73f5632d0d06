"""Write a golden fixture: what the evergreen of today keeps on disk, for the tests of every later one.

    python -m tests.support.make_golden tests/golden/formats-1

replaces that folder. docs/internals/formats.md says what is in it and when to make one.
"""

import ast
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

CHECKOUT = Path(__file__).resolve().parents[2]

MODEL = '''
"""Prices of boxes by their size and colour."""

from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pipeline.sources import Csv
from pipeline.spec import Gate, ModelSpec, Regression, RequestLog

columns = make_column_transformer(
    (SimpleImputer(), ["size"]), (OneHotEncoder(handle_unknown="ignore"), ["colour"]), remainder="drop"
)
spec = ModelSpec(
    name="golden",
    source=Csv("golden.csv"),
    key=("id",),
    target="price",
    task=Regression(unit="EUR"),
    candidates={"ridge": make_pipeline(columns, Ridge())},
    metric="rmse",
    gate=Gate(at_most=1.0),
    log=RequestLog(sample_rate=1.0),
)
'''

MAKE = """
import json, shutil, sqlite3, sys
from dataclasses import replace
from pathlib import Path

import httpx

from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from bentos.ledger.releases import Release
from bentos.package import package, requirements
from bentos.serving import processes
from bentos.trial import run_trial
from flows.release_transfer import pack
from pipeline import digest
from pipeline.artifact import load_artifact, write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.manifest import seal
from pipeline.run_digests import digests_of
from pipeline.settings import settings
from pipeline.snapshot import SnapshotFile, ingest
from pipeline.spec import load_spec
from pipeline.train import train

here, out, state = Path.cwd(), Path(sys.argv[1]), settings()
home = state.folder("bentoml")
spec = load_spec("golden")
snapshot = ingest(spec.source, state.folder("snapshots"))
trained = train(spec, snapshot, state.folder("trained") / "golden", workers=1)
evaluation = evaluate(spec, SnapshotFile(snapshot.path), trained.rule, trained.estimator(), None)
digests = digests_of(spec, snapshot.digest, None, here)
needs, verdict = requirements("golden", here), decide(evaluation, spec.gate)
folder = state.folder("artifacts") / "golden"
artifact = write_artifact(spec, snapshot, trained, evaluation, verdict, digests, needs, folder)
assert artifact.manifest["answers"]["by"] == "plan", artifact.manifest["answers"]

# Without its pickle, and sealed again.
(folder / "model.joblib").unlink()
(folder / "manifest.json").unlink()
seal(folder, {name: value for name, value in artifact.manifest.items() if name != "files"})
artifact = load_artifact(folder)

bento = package(artifact, here, home)
trial = run_trial(bento, artifact)
assert trial.passed, trial.problems
ledger = open_ledger(state.ledger_url)
first = releases.add_release(
    ledger,
    Release(
        model="golden",
        number=0,
        bento=bento.tag,
        digests={**digests, "artifact": artifact.digest, "bento": bento.digest},
        verdict=artifact.manifest["verdict"],
        evaluation=artifact.manifest["evaluation"],
        trial=trial.to_dict(),
        answers=artifact.manifest["answers"],
        cause="person",
        reason="a golden fixture",
        created=trained.created,
    ),
)
pack(state, ledger, first, out / "release.tar")
lost = {name: digest.of_value(value) for name, value in first.digests.items()}
releases.add_release(
    ledger,
    replace(first, bento=f"golden:{lost['artifact'][:16]}", digests=lost, replaced=1, reason="its package is not kept"),
)
ledger.dispose()
with sqlite3.connect(state.folder() / "ledger.sqlite") as database:
    (out / "ledger.sql").write_text("\\n".join(database.iterdump()) + "\\n")

rows, _ = artifact.golden()
scratch = here / "serving"
scratch.mkdir()
env = {"EVERGREEN_RELEASE": "1", "EVERGREEN_ARTIFACT": artifact.digest, "EVERGREEN_REQUESTS": str(here / "requests")}
with processes.listen("127.0.0.1", 0) as listener:
    worker = processes.start(bento, 1, listener, scratch, env)
    try:
        assert worker.becomes_ready(120)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/predict"
        records = [{**row, "id": str(place)} for place, row in enumerate(rows)]
        answer = httpx.post(url, json={"records": records}, trust_env=False)
        assert answer.status_code == 200, answer.text
    finally:
        worker.stop(30)
(logged,) = (here / "requests").glob("*.parquet")
(out / "requests").mkdir()
shutil.copyfile(logged, out / "requests" / logged.name)
facts = {"digests": first.digests, "bento": first.bento, "rows": len(rows), "predictions": answer.json()["predictions"]}
facts["metrics"] = first.evaluation["challenger"]
(out / "expected.json").write_text(json.dumps(facts, indent=2) + "\\n")
"""


def golden_rows(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """Rows of id, size (null in every tenth), colour and price = 2 size + (5 if red) + noise of deviation 0.1."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(1, 10, rows).round(2)
    colour = rng.choice(["red", "green", "blue"], rows)
    price = 2 * size + 5 * (colour == "red") + rng.normal(0, 0.1, rows)
    size[::10], price[::10] = np.nan, (11 + 5 * (colour == "red"))[::10]
    return pd.DataFrame({"id": np.arange(rows), "size": size, "colour": colour, "price": price.round(2)})


def without_comments(code: str) -> str:
    """Return a module's code without comments and docstrings, which a fixture need not carry."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            texts = [one for one in node.body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
            node.body = [one for one in node.body if one not in texts] or [ast.Pass()]
    return ast.unparse(tree) + "\n"


def project_in(folder: Path) -> None:
    """Make a project with the model `golden` alone, of today's code."""
    for room in ("pipeline", "expectations", "bentos", "flows"):
        shutil.copytree(CHECKOUT / room, folder / room, ignore=shutil.ignore_patterns("web", "__pycache__"))
    for room in ("pipeline/models", "expectations/suites"):
        for path in (folder / room).glob("[!_]*.py"):
            path.unlink()
    (folder / "pipeline" / "models" / "golden.py").write_text(MODEL)
    for room in ("pipeline", "bentos"):
        for path in (folder / room).rglob("*.py"):
            path.write_text(without_comments(path.read_text()))
    (folder / "bentos" / "static" / "page.js").write_text("\n")
    golden_rows().to_csv(folder / "golden.csv", index=False)


def check(file: Path, scratch: Path) -> None:
    """Raise ValueError when a file, or a file in the archive, names this machine or is a pickle."""
    traces = {str(scratch), str(CHECKOUT), str(Path.home()), socket.gethostname(), sys.prefix, tempfile.gettempdir()}
    contents = {file.name: file.read_bytes()}
    if file.suffix == ".tar":
        with tarfile.open(file) as archive:
            members = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
            contents = {name: content.read() for name, content in members.items() if content is not None}
    for name, content in contents.items():
        if found := [trace for trace in traces if len(trace) > 3 and trace.encode() in content]:
            raise ValueError(f"{name} names {found[0]}")
        if name.endswith((".joblib", ".pkl")):
            raise ValueError(f"{name} is a pickle")


def make(target: Path) -> None:
    """Write the fixture to a folder; what was there is replaced."""
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        scratch, out = Path(place), Path(place) / "out"
        out.mkdir()
        (scratch / "project").mkdir()
        project_in(scratch / "project")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVERGREEN_", "PYTHONPATH"))}
        env = kept | {"EVERGREEN_HOME": str(scratch / "home"), "BENTOML_DO_NOT_TRACK": "true"}
        subprocess.run([sys.executable, "-c", MAKE, str(out)], cwd=scratch / "project", env=env, check=True)
        for file in out.rglob("*.*"):
            check(file, scratch)
        archive = out / "release.tar"
        (out / "release.tar.xz").write_bytes(lzma.compress(archive.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
        archive.unlink()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(out, target)
    for file in sorted(target.rglob("*.*")):
        print(f"{file.stat().st_size:>8,} {file}")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
