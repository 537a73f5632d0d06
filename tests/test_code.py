import shutil

import pytest
from conftest import CHECKOUT

from pipeline.code import code_digest, imported_packages, local_modules, pins
from pipeline.errors import SpecError


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project's pipeline with a model that imports two modules of its own."""
    shutil.copytree(CHECKOUT / "pipeline", tmp_path / "a" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    models = tmp_path / "a" / "pipeline" / "models"
    (models / "mine.py").write_text("from pipeline import prices\nfrom . import words\n")
    (models / "words.py").write_text("def later():\n    import pipeline.deep\n")
    (tmp_path / "a" / "pipeline" / "prices.py").write_text("PRICE = 1\n")
    (tmp_path / "a" / "pipeline" / "deep.py").write_text("import numpy\n")
    (tmp_path / "a" / "pipeline" / "unrelated.py").write_text("X = 1\n")
    return tmp_path / "a"


@pytest.mark.parametrize("file", ["models/mine.py", "models/words.py", "prices.py", "deep.py", "train.py", "gate.py"])
def test_one_changed_byte_in_what_a_model_imports_changes_its_code_digest(file, checkout):
    before = code_digest("mine", checkout)
    path = checkout / "pipeline" / file
    path.write_text(path.read_text() + "#")
    assert code_digest("mine", checkout) != before


@pytest.mark.parametrize("file", ["unrelated.py", "models/house_prices.py", "models/breast_cancer.py", "ames.py"])
def test_what_a_model_does_not_import_does_not_change_its_code_digest(file, checkout):
    before = code_digest("mine", checkout)
    path = checkout / "pipeline" / file
    path.write_text(path.read_text() + "#")
    assert code_digest("mine", checkout) == before


def test_a_model_that_imports_what_its_package_would_not_carry_is_refused(checkout):
    (checkout / "shared.py").write_text("X = 1\n")
    (checkout / "pipeline" / "prices.py").write_text("import shared\n")
    with pytest.raises(SpecError, match=r"mine imports shared from shared\.py, .* move it into pipeline/"):
        code_digest("mine", checkout)


def test_neither_the_place_of_the_checkout_nor_the_times_of_its_files_change_the_code_digest(checkout, tmp_path):
    before = code_digest("mine", checkout)
    shutil.copytree(checkout, tmp_path / "elsewhere" / "b", copy_function=shutil.copyfile)
    assert code_digest("mine", tmp_path / "elsewhere" / "b") == before


def test_two_models_of_different_code_have_different_digests(checkout):
    assert code_digest("mine", checkout) != code_digest("breast_cancer", checkout)


def test_local_modules_are_found_through_every_way_to_import_them(checkout):
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
