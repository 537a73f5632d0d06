"""What `evergreen run house_prices` is compared with: the same table and the same fits, and nothing else.

It prints the seconds of its parts as JSON, by the name of the evergreen step that does the same.
"""

import json
import sys
import time


def main(path: str) -> None:
    """Read the table, choose a candidate by 5-fold cross-validation, fit it, score the holdout, write it to `path`."""
    import joblib
    from sklearn.base import clone
    from sklearn.metrics import root_mean_squared_log_error
    from sklearn.model_selection import KFold, train_test_split
    from threadpoolctl import threadpool_limits

    from pipeline.models import _ames as ames
    from pipeline.models.house_prices import spec

    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def mark(step: str) -> None:
        seconds[step] = round(time.perf_counter() - started - sum(seconds.values()), 3)

    frame = ames.market()
    X = frame[list(spec.features or ())]
    X = X.astype(dict.fromkeys(X.select_dtypes("number"), "float64"))
    training, held_out, y, y_held_out = train_test_split(
        X, frame[spec.target].to_numpy("float64"), test_size=spec.holdout.fraction, random_state=spec.seed
    )
    mark("ingest")

    folds = [*KFold(spec.folds, shuffle=True, random_state=spec.seed).split(training)]
    tasks = [(name, *fold) for name in spec.candidates for fold in folds]

    def error(name: str, fit: "list[int]", scored: "list[int]") -> float:
        fitted = clone(spec.candidates[name]).fit(training.iloc[fit], y[fit])
        return float(root_mean_squared_log_error(y[scored], fitted.predict(training.iloc[scored])))

    errors = joblib.Parallel(n_jobs=-1)(joblib.delayed(error)(*task) for task in tasks)
    totals = dict.fromkeys(spec.candidates, 0.0)
    for (name, *_), one in zip(tasks, errors, strict=True):
        totals[name] += one
    with threadpool_limits(1):
        best = clone(spec.candidates[min(totals, key=totals.__getitem__)]).fit(training, y)
    mark("train")
    root_mean_squared_log_error(y_held_out, best.predict(held_out))
    mark("evaluate")
    joblib.dump(best, path, compress=3)
    mark("artifact")
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1])
