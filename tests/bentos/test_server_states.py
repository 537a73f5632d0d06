"""The states of a server: the table, the diagram of it in docs, and a supervisor that is led along every edge."""

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import CHECKOUT

from bentos.ledger.releases import DesiredState, Release
from bentos.package import Bento
from bentos.serving import supervisor
from bentos.serving.processes import WorkerProcess
from bentos.serving.server_states import TRANSITIONS, LifecycleEvent, ServerState, next_state
from bentos.serving.supervisor import Loaded, Options, Supervisor
from pipeline.errors import PackageError, ServerError

EDGES = {(before.value, event.value, after.value) for (before, event), after in TRANSITIONS.items()}


def test_the_diagram_in_docs_shows_the_edges_of_the_table_and_no_others():
    page = (CHECKOUT / "docs/internals/server-states.md").read_text()
    diagram = page.partition("```mermaid")[2].partition("```")[0]
    shown = re.findall(r"^ *(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert {(before, event.strip(), after) for before, after, event in shown} == EDGES
    assert "[*] --> starting\n" in diagram


@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("event", LifecycleEvent)
def test_an_event_leads_to_the_state_in_the_table_or_cannot_happen(state, event):
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ServerError, match=rf"a server that is {state} cannot have the event '{event.value}'"):
            next_state(state, event)


@dataclass
class Process:
    """A process that ends when it is told to."""

    pid: int = 0
    returncode: int | None = None

    def poll(self):
        return self.returncode

    def terminate(self):
        self.returncode = 0


class Line:
    """A line to nobody."""

    def close(self):
        pass


class FakeWorker(WorkerProcess):
    """A worker without a process: what it says is put into `says`, what it is told is in `told`."""

    def __init__(self, release):
        super().__init__(Process(), Line(), release, ())
        self.says, self.told = [], []

    def messages(self):
        said, self.says = self.says, []
        return iter(said)

    def send(self, do, **what):
        self.told.append({"do": do, **what})

    def kill(self):
        if self.process.returncode is None:
            self.process.returncode = -9

    def stop(self, _seconds):
        self.kill()

    def drained(self):
        return {"do": "drain"} in self.told


@dataclass
class FakeLedger:
    """A ledger that asks for what the test sets, and keeps what it is told."""

    wishes: DesiredState | None = None
    heartbeats: list = field(default_factory=list)
    served: list = field(default_factory=list)
    promoted: list = field(default_factory=list)
    stopped: list = field(default_factory=list)

    def desired_state(self):
        return self.wishes

    def heartbeat(self, release, state, reason):
        self.heartbeats.append((release, state, reason))

    def add_server_event(self, release, kind, _reason):
        self.served.append((release, kind))

    def promote(self, release, _why, refused):
        self.promoted.append((release, refused))

    def stop_canary(self, release, _why):
        self.stopped.append(release)

    def read_later(self, work):
        pass

    def deregister(self, release):
        pass


CANARY = {"share": 0.1, "minutes": 1e-9, "min_requests": 10**9, "max_error_increase": 0.1}


def a_release(number, canary=None):
    none = {"verdict": {}, "evaluation": {}, "trial": {}, "cause": "person", "reason": "", "created": ""}
    return Release("points", number, f"points:{number}", {"bento": "b", "artifact": "a"}, canary=canary, **none)


