"""Every example in a docstring is right; only modules that have one are imported for it."""

import doctest
from importlib import import_module

import pytest
from test_rooms import MODULES

WITH_EXAMPLES = [name for name, path in MODULES.items() if b">>> " in path.read_bytes()]


def test_there_are_examples():
    assert WITH_EXAMPLES


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_are_right(name):
    found = doctest.testmod(import_module(name))
    assert (found.failed, found.attempted > 0) == (0, True)
