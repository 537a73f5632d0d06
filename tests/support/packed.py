"""Artifacts of a project's models, made by the project's own functions in a process of its own, without Prefect."""

import hashlib
import json
import shutil
from dataclasses import replace

from pipeline.artifact import load_artifact

MAKE = """
import json, sys
from pathlib import Path
from bentos.package import requirements
from pipeline.artifact import write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.run_digests import digests_of
from pipeline.snapshot import SnapshotFile, ingest
from pipeline.spec import load_spec
from pipeline.train import train

here, home = Path.cwd(), Path.cwd() / ".evergreen"
for name in ("trained", "snapshots"):
    (home / name).mkdir(parents=True, exist_ok=True)
folders = {}
for model in sys.argv[1:]:
    spec = load_spec(model)
    snapshot = ingest(spec.source, home / "snapshots")
    trained = train(spec, snapshot, home / "trained" / model, workers=1)
    evaluation = evaluate(spec, SnapshotFile(snapshot.path), trained.rule, trained.estimator(), None)
    digests = digests_of(spec, snapshot.digest, None, here)
    needs = requirements(model, here)
    folder = home / "artifacts" / model
    folder.parent.mkdir(exist_ok=True)
    write_artifact(spec, snapshot, trained, evaluation, decide(evaluation, spec.gate), digests, needs, folder)
    folders[model] = str(folder)
print(json.dumps(folders))
"""


def artifacts_of(project, *models):
    """Train and evaluate models of a project; return their artifacts."""
    code, out, err = project.finish(project.start(*models, code=MAKE))
    assert code == 0, err
    return [load_artifact(project.folder / folder) for folder in json.loads(out.splitlines()[-1]).values()]


def copied(bento, folder):
    """A Bento of one's own to damage."""
    shutil.copytree(bento.path, folder)
    return replace(bento, path=folder)


def resealed(folder, **changes):
    """Make a changed artifact look whole again, as somebody without the ledger and the key could; its new digest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    names = [file.name for file in folder.iterdir() if file.name not in ("manifest.json", "manifest.sig")]
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    path.unlink()
    path.write_text(json.dumps(manifest))
    return hashlib.sha256(path.read_bytes()).hexdigest()
