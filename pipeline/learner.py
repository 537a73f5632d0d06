"""The learner of an estimator, its last step that fits the target, and whether it can be trained in batches."""

from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline


def learner(estimator: Any) -> Any:
    """Return the learner of an unfitted estimator: of a pipeline, a search or a TransformedTargetRegressor.

    >>> from sklearn.linear_model import SGDRegressor
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> learner(make_pipeline(StandardScaler(), SGDRegressor()))
    SGDRegressor()
    """
    if isinstance(estimator, Pipeline):
        return learner(estimator.steps[-1][1])
    if isinstance(estimator, TransformedTargetRegressor):
        return learner(estimator.regressor)
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return learner(estimator.estimator)
    return estimator


def partial_fit_blocker(estimator: Any) -> str | None:
    """Return why an estimator's learner cannot be trained in batches, or None if no reason is known.

    >>> from sklearn.linear_model import Ridge
    >>> partial_fit_blocker(Ridge())
    'has no partial_fit'
    """
    last = learner(estimator)
    # With L-BFGS a network forgets what it learned before, although scikit-learn's MLPRegressor offers partial_fit.
    if not hasattr(last, "partial_fit") or getattr(last, "solver", None) == "lbfgs":
        return "has no partial_fit"
    if getattr(last, "early_stopping", False):
        return "sets rows aside to stop early, which batches do not allow (early_stopping=True)"
    if getattr(last, "class_weight", None) == "balanced":
        return "weighs labels by their counts in all rows, which batches do not know (class_weight='balanced')"
    return None
