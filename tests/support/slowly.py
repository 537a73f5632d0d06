"""An estimator that takes its time, in a module that a served package can carry."""

import sys
import time

from sklearn.base import BaseEstimator, RegressorMixin


class Slowly(RegressorMixin, BaseEstimator):
    """Predicts the area, a millisecond for each that the largest has over 500; raises where one is negative."""

    def fit(self, X, y=None):  # noqa: ARG002
        return self

    def predict(self, X):
        print("predict called", file=sys.stderr, flush=True)
        area = X["area"].to_numpy()
        if (area < 0).any():
            raise ValueError("negative")
        time.sleep(max(0.0, area.max() - 500) / 1000)
        return area
