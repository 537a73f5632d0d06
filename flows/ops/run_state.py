"""Runs in progress: how to tell that one is alive, what happens when it is killed, and how long one may take.

While a run works, its folder has two files: `under-way.json`, which says what it is doing, and `under-way.lock`, which
its process holds locked. The operating system frees that lock when the process ends, however it ends. So a run is dead
if `under-way.json` exists and its lock is free.

When a run is killed:

1. Noticed. The next run of any model on this machine calls `close_crashed` when it starts, and so does `evergreen up`
   every 10 seconds. Both try the lock of each `under-way.json`.
2. Unlocked. The run also held `locks/MODEL.lock`, so that a model has one run at a time, and with PostgreSQL an
   advisory lock. The operating system frees the first, PostgreSQL the second when the connection ends.
3. Closed. The run and its running steps become `Crashed` in Prefect. The ledger records a run that ended `crashed`,
   people are notified, and `under-way.json` is removed.
4. Restarted. If a deployment had started it, Prefect schedules a run with the same parameters after 1, 5 or 25 minutes
   (`RESTART_DELAYS`), by the number of crashes in a row. After the fourth crash in a row nothing is scheduled. A run
   that a person started is not restarted.
5. Resumed. The next run of the model finds the snapshot, the trained model and the artifact by their digests. It
   repeats only the steps that were not finished. Half-written files have names of their own and are swept away.

A run that a worker had accepted and not begun has no such files; `close_unstarted` closes and reschedules it.
"""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
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
"""Minutes until a crashed run is restarted, by the number of crashes in a row before it; then it is not restarted."""
GRACE_PERIOD = 60.0
"""Seconds between the exception at the time limit and the forced end of the process."""


@dataclass(frozen=True)
class CrashedRun:
    """A run whose process died.

    Attributes:
        model: its name.
        id: the id of the flow run.
        started: when it began, ISO 8601 in UTC.
        steps: the steps that it had finished.
        doing: the step that it was doing; None between two steps.
        restart: when Prefect restarts it, ISO 8601 in UTC; None if it does not.
    """

    model: str
    id: str
    started: str
    steps: tuple[str, ...]
    doing: str | None
    restart: str | None

    @property
    def sentence(self) -> str:
        """The crash as a sentence."""
        during = f"during {self.doing}" if self.doing else "between two steps"
        return f"the process of the run of {self.started} died {during}"


@dataclass
class RunMarker:
    """The file in a run's folder that says what the run is doing; it is read when the run is found dead.

    Attributes:
        folder: the run's folder.
        facts: the content of the file.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def update(self, **facts: Any) -> None:
        """Add or replace facts."""
        self.facts |= facts
        write_json(self.folder / MARK, self.facts)


@contextmanager
def run_marker(folder: Path, **facts: Any) -> Iterator[RunMarker]:
    """Mark a run as in progress during the block: with a file of facts, and a lock that ends with the process."""
    with FileLock(folder / LOCK):
        marker = RunMarker(folder)
        marker.update(**facts)
        try:
            yield marker
        finally:
            (folder / MARK).unlink(missing_ok=True)


def close_crashed(settings: Settings, ledger: Engine) -> list[CrashedRun]:
    """Find this machine's runs whose process died, and close them in Prefect and in the ledger.

    Runs of a deployment are restarted after a delay (`RESTART_DELAYS`). A Prefect server must be reachable; a run that
    this server does not know is closed in the ledger only.
    """
    from prefect.client.orchestration import get_client

    files = list(settings.folder("runs").glob(f"*/*/{MARK}"))
    if not files:
        return []
    crashed = []
    with get_client(sync_client=True) as client:
        for file in files:
            # Timeout: its process holds the lock, so the run is alive.
            with suppress(Timeout), FileLock(file.parent / LOCK).acquire(timeout=0):
                with suppress(OSError, ValueError):
                    crashed.append(_close(client, ledger, file.parent, read_json(file)))
                file.unlink(missing_ok=True)
    return crashed


def _close(client: "SyncPrefectClient", ledger: Engine, folder: Path, facts: Mapping[str, Any]) -> CrashedRun:
    model, id = folder.parent.name, folder.name
    newest_first = runs.newest_runs(ledger, model, len(RESTART_DELAYS) + 1)[::-1]
    crashes_in_a_row = 0
    while crashes_in_a_row < len(newest_first) and newest_first[crashes_in_a_row].outcome == "crashed":
        crashes_in_a_row += 1
    crashed = CrashedRun(model, id, facts["started"], tuple(facts.get("steps", ())), facts.get("doing"), None)
    _set_crashed(client, UUID(id), crashed.sentence)
    # The ledger records a release together with its run: such a run had finished its work.
    if any(run.started == facts["started"] and run.outcome != "crashed" for run in newest_first):
        return crashed
    if facts.get("deployment") and crashes_in_a_row < len(RESTART_DELAYS):
        when = datetime.now(UTC) + timedelta(minutes=RESTART_DELAYS[crashes_in_a_row])
        if _restart(client, UUID(facts["deployment"]), UUID(id), when):
            crashed = replace(crashed, restart=when.isoformat(timespec="seconds"))
    notify.notify("crashed", model, [crashed.sentence])
    digests, seconds = facts.get("digests", {}), facts.get("seconds", {})
    restart = f"it restarts at {crashed.restart}" if crashed.restart else "it is not restarted automatically"
    reasons = [crashed.sentence, restart]
    runs.add_run(ledger, Run(model, "crashed", facts["cause"], reasons, digests, None, crashed.started, seconds))
    return crashed


def close_unstarted(pool: str) -> int:
    """Close and reschedule the runs that a worker of the pool accepted and did not begin; return how many.

    Call it when no worker of the pool is running. Such a run would hold its deployment's slot, and later runs would
    wait for it.
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

    pending = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])))
    in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=pending, work_pool_filter=in_pool, limit=200)
        for run in runs:
            _set_crashed(client, run.id, "its worker ended before the run began")
            if run.deployment_id:
                _restart(client, run.deployment_id, run.id, datetime.now(UTC))
    return len(runs)


