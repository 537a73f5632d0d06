from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sklearn.linear_model import Lasso, Ridge
from tiny import a_classifier, a_spec

import pipeline.spec
from pipeline.field_kinds import FIELD_KINDS, of_kind, spec_digest
from pipeline.run_digests import digests_of, work_needed
from pipeline.sources import Csv, Parquet
from pipeline.spec import (
    BinaryClassification,
    BusinessValue,
    Canary,
    Cron,
    Drift,
    Email,
    Gate,
    Holdout,
    Limits,
    ModelSpec,
    Monitor,
    RequestLog,
    Slack,
    Webhook,
)


def profit(y_true, y_pred):
    return float((y_true - y_pred).sum())


def loss(y_true, y_pred):
    return -profit(y_true, y_pred)


LOG = RequestLog()
CANARY = Canary()
VALUE = BusinessValue(function=profit, unit="USD")
WORK = {"model": "train", "verdict": "judge", "package": "repackage", "operations": "nothing"}

CHANGES = [
    # field, its kind, and the two values it changes between
    ("name", "model", "houses", "flats"),
    ("source", "operations", Csv("houses.csv"), Parquet("houses.parquet")),
    ("key", "model", ("id",), ("id", "street")),
    ("target", "model", "price", "rent"),
    ("candidates", "model", {"ridge": Ridge()}, {"ridge": Ridge(alpha=2.0)}),
    ("candidates", "model", {"ridge": Ridge()}, {"ridge": Ridge(), "lasso": Lasso()}),
    ("metric", "model", "rmse", "mae"),
    ("features", "model", None, ("area",)),
    ("time", "model", None, "sold"),
    ("group", "model", None, "street"),
    ("nullable", "model", (), ("area",)),
    ("required", "model", None, ("area",)),
    ("sensitive", "package", (), ("area",)),
    ("sample", "model", None, 1_000),
    ("folds", "model", 5, 4),
    ("seed", "model", 0, 1),
    ("approval", "operations", "none", "manual"),
    ("keep_releases", "operations", 5, 6),
    ("time_limit", "operations", timedelta(hours=6), timedelta(hours=7)),
    ("schedule", "operations", None, Cron("0 3 * * 1")),
    ("schedule", "operations", Cron("0 3 * * 1"), Cron("0 4 * * 1")),
    ("schedule", "operations", Cron("0 3 * * 1"), Cron("0 3 * * 1", timezone="Europe/Berlin")),
    ("notify", "operations", (), (Slack(url_env="HOOK"),)),
    ("notify", "operations", (Webhook(url_env="HOOK"),), (Webhook(url_env="OTHER"),)),
    ("notify", "operations", (Email(to=("a@b.c",), sender="d@e.f"),), (Email(to=("g@b.c",), sender="d@e.f"),)),
    ("gate", "verdict", Gate(at_most=10.0), Gate(at_most=11.0)),
    ("gate.tolerance", "verdict", 0.0, 0.1),
    ("gate.slices", "verdict", (), ("street",)),
    ("gate.slice_rows", "verdict", 30, 40),
    ("gate.slice_tolerance", "verdict", 0.0, 0.1),
    ("holdout", "model", Holdout(fraction=0.2), Holdout(fraction=0.3)),
    ("value", "verdict", None, VALUE),
    ("value", "verdict", VALUE, BusinessValue(function=loss, unit="USD")),
    ("value", "verdict", VALUE, BusinessValue(function=profit, unit="EUR")),
    ("task.unit", "package", "USD", "EUR"),
    ("limits.max_rows", "package", 10_000, 1),
    ("limits.max_body_bytes", "package", 16 * 2**20, 1_000),
    ("limits.max_concurrency", "package", 64, 1),
    ("limits.timeout_seconds", "package", 30.0, 1.0),
    ("log", "package", None, LOG),
    ("log", "package", LOG, RequestLog(sample_rate=0.5)),
    ("log", "package", LOG, RequestLog(max_bytes=10**6)),
    ("log", "package", LOG, RequestLog(retention_days=1.0)),
    ("canary", "operations", None, CANARY),
    *(
        ("canary", "operations", CANARY, replace(CANARY, **{one.name: 0.2}))
        for one in fields(Canary)
        if one.type is float
    ),
    ("canary", "operations", CANARY, replace(CANARY, min_requests=7)),
    ("canary", "operations", CANARY, replace(CANARY, shadow=True)),
    ("drift.psi", "operations", 0.2, 0.3),
    ("drift.jensen_shannon", "operations", 0.1, 0.2),
    ("drift.p", "operations", 0.001, 0.002),
    ("drift.nulls", "operations", 0.05, 0.1),
    ("drift.duplicates", "operations", 0.01, 0.1),
    ("drift.refuse", "operations", False, True),
    ("monitor.schedule", "operations", None, Cron("0 3 * * 1")),
    *(
        (f"monitor.{name}", "operations", getattr(Monitor(), name), 3)
        for name in ("days", "min_rows", "min_labelled_rows", "min_drifted_columns")
    ),
    *(
        (f"monitor.{name}", "operations", getattr(Monitor(), name), 3.0)
        for name in ("tolerance", "stale_days", "cooldown_hours")
    ),
    ("monitor.retrain", "operations", Monitor().retrain, ("drift",)),
]


