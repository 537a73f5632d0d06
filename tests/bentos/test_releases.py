import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest
import sqlalchemy as sa
from project import CHECKOUT

from bentos.ledger.database import METADATA, VERSION, open_ledger
from bentos.ledger.releases import (
    AWAITING,
    CANARY,
    Release,
    add_release,
    blocked_by,
    champion,
    desired_state,
    history,
    hold,
    mark_archived,
    models,
    next_champion,
    promote,
    retire,
    rollback,
    states,
    still_valid,
    stop_canary,
    unhold,
)
from bentos.ledger.runs import VERDICTS, Observation, Run, add_observation, add_run, last_run, newest_runs, observations
from bentos.ledger.servers import (
    ServerStatus,
    add_server_event,
    deregister,
    heartbeat,
    live_servers,
    register,
    server_events,
    serving_intervals,
)
from pipeline.errors import FormatError, LedgerError, ReleaseError

POSTGRES = os.environ.get("EVERGREEN_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")


@pytest.fixture(scope="session")
def postgres():
    """The URL of a database of this session's own; it is dropped afterwards."""
    server = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 2})
    name = f"evergreen_{uuid.uuid4().hex}"
    try:
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    except sa.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL answers at {POSTGRES}: {str(error.orig).splitlines()[0]}")
    yield sa.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty ledger, in both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite"
    url = request.getfixturevalue("postgres")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        names = ", ".join(["alembic_version", *METADATA.tables])
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {names}"))
    engine.dispose()
    return url


@pytest.fixture
def ledger(url):
    engine = open_ledger(url)
    yield engine
    engine.dispose()


def a_release(model="houses", replaced=None, **changes):
    fields = {
        "number": 0,
        "bento": f"{model}:abc",
        "digests": {"snapshot": "s", "spec": "p", "code": "c"},
        "verdict": {"passed": True, "reasons": ["rmse 8 is at most the threshold 10"]},
        "evaluation": {"rows": 100, "challenger": {"rmse": 8.0, "r2": None}},
        "trial": {"p50_ms": 1.5},
        "cause": "schedule",
        "reason": "new data",
        "created": "2024-01-01T00:00:00+00:00",
    }
    return Release(model=model, replaced=replaced, **fields | changes)


def released(ledger, times, model="houses"):
    """Release that often, each judged against the one before."""
    for number in range(times):
        add_release(ledger, a_release(model, replaced=number or None))


def test_before_the_first_release_there_is_no_champion(ledger):
    assert champion(ledger, "houses") is None
    assert history(ledger, "houses") == ([], [])
    assert models(ledger) == []
    assert last_run(ledger, "houses") is None


def test_a_release_is_champion_and_comes_back_as_it_was_added(ledger):
    added = add_release(ledger, a_release())
    assert added == a_release(number=1)
    assert champion(ledger, "houses") == added


def test_numbers_count_up_for_each_model_alone(ledger):
    released(ledger, 3)
    released(ledger, 2, "flats")
    assert [one.number for one in history(ledger, "houses")[0]] == [1, 2, 3]
    assert [one.number for one in history(ledger, "flats")[0]] == [1, 2]
    assert champion(ledger, "houses").number == 3
    assert models(ledger) == ["flats", "houses"]


def test_a_release_judged_against_a_champion_that_is_no_longer_is_refused_saying_who_came_first(ledger):
    released(ledger, 2)
    with pytest.raises(
        ReleaseError,
        match=r"houses:abc was evaluated against release 1 of houses, but the champion is now release 2 .*Run again",
    ):
        add_release(ledger, a_release(replaced=1))
    with pytest.raises(
        ReleaseError, match="evaluated against no champion of houses, but the champion is now release 2"
    ):
        add_release(ledger, a_release())
    assert champion(ledger, "houses").number == 2
    assert len(history(ledger, "houses")[0]) == 2


def test_of_many_that_release_at_once_exactly_one_becomes_champion(url):
    ledgers = [open_ledger(url) for _ in range(4)]
    together = threading.Barrier(4)

    def release(number):
        together.wait()
        try:
            return add_release(ledgers[number], a_release(bento=f"houses:{number}"))
        except ReleaseError as refused:
            return str(refused)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(release, range(4)))
    [first] = [one for one in results if isinstance(one, Release)]
    assert champion(ledgers[0], "houses") == first
    refusals = [one for one in results if isinstance(one, str)]
    assert len(refusals) == 3
    assert all("but the champion is now release 1 (another run finished first)" in one for one in refusals)
    assert [len(part) for part in history(ledgers[0], "houses")] == [1, 1]
    for ledger in ledgers:
        ledger.dispose()


