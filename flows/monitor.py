"""The monitoring flow: what the endpoint was asked and answered, beside what the champion was trained on and promised.

It looks, decides which triggers are due, tells Prefect of them, and leaves a report.
"""

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
"""The reports of so many looks stay."""


@flow(name="monitor", flow_run_name="{model}")
def monitor(model: str) -> State[Any]:
    """Look at a model as it is served; the final state is named by the first trigger that is due, or Quiet.

    Its value is the report; that is in the run's folder, too, with pictures, and in the ledger.
    """
    folder = settings().folder("runs", f"{model}.monitor", str(runtime.flow_run.id))
    seconds: dict[str, float] = {}
    observed = timed("look", seconds, observe_model, model)
    timed("tell", seconds, notify, model, observed.report)
    try:
        timed("report", seconds, report, observed, folder)
    except Exception:
        # What was found is in the ledger, and Prefect was told.
        get_run_logger().warning("the report failed", exc_info=True)
    found = replace(observed.report, seconds=seconds)
    write_json(folder / "monitor.json", found.to_dict())
    _keep_newest(folder.parent)
    name = "".join(word.capitalize() for word in found.due[0].name.split("-")) if found.due else "Quiet"
    message = "; ".join(trigger.sentence for trigger in found.due) or summarize_monitoring(found)
    return Completed(name=name, message=message, data=found)


@task(name="look", task_run_name="look", cache_policy=NO_CACHE, persist_result=False)
def observe_model(model: str) -> Observed:
    return observe.observe(settings(), open_ledger(settings().ledger_url), load_spec(model), datetime.now(UTC))


@task(name="tell", task_run_name="tell", cache_policy=NO_CACHE, persist_result=False)
def notify(model: str, found: MonitoringReport) -> None:
    # First what cooldowns go by: told twice is worse than told late.
    observe.record(open_ledger(settings().ledger_url), found)
    triggers.emit_events(model, found.triggers)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(observed: Observed, folder: Path) -> None:
    images = plots.draw_monitoring(observed.report, observed.before)
    for name, png in images.items():
        write_bytes(folder / f"{name}.png", png)
    write_text(folder / "report.md", monitoring.report(observed.report, {name: f"{name}.png" for name in images}))
    monitoring.publish(observed.report, images)


def _keep_newest(runs: Path) -> None:
    """Remove the reports of the oldest looks."""
    folders = sorted((one for one in runs.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime_ns)
    for folder in folders[:-MAX_REPORTS]:
        shutil.rmtree(folder, ignore_errors=True)
