"""The model card: all that there is to know of a release before it is trusted, as one HTML page of its own.

It is made from the release's package, its snapshot and the folder of its run; what of these is gone is said to be.
`card.html` is the page with places for the facts, which Jinja escapes.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bentos.ledger.releases import Release
from flows.monitoring.champion_drift import packed_source
from flows.reports import charts
from pipeline.artifact import UNSEEN, Artifact, load_artifact
from pipeline.compiled import CompiledModel, UnanswerableError, columns_of
from pipeline.drift import DRIFT_HEADINGS, ColumnDrift, drift_cells
from pipeline.errors import ArtifactError
from pipeline.files import read_json, write_text
from pipeline.format_numbers import describe_fitted_rows, format_difference, format_number, format_signed
from pipeline.guard import without_sensitive
from pipeline.metrics import METRICS
from pipeline.partial_dependence import dependence
from pipeline.predict import Answers, target
from pipeline.predict_in_package import predict_packaged
from pipeline.processes import run_niced
from pipeline.sample import sample_rows
from pipeline.schema import Feature
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, load_snapshot
from pipeline.spec import load_spec
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow
    from markupsafe import Markup

Array = NDArray[Any]
Ask = Callable[["pyarrow.Table"], Answers]

MAX_ROWS = 2_000
"""Of very many held-out rows, so many are asked."""
MAX_POINTS = 600
MAX_DEPENDENCES = 6
"""For so many of the most important features it is shown what the model answers as they change."""
MAX_IMPORTANT = 20
MAX_LABELS = 12
MAX_LISTED = 12
"""So many categories of a feature are spelled out."""
MAX_DRIFTED = 20
ADDRESS = "http://127.0.0.1:3000"


def write_card(settings: Settings, release: Release, run: Path | None, path: Path) -> None:
    """Write the card of a release to a file; `run` is the folder of the run that made it, where it is still there.

    Raises ArtifactError when the package is gone, or not what was released.
    """
    source = packed_source(settings, release)
    artifact = load_artifact(source / "artifact", release.digests["artifact"])
    answer, sensitive = _asking(source, artifact), _sensitive(artifact)
    try:
        snapshot = load_snapshot(settings.folder("snapshots") / f"{release.digests['snapshot']}.parquet")
        said = facts(release, artifact, SnapshotFile(snapshot.path), answer, sensitive) | {"origin": snapshot.origin}
    except ArtifactError:
        said = facts(release, artifact, None, answer, sensitive) | {"origin": None}
    found = {
        "validation": _left(run, "validation.json"),
        "drift": _left(run, "drift.json"),
        "beside": run is not None and path.parent == run,
    }
    write_text(path, page(said | found))


def facts(
    release: Release,
    artifact: Artifact,
    table: "pyarrow.Table | SnapshotFile | None",
    answer: Ask,
    sensitive: Sequence[str],
) -> dict[str, Any]:
    """Return what a card says of a release, its charts drawn; `table` is its snapshot, `answer` asks its package.

    Without a table there are no ranges and charts of answers. Of `sensitive` columns there is no value.
    """
    manifest, schema = artifact.manifest, artifact.schema
    said: dict[str, Any] = {
        "release": release,
        "manifest": manifest,
        "unit": manifest["task"].get("unit") or "",
        "fitted_on": describe_fitted_rows(manifest["rows"]),
        "sensitive": sensitive,
        "metrics": _metrics(release),
        "intervals": _intervals(release.evaluation),
        "slices": _slices(release.evaluation, sensitive),
        "candidates": _candidates(manifest),
        "importance": _importance(manifest),
        "curl": _curl(artifact, sensitive),
        "address": ADDRESS,
        "unseen": _answers_unseen(artifact),
        "guards": [str(guard) for guard in artifact.guards if guard.refuse],
        "features": [_described(feature, None, sensitive) for feature in schema.features],
        "answers": None,
        "answered": 0,
        "dependence": [],
        "period": None,
    }
    if table is None:
        return said
    rule = Rule.from_dict(manifest["holdout"])
    mask = held_out(rule, table)
    said["features"] = [
        _described(feature, table.column(feature.name).filter(~mask), sensitive) for feature in schema.features
    ]
    said["columns"] = len(table.column_names)
    if rule.time and rule.time not in sensitive:
        times = table.column(rule.time)
        said["period"] = [_range(times.filter(part)) for part in (~mask, mask)]
    rows = table.filter(sample_rows(MAX_ROWS, mask))
    with suppress(Exception):
        # A model that refuses a row among these was released all the same; its card has the rest.
        answers = answer(rows)
        y = target(manifest["task"]["kind"], rows.column(manifest["target"]))
        said["answers"] = None if manifest["target"] in sensitive else _answered(manifest, y, answers)
        said["dependence"] = _dependence(manifest, rows, schema.features, y, answer, sensitive)
    said["answered"] = rows.num_rows
    return said


def page(found: Mapping[str, Any]) -> str:
    """Return the page with all facts in it."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
    )
    environment.filters |= {
        "number": format_number,
        "signed": format_signed,
        "minute": _minute,
        "short": lambda name: name[:12],
        "drift_cells": lambda column: drift_cells(ColumnDrift(**column)),
    }
    environment.filters |= {"count": lambda value: f"{value:,}", "percent": lambda share: f"{share:.1%}"}
    return environment.get_template("model_card.html").render(
        **found, drift_headings=DRIFT_HEADINGS, max_drifted=MAX_DRIFTED
    )


