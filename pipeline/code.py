"""Digests of the code a model depends on: its own modules by syntax, evergreen by a number, packages by version."""

import ast
import hashlib
import sys
from collections.abc import Collection, Iterable
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import resolve_name
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.decision_version import DECISION_VERSION
from pipeline.errors import SpecError
from pipeline.project import code_folder, find_module

ROOMS = ("pipeline", "expectations", "bentos", "flows")
FITTED_WITH = ("numpy", "scipy", "scikit-learn", "pandas")
"""Packages that every model is fitted with. pyarrow only reads rows, which the snapshot's digest covers."""
SERVES = ("bentos.service", "bentos.worker", "bentos.score", "pipeline.predict_in_package")
"""Modules that predict inside a package; they and their imports are the serving code."""
ONLY_MAKES_A_MODEL = (
    "pipeline.code",
    "pipeline.decision_version",
    "pipeline.evaluate",
    "pipeline.field_kinds",
    "pipeline.gate",
    "pipeline.importance",
    "pipeline.incremental",
    "pipeline.learner",
    "pipeline.metrics",
    "pipeline.sample",
    "pipeline.ingest_cache",
    "pipeline.snapshot",
    "pipeline.sources",
    "pipeline.spec",
    "pipeline.split",
    "pipeline.train",
)
"""Modules that a package contains but does not run to predict. DECISION_VERSION stands for them."""
EVERGREENS = (*SERVES, *ONLY_MAKES_A_MODEL, "pipeline.artifact", "pipeline.reproduce")
"""Evergreen's own modules, with all that they import; what else a model imports from `pipeline/` is its own."""
MODELS = "pipeline.models"


def code_digest(model: str, checkout: Path) -> str:
    """Return the digest of the code that decides a model, found below `checkout`.

    It covers the model's own modules as syntax trees, evergreen's DECISION_VERSION, and the versions of the packages
    that the model is fitted with. Comments, docstrings, formatting, git commit and file times do not count. Statements
    that only build the spec do not count either, since the spec has its own digests. Raises SpecError if the model
    imports a module outside `pipeline/`, which its package would not contain.
    """
    own = own_modules(model, checkout)
    digest = hashlib.sha256(f"decisions {DECISION_VERSION}\n".encode())
    for name, path in sorted(own.items()):
        digest.update(f"{name} {_hashed(_of_a_model(path))}\n".encode())
    for pin in pins({*FITTED_WITH, *imported_packages(own.values())}):
        digest.update(f"{pin}\n".encode())
    return digest.hexdigest()


def serving_digest(model: str, checkout: Path) -> str:
    """Return the digest of the code that a package of the model predicts with, but not of what decides the model.

    It covers evergreen's serving modules as syntax trees, the files of the page, and the versions of the packages that
    only these need. Comments, docstrings, formatting, the words of raised errors and a module's location do not count.
    """
    files = serving_modules(checkout)
    digest = hashlib.sha256()
    for tree in sorted(_hash_of_evergreen(path.read_bytes()) for path in files.values()):
        digest.update(f"{tree}\n".encode())
    static = code_folder(checkout) / "bentos" / "static"
    for path in sorted(static.rglob("*")):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(static).as_posix()} {content}\n".encode())
    fitted_with = pins({*FITTED_WITH, *imported_packages(own_modules(model, checkout).values())})
    for pin in serving_pins(files.values()):
        if pin not in fitted_with:
            digest.update(f"{pin}\n".encode())
    return digest.hexdigest()


def own_modules(model: str, checkout: Path) -> dict[str, Path]:
    """Return the module of a model and all local modules it imports that are not evergreen's, with their files.

    Raises SpecError if one of them is outside `pipeline/`.
    """
    evergreens = {*local_modules(EVERGREENS, checkout)}
    found = local_modules([f"{MODELS}.{model}"], checkout, without=evergreens - {MODELS})
    for name, path in found.items():
        if name.partition(".")[0] != "pipeline":
            raise SpecError(
                f"{model} imports {name} from {path.name}, which its package would not contain; move it into pipeline/",
                code="spec.import_outside_pipeline",
            )
    return found


def serving_modules(checkout: Path) -> dict[str, Path]:
    """Return evergreen's modules that predict inside a package, with their files."""
    found = local_modules(SERVES, checkout, without=ONLY_MAKES_A_MODEL)
    return {name: path for name, path in found.items() if not f"{name}.".startswith(f"{MODELS}.")}


def serving_pins(files: Iterable[Path]) -> tuple[str, ...]:
    """Return the pins of what serving files import, of BentoML, and of what uvicorn uses if it is installed."""
    return pins({*imported_packages(files), "bentoml", "httptools", "uvloop"})


