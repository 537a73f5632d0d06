"""Start a Bento on a private port, outside the checkout, and check that it predicts exactly as the trained pipeline."""

import csv
import io
import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bentos.endpoint.formats import word
from bentos.package import Bento
from bentos.serving import processes
from pipeline.artifact import Artifact, load_artifact
from pipeline.errors import ArtifactError
from pipeline.predict import Answers, concat, disagreements
from pipeline.schema import Schema

if TYPE_CHECKING:
    import httpx

START_TIMEOUT = 120.0
STOP_TIMEOUT = 5.0
REQUEST_TIMEOUT = 60.0
MAX_PROBLEMS = 5

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """The result of a trial.

    Attributes:
        passed: whether every answer was right.
        problems: what was wrong, sentences.
        answers: how many answers were compared.
        start_seconds: how long the package took to start; None if it did not.
        milliseconds: the time to answer a single row, as p50, p95 and max; None if none was timed.
    """

    passed: bool
    problems: tuple[str, ...]
    answers: int = 0
    start_seconds: float | None = None
    milliseconds: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as JSON values."""
        return asdict(self)


def run_trial(bento: Bento, artifact: Artifact) -> Trial:
    """Serve a Bento on a free loopback port from an empty folder, send it the golden rows, compare, time, and stop it.

    The rows are sent as JSON and as CSV, all together and each alone; every answer must be the trained pipeline's
    (see `pipeline.predict.disagreements`), and every module of `pipeline` and `bentos` must come from the Bento.
    """
    try:
        load_artifact(bento.path / "src" / "artifact", expected=artifact.digest)
    except ArtifactError as error:
        return Trial(False, (str(error),))
    token = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory(prefix="evergreen-trial-") as folder:
        here, log = Path(folder), Path(folder) / "log"
        # BentoML empties the metrics in its home when a server starts, so two servers must not share a home.
        env = {"EVERGREEN_TRIAL": token, "EVERGREEN_ARTIFACT": artifact.digest}
        unset = ("EVERGREEN_RELEASE", "EVERGREEN_TOKENS", "EVERGREEN_CORS", "EVERGREEN_REQUESTS")
        env |= dict.fromkeys((*unset, "OTEL_EXPORTER_OTLP_ENDPOINT"), "")
        with processes.listen("127.0.0.1", 0) as listener, log.open("wb") as output:
            worker = processes.start(bento, None, listener, here, env, log=output)
            try:
                if not worker.becomes_ready(START_TIMEOUT):
                    return Trial(False, (f"the package did not become ready; its log ends: {_readable(log)[-2000:]}",))
                with _client(listener.getsockname()[1]) as client:
                    return _predict(client, token, bento, artifact, time.monotonic() - worker.started)
            finally:
                worker.stop(STOP_TIMEOUT)


def _readable(log: Path) -> str:
    """Return the messages of a log of JSON lines as plain text."""
    messages = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            messages.append(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            messages.append(line)
    return "\n".join(messages).strip()


def _client(port: int) -> "httpx.Client":
    import httpx

    # No proxy from the environment: the trial never leaves this machine.
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=REQUEST_TIMEOUT, trust_env=False)


def _predict(client: "httpx.Client", token: str, bento: Bento, artifact: Artifact, start_seconds: float) -> Trial:
    import httpx

    rows, expected = artifact.golden()
    problems: list[str] = []
    timings: list[float] = []
    answered = 0
    try:
        for form, answers in _answers(client, artifact.schema, rows, expected.labels, timings):
            differences = disagreements(answers, expected, artifact.manifest["scale"])
            answered += len(answers.predictions)
            problems += [f"{form}: {problem}" for problem in differences[:MAX_PROBLEMS]]
            if len(differences) > MAX_PROBLEMS:
                problems.append(f"{form}: {len(differences) - MAX_PROBLEMS} more rows differ")
        problems += _foreign_modules(client, token, bento)
    except (httpx.HTTPError, _RefusedError) as error:
        problems.append(f"{type(error).__name__.strip('_')}: {error}")
    milliseconds = None
    if timings:
        p50, p95 = np.quantile(timings, [0.5, 0.95]) * 1000
        milliseconds = {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "max": round(max(timings) * 1000, 2)}
    return Trial(not problems, tuple(problems), answered, round(start_seconds, 2), milliseconds)


class _RefusedError(Exception):
    """The package did not answer a golden row with 200."""


def _answers(
    client: "httpx.Client", schema: Schema, rows: Sequence[Row], labels: Sequence[Any], timings: list[float]
) -> Iterator[tuple[str, Answers]]:
    yield "as JSON, together", _json(client, rows, labels)
    yield "as JSON, alone", concat([_timed(timings, client, row, labels) for row in rows])
    if schema.nulls or not any(value is None for row in rows for value in row.values()):
        yield "as CSV, together", _csv(client, schema, rows, labels)
        yield "as CSV, alone", concat([_csv(client, schema, [row], labels) for row in rows])


def _timed(timings: list[float], client: "httpx.Client", row: Row, labels: Sequence[Any]) -> Answers:
    started = time.perf_counter()
    answers = _json(client, [row], labels)
    timings.append(time.perf_counter() - started)
    return answers


def _json(client: "httpx.Client", rows: Sequence[Row], labels: Sequence[Any]) -> Answers:
    response = client.post("/predict", json={"records": list(rows)})
    if response.status_code != 200:
        raise _RefusedError(f"JSON of {len(rows)} golden rows answered {response.status_code}: {response.text[:500]}")
    body = response.json()
    if body.get("release") is not None:
        raise _RefusedError(f"a package on trial must not name a release, but it named {body['release']!r}")
    predictions = np.array(body["predictions"], dtype=object if labels else np.float64)
    probabilities = None
    if "probabilities" in body:
        probabilities = np.array([[row[word(label)] for label in labels] for row in body["probabilities"]])
    return Answers(predictions, tuple(labels), probabilities)


def _csv(client: "httpx.Client", schema: Schema, rows: Sequence[Row], labels: Sequence[Any]) -> Answers:
    response = client.post("/predict", content=to_csv(schema, rows), headers={"Content-Type": "text/csv"})
    if response.status_code != 200:
        raise _RefusedError(f"CSV of {len(rows)} golden rows answered {response.status_code}: {response.text[:500]}")
    table = list(csv.DictReader(io.StringIO(response.text)))
    predictions = [row["prediction"] for row in table]
    if not labels:
        return Answers(np.array(predictions, dtype=np.float64))
    by_word = {word(label): label for label in labels}
    columns = [f"probability_{label}" for label in by_word]
    probabilities = None
    if table and columns[0] in table[0]:
        probabilities = np.array([[float(row[column]) for column in columns] for row in table])
    return Answers(
        np.array([by_word.get(text, text) for text in predictions], dtype=object), tuple(labels), probabilities
    )


def to_csv(schema: Schema, rows: Sequence[Row]) -> bytes:
    """Return rows as CSV with the schema's features as columns; a null is the first of its null words."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = [feature.name for feature in schema.features]
    writer.writerow(names)
    null = schema.nulls[0] if schema.nulls else ""
    for row in rows:
        writer.writerow([null if row.get(name) is None else word(row[name]) for name in names])
    return out.getvalue().encode()


def _foreign_modules(client: "httpx.Client", token: str, bento: Bento) -> Iterator[str]:
    response = client.get("/trial", headers={"Authorization": f"Bearer {token}"})
    if response.status_code != 200:
        raise _RefusedError(f"the package does not list its modules: GET /trial answered {response.status_code}")
    source = (bento.path / "src").resolve()
    for name, file in sorted(response.json()["modules"].items()):
        if not (file and Path(file).resolve().is_relative_to(source)):
            yield f"module {name} comes from {file}, not from the Bento; the package is incomplete"
