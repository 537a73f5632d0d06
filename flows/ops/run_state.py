"""Runs that are under way: how others tell that one lives, what becomes of one that died, and how long one may take."""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from bentos.ledger import runs
from bentos.ledger.runs import Run
from flows.ops import notify
from pipeline.errors import TimeLimitError
from pipeline.files import read_json, write_json
from pipeline.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

UP_PID_VARIABLE = "EVERGREEN_UP"
"""The environment variable with the process id of the `evergreen up` that a run belongs to."""
MARK, LOCK = "under-way.json", "under-way.lock"
RESTART_DELAYS = (1, 5, 25)
"""When a run is begun anew whose process died, after the first time in a row, the second, the third; then no more."""
GRACE_PERIOD = 60.0
"""How long a run that was told to end may take until its process is ended."""


@dataclass(frozen=True)
class CrashedRun:
    """A run whose process ended without a word: when it began, the steps it had finished, and what it was doing."""

    model: str
    id: str
    started: str
    steps: tuple[str, ...]
    doing: str | None
    again: str | None
    """When it is begun anew, if it is."""

    @property
    def sentence(self) -> str:
        """Say what happened."""
        during = f"during {self.doing}" if self.doing else "between two steps"
        return f"the process of the run of {self.started} ended without a word {during}"


@dataclass
class RunMarker:
    """What a run says of itself while it goes on, in a file of its folder, for those who find it dead."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def update(self, **facts: Any) -> None:
        """Say something new."""
        self.facts |= facts
        write_json(self.folder / MARK, self.facts)


@contextmanager
def run_marker(folder: Path, **facts: Any) -> Iterator[RunMarker]:
    """Mark a run as under way while the block lasts. That its process lives is told by a lock that the system keeps."""
    with FileLock(folder / LOCK):
        mark = RunMarker(folder)
        mark.update(**facts)
        try:
            yield mark
        finally:
            (folder / MARK).unlink(missing_ok=True)


def close_crashed(settings: Settings, ledger: Engine) -> list[CrashedRun]:
    """Find this machine's runs whose process is dead, and close them: crashed in Prefect and in the ledger.

    One that a schedule or a trigger had begun is begun anew after a pause, which grows; after the third time in a row,
    no more. Needs a Prefect server at hand; a run that this one does not know is closed in the ledger alone.
    """
    from prefect.client.orchestration import get_client

    marks = list(settings.folder("runs").glob(f"*/*/{MARK}"))
    if not marks:
        return []
    found = []
    with get_client(sync_client=True) as client:
        for mark in marks:
            with suppress(Timeout), FileLock(mark.parent / LOCK).acquire(timeout=0):
                with suppress(OSError, ValueError):
                    found.append(_close(client, ledger, mark.parent, read_json(mark)))
                mark.unlink(missing_ok=True)
    return found


def _close(client: "SyncPrefectClient", ledger: Engine, folder: Path, facts: Mapping[str, Any]) -> CrashedRun:
    model, id = folder.parent.name, folder.name
    before = runs.newest_runs(ledger, model, len(RESTART_DELAYS) + 1)[::-1]
    # A release is recorded together with its run: that one had done what it was there for.
    recorded = any(run.started == facts["started"] and run.outcome != "crashed" for run in before)
    row = 0
    while row < len(before) and before[row].outcome == "crashed":
        row += 1
    steps = tuple(facts.get("steps", ()))
    dead = CrashedRun(model, id, facts["started"], steps, facts.get("doing"), None)
    _crash(client, UUID(id), dead.sentence)
    if recorded:
        return dead
    if facts.get("deployment") and row < len(RESTART_DELAYS):
        when = datetime.now(UTC) + timedelta(minutes=RESTART_DELAYS[row])
        if _restart(client, UUID(facts["deployment"]), UUID(id), when):
            dead = CrashedRun(model, id, dead.started, steps, dead.doing, when.isoformat(timespec="seconds"))
    notify.notify("crashed", model, [dead.sentence])
    digests, seconds = facts.get("digests", {}), facts.get("seconds", {})
    reasons = [dead.sentence, f"it begins anew at {dead.again}" if dead.again else "it is not begun anew by itself"]
    runs.add_run(ledger, Run(model, "crashed", facts["cause"], reasons, digests, None, dead.started, seconds))
    return dead


def close_unstarted(pool: str) -> int:
    """Close what a worker of a pool had taken and not begun, when no worker of that pool is up; it is asked for anew.

    It holds its deployment's slot, and others would wait for it. Returns how many there were.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    taken = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=taken, work_pool_filter=ours, limit=200)
        for run in runs:
            _crash(client, run.id, "the worker that had taken it ended before it began")
            if run.deployment_id:
                _restart(client, run.deployment_id, run.id, datetime.now(UTC))
    return len(runs)


def _crash(client: "SyncPrefectClient", id: UUID, why: str) -> None:
    """Let Prefect know that a run and its steps are over, where it thinks that they go on."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Crashed

    try:
        state = client.read_flow_run(id).state
    except ObjectNotFound:
        return
    if state is None or not state.is_final():
        client.set_flow_run_state(id, Crashed(message=why), force=True)
    going = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id])), task_run_filter=going
    ):
        client.set_task_run_state(task.id, Crashed(message=why), force=True)


def _restart(client: "SyncPrefectClient", deployment: UUID, after: UUID, when: datetime) -> bool:
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled

    try:
        client.create_flow_run_from_deployment(
            deployment,
            parameters=client.read_flow_run(after).parameters,
            state=Scheduled(scheduled_time=when, message=f"anew, since the process of run {after} died"),
            idempotency_key=f"after {after}",
        )
    except ObjectNotFound:
        return False
    return True


def cancel_late_runs(id: UUID, deployment: UUID) -> int:
    """Cancel what waits of a deployment and was due before now, for the run that begins now does the same.

    Runs with other parameters stay. Returns how many were cancelled.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, State

    waiting = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    deployed = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    cancelled = 0
    with get_client(sync_client=True) as client:
        wished = _requested(client.read_flow_run(id).parameters)
        for run in client.read_flow_runs(flow_run_filter=waiting, deployment_filter=deployed, limit=200):
            if run.id != id and _due(run) and _requested(run.parameters) == wished:
                state: State[Any] = Cancelled(name="Skipped", message=f"it was late, and run {id} does the same")
                client.set_flow_run_state(run.id, state, force=True)
                cancelled += 1
    return cancelled


def _due(run: "FlowRun") -> bool:
    return run.expected_start_time is not None and run.expected_start_time <= datetime.now(UTC)


def _requested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in ("cause", "why")}


@contextmanager
def time_limit(limit: timedelta, what: str, grace: float = GRACE_PERIOD) -> Iterator[None]:
    """Raise TimeLimitError inside of a block that takes longer than it may.

    Where nothing comes of that within `grace` seconds, as when compiled code holds on to the interpreter, the process
    is ended with exit code 1, the stacks of its threads on stderr. Outside of the main thread only that is done.
    """

    def over(*_: object) -> None:
        raise TimeLimitError(
            f"{what} took more than {limit}, its time limit, and was stopped; "
            "raise `time_limit` in the spec if it needs longer",
            code="time_limit.run",
        )

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, over) if main else None
    if main:
        # Again and again: what is raised may be taken for the failure of something that may fail.
        signal.setitimer(signal.ITIMER_REAL, limit.total_seconds(), 5.0)
    # Its thread needs no interpreter.
    faulthandler.dump_traceback_later(limit.total_seconds() + grace, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
