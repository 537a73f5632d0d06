"""What the endpoint counts, for Prometheus: noted in plain numbers while requests run, added up a little later.

A count or an observation costs prometheus_client a lock and a write each; a hundred noted together cost little more
than one. Every worker writes to files of its own in PROMETHEUS_MULTIPROC_DIR, and /metrics adds them up.
"""

from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.predict import Answers

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

CLIENT_CLOSED_REQUEST = 499
"""What counts and logs say of a request whose client went before it was answered; there is no such status in HTTP."""


class Metrics:
    """The counts of one worker; `flush` hands on what was noted."""

    def __init__(
        self, model: str, release: int | None, edges: Sequence[float], tally_edges: Sequence[float] | None = None
    ) -> None:
        self.model = model
        self.all = families(tuple(edges))
        self.release = release
        self._counts: Counts[tuple[Any, tuple[str, ...]]] = Counts()
        self._seconds: list[float] = []
        self._batch_rows: list[int] = []
        self._predicted: list[Any] = []
        # What supervisors compare two releases by: see bentos.canary.Counters.
        self.edges = np.array(tally_edges if tally_edges is not None else edges)
        self._requests = self._errors = self._errors_since = self._rows = self._null_count = self._unseen_count = 0
        self._seconds_counts = np.zeros(len(SECONDS) + 1, dtype=np.int64)
        self._prediction_counts: Counts[str] = Counts()
        self._statuses: Counts[str] = Counts()

    def announce_release(self) -> None:
        """Say which release answers, from now on."""
        self.all.release.labels(self.model).set(self.release or 0)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Note an answer; `path` is one of few."""
        self._counts[self.all.requests, (path, str(status))] += 1
        if path == "/predict":
            self._seconds.append(seconds)
            self._errors_since += status >= 500
        if status >= 400:
            kind = (
                "client-gone"
                if status == CLIENT_CLOSED_REQUEST
                else HTTPStatus(status).phrase.lower().replace(" ", "-")
            )
            self._counts[self.all.errors, (kind,)] += 1

    def asked(self, nulls: Mapping[str, int], unseen: Mapping[str, int]) -> None:
        """Note what the features of a batch held."""
        for name, count in nulls.items():
            self._counts[self.all.nulls, (name,)] += count
            self._null_count += count
        for name, count in unseen.items():
            self._counts[self.all.unseen, (name,)] += count
            self._unseen_count += count

    def broke(self, broken: Mapping[tuple[str, str], int]) -> None:
        """Note how many values broke a rule of the guard, by feature and rule, also where the request was refused."""
        for names, count in broken.items():
            self._counts[self.all.broken, names] += count

    def together(self, rows: int) -> None:
        """Note how many rows were predicted at once."""
        self._batch_rows.append(rows)

    def predicted(self, answers: Answers) -> None:
        """Note predictions."""
        self._predicted.append(answers.predictions)

    def not_logged(self) -> None:
        """Note a request that the log of requests had no room for."""
        self._counts[self.all.dropped, ("queue",)] += 1

    def lost(self, requests: int) -> None:
        """Count requests whose file of the log could not be written; may be called in another thread."""
        self.all.dropped.labels(self.model, "disk").inc(requests)

    def logged(self, rows: int) -> None:
        """Count rows that were written to the log of requests; may be called in another thread."""
        self.all.logged.labels(self.model).inc(rows)

    def flush(self) -> None:
        """Add what was noted to what Prometheus reads."""
        counts, self._counts = self._counts, Counts()
        for (metric, values), count in counts.items():
            metric.labels(self.model, *values).inc(count)
            if metric is self.all.requests and values[0] == "/predict":
                self._statuses[values[1]] += count
        if self._seconds:
            seconds, self._seconds = np.array(self._seconds), []
            observe(self.all.seconds.labels(self.model), seconds)
            places = np.searchsorted(SECONDS, seconds, side="left")
            self._seconds_counts += np.bincount(places, minlength=len(SECONDS) + 1)
            self._requests += len(seconds)
            self._errors, self._errors_since = self._errors + self._errors_since, 0
        if self._batch_rows:
            rows, self._batch_rows = self._batch_rows, []
            observe(self.all.batch_rows.labels(self.model), np.array(rows))
        if self._predicted:
            predicted, self._predicted = np.concatenate(self._predicted), []
            self.all.rows.labels(self.model).inc(len(predicted))
            self._rows += len(predicted)
            if self.all.predictions is not None:
                observe(self.all.predictions.labels(self.model), predicted)
                places = np.searchsorted(self.edges, predicted, side="left")
                self._prediction_counts.update(map(str, places.tolist()))
            else:
                by_label = Counts(map(str, predicted.tolist()))
                self._prediction_counts.update(by_label)
                for label, count in by_label.items():
                    self.all.labels.labels(self.model, label).inc(count)

    def counters(self) -> dict[str, Any]:
        """Return what was answered since this worker began, as far as it was flushed (see bentos.canary.Counters)."""
        return {
            "requests": self._requests,
            "errors": self._errors,
            "rows": self._rows,
            "nulls": self._null_count,
            "unseen": self._unseen_count,
            "seconds": self._seconds_counts.tolist(),
            "statuses": dict(self._statuses),
            "predictions": dict(self._prediction_counts),
        }


def families(edges: tuple[float, ...]) -> SimpleNamespace:
    """Return what is counted in this process; `edges` are the buckets of predictions, none where they are labels."""
    # Not before: what prometheus_client does in its processes it asks of the environment when it is imported.
    from prometheus_client import Counter, Gauge, Histogram

    # /metrics adds up the workers' files and asks no registry; in the process's own, each name could be had only once.
    counter, histogram = partial(Counter, registry=None), partial(Histogram, registry=None)
    unseen = "Values of features that training never saw"
    broken = "Values of features that break a rule of the suite"
    dropped = "Requests of the sample that are not in the log of requests"
    return SimpleNamespace(
        requests=counter("evergreen_requests_total", "Requests", ["model", "path", "status"]),
        errors=counter("evergreen_errors_total", "Requests that were refused or broke", ["model", "kind"]),
        rows=counter("evergreen_rows_total", "Rows predicted", ["model"]),
        nulls=counter("evergreen_nulls_total", "Nulls in features of rows predicted", ["model", "feature"]),
        unseen=counter("evergreen_unseen_categories_total", unseen, ["model", "feature"]),
        broken=counter("evergreen_broken_rules_total", broken, ["model", "feature", "rule"]),
        logged=counter("evergreen_logged_rows_total", "Rows written to the log of requests", ["model"]),
        dropped=counter("evergreen_log_dropped_requests_total", dropped, ["model", "reason"]),
        labels=counter("evergreen_predicted_labels_total", "Predictions by label", ["model", "label"]),
        seconds=histogram("evergreen_predict_seconds", "Time to answer POST /predict", ["model"], buckets=SECONDS),
        batch_rows=histogram("evergreen_batch_rows", "Rows predicted at once", ["model"], buckets=ROWS),
        predictions=histogram("evergreen_prediction", "Predicted values", ["model"], buckets=edges) if edges else None,
        release=Gauge(
            "evergreen_release",
            "The release that answers",
            ["model"],
            registry=None,
            multiprocess_mode="livemostrecent",
        ),
    )


def observe(histogram: Any, values: Any) -> None:
    """Observe many values at once; a bucket holds what is at most its upper bound."""
    # prometheus_client has no public way to observe more than one value; the test of this function holds it to that.
    places = np.searchsorted(histogram._upper_bounds, values, side="left")
    for place, count in enumerate(np.bincount(places).tolist()):
        if count:
            histogram._buckets[place].inc(count)
    histogram._sum.inc(float(np.sum(values)))
