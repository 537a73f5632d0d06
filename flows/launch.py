"""Run the retraining flow once, in this process, with a Prefect server at hand."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from flows.outcome import Outcome
from flows.progress import LISTENER, timed
from flows.server import prefect_server
from pipeline.files import read_json
from pipeline.settings import Settings


def launch(settings: Settings, listener: Callable[[Any], None], model: str, **parameters: Any) -> Outcome:
    """Run the flow with these parameters and return how it ended; whatever broke in it is raised here.

    The listener is told of every step. A Prefect server is started where none is at hand.
    """
    LISTENER.set(listener)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        timed("prefect", seconds, lambda: stack.enter_context(prefect_server(settings, lambda: _import_all(model))))
        from flows.retrain import retrain

        state: Any = retrain(model, **parameters, return_state=True)
        timed("stop prefect", seconds, _flush)
    folder = settings.folder("runs", model, str(state.state_details.flow_run_id))
    if not (folder / "outcome.json").exists():
        state.result(raise_on_failure=True)
    outcome = Outcome.from_dict(read_json(folder / "outcome.json"))
    return replace(outcome, seconds={**seconds, **outcome.seconds})


def _import_all(model: str) -> None:
    """Import what a run needs: it takes as long as a Prefect server takes to start, so both are done at once."""
    import flows.retrain  # noqa: F401
    from expectations.validate import load_suite
    from pipeline.spec import load_spec

    # What is broken there is said by the step that needs it.
    with suppress(Exception):
        load_spec(model)
        load_suite(model)


def _flush() -> None:
    """Wait until the server has been told everything: it may end with this run."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
