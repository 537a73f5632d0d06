"""Every PNG image of the reports, a function each: of a challenger, of drift, of a backtest and of monitoring."""

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format_numbers import format_number
from pipeline.predict import Answers, predict_rows, target
from pipeline.sample import sample_rows
from pipeline.schema import describe
from pipeline.spec import BinaryClassification, Regression
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flows.monitoring.report import MonitoringReport
    from pipeline.backtest import Backtest
    from pipeline.drift import ColumnDrift
    from pipeline.spec import ModelSpec

Array = NDArray[Any]

MAX_POINTS = 5_000
"""Maximum rows in a scatter plot; of more, a sample is drawn."""
MAX_COUNTED = 200_000
"""Maximum rows whose labels are counted; of more, a sample is."""
MAX_FEATURES = 15
MAX_LABELS = 12
MAX_HISTOGRAMS = 12
"""Maximum number of drifted columns that are drawn, the worst ones."""

_ACCENT, _INK, _MUTED, _GRID, _WARM, _WARN = "#2a6f97", "#343a40", "#868e96", "#e9ecef", "#d9772b", "#bc4749"


def draw(
    spec: "ModelSpec",
    table: "pyarrow.Table",
    rule: Rule,
    estimator: Any,
    importance: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """Return PNG images by name: how a fitted estimator predicts the rows of a table that a rule holds out.

    A regression has `predicted-against-actual` and `residuals`. A classification has `confusion`, and with two labels
    also `roc` and `calibration`. All have `importance`, from the artifact's manifest. An undefined image is left out,
    such as the ROC of rows with one label, and so are images that show a sensitive target.
    """
    held = held_out(rule, table)
    max_rows = MAX_POINTS if isinstance(spec.task, Regression) else MAX_COUNTED
    rows = table.filter(sample_rows(max_rows, held, spec.seed))
    if rows.num_rows == 0:
        return {}
    y = target(spec.task.kind, rows.column(spec.target))
    answers = predict_rows(estimator, rows, describe(spec, table).features)
    figures: dict[str, Figure | None]
    if spec.target in spec.sensitive:
        figures = {}
    elif isinstance(spec.task, Regression):
        finite = np.isfinite(answers.predictions)
        actual, predicted = y[finite], answers.predictions[finite]
        title = _title(len(actual), int(held.sum()))
        figures = {
            "predicted-against-actual": _predicted_against_actual(spec, actual, predicted, title),
            "residuals": _residuals(spec, actual, predicted, title),
        }
    else:
        title = _title(len(y), int(held.sum()))
        figures = {"confusion": _confusion(spec, y, answers, title)}
        if isinstance(spec.task, BinaryClassification) and answers.probabilities is not None:
            positive = spec.task.positive
            truth, probability = y == positive, answers.probabilities[:, answers.labels.index(positive)]
            figures["roc"] = _roc(positive, truth, probability, title)
            figures["calibration"] = _calibration(positive, truth, probability, title)
    figures["importance"] = _importance(spec, importance)
    return {name: _png(figure) for name, figure in figures.items() if figure is not None}


def draw_drift(drifted: "Sequence[ColumnDrift]") -> bytes | None:
    """Return a PNG image with the histograms of columns, then and now side by side; None if there are none."""
    from matplotlib.figure import Figure

    shown = [(column, column.histogram) for column in drifted if column.histogram is not None][:MAX_HISTOGRAMS]
    if not shown:
        return None
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    figure = Figure(figsize=(0.6 + 3.4 * across, 0.6 + 2.5 * down), layout="constrained")
    for place, (column, histogram) in enumerate(shown, start=1):
        axes = figure.add_subplot(down, across, place)
        x = np.arange(len(histogram.bars))
        axes.bar(x - 0.2, histogram.then, width=0.4, color=_MUTED, label="then")
        axes.bar(x + 0.2, histogram.now, width=0.4, color=_ACCENT, label="now")
        _style(axes, _name(column.column))
        axes.grid(visible=False)
        # As many names below as can be read.
        step = max(1, len(x) // 4)
        axes.set_xticks(x[::step], [_short(bar) for bar in histogram.bars[::step]])
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        if place == 1:
            axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def draw_backtest(backtest: "Backtest") -> bytes:
    """Return a PNG image of the metric over time for three strategies, and of the months in which the gate released.

    Each point is the metric on a month's rows, pooled with as many months before it as are needed for enough rows.
    """
    months = backtest.months
    x = np.arange(len(months))
    overall = {strategy: format_number(value) for strategy, value in backtest.overall.items()}
    models = {strategy: f"{count} model{'s' if count > 1 else ''}" for strategy, count in backtest.releases.items()}
    metric = _name(backtest.metric)
    figure, axes = _axes(f"{_name(backtest.model)}: {metric} on the month after, {backtest.rows:,} rows", 4.0)
    figure.set_figwidth(8.4)
    strategies = {
        "never": (_MUTED, "--", "never retrained"),
        "always": (_WARM, "-", "always retrained"),
        "gate": (_ACCENT, "-", "retrained by the gate"),
    }
    for strategy, (color, style, label) in strategies.items():
        y = np.array([month.pooled[strategy] for month in months], dtype=float)
        legend = f"{label}: {overall[strategy]} over all, {models[strategy]}"
        axes.plot(x, y, color=color, linestyle=style, linewidth=1.8, label=legend)
    released = [place for place, month in enumerate(months) if month.outcome == "released"]
    y = np.array([months[place].pooled["gate"] for place in released], dtype=float)
    axes.plot(
        released, y, "o", color=_ACCENT, markersize=4.5, linestyle="none", label="the gate released the month before"
    )
    step = max(1, len(months) // 8)
    axes.set_xticks(x[::step], [month.month for month in months[::step]])
    better = "more is better" if backtest.greater_is_better else "less is better"
    axes.set_ylabel(f"{metric}, {better}")
    axes.legend(frameon=False, fontsize=9)
    axes.margins(y=0.28)
    return _png(figure)


def draw_monitoring(report: "MonitoringReport", before: "Sequence[MonitoringReport]") -> dict[str, bytes]:
    """Return PNG images by name: traffic, drift and performance over time and releases, histograms of drifted columns.

    `before` are the reports before this one, oldest first. An image without data is left out.
    """
    figures = {
        "traffic": _traffic(report),
        "drift": _drift_over_time([*before, report]),
        "performance": _performance(report),
    }
    images = {name: _png(figure) for name, figure in figures.items() if figure is not None}
    histograms = draw_drift(report.inputs.drifted)
    return images if histograms is None else images | {"histograms": histograms}


def _predicted_against_actual(spec: "ModelSpec", actual: Array, predicted: Array, title: str) -> "Figure | None":
    if len(actual) == 0:
        return None
    figure, axes = _axes(f"Predicted against actual, {title}", height=5.6)
    low, high = min(actual.min(), predicted.min()), max(actual.max(), predicted.max())
    if logarithmic := _spans_a_decade(actual) and low > 0:
        _logarithmic(axes, "xy", high / low)
    # Equal axes, with room around the outermost points, and around a single one.
    room = (high / low) ** 0.03 * 1.01 if logarithmic else 0.03 * (high - low) or abs(high) * 0.1 or 1.0
    ends = (low / room, high * room) if logarithmic else (low - room, high + room)
    axes.plot(ends, ends, color=_MUTED, linewidth=1, linestyle="--")
    _points(axes, actual, predicted)
    axes.set(xlim=ends, ylim=ends, xlabel=_label("actual", spec), ylabel=_label("predicted", spec), aspect="equal")
    return figure


def _residuals(spec: "ModelSpec", actual: Array, predicted: Array, title: str) -> "Figure | None":
    if len(actual) == 0:
        return None
    figure, axes = _axes(f"Residuals against predicted, {title}")
    if _spans_a_decade(actual) and predicted.min() > 0:
        _logarithmic(axes, "x", predicted.max() / predicted.min())
    axes.axhline(0, color=_MUTED, linewidth=1, linestyle="--")
    _points(axes, predicted, actual - predicted)
    axes.set(xlabel=_label("predicted", spec), ylabel=_label("actual less predicted", spec))
    return figure


def _roc(positive: Any, truth: Array, probability: Array, title: str) -> "Figure | None":
    from sklearn.metrics import auc, roc_curve

    if truth.all() or not truth.any():
        return None
    false_rate, true_rate, _ = roc_curve(truth, probability)
    figure, axes = _axes(f"ROC of {_name(positive)}, area {auc(false_rate, true_rate):.4f}, {title}", 5.6)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle="--")
    axes.plot(false_rate, true_rate, color=_ACCENT, linewidth=2)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel=f"share of the others taken for {_name(positive)}", ylabel=f"share of {_name(positive)} found")
    return figure


def _calibration(positive: Any, truth: Array, probability: Array, title: str) -> "Figure | None":
    from sklearn.calibration import calibration_curve

    if truth.all() or not truth.any():
        return None
    # About twenty rows a point: the share among fewer is mostly noise.
    bins = int(np.clip(len(truth) // 20, 2, 10))
    actual, predicted = calibration_curve(truth, probability, n_bins=bins, strategy="quantile")
    figure, axes = _axes(f"Calibration of {_name(positive)}, {title}", 5.6)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle="--")
    axes.plot(predicted, actual, color=_ACCENT, linewidth=1.5, marker="o", markersize=6)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel=f"mean predicted probability of {_name(positive)}", ylabel=f"share that is {_name(positive)}")
    return figure


def _confusion(spec: "ModelSpec", y: Array, answers: Answers, title: str) -> "Figure":
    from sklearn.metrics import confusion_matrix

    labels = [*dict.fromkeys([*answers.labels, *y.tolist()])]
    position = {label: number for number, label in enumerate(labels)}
    actual = np.array([position[label] for label in y.tolist()])
    predicted = np.array([position[label] for label in answers.predictions.tolist()])
    names = [_name(label) for label in labels]
    if len(labels) > MAX_LABELS:
        counts = np.bincount(np.concatenate([actual, predicted]), minlength=len(labels))
        kept = np.sort(np.argsort(-counts, kind="stable")[: MAX_LABELS - 1])
        place = np.full(len(labels), len(kept))
        place[kept] = np.arange(len(kept))
        actual, predicted, names = place[actual], place[predicted], [*(names[number] for number in kept), "(others)"]
    matrix = confusion_matrix(actual, predicted, labels=range(len(names)))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = _axes(f"Confusion, {title}", 5.6)
    axes.grid(visible=False)
    axes.imshow(shares, cmap=_shades(), vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        ink = "white" if shares[row, column] > 0.5 else _INK
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=ink, fontsize=10)
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 4 else 90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"predicted {_name(spec.target)}", ylabel=f"actual {_name(spec.target)}")
    return figure


