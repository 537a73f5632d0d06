"""What a look at a model shows to people: Markdown for the Prefect UI and for the folder of its run, and plots."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from flows.monitoring.report import MonitoringReport

# Written as all reports and plots of the project are.
from flows.reports.plots import _ACCENT, _GRID, _INK, _MUTED, _png, draw_drift
from flows.reports.run import _bullets, _data_uri, _document, _publish, _strong, _table, _text, count, drift_table
from flows.summaries import summarize_monitoring
from pipeline.format_numbers import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS = 40
MAX_UNSEEN = 10
_WARN = "#bc4749"


def report(found: MonitoringReport, images: Mapping[str, str]) -> str:
    """Return the report of a look; `images` says where each plot is: relative paths, or data URIs."""
    who = "no champion" if found.release is None else f"release {found.release}"
    return _document(
        f"**{found.model}, {who}**: {_text(summarize_monitoring(found))}.",
        _bullets(map(_text, found.notes)),
        "## Triggers",
        _table(
            ["trigger", "now", "due at", ""],
            (
                [
                    _strong(one.name, one.due),
                    format_number(one.value) if one.value is not None else "",
                    format_number(one.threshold) if one.threshold is not None else "",
                    _text(one.sentence + (f" ({one.waits})" if one.waits else "")),
                ]
                for one in found.triggers
            ),
        ),
        *_performance(found),
        _image("performance", images),
        *_inputs(found),
        _image("drift", images),
        _image("histograms", images),
        *_traffic(found),
        _image("traffic", images),
    )


def publish(found: MonitoringReport, images: Mapping[str, bytes]) -> None:
    """Show a look on the page of its run in the Prefect UI, as the artifact `<model>-monitor`."""
    _publish(found.model, "monitor", report(found, {name: _data_uri(png) for name, png in images.items()}))


def draw(found: MonitoringReport, before: Sequence[MonitoringReport]) -> dict[str, bytes]:
    """Return PNG images by name: traffic, drift and performance over time and releases, histograms of what drifted.

    `before` are the reports before this one, the oldest first.
    """
    figures = {
        "traffic": _draw_traffic(found),
        "drift": _draw_looks([*before, found]),
        "performance": _draw_performance(found),
    }
    images = {name: _png(figure) for name, figure in figures.items() if figure is not None}
    histograms = draw_drift(found.inputs.drifted)
    return images if histograms is None else images | {"histograms": histograms}


def _image(name: str, images: Mapping[str, str]) -> str:
    return f"![{name}]({images[name]})" if name in images else ""


def _performance(found: MonitoringReport) -> Iterable[str]:
    metric, likely = found.metric, found.expected
    yield "## Performance"
    if found.unlabelled:
        yield _text(found.unlabelled).capitalize() + "."
    rows = [
        [
            f"{one.release}",
            format_number(one.value),
            "" if one.low is None else f"{format_number(one.low)} to {format_number(one.high)}",
            format_number(one.released),
            f"{one.rows:,}",
            f"{one.logged:,}",
        ]
        for one in found.performance or ()
    ]
    if rows:
        yield _table(["release", metric, "95% interval", "when evaluated", "labelled rows", "logged keys"], rows)
    if likely:
        yield (
            f"Before labels arrive, {metric} is expected to be {format_number(likely.value)}, between "
            f"{format_number(likely.low)} and {format_number(likely.high)}, on {count(likely.rows, 'row')}: as long as "
            "features tell of labels what they did when it was evaluated."
        )


def _inputs(found: MonitoringReport) -> Iterable[str]:
    inputs = found.inputs
    yield "## What it was asked"
    if inputs.columns is None:
        yield _text(inputs.why).capitalize() + "."
        return
    yield (
        f"{count(inputs.rows, 'logged row')} of the last {found.window.days:g} days, beside what release "
        f"{found.release} was trained on; its answers beside those to the rows it was evaluated on."
    )
    yield from drift_table(inputs.columns, MAX_COLUMNS)
    yield _bullets(
        f"{one.share:.1%} of the values of {_text(one.column)} are none that training saw"
        for one in inputs.unseen[:MAX_UNSEEN]
    )


def _traffic(found: MonitoringReport) -> Iterable[str]:
    yield "## Traffic"
    every = [(str(one.release or "none"), one.traffic) for one in found.by_release] + [("all", found.traffic)]
    yield _table(
        ["release", "requests", "rows", "refused", "errors", "p50 ms", "p95 ms", "p99 ms", "rows logged", "not logged"],
        (
            [
                who,
                f"{traffic.requests:,}",
                f"{traffic.rows:,}",
                _share(traffic.refused, traffic.requests),
                _share(traffic.errors, traffic.requests),
                *("" if one is None else f"{one:g}" for one in (traffic.p50_ms, traffic.p95_ms, traffic.p99_ms)),
                f"{traffic.logged:,}",
                f"{traffic.dropped:,}",
            ]
            for who, traffic in every
        ),
    )
    yield "Latencies are upper ends of the buckets of `/metrics`; refused are all answers with a status from 400 on."
    if found.servers:
        yield _bullets(f"{_text(one.server)}: {one.state}, release {one.release}" for one in found.servers)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"


def _figure(titles: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels, one below the other, in the house style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.4 + 2.3 * len(titles)), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(len(titles), 1, sharex=True)))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10.5, color=_INK)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_MUTED)
        axes.tick_params(labelsize=9, color=_MUTED, labelcolor=_INK)
    return figure, panels


def _numbers(times: Iterable[str]) -> list[float]:
    """Return times as they are drawn."""
    from matplotlib.dates import date2num

    return [float(date2num(datetime.fromisoformat(one))) for one in times]


def _dates(axes: "Axes", times: Sequence[float]) -> None:
    """Show times below, with room around them, also around a single one."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    room = max(0.05 * (max(times) - min(times)), 0.5)
    axes.set_xlim(min(times) - room, max(times) + room)
    locator = AutoDateLocator(minticks=2, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _draw_traffic(found: MonitoringReport) -> "Figure | None":
    times = _numbers(one.at for one in found.over_time)
    if not times:
        return None
    titles = ["requests", "share refused (grey) and of errors (red)", "p95, milliseconds"]
    figure, (volume, bad, slow) = _figure(titles)
    # In days, as dates are drawn.
    width = min((later - one for one, later in pairwise(times)), default=1 / 24)
    over = [one.traffic for one in found.over_time]
    volume.bar(times, [one.requests for one in over], width=0.8 * width, color=_ACCENT)
    for counts, color in (([one.refused for one in over], _MUTED), ([one.errors for one in over], _WARN)):
        shares = [bad_ones / max(one.requests, 1) for bad_ones, one in zip(counts, over, strict=True)]
        bad.plot(times, shares, color=color, marker="o", markersize=3)
    bad.set_ylim(bottom=0)
    bad.yaxis.set_major_formatter(lambda share, _: f"{share:.1%}")
    known = [(when, one.p95_ms) for when, one in zip(times, over, strict=True) if one.p95_ms is not None]
    slow.plot(*zip(*known, strict=True), color=_ACCENT, marker="o", markersize=3) if known else None
    slow.set_ylim(bottom=0)
    _dates(slow, times)
    return figure


def _draw_looks(looks: Sequence[MonitoringReport]) -> "Figure | None":
    """Draw how many columns drifted, and the farthest of them, at each look; a line where the champion is another."""
    judged = [one for one in looks if one.inputs.columns]
    if not judged:
        return None
    times = _numbers(one.at for one in judged)
    figure, (drifted, far) = _figure(["columns that drifted", "predictions: distance, in thresholds"])
    drifted.plot(times, [len(one.inputs.drifted) for one in judged], color=_ACCENT, marker="o", markersize=3)
    far.plot(times, [_distance(one) for one in judged], color=_ACCENT, marker="o", markersize=3)
    far.axhline(1.0, color=_WARN, linewidth=1, linestyle="--")
    for axes in (drifted, far):
        axes.set_ylim(bottom=0)
    for before, one, when in zip(judged, judged[1:], times[1:], strict=False):
        if before.release != one.release:
            drifted.axvline(when, color=_MUTED, linewidth=1)
            far.axvline(when, color=_MUTED, linewidth=1)
            drifted.annotate(
                f" release {one.release}", (when, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8
            )
    _dates(far, times)
    return figure


def _distance(one: MonitoringReport) -> float:
    """Return how far the predictions moved, as a part of what is allowed."""
    moved = next((column for column in one.inputs.columns or () if column.role == "target"), None)
    return moved.value / moved.threshold if moved and moved.value is not None and moved.threshold else 0.0


def _draw_performance(found: MonitoringReport) -> "Figure | None":
    from matplotlib.figure import Figure

    known = [one for one in found.performance or () if one.value is not None]
    if not known:
        return None
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    over_releases, over_time = figure.subplots(2, 1)
    for axes, title in ((over_releases, "by release"), (over_time, "by day of the request")):
        axes.set_title(f"{found.metric} on labelled rows, {title}", loc="left", fontsize=10.5, color=_INK)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, color=_MUTED, labelcolor=_INK)
    places = np.arange(len(known))
    low, value, high = (
        np.array([getattr(one, name) for one in known], dtype=float) for name in ("low", "value", "high")
    )
    ends = np.maximum([value - low, high - value], 0)
    over_releases.errorbar(places, value, yerr=ends, fmt="o", color=_ACCENT, capsize=4, label="served")
    then = [np.nan if one.released is None else one.released for one in known]
    over_releases.plot(places, then, "_", color=_WARN, markersize=18, label="when evaluated")
    over_releases.set_xticks(places, [f"release {one.release}" for one in known])
    over_releases.set_xlim(-0.6, len(known) - 0.4)
    over_releases.legend(frameon=False, fontsize=9)
    for place, one in enumerate(known):
        days = _numbers(day.day for day in one.by_day)
        color = _ACCENT if one.release == found.release else _MUTED
        if days:
            ends = [day.low for day in one.by_day], [day.high for day in one.by_day]
            over_time.fill_between(days, *ends, color=color, alpha=0.15, linewidth=0)
            label = f"release {one.release}" if len(known) - place <= 6 else None
            over_time.plot(days, [day.value for day in one.by_day], color=color, marker="o", markersize=3, label=label)
    if any(one.by_day for one in known):
        over_time.legend(frameon=False, fontsize=9)
        _dates(over_time, _numbers(day.day for one in known for day in one.by_day))
    else:
        over_time.remove()
        figure.set_size_inches(7.2, 2.8)
    return figure
