"""Register the project's flows as deployments on a Prefect server; workers of a process pool run them on schedule.

`prefect deploy` registers the same from the prefect.yaml that `evergreen deploy --yaml` prints.
"""

import importlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.cli.views import DeploymentView, ScheduleView
from flows.monitoring import triggers
from flows.ops import notify
from pipeline import sources
from pipeline.project import CODE_FOLDER, project_folder
from pipeline.spec import Cron, ModelSpec, Regression, load_spec

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

POOL = "evergreen"
"""The name of the work pool, of type process; it is created if it does not exist."""
TAG = "evergreen"
"""The tag of this project's deployments; deployments with it whose model no longer exists are removed."""


def deployments(models: Iterable[str]) -> list[dict[str, Any]]:
    """Return the deployments of models, each as an item of a prefect.yaml.

    Each model has one for retraining, and one for monitoring if its spec schedules that.
    """
    specs = [load_spec(model) for model in models]
    retraining = [_deployment("retrain", spec, spec.schedule, _retrain_description(spec)) for spec in specs]
    monitoring = [
        _deployment("monitor", spec, spec.monitor.schedule, _monitor_description(spec))
        for spec in specs
        if spec.monitor.schedule
    ]
    return [*retraining, *monitoring]


def prefect_yaml(models: Iterable[str]) -> str:
    """Return the prefect.yaml with which `prefect deploy --all` registers the same deployments."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a text of several lines as a block."""

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)
    )
    content = {"name": TAG, "pull": _pull(), "deployments": deployments(models)}
    return str(yaml.dump(content, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True))


def deploy(models: Iterable[str]) -> list[DeploymentView]:
    """Register the deployments of models at PREFECT_API_URL, and return them.

    Registering again changes nothing. A schedule that a person paused in the Prefect UI stays paused. Deployments of
    models that no longer exist are removed.
    """
    from prefect.client.orchestration import get_client

    items = deployments(models)
    with get_client(sync_client=True) as client:
        _make_pool(client)
        views = [_register(client, item) for item in items]
        for index, view in enumerate(views):
            if view.deployment == f"retrain/{view.model}":
                spec = load_spec(view.model)
                views[index] = replace(view, notes=notify.register(client, spec))
                triggers.register(client, spec.name, spec.monitor, UUID(view.id))
        _remove_others(client, {view.id for view in views})
    return views


def next_runs() -> dict[str, str]:
    """Return the next run of each of this project's deployments, by name, as ISO 8601."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterTags,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    with get_client(sync_client=True) as client:
        deployed = client.read_deployments(deployment_filter=ours, limit=200)
        names = {deployment.id: _full_name(client, deployment) for deployment in deployed}
        runs = client.read_flow_runs(
            flow_run_filter=scheduled,
            deployment_filter=ours,
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=200,
        )
    due: dict[str, str] = {}
    for run in runs:
        if run.deployment_id in names and run.next_scheduled_start_time:
            due.setdefault(names[run.deployment_id], run.next_scheduled_start_time.isoformat(timespec="seconds"))
    return due


def _deployment(flow: str, spec: ModelSpec, schedule: Cron | None, description: str) -> dict[str, Any]:
    """Return one flow of one model as an item of a prefect.yaml; `flow` names a module of flows and its function.

    A deployment has one run at a time. Other runs wait, and the next one that begins replaces all that waited.
    """
    due = {
        "cron": schedule.expression if schedule else "",
        "timezone": schedule.timezone if schedule else "",
        "parameters": {"cause": "schedule"} if flow == "retrain" else {},
        "slug": "spec",
    }
    return {
        "name": spec.name,
        "entrypoint": f"{_code_prefix()}flows/{flow}.py:{flow}",
        "description": description,
        "tags": [TAG, spec.name],
        "parameters": {"model": spec.name},
        "schedules": [due] if schedule else [],
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": {"name": POOL},
    }


def _pull() -> list[dict[str, Any]]:
    """Return the pull step: workers run the code in place, so another machine needs the project at the same path."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": str(project_folder())}}]


def _code_prefix() -> str:
    """Return the folder before a flow's file name: empty in a clone, where a worker's folder is the project's."""
    return "" if project_folder() == CODE_FOLDER else f"{CODE_FOLDER}/"


def _retrain_description(spec: ModelSpec) -> str:
    gate = f"at most {spec.gate.at_most:g}" if spec.gate.at_most is not None else f"at least {spec.gate.at_least:g}"
    unit = f" ({spec.task.unit})" if isinstance(spec.task, Regression) and spec.task.unit else ""
    due = f"`{spec.schedule.expression}` in {spec.schedule.timezone}" if spec.schedule else "not scheduled"
    return "\n".join(
        (
            f"Retrains **{spec.name}**: ingest, validate, train, evaluate, gate, package, trial, release.",
            "",
            f"- {spec.task.kind} of `{spec.target}`{unit}, from `{sources.origin(spec.source)}`",
            f"- candidates: {', '.join(spec.candidates)}",
            f"- gate: {spec.metric} {gate}, and no worse than the champion",
            f"- runs: {due}",
        )
    )


def _monitor_description(spec: ModelSpec) -> str:
    retrain = ", ".join(spec.monitor.retrain) or "none"
    return f"Monitors **{spec.name}** in service. Triggers that retrain it: {retrain}."


def _make_pool(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(pool)


def _register(client: "SyncPrefectClient", item: dict[str, Any]) -> DeploymentView:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    path, _, function = item["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(f"flows.{Path(path).stem}"), function)
    try:
        before = client.read_deployment_by_name(f"{flow.name}/{item['name']}")
    except ObjectNotFound:
        before = None
    active = {schedule.slug: schedule.active for schedule in before.schedules} if before else {}
    id = client.create_deployment(
        client.create_flow(flow),
        item["name"],
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=due["cron"], timezone=due["timezone"]),
                active=active.get(due["slug"], True),
                parameters=due["parameters"],
                slug=due["slug"],
            )
            for due in item["schedules"]
        ],
        concurrency_limit=item["concurrency_limit"]["limit"],
        concurrency_options=ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(item["concurrency_limit"]["collision_strategy"])
        ),
        parameters=item["parameters"],
        description=item["description"],
        work_pool_name=item["work_pool"]["name"],
        tags=item["tags"],
        entrypoint=item["entrypoint"],
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        pull_steps=_pull(),
    )
    schedule = item["schedules"][0] if item["schedules"] else None
    return DeploymentView(
        deployment=f"{flow.name}/{item['name']}",
        id=str(id),
        model=item["parameters"]["model"],
        schedule=ScheduleView(schedule["cron"], schedule["timezone"]) if schedule else None,
        paused=bool(before and (before.paused or (schedule and not active.get(schedule["slug"], True)))),
        notes=[],
    )


def _remove_others(client: "SyncPrefectClient", ours: set[str]) -> None:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for deployment in client.read_deployments(deployment_filter=tagged, limit=200):
        if str(deployment.id) not in ours and deployment.work_pool_name == POOL:
            client.delete_deployment(deployment.id)


def _full_name(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> str:
    return f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
