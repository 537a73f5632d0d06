"""The reference names everything: fields, commands, variables, outcomes, error codes, metrics and statuses."""

import ast
from dataclasses import dataclass, field

import pytest

from docs import generate
from docs.reference_pages import commands, environment, errors, http, markdown, metrics, outcomes, python, spec
from flows.outcome import EXIT_CODES
from pipeline.field_kinds import of_kind
from pipeline.metrics import METRICS


@pytest.fixture(scope="module")
def pages():
    return generate.markdown()


def first_cells(page):
    """The words in code at the start of each line of the tables of a page."""
    return {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("|")}


def test_the_checked_in_pages_are_those_of_the_code(pages):
    stale = [name for name, text in pages.items() if (generate.REFERENCE / name).read_text() != text]
    assert stale == [], "run `python -m docs.generate`"


def test_the_index_links_every_page(pages):
    assert {name for name in pages if f"]({name})" in pages["README.md"]} == pages.keys() - {"README.md"}


def test_the_spec_page_has_every_part_that_a_spec_may_hold():
    names = {part.__name__ for part in spec.parts()}
    assert {"ModelSpec", "Csv", "Sql", "DuckDb", "Function", "Gate", "Holdout", "Drift", "Monitor", "Cron"} <= names
    assert {"Regression", "BinaryClassification", "Slack", "Webhook", "Email", "Canary", "RequestLog"} <= names


def test_every_field_of_a_spec_and_of_its_parts_has_a_description():
    assert spec.undescribed() == []


@dataclass(frozen=True)
class Window:
    """Which rows count: those of the newest `days`.

    Attributes:
        rows: how many at most,
            in thousands.
    """

    days: int = field(metadata=of_kind("model"))
    rows: int = field(default=10 * 2, metadata=of_kind("operations"))
    zone: str = "UTC"
    kind: str = field(default="window", init=False)


def test_a_field_has_type_default_kind_and_the_line_of_the_docstring_that_describes_it():
    days, rows, zone = spec.fields_of(Window)
    assert (days.type, days.default, days.kind, days.text) == (
        *("int", "", "model"),
        "Which rows count: those of the newest `days`.",
    )
    assert (rows.default, rows.kind, rows.text) == ("10 * 2", "operations", "How many at most, in thousands.")
    assert (zone.default, zone.kind, zone.text) == ("'UTC'", None, "")


def test_every_command_and_option_has_help(pages):
    for name, command in commands.commands().items():
        assert command.help, name
        assert f"\n## {name}\n" in pages["commands.md"]
        for option in command.params:
            assert option.name == "help" or option.help, f"{name} {option.name}"
            assert all(f"`{word}" in pages["commands.md"] for word in option.opts if word.startswith("--"))


def test_every_environment_variable_that_the_code_names_is_described_and_no_other(pages):
    described = [name for names in environment.variables().values() for name in names]
    named = environment.named_in_code()
    assert {name: file for name, file in named.items() if name not in described} == {}, "add to docs/environment.toml"
    assert set(described) - named.keys() - environment.BY_LIBRARIES == set(), "no code names these any more"
    assert len(described) == len(set(described))
    assert set(described) <= first_cells(pages["environment.md"])


@pytest.mark.parametrize(
    "line",
    [
        'os.environ.get("SHOP_KEY", "")',
        'os.environ["SHOP_KEY"]',
        'os.getenv("SHOP_KEY")',
        "os.environ.pop(KEY, None)",
        '"SHOP_KEY" not in os.environ',
        'environment.get("SHOP_KEY")',
        'prefect_environment(settings)["SHOP_KEY"]',
        'key_env: str = field(default="SHOP_KEY")',
    ],
)
def test_a_variable_is_found_however_it_is_read(line):
    tree = ast.parse(f'KEY = "SHOP_KEY"\n{line}')
    assert set(environment._asked(tree, dict(environment._constants(tree)))) == {"SHOP_KEY"}