def _asking(source: Path, artifact: Artifact) -> Ask:
    """Return what answers as the package does: its plan, which is data, or a process with the package's own code."""
    program: CompiledModel | None = artifact.compiled_model()

    def answer(rows: "pyarrow.Table") -> Answers:
        if program is not None:
            with suppress(UnanswerableError):
                return program(*columns_of(rows, program.plan))
        answers: Answers = run_niced(predict_packaged, source, artifact.digest, rows)
        return answers

    return answer


def _sensitive(artifact: Artifact) -> tuple[str, ...]:
    """Return the columns that were sensitive when the model was trained, and those that are now."""
    then = artifact.manifest.get("sensitive", ())
    with suppress(Exception):
        return tuple(dict.fromkeys([*then, *load_spec(artifact.manifest["model"]).sensitive]))
    return tuple(then)


def _left(run: Path | None, name: str) -> Any:
    """Return what the run left in a JSON file of its folder; None where that is gone."""
    with suppress(OSError, ValueError):
        return run and read_json(run / name)
    return None


def _metrics(release: Release) -> list[dict[str, Any]]:
    evaluation = release.evaluation
    sides = ("challenger", "champion", "baseline")
    names = sorted(evaluation["challenger"], key=lambda name: name != evaluation["metric"])
    rows = [
        {
            "name": name,
            "decides": name == evaluation["metric"],
            "better": "more" if METRICS[name].greater_is_better else "less",
            **{side: (evaluation.get(side) or {}).get(name) for side in sides},
        }
        for name in names
        if name in METRICS
    ]
    if value := evaluation.get("value"):
        sums = {side: value.get(side) for side in sides}
        rows.append({"name": f"value, {value['unit']}", "decides": False, "better": "", **sums})
    return rows


