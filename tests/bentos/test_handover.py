"""A server follows the ledger: to a release, back, past one that cannot be served; nothing asked meanwhile is lost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import clients
import numpy as np
import pytest
from serving import served, until
from test_serve import ROWS, ledger, project, released  # noqa: F401  fixtures

from bentos.ledger import releases, servers


@pytest.fixture
def server(project, tmp_path):  # noqa: F811
    with served(project, "points", tmp_path / "log") as server:
        yield server


def release_of(server):
    return server.ask(*ROWS).headers["evergreen-release"]


def alone(project, number):  # noqa: F811
    """When the server said last that a release alone answers, in its own event of the ledger."""
    return [
        one for one in servers.server_events(ledger(project), "points") if (one.kind, one.release) == ("alone", number)
    ]


def asking(server, seconds, kept=20, reconnecting=20):
    """Clients in a process of their own."""
    command = [sys.executable, str(Path(clients.__file__))]
    body = json.dumps({"records": ROWS})
    options = [str(server.port), str(seconds), str(kept), str(reconnecting), body]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)


def test_a_server_goes_back_with_the_ledger_and_answers_as_before_to_the_last_bit(project, server):  # noqa: F811
    second = server.ask(*ROWS).json()
    releases.rollback(ledger(project), "points", 1, "person")
    assert until(lambda: release_of(server) == "1", 30)
    first = server.ask(*ROWS).json()
    # It was started in idle time, and must not answer in what is left of it; jemalloc's thread answers nothing.
    assert until(lambda: len(server.workers()) == 1)
    threads = Path(f"/proc/{server.workers()[0]}/task").glob("*")
    who = {path.joinpath("comm").read_text().strip(): os.sched_getscheduler(int(path.name)) for path in threads}
    assert {name for name, policy in who.items() if policy == os.SCHED_IDLE} <= {"jemalloc_bg_thd"}
    releases.rollback(ledger(project), "points", 2, "person")
    assert until(lambda: release_of(server) == "2", 30)
    assert server.ask(*ROWS).json() == second
    releases.rollback(ledger(project), "points", 1, "person")
    assert until(lambda: release_of(server) == "1", 30)
    assert server.ask(*ROWS).json() == first
    assert not np.allclose(first["predictions"], second["predictions"], rtol=1e-6)
    history = server.client.get("/history").json()["releases"]
    assert [(one["release"], one["state"]) for one in history] == [(2, "rolled back"), (1, "champion")]


@pytest.mark.slow
def test_twenty_releases_under_load_lose_no_request_and_none_is_answered_by_an_older_one_after_it_is_said(
    project,  # noqa: F811
    server,
):
    clients = asking(server, 75)
    time.sleep(2)
    said = []
    for step in range(20):
        number = 1 if step % 2 == 0 else 2
        before = len(alone(project, number))
        releases.rollback(ledger(project), "points", number, "person")
        assert until(lambda n=number, b=before: len(alone(project, n)) > b, 30), server.log.read_text()[-3000:]
        said.append((time.time(), str(number)))
        if clients.poll() is not None:
            break
    report = json.loads(clients.communicate(timeout=120)[0])
    assert len(said) == 20
    assert {status for _, _, status, _ in report} == {"200"}, [one for one in report if one[2] != "200"][:5]
    assert len(report) > 2000
    ends = [moment for moment, _ in said[1:]] + [float("inf")]
    for (moment, number), end in zip(said, ends, strict=True):
        # Until the next release is wished, which is after this one was said.
        late = [one for one in report if one[0] > moment and one[1] < end - 5 and one[3] != number]
        assert not late
    slowest = max(answered - begun for begun, answered, _, _ in report)
    print(f"{len(report)} requests, 0 failed, slowest {slowest * 1000:.0f} ms, in 20 releases")


@pytest.mark.slow
def test_a_release_is_served_on_a_machine_that_never_idles(project, server):  # noqa: F811
    (before,) = server.workers()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        releases.rollback(ledger(project), "points", 1, "person")
        assert until(lambda: release_of(server) == "1", 60), server.log.read_text()[-3000:]
        assert until(lambda: before not in server.workers(), 30)
        assert len(server.workers()) == 1
    finally:
        for one in busy:
            one.kill()
            one.wait()


def test_a_release_that_cannot_be_served_leaves_the_old_one_and_says_so_until_it_is_no_longer_wished(
    project,  # noqa: F811
    server,
):
    tag = releases.history(ledger(project), "points")[0][0].bento
    (model,) = project.home.glob(f"bentoml/bentos/{tag.replace(':', '/')}/src/artifact/model.joblib")
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + b"?")
    releases.rollback(ledger(project), "points", 1, "person")

    assert until(lambda: "degraded" in server.client.get("/readyz").text, 30)
    assert server.client.get("/readyz").status_code == 200
    assert "is not what was released" in server.client.get("/readyz").json()["reason"]
    assert release_of(server) == "2"
    refusals = [one for one in servers.server_events(ledger(project), "points") if one.kind == "refused"]
    assert [one.release for one in refusals] == [1]
    (said,) = servers.live_servers(ledger(project), "points")
    assert (said.release, said.state) == (2, "degraded")

    model.write_bytes(whole)
    releases.rollback(ledger(project), "points", 2, "person")
    assert until(lambda: "degraded" not in server.client.get("/readyz").text, 30)
    releases.rollback(ledger(project), "points", 1, "person")
    assert until(lambda: release_of(server) == "1", 30)


def test_a_release_whose_worker_dies_before_it_is_ready_is_refused(project, server):  # noqa: F811
    first, second = releases.history(ledger(project), "points")[0]
    model = project.home / f"bentoml/bentos/{first.bento.replace(':', '/')}/src/bentos/service.py"
    model.write_text("raise SystemExit(7)\n" + model.read_text())
    wrong = releases.Release(
        **{**vars(first), "replaced": 2, "digests": {**first.digests, "bento": digest_of(model.parents[1])}}
    )
    releases.add_release(ledger(project), wrong)

    assert until(lambda: "degraded" in server.client.get("/readyz").text, 30)
    assert "ended with code" in server.client.get("/readyz").json()["reason"]
    assert release_of(server) == str(second.number)


def digest_of(folder):
    from pipeline import digest

    return digest.of_folder(folder)


STOPPED = """
import os, signal, sys
from bentos.ledger.database import open_ledger
from bentos.ledger.releases import retire
import bentos.ledger.releases
bentos.ledger.releases._add_event = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
retire(open_ledger(sys.argv[1]), "points", "person")
"""


def test_a_process_stopped_while_it_writes_holds_up_neither_servers_nor_what_only_reads(project, tmp_path):  # noqa: F811
    writer = project.start(f"sqlite:///{project.home}/ledger.sqlite", code=STOPPED, cold=True)
    try:
        os.waitpid(writer.pid, os.WUNTRACED)
        with served(project, "points", tmp_path / "log") as server:
            assert release_of(server) == "2"
            assert project.json("status", "points")[1]["models"][0]["release"]["number"] == 2
            assert len(project.json("history", "points")[1]["releases"]) == 2
            assert servers.server_events(ledger(project), "points") == []
            writer.kill()
            assert until(lambda: servers.live_servers(ledger(project), "points"), 10)
            assert [one.kind for one in servers.server_events(ledger(project), "points")] == ["serving"]
    finally:
        writer.kill()
        writer.communicate()


def test_a_dead_worker_is_back_within_seconds(server):
    (first,) = server.workers()
    subprocess.run(["kill", "-9", str(first)], check=True)
    assert until(lambda: server.workers() not in ([first], []), 10)

    def answers():
        try:
            return release_of(server) == "2"
        except Exception:
            return False

    assert until(answers, 10)
