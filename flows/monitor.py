"""The monitoring flow: observe a served model, decide which triggers are due, emit their events, write a report."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from bentos.ledger.database import open_ledger
from flows.monitoring import observe, triggers
from flows.monitoring.observe import Observed
from flows.monitoring.report import MonitoringReport
from flows.progress import timed
from flows.reports import monitoring, plots
from flows.summaries import summarize_monitoring
from pipeline.files import write_bytes, write_json, write_text
from pipeline.settings import settings
from pipeline.spec import load_spec

MAX_REPORTS = 60
"""Number of reports that are kept."""


@flow(name="monitor", flow_run_name="{model}")
def monitor(model: str) -> State[Any]:
    """Observe a served model; the final state is named after the first trigger that is due, or Quiet.

    Its value is the report, which is also in the ledger and, with images, in the run's folder.
    """
    folder = settings().folder("runs", f"{model}.monitor", str(runtime.flow_run.id))
    seconds: dict[str, float] = {}
    observed = timed("look", seconds, observe_model, model)
    timed("tell", seconds, notify, model, observed.report)
    try:
        timed("report", seconds, report, observed, folder)
    except Exception:
        # The report is in the ledger already, and the events are emitted.
        get_run_logger().warning("the report failed", exc_info=True)
    result = replace(observed.report, seconds=seconds)
    write_json(folder / "monitor.json", result.to_dict())
    _keep_newest(folder.parent)
    name = "".join(word.capitalize() for word in result.due[0].name.split("-")) if result.due else "Quiet"
    message = "; ".join(trigger.sentence for trigger in result.due) or summarize_monitoring(result)
    return Completed(name=name, message=message, data=result)


@task(name="look", task_run_name="look", cache_policy=NO_CACHE, persist_result=False)
def observe_model(model: str) -> Observed:
    return observe.observe(settings(), open_ledger(settings().ledger_url), load_spec(model), datetime.now(UTC))


@task(name="tell", task_run_name="tell", cache_policy=NO_CACHE, persist_result=False)
def notify(model: str, report: MonitoringReport) -> None:
    # The record comes first, since cooldowns depend on it: a repeated event is worse than a late one.
    observe.record(open_ledger(settings().ledger_url), report)
    triggers.emit_events(model, report.triggers)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(observed: Observed, folder: Path) -> None:
    images = plots.draw_monitoring(observed.report, observed.before)
    for name, png in images.items():
        write_bytes(folder / f"{name}.png", png)
    write_text(folder / "report.md", monitoring.report(observed.report, {name: f"{name}.png" for name in images}))
    monitoring.publish(observed.report, images)


def _keep_newest(runs: Path) -> None:
    """Delete the folders of the oldest reports."""
    folders = sorted((path for path in runs.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    for folder in folders[:-MAX_REPORTS]:
        shutil.rmtree(folder, ignore_errors=True)
