"""Small pieces of Markdown, and what docstrings say: shared by the pages."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("pipeline", "expectations", "bentos", "flows")
MADE = "<!-- Made from the code by `python -m docs.generate`. Do not edit. -->"


def meanings(section: str, names: Iterable[str]) -> dict[str, str]:
    """Return what docs/meanings.toml says of each name, in their order.

    Raises ValueError when the section lacks one of them, or has a line of something else.
    """
    wanted = [*names]
    lines: dict[str, str] = tomllib.loads((CHECKOUT / "docs/meanings.toml").read_text(encoding="utf-8"))[section]
    if differs := sorted(lines.keys() ^ set(wanted)):
        raise ValueError(f"docs/meanings.toml: add or remove these lines of [{section}]: {', '.join(differs)}")
    return {name: lines[name] for name in wanted}


def page(title: str, *parts: str) -> str:
    """Return a page: its title, the note that it is generated, and its parts with empty lines between them."""
    return "\n\n".join([f"# {title}", MADE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; line breaks in cells become blanks, and pipes are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Return a text as code."""
    return f"`{text}`" if text else ""


def sentence(text: str) -> str:
    """Return a text that begins with a capital letter and ends with a full stop; code at its start stays as it is."""
    text = " ".join(text.split())
    if text and not text.startswith("`"):
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."


def paragraphs(docstring: str | None) -> str:
    """Return a docstring without its `Attributes:` section."""
    return re.split(r"^Attributes:\n", inspect.cleandoc(docstring or ""), maxsplit=1, flags=re.MULTILINE)[0].strip()


def attributes(docstring: str | None) -> dict[str, str]:
    """Return the lines of the `Attributes:` section of a docstring, by name.

    >>> attributes('''A thing.
    ...
    ... Attributes:
    ...     size: how large it is,
    ...         in bytes.
    ... ''')
    {'size': 'how large it is, in bytes.'}
    """
    _, found, section = inspect.cleandoc(docstring or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines() if found else ():
        if line and not line.startswith(" "):
            break
        if match := re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line):
            name, texts[name] = match[1], match[2].strip()
        elif name and line.strip():
            texts[name] += f" {line.strip()}"
    return texts


def described(owner: str | None, name: str) -> str:
    """Return what a class's docstring says of a field: its line of `Attributes:`, or the sentences that name it."""
    if text := attributes(owner).get(name):
        return sentence(text)
    said = [part for part in re.split(r"(?<=[.])\s+", " ".join(paragraphs(owner).split())) if f"`{name}`" in part]
    return " ".join(said)


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the rooms, by its path from the checkout; models are left out."""
    paths = [path for room in ROOMS for path in sorted((CHECKOUT / room).rglob("*.py"))]
    names = {path.relative_to(CHECKOUT).as_posix(): path for path in paths if "node_modules" not in path.parts}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in names.items()
        if not name.startswith(("pipeline/models/", "expectations/suites/"))
    }