RELEASE = """
import sys
from bentos.ledger.database import open_ledger
from bentos.ledger.releases import Release, add_release
from pipeline.errors import ReleaseError
ledger = open_ledger(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
try:
    print(add_release(ledger, Release("houses", 0, sys.argv[2], {}, {}, {}, {}, "schedule", "", "")).bento)
except ReleaseError as refused:
    print(refused)
"""


def test_of_two_processes_that_release_at_once_exactly_one_becomes_champion(url):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RELEASE, url, f"houses:{name}"],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    assert [process.stdout.readline() for process in started] == ["open\n"] * 2
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    first, second = sorted((process.communicate()[0].strip() for process in started), key=len)
    assert first in ("houses:one", "houses:other")
    assert "was evaluated against no champion of houses, but the champion is now release 1" in second
    ledger = open_ledger(url)
    assert champion(ledger, "houses").bento == first
    ledger.dispose()


def test_many_that_open_a_new_ledger_at_once_all_can(url):
    with ThreadPoolExecutor(8) as threads:
        ledgers = list(threads.map(lambda _: open_ledger(url), range(8)))
    assert [models(ledger) for ledger in ledgers] == [[]] * 8
    for ledger in ledgers:
        ledger.dispose()


def test_a_rollback_makes_what_the_champion_replaced_champion_again_and_builds_nothing(ledger):
    released(ledger, 3)
    assert rollback(ledger, "houses", None, "by hand").number == 2
    assert champion(ledger, "houses").number == 2
    assert rollback(ledger, "houses", None, "by hand").number == 1
    assert rollback(ledger, "houses", 3, "by hand").number == 3
    releases, events = history(ledger, "houses")
    assert [one.number for one in releases] == [1, 2, 3]
    assert [(one.sequence, one.release, one.kind) for one in events] == [
        (1, 1, "released"),
        (2, 2, "released"),
        (3, 3, "released"),
        (4, 2, "rolled back to"),
        (5, 1, "rolled back to"),
        (6, 3, "rolled back to"),
    ]
    assert (events[3].cause, events[3].reason) == ("by hand", "instead of release 3")


def test_a_release_after_a_rollback_replaces_what_is_champion_then(ledger):
    released(ledger, 2)
    rollback(ledger, "houses", None, "by hand")
    with pytest.raises(ReleaseError, match="evaluated against release 2 of houses, but the champion is now release 1"):
        add_release(ledger, a_release(replaced=2))
    assert add_release(ledger, a_release(replaced=1)).number == 3
    assert rollback(ledger, "houses", None, "by hand").number == 1


@pytest.mark.parametrize(
    ("releases", "to", "sentence"),
    [
        (0, None, "houses has no release to roll back; `evergreen run houses` makes one"),
        (0, 1, "houses has no release to roll back"),
        (1, None, "release 1 of houses did not replace another release, so a rollback has no target"),
        (2, 2, "release 2 of houses is the champion already"),
        (2, 7, "houses has no release 7; there are: 1, 2"),
    ],
)
def test_a_rollback_to_nothing_is_refused(releases, to, sentence, ledger):
    released(ledger, releases)
    with pytest.raises(ReleaseError, match=sentence):
        rollback(ledger, "houses", to, "by hand")
    assert len(history(ledger, "houses")[1]) == releases


def test_rollbacks_at_once_never_break_the_ledger(url):
    ledgers = [open_ledger(url) for _ in range(4)]
    released(ledgers[0], 2)
    together = threading.Barrier(4)

    def roll(ledger):
        together.wait()
        try:
            return rollback(ledger, "houses", 1, "by hand").number
        except ReleaseError:
            return None

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(roll, ledgers), key=bool) == [None, None, None, 1]
    assert champion(ledgers[0], "houses").number == 1
    for ledger in ledgers:
        ledger.dispose()