def local_modules(modules: Iterable[str], checkout: Path, without: Collection[str] = ()) -> dict[str, Path]:
    """Return the named modules and all they import from below `checkout`, directly or not, with their files.

    Modules in `without` are left out, and what only they import.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name in without or (path := find_module(name, checkout)) is None:
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


# Cached by content, not by path: a package is built from a copy of the checkout.
@lru_cache(maxsize=1024)
def _parsed(content: bytes) -> ast.Module:
    """Return a syntax tree, which callers share and must not change."""
    return ast.parse(content)


def _imports(path: Path, package: str) -> tuple[str, ...]:
    """Return every module name that a file may import; `from a import b` gives `a` and `a.b`."""
    return _imported(path.read_bytes(), package)


@lru_cache(maxsize=1024)
def _imported(content: bytes, package: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(_parsed(content)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            found += (base, *(f"{base}.{alias.name}" for alias in node.names))
    return tuple(found)


def _hashed(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _of_a_model(path: Path) -> list[str]:
    """Describe a model's own module, except for the statements that only build the spec."""
    body = [node for node in _parsed(path.read_bytes()).body if not _is_docstring(node)]
    builds = _only_build_the_spec(body)
    parts: list[str] = []
    for position, node in enumerate(body):
        if position in builds:
            # The spec's digests have its values, but of a function only the name, so lambdas are described here.
            for inner in ast.walk(node):
                if isinstance(inner, ast.Lambda):
                    _describe(inner, parts)
        elif not _imports_evergreen(node):
            _describe(node, parts)
    return parts


def _only_build_the_spec(body: list[ast.stmt]) -> set[int]:
    """Return the positions of `spec = ...` and of assignments that only the spec reads, directly or indirectly."""
    targets = {position: names for position, node in enumerate(body) if (names := _assigned(node))}
    builds = {position for position, names in targets.items() if names == {"spec"}}
    if not builds:
        return set()
    reads = {position: _read(node) for position, node in enumerate(body)}
    read_by_lambdas = {
        position: set().union(*(_read(inner) for inner in ast.walk(node) if isinstance(inner, ast.Lambda)), set())
        for position, node in enumerate(body)
    }
    while True:
        read_by_spec = set().union(*(reads[position] for position in builds))
        # A lambda in the spec reads its names when it is called, so these do more than build the spec.
        read_by_others = set().union(
            *(read_by_lambdas[position] if position in builds else reads[position] for position in reads)
        )
        more = {
            position
            for position, names in targets.items()
            if position not in builds and names & read_by_spec and not names & read_by_others
        }
        if not more:
            return builds
        builds |= more


def _assigned(node: ast.stmt) -> set[str]:
    """Return the names that a statement assigns; none if it does anything else, too."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    else:
        return set()
    return (
        {target.id for target in targets if isinstance(target, ast.Name)}
        if all(isinstance(target, ast.Name) for target in targets)
        else set()
    )


def _read(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)}


@lru_cache(maxsize=1024)
def _hash_of_evergreen(content: bytes) -> str:
    """Hash a module of evergreen, without the locations of evergreen's modules and the words of errors."""
    parts: list[str] = []
    _describe(_parsed(content), parts, moved=True)
    return _hashed(parts)


def _imports_evergreen(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        names = [node.module or ""] if not node.level else []
        return any(name.partition(".")[0] in ROOMS and not f"{name}.".startswith(f"{MODELS}.") for name in names)
    return isinstance(node, ast.Import) and all(alias.name.partition(".")[0] in ROOMS for alias in node.names)


def _is_docstring(node: ast.AST) -> bool:
    """Return whether a statement is only a text, such as the docstring of a function or a variable."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _describe(node: ast.AST, parts: list[str], moved: bool = False, raised: bool = False) -> None:
    """Add a description of a syntax tree without positions and docstrings, the same in every version of Python.

    With `moved`, imports of evergreen's modules and the words in what is raised are left out, too.
    """
    parts.append(type(node).__name__)
    if isinstance(node, ast.Constant):
        word = raised and isinstance(node.value, str)
        parts.append(f"{type(node.value).__name__} {'' if word else repr(node.value)}")
        return
    raised = raised or (moved and isinstance(node, ast.Raise))
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "type_comment", "type_ignores"):
            continue
        parts.append(name)
        if isinstance(value, ast.AST):
            _describe(value, parts, moved, raised)
        elif isinstance(value, list):
            for item in value:
                if _is_docstring(item):
                    continue
                if isinstance(item, ast.AST):
                    if not (moved and _imports_evergreen(item)):
                        _describe(item, parts, moved, raised)
                else:
                    parts.append(repr(item))
        else:
            parts.append(repr(value))
    parts.append(")")
