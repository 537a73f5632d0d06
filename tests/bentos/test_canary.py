"""A canary answers a share of the requests; an alarm sends it back, and quiet makes it champion."""

import json
import os
import re
import signal
import time
import uuid
from dataclasses import asdict

import httpx
import pytest
from serving import served, until
from test_handover import alone, asking
from test_serve import ROWS, ledger, project, released, requests_counted  # noqa: F401  fixtures

from bentos import releasing
from bentos.canary import Counters, alarm, compare_predictions, psi, quantile
from bentos.endpoint.metrics import SECONDS
from bentos.ledger import releases, servers
from bentos.ledger.database import open_ledger
from bentos.serving import ledger_client
from bentos.serving.ledger_client import LedgerClient
from pipeline import digest
from pipeline.errors import OvertakenError, PackageError, ReleaseError
from pipeline.spec import Canary

SETTINGS = Canary(min_requests=100)


def side(requests=1000, errors=0, nulls=0.0, unseen=0.0, bucket=1, predictions=None):
    seconds = [0] * (len(SECONDS) + 1)
    seconds[bucket] = requests
    return Counters(
        requests=requests,
        errors=errors,
        rows=requests,
        nulls=int(nulls * requests),
        unseen=int(unseen * requests),
        seconds=tuple(seconds),
        predictions=tuple(sorted((predictions or {"0": requests // 2, "1": requests - requests // 2}).items())),
    )


def test_two_sides_that_answer_alike_raise_no_alarm():
    assert alarm(side(), side(requests=200), SETTINGS, SECONDS) is None


@pytest.mark.parametrize(
    ("canary", "said"),
    [
        (side(errors=30), "errors: 3.0% of its requests ended in an error, 0.0% of the champion's"),
        (side(nulls=0.7), "nulls: 0.7 nulls in a row, 0 for the champion"),
        (side(unseen=0.2), "unseen: 0.2 values in a row that its training never saw, 0 for the champion"),
        (
            side(bucket=5),
            "latency: 95% of its requests take up to 25 ms, the champion's 1 ms; at most 3 times that is allowed",
        ),
        (side(predictions={"0": 100, "1": 900}), "predictions: their distribution differs from the champion's by 0.88"),
    ],
)
def test_each_alarm_says_both_numbers(canary, said):
    assert alarm(side(), canary, SETTINGS, SECONDS).startswith(said)


def test_too_few_answers_are_judged_by_errors_alone():
    assert alarm(side(), side(requests=99, unseen=0.9, bucket=9), SETTINGS, SECONDS) is None
    assert alarm(side(requests=5), side(requests=20, errors=4), SETTINGS, SECONDS).startswith("errors: 20.0%")
    assert alarm(side(requests=5), side(requests=20, errors=3), SETTINGS, SECONDS) is None


def test_chance_alone_moves_few_predictions_of_few_requests():
    ours = {str(bucket): 100 for bucket in range(10)}
    theirs = {str(bucket): count for bucket, count in enumerate([6, 14, 10, 12, 8, 9, 11, 13, 7, 10])}
    assert alarm(side(predictions=ours), side(requests=100, predictions=theirs), SETTINGS, SECONDS) is None


def test_the_population_stability_index_is_that_of_the_formula():
    # With half a row in each: p = 50.5/101 = 0.5, q = 90.5/101 = 0.8960 and 0.1040.
    # (0.8960 - 0.5) ln(0.8960 / 0.5) + (0.1040 - 0.5) ln(0.1040 / 0.5) = 0.3960 * 0.5834 + 0.3960 * 1.5706
    shift, noise = psi([("a", 50), ("b", 50)], [("a", 90), ("b", 10)])
    assert shift == pytest.approx(0.8531, abs=1e-4)
    assert noise == pytest.approx(2 * 1 * (1 / 100 + 1 / 100))


def test_a_quantile_is_the_upper_edge_of_its_bucket():
    assert quantile([90, 10, 0], [1.0, 2.0], 0.9) == 1.0
    assert quantile([90, 10, 0], [1.0, 2.0], 0.91) == 2.0
    assert quantile([0, 0, 5], [1.0, 2.0], 0.5) == 4.0


def test_tallies_add_and_subtract():
    one = Counters.of({"requests": 3, "seconds": [1, 2], "predictions": {"a": 1}, "other": 5})
    two = Counters.of({"requests": 1, "seconds": [0, 1, 1], "predictions": {"b": 2}})
    assert (one + two).seconds == (1, 3, 1)
    assert dict((one + two).predictions) == {"a": 1, "b": 2}
    assert (one + two - two).requests == 3


def test_differences_are_counted_and_measured_and_labels_only_counted():
    found = compare_predictions([1.0, 2.0, 0.0], [1.0, 2.5, 0.0]) + compare_predictions(["3.0"], ["3.0000000001"])
    assert (found.rows, found.others, found.furthest) == (4, 1, 0.5)
    assert str(found) == "of 4 predictions 1 differ from the champion's (25.0%), by 0.125 on average and 0.5 at most"
    assert (
        str(compare_predictions(["yes", "no"], ["yes", "yes"]))
        == "of 2 predictions 1 differ from the champion's (50.0%)"
    )
    assert str(compare_predictions([], [])) == "no prediction was compared"


@pytest.fixture
def server(project, tmp_path):  # noqa: F811
    """Release 1, served."""
    releases.rollback(ledger(project), "points", 1, "person")
    with served(project, "points", tmp_path / "log") as server:
        assert until(lambda: servers.live_servers(ledger(project), "points"), 10)
        yield server


def release_canary(project, damage="", **settings):  # noqa: F811
    """Release the second package again as a canary, its service perhaps damaged; return its number."""
    second = releases.history(ledger(project), "points")[0][1]
    source = project.home / f"bentoml/bentos/{second.bento.replace(':', '/')}/src"
    if damage:
        file = source / "bentos/endpoint/model.py"
        file.write_text(file.read_text() + damage)
    digests = {**second.digests, "bento": digest.of_folder(source), "snapshot": "another"}
    canary = asdict(Canary(**{"share": 0.3, "minutes": 0.2, "min_requests": 20, "max_psi": 10.0, **settings}))
    made = releases.Release(**{**asdict(second), "digests": digests, "replaced": 1, "canary": canary})
    return releases.add_release(ledger(project), made, kind=releases.CANARY).number


def kinds(project):  # noqa: F811
    return [(event.kind, event.release) for event in releases.history(ledger(project), "points")[1]]


def test_a_quiet_canary_answers_its_share_and_becomes_champion_by_itself(project, server):  # noqa: F811
    number = release_canary(project)
    clients = asking(server, 30, kept=4, reconnecting=2)
    assert until(lambda: kinds(project)[-1] == ("promoted", number), 60), server.log.read_text()[-3000:]
    assert until(lambda: alone(project, number), 60)
    report = json.loads(clients.communicate(timeout=60)[0])
    assert {status for _, _, status, _ in report} == {"200"}
    first = next(one[0] for one in report if one[3] == str(number))
    baking = [one[3] for one in report if first <= one[0] < first + 8]
    assert baking.count(str(number)) / len(baking) == pytest.approx(0.3, abs=0.05)
    event = releases.history(ledger(project), "points")[1][-1]
    assert event.cause == "canary"
    assert event.reason.startswith("no alarm for 0.2 minutes, in which it answered ")


def test_a_shadow_is_asked_a_copy_nobody_sees_its_answers_and_how_they_differ_is_said(project, server):  # noqa: F811
    before = server.ask(*ROWS).json()["predictions"]
    number = release_canary(project, shadow=True, share=1.0)
    assert until(lambda: any(one.kind == "shadow" for one in servers.server_events(ledger(project), "points")), 20)
    clients = asking(server, 8, kept=4, reconnecting=2)
    assert until(lambda: servers.live_servers(ledger(project), "points")[0].state == "shadow", 20)
    report = json.loads(clients.communicate(timeout=60)[0])
    assert {(status, release) for _, _, status, release in report} == {("200", "1")}
    assert until(lambda: requests_counted(server) == 1 + len(report), 5), "copies are counted, or answers are not"
    assert until(lambda: kinds(project)[-1] == ("promoted", number), 60), server.log.read_text()[-3000:]
    reason = releases.history(ledger(project), "points")[1][-1].reason
    said = re.fullmatch(
        r"no alarm for 0.2 minutes, in which it answered [\d,]+ requests; of ([\d,]+) predictions ([\d,]+) differ from "
        r"the champion's \(100.0%\), by ([\d.]+) on average and ([\d.]+) at most",
        reason,
    )
    assert said, reason
    assert said[1] == said[2]
    assert until(lambda: alone(project, number), 60)
    after = server.ask(*ROWS).json()["predictions"]
    apart = [abs(ours - theirs) for ours, theirs in zip(before, after, strict=True)]
    assert float(said[3]) == pytest.approx(sum(apart) / len(apart), rel=0.01)
    assert float(said[4]) == pytest.approx(max(apart), rel=0.01)


def test_a_shadow_that_fails_is_sent_back_and_was_never_heard(project, server):  # noqa: F811
    clients = asking(server, 15, kept=4, reconnecting=2)
    number = release_canary(project, BREAKS, minutes=10.0, shadow=True, share=1.0)
    assert until(lambda: ("canary stopped", number) in kinds(project), 40), server.log.read_text()[-3000:]
    report = json.loads(clients.communicate(timeout=60)[0])
    assert {(status, release) for _, _, status, release in report} == {("200", "1")}
    reason = releases.history(ledger(project), "points")[1][-1].reason
    assert reason.startswith("errors: ")
    assert "differ from the champion's" in reason


BREAKS = """
_whole, _asked = ServedModel._predict, []
def _breaking(self, batch):
    _asked.append(1)
    if len(_asked) > 30:
        raise MemoryError
    return _whole(self, batch)
ServedModel._predict = _breaking
ServedModel._failing_rows = lambda self, batch: []
"""


def test_a_canary_that_fails_harms_nobody_and_is_sent_back_within_seconds(project, server):  # noqa: F811
    clients = asking(server, 25, kept=4, reconnecting=2)
    number = release_canary(project, BREAKS, minutes=10.0)
    assert until(lambda: ("canary stopped", number) in kinds(project), 40), server.log.read_text()[-3000:]
    stopped = time.time()
    report = json.loads(clients.communicate(timeout=60)[0])
    assert {status for _, _, status, _ in report} == {"200"}
    assert str(number) in {one[3] for one in report}
    assert {one[3] for one in report if one[0] > stopped + 1} == {"1"}
    event = releases.history(ledger(project), "points")[1][-1]
    assert event.reason.startswith("errors: ")
    assert releases.blocked_by(
        ledger(project), "points", releases.get_release(ledger(project), "points", number).digests
    )
    said = json.loads(project.evergreen("status", "points", "--json")[1])["models"][0]
    assert (said["release"]["number"], said["canary"]) == (1, None)
    assert (said["sent_back"]["release"], said["sent_back"]["reason"]) == (number, event.reason)
    assert f"canary release {number}" in project.evergreen("status", "points")[1]


def canary_is_served(project):  # noqa: F811
    return any(one.kind == "canary" for one in servers.server_events(ledger(project), "points"))


def test_a_canary_whose_worker_is_killed_is_sent_back_and_nobody_notices(project, server):  # noqa: F811
    (champion,) = server.workers()
    number = release_canary(project, minutes=10.0)
    assert until(lambda: canary_is_served(project), 20)
    (worker,) = {*server.workers()} - {champion}
    clients = asking(server, 6, kept=4, reconnecting=2)
    time.sleep(2)
    os.kill(worker, signal.SIGKILL)
    assert until(lambda: ("canary stopped", number) in kinds(project), 10)
    report = json.loads(clients.communicate(timeout=60)[0])
    assert {status for _, _, status, _ in report} == {"200"}
    assert releases.history(ledger(project), "points")[1][-1].reason.startswith("its worker ended with code -9")


def test_an_alarm_is_seen_in_prefect_at_the_run_that_made_the_release_and_in_the_event_feed(
    project,  # noqa: F811
    prefect_server,
    tmp_path,
):
    project.env = {**project.env, "PREFECT_API_URL": prefect_server}
    releases.rollback(ledger(project), "points", 1, "person")
    with served(project, "points", tmp_path / "log") as server:
        assert until(lambda: servers.live_servers(ledger(project), "points"), 10)
        (champion,) = server.workers()
        number = release_canary(project, minutes=10.0)
        run = str(uuid.uuid4())
        outcome = project.home / "runs" / "points" / run / "outcome.json"
        outcome.parent.mkdir(parents=True)
        outcome.write_text(json.dumps({"release": number}))
        assert until(lambda: canary_is_served(project), 20)
        (worker,) = {*server.workers()} - {champion}
        os.kill(worker, signal.SIGKILL)

        def asked(what, query):
            answer = httpx.post(f"{prefect_server}/{what}/filter", json=query).raise_for_status().json()
            return answer if isinstance(answer, list) else answer["events"]

        assert until(lambda: asked("artifacts", {"artifacts": {"flow_run_id": {"any_": [run]}}}), 60)
        (shown,) = asked("artifacts", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        assert shown["key"] == "points-alarm"
        sentence = "its worker ended with code -9; see the server's log"
        assert shown["description"] == f"**Release {number} of points was a canary and was sent back**: {sentence}."
        query = {"filter": {"event": {"name": ["evergreen.canary-alarmed"]}}}
        assert until(lambda: asked("events", query), 20)
        (event,) = asked("events", query)
        assert event["resource"]["prefect.resource.id"] == "evergreen.model.points"
        reasons = [f"the canary, release {number}, is stopped: {sentence}"]
        assert event["payload"] == {"release": number, "reasons": reasons}
        assert [one["prefect.resource.id"] for one in event["related"]] == [f"prefect.flow-run.{run}"]


def test_a_canary_that_is_quiet_while_the_champion_is_held_is_promoted_when_the_hold_ends(project, server):  # noqa: F811
    number = release_canary(project, minutes=0.05)
    assert until(lambda: canary_is_served(project), 20)
    releases.hold(ledger(project), "points", "audit")
    time.sleep(6)
    assert (kinds(project)[-1], server.ask(*ROWS).status_code) == (("held", 1), 200)
    releases.unhold(ledger(project), "points", "done")
    assert until(lambda: kinds(project)[-1] == ("promoted", number), 10)


def test_a_person_promotes_a_canary_before_its_time(project, server):  # noqa: F811
    number = release_canary(project, minutes=10.0)
    assert until(lambda: canary_is_served(project), 20)
    code, _, err = project.evergreen("promote", "points", str(number), "--why", "looks good")
    assert (code, err) == (0, "")
    assert until(lambda: alone(project, number), 60)
    assert {server.ask(*ROWS).headers["evergreen-release"] for _ in range(20)} == {str(number)}


def test_a_person_takes_a_canary_back_by_rolling_back(project, server):  # noqa: F811
    number = release_canary(project, minutes=10.0)
    assert until(lambda: canary_is_served(project), 20)
    code, said = project.json("rollback", "points", "--why", "customers complain")
    assert (code, said["release"], said["instead_of"]) == (0, 1, number)
    assert all(seconds is not None for seconds in said["served"].values())
    assert {server.ask(*ROWS).headers["evergreen-release"] for _ in range(20)} == {"1"}
    event = releases.history(ledger(project), "points")[1][-1]
    assert (event.kind, event.release, event.cause, event.reason) == (
        "canary stopped",
        number,
        "person",
        "customers complain",
    )
    made = releases.get_release(ledger(project), "points", number)
    assert releases.blocked_by(ledger(project), "points", made.digests) == event


@pytest.fixture
def client(tmp_path, monkeypatch):
    """The ledger as a server uses it, which tries again at once."""
    monkeypatch.setattr(ledger_client, "WRITE_BACKOFF", 0.01)
    client = LedgerClient(open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite"), tmp_path, "points", "a:3000")
    yield client
    client.deregister(None)


def test_the_end_of_a_canary_that_another_write_overtook_is_told_again(client, monkeypatch):
    told = []

    def stop(_ledger, model, number, _cause, why):
        told.append((model, number, why))
        if len(told) == 1:
            raise OvertakenError("the champion of points changed just now")

    monkeypatch.setattr(releasing, "stop_canary", stop)
    client.stop_canary(3, "errors")
    assert until(lambda: told == [("points", 3, "errors")] * 2, 10)


@pytest.mark.parametrize(("error", "refusals"), [(ReleaseError, 1), (PackageError, 1), (OvertakenError, 0)])
def test_a_promotion_that_is_refused_is_known_to_be_and_one_that_was_overtaken_is_tried_again(
    client, monkeypatch, error, refusals
):
    tried, refused = [], []

    def promote(*_given):
        tried.append(None)
        if len(tried) == 1:
            raise error("no")

    monkeypatch.setattr(releasing, "promote", promote)
    client.promote(3, "quiet", lambda: refused.append(None))
    assert until(lambda: len(tried) == 2 - refusals, 10)
    time.sleep(0.1)
    assert (len(tried), len(refused)) == (2 - refusals, refusals)
