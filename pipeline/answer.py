"""Ask a packaged model in a process of its own, with the code it was packaged with.

The champion is judged as it is served: were it unpickled here, functions that changed since would answer in its name.
Run as a script in a package's source folder (`python -m pipeline.answer ROWS.parquet OUT.json DIGEST`) it is that
process.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact import load_artifact
from pipeline.errors import ArtifactError, ServerError
from pipeline.predict import Answers, predict
from pipeline.processes import packaged_environment
from pipeline.schema import to_frame

if TYPE_CHECKING:
    import pyarrow


def ask(source: Path, expected: str, rows: "pyarrow.Table") -> Answers:
    """Return the answers of the package whose source folder is `source` to the rows of a table.

    `expected` is the digest of its artifact. Raises ArtifactError when the package is not what was released, or when it
    cannot answer, ServerError when something ended the process that should.
    """
    import pyarrow.parquet

    load_artifact(source / "artifact", expected)
    with tempfile.TemporaryDirectory(prefix="evergreen-ask-") as folder:
        question, answer = Path(folder) / "rows.parquet", Path(folder) / "answers.json"
        pyarrow.parquet.write_table(rows, question)
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.answer", str(question), str(answer), expected],
            cwd=source,
            env=packaged_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode < 0:
            raise ServerError(
                f"the process that asked {source.parent.name} was ended by signal {-done.returncode}; run again"
            )
        if done.returncode != 0:
            raise ArtifactError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        return Answers.from_dict(json.loads(answer.read_text()))


def _answer(question: Path, answer: Path, expected: str) -> None:
    import pyarrow.parquet

    artifact = load_artifact(Path("artifact"), expected)
    frame = to_frame(pyarrow.parquet.read_table(question), artifact.schema.features)
    answer.write_text(json.dumps(predict(artifact.estimator(), frame).to_dict()))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
