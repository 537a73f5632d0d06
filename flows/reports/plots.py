"""What a run shows of its challenger: images of how it answers the held-out rows."""

import io
from collections.abc import Mapping, Sequence
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

    from pipeline.backtest import Backtest
    from pipeline.drift import ColumnDrift
    from pipeline.spec import ModelSpec

Array = NDArray[Any]

MAX_POINTS = 5_000
"""A scatter shows a sample of this many rows, at most."""
MAX_COUNTED = 200_000
"""Labels are counted in a sample of this many rows, at most."""
MAX_FEATURES = 15
MAX_LABELS = 12
MAX_HISTOGRAMS = 12
"""So many drifted columns are drawn, the worst ones."""

_ACCENT, _INK, _MUTED, _GRID, _WARM = "#2a6f97", "#343a40", "#868e96", "#e9ecef", "#d9772b"


def draw(
    spec: "ModelSpec",
    table: "pyarrow.Table",
    rule: Rule,
    estimator: Any,
    importance: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """Return PNG images by name: how a fitted estimator answers the rows of a table that a rule holds out.

    A regression gives `predicted-against-actual` and `residuals`; a classification `confusion`, and of two labels also
    `roc` and `calibration`; all give `importance`, of what the artifact's manifest says of it. An image that would be
    undefined is left out, such as the ROC of rows that all have one label, and so is what shows a sensitive target.
    """
    held = held_out(rule, table)
    most = MAX_POINTS if isinstance(spec.task, Regression) else MAX_COUNTED
    rows = table.filter(sample_rows(most, held, spec.seed))
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
    """Return a PNG image with the histograms of columns, then and now, side by side; None when there are none."""
    from matplotlib.figure import Figure

    shown = [(one, one.histogram) for one in drifted if one.histogram is not None][:MAX_HISTOGRAMS]
    if not shown:
        return None
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    figure = Figure(figsize=(0.6 + 3.4 * across, 0.6 + 2.5 * down), layout="constrained")
    for place, (one, histogram) in enumerate(shown, start=1):
        axes = figure.add_subplot(down, across, place)
        x = np.arange(len(histogram.bars))
        axes.bar(x - 0.2, histogram.then, width=0.4, color=_MUTED, label="then")
        axes.bar(x + 0.2, histogram.now, width=0.4, color=_ACCENT, label="now")
        axes.set_title(_name(one.column), loc="left", fontsize=10, color=_INK)
        # As many names below as can be read.
        step = max(1, len(x) // 4)
        axes.set_xticks(x[::step], [_short(bar) for bar in histogram.bars[::step]])
        axes.tick_params(labelsize=8, color=_MUTED, labelcolor=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        if place == 1:
            axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def draw_backtest(found: "Backtest") -> bytes:
    """Return a PNG image of the metric over time of three ways of life, and of the months in which the gate released.

    Each point is of a month's rows, and of as many months before it as make up enough of them.
    """
    months = found.months
    x = np.arange(len(months))
    overall = {way: format_number(value) for way, value in found.overall.items()}
    counts = {way: f"{found.releases[way]} model{'s' if found.releases[way] > 1 else ''}" for way in found.releases}
    figure, axes = _axes(f"{_name(found.model)}: {_name(found.metric)} on the month after, {found.rows:,} rows", 4.0)
    figure.set_figwidth(8.4)
    ways = {
        "never": (_MUTED, "--", "never retrained"),
        "always": (_WARM, "-", "always retrained"),
        "gate": (_ACCENT, "-", "retrained by the gate"),
    }
    for way, (colour, style, label) in ways.items():
        y = np.array([month.pooled[way] for month in months], dtype=float)
        said = f"{label}: {overall[way]} over all, {counts[way]}"
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=said)
    released = [place for place, month in enumerate(months) if month.outcome == "released"]
    y = np.array([months[place].pooled["gate"] for place in released], dtype=float)
    axes.plot(
        released, y, "o", color=_ACCENT, markersize=4.5, linestyle="none", label="the gate released the month before"
    )
    step = max(1, len(months) // 8)
    axes.set_xticks(x[::step], [month.month for month in months[::step]])
    better = "more is better" if found.greater_is_better else "less is better"
    axes.set_ylabel(f"{_name(found.metric)}, {better}")
    axes.legend(frameon=False, fontsize=9)
    axes.margins(y=0.28)
    return _png(figure)


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
    # Some twenty rows a point, since the share among fewer says little.
    bins = int(np.clip(len(truth) // 20, 2, 10))
    found, said = calibration_curve(truth, probability, n_bins=bins, strategy="quantile")
    figure, axes = _axes(f"Calibration of {_name(positive)}, {title}", 5.6)
    axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle="--")
    axes.plot(said, found, color=_ACCENT, linewidth=1.5, marker="o", markersize=6)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel=f"mean predicted probability of {_name(positive)}", ylabel=f"share that is {_name(positive)}")
    return figure


def _confusion(spec: "ModelSpec", y: Array, answers: Answers, title: str) -> "Figure":
    from sklearn.metrics import confusion_matrix

    labels = [*dict.fromkeys([*answers.labels, *y.tolist()])]
    position = {label: number for number, label in enumerate(labels)}
    actual, predicted = (np.array([position[label] for label in one.tolist()]) for one in (y, answers.predictions))
    names = [_name(label) for label in labels]
    if len(labels) > MAX_LABELS:
        counts = np.bincount(np.concatenate([actual, predicted]), minlength=len(labels))
        kept = np.sort(np.argsort(-counts, kind="stable")[: MAX_LABELS - 1])
        place = np.full(len(labels), len(kept))
        place[kept] = np.arange(len(kept))
        actual, predicted, names = place[actual], place[predicted], [*(names[one] for one in kept), "(others)"]
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


def _importance(spec: "ModelSpec", found: Sequence[Mapping[str, Any]]) -> "Figure | None":
    if not found:
        return None
    top = found[:MAX_FEATURES][::-1]
    figure, axes = _axes("Permutation importance on held-out rows", height=1.4 + 0.27 * len(top))
    means, deviations = ([one[name] for one in top] for name in ("importance", "deviation"))
    axes.barh(range(len(top)), means, xerr=deviations, color=_ACCENT, ecolor=_MUTED, height=0.65)
    axes.set_yticks(range(len(top)), [_name(one["feature"]) for one in top])
    axes.grid(visible=False, axis="y")
    worse = "falls" if spec.greater_is_better else "rises"
    axes.set_xlabel(f"how much {spec.metric} {worse} when the feature is shuffled")
    return figure


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
    """Return an empty figure in the house style; the object API keeps clear of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=10)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(labelsize=10, color=_MUTED, labelcolor=_INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_tick)
        axis.label.set(fontsize=10.5, color=_INK)
    return figure, axes


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
    # Few colours are drawn; a palette makes the file a third of the size.
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(image, "png", optimize=True)
    return image.getvalue()