def _importance(spec: "ModelSpec", importance: Sequence[Mapping[str, Any]]) -> "Figure | None":
    if not importance:
        return None
    top = importance[:MAX_FEATURES][::-1]
    figure, axes = _axes("Permutation importance on held-out rows", height=1.4 + 0.27 * len(top))
    means, deviations = ([feature[name] for feature in top] for name in ("importance", "deviation"))
    axes.barh(range(len(top)), means, xerr=deviations, color=_ACCENT, ecolor=_MUTED, height=0.65)
    axes.set_yticks(range(len(top)), [_name(feature["feature"]) for feature in top])
    axes.grid(visible=False, axis="y")
    worse = "falls" if spec.greater_is_better else "rises"
    axes.set_xlabel(f"how much {spec.metric} {worse} when the feature is shuffled")
    return figure


def _traffic(report: "MonitoringReport") -> "Figure | None":
    times = _numbers(period.at for period in report.over_time)
    if not times:
        return None
    titles = ["requests", "share refused (grey) and of errors (red)", "p95, milliseconds"]
    figure, (volume, failed, latency) = _panels(titles)
    # In days, as dates are drawn.
    width = min((later - earlier for earlier, later in pairwise(times)), default=1 / 24)
    traffic = [period.traffic for period in report.over_time]
    volume.bar(times, [period.requests for period in traffic], width=0.8 * width, color=_ACCENT)
    refused, errors = [period.refused for period in traffic], [period.errors for period in traffic]
    for counts, color in ((refused, _MUTED), (errors, _WARN)):
        shares = [count / max(period.requests, 1) for count, period in zip(counts, traffic, strict=True)]
        failed.plot(times, shares, color=color, marker="o", markersize=3)
    failed.set_ylim(bottom=0)
    failed.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    known = [(time, period.p95_ms) for time, period in zip(times, traffic, strict=True) if period.p95_ms is not None]
    if known:
        latency.plot(*zip(*known, strict=True), color=_ACCENT, marker="o", markersize=3)
    latency.set_ylim(bottom=0)
    _dates(latency, times)
    return figure