def with_field(spec, path, value):
    name, _, inner = path.partition(".")
    return replace(spec, **{name: replace(getattr(spec, name), **{inner: value}) if inner else value})


@pytest.fixture
def digests(monkeypatch):
    """Return the digests of a spec, its code left out."""
    monkeypatch.setattr("pipeline.run_digests.code_digest", lambda *_: "code")
    monkeypatch.setattr("pipeline.run_digests.serving_digest", lambda *_: "serving")
    return lambda spec: digests_of(spec, "rows", "suite", Path())


@pytest.mark.parametrize(("path", "kind", "before", "after"), CHANGES)
def test_a_changed_field_makes_a_run_do_what_its_kind_says(path, kind, before, after, digests):
    then, now = (digests(with_field(a_spec(), path, value)) for value in (before, after))

    assert work_needed(then, then, now) == WORK[kind]
    digest = {"model": {"spec"}, "verdict": {"verdict"}, "package": {"package"}, "operations": set()}
    assert {name for name in then if then[name] != now[name]} == digest[kind]


def test_epochs_and_labels_which_need_other_fields_are_of_the_model_and_of_operations(digests):
    from sklearn.linear_model import SGDRegressor

    learned = a_spec(candidates={"sgd": SGDRegressor()}, sample=1_000)
    assert work_needed(digests(learned), None, digests(replace(learned, epochs=2))) == "train"
    logged = a_spec(log=LOG)
    assert digests(logged) == digests(replace(logged, labels=Csv("labels.csv")))


def test_another_task_or_positive_label_trains_again(digests):
    then = digests(a_classifier())
    assert work_needed(then, then, digests(a_spec())) == "train"
    other = a_classifier(task=BinaryClassification(positive="no"))
    assert work_needed(then, then, digests(other)) == "train"


def test_a_holdout_of_days_trains_again(digests):
    then, now = (digests(a_spec(time="sold", holdout=Holdout(days=days))) for days in (90, 91))
    assert work_needed(then, then, now) == "train"


def test_a_slice_by_a_column_that_becomes_sensitive_is_judged_again_so_that_no_value_stays(digests):
    sliced = a_spec(gate=Gate(at_most=10.0, slices=("street",)))
    now = digests(replace(sliced, sensitive=("street",)))
    assert work_needed(digests(sliced), digests(sliced), now) == "judge"


def test_every_field_of_every_dataclass_of_the_spec_states_its_kind():
    parts = [one for one in vars(pipeline.spec).values() if isinstance(one, type) and is_dataclass(one)]
    ours = [one for one in parts if one.__module__ == "pipeline.spec"]
    assert {ModelSpec, Gate, Limits, Canary, Drift, Monitor} <= {*ours}
    for part in ours:
        for one in fields(part):
            assert one.metadata.get("kind") in FIELD_KINDS, f"{part.__name__}.{one.name}"


def test_every_field_of_a_spec_was_tried_above():
    tried = {path.partition(".")[0] for path, *_ in CHANGES}
    assert {one.name for one in fields(ModelSpec)} - tried == {"epochs", "labels"}


@dataclass(frozen=True)
class Before:
    depth: int = field(default=3, metadata=of_kind("model"))


@dataclass(frozen=True)
class WithANewField(Before):
    # Evergreen did not prune before it had the field.
    prune: bool = field(default=False, metadata=of_kind("model", before=False))


@dataclass(frozen=True)
class WithANewDefault(Before):
    prune: bool = field(default=True, metadata=of_kind("model", before=False))


@dataclass(frozen=True)
class Undeclared:
    depth: int = 3


def test_a_new_field_changes_no_digest_and_a_new_default_does():
    assert spec_digest(WithANewField(), "model") == spec_digest(Before(), "model")
    assert spec_digest(WithANewField(prune=True), "model") != spec_digest(Before(), "model")
    assert spec_digest(WithANewDefault(), "model") != spec_digest(Before(), "model")
    assert spec_digest(WithANewDefault(prune=False), "model") == spec_digest(Before(), "model")


def test_a_field_that_states_no_kind_is_refused():
    with pytest.raises(TypeError, match=r"Undeclared\.depth has no kind"):
        spec_digest(Undeclared(), "model")


def test_a_digest_names_no_module_of_evergreen(monkeypatch):
    before = spec_digest(a_spec(), "model")
    for part in (Gate, Holdout, ModelSpec, type(a_spec().task), Drift):
        monkeypatch.setattr(part, "__module__", "pipeline.spec.moved")
    assert spec_digest(a_spec(), "model") == before
