"""Runs in the peers' environment: what each estimator answers, and the models in the peers' own formats.

`python prepare.py FOLDER POOL MODEL=JOBLIB ...` writes FOLDER/expected.json, FOLDER/mlflow/MODEL and FOLDER/ridge.onnx.
"""

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import mlflow  # type: ignore[import-not-found]
import pandas as pd
from pipeline.endpoint_pipelines import NUMBERS, TEXTS  # type: ignore[import-not-found]
from skl2onnx import to_onnx  # type: ignore[import-not-found]
from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # type: ignore[import-not-found]


def main(folder: Path, pool: Path, models: dict[str, str]) -> None:
    """Write everything, and print why an estimator could not be converted."""
    rows = pd.read_csv(pool)
    expected = {}
    for name, path in models.items():
        estimator = joblib.load(path)
        answers = estimator.predict(rows)
        expected[name] = answers.tolist()
        signature = mlflow.models.infer_signature(rows, answers)
        mlflow.sklearn.save_model(
            estimator,
            folder / "mlflow" / name,
            signature=signature,
            serialization_format="cloudpickle",
            pip_requirements=[],
        )
    (folder / "expected.json").write_text(json.dumps(expected))
    not_converted = {}
    for name, path in models.items():
        try:
            (folder / f"{name}.onnx").write_bytes(_onnx(joblib.load(path)))
        except Exception as error:
            not_converted[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    (folder / "not_converted.json").write_text(json.dumps(not_converted))


def _onnx(estimator: Any) -> bytes:
    """Return the pipeline without what the converter does not take: the log of the target, and the texts' imputer."""
    columns = estimator.regressor_[0]
    for position, (name, step, names) in enumerate(columns.transformers_):
        if names == TEXTS and hasattr(step, "steps"):
            columns.transformers_[position] = (name, step[-1], names)
    types = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    types += [(name, StringTensorType([None, 1])) for name in TEXTS]
    model: bytes = to_onnx(estimator.regressor_, initial_types=types).SerializeToString()
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(word.split("=", 1) for word in sys.argv[3:]))
