"""Where a project lies, with its models, suites, data and state; and where evergreen's own code lies, if elsewhere.

In a clone both are one folder. Where evergreen is installed, a project holds `pipeline/models` and
`expectations/suites` only, and the rest of these packages comes from the installation.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

from pipeline.errors import ProjectError

VARIABLE = "EVERGREEN_PROJECT"
CODE_FOLDER = Path(__file__).resolve().parent.parent
"""What holds evergreen's own rooms: a clone, the folder of installed packages, or the source folder of a Bento."""
ROOMS = ("pipeline", "expectations", "bentos", "flows")
YOURS = {"pipeline": "models", "expectations": "suites"}
"""The part of a room that belongs to the project, by room."""


def project_folder() -> Path:
    """Return the project's folder: `EVERGREEN_PROJECT`, or the nearest one from here upwards with `pipeline/models`.

    Raises ProjectError when there is none, or when it holds the code of another evergreen than this one.
    """
    folder = find_project()
    if folder is None:
        named = os.environ.get(VARIABLE)
        where = f"{VARIABLE} ({named})" if named else f"{Path.cwd()} or a folder above it"
        raise ProjectError(
            f"no evergreen project found: there is no pipeline/models in {where}; change into your project, set "
            f"{VARIABLE}, or start a project with `evergreen init`",
            code="project.not_found",
        )
    if (folder / "pipeline" / "__init__.py").is_file() and folder != CODE_FOLDER:
        raise ProjectError(
            f"the project {folder} holds an evergreen of its own, but this one is in {CODE_FOLDER}; use the command "
            "that is installed from the project, or change into another project",
            code="project.other_evergreen",
        )
    return folder


def find_project() -> Path | None:
    """Return the project's folder as `project_folder` finds it; None when there is none."""
    if named := os.environ.get(VARIABLE):
        here = [Path(named).expanduser().resolve()]
    else:
        current = Path.cwd()
        here = [current, *current.parents]
    return next((folder for folder in here if (folder / "pipeline" / "models").is_dir()), None)


def new_project_folder() -> Path:
    """Return where a model is to be created: in the project, or in the current folder when there is none yet."""
    named = os.environ.get(VARIABLE)
    return find_project() or (Path(named).expanduser().resolve() if named else Path.cwd())


def project_path(path: str) -> Path:
    """Return where a relative path of a spec leads: from the project's folder, or the current one outside of any."""
    return Path(path) if Path(path).is_absolute() else _base() / path


def from_here(path: str) -> str:
    """Return a path that a person gives, seen from the current folder, so that `project_path` leads to the same."""
    return path if Path(path).is_absolute() or _base() == Path() else str(Path(path).absolute())


def _base() -> Path:
    folder = find_project()
    return Path() if folder is None or folder == Path.cwd() else folder


def project_package(room: str, folder: Path | None = None) -> ModuleType:
    """Return the package with the project's own modules of a room, such as `pipeline.models`, ready to import from.

    Modules of another project, which this process used before, are forgotten.
    """
    folder = folder or project_folder()
    name, path = f"{room}.{YOURS[room]}", [str(folder / room / YOURS[room])]
    parent = importlib.import_module(room)
    # Evergreen's own modules come first: no project replaces them by accident.
    parent.__path__ = list(dict.fromkeys([str(CODE_FOLDER / room), str(folder / room)]))
    package = importlib.import_module(name)
    if list(package.__path__) != path:
        for known in [known for known in sys.modules if known.startswith(f"{name}.")]:
            del sys.modules[known]
        package.__path__ = path
    importlib.invalidate_caches()
    return package


def find_module(module: str, project: Path) -> Path | None:
    """Return the file of a module of a project or of evergreen; None for what is neither.

    A `project` with a whole evergreen in it, as a clone or a package's source, needs no other.
    """
    room, _, rest = module.partition(".")
    places = [project]
    if room in ROOMS and not _whole(room, project) and rest.partition(".")[0] != YOURS.get(room):
        places = [CODE_FOLDER, project]
    bases = [place.joinpath(*module.split(".")) for place in places if module]
    files = (path for base in bases for path in (base / "__init__.py", base.with_suffix(".py")))
    return next((path for path in files if path.is_file()), None)


def code_folder(project: Path) -> Path:
    """Return where evergreen's own code lies for a project: in the project itself, if it is a clone or a package."""
    return project if _whole("bentos", project) else CODE_FOLDER


def project_file(name: str, project: Path) -> Path:
    """Return a file from the top of evergreen's own tree: a clone has it, else the installation keeps a copy.

    Raises ProjectError when neither does.
    """
    places = [project / name, CODE_FOLDER / name]
    with suppress(PackageNotFoundError):
        kept = distribution("evergreen").files or ()
        places += [Path(str(file.locate())) for file in kept if file.parts[-3:] == ("share", "evergreen", name)]
    for place in places:
        if place.is_file():
            return place
    raise ProjectError(
        f"neither {project} nor the installed evergreen has {name}; install evergreen again",
        code="project.missing_file",
    )


def copy_room(room: str, project: Path, place: Path, left_out: Iterable[str]) -> None:
    """Copy a room as it is imported in a project: what is the project's, and all that is evergreen's own."""
    ignore = shutil.ignore_patterns(*left_out)
    if _whole(room, project):
        shutil.copytree(project / room, place / room, ignore=ignore)
        return
    if (project / room).is_dir():
        shutil.copytree(project / room, place / room, ignore=ignore)
    own = CODE_FOLDER / room
    shutil.copytree(own, place / room, ignore=_and_not(own, YOURS.get(room), ignore), dirs_exist_ok=True)


def _and_not(folder: Path, name: str | None, ignore: Callable[[str, list[str]], set[str]]) -> Callable[..., set[str]]:
    """Return what ignores, besides what `ignore` does, the name in the folder itself."""
    return lambda where, names: {*ignore(where, names), *([name] if name and Path(where) == folder else [])}


def _whole(room: str, folder: Path) -> bool:
    return (folder / room / "__init__.py").is_file()
