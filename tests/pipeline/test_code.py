import shutil

import pytest
from project import CHECKOUT

from pipeline import code
from pipeline.code import (
    EVERGREENS,
    ONLY_MAKES_A_MODEL,
    SERVES,
    code_digest,
    imported_packages,
    local_modules,
    own_modules,
    pins,
    serving_digest,
    serving_modules,
)
from pipeline.errors import SpecError

MINE = '''
"""My model."""

from sklearn.base import BaseEstimator

from pipeline import prices
from pipeline.spec import ModelSpec

from . import words

TOLERANCE = 0.1
FACTOR = 2


class Doubled(BaseEstimator):
    """Doubles."""

    def transform(self, X):
        return X * FACTOR  # twice


weight = 0.5
spec = ModelSpec(
    name="mine",
    candidates={"weighted": Doubled(weight)},
    gate=Gate(at_most=1.0, tolerance=TOLERANCE),
    value=BusinessValue(function=lambda y, p: y - p, unit="USD"),
)
'''


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a package carries, with a model that imports two modules of its own."""
    for room in ("pipeline", "bentos"):
        kept = shutil.ignore_patterns("__pycache__", "web")
        shutil.copytree(CHECKOUT / room, tmp_path / "a" / room, ignore=kept)
    models = tmp_path / "a" / "pipeline" / "models"
    (models / "mine.py").write_text(MINE)
    (models / "words.py").write_text("def later():\n    import pipeline.deep\n")
    (tmp_path / "a" / "pipeline" / "prices.py").write_text("PRICE = 1\n")
    (tmp_path / "a" / "pipeline" / "deep.py").write_text("import numpy\n")
    (tmp_path / "a" / "pipeline" / "unrelated.py").write_text("X = 1\n")
    return tmp_path / "a"


def edit(checkout, file, old, new):
    path = checkout / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def append(checkout, file, text):
    path = checkout / file
    path.write_text(path.read_text() + text)


def digests(checkout):
    return code_digest("mine", checkout), serving_digest("mine", checkout)


MODEL = "pipeline/models/mine.py"
HARMLESS = {
    "a docstring of the model": lambda at: edit(at, MODEL, '"""Doubles."""', '"""Makes twice as much."""'),
    "no docstring any more": lambda at: edit(at, MODEL, '    """Doubles."""\n\n', ""),
    "a comment of the model": lambda at: edit(at, MODEL, "  # twice", "  # two times"),
    "its formatting": lambda at: edit(at, MODEL, "return X * FACTOR", "return (\n            X * FACTOR\n        )"),
    "a name that only the spec reads": lambda at: edit(at, MODEL, "TOLERANCE", "MOST_WORSE"),
    "a value in the spec, which has digests of its own": lambda at: edit(at, MODEL, "at_most=1.0", "at_most=2.0"),
    "a value that only the spec reads": lambda at: edit(at, MODEL, "weight = 0.5", "weight = 0.7"),
    "a model that imports evergreen from elsewhere": lambda at: edit(at, MODEL, "pipeline.spec", "pipeline.spec.model"),
    "a docstring of the gate": lambda at: edit(at, "pipeline/gate.py", '"""Evaluation in', '"""An evaluation in'),
    "a comment in the split": lambda at: append(at, "pipeline/split.py", "# the end\n"),
    "a faster way in the metrics": lambda at: append(at, "pipeline/metrics.py", "CACHE = {}\n"),
    "an error sentence of the split": lambda at: edit(at, "pipeline/split.py", "use more rows", "add rows"),
    "an error sentence of the package": lambda at: edit(at, "pipeline/manifest.py", "lacks the file", "is without"),
    "a docstring of the endpoint": lambda at: edit(at, "bentos/endpoint/formats.py", '"""JSON and', '"""Both JSON and'),
    "a module that moved": lambda at: moved(at, "pipeline/format_numbers.py", "pipeline/format_numbers.py"),
    "a model beside it": lambda at: append(at, "pipeline/models/breast_cancer.py", "X = 1\n"),
    "what nothing imports": lambda at: append(at, "pipeline/unrelated.py", "Y = 2\n"),
    "code that no package carries": lambda at: append(at, "bentos/ledger/releases.py", "Y = 2\n"),
}
DECIDING = {
    "an operator in the model": lambda at: edit(at, MODEL, "X * FACTOR", "X + FACTOR"),
    "a number that the model's code reads": lambda at: edit(at, MODEL, "FACTOR = 2", "FACTOR = 3"),
    "a function in the spec": lambda at: edit(at, MODEL, "y - p", "p - y"),
    "a name of what is pickled": lambda at: edit(at, MODEL, "Doubled", "Twice"),
    "a helper's number": lambda at: edit(at, "pipeline/prices.py", "PRICE = 1", "PRICE = 2"),
    "what is done when the model is imported": lambda at: append(at, MODEL, "print(spec)\n"),
    "what a helper imports, however late": lambda at: append(at, "pipeline/deep.py", "X = 1\n"),
}
SERVING = {
    "a parser": lambda at: append(at, "bentos/endpoint/parse_strict.py", "LIMIT = 3\n"),
    "an operator of the compiled plan": lambda at: append(at, "pipeline/compiled/operations.py", "LIMIT = 3\n"),
    "what is shown in an error": lambda at: edit(at, "pipeline/manifest.py", "{extra[0]}", "{len(extra)} files"),
    "the page": lambda at: append(at, "bentos/static/page.js", "\n"),
}


def moved(checkout, old, new):
    """Move a module, and change every mention of it."""
    (checkout / old).rename(checkout / new)
    before, after = (path.removesuffix(".py").replace("/", ".") for path in (old, new))
    for path in checkout.rglob("*.py"):
        path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize("change", HARMLESS)
def test_an_edit_that_computes_the_same_changes_no_digest(change, checkout):
    before = digests(checkout)
    HARMLESS[change](checkout)
    assert digests(checkout) == before


def test_a_deciding_module_that_moved_changes_no_digest(checkout, monkeypatch):
    before = digests(checkout)
    moved(checkout, "pipeline/importance.py", "pipeline/permutation.py")
    # In `pipeline/code.py` it is mentioned, too.
    names = [name.replace("importance", "permutation") for name in ONLY_MAKES_A_MODEL]
    monkeypatch.setattr(code, "ONLY_MAKES_A_MODEL", names)
    assert digests(checkout) == before


@pytest.mark.parametrize("change", DECIDING)
def test_an_edit_to_what_a_model_does_trains_again(change, checkout):
    code_before, serving_before = digests(checkout)
    DECIDING[change](checkout)
    code_after, serving_after = digests(checkout)
    assert code_after != code_before
    assert serving_after == serving_before


@pytest.mark.parametrize("change", SERVING)
def test_an_edit_to_what_only_answers_packages_again(change, checkout):
    code_before, serving_before = digests(checkout)
    SERVING[change](checkout)
    code_after, serving_after = digests(checkout)
    assert code_after == code_before
    assert serving_after != serving_before


def test_a_raised_decision_version_trains_again_and_packages_nothing_by_itself(checkout, monkeypatch):
    code_before, serving_before = digests(checkout)
    monkeypatch.setattr(code, "DECISION_VERSION", code.DECISION_VERSION + 1)
    code_after, serving_after = digests(checkout)
    assert code_after != code_before
    assert serving_after == serving_before


@pytest.mark.parametrize(("package", "trains"), [("numpy", True), ("scikit-learn", True), ("uvicorn", False)])
def test_another_version_of_what_fits_trains_again_and_of_what_only_serves_packages_again(
    package, trains, checkout, monkeypatch
):
    code_before, serving_before = digests(checkout)

    class Newer:
        def __init__(self, real):
            self.version, self.requires = "99.0", real.requires

    real = code.distribution
    monkeypatch.setattr(code, "distribution", lambda name: Newer(real(name)) if name == package else real(name))
    code_after, serving_after = digests(checkout)
    assert (code_after != code_before, serving_after != serving_before) == (trains, not trains)


def test_a_model_that_imports_what_its_package_would_not_carry_is_refused(checkout):
    (checkout / "shared.py").write_text("X = 1\n")
    (checkout / "pipeline" / "prices.py").write_text("import shared\n")
    with pytest.raises(SpecError, match=r"mine imports shared from shared\.py, .* move it into pipeline/"):
        code_digest("mine", checkout)


def test_neither_the_place_of_the_checkout_nor_the_times_of_its_files_change_a_digest(checkout, tmp_path):
    before = digests(checkout)
    shutil.copytree(checkout, tmp_path / "elsewhere" / "b", copy_function=shutil.copyfile)
    assert digests(tmp_path / "elsewhere" / "b") == before


def test_two_models_of_different_code_have_different_digests(checkout):
    assert code_digest("mine", checkout) != code_digest("breast_cancer", checkout)


def test_modules_of_a_models_own_are_what_it_imports_and_evergreen_does_not(checkout):
    assert set(own_modules("mine", checkout)) == {
        "pipeline.models",
        "pipeline.models.mine",
        "pipeline.models.words",
        "pipeline.prices",
        "pipeline.deep",
    }
    assert set(own_modules("house_prices", checkout)) == {
        "pipeline.models",
        "pipeline.models.house_prices",
        "pipeline.models._ames",
    }


def test_what_answers_is_carried_and_trains_nothing():
    found = serving_modules(CHECKOUT)
    assert {
        "bentos.endpoint.parse_strict",
        "bentos.endpoint.parse_fast",
        "pipeline.compiled.operations",
        "pipeline.manifest",
    } <= set(found)
    assert not {
        "pipeline.train",
        "pipeline.gate",
        "bentos.ledger.database",
        "bentos.ledger.releases",
        "pipeline.models",
    } & set(found)


@pytest.mark.parametrize("name", sorted({*SERVES, *ONLY_MAKES_A_MODEL, *EVERGREENS}))
def test_modules_named_by_the_digests_are_there(name):
    assert local_modules([name], CHECKOUT)


def test_local_modules_are_found_through_every_way_to_import_them(checkout):
    (checkout / MODEL).write_text("from pipeline import prices\nfrom . import words\n")
    found = local_modules(["pipeline.models.mine"], checkout)
    assert set(found) == {
        "pipeline",
        "pipeline.models",
        "pipeline.models.mine",
        "pipeline.models.words",
        "pipeline.prices",
        "pipeline.deep",
    }
    assert found["pipeline.deep"] == checkout / "pipeline" / "deep.py"


def test_packages_are_named_by_the_distribution_that_provides_them_and_those_of_python_are_none(tmp_path):
    (tmp_path / "x.py").write_text("import os, numpy as np\ndef later():\n    from sklearn.linear_model import Ridge\n")
    assert imported_packages([tmp_path / "x.py"]) == {"numpy", "scikit-learn"}


def test_pins_hold_all_that_a_package_requires_and_nothing_that_is_not_installed():
    import joblib
    import sklearn

    found = dict(pin.split("==") for pin in pins(["scikit-learn", "no-such-package"]))
    assert found["scikit-learn"] == sklearn.__version__
    assert found["joblib"] == joblib.__version__
    assert {"numpy", "scipy", "threadpoolctl"} <= set(found)
    # What only an extra asks for, such as scikit-learn's tests, is no requirement.
    assert "pytest" not in found
