"""An endpoint holds requests to its suite's rules about single values, and both readers agree on what it refuses."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from great_expectations import expectations as gxe
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import a_spec

from bentos.endpoint import page, parse_fast
from bentos.endpoint.batch import Batch, of_rows
from bentos.endpoint.guardrails import RequestGuard
from bentos.endpoint.metrics import Metrics
from bentos.endpoint.parse_fast import QuickReader
from bentos.endpoint.parse_strict import read_csv, read_json
from bentos.endpoint.problems import Problem
from expectations.guard import check_guards, guards_of
from expectations.suite import Suite
from pipeline.errors import CheckError, DataError
from pipeline.guard import Guard, passing, required_by, shown, without_sensitive
from pipeline.schema import Feature, Schema

REFUSE = {"refuse": True}
TYPES = {"area": "number", "town": "text", "sold": "timestamp", "new": "boolean"}
SCHEMA = Schema(
    features=(
        Feature("town", "text", required=False, categories=("Ames", "Boone")),
        Feature("area", "number", required=True),
        Feature("rooms", "number", required=False),
        Feature("sold", "timestamp", required=False),
    ),
    key=("id",),
    ignored=(),
    nulls=("NA",),
)
GUARDS = (
    Guard(feature="area", kind="range", minimum=20.0, maximum=100.0, refuse=True),
    Guard(feature="rooms", kind="range", minimum=0.0, exclusive_minimum=True),
    Guard(feature="rooms", kind="set", values=(1.0, 2.0, 3.0)),
    Guard(feature="town", kind="set", values=("Ames", "Boone", "Nevada")),
    Guard(feature="sold", kind="range", minimum="2020-01-01T00:00:00", refuse=True),
)


def between(column="area", low=20, high=100, **others):
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, **others)


def of(*rules, types=TYPES):
    return guards_of(Suite(error=rules), types)


def test_ranges_sets_and_nulls_become_guards_that_refuse_where_their_rule_says_so():
    guards, unguarded = of(
        between(meta=REFUSE),
        between("area", 0, None, strict_min=True, mostly=0.9),
        gxe.ExpectColumnValuesToBeInSet(column="town", value_set=["Ames", "Boone", None]),
        gxe.ExpectColumnValuesToNotBeNull(column="town", meta=REFUSE | {"why": "it is asked for"}),
        between("sold", dt.date(2020, 1, 1), dt.datetime(2030, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    )
    assert unguarded == ()
    assert guards == (
        Guard(feature="area", kind="range", minimum=20.0, maximum=100.0, refuse=True),
        Guard(feature="area", kind="range", minimum=0.0, exclusive_minimum=True),
        Guard(feature="town", kind="set", values=("Ames", "Boone")),
        Guard(feature="town", kind="null", refuse=True),
        Guard(feature="sold", kind="range", minimum="2020-01-01T00:00:00", maximum="2030-01-01T10:00:00"),
    )
    assert tuple(Guard.from_dict(json.loads(json.dumps(guard.to_dict()))) for guard in guards) == guards


def test_a_rule_said_twice_is_one_guard_that_refuses_if_either_does():
    suite = Suite(error=[between(mostly=0.98)], warn=[between(meta=REFUSE)])
    assert guards_of(suite, TYPES)[0] == (replaced(between(), refuse=True),)


def replaced(rule, refuse):
    return Guard(
        feature=rule.column, kind="range", minimum=float(rule.min_value), maximum=float(rule.max_value), refuse=refuse
    )


def test_other_rules_about_rows_are_named_as_not_guarded_and_those_about_tables_or_other_columns_are_not():
    guards, unguarded = of(
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnMedianToBeBetween(column="area", min_value=1),
        gxe.ExpectColumnValuesToBeInTypeList(column="area", type_list=["float64"]),
        gxe.ExpectColumnValuesToMatchRegex(column="town", regex="^A"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="area", column_B="rooms"),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        between("price"),
    )
    assert guards == ()
    assert len(unguarded) == 2
    assert unguarded[1] == "area is greater than rooms"


@pytest.mark.parametrize(
    ("rule", "kind", "sentence"),
    [
        (gxe.ExpectColumnMedianToBeBetween(column="area", min_value=1, meta=REFUSE), CheckError, "neither a range nor"),
        (
            gxe.ExpectColumnValuesToBeInSet(column="town", value_set=["a"], meta=REFUSE),
            CheckError,
            "an unexpected category is predicted",
        ),
        (between("price", meta=REFUSE), CheckError, "'price' is not a feature; remove refuse from its meta"),
        (between(meta={"refuse": "yes"}), CheckError, "has refuse='yes' in its meta; give True or False"),
        (between("town", meta=REFUSE), DataError, "column 'town' holds text, which the bounds of the rule"),
    ],
)
def test_a_rule_that_cannot_refuse_a_request_but_says_so_is_refused_itself(rule, kind, sentence):
    with pytest.raises(kind, match=sentence):
        of(rule)


def test_a_suite_that_refuses_nulls_which_the_spec_allows_is_refused():
    guards, _ = of(gxe.ExpectColumnValuesToNotBeNull(column="area", meta=REFUSE))
    check_guards(a_spec(), guards)
    with pytest.raises(CheckError, match="refuses requests in which area is null, but the spec of houses"):
        check_guards(a_spec(nullable=("area",)), guards)


def read(records, guards=GUARDS):
    """What both readers and the guard make of records, as JSON and as CSV; they must agree."""
    body = json.dumps({"records": records}).encode()
    names = list(dict.fromkeys(name for record in records for name in record))
    lines = [",".join("NA" if record.get(name) is None else str(record[name]) for name in names) for record in records]
    words = "\n".join([",".join(names), *lines]).encode()
    reader, guard = QuickReader(SCHEMA, 1000), RequestGuard(guards)
    batches = [reader.json(body), read_json(body, SCHEMA, 1000), reader.csv(words), read_csv(words, SCHEMA, 1000)]
    assert all(isinstance(batch, Batch) for batch in batches), batches
    found = [guard.check(batch) for batch in batches]
    told = {(one.errors, one.status) if isinstance(one, Problem) else one.size for one in found}
    assert len(told) == 1
    assert all(one.broken == found[0].broken for one in found)
    return found[0]


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    monkeypatch.setattr(parse_fast, "MIN_ARROW_BYTES", 0)


GOOD = {"area": 50, "rooms": 2, "town": "Ames", "sold": "2024-05-31T12:00:00"}


@pytest.mark.parametrize("others", [0, 2])
def test_a_value_out_of_a_refusing_range_is_refused_naming_row_field_and_bounds(others):
    refused = read([GOOD] * others + [{**GOOD, "area": 12.5}])
    assert refused.status == 400
    (error,) = refused.errors
    assert (error.row, error.field) == (others, "area")
    assert error.problem == "12.5 is out of range; give a number from 20 to 100"
    assert refused.detail == f"row {others}: field 'area': {error.problem}. Row 0 is the first."
    assert refused.broken == {("area", "area is from 20 to 100"): 1}


def test_the_bounds_themselves_are_in_range_and_nulls_break_none():
    assert read([{**GOOD, "area": 20}, {**GOOD, "area": 100, "rooms": None, "town": None, "sold": None}]).broken == {}


def test_times_are_held_to_their_bounds():
    (error,) = read([{**GOOD, "sold": "2019-12-31T23:59:59"}]).errors
    assert error.problem == "2019-12-31T23:59:59 is out of range; give a time at least 2020-01-01T00:00:00"


def test_what_breaks_a_rule_that_does_not_refuse_is_answered_and_counted():
    batch = read([{**GOOD, "rooms": 0, "town": "Rome"}, {**GOOD, "rooms": 9, "town": "Nevada"}, GOOD])
    assert isinstance(batch, Batch)
    assert batch.broken == {
        ("rooms", "rooms is more than 0"): 1,
        ("rooms", "rooms is one of 3 values"): 2,
        ("town", "town is one of 3 values"): 1,
    }
    alone = read([{**GOOD, "rooms": 0, "town": "Rome"}])
    assert set(alone.broken.values()) == {1}
    assert alone.broken.keys() == batch.broken.keys()


def test_every_error_is_named_in_the_order_of_the_rows():
    rows = [{**GOOD, "area": 1}, GOOD, {**GOOD, "area": 101, "sold": "2001-01-01T00:00:00"}]
    refused = read(rows)
    assert [(error.row, error.field) for error in refused.errors] == [(0, "area"), (2, "area"), (2, "sold")]
    assert "3 errors were found." in refused.detail


NUMBERS = st.one_of(st.none(), st.integers(-3, 3), st.floats(-3, 3))


@settings(deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(-2, 2)),
    st.one_of(st.none(), st.integers(-2, 2)),
    st.booleans(),
    st.booleans(),
)
def test_rows_are_refused_alone_as_they_are_together_and_as_comparing_says(values, low, high, above, below):
    guard = Guard(
        feature="rooms",
        kind="range",
        minimum=None if low is None else float(low),
        maximum=None if high is None else float(high),
        exclusive_minimum=above and low is not None,
        exclusive_maximum=below and high is not None,
        refuse=True,
    )

    def wrong(value):
        if value is None:
            return False
        too_low = low is not None and (value <= low if above else value < low)
        return too_low or (high is not None and (value >= high if below else value > high))

    expected = [row for row, value in enumerate(values) if wrong(value)]
    checker = RequestGuard([guard])
    lists = of_rows([{"rooms": value} for value in values], [Feature("rooms", "number", required=False)])
    arrays = Batch({"rooms": np.array([np.nan if value is None else value for value in values])}, len(values))
    for batch in (lists, arrays):
        found = checker.check(batch)
        assert ([error.row for error in found.errors] if isinstance(found, Problem) else []) == expected
    alone = [checker.check(Batch({"rooms": [value]}, 1)) for value in values]
    assert [row for row, found in enumerate(alone) if isinstance(found, Problem)] == expected
    table = pa.table({"rooms": pa.array(values, pa.float64())})
    assert np.flatnonzero(~passing(table, [guard])).tolist() == expected


def test_a_model_without_rules_has_no_guard():
    assert not RequestGuard([])
    assert not RequestGuard([Guard(feature="area", kind="null", refuse=True)])


def test_refused_nulls_make_a_feature_required():
    schema = required_by(SCHEMA, [Guard(feature="rooms", kind="null", refuse=True), Guard(feature="town", kind="null")])
    assert {one.name: one.required for one in schema.features} == {
        "town": False,
        "area": True,
        "rooms": True,
        "sold": False,
    }


def test_the_card_shows_the_narrower_of_the_bounds_that_refuse():
    guards = [
        Guard(feature="area", kind="range", minimum=0.0, maximum=100.0, refuse=True),
        Guard(feature="area", kind="range", minimum=20.0, exclusive_minimum=True, maximum=500.0, refuse=True),
        Guard(feature="rooms", kind="range", minimum=1.0),
    ]
    features = [{"name": "area", "type": "number"}, {"name": "rooms", "type": "number"}]
    assert shown(features, [guard.to_dict() for guard in guards]) == [
        {"name": "area", "type": "number", "minimum": 20.0, "exclusive_minimum": True, "maximum": 100.0},
        {"name": "rooms", "type": "number"},
    ]


def test_a_row_that_is_shown_has_of_sensitive_features_only_required_ones_with_a_value_that_may_be_asked():
    row = {"town": "Ames", "area": 77.0, "rooms": 3.0, "sold": None}
    features = (*SCHEMA.features, Feature("note", "text", required=True), Feature("new", "boolean", required=True))
    found = without_sensitive({**row, "note": "ill"}, features, GUARDS, ("town", "area", "note", "new"))
    # The area's bounds are 20 and 100.
    assert found == {"area": 20.0, "rooms": 3.0, "sold": None, "note": "...", "new": False}
    assert without_sensitive(row, SCHEMA.features, GUARDS, ()) == row


def test_the_card_of_an_endpoint_names_no_category_of_a_sensitive_feature():
    features = [{"name": name, "type": "text", "categories": ["a"]} for name in ("town", "ill")]
    manifest = {
        "task": {"kind": "regression"},
        "limits": {},
        "evaluation": {"challenger": {}},
        "schema": {"features": features, "key": []},
        "sensitive": ["ill"],
        "rows": {"training": 1},
        "verdict": {"reasons": []},
        "digests": {"snapshot": "0"},
        **dict.fromkeys(("model", "target", "labels", "metric", "estimator", "created"), ""),
    }
    found = page.card(manifest, 1, {})["features"]
    assert found == [{"name": "town", "type": "text", "categories": ["a"]}, {"name": "ill", "type": "text"}]
    assert features[1]["categories"] == ["a"]


def test_what_was_broken_is_counted_by_feature_and_rule():
    metrics = Metrics("guarded", None, ())
    metrics.broke({("area", "area is from 20 to 100"): 3})
    metrics.flush()
    counter = metrics.all.broken.labels("guarded", "area", "area is from 20 to 100")
    assert counter._value.get() == 3
