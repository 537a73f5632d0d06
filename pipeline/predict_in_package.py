"""Ask a packaged model in a process of its own, with the code it was packaged with.

The champion is judged as it is served: were it unpickled here, functions that changed since would answer in its name.
Run as a script in a package's source folder (`python -m pipeline.predict_in_package ROWS.parquet OUT.json DIGEST`) it
is that process.
"""

import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact import Artifact, load_artifact
from pipeline.compiled import UnanswerableError, columns_of
from pipeline.files import write_parquet, write_text
from pipeline.predict import Answers, in_parts, predict_rows
from pipeline.run_in_package import run_packaged

if TYPE_CHECKING:
    import pyarrow


def predict_packaged(source: Path, expected: str, rows: "pyarrow.Table") -> Answers:
    """Return the answers of the package whose source folder is `source` to the rows of a table.

    `expected` is the digest of its artifact. Raises ArtifactError when the package is not what was released, or when it
    cannot answer, ServerError when something ended the process that should.
    """
    load_artifact(source / "artifact", expected)
    with tempfile.TemporaryDirectory(prefix="evergreen-ask-") as folder:
        question, answer = Path(folder) / "rows.parquet", Path(folder) / "answers.json"
        write_parquet(question, rows)
        run_packaged(source, "answer", str(question), str(answer), expected)
        return Answers.from_dict(json.loads(answer.read_text()))


def _answer(question: Path, answer: Path, expected: str) -> None:
    import pyarrow.parquet

    artifact = load_artifact(Path("artifact"), expected)
    write_text(answer, json.dumps(_answers(artifact, pyarrow.parquet.read_table(question)).to_dict()))


def _answers(artifact: Artifact, rows: "pyarrow.Table") -> Answers:
    """Return what the endpoint answers: by the plan where that answers all rows, since it outlives the pickle."""
    program = artifact.compiled_model()
    if program is not None:
        with suppress(UnanswerableError):
            return in_parts(lambda part: program(*columns_of(part, program.plan)), rows)
    return predict_rows(artifact.estimator(), rows, artifact.schema.features)


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
