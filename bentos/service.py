"""The service inside every Bento: one model behind the whole HTTP contract, under plain `bentoml serve` too.

Importing it does nothing heavy; the artifact beside the code is loaded when the service starts. The environment then
says:
- EVERGREEN_RELEASE: the ledger's number for what is served (absent: null).
- EVERGREEN_ARTIFACT: the digest that the artifact must have, checked before anything is unpickled (absent: any).
- EVERGREEN_TRIAL: a token that opens GET /trial, which tells the file of every loaded module of the project.
- EVERGREEN_TOKENS: bearer tokens with blanks between them, one of which a request must bear (absent: anybody may ask).
- EVERGREEN_CORS: origins with blanks between them whose pages may ask (absent: none but the endpoint's own).
- EVERGREEN_EDGES: a JSON list of numbers, by which predictions are counted for the comparison with another release.
- OTEL_EXPORTER_OTLP_ENDPOINT: the collector that requests are traced to (absent: they are not); see
`bentos.endpoint.tracing`.
- EVERGREEN_REQUESTS: a folder for the log of requests, where the spec asks for one (absent: none is written).
- EVERGREEN_HISTORY: a file of JSON, the releases that GET /history tells (absent: none is known).
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
    """A BentoML service whose requests meet the contract before anything of BentoML's.

    What BentoML measures, logs and traces costs more than a prediction; the contract does that itself.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application that servers run, with the model read; ArtifactError when it is not what was released.

        The model is not asked before the server starts, since a prediction may begin threads.
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
            # Imported here: who does not trace pays nothing for it.
            from bentos.endpoint.tracing import traced

            contract = traced(contract)
        return contract


@bentoml.service(envs=[{"name": "OMP_NUM_THREADS", "value": "1"}], service_class=ContractService)
class EndpointService:
    """The model of this Bento, as BentoML describes it to its own clients; the contract answers in its place."""

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict records, each an object of features by name; also as CSV, with a header row."""
        raise NotImplementedError(f"POST /predict is answered before BentoML is asked ({len(records)} records)")
