"""The service inside every Bento: one model behind the whole HTTP contract, under plain `bentoml serve` too.

Importing it does nothing heavy; the artifact beside the code is loaded when the service starts. The environment then
says:
- EVERGREEN_RELEASE: the ledger's number for what is served (absent: null).
- EVERGREEN_ARTIFACT: the digest that the artifact must have, checked before anything is unpickled (absent: any).
- EVERGREEN_TRIAL: a token that opens GET /trial, which tells the file of every loaded module of the project.
- EVERGREEN_TOKENS: bearer tokens with blanks between them, one of which a request must bear (absent: anybody may ask).
- EVERGREEN_CORS: origins with blanks between them whose pages may ask (absent: none but the endpoint's own).
- EVERGREEN_EDGES: a JSON list of numbers, by which predictions are counted for the comparison with another release.
- OTEL_EXPORTER_OTLP_ENDPOINT: the collector that requests are traced to (absent: they are not); see `bentos.traces`.
- EVERGREEN_REQUESTS: a folder for the log of requests, where the spec asks for one (absent: none is written).
- EVERGREEN_HISTORY: a file of JSON, the releases that GET /history tells (absent: none is known).
"""

import json
import os
from pathlib import Path
from typing import Any

import bentoml
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from bentos import openapi, page, wire
from bentos.contract import Contract
from bentos.metrics import Metrics
from bentos.problems import Problem
from bentos.record import Recorder
from bentos.served import ServedModel
from pipeline.artifact import load_artifact
from pipeline.errors import ServerError
from pipeline.guard import without_sensitive

ARTIFACT = Path(__file__).resolve().parent.parent / "artifact"


class ContractService(bentoml.Service):
    """A BentoML service whose requests meet the contract before anything of BentoML's.

    What BentoML measures, logs and traces costs more than a prediction; the contract does that itself.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that servers run."""
        contract: ASGIApp = Contract(super().to_asgi(is_main), bentoml.get_current_service)
        if origins := os.environ.get("EVERGREEN_CORS", "").split():
            contract = CORSMiddleware(
                contract,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
                expose_headers=["Evergreen-Release", "X-Request-ID", "Retry-After"],
            )
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            # Imported here: who does not trace pays nothing for it.
            from bentos.traces import traced

            contract = traced(contract)
        return contract


@bentoml.service(envs=[{"name": "OMP_NUM_THREADS", "value": "1"}], service_class=ContractService)
class Endpoint:
    """The model of this Bento."""

    def __init__(self) -> None:
        self.served = _read.pop() if _read else _load()
        self.trial_token = os.environ.get("EVERGREEN_TRIAL") or None
        # A trial asks the golden rows itself, and tells what differs.
        if self.trial_token is None:
            self.served.check()
        artifact = self.served.artifact
        manifest, limits = artifact.manifest, artifact.manifest["limits"]
        self.release_mark = str(self.served.release or "none").encode()
        self.tokens = tuple(os.environ.get("EVERGREEN_TOKENS", "").split())
        self.most_bytes: int = limits["body_bytes"]
        self.most_at_once: int = limits["at_once"]
        self.seconds: float = limits["seconds"]
        edges = os.environ.get("EVERGREEN_EDGES")
        self.metrics = Metrics(
            manifest["model"],
            self.served.release,
            manifest.get("target_quantiles") or (),
            json.loads(edges) if edges else None,
        )
        # The rows of a trial are no requests.
        folder, log = os.environ.get("EVERGREEN_REQUESTS"), manifest.get("log")
        wanted = folder and log and self.trial_token is None
        self.recorder = Recorder(self.served, self.metrics, Path(folder), log) if wanted else None  # type: ignore[arg-type]
        self.page = page.files()
        sensitive = manifest.get("sensitive", ())
        example = without_sensitive(artifact.golden()[0][0], artifact.schema.features, artifact.guards, sensitive)
        self.card = page.card(manifest, self.served.release, example)
        others = [*artifact.schema.key, *artifact.schema.ignored]
        self.openapi = openapi.describe(self.card, others, bool(self.tokens))

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict records, each an object of features by name; also as CSV, with a header row."""
        batch = self.served.read(wire.JSON, json.dumps({"records": records}).encode())
        if isinstance(batch, Problem):
            raise bentoml.exceptions.InvalidArgument(batch.detail)
        answers = self.served.ask(batch)
        if isinstance(answers, Problem):
            raise bentoml.exceptions.InvalidArgument(answers.detail)
        answered: dict[str, Any] = json.loads(self.served.write(wire.JSON, answers, batch))
        return answered

    @bentoml.on_shutdown
    def close(self) -> None:
        """Write what waits to be logged."""
        if self.recorder is not None:
            self.recorder.close()

    def history(self) -> list[dict[str, Any]]:
        """Return the releases of the model, the newest first, as far as the server told."""
        path = os.environ.get("EVERGREEN_HISTORY")
        if not path or not Path(path).exists():
            return []
        told: list[dict[str, Any]] = json.loads(Path(path).read_bytes())
        return told


_read: list[ServedModel] = []
"""The model, from when it was read until the endpoint is made, where these are two moments."""


def read_the_model() -> None:
    """Read the model before BentoML makes the endpoint; ArtifactError when it is not what was released."""
    _read.append(_load())


def _load() -> ServedModel:
    release = os.environ.get("EVERGREEN_RELEASE") or None
    if release is not None and not release.isdecimal():
        raise ServerError(f"EVERGREEN_RELEASE is {release!r}; give the number of a release, or leave it out")
    artifact = load_artifact(ARTIFACT, expected=os.environ.get("EVERGREEN_ARTIFACT") or None)
    return ServedModel(artifact, None if release is None else int(release))
