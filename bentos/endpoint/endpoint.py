"""Everything that an endpoint knows about its model, in one object: no BentoML, no HTTP and no module global in it.

The ASGI application (`bentos.endpoint.asgi`) answers from an `Endpoint`, and the BentoML service (`bentos.service`)
makes one when it starts. Several endpoints live beside each other in one process.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentos.endpoint import openapi, page
from bentos.endpoint.metrics import Metrics
from bentos.endpoint.model import ServedModel
from bentos.endpoint.request_log import Recorder
from pipeline.artifact import load_artifact
from pipeline.errors import ServerError
from pipeline.guard import without_sensitive


@dataclass(frozen=True)
class EndpointSettings:
    """What an endpoint is told when it starts.

    Attributes:
        release: The ledger's number for what is served; None when it was never released.
        artifact_digest: The digest that the artifact must have; None accepts any.
        trial_token: The token that opens GET /trial; None when this is not a trial.
        tokens: Bearer tokens, one of which a request must bear; with none of them anybody may ask.
        tally_edges: The edges by which predictions are counted for the comparison with another release.
        request_log: The folder of the request log; None writes none.
        history: The JSON file of the releases that GET /history shows; None when no release is known.
    """

    release: int | None = None
    artifact_digest: str | None = None
    trial_token: str | None = None
    tokens: tuple[str, ...] = ()
    tally_edges: tuple[float, ...] | None = None
    request_log: Path | None = None
    history: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "EndpointSettings":
        """Return what the variables listed in `bentos.service` say; ServerError when the release is not a number."""
        release = environment.get("EVERGREEN_RELEASE") or None
        if release is not None and not release.isdecimal():
            raise ServerError(
                f"EVERGREEN_RELEASE is {release!r}; give the number of a release, or unset it",
                code="server.bad_release_number",
            )
        edges, folder = environment.get("EVERGREEN_EDGES"), environment.get("EVERGREEN_REQUESTS")
        history = environment.get("EVERGREEN_HISTORY")
        return cls(
            release=None if release is None else int(release),
            artifact_digest=environment.get("EVERGREEN_ARTIFACT") or None,
            trial_token=environment.get("EVERGREEN_TRIAL") or None,
            tokens=tuple(environment.get("EVERGREEN_TOKENS", "").split()),
            tally_edges=tuple(json.loads(edges)) if edges else None,
            request_log=Path(folder) if folder else None,
            history=Path(history) if history else None,
        )


@dataclass(frozen=True)
class Limits:
    """What one request may ask of an endpoint.

    Attributes:
        max_body_bytes: The size of a body, in bytes.
        max_concurrency: How many requests may run at the same time.
        timeout_seconds: How long a body may take to arrive, and how long a prediction may take, in seconds.
    """

    max_body_bytes: int
    max_concurrency: int
    timeout_seconds: float


class Endpoint:
    """One model and all that requests to it need. Call `start` before the first request and `close` after the last."""

    def __init__(self, served: ServedModel, settings: EndpointSettings) -> None:
        artifact = served.artifact
        manifest, limits = artifact.manifest, artifact.manifest["limits"]
        self.served, self.settings = served, settings
        self.release_mark = str(served.release or "none").encode()
        self.tokens, self.trial_token = settings.tokens, settings.trial_token
        self.limits = Limits(limits["max_body_bytes"], limits["max_concurrency"], limits["timeout_seconds"])
        self.metrics = Metrics(
            served.name, served.release, manifest.get("target_quantiles") or (), settings.tally_edges
        )
        self.recorder: Recorder | None = None
        self.page = page.files()
        sensitive = manifest.get("sensitive", ())
        example = without_sensitive(artifact.golden()[0][0], artifact.schema.features, artifact.guards, sensitive)
        self.card = page.card(manifest, served.release, example)
        others = [*artifact.schema.key, *artifact.schema.ignored]
        self.openapi = openapi.describe(self.card, others, bool(self.tokens))

    @classmethod
    def load(cls, artifact: Path, settings: EndpointSettings) -> "Endpoint":
        """Return the endpoint of the artifact in a folder; ArtifactError when it is not what was released.

        This takes most of a start, and begins no thread that lives on but what the estimator's own libraries begin.
        """
        return cls(ServedModel(load_artifact(artifact, settings.artifact_digest), settings.release), settings)

    def start(self) -> None:
        """Get ready for requests; ArtifactError when the golden rows are not answered as in training."""
        # A trial asks the golden rows itself, and tells what differs. Its rows are not requests: none is logged.
        if self.trial_token is None:
            self.served.check()
            log = self.served.artifact.manifest.get("log")
            if log and self.settings.request_log is not None:
                self.recorder = Recorder(self.served, self.metrics, self.settings.request_log, log)
        self.metrics.announce_release()

    def close(self) -> None:
        """Write what waits to be logged."""
        if self.recorder is not None:
            self.recorder.close()

    def history(self) -> list[dict[str, Any]]:
        """Return the releases of the model, the newest first, as far as the server told."""
        path = self.settings.history
        if path is None or not path.exists():
            return []
        releases: list[dict[str, Any]] = json.loads(path.read_bytes())
        return releases
