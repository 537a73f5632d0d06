import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from project import CHECKOUT

from pipeline.processes import free_port, run_idle, run_niced, supervised_child, wait_until

# Starts a child of its own, writes both process ids down, and refuses to end when asked nicely.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""
CARELESS = STUBBORN.replace("SIG_IGN", "SIG_DFL")
HOLDER = """
import os, sys, time
from pathlib import Path
from pipeline.processes import supervised_child
command, log = [sys.executable, "-c", sys.argv[1], sys.argv[2]], Path(sys.argv[2] + ".log")
with supervised_child(command, os.environ, Path.cwd(), log):
    time.sleep(60)
"""


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def alive(pid):
    # A process that ended and that nobody has asked about yet is a zombie; that is dead enough.
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def written(path):
    assert until(path.exists)
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize(
    "command", [pytest.param(STUBBORN, id="stubborn", marks=pytest.mark.slow), pytest.param(CARELESS, id="careless")]
)
def test_a_child_and_its_grandchild_die_when_the_holder_of_the_leash_is_killed(command, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, command, str(tmp_path / "pids")],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    try:
        pids = written(tmp_path / "pids")
        assert all(map(alive, pids))
        holder.send_signal(signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()
    assert until(lambda: not any(map(alive, pids)))


def test_a_child_and_its_grandchild_are_gone_when_the_block_ends_even_by_an_exception(tmp_path):
    command = [sys.executable, "-c", CARELESS, str(tmp_path / "pids")]
    with suppress(RuntimeError), supervised_child(command, os.environ, tmp_path, tmp_path / "log") as child:
        pids = written(tmp_path / "pids")
        raise RuntimeError
    assert child.returncode is not None
    assert until(lambda: not any(map(alive, pids)), seconds=5)


def test_what_a_child_prints_and_how_it_ends_is_kept(tmp_path):
    code = "import sys; print('said'); print('complained', file=sys.stderr); sys.exit(7)"
    with supervised_child([sys.executable, "-c", code], os.environ, tmp_path, tmp_path / "log") as child:
        assert child.wait() == 7
    assert {*(tmp_path / "log").read_text().split()} == {"said", "complained"}


WORKER = """
import os, sys, time
from pipeline.processes import exit_with_parent
exit_with_parent(int(sys.argv[1]))
with open(sys.argv[2] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[2] + ".part", sys.argv[2])
time.sleep(60)
"""
EMPLOYER = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]])
"""


def test_a_worker_ends_when_the_process_that_started_it_is_killed(tmp_path):
    employer = subprocess.Popen(
        [sys.executable, "-c", EMPLOYER, WORKER, str(tmp_path / "pid")],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    try:
        [worker] = written(tmp_path / "pid")
        time.sleep(1)
        assert alive(worker)
    finally:
        employer.kill()
        employer.wait()
    assert until(lambda: not alive(worker))


def test_waiting_ends_when_it_is_ready_when_the_child_ended_and_when_the_time_is_over(tmp_path):
    def sleeper(seconds):
        command = [sys.executable, "-c", f"import time; time.sleep({seconds})"]
        return supervised_child(command, os.environ, tmp_path, tmp_path / "log")

    with sleeper(60) as child:
        assert wait_until(lambda: True, child, 60)
        assert not wait_until(lambda: False, child, 0.2)
    with sleeper(0) as child:
        assert not wait_until(lambda: False, child, 60)


def test_a_free_port_is_one_that_can_be_listened_on():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.mark.skipif(sys.platform != "linux", reason="priority belongs to a whole process here")
def test_what_is_done_gently_has_low_priority_with_all_it_starts_and_nothing_else_has(monkeypatch):
    monkeypatch.setattr("pipeline.processes.NICENESS", 19)
    ask = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert run_niced(os.getpriority, os.PRIO_PROCESS, 0) == 19
    assert run_niced(subprocess.check_output, ask) == b"19\n"
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_what_is_raised_in_what_is_done_gently_is_raised():
    with pytest.raises(ValueError, match="invalid literal"):
        run_niced(int, "x")


@pytest.mark.skipif(sys.platform != "linux", reason="idle time is Linux's")
def test_what_is_done_in_idle_time_runs_at_that_policy_and_returns_what_it_returns():
    assert run_idle(lambda: os.sched_getscheduler(0), 30) == os.SCHED_IDLE


def test_what_is_done_in_idle_time_raises_what_it_raises():
    with pytest.raises(ZeroDivisionError):
        run_idle(lambda: 1 / 0, 30)


def test_who_waits_for_idle_time_does_not_wait_for_ever():
    with pytest.raises(TimeoutError):
        run_idle(lambda: time.sleep(60), 0.1)