def _set_crashed(client: "SyncPrefectClient", id: UUID, why: str) -> None:
    """Set a run and its running steps to Crashed in Prefect; a run that is final or unknown there stays as it is."""
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
    running = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    for task in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id])), task_run_filter=running
    ):
        client.set_task_run_state(task.id, Crashed(message=why), force=True)


def _restart(client: "SyncPrefectClient", deployment: UUID, after: UUID, when: datetime) -> bool:
    """Schedule a run with the parameters of run `after`; return False if Prefect does not know that run."""
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Scheduled

    try:
        client.create_flow_run_from_deployment(
            deployment,
            parameters=client.read_flow_run(after).parameters,
            state=Scheduled(scheduled_time=when, message=f"restart: the process of run {after} died"),
            idempotency_key=f"after {after}",
        )
    except ObjectNotFound:
        return False
    return True


def cancel_late_runs(id: UUID, deployment: UUID) -> int:
    """Cancel the late runs of a deployment that ask for the same as the run `id`, which begins now; return how many.

    A run asks for the same if all its parameters but `cause` and `why` are equal.
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

    scheduled = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    cancelled = 0
    with get_client(sync_client=True) as client:
        requested = _requested(client.read_flow_run(id).parameters)
        for run in client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=of_deployment, limit=200):
            if run.id != id and _is_due(run) and _requested(run.parameters) == requested:
                state: State[Any] = Cancelled(name="Skipped", message=f"it was late, and run {id} does the same")
                client.set_flow_run_state(run.id, state, force=True)
                cancelled += 1
    return cancelled


def _is_due(run: "FlowRun") -> bool:
    return run.expected_start_time is not None and run.expected_start_time <= datetime.now(UTC)


def _requested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in ("cause", "why")}


@contextmanager
def time_limit(limit: timedelta, what: str, grace: float = GRACE_PERIOD) -> Iterator[None]:
    """Raise TimeLimitError inside a block that takes longer than `limit`.

    If the block does not end within `grace` more seconds, for example because compiled code holds the interpreter, the
    process exits with code 1 and prints the stacks of its threads on stderr. Outside the main thread, where Python
    delivers no signals, only the second happens.
    """

    def raise_error(*_: object) -> None:
        raise TimeLimitError(
            f"{what} took more than {limit}, its time limit, and was stopped; "
            "raise `time_limit` in the spec if it needs longer",
            code="time_limit.run",
        )

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, raise_error) if main else None
    if main:
        # Repeat every 5 s: code that tolerates failures may catch the first exception.
        signal.setitimer(signal.ITIMER_REAL, limit.total_seconds(), 5.0)
    # faulthandler's thread runs without the interpreter lock.
    faulthandler.dump_traceback_later(limit.total_seconds() + grace, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
