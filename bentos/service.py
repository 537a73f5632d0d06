"""The service inside every Bento: one model behind the whole HTTP contract, under plain `bentoml serve` too.

Importing it does nothing heavy; the artifact beside the code is loaded when the service starts. It reads these
variables of the environment:
- EVERGREEN_RELEASE: the release's number in the ledger (absent: null).
- EVERGREEN_ARTIFACT: the digest that the artifact must have, checked before anything is unpickled (absent: any).
- EVERGREEN_TRIAL: a token that opens GET /trial, which lists the file of every loaded module of the project.
- EVERGREEN_TOKENS: bearer tokens separated by blanks, one of which a request must have (absent: no token is needed).
- EVERGREEN_CORS: origins separated by blanks whose pages may send requests (absent: only the endpoint's own).
- EVERGREEN_EDGES: a JSON list of numbers, the buckets of predictions for the comparison with another release.
- OTEL_EXPORTER_OTLP_ENDPOINT: the collector for traces (absent: no traces); see `bentos.endpoint.tracing`.
- EVERGREEN_REQUESTS: a folder for the request log, if the spec has one (absent: no log).
- EVERGREEN_HISTORY: a JSON file with the releases for GET /history (absent: no releases).
"""

import os
from pathlib import Path
from typing import Any

import bentoml
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from bentos.endpoint.asgi import Contract
from bentos.endpoint.endpoint import Endpoint, EndpointSettings

ARTIFACT = Path(__file__).resolve().parent.parent / "artifact"


class ContractService(bentoml.Service):
    """A BentoML service with the HTTP contract around BentoML's own application.

    BentoML's metrics, logs and traces cost more than a prediction; the contract has its own.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that servers run, with the model loaded; ArtifactError if it is not what was released.

        Nothing is predicted before the server starts, because a prediction may start threads.
        """
        endpoint = Endpoint.load(ARTIFACT, EndpointSettings.from_environment(os.environ))
        contract: ASGIApp = Contract(super().to_asgi(is_main), endpoint)
        if origins := os.environ.get("EVERGREEN_CORS", "").split():
            contract = CORSMiddleware(
                contract,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
                expose_headers=["Evergreen-Release", "X-Request-ID", "Retry-After"],
            )
        if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            # Imported here, because the import takes time that only tracing needs.
            from bentos.endpoint.tracing import traced

            contract = traced(contract)
        return contract


@bentoml.service(envs=[{"name": "OMP_NUM_THREADS", "value": "1"}], service_class=ContractService)
class EndpointService:
    """The model of this Bento, as BentoML describes it to its own clients; the contract answers in its place."""

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict records, each an object of features by name; also as CSV, with a header row."""
        raise NotImplementedError(f"POST /predict is answered before it reaches BentoML ({len(records)} records)")
