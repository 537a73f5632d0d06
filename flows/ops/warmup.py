"""Run a flow once, in this process, with a Prefect server at hand."""

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
    """Run the flow `name` of the module of that name, such as `flows.score.score`, and return what it returns.

    Whatever broke in it is raised here. The listener is told of every step. A Prefect server is started where none is
    at hand.
    """
    LISTENER.set(listener)
    module = f"flows.{name}"
    with prefect_server(settings, lambda _: import_module(module)):
        _spare_tracebacks()
        state: Any = getattr(import_module(module), name)(**parameters, return_state=True)
        _flush()
        return state.result(raise_on_failure=True)


def launch(settings: Settings, listener: Callable[[Any], None], model: str, **parameters: Any) -> Outcome:
    """Run the retraining flow with these parameters and return how it ended; whatever broke in it is raised here.

    The listener is told of every step. A Prefect server is started where none is at hand.
    """
    LISTENER.set(listener)
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        # It takes as long to import what validates as all else that a run needs: both happen at the same time, unless
        # there may be nothing new.
        validator = stack.enter_context(start_validator(model))
        stack.callback(STARTED_VALIDATOR.reset, STARTED_VALIDATOR.set(validator))
        validates = not parameters.get("only_package")
        if validates and (parameters.get("force") or not _same_code(settings, model)):
            validator.begin()
        server = prefect_server(settings, lambda _: _import_all(model, parameters.get("data"), validator, validates))
        timed("start", seconds, lambda: stack.enter_context(server))
        from prefect import tags

        from flows.retrain import retrain

        _spare_tracebacks()
        with tags(model):
            state: Any = retrain(model, **parameters, return_state=True)
        _flush()
    folder = settings.folder("runs", model, str(state.state_details.flow_run_id))
    if not (folder / "outcome.json").exists():
        state.result(raise_on_failure=True)
    outcome = Outcome.from_dict(read_json(folder / "outcome.json"))
    seconds |= outcome.seconds
    # What is in no step: Prefect's bookkeeping, and its server's end.
    seconds["prefect"] = round(time.perf_counter() - began - sum(seconds.values()), 3)
    return replace(outcome, seconds=seconds)


def _same_code(settings: Settings, model: str) -> bool:
    """Tell, importing no model, whether the last run that reached a verdict was about the code that is here now."""
    with suppress(Exception):
        last = runs.last_run(open_ledger(settings.ledger_url), model, runs.VERDICTS)
        return last is not None and last.digests.get("code") == code_digest(model, project_folder())
    return False


def _import_all(model: str, data: str | None, validator: Validator, validates: bool) -> None:
    """Import what a run needs, while a Prefect server starts where one has to; what validates, if there is news."""
    # Modules stay: collecting garbage while they load, and looking at them again later, took as long as loading them.
    gc.disable()
    try:
        import flows.retrain
        from pipeline.spec import load_spec

        # What is broken there is said by the step that needs it.
        with suppress(Exception):
            load_spec(model)
    finally:
        gc.freeze()
        gc.enable()
    try:
        same = not validates or flows.retrain.nothing_new(model, data)
    except Exception:
        same = False
    if not same:
        validator.begin()


def _spare_tracebacks() -> None:
    """Have Prefect not show on a terminal where an error of ours was raised: it is a sentence, said at the end."""
    for handler in logging.getLogger().handlers:
        if _is_no_error_of_ours not in handler.filters:
            handler.addFilter(_is_no_error_of_ours)


def _is_no_error_of_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], EvergreenError))


def _flush() -> None:
    """Wait until the server has been told everything: it may end with this run."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
