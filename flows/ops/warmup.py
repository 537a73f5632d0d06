"""Run a flow once in this process, with a Prefect server, while everything slow loads at the same time.

Before its first step a run needs three slow things, with the CPU time that each took on two cores:

- a Prefect server, if none is running: 4.5 s;
- a child process that imports Great Expectations, to validate: 3.7 s;
- the imports of this process (Prefect, scikit-learn, BentoML): 2.3 s.

In sequence that is 10.5 s. Overlapped, a run waits for the longest of the three, if there are enough cores; `seconds`
of its outcome has that wait as "start". `bench/run_cost.py` measures whole runs.

The imports of the child process begin at once if the code changed, or with `force`. Otherwise they wait until
`flows.retrain.nothing_new` has said that there is something to validate: a run on unchanged data never pays for them.
While modules load, the garbage collector is off, and afterwards they are frozen: collecting took as long as loading.
"""

import gc
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from bentos.ledger import runs
from bentos.ledger.database import open_ledger
from expectations.subprocess_validator import STARTED_VALIDATOR, Validator, start_validator
from flows.ops.prefect_server import prefect_server
from flows.outcome import Outcome
from flows.progress import LISTENER, timed
from pipeline.code import code_digest
from pipeline.errors import EvergreenError
from pipeline.files import read_json
from pipeline.project import project_folder
from pipeline.settings import Settings


def launch_flow(name: str, settings: Settings, listener: Callable[[Any], None], **parameters: Any) -> Any:
    """Run the flow `name` of the module of that name, such as `flows.score.score`, and return its result.

    Raises the exceptions of the flow. Calls the listener with every step. Starts a Prefect server if none is running.
    """
    LISTENER.set(listener)
    module = f"flows.{name}"
    with prefect_server(settings, lambda _: import_module(module)):
        _hide_own_tracebacks()
        state: Any = getattr(import_module(module), name)(**parameters, return_state=True)
        _drain_to_server()
        return state.result(raise_on_failure=True)


def launch(settings: Settings, listener: Callable[[Any], None], model: str, **parameters: Any) -> Outcome:
    """Run the retraining flow with these parameters and return its outcome. Raises the exceptions of the flow.

    Calls the listener with every step. Starts a Prefect server if none is running.
    """
    LISTENER.set(listener)
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        # The validator's imports take as long as all other imports of a run. So they begin now, at the same time,
        # unless the code is that of the last verdict: then there may be nothing to validate.
        validator = stack.enter_context(start_validator(model))
        stack.callback(STARTED_VALIDATOR.reset, STARTED_VALIDATOR.set(validator))
        validates = not parameters.get("only_package")
        if validates and (parameters.get("force") or not _same_code(settings, model)):
            validator.begin()
        server = prefect_server(settings, lambda _: _import_all(model, parameters.get("data"), validator, validates))
        timed("start", seconds, lambda: stack.enter_context(server))
        from prefect import tags

        from flows.retrain import retrain

        _hide_own_tracebacks()
        with tags(model):
            state: Any = retrain(model, **parameters, return_state=True)
        _drain_to_server()
    folder = settings.folder("runs", model, str(state.state_details.flow_run_id))
    if not (folder / "outcome.json").exists():
        state.result(raise_on_failure=True)
    outcome = Outcome.from_dict(read_json(folder / "outcome.json"))
    seconds |= outcome.seconds
    # The time outside all steps: Prefect's bookkeeping, and the end of its server.
    seconds["prefect"] = round(time.perf_counter() - began - sum(seconds.values()), 3)
    return replace(outcome, seconds=seconds)


def _same_code(settings: Settings, model: str) -> bool:
    """Tell, without importing the model, whether the last run with a verdict had the code that is here now."""
    with suppress(Exception):
        last = runs.last_run(open_ledger(settings.ledger_url), model, runs.VERDICTS)
        return last is not None and last.digests.get("code") == code_digest(model, project_folder())
    return False


def _import_all(model: str, data: str | None, validator: Validator, validates: bool) -> None:
    """Import what a run needs, while the Prefect server starts; then start the validator unless nothing is new."""
    # Modules are never garbage: collecting while they load, and again later, took as long as loading them.
    gc.disable()
    try:
        import flows.retrain
        from pipeline.spec import load_spec

        # The step that needs the spec reports what is wrong with it.
        with suppress(Exception):
            load_spec(model)
    finally:
        gc.freeze()
        gc.enable()
    try:
        nothing_to_validate = not validates or flows.retrain.nothing_new(model, data)
    except Exception:
        nothing_to_validate = False
    if not nothing_to_validate:
        validator.begin()


def _hide_own_tracebacks() -> None:
    """Keep Prefect from printing the traceback of an EvergreenError: the command prints its sentence at the end."""
    for handler in logging.getLogger().handlers:
        if _is_unexpected not in handler.filters:
            handler.addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Tell whether a log record is not about an EvergreenError."""
    return not (record.exc_info and isinstance(record.exc_info[1], EvergreenError))


def _drain_to_server() -> None:
    """Send the queued logs and events to the Prefect server, which may end with this run."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
