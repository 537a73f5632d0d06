"""The backtest flow: history replayed month by month, for three ways of life; a table, JSON and a plot."""

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

    `data` is a file or glob read instead of the spec's source; `time` names the columns that tell the month, where the
    spec has no time column. Nothing is released, and nothing is packaged or tried.
    """
    folder = settings().folder("runs", model, str(runtime.flow_run.id))
    replayed = replay_history(model, data, time or [])
    image = draw_backtest(replayed)
    found = view_of(replayed, by, str(folder / "backtest.md"))
    write_bytes(folder / "backtest.png", image)
    write_json(folder / "backtest.json", asdict(found))
    write_text(folder / "backtest.md", markdown(found, "backtest.png"))
    try:
        shown = markdown(found, f"data:image/png;base64,{base64.b64encode(image).decode()}")
        create_markdown_artifact(shown, key=key(model, "backtest"), description=found.said[0])
    except Exception:
        get_run_logger().warning("the backtest could not be shown", exc_info=True)
    return found


def view_of(replayed: Backtest, by: Literal["month"], report: str) -> BacktestView:
    """Return what `evergreen backtest --json` prints; `report` is where it is as Markdown."""
    return BacktestView(
        model=replayed.model,
        metric=replayed.metric,
        greater_is_better=replayed.greater_is_better,
        trained_before=replayed.trained_before,
        months=[
            MonthView(one.month, one.rows, one.outcome, list(one.reasons), {**one.metrics}, {**one.pooled})
            for one in replayed.months
        ],
        rows=replayed.rows,
        overall={**replayed.overall},
        releases={**replayed.releases},
        differences={way: IntervalView(**asdict(one)) if one else None for way, one in replayed.differences.items()},
        notes=list(replayed.notes),
        by=by,
        said=summarize(replayed),
        report=report,
    )


@task(name="replay", task_run_name="replay", cache_policy=NO_CACHE)
def replay_history(model: str, data: str | None, time: list[str]) -> Backtest:
    """Read a table and replay it."""
    spec = load_spec(model)
    tell = LISTENER.get() or (lambda _: None)
    logger = get_run_logger()

    def done(month: str, place: int, of: int) -> None:
        logger.info("trained on all rows until %s, %d of %d", month, place, of)
        tell(RowProgress(place, of, f", until {month}"))

    tell(Step("read"))
    past = replaying.history(spec, sources.read(spec.source if data is None else sources.at(spec.source, data)), time)
    tell(Step("replay"))
    return replaying.replay(spec, past, done)


def summarize(found: Backtest) -> list[str]:
    """Return in sentences what a backtest found, also where it found that nothing mattered."""
    figures = ", ".join(f"{LABELS[way]} {format_number(found.overall[way])} ({found.releases[way]})" for way in LABELS)
    sentences = [
        f"{found.metric} over {found.rows:,} rows of {len(found.months)} months, with how many models: {figures}."
    ]
    for way, one in found.differences.items():
        if one is None:
            continue
        ends = f"{format_signed(one.low)} to {format_signed(one.high)}"
        worse, better = (one.low, one.high) if found.greater_is_better else (-one.high, -one.low)
        word = "better than" if worse > 0 else "worse than" if better < 0 else "not surely different from"
        sentences.append(
            f"The gate is {word} {LABELS[way]}: difference {format_signed(one.difference)}, "
            f"{one.confidence:.0%} interval {ends}."
        )
    return sentences


def markdown(found: BacktestView, image: str) -> str:
    """Return a backtest as Markdown: sentences, the plot at `image`, and a row for each month."""
    lines = [
        f"**{found.said[0]}**",
        "",
        *(f"- {sentence}" for sentence in (*found.said[1:], *found.notes)),
        "",
    ]
    lines += [f"![{found.metric} over time]({image})", ""]
    lines += [
        "| month | rows | never | always | by the gate | the month before | why |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for month in found.months:
        figures = " | ".join(format_number(month.metrics[way]) for way in LABELS)
        why = month.reasons[0].replace("|", "\\|")
        lines.append(f"| {month.month} | {month.rows:,} | {figures} | {month.outcome} | {why} |")
    return "\n".join([*lines, ""])
