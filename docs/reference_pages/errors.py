"""reference/errors.md: every error code, from docs/errors/*.toml, and the default codes of the classes."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pipeline.errors
from docs.reference_pages.markdown import CHECKOUT, code, modules, page, paragraphs, sentence, table
from pipeline.errors import EvergreenError

CATALOGUES = CHECKOUT / "docs" / "errors"
COMMAND_LINE = {
    "usage": "The command line is wrong. The message says what to give instead.",
    "internal": "Something broke that evergreen does not raise itself. The message is that of the library.",
}
"""What `--json` prints for errors that are not EvergreenErrors; see `_print_error` in flows/cli/main.py."""
INTERNAL = {"UncompilableError", "UnanswerableError"}
"""Control flow of the compiler: nobody sees these, so they need no codes."""
_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


@dataclass(frozen=True)
class Site:
    """A place in the code that makes an error.

    Attributes:
        file: the path, from the checkout.
        line: the line.
        error: the name of the class.
        codes: the codes it may give there; empty if it gives none and the class's own counts.
    """

    file: str
    line: int
    error: str
    codes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.error}"


def classes() -> dict[str, type[EvergreenError]]:
    """Return the classes of pipeline/errors.py, by name."""
    found = vars(pipeline.errors).values()
    return {one.__name__: one for one in found if isinstance(one, type) and issubclass(one, EvergreenError)}


def class_codes() -> dict[str, str]:
    """Return the default code of each class and what it means."""
    return {one.code: paragraphs(one.__doc__) for one in classes().values() if "code" in vars(one)}


def catalogues() -> dict[str, dict[str, str]]:
    """Return what each file of docs/errors says: a sentence or two by code."""
    return {path.name: tomllib.loads(path.read_text()) for path in sorted(CATALOGUES.glob("*.toml"))}


def error_names() -> set[str]:
    """Return the names of all classes of the rooms that are EvergreenErrors, wherever they are defined."""
    bases = {
        node.name: {_name(base) for base in node.bases}
        for tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"EvergreenError"}
    while more := {name for name, above in bases.items() if above & known} - known:
        known |= more
    return known - INTERNAL


@cache
def sites() -> list[Site]:
    """Return every place that makes an error, `raise SpecError` without a call included."""
    known = error_names()
    return [site for file, tree in modules().items() for site in _sites(file, tree, known)]


def _sites(file: str, tree: ast.Module, known: set[str]) -> Iterator[Site]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _name(node.func)) in known:
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"] or node.args[1:]
            # A variable stands for a code that came from somewhere else, such as another process.
            other = tuple(f"({ast.unparse(one)})" for one in given if not _codes(one))
            yield Site(file, node.lineno, name, tuple(word for one in given for word in _codes(one)) or other)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in known:
            yield Site(file, node.lineno, node.exc.id, ())


def _name(value: ast.expr) -> str:
    """Return the last part of a name such as `errors.SpecError`; empty if it is something else."""
    return value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""


def _codes(value: ast.expr) -> list[str]:
    """Return the codes that an expression may be, such as both of `"a.b" if x else "a.c"`."""
    words = (one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str))
    return [word for word in words if _CODE.fullmatch(word)]


def given_codes() -> set[str]:
    """Return every code that the rooms give: by `code=`, by `code = ...`, or by a "code" in what a subprocess sends."""
    given = {word for site in sites() for word in site.codes if _CODE.fullmatch(word)}
    for tree in modules().values():
        for node in ast.walk(tree):
            for value in _code_values(node):
                given.update(_codes(value))
    return given


def _code_values(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that a piece of code names `code`."""
    if isinstance(node, ast.keyword):
        return [node.value] if node.arg == "code" else []
    if isinstance(node, ast.Assign):
        return [node.value] if any(isinstance(name, ast.Name) and name.id == "code" for name in node.targets) else []
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "code"]
    return []


def errors_page() -> str:
    """Return the page."""
    about = (
        "Every error that evergreen raises has a code, which stays the same if its sentence is reworded: `error.code` "
        "in the JSON of `--json` and in Python. The sentence names the thing, the value found and the way out."
    )
    named = [
        [code(name), code(one.code), paragraphs(one.__doc__)] for name, one in classes().items() if "code" in vars(one)
    ]
    by_area: dict[str, list[list[str]]] = defaultdict(list)
    for word, text in sorted(code_meanings().items()):
        by_area[word.partition(".")[0]].append([code(word), sentence(text)])
    sections = [f"## {area}\n\n{table(['code', 'meaning'], rows)}" for area, rows in by_area.items()]
    defaults = "## Classes\n\nAn error that gives no code of its own has that of its class.\n\n" + table(
        ["class", "default code", "meaning"], named
    )
    other = "## Others\n\n" + table(["code", "meaning"], [[code(word), text] for word, text in COMMAND_LINE.items()])
    return page("Errors", about, *sections, defaults, other)


def code_meanings() -> dict[str, str]:
    """Return what each code means; a catalogue's line counts more than the docstring of a class."""
    written = {word: text for texts in catalogues().values() for word, text in texts.items()}
    return class_codes() | written
