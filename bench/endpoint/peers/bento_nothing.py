"""The least that BentoML can do: a typed endpoint, in its default configuration, that answers a constant."""

from typing import Any

import bentoml


@bentoml.service
class Nothing:
    """Reads the records, and no more."""

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: ARG002
        """Answer the same whatever is asked."""
        return {"predictions": [100.0], "model": "nothing", "release": 1}