def a_run(outcome="released", **changes):
    fields = {
        "model": "houses",
        "cause": "schedule",
        "reasons": ["new data"],
        "digests": {"snapshot": "s"},
        "release": 1,
    }
    return Run(outcome=outcome, started="2024-01-01T00:00:00+00:00", seconds={"train": 1.5}, **fields | changes)


def test_the_last_run_is_the_newest_or_the_newest_that_ended_so(ledger):
    runs = [a_run("released"), a_run("kept"), a_run("data-rejected", release=None), a_run("unchanged")]
    for run in runs:
        add_run(ledger, run)
    add_run(ledger, a_run(model="flats"))
    assert last_run(ledger, "houses") == runs[3]
    assert last_run(ledger, "houses", VERDICTS) == runs[1]
    assert last_run(ledger, "houses", ("data-rejected",)) == runs[2]
    assert last_run(ledger, "houses", ("trial-failed",)) is None
    assert models(ledger) == ["flats", "houses"]


def test_a_release_and_the_run_that_made_it_are_recorded_together_or_not_at_all(ledger):
    add_release(ledger, a_release(), a_run("released", release=None))
    assert last_run(ledger, "houses") == a_run("released", release=1)
    with pytest.raises(ReleaseError):
        add_release(ledger, a_release(), a_run("released", release=None, cause="by hand"))
    assert last_run(ledger, "houses").cause == "schedule"


def test_a_ledger_keeps_what_it_holds_when_it_is_opened_again(url):
    first = open_ledger(url)
    released(first, 2)
    first.dispose()
    second = open_ledger(url)
    assert champion(second, "houses").number == 2
    second.dispose()


DIE = """
import os, signal, sys
import bentos.ledger.releases as releases
from bentos.ledger.database import open_ledger
add_event = releases._add_event
def die(*arguments):
    add_event(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
releases._add_event = die
ledger = open_ledger(sys.argv[1])
releases.add_release(ledger, releases.Release("houses", 0, "houses:x", {}, {}, {}, {}, "schedule", "", "", replaced=1))
"""