def _intervals(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the interval of the metric's difference to the champion and to guessing, in words and drawn."""
    release = evaluation.get("champion_release")
    sides = {
        f"the champion, release {release}": evaluation.get("against_champion"),
        "always guessing": evaluation.get("against_baseline"),
    }
    found = []
    for other, interval in sides.items():
        if interval is None:
            continue
        low, middle, high = (interval[name] for name in ("low", "difference", "high"))
        words = (
            f"{evaluation['metric']} is {format_difference(middle, evaluation['greater_is_better'])} than {other}: "
            f"{format_signed(middle)}, with {100 * interval['confidence']:.4g}% confidence "
            f"from {format_signed(low)} to {format_signed(high)}"
        )
        found.append({"words": words, "drawn": charts.whiskers(low, middle, high, words)})
    return found


def _slices(evaluation: Mapping[str, Any], sensitive: Sequence[str]) -> list[dict[str, Any]]:
    by_column: dict[str, list[Mapping[str, Any]]] = {}
    for one in evaluation.get("slices") or ():
        by_column.setdefault(one["column"], []).append(one)
    worst = -1 if evaluation["greater_is_better"] else 1
    return [
        {
            "column": column,
            "hidden": column in sensitive,
            "rows": sorted(
                found,
                key=lambda one: (one["challenger"] is None, -worst * (one["challenger"] or 0.0)),
            ),
        }
        for column, found in by_column.items()
    ]


def _candidates(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how the candidates fared, the best first; none where the artifact is of before they were kept."""
    greater = METRICS[manifest["metric"]].greater_is_better

    def rank(one: Mapping[str, Any]) -> tuple[bool, float]:
        mean = float(np.mean(one["scores"])) if one["scores"] else 0.0
        return one["error"] is not None, -mean if greater else mean

    return [
        {
            **one,
            "chosen": one["name"] == manifest["estimator"],
            "mean": float(np.mean(one["scores"])) if one["error"] is None else None,
            "deviation": float(np.std(one["scores"])) if one["error"] is None else None,
        }
        for one in sorted(manifest.get("candidates", ()), key=rank)
    ]


def _importance(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = manifest.get("importance") or []
    most = max((one["importance"] for one in found), default=0.0) or 1.0
    return [{**one, "share": max(0.0, one["importance"] / most)} for one in found]


def _described(feature: Feature, column: "pyarrow.ChunkedArray | None", sensitive: Sequence[str]) -> dict[str, Any]:
    """Return a feature with its share of nulls and the values it had in training, in words; `column` has these."""
    said: dict[str, Any] = {"name": feature.name, "type": feature.type, "required": feature.required}
    said["nulls"] = None if column is None or len(column) == 0 else column.null_count / len(column)
    if feature.name in sensitive:
        return said | {"seen": "not shown"}
    if feature.type == "text":
        if feature.categories is None:
            return said | {"seen": "free text"}
        listed, more = feature.categories[:MAX_LISTED], len(feature.categories) - MAX_LISTED
        return said | {"seen": ", ".join(listed) + (f" and {more:,} more" if more > 0 else "")}
    if column is None or feature.type == "boolean":
        return said | {"seen": ""}
    return said | {"seen": _range(column)}


def _range(column: "pyarrow.ChunkedArray") -> str:
    import pyarrow.compute as pc

    ends = pc.min_max(column)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is None:
        return "nothing"
    return f"{_plain(low)} to {_plain(high)}"


def _plain(value: Any) -> str:
    """Return a value of the data in words: a date without its midnight, a number with digits enough to tell years."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    return str(value) if isinstance(value, str | bool) else f"{value:.7g}"


def _answered(manifest: Mapping[str, Any], y: Array, answers: Answers) -> dict[str, Any]:
    """Return how held-out rows were answered: drawn, and the most telling of it in words."""
    if manifest["task"]["kind"] == "regression":
        return _errors(manifest, y, answers.predictions)
    said: dict[str, Any] = {"confusion": _confusion(y, answers), "figures": [], "words": []}
    if answers.probabilities is not None:
        positive = manifest["task"].get("positive")
        if positive in answers.labels:
            truth, probability = y == positive, answers.probabilities[:, answers.labels.index(positive)]
            what = f"of {positive}"
        else:
            truth, probability = y == answers.predictions, answers.probabilities.max(axis=1)
            what = "of the label it answers"
        said["figures"] = [_calibration(what, truth, probability)]
    return said


def _errors(manifest: Mapping[str, Any], y: Array, predicted: Array) -> dict[str, Any]:
    finite = np.isfinite(predicted)
    y, predicted = y[finite], predicted[finite]
    if len(y) == 0:
        return {"confusion": None, "figures": [], "words": []}
    unit = f" {manifest['task'].get('unit') or ''}".rstrip()
    half, most = np.quantile(np.abs(y - predicted), [0.5, 0.9])
    within = (
        f"half of the predictions are within {format_number(half)}{unit} of the truth, "
        f"nine of ten within {format_number(most)}"
    )
    lean = float(np.mean(y - predicted))
    words = [
        f"On {len(y):,} held-out rows, {within}{unit}.",
        f"The truth is {format_number(abs(lean))}{unit} {'above' if lean > 0 else 'below'} the prediction in the mean.",
    ]
    shown = np.linspace(0, len(y) - 1, min(len(y), MAX_POINTS)).astype(int)
    scale = charts.scale_of([*y.tolist(), *predicted.tolist()], maybe_logarithmic=True)
    points = list(zip(y[shown].tolist(), predicted[shown].tolist(), strict=True))
    name = f"{manifest['target']}{',' if unit else ''}{unit}"
    return {
        "confusion": None,
        "words": words,
        "figures": [
            {
                "title": "Predicted against actual",
                "drawn": charts.scatter(
                    points,
                    scale,
                    scale,
                    (f"actual {name}", "predicted"),
                    f"Predicted against actual {manifest['target']} of {len(points)} held-out rows; {within}{unit}.",
                    diagonal=True,
                ),
            },
            {
                "title": "Residuals",
                "drawn": charts.histogram(
                    (y - predicted).tolist(), f"actual less predicted {name}", f"How far off: {within}{unit}."
                ),
            },
        ],
    }


def _calibration(what: str, truth: Array, probability: Array) -> dict[str, Any]:
    """Return how often what was said with some probability was so; some twenty rows a point, since fewer say little."""
    parts = np.array_split(np.argsort(probability, kind="stable"), int(np.clip(len(truth) // 20, 1, 10)))
    points = [(float(probability[part].mean()), float(truth[part].mean())) for part in parts if len(part)]
    gap = float(np.average([abs(said - found) for said, found in points], weights=[len(part) for part in parts]))
    said = (
        f"Probabilities {what} are {100 * gap:.1f} points from how often it is so, in the mean of {len(points)} groups."
    )
    unit = charts.Scale(0.0, 1.0)
    labels = (f"mean predicted probability {what}", "share that is so")
    return {
        "title": f"Calibration {what}",
        "drawn": charts.curve(points, unit, unit, labels, said, diagonal=True, height=360),
        "words": said,
    }


def _confusion(y: Array, answers: Answers) -> dict[str, Any]:
    """Return counts by actual and predicted label; of many labels, those of most rows and the others together."""
    pairs = list(zip(y.tolist(), answers.predictions.tolist(), strict=True))
    counts: dict[Any, int] = dict.fromkeys(answers.labels, 0)
    for actual, predicted in pairs:
        for label in (actual, predicted):
            counts[label] = counts.get(label, 0) + 1
    labels = list(counts)
    if len(labels) > MAX_LABELS:
        labels = sorted(labels, key=lambda label: -counts[label])[: MAX_LABELS - 1]
    names = [str(label) for label in labels] + (["(others)"] if len(labels) < len(counts) else [])
    place = {label: labels.index(label) if label in labels else len(labels) for label in counts}
    matrix = [[0] * len(names) for _ in names]
    for actual, predicted in pairs:
        matrix[place[actual]][place[predicted]] += 1
    return {"labels": names, "counts": matrix}


def _dependence(
    manifest: Mapping[str, Any],
    rows: "pyarrow.Table",
    features: Sequence[Feature],
    y: Array,
    answer: Ask,
    sensitive: Sequence[str],
) -> list[dict[str, Any]]:
    """Return, for the most important features, what the model answers in the mean as they change, all on one scale."""
    if manifest["target"] in sensitive:
        return []
    by_name = {feature.name: feature for feature in features if feature.name not in sensitive}
    ranked = [one["feature"] for one in manifest.get("importance") or [] if one["feature"] in by_name]
    top = [by_name[name] for name in (ranked or list(by_name))[:MAX_DEPENDENCES]]
    summary, label = _summary(manifest, y)
    found = dependence(rows, top, answer, summary)
    if not found:
        return []
    scale = charts.scale_of([value for one in found for value in one["answers"]])
    return [{"feature": one["feature"], "drawn": _drawn(one, scale, label)} for one in found]


def _summary(manifest: Mapping[str, Any], y: Array) -> tuple[Callable[[Answers], float], str]:
    """Return what is told of many answers, and its name: the mean, or of a label, its share."""
    if manifest["task"]["kind"] == "regression":
        unit = manifest["task"].get("unit")
        return lambda answers: float(answers.predictions.mean()), f"mean prediction{f', {unit}' if unit else ''}"
    labels = y.tolist()
    chosen = manifest["task"].get("positive", max(set(labels), key=labels.count))

    def share(answers: Answers) -> float:
        if answers.probabilities is None or chosen not in answers.labels:
            return float(np.mean(answers.predictions == chosen))
        return float(answers.probabilities[:, answers.labels.index(chosen)].mean())

    return share, f"probability of {chosen}"


def _drawn(one: Mapping[str, Any], scale: charts.Scale, label: str) -> "Markup":
    values, answers = one["values"], one["answers"]
    words = ["missing" if value is None else _plain(value) for value in values]
    ends = ", ".join(f"{format_number(answers[place])} at {words[place]}" for place in (0, -1))
    said = f"{label} as {one['feature']} changes: {ends}"
    if one["type"] in ("text", "boolean") or len(values) == 1:
        return charts.dots(list(zip(words, answers, strict=True)), scale, label, said)
    times = one["type"] == "timestamp"
    places = [(value - datetime(1970, 1, 1)).total_seconds() for value in values] if times else map(float, values)
    points = list(zip(places, answers, strict=True))
    across = charts.scale_of([place for place, _ in points], times=times)
    return charts.curve(points, across, scale, (one["feature"], label), said)


def _curl(artifact: Artifact, sensitive: Sequence[str]) -> dict[str, Any]:
    """Return a command that asks the endpoint a real row, and what that answers, where nothing had to be put in."""
    rows, answers = artifact.golden()
    features = {feature.name: feature for feature in artifact.schema.features}
    shown = without_sensitive(rows[0], artifact.schema.features, artifact.guards, sensitive)
    row = {name: value for name, value in shown.items() if value is not None}
    made_up = [name for name in features if name in sensitive and features[name].required]
    hidden = any(rows[0].get(name) is not None for name in sensitive)
    answer = None if hidden or artifact.manifest["target"] in sensitive else answers.predictions[0]
    if answer is not None and not answers.labels:
        answer = format_number(float(answer))
    body = json.dumps({"records": [row]}, ensure_ascii=False)
    return {
        "json": f"curl {ADDRESS}/predict --json {shlex.quote(body)}",
        "answer": answer,
        "made_up": made_up,
        "left_out": [name for name in sensitive if name in features and name not in made_up],
    }


def _answers_unseen(artifact: Artifact) -> bool | None:
    """Return whether categories never seen in training are answered; None where no feature is a text."""
    if not any(feature.type == "text" for feature in artifact.schema.features):
        return None
    return any(UNSEEN in row.values() for row in artifact.golden()[0])


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")
