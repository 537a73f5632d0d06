"""ONNX in BentoML: the pipeline as a graph, run by onnxruntime; no pandas and no scikit-learn when it answers."""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime as ort  # type: ignore[import-not-found]


@bentoml.service
class Onnx:
    """What the converter cannot take, the texts' imputer and the logarithm of the price, is done here."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["ENDPOINT_ONNX"], options, providers=["CPUExecutionProvider"])
        self.columns = {column.name: column.type == "tensor(string)" for column in self.session.get_inputs()}

    @bentoml.api
    def predict(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Predict records."""
        columns = {}
        for name, text in self.columns.items():
            values = [record.get(name) for record in records]
            columns[name] = (
                np.array([["missing" if value is None else value] for value in values], dtype=object)
                if text
                else np.array(values, dtype="float32").reshape(-1, 1)
            )
        log_price = self.session.run(None, columns)[0]
        return {"predictions": np.expm1(log_price.ravel().astype("float64")).tolist()}
