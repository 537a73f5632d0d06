"""The JSON of each answer of the endpoint, as typed values; docs/reference/schemas/http has their schemas.

An endpoint's own /docs.json says the same of one model, with its features and labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bentos.ledger.releases import Event, Release

Scores = dict[str, float | None]
"""Metrics by name; None if a metric is undefined on the rows."""


@dataclass(frozen=True)
class HistoryRelease:
    """A release as GET /history tells it.

    Attributes:
        release: its number.
        created: when it was released, ISO 8601.
        state: what became of it, such as "champion", "replaced" or "rolled back".
        reason: why it has that state.
        metrics: of the model on the held-out rows, when it was evaluated.
    """

    release: int
    created: str
    state: str
    reason: str
    metrics: Scores


@dataclass(frozen=True)
class History:
    """What GET /history answers: the releases of the model, the newest first."""

    model: str
    releases: list[HistoryRelease]


def history_of(made: Sequence["Release"], events: Sequence["Event"]) -> list[HistoryRelease]:
    """Return the releases of a model, the newest first; both arguments are all there are, the oldest first."""
    from bentos.ledger.releases import states

    now = states(events)
    return [
        HistoryRelease(
            release=release.number,
            created=release.created,
            state=now.get(release.number, "unknown"),
            reason=next((event.reason for event in reversed(events) if event.release == release.number), ""),
            metrics=release.evaluation["challenger"],
        )
        for release in reversed(made)
    ]


@dataclass(frozen=True)
class BadValueView:
    """One error in the records.

    Attributes:
        row: which record, counted from 0; None if the error is about none of them.
        field: which column; None if the error is about none of them.
        problem: what is wrong.
    """

    row: int | None
    field: str | None
    problem: str


@dataclass(frozen=True)
class ProblemDetails:
    """What the endpoint answers when it refuses, as in RFC 9457.

    Attributes:
        type: about:blank, so the title is the phrase of the status.
        title: the phrase of the status.
        status: the HTTP status.
        detail: what is wrong, in a sentence.
        errors: the errors of single records; absent without any.
    """

    type: str
    title: str
    status: int
    detail: str
    errors: list[BadValueView] | None = None


@dataclass(frozen=True)
class Predictions:
    """What POST /predict answers to JSON.

    Attributes:
        predictions: one for each record, in order: a number or a label.
        model: the name of the model.
        release: the release that answered; None outside of a release.
        probabilities: of each record the probability of each label; absent if the model has none.
    """

    predictions: list[float | str | bool]
    model: str
    release: int | None
    probabilities: list[dict[str, float]] | None = None


@dataclass(frozen=True)
class Degraded:
    """What GET /readyz answers while requests are answered, but not as they should be: why."""

    status: Literal["degraded"]
    reason: str


@dataclass(frozen=True)
class CardFeature:
    """A feature in the model card.

    Attributes:
        name: its name.
        type: number, text, boolean or timestamp.
        required: whether a record must have it.
        categories: the values that training saw; absent if there are too many or it is sensitive.
        minimum: the least value that is accepted; absent without one.
        maximum: the largest value that is accepted; absent without one.
        exclusive_minimum: whether the minimum itself is refused.
        exclusive_maximum: whether the maximum itself is refused.
    """

    name: str
    type: Literal["number", "text", "boolean", "timestamp"]
    required: bool
    categories: list[str] | None = None
    minimum: float | str | None = None
    maximum: float | str | None = None
    exclusive_minimum: bool | None = None
    exclusive_maximum: bool | None = None


@dataclass(frozen=True)
class ModelCard:
    """What GET /model answers.

    Attributes:
        model: the name of the model.
        release: the release; None outside of a release.
        task: regression, binary or multiclass.
        unit: the unit of the target; absent for classifiers.
        positive: the positive label; absent but for two labels.
        target: the column that is predicted.
        labels: what is predicted; absent for numbers.
        features: what a record may have.
        key: the columns that are sent back with CSV.
        metric: the primary metric.
        metrics: of the model on the held-out rows.
        champion: of the champion of then on the same rows; None without one.
        higher_is_better: whether more is better, by metric.
        importance: what each feature contributes.
        reasons: what the gate's verdict says.
        estimator: the name of the chosen candidate.
        rows: how many rows it was trained on, judged by and fitted on.
        limits: what a request may have.
        snapshot: the digest of the rows it was trained on.
        created: when it was trained, ISO 8601.
        example: a record that can be sent.
    """

    model: str
    release: int | None
    task: Literal["regression", "binary", "multiclass"]
    target: str
    features: list[CardFeature]
    key: list[str]
    metric: str
    metrics: Scores
    champion: Scores | None
    higher_is_better: dict[str, bool]
    importance: list[dict[str, Any]]
    reasons: list[str]
    estimator: str
    rows: dict[str, Any]
    limits: dict[str, float]
    snapshot: str
    created: str
    example: dict[str, Any]
    unit: str | None = None
    positive: str | float | bool | None = None
    labels: list[str | float | bool] | None = None


def by_name() -> dict[str, type]:
    """Return the types of the endpoint's JSON by the name of their schema."""
    return {
        "degraded": Degraded,
        "history": History,
        "model": ModelCard,
        "predict": Predictions,
        "problem": ProblemDetails,
    }