def test_every_status_that_the_endpoint_can_answer_and_every_path_is_in_the_reference(pages):
    statuses = http.statuses_in_code()
    assert {200, 304, 400, 401, 404, 405, 408, 413, 415, 429, 431, 499, 500, 503, 504} == statuses
    assert {str(status) for status in statuses} | http.routes().keys() <= first_cells(pages["http.md"])


def test_every_outcome_with_its_exit_code_is_in_the_reference(pages):
    for name, exits in EXIT_CODES.items():
        assert f"| `{name}` | {exits} |" in pages["outcomes.md"]


def test_every_number_that_a_command_exits_with_is_in_the_reference():
    tree = ast.parse((markdown.CHECKOUT / "flows/cli/main.py").read_text())
    exits = [node.args[0] for node in ast.walk(tree) if isinstance(node, ast.Call) and "Exit" in ast.unparse(node.func)]
    numbers = {one.value for node in exits for one in ast.walk(node) if isinstance(one, ast.Constant)}
    known = {*map(str, EXIT_CODES.values()), *outcomes.OTHER_EXIT_CODES}
    assert {str(number) for number in numbers if isinstance(number, int)} <= known


def test_every_metric_of_a_model_and_of_an_endpoint_is_in_the_reference(pages):
    counted = {one.describe()[0].name for one in metrics.families()}
    named = {name.removesuffix("_total") for name in first_cells(pages["metrics.md"])}
    assert METRICS.keys() | counted <= named
    assert {"evergreen_requests", "evergreen_prediction", "evergreen_predicted_labels"} <= counted


def test_every_name_of_the_front_door_is_in_the_reference(pages):
    assert {name for name in python.names() if f"\n## {name}\n" in pages["python.md"]} == python.names().keys()


def test_a_line_that_is_missing_or_not_used_is_named():
    with pytest.raises(ValueError, match=r"these lines of \[outcome\]: lost, released"):
        markdown.meanings("outcome", [*(EXIT_CODES.keys() - {"released"}), "lost"])


def test_every_error_code_that_the_code_gives_has_a_line(pages):
    known = errors.code_meanings()
    assert {code for code in errors.given_codes() if code not in known} == set(), "add them to docs/errors/*.toml"
    assert known.keys() <= first_cells(pages["errors.md"])


def test_every_line_of_the_error_catalogues_is_used_and_no_code_is_in_two_files():
    catalogues = errors.catalogues()
    used = errors.given_codes() | errors.class_codes().keys()
    assert {file: sorted(lines.keys() - used) for file, lines in catalogues.items() if lines.keys() - used} == {}
    every = {code: [file for file, lines in catalogues.items() if code in lines] for code in used}
    assert {code: files for code, files in every.items() if len(files) > 1} == {}


def test_every_error_that_is_raised_gives_a_code():
    assert [str(site) for site in errors.sites() if not site.codes] == []


def test_the_sites_that_make_an_error_are_found_with_the_codes_they_give():
    tree = ast.parse(
        'raise SpecError("no", code="spec.empty")\n'
        'raise SpecError("no", code="spec.small" if x else "spec.large")\n'
        'raise errors.DataError("no")\n'
        "raise SpecError\n"
        "raise kind(message, code=code)\n"
        "raise ValueError('no')\n"
    )
    found = list(errors._sites("a.py", tree, {"SpecError", "DataError"}))
    assert sorted((site.line, site.error, site.codes) for site in found) == [
        (1, "SpecError", ("spec.empty",)),
        (2, "SpecError", ("spec.small", "spec.large")),
        (3, "DataError", ()),
        (4, "SpecError", ()),
    ]


def test_errors_of_every_room_count_and_those_inside_the_compiler_do_not():
    names = errors.error_names()
    assert {"EvergreenError", "SpecError", "RetriesExhaustedError", "FormatError"} <= names
    assert not {"UncompilableError", "UnanswerableError", "ValueError"} & names
