"""The JSON of commands and answers: its schemas are checked in, are those of the code, and real output is as they say.

That the output of a command is as its schema says is also checked by every `Project.json` of the other tests.
"""

import json
from dataclasses import asdict

import jsonschema
import pytest
from project import schema, validate

from bentos.endpoint import views as http_views
from bentos.endpoint.problems import BadValue, Problem
from bentos.ledger.releases import DesiredState, Event, Release
from docs import generate
from flows.cli import views
from flows.outcome import Outcome
from pipeline.spec import Cron

RELEASE = Release(
    model="houses",
    number=1,
    bento="houses:a1",
    digests={"snapshot": "0f"},
    verdict={"passed": True, "reasons": ["better"], "checks": [{"passed": True, "sentence": "better"}]},
    evaluation={"metric": "rmse", "rows": 9, "challenger": {"rmse": 1.0}, "champion": None, "baseline": {"rmse": 2.0}},
    trial={"passed": True, "answers": 9},
    cause="person",
    reason="better",
    created="2026-03-01T00:00:00+00:00",
    canary={"share": 0.1, "minutes": 30.0, "shadow": False, "min_requests": 100},
)
EVENTS = [
    Event(1, 1, "released", "person", "better", "2026-03-01T00:00:00+00:00"),
    Event(2, 1, "held", "person", "a fair", "2026-03-02T00:00:00+00:00"),
]


def printed(view):
    return json.loads(json.dumps(asdict(view), allow_nan=False))


def test_the_schemas_in_the_reference_are_those_of_the_code():
    assert generate.stale() == [], "run `python -m docs.generate`"


def test_a_page_that_the_code_no_longer_makes_is_removed_and_a_changed_one_is_written_anew(tmp_path):
    assert set(generate.write(tmp_path)) == set(generate.pages())
    (tmp_path / "schemas/gone.json").write_text("{}")
    (tmp_path / "schemas/run.json").write_text("{}")
    assert generate.stale(tmp_path) == ["schemas/gone.json", "schemas/run.json"]
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    assert not (tmp_path / "schemas/gone.json").exists()


def test_every_command_that_has_json_has_a_schema():
    from typer.main import get_command

    from flows.cli.main import app

    commands = get_command(app).commands
    with_json = {name for name, command in commands.items() if any("--json" in one.opts for one in command.params)}
    assert with_json == views.by_command().keys() - {"error"}


def test_every_field_of_the_larger_views_has_a_description():
    for command in ("status", "history", "release", "monitor", "run"):
        properties = views.schema_of(views.by_command()[command])["properties"]
        assert [name for name, field in properties.items() if not field.get("description")] == [], command


def test_a_status_with_everything_in_it_is_as_its_schema_says():
    status = views.status_of(
        "houses",
        DesiredState(RELEASE, RELEASE, "2026-03-03T00:00:00+00:00", held=EVENTS[1], stopped=EVENTS[1]),
        None,
        [],
        {2: None},
    )
    assert (status.release.value, status.canary.share, status.held.reason) == (1.0, 0.1, "a fair")
    validate(printed(views.StatusView([status])), "status")


def test_a_history_tells_releases_and_events_with_the_oldest_first():
    history = views.history_of("houses", RELEASE, [RELEASE], EVENTS)
    assert [event.event for event in history.events] == ["released", "held"]
    assert history.releases[0].metrics["challenger"] == {"rmse": 1.0}
    validate(printed(history), "history")


def test_an_explanation_says_what_the_release_is_now_and_what_became_of_it():
    proofs = views.Proofs(views.RowsView(9, "a.csv", None, 7, 2), views.CodeView("ridge", None))
    found = views.release_of(RELEASE, EVENTS, [], proofs, card="card.html")
    assert (found.state, found.compared_with.rows, found.card) == ("champion", 9, "card.html")
    validate(printed(found), "release")


def test_the_outcome_of_a_run_and_the_triggers_before_a_look_are_as_their_schemas_say():
    validate(json.loads(json.dumps(Outcome("houses", "kept", ("worse",)).to_dict())), "run")
    validate(printed(views.TriggersView("houses", None, None, schedule=Cron("0 3 * * 1"))), "triggers")


def test_a_field_more_or_less_is_not_as_the_schema_says():
    error = printed(views.ErrorView(views.ErrorDetails("spec.invalid", "it is empty", "SpecError")))
    validate(error, "error")
    with pytest.raises(jsonschema.ValidationError):
        validate({"error": {**error["error"], "hint": "x"}}, "error")
    del error["error"]["code"]
    with pytest.raises(jsonschema.ValidationError):
        validate(error, "error")


def test_get_history_tells_the_newest_release_first_with_what_became_of_it():
    newer = Release(**{**asdict(RELEASE), "number": 2, "replaced": 1})
    events = [EVENTS[0], Event(2, 2, "released", "schedule", "even better", "2026-03-05T00:00:00+00:00", 1)]
    found = http_views.History("houses", http_views.history_of([RELEASE, newer], events))
    assert [(one.release, one.state, one.reason) for one in found.releases] == [
        (2, "champion", "even better"),
        (1, "replaced", "better"),
    ]
    schema("http/history").validate(printed(found))


@pytest.mark.parametrize(
    "problem",
    [Problem(404, "There is no such path."), Problem(400, "x", errors=(BadValue(0, "x", "is no number"),))],
    ids=["without errors", "with errors"],
)
def test_a_refusal_is_as_its_schema_says(problem):
    schema("http/problem").validate(json.loads(problem.body()))
