"""FastAPI with pandas: every column a field of a Pydantic model, the rows a frame for scikit-learn."""

import os
from typing import Any

import joblib
import pandas as pd
from fastapi import FastAPI
from pipeline.endpoint_pipelines import NUMBERS, TEXTS  # type: ignore[import-not-found]
from pydantic import BaseModel, create_model

fields: dict[str, Any] = dict.fromkeys(NUMBERS, (float | None, None)) | dict.fromkeys(TEXTS, (str | None, None))
House = create_model("House", **fields)


class Houses(BaseModel):
    """What is asked."""

    records: list[House]  # type: ignore[valid-type]


class Prices(BaseModel):
    """What is answered."""

    predictions: list[float]


app = FastAPI()
model = joblib.load(os.environ["ENDPOINT_MODEL"])


@app.post("/predict")
def predict(houses: Houses) -> Prices:
    """Predict records."""
    frame = pd.DataFrame([house.model_dump() for house in houses.records])  # type: ignore[attr-defined]
    return Prices(predictions=model.predict(frame).tolist())


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the model is there."""
    return {"status": "ok"}
