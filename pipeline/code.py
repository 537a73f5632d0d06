"""The code a model depends on: the project's own modules by their bytes, installed packages by their versions."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import resolve_name
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.errors import SpecError
from pipeline.project import find_module

MAKES_A_MODEL = ("pipeline.train", "pipeline.evaluate", "pipeline.gate", "pipeline.artifact")
"""Where the code of `pipeline/` that decides what a model is and whether it passes begins; what these import counts."""


def code_digest(model: str, checkout: Path) -> str:
    """Return the digest of the code that a model depends on, found below `checkout`.

    It covers the bytes of the model's module, of what it imports locally, of the parts of `pipeline/` that train and
    judge it, and the versions of the packages all these import; never the git commit or a file's time. Raises SpecError
    when the model imports what is outside of `pipeline/`, since no package carries that.
    """
    files = local_modules([f"pipeline.models.{model}", *MAKES_A_MODEL], checkout)
    for name, path in files.items():
        if name.partition(".")[0] != "pipeline":
            raise SpecError(
                f"{model} imports {name} from {path.name}, which its package would not carry; move it into pipeline/"
            )
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for pin in pins(imported_packages(files.values())):
        digest.update(f"{pin}\n".encode())
    return digest.hexdigest()


def local_modules(modules: Iterable[str], checkout: Path) -> dict[str, Path]:
    """Return the named modules and all they import from below `checkout`, directly or not, with their files."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or (path := find_module(name, checkout)) is None:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [package, *_imports(path, package)]
    return found


def imported_packages(files: Iterable[Path]) -> set[str]:
    """Return the installed distributions that provide what the files import, wherever in a file the import stands."""
    return packages_of(name for file in files for name in _imports(file, ""))


def packages_of(modules: Iterable[str]) -> set[str]:
    """Return the installed distributions that provide the named modules, the standard library and our own left out."""
    names = {name.partition(".")[0] for name in modules}
    # An editable install lists the project's own packages, which no requirement can name.
    return {
        provider
        for name in names - set(sys.stdlib_module_names)
        for provider in _providers().get(name, ())
        if provider != "evergreen"
    }


def pins(packages: Iterable[str]) -> tuple[str, ...]:
    """Return `name==version` for the installed packages and for all that they require here, sorted by name."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(package, frozenset()) for package in packages]
    done = set()
    while waiting:
        name, extras = waiting.pop()
        key = (canonicalize_name(name), extras)
        if key in done:
            continue
        done.add(key)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        found[key[0]] = installed.version
        for line in installed.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                waiting.append((needed.name, frozenset(needed.extras)))
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))


@cache
def _providers() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _imports(path: Path, package: str) -> Iterator[str]:
    """Yield every module name that a file may import; `from a import b` yields `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
