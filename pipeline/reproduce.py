"""Train a release again from its snapshot, spec and code, and compare what it answers with what it answered then.

Run as a script in a package's source folder (`python -m pipeline.reproduce DIGEST SNAPSHOT.parquet OUT.json`) it is the
process that trains, with the package's own code.
"""

import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError
from pipeline.field_kinds import spec_digest
from pipeline.files import scratch_folder, write_text
from pipeline.predict import Answers, disagreements, predict
from pipeline.run_in_package import run_packaged
from pipeline.schema import to_frame
from pipeline.snapshot import SnapshotFile, load_snapshot
from pipeline.spec import load_spec
from pipeline.train import train


@dataclass(frozen=True)
class Reproduction:
    """The predictions of a release that was trained again, compared with the original ones on the golden rows.

    Attributes:
        equal: whether all predictions are the same, within rounding (see `pipeline.predict.disagreements`).
        rows: number of golden rows.
        largest: the largest difference of a prediction, in the target's unit, or of a probability; None if there are
            only labels.
        reasons: sentences about the predictions that differ.
        changes: sentences about what changed since then: versions, parameters, the chosen candidate.
    """

    equal: bool
    rows: int
    largest: float | None
    reasons: tuple[str, ...]
    changes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def reproduce(source: Path, expected: str, snapshot: Path) -> Reproduction:
    """Train the model whose package's source folder is `source` again, on the snapshot at `snapshot`, and compare.

    `expected` is the digest of the package's artifact. The rows, the spec and the code are those of the release; Python
    and the installed packages are those that are here. Raises ArtifactError when the package or the snapshot is not
    what was released, or training fails.
    """
    artifact = load_artifact(source / "artifact", expected)
    with tempfile.TemporaryDirectory(prefix="evergreen-reproduce-") as folder:
        out = Path(folder) / "again.json"
        run_packaged(source, "reproduce", expected, str(snapshot), str(out))
        again = json.loads(out.read_text())
    _, then = artifact.golden()
    now = Answers.from_dict(again["answers"])
    reasons = disagreements(now, then, artifact.manifest["scale"])
    chosen = artifact.manifest["estimator"]
    changes = [] if again["chosen"] == chosen else [f"the candidate chosen is {again['chosen']}, and was {chosen}"]
    if again["spec"] != artifact.manifest["digests"]["spec"]:
        changes.append("the candidates have other parameters with the packages that are here")
    changes += _changes(artifact.manifest["python"], artifact.manifest["requirements"])
    return Reproduction(not reasons, len(then.predictions), _largest(now, then), tuple(reasons), tuple(changes))


def _largest(now: Answers, then: Answers) -> float | None:
    one, other = (now.probabilities, then.probabilities) if then.labels else (now.predictions, then.predictions)
    if one is None or other is None or one.shape != other.shape:
        return None
    return float(np.max(np.abs(one - other), initial=0.0))


def _changes(python: str, pins: Sequence[str]) -> list[str]:
    """Say which versions are others here than those that the release was trained with."""
    changes = (
        [] if platform.python_version() == python else [f"Python is {platform.python_version()}, and was {python}"]
    )
    for pin in pins:
        name, _, was = pin.partition("==")
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "not here"
        if here != was:
            changes.append(f"{name} is {here}, and was {was}")
    return changes


def _train_again(expected: str, path: Path, out: Path) -> None:
    artifact = load_artifact(Path("artifact"), expected)
    model, digests = artifact.manifest["model"], artifact.manifest["digests"]
    snapshot, spec = load_snapshot(path), load_spec(model)
    if (found := SnapshotFile(snapshot.path).digest()) != digests["snapshot"]:
        raise ArtifactError(
            f"{path} is not the snapshot of {model}: its digest is {found}, not {digests['snapshot']}; restore it",
            code="artifact.wrong_snapshot",
        )
    # Beside the snapshot: as many rows may be scattered as it has, and a system's temporary folder is often memory.
    with scratch_folder(path.parent) as folder:
        trained = train(spec, snapshot, folder / "again")
        answers = predict(trained.estimator(), to_frame(artifact.golden_table(), artifact.schema.features))
    result = {"answers": answers.to_dict(), "chosen": trained.chosen, "spec": spec_digest(spec, "model")}
    write_text(out, json.dumps(result))


if __name__ == "__main__":
    _train_again(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