def test_a_kill_within_the_transaction_leaves_the_champion_as_it_was(url):
    ledger = open_ledger(url)
    released(ledger, 1)
    before = history(ledger, "houses")
    done = subprocess.run(
        [sys.executable, "-c", DIE, url],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert history(ledger, "houses") == before
    assert add_release(ledger, replace(a_release(), replaced=1)).number == 2
    ledger.dispose()


@pytest.fixture
def stopped_writer(url):
    """A process that was stopped (SIGSTOP) in a transaction that writes, after the first release."""
    ledger = open_ledger(url)
    released(ledger, 1)
    ledger.dispose()
    process = subprocess.Popen(
        [sys.executable, "-c", DIE.replace("SIGKILL", "SIGSTOP"), url], env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
    )
    os.waitpid(process.pid, os.WUNTRACED)
    yield process
    process.kill()
    process.wait()


def test_a_process_stopped_while_it_writes_holds_up_no_reader_and_writers_are_told_who_it_is(
    url, stopped_writer, monkeypatch
):
    monkeypatch.setattr("bentos.ledger.database.LOCK_TIMEOUT", 0.5)
    ledger = open_ledger(url)
    assert champion(ledger, "houses").number == desired_state(ledger, "houses").champion.number == 1
    assert [len(part) for part in history(ledger, "houses")] == [1, 1]
    assert (models(ledger), live_servers(ledger, "houses")) == (["houses"], [])
    with pytest.raises(LedgerError, match=rf"{stopped_writer.pid}\b.*has been writing to the ledger for more than"):
        add_release(ledger, a_release(replaced=1))
    stopped_writer.kill()
    stopped_writer.wait()
    assert add_release(ledger, a_release(replaced=1)).number == 2
    ledger.dispose()


def test_who_cannot_be_found_out_is_looked_for_by_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("bentos.ledger.database.LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr("bentos.ledger.database._SQLITE_WRITER", -1)
    ledger, other = (open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite") for _ in range(2))
    with other.begin(), pytest.raises(LedgerError, match=f"another process .*`lsof {tmp_path}/ledger.sqlite` lists"):
        heartbeat(ledger, "houses", ServerStatus("x:1", 1, "serving", "", 0))
    ledger.dispose()
    other.dispose()


def test_after_withdrawing_there_is_no_champion_and_the_next_is_judged_as_a_first(ledger):
    add_release(ledger, a_release())
    assert retire(ledger, "houses", cause="person").number == 1

    assert champion(ledger, "houses") is None
    with pytest.raises(ReleaseError, match="no champion to retire"):
        retire(ledger, "houses", cause="person")
    assert add_release(ledger, a_release()).number == 2


def test_a_rollback_brings_back_what_was_retired(ledger):
    add_release(ledger, a_release())
    retire(ledger, "houses", cause="person")

    assert rollback(ledger, "houses", to=None, cause="person").number == 1
    assert champion(ledger, "houses").number == 1


def states_of(ledger, model="houses"):
    return states(history(ledger, model)[1])


def test_a_canary_is_no_champion_until_it_is_promoted(ledger):
    released(ledger, 1)
    made = add_release(ledger, a_release(replaced=1, canary={"share": 0.1}), kind=CANARY)
    wish = desired_state(ledger, "houses")
    assert (wish.champion.number, wish.canary.number, wish.canary.canary) == (1, 2, {"share": 0.1})
    assert states_of(ledger) == {1: "champion", 2: "canary"}
    promote(ledger, "houses", made.number, "canary", "quiet for 30 minutes")
    wish = desired_state(ledger, "houses")
    assert (wish.champion.number, wish.canary) == (2, None)
    assert states_of(ledger) == {1: "replaced", 2: "champion"}


def test_a_canary_that_is_stopped_leaves_the_champion_and_is_barred(ledger):
    released(ledger, 1)
    bad = {"snapshot": "bad", "spec": "p", "code": "c"}
    add_release(ledger, a_release(replaced=1, digests=bad), kind=CANARY)
    stop_canary(ledger, "houses", 2, "canary", "3% of its answers were errors")
    wish = desired_state(ledger, "houses")
    assert (wish.champion.number, wish.canary) == (1, None)
    assert states_of(ledger) == {1: "champion", 2: "canary stopped"}
    assert blocked_by(ledger, "houses", bad).reason == "3% of its answers were errors"
    with pytest.raises(ReleaseError, match="release 2 of houses is canary stopped, not a canary"):
        stop_canary(ledger, "houses", 2, "person", "")
    with pytest.raises(ReleaseError, match="cannot be promoted"):
        promote(ledger, "houses", 2, "person", "")


def test_a_release_that_awaits_approval_is_promoted_by_a_person_with_a_reason(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=AWAITING)
    assert champion(ledger, "houses").number == 1
    promote(ledger, "houses", 2, "person", "looked at the report")
    event = history(ledger, "houses")[1][-1]
    assert (event.kind, event.release, event.cause, event.reason) == ("promoted", 2, "person", "looked at the report")
    assert champion(ledger, "houses").number == 2


def test_what_was_judged_against_another_champion_is_not_promoted(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=AWAITING)
    add_release(ledger, a_release(replaced=1))
    assert states_of(ledger) == {1: "replaced", 2: "replaced", 3: "champion"}
    with pytest.raises(ReleaseError, match="release 2 of houses is replaced"):
        promote(ledger, "houses", 2, "person", "")


def test_a_new_release_ends_a_canary(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=CANARY)
    add_release(ledger, a_release(replaced=1), kind=CANARY)
    assert desired_state(ledger, "houses").canary.number == 3
    assert states_of(ledger) == {1: "champion", 2: "replaced", 3: "canary"}
    add_release(ledger, a_release(replaced=1))
    assert desired_state(ledger, "houses").canary is None


def test_what_awaits_approval_begins_as_a_canary_where_its_spec_wishes_that_and_a_server_is_up(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1, canary={"share": 0.1}), kind=AWAITING)
    heartbeat(ledger, "houses", ServerStatus("a:3000", 1, "serving", "", int(time.time())))
    promote(ledger, "houses", 2, "person", "looked at the report")
    wish = desired_state(ledger, "houses")
    assert (wish.champion.number, wish.canary.number) == (1, 2)
    assert wish.since == history(ledger, "houses")[1][-1].at
    # Once more, and it answers everything.
    promote(ledger, "houses", 2, "person", "sure")
    assert (champion(ledger, "houses").number, desired_state(ledger, "houses").canary) == (2, None)


def test_without_a_server_what_awaits_approval_is_champion_at_once(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1, canary={"share": 0.1}), kind=AWAITING)
    promote(ledger, "houses", 2, "person", "looked at the report")
    assert champion(ledger, "houses").number == 2


def came_to(release, outcome="released"):
    return Run("houses", outcome, "person", [], {"snapshot": "s"}, release, "2026-01-01T00:00:00+00:00")


def test_what_a_run_came_to_stands_while_its_release_is_in_use_or_was_replaced_by_a_better_one(ledger):
    add_release(ledger, a_release(), kind=AWAITING)
    assert still_valid(ledger, "houses", came_to(1, "awaiting-approval"))
    promote(ledger, "houses", 1, "person", "")
    assert still_valid(ledger, "houses", came_to(1, "awaiting-approval"))
    add_release(ledger, a_release(replaced=1), kind=CANARY)
    assert still_valid(ledger, "houses", came_to(2, "canary"))
    assert still_valid(ledger, "houses", came_to(None, "kept"))
    promote(ledger, "houses", 2, "canary", "")
    assert still_valid(ledger, "houses", came_to(1))
    retire(ledger, "houses", "person")
    assert not any(still_valid(ledger, "houses", run) for run in (came_to(1), came_to(2), came_to(None, "kept")))
    assert still_valid(ledger, "houses", came_to(None, "model-rejected"))


@pytest.mark.parametrize("kind", [CANARY, AWAITING])
def test_what_a_run_came_to_stands_no_more_when_another_release_took_its_place_before_it_was_champion(ledger, kind):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=kind)
    add_release(ledger, a_release(replaced=1))
    assert not still_valid(ledger, "houses", came_to(2, "canary"))


