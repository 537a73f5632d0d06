"""How much each feature counts: permutation importance on held-out rows, in units of the spec's metric."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate import score
from pipeline.predict import Answers, take, target
from pipeline.schema import Feature

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec

MAX_ROWS = 1_000
MAX_ASKED = 500_000
"""Of very many features, fewer rows are shuffled, so that no more than this many are predicted."""


def importance(
    spec: "ModelSpec",
    rows: "pyarrow.Table",
    features: Sequence[Feature],
    ask: Callable[["pyarrow.Table"], Answers],
    shuffles: int,
) -> list[dict[str, Any]]:
    """Return the features, the most important first, each with its `importance` and that number's `deviation`.

    The importance is by how much the metric becomes worse, in the mean of some shuffles, when the feature's values
    change places among the rows (Breiman, Random Forests, 2001, section 10; Fisher, Rudin and Dominici, All Models are
    Wrong, but Many are Useful, 2019). `ask` answers the rows of a table; what it raises for shuffled ones, or where the
    metric is not finite, leaves a feature out. The list is empty where the metric is undefined on the rows as they are.
    """
    rng = np.random.default_rng(spec.seed)
    most = max(50, min(MAX_ROWS, MAX_ASKED // (shuffles * len(features))))
    rows = rows.take(np.sort(rng.permutation(rows.num_rows)[:most])).combine_chunks()
    y_true = target(spec.task.kind, rows.column(spec.target))
    before = score(spec.task, spec.metric, y_true, ask(rows))
    if not np.isfinite(before):
        return []
    # All features are shuffled alike, and so compared alike.
    repeated = rows.take(np.tile(np.arange(len(y_true)), shuffles))
    shuffled = np.concatenate([rng.permutation(len(y_true)) for _ in range(shuffles)])
    found = []
    for feature in features:
        place, column = rows.column_names.index(feature.name), rows.column(feature.name).take(shuffled)
        try:
            answers = ask(repeated.set_column(place, feature.name, column))
        except Exception:
            # A pipeline may refuse values that never came together; that must not keep it from its endpoint.
            continue
        parts = [slice(start, start + len(y_true)) for start in range(0, len(shuffled), len(y_true))]
        after = np.array([score(spec.task, spec.metric, y_true, take(answers, part)) for part in parts])
        worse = before - after if spec.greater_is_better else after - before
        worse = worse[np.isfinite(worse)]
        if len(worse):
            found.append({"feature": feature.name, "importance": float(worse.mean()), "deviation": float(worse.std())})
    return sorted(found, key=lambda one: (-one["importance"], one["feature"]))
