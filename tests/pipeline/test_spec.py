import pytest
from sklearn.linear_model import Ridge
from tiny import a_classifier, a_spec

from pipeline.errors import SpecError
from pipeline.project import CODE_FOLDER
from pipeline.spec import (
    Cron,
    Drift,
    Gate,
    Holdout,
    Limits,
    MulticlassClassification,
    Regression,
    load_spec,
    model_names,
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "House Prices"}, "name: 'House Prices' cannot name a model; use lower-case letters, digits and _"),
        ({"name": "7days"}, "name: '7days' cannot name a model"),
        ({"keep_releases": 0}, "keep_releases is 0; the newest release is always kept, so set 1 or more"),
        ({"sensitive": "income"}, "sensitive is 'income'; use a tuple"),
        ({"key": "id"}, r"key is 'id'; use a tuple of column names, such as \('Id',\)"),
        ({"key": ["id"]}, r"key is \['id'\]; use a tuple"),
        ({"key": ("id", "id")}, "key lists 'id' twice; list it once"),
        ({"key": ("id", "")}, "key has ''; column names are non-empty strings"),
        ({"key": ("price",)}, "key lists 'price', which is the target; remove it from key"),
        ({"features": ()}, "features is empty; name some, or leave it out to use every other column"),
        ({"features": "area"}, "features is 'area'; use a tuple"),
        ({"features": ("area", "price")}, "features lists 'price', which is the target; remove it from features"),
        ({"features": ("area", "id")}, "features lists 'id', which is the key; remove it from features"),
        ({"features": ("area", "town"), "group": "town"}, "features lists 'town', which is the group; remove it"),
        ({"features": ("area",), "nullable": ("Area",)}, "nullable lists 'Area', which is not a feature; did you mean"),
        ({"features": ("area",), "required": ("rooms",)}, "required lists 'rooms', which is not a feature"),
        ({"nullable": ("price",)}, "nullable lists 'price', which is not a feature"),
        ({"required": ("id",)}, "required lists 'id', which is not a feature"),
        ({"nullable": ("a",), "required": ("b",)}, "set either `nullable` or `required`, not both"),
        ({"task": "regression"}, r"task is 'regression'; use Regression\(\), BinaryClassification\("),
        ({"task": Regression}, r"task is <class .*Regression'>; use Regression\(\)"),
        ({"candidates": [Ridge()]}, r"candidates is a list; use a dict, such as \{'ridge': ...\}"),
        ({"candidates": {}}, "candidates is empty; add at least one unfitted scikit-learn estimator"),
        ({"candidates": {"ridge": Ridge}}, "candidate 'ridge' is <class .*Ridge'>; use an unfitted scikit-learn"),
        ({"candidates": {"ridge": "ridge"}}, "candidate 'ridge' is 'ridge'; use an unfitted scikit-learn estimator"),
        ({"metric": "rsme"}, "metric 'rsme' is not one of the regression metrics rmse, mae,.*; did you mean 'rmse'"),
        ({"metric": "accuracy"}, "metric 'accuracy' is not one of the regression metrics"),
        ({"task": MulticlassClassification()}, "metric 'rmse' is not one of the multiclass metrics"),
        ({"gate": Gate(at_least=0.5)}, "for rmse less is better; set at_most in the gate, not at_least"),
        ({"time": "sold", "group": "town"}, "time='sold' and group='town' exclude each other.*set only one of them"),
        ({"time": "price"}, "time is 'price', which is the target; name another column"),
        ({"group": "price"}, "group is 'price', which is the target; name another column"),
        ({"holdout": Holdout(days=90)}, "holdout has days=90 but there is no time column; set time=, or use fraction="),
        ({"folds": 1}, "folds is 1; cross-validation needs 2 or more"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused_naming_the_field_and_the_way_out(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        a_spec(**changes)


def test_a_threshold_on_the_wrong_side_of_a_classifiers_metric_is_refused():
    with pytest.raises(SpecError, match="for roc_auc more is better; set at_least in the gate, not at_most"):
        a_classifier(gate=Gate(at_most=0.1))
    with pytest.raises(SpecError, match="for log_loss less is better; set at_most in the gate, not at_least"):
        a_classifier(metric="log_loss")


@pytest.mark.parametrize(
    ("part", "fields", "sentence"),
    [
        (Gate, {}, "gate: at_most is None and at_least is None; set exactly one of them"),
        (Gate, {"at_most": 1.0, "at_least": 0.0}, "gate: at_most is 1.0 and at_least is 0.0; set exactly one"),
        (Gate, {"at_most": 1.0, "tolerance": -0.1}, "gate: tolerance is -0.1; it is a distance, so set 0 or more"),
        (Gate, {"at_most": 1.0, "slice_tolerance": -1}, "gate: slice_tolerance is -1; it is a distance"),
        (Gate, {"at_most": 1.0, "slice_rows": 1}, "gate: slice_rows is 1; an interval needs at least 2 rows"),
        (Gate, {"at_most": 1.0, "slices": "town"}, "gate: slices is 'town'; use a tuple"),
        (Gate, {"at_most": 1.0, "slices": ("town", "town")}, "gate: slices lists 'town' twice"),
        (Holdout, {"fraction": 0}, "holdout: fraction is 0; set a part of the rows, between 0 and 1, such as 0.2"),
        (Holdout, {"fraction": 20}, "holdout: fraction is 20"),
        (Holdout, {"days": 0}, "holdout: days is 0; set the length of the newest window, such as 90"),
        (
            Cron,
            {"expression": "weekly"},
            "'weekly' is not a cron expression; give five fields, such as '0 3",
        ),
        (Cron, {"expression": "0 3 * * 1", "timezone": "Chicago"}, "'Chicago' is not a time zone; give an IANA name"),
        (Cron, {"expression": "0 3 * * 1", "timezone": "America"}, "'America' is not a time zone"),
        (Cron, {"expression": "0 3 * * 1", "timezone": "../UTC"}, "'../UTC' is not a time zone"),
        (Limits, {"max_rows": 0}, "limits: max_rows is 0; set 1 or more"),
        (Limits, {"max_body_bytes": -1}, "limits: max_body_bytes is -1; set 1 or more"),
        (Limits, {"max_concurrency": 0}, "limits: max_concurrency is 0; set 1 or more"),
        (Limits, {"timeout_seconds": 61.0}, "limits: timeout_seconds is 61.0; set more than 0 and at most 60"),
    ],
)
def test_a_part_of_a_spec_that_makes_no_sense_is_refused(part, fields, sentence):
    with pytest.raises(SpecError, match=sentence):
        part(**fields)


def test_a_metric_says_which_way_is_better():
    assert not a_spec().greater_is_better
    assert a_classifier().greater_is_better


def test_a_spec_cannot_be_changed_once_built():
    with pytest.raises(AttributeError):
        a_spec().target = "area"


@pytest.mark.parametrize("name", model_names())
def test_every_model_of_the_project_loads(name):
    assert load_spec(name).name == name


def test_a_model_that_does_not_exist_is_refused_with_the_close_name():
    with pytest.raises(SpecError, match="no model 'house_price' in pipeline/models; did you mean 'house_prices'"):
        load_spec("house_price")
    with pytest.raises(SpecError, match=r"no model 'zzz' in pipeline/models; there are: .*breast_cancer, house_prices"):
        load_spec("zzz")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"pipeline/models/other.py has no `spec = ModelSpec\(...\)`; add it"),
        (
            "from pipeline.models.breast_cancer import spec",
            "holds the spec of 'breast_cancer'; give file and",
        ),
    ],
)
def test_a_module_without_a_spec_of_its_name_is_refused(content, sentence, tmp_path, monkeypatch):
    models = tmp_path / "pipeline" / "models"
    models.mkdir(parents=True)
    (models / "breast_cancer.py").write_text((CODE_FOLDER / "pipeline" / "models" / "breast_cancer.py").read_text())
    (models / "other.py").write_text(content)
    monkeypatch.setenv("EVERGREEN_PROJECT", str(tmp_path))
    with pytest.raises(SpecError, match=sentence):
        load_spec("other")


def test_importing_the_spec_imports_nothing_heavy(run_python):
    code = "import sys, pipeline.spec; print({'sklearn', 'pandas', 'pyarrow', 'scipy', 'joblib'} & set(sys.modules))"
    assert run_python(code) == "set()"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"psi": 0}, "drift: psi is 0; set more than 0"),
        ({"nulls": -0.1}, "drift: nulls is -0.1; set more than 0"),
        ({"p": 1}, "drift: p is 1; set a probability, between 0 and 1, such as 0.001"),
    ],
)
def test_thresholds_of_drift_that_nothing_could_keep_are_refused(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        Drift(**changes)