def test_without_a_champion_what_awaits_approval_is_the_way_out(ledger):
    assert next_champion(ledger, "houses") == "`evergreen run houses` makes one"
    add_release(ledger, a_release(), kind=AWAITING)
    way = "release 1 awaits approval, and `evergreen promote houses 1` makes it champion"
    assert next_champion(ledger, "houses") == way
    for act in (lambda: hold(ledger, "houses", ""), lambda: rollback(ledger, "houses", None, "person")):
        with pytest.raises(ReleaseError, match=way):
            act()


def test_after_a_hold_the_champion_is_the_one_that_a_person_made_meanwhile(ledger):
    released(ledger, 2)
    hold(ledger, "houses", "audit")
    rollback(ledger, "houses", 1, "person")
    assert unhold(ledger, "houses", "").number == 1
    hold(ledger, "houses", "again")
    retire(ledger, "houses", "person")
    assert unhold(ledger, "houses", "") is None


def test_a_hold_refuses_every_release_until_it_ends_and_says_whose_it_is(ledger):
    released(ledger, 1)
    hold(ledger, "houses", "audit until Friday")
    assert desired_state(ledger, "houses").held.reason == "audit until Friday"
    for kind in ("released", CANARY):
        with pytest.raises(ReleaseError, match=r"houses is held at release 1 since .* \(audit until Friday\)"):
            add_release(ledger, a_release(replaced=1), kind=kind)
    with pytest.raises(ReleaseError, match="held"):
        hold(ledger, "houses", "again")
    unhold(ledger, "houses", "audit done")
    assert add_release(ledger, a_release(replaced=1)).number == 2
    with pytest.raises(ReleaseError, match="not held"):
        unhold(ledger, "houses", "")


def test_a_person_may_roll_back_and_promote_what_is_held(ledger):
    released(ledger, 2)
    add_release(ledger, a_release(replaced=2), kind=AWAITING)
    hold(ledger, "houses", "audit")
    promote(ledger, "houses", 3, "person", "the audit wants it")
    assert rollback(ledger, "houses", 1, "person").number == 1
    with pytest.raises(ReleaseError, match="cannot be promoted"):
        promote(ledger, "houses", 3, "canary", "")


def test_what_was_rolled_back_is_barred_by_snapshot_spec_and_code_until_it_is_champion_again(ledger):
    first, second = ({"snapshot": name, "spec": "p", "code": "c"} for name in ("one", "two"))
    add_release(ledger, a_release(digests=first | {"artifact": "a"}))
    add_release(ledger, a_release(digests=second | {"artifact": "b"}, replaced=1))
    assert blocked_by(ledger, "houses", second) is None
    rollback(ledger, "houses", None, "person", "complaints from Ames")
    event = blocked_by(ledger, "houses", second)
    assert (event.release, event.instead, event.reason) == (1, 2, "instead of release 2: complaints from Ames")
    assert blocked_by(ledger, "houses", first) is None
    assert blocked_by(ledger, "houses", second | {"code": "d"}) is None
    rollback(ledger, "houses", 2, "person")
    assert blocked_by(ledger, "houses", second) is None
    assert blocked_by(ledger, "houses", first) is not None


