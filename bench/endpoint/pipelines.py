"""The table and the pipelines that every server of the comparison answers with.

This file is copied into the project that is measured, so that evergreen's specs and the peers, which load the very
estimators that evergreen trained, import one and the same module.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

NUMBERS = [f"Number{i:02}" for i in range(35)]
TEXTS = [f"Text{i:02}" for i in range(43)]
FEATURES = NUMBERS + TEXTS
KEY, TARGET, TIME = "Id", "SalePrice", "Sold"
NULL_SHARE = 0.1
LATE = 0.8
"""Which part of the rows was sold first; the do-nothing models know what the rest was sold for."""


def houses(rows: int = 1_500, seed: int = 0) -> pd.DataFrame:
    """Return a table like House Prices: a key, 35 numbers, 43 texts of 5 to 25 categories, and a price.

    A tenth of the values is null in every third column. The same seed gives the same table.
    """
    rng = np.random.default_rng(seed)
    # What a category or a number adds to the price does not depend on the seed of the rows.
    effects = np.random.default_rng(0)
    columns: dict[str, Any] = {KEY: np.arange(1, rows + 1)}
    log_price = np.full(rows, 12.0)
    for i, name in enumerate(NUMBERS):
        typical = 10.0 ** effects.uniform(0.5, 3.5)
        values = typical * np.exp(rng.normal(0, 0.4, rows))
        columns[name] = values.round() if i % 2 else values.round(2)
        log_price += effects.normal(0, 0.04) * np.log(values / typical) / 0.4
    for name in TEXTS:
        size = int(effects.integers(5, 26))
        shares = effects.dirichlet(np.full(size, 2.0))
        levels = effects.normal(0, 0.03, size)
        chosen = rng.choice(size, rows, p=shares)
        columns[name] = np.array([f"{name[-2:]}-level{level}" for level in range(size)], dtype=object)[chosen]
        log_price += levels[chosen]
    for name in FEATURES[::3]:
        columns[name] = pd.Series(columns[name]).mask(rng.random(rows) < NULL_SHARE)
    columns[TARGET] = np.exp(log_price + rng.normal(0, 0.05, rows)).round()
    return pd.DataFrame(columns)


def nothing_to_learn(features: list[str], rows: int = 1_500) -> pd.DataFrame:
    """Return some features of the table and a price that jumped late, to 100, so that a constant passes the gate."""
    table = houses(rows)[[KEY, *features]]
    days = pd.date_range("2020-01-01", periods=rows, freq="D")
    price = np.where(np.arange(rows) < LATE * rows, 0.0, 100.0) + np.random.default_rng(0).normal(0, 1, rows).round(3)
    return table.assign(**{TIME: days, TARGET: price})


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers, each as a share of the row's first three: what a team writes, and no compiler knows."""
    numbers = frame.astype("float64")
    return numbers.div(numbers.iloc[:, :3].sum(axis=1) + 1.0, axis=0)


def _one_hot() -> Any:
    return make_pipeline(_told(), OneHotEncoder(handle_unknown="ignore"))


def _ordinal() -> Any:
    return make_pipeline(_told(), OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))


def _told() -> Any:
    # A word of its own for a missing text: ONNX has no null among texts, and is told the same.
    return SimpleImputer(strategy="constant", fill_value="missing")


def _on_log_price(estimator: Any) -> Any:
    return TransformedTargetRegressor(estimator, func=np.log1p, inverse_func=np.expm1)


def ridge() -> Any:
    """Scaled numbers and one-hot texts into a ridge regression."""
    features = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), (_one_hot(), TEXTS))
    return _on_log_price(make_pipeline(features, Ridge(alpha=10.0)))


def trees() -> Any:
    """200 histogram trees on numbers and ordinal texts."""
    features = make_column_transformer(("passthrough", NUMBERS), (_ordinal(), TEXTS))
    return _on_log_price(
        make_pipeline(features, HistGradientBoostingRegressor(max_iter=200, early_stopping=False, random_state=0))
    )


def forest() -> Any:
    """A forest of 200 trees on numbers and ordinal texts."""
    features = make_column_transformer((SimpleImputer(), NUMBERS), (_ordinal(), TEXTS))
    return _on_log_price(make_pipeline(features, RandomForestRegressor(n_estimators=200, random_state=0)))


def custom() -> Any:
    """The ridge with a function of the team's own in it, which cannot be compiled."""
    numbers = make_pipeline(FunctionTransformer(shares), SimpleImputer(), StandardScaler())
    features = make_column_transformer((numbers, NUMBERS), (_one_hot(), TEXTS))
    return _on_log_price(make_pipeline(features, Ridge(alpha=10.0)))


def constant() -> Any:
    """No model at all."""
    return DummyRegressor(strategy="constant", constant=100.0)