class Life:
    """A supervisor of fake workers: releases 1, 2, 3, of which those in `damaged` cannot be loaded."""

    def __init__(self, folder, monkeypatch):
        self.edges, self.damaged, self.alarms = set(), set(), []
        monkeypatch.setattr(supervisor, "next_state", self._next_state)
        monkeypatch.setattr(supervisor, "load_bento", self._load)
        monkeypatch.setattr(supervisor, "_prediction_edges", lambda _bento: [])
        monkeypatch.setattr(supervisor.processes, "start", lambda _bento, release, *_: FakeWorker(release))
        self.ledger = FakeLedger()
        options = Options("127.0.0.1", 3000)
        self.supervisor = Supervisor(
            self.ledger, folder, folder, options, socket.socket(), lambda *alarm: self.alarms.append(alarm)
        )
        self.supervisor.start(Loaded(a_release(1), self._load("points:1")))

    def _next_state(self, state, event):
        after = next_state(state, event)
        self.edges.add((state.value, event.value, after.value))
        return after

    def _load(self, tag, *_, **__):
        if tag in self.damaged:
            raise PackageError(f"there is no Bento {tag}")
        return Bento(tag, Path(), "b")

    @property
    def state(self):
        """What was reported, which must be what it is."""
        if self.supervisor.serving is not None:
            assert self.ledger.heartbeats[-1][1] == self.supervisor.state
        return self.supervisor.state.value

    def desired_state(self, champion, canary=None, shadow=False):
        """Let the ledger ask for releases, and let the supervisor see it."""
        settings = {**CANARY, "shadow": shadow}
        self.ledger.wishes = DesiredState(a_release(champion), a_release(canary, settings) if canary else None)
        return self.tick()

    def ready(self, release):
        """Let the workers of a release say that they are ready."""
        for worker in self.workers(release):
            worker.says.append({"state": "ready"})
        return self.tick()

    def gone(self, *releases):
        """Let the processes of releases, or of all that drain, end."""
        for worker in self.supervisor.workers:
            if worker.release in releases or (not releases and worker.drained()):
                worker.process.returncode = 0
        return self.tick()

    def tick(self):
        self.supervisor.tick()
        return self.state

    def stop(self):
        self.supervisor.stop()
        return self.state

    def workers(self, release):
        return [worker for worker in self.supervisor.workers if worker.release == release]

    def degraded(self):
        """What the workers were told to say at /readyz."""
        return {worker.degraded for worker in self.supervisor.workers if not worker.drained()}


@pytest.fixture
def life(tmp_path, monkeypatch):
    return Life(tmp_path, monkeypatch)


def serving(life):
    assert life.ready(1) == "serving"


def a_release_is_followed(life):
    serving(life)
    assert life.desired_state(2) == "changing"
    assert life.ready(2) == "changing"
    assert [worker.drained() for worker in life.workers(1)] == [True]
    assert life.gone() == "serving"
    assert life.ledger.served == [(1, "serving"), (2, "serving"), (2, "alone")]


def a_third_release_comes_while_the_first_drains(life):
    serving(life)
    life.desired_state(2)
    life.ready(2)
    assert life.desired_state(3) == "changing"
    assert life.ready(3) == "changing"
    assert life.gone() == "serving"
    assert life.supervisor.serving.number == 3


def a_damaged_release_is_refused_until_nobody_wants_it(life):
    serving(life)
    life.damaged = {"points:2"}
    assert life.desired_state(2) == "degraded"
    assert life.ledger.heartbeats[-1] == (1, "degraded", "release 2 cannot be served: there is no Bento points:2")
    assert life.degraded() == {"release 2 cannot be served: there is no Bento points:2"}
    life.damaged = set()
    assert life.desired_state(2) == "degraded", "what was refused is not tried again"
    assert life.desired_state(1) == "serving"
    assert life.degraded() == {None}


def a_release_whose_worker_dies_is_refused(life):
    serving(life)
    life.desired_state(2)
    assert life.gone(2) == "degraded"
    assert life.desired_state(3) == "changing"
    assert life.degraded() == {None}


def a_worker_that_replaces_a_dead_one_says_that_the_server_is_degraded(life):
    serving(life)
    life.damaged = {"points:2"}
    life.desired_state(2)
    (first,) = life.workers(1)
    assert life.gone(1) == "degraded"
    (second,) = life.workers(1)
    assert second is not first
    assert life.degraded() == {"release 2 cannot be served: there is no Bento points:2"}


