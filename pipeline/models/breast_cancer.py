"""Breast cancer: is a tumour malignant, from ten measurements of the cell nuclei in a fine needle aspirate.

The data is the Wisconsin Diagnostic set (Street, Wolberg and Mangasarian, 1993), which scikit-learn ships: 569 rows,
30 numbers (mean, standard error and worst of each measurement), no missing values.
"""

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.sources import Function
from pipeline.spec import BinaryClassification, Cron, Gate, ModelSpec


def biopsies() -> pd.DataFrame:
    """Return the 569 biopsies: `id` (the row's position), 30 features and `diagnosis`, malignant or benign."""
    data = load_breast_cancer(as_frame=True)
    diagnosis = data.target.map(dict(enumerate(data.target_names.tolist()))).astype("str")
    return data.data.assign(diagnosis=diagnosis).rename_axis("id").reset_index()


spec = ModelSpec(
    name="breast_cancer",
    source=Function(biopsies),
    key=("id",),
    target="diagnosis",
    task=BinaryClassification(positive="malignant"),
    candidates={
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1_000)),
        "boosting": HistGradientBoostingClassifier(learning_rate=0.05, max_leaf_nodes=8, random_state=0),
    },
    metric="roc_auc",
    gate=Gate(at_least=0.95, tolerance=0.01),
    schedule=Cron("0 4 1 * *"),
)