def test_there_is_no_rollback_to_what_was_never_champion(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=CANARY)
    with pytest.raises(ReleaseError, match="was never champion"):
        rollback(ledger, "houses", 2, "person")


def test_a_server_answers_at_its_address_or_under_its_machine_s_name_where_it_listens_everywhere():
    assert ServerStatus("127.0.0.1:3000 on vm", 1, "serving", "", 0).url == "http://127.0.0.1:3000/"
    assert ServerStatus("0.0.0.0:3000 on vm", 1, "serving", "", 0).url == "http://vm:3000/"


def test_servers_say_what_they_serve_and_are_forgotten_when_they_end_or_fall_silent(ledger):
    now = int(time.time())
    heartbeat(ledger, "houses", ServerStatus("a:3000", 1, "serving", "", now))
    heartbeat(ledger, "houses", ServerStatus("b:3000", 1, "serving", "", now - 600))
    heartbeat(ledger, "houses", ServerStatus("d:3000", 1, "serving", "told before the clock was set right", now + 600))
    heartbeat(ledger, "houses", ServerStatus("a:3000", 2, "degraded", "release 3 cannot be served", now))
    heartbeat(ledger, "flats", ServerStatus("c:3000", 1, "serving", "", now))
    assert live_servers(ledger, "houses") == [ServerStatus("a:3000", 2, "degraded", "release 3 cannot be served", now)]
    deregister(ledger, "houses", "a:3000")
    assert live_servers(ledger, "houses") == []
    add_server_event(ledger, "houses", "a:3000", 1, "serving", "")
    add_server_event(ledger, "houses", "a:3000", 2, "refused", "its worker died")
    assert [(one.server, one.release, one.kind) for one in server_events(ledger, "houses")] == [
        ("a:3000", 1, "serving"),
        ("a:3000", 2, "refused"),
    ]


def test_what_was_served_when_is_what_servers_said_and_one_that_was_killed_ends_where_it_was_heard_of_last(ledger):
    now = int(time.time())
    said = [("a", 1, "serving"), ("b", 1, "serving"), ("b", 2, "refused"), ("a", 2, "serving"), ("a", 2, "alone")]
    for server, release, kind in said:
        add_server_event(ledger, "houses", server, release, kind, "")
    heartbeat(ledger, "houses", ServerStatus("a", 2, "serving", "", now))
    heartbeat(ledger, "houses", ServerStatus("b", 1, "serving", "", now - 100))

    def ends():
        return {(one.server, one.release): (one.until is None, one.end) for one in serving_intervals(ledger, "houses")}

    silent = "the server sent no more heartbeats"
    assert ends() == {
        ("a", 1): (False, "release 2 was served"),
        ("a", 2): (True, ""),
        ("b", 1): (False, silent),
    }
    # Another one takes its name, and its row.
    register(ledger, "houses", "b")
    heartbeat(ledger, "houses", ServerStatus("b", None, "serving", "", now))
    assert ends()["b", 1] == (False, silent)
    (until,) = [one.until for one in serving_intervals(ledger, "houses") if one.server == "b"]
    assert datetime.fromisoformat(until).timestamp() == now - 100
    add_server_event(ledger, "houses", "a", 2, "ended", "")
    deregister(ledger, "houses", "a")
    assert ends()["a", 2] == (False, "the server ended")


def test_what_is_archived_is_said_for_ever_and_what_may_be_served_is_not_archived(ledger):
    released(ledger, 3)
    mark_archived(ledger, "houses", [1], "gc", "no longer needed")
    assert states(history(ledger, "houses")[1]) == {1: "archived", 2: "replaced", 3: "champion"}
    assert champion(ledger, "houses").number == 3
    with pytest.raises(ReleaseError, match="release 3 of houses is champion and may be served"):
        mark_archived(ledger, "houses", [3], "gc", "")


