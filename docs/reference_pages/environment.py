"""reference/environment.md: every environment variable, from docs/environment.toml; and where the code names them."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from docs.reference_pages.markdown import CHECKOUT, code, modules, page, table

SECTIONS = {
    "project": ("Project and state", "Read by every command."),
    "endpoint": ("Endpoint", "Set these for `serve`, `up` and containers."),
    "package": ("Inside a package", "`serve`, `up` and an export set these themselves."),
    "runs": ("Runs and Prefect", "Set what you want otherwise: evergreen keeps every value that you have set."),
    "tests": ("Tests", "Read by the tests of evergreen alone."),
}
BY_LIBRARIES = {"OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER"}
"""Read by a library alone; no line of evergreen names them."""
_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|PYTHONPATH|MPLCONFIGDIR")
_OURS = re.compile(r"EVERGREEN_[A-Z]+(?:_[A-Z]+)*")
_SET = re.compile(
    r"PREFECT_[A-Z_]+|[A-Z]+_ANALYTICS_ENABLED|(\w+_)?DO_NOT_TRACK|BENTOML_HOME|OMP_NUM_THREADS|PYTHONPATH|MPLCONFIGDIR"
)


def variables() -> dict[str, dict[str, str]]:
    """Return what each variable means, by section and name."""
    found: dict[str, dict[str, str]] = tomllib.loads((CHECKOUT / "docs/environment.toml").read_text())
    return found


def named_in_code() -> dict[str, str]:
    """Return every variable that evergreen reads or sets, and a file that does.

    These are: what is asked of `os.environ` or of a mapping named like it, by a literal or by a constant; the fields
    of `Settings`; the defaults of `key_env` fields; every name that begins with EVERGREEN_, in tests and templates too.
    """
    from pipeline.settings import Settings

    found = {f"EVERGREEN_{name.upper()}": "pipeline/settings.py" for name in Settings.model_fields}
    constants = {name: value for tree in modules().values() for name, value in _constants(tree)}
    for file, tree in modules().items():
        for name in _asked(tree, constants):
            found.setdefault(name, file)
    for path in _texts():
        for name in _OURS.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, path.relative_to(CHECKOUT).as_posix())
    return found


def _texts() -> Iterator[Path]:
    """Yield what is not a module of the rooms, but may name variables: templates, the page's sources, the tests."""
    for pattern in ("Makefile", "flows/exported/**/*", "tests/conftest.py", "tests/support/*.py"):
        yield from (path for path in sorted(CHECKOUT.glob(pattern)) if path.is_file() and "pycache" not in str(path))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from ((one.id, node.value.value) for one in node.targets if isinstance(one, ast.Name))


def _asked(tree: ast.Module, constants: dict[str, str]) -> Iterator[str]:
    """Yield the variables that a module asks an environment for, or sets."""
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        match node:
            case ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault", value=mapping), args=[first, *_]):
                asked = [first] if _is_environment(mapping) else []
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[first, *_]):
                asked = [first]
            case ast.Subscript(value=mapping, slice=first):
                asked = [first] if _is_environment(mapping) else []
            case ast.Compare(left=first, ops=[ast.In() | ast.NotIn()], comparators=[mapping]):
                asked = [first] if _is_environment(mapping) else []
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(keywords=keywords)) if name.endswith("_env"):
                asked = [keyword.value for keyword in keywords if keyword.arg == "default"]
            case ast.Constant(value=str(word)) if _OURS.fullmatch(word) or _SET.fullmatch(word):
                yield word
        for one in asked:
            text = constants.get(one.id) if isinstance(one, ast.Name) else getattr(one, "value", None)
            if isinstance(text, str) and _NAME.fullmatch(text):
                yield text


def _is_environment(mapping: ast.expr) -> bool:
    return re.search(r"\benv(iron|ironment)?\b|_environment\(", ast.unparse(mapping)) is not None


def environment_page() -> str:
    """Return the page."""
    about = (
        "Secrets of sources and of notifications are in variables that the spec names: `url_env`, `key_env`, `${NAME}` "
        "in an address. Object storage looks for its own, such as `AWS_ACCESS_KEY_ID`."
    )
    sections = [
        f"## {SECTIONS[section][0]}\n\n{SECTIONS[section][1]}\n\n"
        + table(["variable", "meaning"], [[code(name), text] for name, text in names.items()])
        for section, names in variables().items()
    ]
    return page("Environment variables", about, *sections)
