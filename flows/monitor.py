"""The monitoring flow: what the endpoint was asked and answered, beside what the champion was trained on and promised.

It looks, decides which triggers are due, tells Prefect of them, and leaves a report.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from bentos.ledger import open_ledger
from flows import look, monitoring, triggers
from flows.look import View
from flows.progress import timed
from pipeline.files import write_bytes, write_json, write_text
from pipeline.settings import settings
from pipeline.spec import load_spec

KEPT = 60
"""The reports of so many looks stay."""


@flow(name="monitor", flow_run_name="{model}")
def monitor(model: str) -> State[Any]:
    """Look at a model as it is served; the final state is named by the first trigger that is due, or Quiet.

    Its value is what was found, as JSON values; that is in the run's folder, too, with a report, and in the ledger.
    """
    folder = settings().folder("runs", f"{model}.monitor", str(runtime.flow_run.id))
    seconds: dict[str, float] = {}
    view = timed("look", seconds, look_at, model)
    timed("tell", seconds, tell, model, view)
    try:
        timed("report", seconds, report, view, folder)
    except Exception:
        # What was found is in the ledger, and Prefect was told.
        get_run_logger().warning("the report failed", exc_info=True)
    write_json(folder / "monitor.json", view.found | {"seconds": seconds})
    _keep_newest(folder.parent)
    due = [one for one in view.found["triggers"] if one["due"]]
    name = "".join(word.capitalize() for word in due[0]["name"].split("-")) if due else "Quiet"
    message = "; ".join(one["sentence"] for one in due) or monitoring.headline(view.found)
    return Completed(name=name, message=message, data=view.found | {"seconds": seconds})


@task(name="look", task_run_name="look", cache_policy=NO_CACHE, persist_result=False)
def look_at(model: str) -> View:
    return look.look(settings(), open_ledger(settings().ledger_url), load_spec(model), datetime.now(UTC))


@task(name="tell", task_run_name="tell", cache_policy=NO_CACHE, persist_result=False)
def tell(model: str, view: View) -> None:
    # First what cooldowns go by: told twice is worse than told late.
    look.record(open_ledger(settings().ledger_url), view)
    triggers.tell(model, [triggers.Trigger(**one) for one in view.found["triggers"]])


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(view: View, folder: Path) -> None:
    images = monitoring.draw(view)
    for name, png in images.items():
        write_bytes(folder / f"{name}.png", png)
    write_text(folder / "report.md", monitoring.report(view.found, {name: f"{name}.png" for name in images}))
    monitoring.publish(view.found, images)


def _keep_newest(runs: Path) -> None:
    """Remove the reports of the oldest looks."""
    folders = sorted((one for one in runs.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime_ns)
    for folder in folders[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