def test_why_the_last_canary_was_sent_back_is_said_until_something_is_released(ledger):
    released(ledger, 1)
    add_release(ledger, a_release(replaced=1), kind=CANARY)
    assert desired_state(ledger, "houses").stopped is None
    stop_canary(ledger, "houses", 2, "canary", "errors: 3%")
    assert desired_state(ledger, "houses").stopped.reason == "errors: 3%"
    add_release(ledger, a_release(replaced=1))
    assert desired_state(ledger, "houses").stopped is None


def test_the_newest_looks_at_a_model_and_the_newest_runs_are_told_the_oldest_of_them_first(ledger):
    for number in range(5):
        add_observation(ledger, "houses", Observation(number, "2026-03-01", {"triggers": []}), 3)
        add_observation(ledger, "flats", Observation(number, "2026-03-01", {}), 9)
        add_run(ledger, Run("houses", "kept", "drift", [], {}, None, f"2026-03-0{number + 1}", {}, why="x drifted"))
    assert [look.release for look in observations(ledger, "houses", 9)] == [2, 3, 4]
    assert [look.release for look in observations(ledger, "flats", 2)] == [3, 4]
    assert observations(ledger, "houses", 1)[0].found == {"triggers": []}
    assert [run.started for run in newest_runs(ledger, "houses", 2)] == ["2026-03-04", "2026-03-05"]
    assert newest_runs(ledger, "houses", 1)[0].why == "x drifted"


def test_a_ledger_of_the_first_version_keeps_all_it_holds_and_becomes_one_of_this(url):
    first = sa.create_engine(url)
    with first.begin() as connection:
        for statement in FIRST_VERSION:
            serial = "SERIAL" if first.dialect.name == "postgresql" else "INTEGER"
            connection.execute(sa.text(statement.replace("id INTEGER PRIMARY", f"id {serial} PRIMARY")))
    first.dispose()
    ledger = open_ledger(url)
    assert champion(ledger, "houses").number == 1
    assert add_release(ledger, a_release(replaced=1), kind=CANARY).number == 2
    with ledger.begin() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == VERSION
        found = sa.inspect(connection)
        for name, table in METADATA.tables.items():
            assert [one["name"] for one in found.get_columns(name)] == [one.name for one in table.columns], name
    ledger.dispose()


def test_a_ledger_of_a_later_version_is_refused(url):
    ledger = open_ledger(url)
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.dispose()
    with pytest.raises(FormatError) as refused:
        open_ledger(url)
    assert refused.value.code == "format.too_new"


FIRST_VERSION = (
    """CREATE TABLE releases (id INTEGER PRIMARY KEY, model VARCHAR(64) NOT NULL, number INTEGER NOT NULL,
    bento VARCHAR(200) NOT NULL, digests JSON NOT NULL, verdict JSON NOT NULL, evaluation JSON NOT NULL,
    trial JSON NOT NULL, answers JSON NOT NULL, cause VARCHAR(64) NOT NULL, reason TEXT NOT NULL,
    created VARCHAR(40) NOT NULL, replaced INTEGER, UNIQUE (model, number))""",
    """CREATE TABLE events (id INTEGER PRIMARY KEY, model VARCHAR(64) NOT NULL, sequence INTEGER NOT NULL,
    release INTEGER NOT NULL, kind VARCHAR(32) NOT NULL, cause VARCHAR(64) NOT NULL, reason TEXT NOT NULL,
    at VARCHAR(40) NOT NULL, UNIQUE (model, sequence))""",
    """CREATE TABLE runs (id INTEGER PRIMARY KEY, model VARCHAR(64) NOT NULL, outcome VARCHAR(32) NOT NULL,
    cause VARCHAR(64) NOT NULL, reasons JSON NOT NULL, digests JSON NOT NULL, release INTEGER,
    started VARCHAR(40) NOT NULL, seconds JSON NOT NULL)""",
    """INSERT INTO releases (model, number, bento, digests, verdict, evaluation, trial, answers, cause, reason, created)
    VALUES ('houses', 1, 'houses:abc', '{}', '{}', '{}', '{}', '{}', 'person', '', 'then')""",
    """INSERT INTO events (model, sequence, release, kind, cause, reason, at)
    VALUES ('houses', 1, 1, 'released', 'person', '', 'then')""",
)
