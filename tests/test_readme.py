"""What the README tells people to type exists, and what it says of outcomes is so."""

import json
import re
import shlex

import pytest
import typer
from project import CHECKOUT

from flows.cli.main import app
from flows.outcome import EXIT_CODES

README = (CHECKOUT / "README.md").read_text()
BLOCKS = [body for _, body in re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))
LINES = [line.strip() for text in (*BLOCKS, *INLINE) for line in text.splitlines()]
VERBS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))


def commands(program):
    """The arguments of every line of the README's code that calls a program."""
    words = [shlex.split(line, comments=True) for line in LINES if re.match(rf"(\$ )?(\S*/)?{program} ", line)]
    return [line[line.index(next(word for word in line if word.endswith(program))) + 1 :] for line in words]


def options(verb):
    return {option for parameter in VERBS[verb].params for option in parameter.opts} | {"--help"}


def test_the_readme_begins_with_make_run_and_make_test():
    assert commands("make")[:2] == [["run"], ["test"]]
    assert commands("evergreen")


@pytest.mark.parametrize("arguments", commands("make"), ids=" ".join)
def test_every_make_command_exists(arguments):
    targets = [word for word in arguments if "=" not in word]
    assert set(targets) <= TARGETS


@pytest.mark.parametrize("arguments", commands("evergreen"), ids=" ".join)
def test_every_evergreen_command_exists_with_its_options(arguments):
    verb, *rest = arguments
    assert verb in VERBS
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options(verb)


def test_every_option_named_in_the_text_is_one_of_some_command():
    # Those of other programs stand in their own lines.
    named = {word for text in INLINE for word in text.split() if re.fullmatch(r"--[a-z-]+", word)}
    assert named
    assert named <= {option for verb in VERBS for option in options(verb)}


def test_the_table_of_outcomes_has_every_outcome_with_its_exit_code():
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (\d) \|$", README, re.MULTILINE)
    assert {name: int(code) for name, code in rows} == EXIT_CODES


def test_every_file_of_the_project_that_is_named_is_there():
    rooms = r"(?:pipeline|expectations|bentos|flows|tests|bench)"
    named = {path for line in LINES for path in re.findall(rf"\b{rooms}/[\w/]+\.\w+", line) if "churn" not in path}
    assert named
    assert [path for path in sorted(named) if not (CHECKOUT / path).exists()] == []


def test_the_records_that_are_sent_as_an_example_have_what_the_model_requires():
    from pipeline.models.house_prices import spec

    bodies = [json.loads(body) for body in re.findall(r"--json '(\{.*?\})'", README)]
    assert bodies
    for record in (record for body in bodies for record in body["records"]):
        assert set(spec.required) <= set(record) <= set(spec.features)
