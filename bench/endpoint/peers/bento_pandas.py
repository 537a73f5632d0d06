"""BentoML with pandas: the plain service and the one with adaptive batching."""

import os
from typing import Any

import bentoml
import joblib
import numpy as np
import pandas as pd


@bentoml.service
class Plain:
    """One request, one frame, one prediction."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["ENDPOINT_MODEL"])

    @bentoml.api
    def predict(self, records: pd.DataFrame) -> np.ndarray:
        """Predict the rows of a frame."""
        return np.asarray(self.model.predict(records))


@bentoml.service
class Batching:
    """Requests that come together are predicted together."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["ENDPOINT_MODEL"])

    # A list, and the frame is made of it here: BentoML 1.4.39 cannot batch the DataFrame of pandas 3, since it knows
    # the class by the name of its module, which changed; then no request is ever answered.
    @bentoml.api(batchable=True)
    def predict(self, records: list[dict[str, Any]]) -> list[float]:
        """Predict the rows of several requests."""
        predictions: list[float] = self.model.predict(pd.DataFrame(records)).tolist()
        return predictions
