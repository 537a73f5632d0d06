"""The backtest flow: replay history month by month under three strategies; write a table, JSON and a plot."""

import base64
from dataclasses import asdict
from typing import Literal

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.cli.views import BacktestView, IntervalView, MonthView
from flows.progress import LISTENER, RowProgress, Step
from flows.reports.plots import draw_backtest
from flows.reports.run import key
from pipeline import backtest as replaying
from pipeline import sources
from pipeline.backtest import ALWAYS, GATE, NEVER, Backtest
from pipeline.files import write_bytes, write_json, write_text
from pipeline.format_numbers import format_number, format_signed
from pipeline.settings import settings
from pipeline.spec import load_spec

LABELS = {NEVER: "never retrained", ALWAYS: "always retrained", GATE: "retrained by the gate"}


@flow(name="backtest", flow_run_name="{model}")
def backtest(
    model: str, by: Literal["month"] = "month", data: str | None = None, time: list[str] | None = None
) -> BacktestView:
    """Replay a model's history and return what `evergreen backtest --json` prints.

    `data` is a file or glob to read instead of the spec's source. `time` names the columns that tell the month, if the
    spec has no time column. Packages, tries and releases nothing.
    """
    folder = settings().folder("runs", model, str(runtime.flow_run.id))
    replayed = replay_history(model, data, time or [])
    image = draw_backtest(replayed)
    view = view_of(replayed, by, str(folder / "backtest.md"))
    write_bytes(folder / "backtest.png", image)
    write_json(folder / "backtest.json", asdict(view))
    write_text(folder / "backtest.md", markdown(view, "backtest.png"))
    try:
        text = markdown(view, f"data:image/png;base64,{base64.b64encode(image).decode()}")
        create_markdown_artifact(text, key=key(model, "backtest"), description=view.said[0])
    except Exception:
        get_run_logger().warning("the backtest could not be shown in Prefect", exc_info=True)
    return view


def view_of(replayed: Backtest, by: Literal["month"], report: str) -> BacktestView:
    """Return what `evergreen backtest --json` prints; `report` is the path of the Markdown report."""
    return BacktestView(
        model=replayed.model,
        metric=replayed.metric,
        greater_is_better=replayed.greater_is_better,
        trained_before=replayed.trained_before,
        months=[
            MonthView(month.month, month.rows, month.outcome, list(month.reasons), {**month.metrics}, {**month.pooled})
            for month in replayed.months
        ],
        rows=replayed.rows,
        overall={**replayed.overall},
        releases={**replayed.releases},
        differences={
            strategy: IntervalView(**asdict(interval)) if interval else None
            for strategy, interval in replayed.differences.items()
        },
        notes=list(replayed.notes),
        by=by,
        said=summarize(replayed),
        report=report,
    )


@task(name="replay", task_run_name="replay", cache_policy=NO_CACHE)
def replay_history(model: str, data: str | None, time: list[str]) -> Backtest:
    """Read a table and replay it month by month."""
    spec = load_spec(model)
    report = LISTENER.get() or (lambda _: None)
    logger = get_run_logger()

    def on_month(month: str, number: int, total: int) -> None:
        logger.info("trained on all rows until %s, %d of %d", month, number, total)
        report(RowProgress(number, total, f", until {month}"))

    report(Step("read"))
    past = replaying.history(spec, sources.read(spec.source if data is None else sources.at(spec.source, data)), time)
    report(Step("replay"))
    return replaying.replay(spec, past, on_month)


def summarize(replayed: Backtest) -> list[str]:
    """Return the results of a backtest as sentences: the metric of each strategy, then how the gate compares."""
    figures = ", ".join(
        f"{label} {format_number(replayed.overall[strategy])} ({replayed.releases[strategy]})"
        for strategy, label in LABELS.items()
    )
    months = f"{replayed.rows:,} rows of {len(replayed.months)} months"
    sentences = [f"{replayed.metric} over {months}, with the number of models: {figures}."]
    for strategy, interval in replayed.differences.items():
        if interval is None:
            continue
        ends = f"{format_signed(interval.low)} to {format_signed(interval.high)}"
        worst, best = (interval.low, interval.high) if replayed.greater_is_better else (-interval.high, -interval.low)
        relation = "better than" if worst > 0 else "worse than" if best < 0 else "not significantly different from"
        sentences.append(
            f"The gate is {relation} {LABELS[strategy]}: difference {format_signed(interval.difference)}, "
            f"{interval.confidence:.0%} interval {ends}."
        )
    return sentences


def markdown(view: BacktestView, image: str) -> str:
    """Return a backtest as Markdown: sentences, the plot at `image`, and a row for each month."""
    lines = [
        f"**{view.said[0]}**",
        "",
        *(f"- {sentence}" for sentence in (*view.said[1:], *view.notes)),
        "",
    ]
    lines += [f"![{view.metric} over time]({image})", ""]
    lines += [
        "| month | rows | never | always | by the gate | the month before | why |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for month in view.months:
        figures = " | ".join(format_number(month.metrics[strategy]) for strategy in LABELS)
        why = month.reasons[0].replace("|", "\\|")
        lines.append(f"| {month.month} | {month.rows:,} | {figures} | {month.outcome} | {why} |")
    return "\n".join([*lines, ""])
