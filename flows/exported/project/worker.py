"""Tell the Prefect server when a model is to be retrained, and do it then: `python worker.py MODEL`."""

import sys

from prefect.schedules import Cron

from flows.retrain import retrain
from pipeline.spec import load_spec


def main(model: str) -> None:
    """Wait for runs of a model that its schedule or a person asks for, and do them, one at a time."""
    due = load_spec(model).schedule
    retrain.serve(
        name=model,
        parameters={"model": model, "cause": "schedule"},
        schedule=Cron(due.expression, timezone=due.timezone) if due else None,
        limit=1,
        pause_on_shutdown=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
