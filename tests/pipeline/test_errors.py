"""The codes of errors: what programs and tests go by, while sentences may be reworded."""

import pickle

import pytest

from pipeline import errors
from pipeline.errors import DataError, EvergreenError, OvertakenError

CLASSES = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, EvergreenError)),
    key=lambda cls: cls.__name__,
)


def test_a_raise_site_gives_its_own_code():
    error = DataError("column 'x' is there twice", code="data.duplicate_column")
    assert (error.code, str(error)) == ("data.duplicate_column", "column 'x' is there twice")


def test_without_a_code_of_its_own_an_error_has_the_code_of_its_class():
    assert DataError("it is empty").code == "data.invalid"
    assert OvertakenError("another process came first").code == "release.overtaken"


def test_every_class_has_a_code_of_its_own_in_lower_case_words():
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(area.isidentifier() and problem.isidentifier() for area, _, problem in (c.partition(".") for c in codes))
    assert all(code == code.lower() for code in codes)


@pytest.mark.parametrize("code", [None, "source.no_such_bucket"])
def test_a_code_survives_the_way_from_one_process_to_another(code):
    error = errors.SourceError("no answer", code=code)
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), arrived.code) == (errors.SourceError, "no answer", error.code)
