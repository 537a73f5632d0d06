"""Tiny specs, tables and estimators, in a module that the processes which tests start can import, too."""

# ruff: noqa: ARG002

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline import digest
from pipeline.snapshot import Snapshot
from pipeline.sources import Csv, logical_type
from pipeline.spec import BinaryClassification, Gate, ModelSpec, Regression


def a_spec(**changes):
    """A regression of `price` on every other column, with changes."""
    fields = {
        "name": "houses",
        "source": Csv("houses.csv"),
        "key": ("id",),
        "target": "price",
        "task": Regression(unit="USD"),
        "candidates": {"ridge": Ridge()},
        "metric": "rmse",
        "gate": Gate(at_most=10.0),
    }
    return ModelSpec(**fields | changes)


def a_classifier(**changes):
    """A classification of `price` into yes and no, with changes."""
    fields = {
        "task": BinaryClassification(positive="yes"),
        "candidates": {"logistic": LogisticRegression()},
        "metric": "roc_auc",
        "gate": Gate(at_least=0.9),
    }
    return a_spec(**fields | changes)


def a_table(rows=200, seed=0):
    """Rows of id, area, rooms and price, where price is 3 area + 10 rooms + noise of deviation 5."""
    rng = np.random.default_rng(seed)
    area, rooms = rng.uniform(20, 100, rows), rng.integers(1, 6, rows)
    price = 3 * area + 10 * rooms + rng.normal(0, 5, rows)
    return pa.table({"id": np.arange(rows), "area": area, "rooms": rooms, "price": price})


def a_snapshot(table: pa.Table, folder: Path) -> Snapshot:
    """The table as a snapshot, without a source."""
    name = digest.of_table(table)
    path = folder / f"{name}.parquet"
    pyarrow.parquet.write_table(table, path)
    return Snapshot(path, name, len(table), {f.name: logical_type(f.type) for f in table.schema}, "", "")


def tiny_forest():
    """A forest that is only repeatable when it is seeded and predicts on one thread."""
    return RandomForestRegressor(n_estimators=20, n_jobs=-1)


class Recorder(RegressorMixin, BaseEstimator):
    """Appends the sorted values of its first column that it is fitted on, one line a fit, to a file."""

    def __init__(self, path=""):
        self.path = path

    def fit(self, X, y):
        with open(self.path, "a") as file:
            file.write(",".join(str(int(value)) for value in sorted(X.iloc[:, 0])) + "\n")
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


class Drawing(RegressorMixin, BaseEstimator):
    """Predicts the mean plus a number that fit draws from numpy's global generator."""

    def fit(self, X, y):
        self.mean_ = float(np.mean(y)) + np.random.normal()
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


class Broken(RegressorMixin, BaseEstimator):
    """Raises when fitted on at least `rows` rows."""

    def __init__(self, rows=0):
        self.rows = rows

    def fit(self, X, y):
        if len(X) >= self.rows:
            raise ValueError(f"the {len(X)} rows are too many")
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


class Unclonable(RegressorMixin, BaseEstimator):
    """Breaks scikit-learn's rule that a constructor stores its parameters as they are."""

    def __init__(self, names=None):
        self.names = list(names or ())

    def fit(self, X, y):
        return self


class Nowhere(RegressorMixin, BaseEstimator):
    """Predicts NaN."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.full(len(X), np.nan)


class Column(RegressorMixin, BaseEstimator):
    """Predicts what a column holds, plus `error`; knows answers by heart, for evaluations worked out by hand."""

    def __init__(self, name="area", error=0.0):
        self.name = name
        self.error = error

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X[self.name].to_numpy() + self.error


class Share(ClassifierMixin, BaseEstimator):
    """Predicts the probability of the second label that a column holds."""

    def __init__(self, name="area", labels: Iterable = ("no", "yes")):
        self.name = name
        self.labels = labels

    def fit(self, X, y):
        return self

    @property
    def classes_(self):
        return np.array(self.labels, dtype=object)

    def predict_proba(self, X):
        second = X[self.name].to_numpy()
        return np.column_stack([1 - second, second])

    def predict(self, X):
        return self.classes_[(X[self.name].to_numpy() >= 0.5).astype(int)]


class Said(ClassifierMixin, BaseEstimator):
    """Predicts the label that a text column holds, without probabilities."""

    def __init__(self, name="said", labels: Iterable = ("no", "yes")):
        self.name = name
        self.labels = labels

    def fit(self, X, y):
        return self

    @property
    def classes_(self):
        return np.array(self.labels, dtype=object)

    def predict(self, X):
        return X[self.name].to_numpy(dtype=object)
