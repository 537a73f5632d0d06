"""The monitoring report as Markdown, for the Prefect UI and for the run's folder."""

from collections.abc import Iterable, Mapping

from flows.monitoring.report import MonitoringReport
from flows.reports.markdown import bullets, count, data_uri, document, drift_table, strong, table, text
from flows.reports.run import publish_markdown
from flows.summaries import summarize_monitoring
from pipeline.format_numbers import format_number

MAX_COLUMNS = 40
MAX_UNSEEN = 10


def report(found: MonitoringReport, images: Mapping[str, str]) -> str:
    """Return the report of a look; `images` says where each plot is: relative paths, or data URIs."""
    who = "no champion" if found.release is None else f"release {found.release}"
    return document(
        f"**{found.model}, {who}**: {text(summarize_monitoring(found))}.",
        bullets(map(text, found.notes)),
        "## Triggers",
        table(
            ["trigger", "now", "due at", ""],
            (
                [
                    strong(one.name, one.due),
                    format_number(one.value) if one.value is not None else "",
                    format_number(one.threshold) if one.threshold is not None else "",
                    text(one.sentence + (f" ({one.waits})" if one.waits else "")),
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
    publish_markdown(found.model, "monitor", report(found, {name: data_uri(png) for name, png in images.items()}))


def _image(name: str, images: Mapping[str, str]) -> str:
    return f"![{name}]({images[name]})" if name in images else ""


def _performance(found: MonitoringReport) -> Iterable[str]:
    metric, likely = found.metric, found.expected
    yield "## Performance"
    if found.unlabelled:
        yield text(found.unlabelled).capitalize() + "."
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
        yield table(["release", metric, "95% interval", "when evaluated", "labelled rows", "logged keys"], rows)
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
        yield text(inputs.why).capitalize() + "."
        return
    yield (
        f"{count(inputs.rows, 'logged row')} of the last {found.window.days:g} days, beside what release "
        f"{found.release} was trained on; its answers beside those to the rows it was evaluated on."
    )
    yield from drift_table(inputs.columns, MAX_COLUMNS)
    yield bullets(
        f"{one.share:.1%} of the values of {text(one.column)} are none that training saw"
        for one in inputs.unseen[:MAX_UNSEEN]
    )


def _traffic(found: MonitoringReport) -> Iterable[str]:
    yield "## Traffic"
    every = [(str(one.release or "none"), one.traffic) for one in found.by_release] + [("all", found.traffic)]
    yield table(
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
        yield bullets(f"{text(one.server)}: {one.state}, release {one.release}" for one in found.servers)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"
