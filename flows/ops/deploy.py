"""The project's flows as deployments on a Prefect server, for workers of a process pool to run on their schedules.

What is registered is what `prefect deploy` makes of the prefect.yaml that `evergreen deploy --yaml` prints.
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
"""The work pool; of type process, made where there is none."""
TAG = "evergreen"
"""What the deployments of this project are known by: one whose model has gone is removed."""


def deployments(models: Iterable[str]) -> list[dict[str, Any]]:
    """Return what is to be deployed for models, each as an item of a prefect.yaml."""
    specs = [load_spec(model) for model in models]
    retraining = [_deployment("retrain", spec, spec.schedule, _retraining(spec)) for spec in specs]
    watched = [spec for spec in specs if spec.monitor.schedule]
    return [*retraining, *(_deployment("monitor", spec, spec.monitor.schedule, _monitoring(spec)) for spec in watched)]


def prefect_yaml(models: Iterable[str]) -> str:
    """Return the prefect.yaml with which `prefect deploy --all` registers the same."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a text of several lines as such."""

    Dumper.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)
    )
    whole = {"name": TAG, "pull": _pull(), "deployments": deployments(models)}
    return str(yaml.dump(whole, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True))


def deploy(models: Iterable[str]) -> list[DeploymentView]:
    """Register what is to be deployed at PREFECT_API_URL; return the deployments.

    Doing it again changes nothing. What a person has paused in the Prefect UI stays paused. Deployments of models
    that are no more are removed.
    """
    from prefect.client.orchestration import get_client

    found = deployments(models)
    with get_client(sync_client=True) as client:
        _make_pool(client)
        made = [_register(client, one) for one in found]
        for place, one in enumerate(made):
            if one.deployment == f"retrain/{one.model}":
                spec = load_spec(one.model)
                made[place] = replace(one, notes=notify.register(client, spec))
                triggers.register(client, spec.name, spec.monitor, UUID(one.id))
        _remove_others(client, {one.id for one in made})
    return made


def next_runs() -> dict[str, str]:
    """Return when each of this project's deployments runs next, by name, as ISO 8601."""
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
        names = {one.id: _name(client, one) for one in client.read_deployments(deployment_filter=ours, limit=200)}
        runs = client.read_flow_runs(
            flow_run_filter=scheduled,
            deployment_filter=ours,
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=200,
        )
    found: dict[str, str] = {}
    for run in runs:
        if run.deployment_id in names and run.next_scheduled_start_time:
            found.setdefault(names[run.deployment_id], run.next_scheduled_start_time.isoformat(timespec="seconds"))
    return found


def _deployment(flow: str, spec: ModelSpec, schedule: Cron | None, description: str) -> dict[str, Any]:
    """Return one flow of one model as an item of a prefect.yaml; the flow is the function of that name in its module.

    One run at a time: what comes meanwhile waits, and the run that begins next stands for all that waited.
    """
    due = {
        "cron": schedule.expression if schedule else "",
        "timezone": schedule.timezone if schedule else "",
        "parameters": {"cause": "schedule"} if flow == "retrain" else {},
        "slug": "spec",
    }
    return {
        "name": spec.name,
        "entrypoint": f"{_code()}flows/{flow}.py:{flow}",
        "description": description,
        "tags": [TAG, spec.name],
        "parameters": {"model": spec.name},
        "schedules": [due] if schedule else [],
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": {"name": POOL},
    }


def _pull() -> list[dict[str, Any]]:
    """Workers run the code in place; one on another machine needs the project under the same path."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": str(project_folder())}}]


def _code() -> str:
    """Return what stands before a flow's file: nothing in a clone, since a worker's folder is the project's."""
    return "" if project_folder() == CODE_FOLDER else f"{CODE_FOLDER}/"


def _retraining(spec: ModelSpec) -> str:
    gate = f"at most {spec.gate.at_most:g}" if spec.gate.at_most is not None else f"at least {spec.gate.at_least:g}"
    unit = f" ({spec.task.unit})" if isinstance(spec.task, Regression) and spec.task.unit else ""
    due = f"`{spec.schedule.expression}` in {spec.schedule.timezone}" if spec.schedule else "when asked to"
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


def _monitoring(spec: ModelSpec) -> str:
    retrain = ", ".join(spec.monitor.retrain) or "nothing"
    return f"Looks at **{spec.name}** as it is served. What has it retrained: {retrain}."


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


def _register(client: "SyncPrefectClient", one: dict[str, Any]) -> DeploymentView:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound
    from prefect.utilities.callables import parameter_schema

    path, _, function = one["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(f"flows.{Path(path).stem}"), function)
    try:
        before = client.read_deployment_by_name(f"{flow.name}/{one['name']}")
    except ObjectNotFound:
        before = None
    active = {schedule.slug: schedule.active for schedule in before.schedules} if before else {}
    id = client.create_deployment(
        client.create_flow(flow),
        one["name"],
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=due["cron"], timezone=due["timezone"]),
                active=active.get(due["slug"], True),
                parameters=due["parameters"],
                slug=due["slug"],
            )
            for due in one["schedules"]
        ],
        concurrency_limit=one["concurrency_limit"]["limit"],
        concurrency_options=ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy(one["concurrency_limit"]["collision_strategy"])
        ),
        parameters=one["parameters"],
        description=one["description"],
        work_pool_name=one["work_pool"]["name"],
        tags=one["tags"],
        entrypoint=one["entrypoint"],
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        pull_steps=_pull(),
    )
    schedule = one["schedules"][0] if one["schedules"] else None
    return DeploymentView(
        deployment=f"{flow.name}/{one['name']}",
        id=str(id),
        model=one["parameters"]["model"],
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


def _name(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> str:
    return f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