def _drift_over_time(reports: "Sequence[MonitoringReport]") -> "Figure | None":
    """Draw the number of drifted columns and the drift of predictions in each report; a line marks a new champion."""
    compared = [report for report in reports if report.inputs.columns]
    if not compared:
        return None
    times = _numbers(report.at for report in compared)
    figure, (drifted, predictions) = _panels(["columns that drifted", "predictions: distance, in thresholds"])
    drifted.plot(times, [len(report.inputs.drifted) for report in compared], color=_ACCENT, marker="o", markersize=3)
    predictions.plot(times, [_prediction_drift(report) for report in compared], color=_ACCENT, marker="o", markersize=3)
    predictions.axhline(1.0, color=_WARN, linewidth=1, linestyle="--")
    for axes in (drifted, predictions):
        axes.set_ylim(bottom=0)
    for (before, report), time in zip(pairwise(compared), times[1:], strict=True):
        if before.release != report.release:
            drifted.axvline(time, color=_MUTED, linewidth=1)
            predictions.axvline(time, color=_MUTED, linewidth=1)
            drifted.annotate(
                f" release {report.release}", (time, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8
            )
    _dates(predictions, times)
    return figure


def _prediction_drift(report: "MonitoringReport") -> float:
    """Return the drift of the predictions as a multiple of its threshold."""
    target = next((column for column in report.inputs.columns or () if column.role == "target"), None)
    return target.value / target.threshold if target and target.value is not None and target.threshold else 0.0


def _performance(report: "MonitoringReport") -> "Figure | None":
    known = [release for release in report.performance or () if release.value is not None]
    if not known:
        return None
    by_day = any(release.by_day for release in known)
    title = f"{report.metric} on labelled rows, by "
    titles = [f"{title}release", *([f"{title}day of the request"] if by_day else [])]
    figure, (over_releases, *over_time) = _panels(titles, height=2.5, share_x=False)
    places = np.arange(len(known))
    low, value, high = (
        np.array([getattr(release, name) for release in known], dtype=float) for name in ("low", "value", "high")
    )
    ends = np.maximum([value - low, high - value], 0)
    over_releases.errorbar(places, value, yerr=ends, fmt="o", color=_ACCENT, capsize=4, label="served")
    evaluated = [np.nan if release.released is None else release.released for release in known]
    over_releases.plot(places, evaluated, "_", color=_WARN, markersize=18, label="when evaluated")
    over_releases.set_xticks(places, [f"release {release.release}" for release in known])
    over_releases.set_xlim(-0.6, len(known) - 0.4)
    over_releases.legend(frameon=False, fontsize=9)
    for axes in over_time:
        for place, release in enumerate(known):
            days = _numbers(day.day for day in release.by_day)
            color = _ACCENT if release.release == report.release else _MUTED
            if days:
                low, value, high = (
                    np.array([getattr(day, name) for day in release.by_day], dtype=float)
                    for name in ("low", "value", "high")
                )
                axes.fill_between(days, low, high, color=color, alpha=0.15, linewidth=0)
                label = f"release {release.release}" if len(known) - place <= 6 else None
                axes.plot(days, value, color=color, marker="o", markersize=3, label=label)
        axes.legend(frameon=False, fontsize=9)
        _dates(axes, _numbers(day.day for release in known for day in release.by_day))
    return figure


def _numbers(times: Iterable[str]) -> list[float]:
    """Return times in ISO 8601 as matplotlib's dates."""
    from matplotlib.dates import date2num

    return [float(date2num(datetime.fromisoformat(time))) for time in times]


def _dates(axes: "Axes", times: Sequence[float]) -> None:
    """Label the horizontal axis with dates, with room around the times, also around a single one."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    room = max(0.05 * (max(times) - min(times)), 0.5)
    axes.set_xlim(min(times) - room, max(times) + room)
    locator = AutoDateLocator(minticks=2, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _title(shown: int, rows: int) -> str:
    words = f"{shown:,} held-out row{'' if shown == 1 else 's'}"
    return words if rows == shown else f"a sample of {shown:,} of {rows:,} held-out rows"


def _spans_a_decade(actual: Array) -> bool:
    return bool(actual.min() > 0 and actual.max() / actual.min() >= 8)


def _logarithmic(axes: "Axes", which: str, ratio: float) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 1_000 else (1.0,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_tick)


def _points(axes: "Axes", x: Array, y: Array) -> None:
    alpha = float(np.clip(200 / len(x), 0.15, 0.7))
    axes.scatter(x, y, s=18, color=_ACCENT, alpha=alpha, linewidths=0)


def _axes(title: str, height: float = 4.2) -> tuple["Figure", "Axes"]:
    """Return an empty figure in the style of all plots; the object API avoids pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick)
        axis.label.set(fontsize=10.5, color=_INK)
    return figure, axes


