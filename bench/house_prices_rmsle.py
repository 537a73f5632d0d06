"""How well the house_prices spec predicts real House Prices data: `python -m bench.house_prices_rmsle [PATH]`.

The candidate is chosen inside each outer fold, by 5-fold cross-validation of the outer-training rows alone, as a run
would choose it; the figure is of the whole procedure, not of the candidate that happens to look best.
"""

import sys
import time

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_log_error
from sklearn.model_selection import KFold, cross_val_score

from pipeline.models.house_prices import spec

FOLDS = KFold(5, shuffle=True, random_state=0)


def main(path: str) -> None:
    """Print the candidate chosen and the RMSLE of each outer fold, then their mean and the RMSLE of all rows pooled."""
    started = time.perf_counter()
    frame = pd.read_csv(path, keep_default_na=False, na_values=["NA", ""])
    X = frame[list(spec.features or ())]
    X = X.astype(dict.fromkeys(X.select_dtypes("number"), "float64"))
    y = frame[spec.target].to_numpy("float64")

    predictions = np.empty_like(y)
    scores = []
    for number, (train, test) in enumerate(FOLDS.split(X), start=1):
        errors = {
            name: -cross_val_score(
                candidate, X.iloc[train], y[train], cv=FOLDS, scoring="neg_root_mean_squared_log_error"
            ).mean()
            for name, candidate in spec.candidates.items()
        }
        chosen = min(errors, key=errors.__getitem__)
        fitted = clone(spec.candidates[chosen]).fit(X.iloc[train], y[train])
        predictions[test] = fitted.predict(X.iloc[test])
        scores.append(root_mean_squared_log_error(y[test], predictions[test]))
        inner = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
        print(f"fold {number}: {chosen} {scores[-1]:.4f} on {len(test)} rows (inner: {inner})", flush=True)
    pooled = root_mean_squared_log_error(y, predictions)
    seconds = time.perf_counter() - started
    print(f"RMSLE {np.mean(scores):.4f} mean of folds, {pooled:.4f} pooled, {len(y)} rows, {seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["../shared/data/house_prices.csv"])
