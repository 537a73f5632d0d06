import os
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from project import CHECKOUT
from test_releases import postgres  # noqa: F401

from bentos.ledger.database import model_lock, open_ledger
from flows.ops.run_state import time_limit
from pipeline.errors import TimeLimitError


def test_a_block_that_takes_longer_than_it_may_is_ended():
    with (
        pytest.raises(TimeLimitError, match=r"the run of x took more than 0:00:00\.2"),
        time_limit(timedelta(seconds=0.2), "the run of x"),
    ):
        time.sleep(60)


def test_a_block_in_time_is_left_alone_and_so_is_what_comes_after():
    with time_limit(timedelta(seconds=0.3), "x", grace=0.1):
        pass
    time.sleep(0.6)


def test_a_process_that_holds_on_to_the_interpreter_is_ended_by_force():
    code = (
        "import itertools\n"
        "from datetime import timedelta\n"
        "from flows.ops.run_state import time_limit\n"
        "with time_limit(timedelta(seconds=0.2), 'x', grace=0.3):\n"
        "    sum(itertools.repeat(0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_on_a_postgresql_ledger_one_process_at_a_time_goes_on_and_a_connection_that_dies_lets_the_next(
    postgres,  # noqa: F811
):
    first, second = open_ledger(postgres), open_ledger(postgres)
    order = []

    def waiting(take):
        order.append("waits")
        take()

    def later():
        with model_lock(second, "points", waiting):
            order.append("second")

    with model_lock(first, "points", pytest.fail), model_lock(second, "others", pytest.fail):
        thread = threading.Thread(target=later)
        thread.start()
        thread.join(1.0)
        assert order == ["waits"]
        order.append("first ends")
    thread.join(30)
    assert order == ["waits", "first ends", "second"]
    first.dispose(), second.dispose()