def _panels(titles: Sequence[str], height: float = 2.3, share_x: bool = True) -> tuple["Figure", "list[Axes]"]:
    """Return a figure of panels below each other in the style of all plots; `height` is that of one, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.4 + height * len(titles)), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(len(titles), 1, sharex=share_x)))
    for axes, title in zip(panels, titles, strict=True):
        _style(axes, title)
    return figure, panels


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=10)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(labelsize=10, color=_MUTED, labelcolor=_INK)


def _tick(value: float, _position: float) -> str:
    return f"{value:,.10g}"


def _label(what: str, spec: "ModelSpec") -> str:
    unit = f", {_name(spec.task.unit)}" if isinstance(spec.task, Regression) and spec.task.unit else ""
    return f"{what} {_name(spec.target)}{unit}"


def _name(value: Any) -> str:
    """Return a name from the data as text to draw: cut when long, and without matplotlib's math between dollars."""
    text = " ".join(str(value).split())
    return (text if len(text) <= 28 else f"{text[:25]}...").replace("$", r"\$")


def _short(name: str) -> str:
    name = _name(name)
    return name if len(name) <= 10 else f"{name[:9]}…"


def _shades() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", ["#f8f9fa", _ACCENT])


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(150)
    canvas.draw()
    image = io.BytesIO()
    # Few colors are drawn; a palette makes the file a third of the size.
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(image, "png", optimize=True)
    return image.getvalue()
