import ast

import pytest
from project import CHECKOUT

ROOMS = ("pipeline", "expectations", "bentos", "flows")
MAY_IMPORT = {
    "pipeline": {"pipeline"},
    "expectations": {"expectations", "pipeline"},
    "bentos": {"bentos", "pipeline"},
    "flows": {*ROOMS},
}
HOME = {"great_expectations": "expectations", "bentoml": "bentos", "prefect": "flows"}
# Part of BentoML's distribution; they belong to whoever may import it.
ALIASES = {"_bentoml_sdk": "bentoml", "_bentoml_impl": "bentoml"}

MODULES = {
    ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ROOMS
    for path in sorted((CHECKOUT / room).rglob("*.py"))
}


def imported(path):
    """Names of the top-level packages that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [node.module]
        for name in names:
            first = name.partition(".")[0]
            yield ALIASES.get(first, first), node.lineno


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way_and_each_framework_has_one_room(name):
    room, path = name.partition(".")[0], MODULES[name]
    for found, line in imported(path):
        if found in ROOMS:
            assert found in MAY_IMPORT[room], f"{path}:{line}: {room} imports {found}"
        if found in HOME:
            assert room == HOME[found], f"{path}:{line}: only {HOME[found]} imports {found}"
        assert found != "tests", f"{path}:{line} imports the tests"


def test_every_room_has_modules():
    assert {name.partition(".")[0] for name in MODULES} == {*ROOMS}


IMPORT = """
import importlib, os, sys, threading
from pathlib import Path
before = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
print([str(path) for path in Path.home().rglob("*")] + [str(path) for path in Path.cwd().iterdir()])
"""


def test_importing_what_needs_no_framework_changes_nothing_outside(run_python, tmp_path):
    # Alembic runs its own scripts; nobody imports them.
    own = [(name, path) for name, path in MODULES.items() if "migrations" not in path.parts]
    cheap = [name for name, path in own if not {*HOME} & _when_imported(path)]
    assert "pipeline.train" in cheap
    assert "bentos.ledger.releases" in cheap
    folders = {"HOME": tmp_path / "home", "EVERGREEN_HOME": tmp_path / "home" / "evergreen"}
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    env = {name: str(path) for name, path in folders.items()} | {"PYTHONPATH": str(CHECKOUT)}
    # scikit-learn sets these where they are not, as they are not in a session that has not imported it yet.
    env |= {"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"}
    assert run_python(IMPORT, *cheap, cwd=tmp_path / "cwd", **env) == "[]"


def _when_imported(path):
    """Top-level packages that importing the file imports, through other modules of the project too."""
    seen, waiting, found = set(), [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                first = name.partition(".")[0]
                found.add(ALIASES.get(first, first))
                if name in MODULES:
                    waiting.append(MODULES[name])
    return found
