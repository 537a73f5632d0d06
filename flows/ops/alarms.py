"""Show in Prefect that an alarm stopped a canary: on the run that released it, and in the event feed.

The endpoint's supervisor starts a child process for this, `python -m flows.ops.alarms`, so that a process that serves
for months does not import Prefect. If no Prefect server is running, the next run of the model shows the alarm.
"""

import subprocess
import sys
from uuid import UUID

from flows.ops.prefect_server import prefect_environment, reachable
from flows.provenance import run_folder
from flows.reports import run as reports
from pipeline.processes import run_niced
from pipeline.project import project_folder
from pipeline.settings import Settings, settings


def show(settings: Settings, model: str, release: int, why: str) -> None:
    """Show an alarm in Prefect if a server is running. Raises RuntimeError if the server did not accept it."""
    url = reachable(settings)
    if url is None:
        return
    env = {**prefect_environment(settings), "PREFECT_API_URL": url}
    command = [sys.executable, "-m", "flows.ops.alarms", model, str(release), why]
    done = run_niced(
        lambda: subprocess.run(command, env=env, cwd=project_folder(), capture_output=True, text=True, check=False)
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"the alarm of {model}, release {release}, could not be shown in Prefect: {done.stderr[-1000:]}"
        )


def main(model: str, release: int, why: str) -> None:
    """Create an artifact at the run that made the release, and an event that automations can act on."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    folder = run_folder(settings(), model, release)
    run = UUID(folder.name) if folder else None
    headline, body = reports.alarm(model, release, why).split("\n\n", 1)
    artifact = ArtifactCreate(
        key=reports.key(model, "alarm"), type="markdown", description=headline, data=body, flow_run_id=run
    )
    with get_client(sync_client=True) as client:
        client.create_artifact(artifact)
    made_by = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}] if run else []
    emit_event(
        "evergreen.canary-alarmed",
        resource={"prefect.resource.id": f"evergreen.model.{model}", "evergreen.model": model},
        related=made_by,
        payload={"release": release, "reasons": [f"the canary, release {release}, is stopped: {why}"]},
    )
    EventsWorker.drain_all(timeout=10)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