def a_canary_is_promoted(life, shadow=False):
    serving(life)
    assert life.desired_state(1, 2, shadow) == ("shadow" if shadow else "canary")
    life.ready(2)
    (champion,) = life.workers(1)
    assert champion.told[-1]["do"] == ("shadow" if shadow else "share")
    life.tick()
    (release, _) = life.ledger.promoted[0]
    assert release == 2
    assert life.desired_state(2) == "changing"
    assert champion.told[-1] == {"do": "share", "path": None, "share": 0.0}
    life.ready(2)
    assert life.gone() == "serving"


def a_shadow_is_promoted(life):
    a_canary_is_promoted(life, shadow=True)


def a_canary_whose_worker_dies_is_stopped(life, shadow=False):
    serving(life)
    life.desired_state(1, 2, shadow)
    life.ready(2)
    assert life.gone(2) == "degraded"
    assert life.ledger.stopped == [2]
    assert life.ledger.heartbeats[-1][2].startswith("the canary, release 2, is stopped: its worker ended with code 0")
    assert life.desired_state(1, 2, shadow) == "degraded", "an answer of the ledger that was on its way"
    assert life.desired_state(1) == "serving"


def a_shadow_whose_worker_dies_is_stopped(life):
    a_canary_whose_worker_dies_is_stopped(life, shadow=True)


def ended_while_starting(life):
    assert life.stop() == "draining"


def ended_while_serving(life):
    serving(life)
    assert life.stop() == "draining"


def ended_while_changing(life):
    serving(life)
    life.desired_state(2)
    assert life.stop() == "draining"


def ended_during_a_canary(life):
    serving(life)
    life.desired_state(1, 2)
    assert life.stop() == "draining"


def ended_during_a_shadow(life):
    serving(life)
    life.desired_state(1, 2, shadow=True)
    assert life.stop() == "draining"


def ended_while_degraded(life):
    serving(life)
    life.damaged = {"points:2"}
    life.desired_state(2)
    assert life.stop() == "draining"


LIVES = [
    a_release_is_followed,
    a_third_release_comes_while_the_first_drains,
    a_damaged_release_is_refused_until_nobody_wants_it,
    a_release_whose_worker_dies_is_refused,
    a_worker_that_replaces_a_dead_one_says_that_the_server_is_degraded,
    a_canary_is_promoted,
    a_shadow_is_promoted,
    a_canary_whose_worker_dies_is_stopped,
    a_shadow_whose_worker_dies_is_stopped,
    ended_while_starting,
    ended_while_serving,
    ended_while_changing,
    ended_during_a_canary,
    ended_during_a_shadow,
    ended_while_degraded,
]


@pytest.mark.parametrize("story", LIVES, ids=lambda story: story.__name__)
def test_a_supervisor_reports_the_state_that_it_is_in(story, life):
    story(life)


def test_these_lives_walk_every_edge_of_the_table(tmp_path, monkeypatch):
    walked = set()
    for number, story in enumerate(LIVES):
        (tmp_path / str(number)).mkdir()
        life = Life(tmp_path / str(number), monkeypatch)
        story(life)
        walked |= life.edges
    assert walked == EDGES


def test_a_first_release_that_cannot_be_started_ends_the_server(life):
    with pytest.raises(ServerError, match="release 1 of points cannot be served: its worker ended with code 0"):
        life.gone(1)


def test_a_canary_waits_until_the_champion_alone_answers(life):
    serving(life)
    life.desired_state(2)
    life.ready(2)
    assert life.desired_state(2, 3) == "changing"
    assert life.workers(3) == []
    assert life.gone() == "serving"
    assert life.tick() == "canary"


def test_a_promotion_that_was_refused_is_tried_again_later(life, monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock.now)
    serving(life)
    life.desired_state(1, 2)
    life.ready(2)
    clock.now += 1.0
    life.tick()
    (_, refused) = life.ledger.promoted[0]
    refused()
    clock.now += 1.0
    for worker in life.supervisor.workers:
        worker.last_heard = clock.now
    life.tick()
    assert len(life.ledger.promoted) == 1
    clock.now += supervisor.PROMOTION_BACKOFF
    for worker in life.supervisor.workers:
        worker.last_heard = clock.now
    life.tick()
    assert len(life.ledger.promoted) == 2
