"""reference/metrics.md: the metrics that a spec can name, and those that an endpoint counts for Prometheus."""

from typing import Any

from docs.reference_pages.markdown import code, meanings, page, sentence, table
from pipeline.metrics import METRICS

TASKS = {
    "regression": "Regression",
    "binary": "BinaryClassification",
    "multiclass": "MulticlassClassification",
}


def families() -> list[Any]:
    """Return what an endpoint counts, those of regression and of classification together."""
    from bentos.endpoint import metrics

    return [one for one in vars(metrics.families((0.0, 1.0))).values() if one is not None]


def metrics_page() -> str:
    """Return the page."""
    formulas = meanings("metric", METRICS)
    ours = [
        [
            code(name),
            ", ".join(TASKS[kind] for kind in TASKS if kind in metric.kinds),
            "greater" if metric.greater_is_better else "less",
            metric.needs,
            formulas[name],
        ]
        for name, metric in METRICS.items()
    ]
    counted = []
    for family in families():
        (described,) = family.describe()
        total = "_total" if described.type == "counter" else ""
        labels = ", ".join(code(label) for label in family._labelnames)
        counted.append([code(f"{described.name}{total}"), described.type, labels, sentence(described.documentation)])
    return page(
        "Metrics",
        "## Of a model",
        "`metric=` of a spec names the primary one: it compares candidates, and the gate judges by it. All metrics of "
        "a task are computed on the same held-out rows.",
        table(["metric", "tasks", "better", "computed from", "formula"], ours),
        "## Of an endpoint",
        "`GET /metrics` answers these, for Prometheus, added up over all workers. `path` is one of the endpoint's "
        "paths or `other`. `kind` is the phrase of the status, such as `bad-request`, or `client-gone`. "
        "`evergreen_prediction` exists for numbers, `evergreen_predicted_labels_total` for labels.",
        table(["metric", "type", "labels", "meaning"], counted),
    )
