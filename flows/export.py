"""Everything that a release needs to run away from this machine, written into one folder, whole or not at all.

The files in `exported/` are what is written there, with names, port, digests and sizes put in for each `<<name>>`.
"""

import re
import shutil
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from bentos.ledger import releases
from bentos.ledger.packages import artifact_of
from bentos.ledger.releases import Release
from bentos.package import Bento
from pipeline import digest
from pipeline.errors import ReleaseError
from pipeline.files import read_json, whole_folder, write_json, write_text
from pipeline.project import ROOMS, copy_room, project_file

TEMPLATES = Path(__file__).parent / "exported"
OUR_PART = "release.Dockerfile"
"""What is added to the Dockerfile that BentoML has put into the package."""
FACTS = "release.json"
PROJECT = ("evergreen.py", "pyproject.toml", "requirements.in", "requirements.txt", "README.md", "LICENSE")
"""What is exported of the project besides the rooms."""

MEMORY = 512
"""MiB that a service takes besides its model; measured: 350, in two processes."""
MODEL_MEMORY = 4
"""MiB that a model takes for each MiB of its artifact."""
FARGATE = ((512, 4096), (1024, 8192), (2048, 16384), (4096, 30720))
"""CPU units (1024 are a core), and the most MiB of memory that AWS Fargate has with them."""


def released(ledger: Engine, model: str, number: int | None) -> Release:
    """Return release `number` of a model, or its champion; ReleaseError when there is none."""
    made, _ = releases.history(ledger, model)
    release = releases.champion(ledger, model) if number is None else {one.number: one for one in made}.get(number)
    if release is None:
        what = "champion" if number is None else f"release {number}"
        there = ", ".join(str(one.number) for one in made) or f"none; `evergreen run {model}` makes the first"
        code = "release.no_champion" if number is None else "release.not_found"
        raise ReleaseError(f"{model} has no {what} to export; its releases are: {there}", code=code)
    return release


def export(release: Release, bento: Bento, checkout: Path, folder: Path, port: int, force: bool) -> None:
    """Write the package of a release, the project and what deploys both into `folder`, whole or not at all.

    A folder that is not empty is refused with ReleaseError; with `force`, an export there is replaced, and what it did
    not write (a repository, a state) stays. Raises ArtifactError when the package holds another artifact
    than was released.
    """
    artifact = artifact_of(release, bento)
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise ReleaseError(f"{folder} is a file; name a folder", code="release.path_is_a_file")
    check_makeable(folder.parent)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / FACTS).exists():
            raise ReleaseError(
                f"{folder} is not empty and not an export; name another folder", code="release.folder_not_empty"
            )
        if not force:
            raise ReleaseError(
                f"{folder} holds an export; name another folder, or replace it with --force",
                code="release.export_exists",
            )
    cpu, memory = size(sum(file.stat().st_size for file in artifact.folder.iterdir()))
    facts = {
        "model": release.model,
        # Neither Kubernetes nor AWS takes an underscore in every name.
        "name": re.sub("_+", "-", release.model).strip("-"),
        "number": release.number,
        "bento": release.bento,
        "artifact": artifact.digest,
        "tag": f"{release.number}-{artifact.digest[:16]}",
        "python": artifact.manifest["python"].rpartition(".")[0],
        "port": port,
        "cpu": cpu,
        "memory": memory,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as part:
        shutil.copytree(bento.path, part / "package")
        _copy_project(checkout, part / "project")
        _write("project", part, facts)
        facts["project"] = digest.of_folder(part / "project")[:16]
        _write("", part, facts)
        theirs = (bento.path / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
        ours = (part / OUR_PART).read_text(encoding="utf-8")
        (part / OUR_PART).unlink()
        write_text(part / "Dockerfile", f"{theirs.rstrip()}\n\n{ours}")
        files = [FACTS, *(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())]
        write_json(part / FACTS, {**facts, "digests": release.digests, "files": sorted(files)})
        if (folder / FACTS).exists():
            _keep(folder, part)


def check_makeable(folder: Path) -> None:
    """Raise ReleaseError when there is a file where a folder or one above it is to be made."""
    for parent in (folder, *folder.parents):
        if parent.exists() and not parent.is_dir():
            raise ReleaseError(f"{parent} is a file, not a folder; name another path", code="release.path_is_a_file")


def size(artifact_bytes: int) -> tuple[int, int]:
    """Return the CPU units (1024 are a core) and MiB of memory that a service of an artifact asks for, whole GiB."""
    needed = MEMORY + MODEL_MEMORY * artifact_bytes / 2**20
    memory = min(1024 * ceil(needed / 1024), FARGATE[-1][1])
    return next(cpu for cpu, most in FARGATE if memory <= most), memory


def render(text: str, facts: Mapping[str, Any]) -> str:
    """Return a text with every `<<name>>` replaced by that fact; KeyError when there is no such fact.

    >>> render("<<model>>:<<number>> costs ${price}", {"model": "houses", "number": 3})
    'houses:3 costs ${price}'
    """
    return re.sub(r"<<(\w+)>>", lambda found: str(facts[found[1]]), text)


def templates(room: str = "") -> list[Path]:
    """Return the files in `exported/`, or in one folder of it, that are written into an export."""
    # Whoever compiles a checkout (an image's build, an editor) leaves bytecode beside worker.py.
    return [path for path in (TEMPLATES / room).rglob("*") if path.is_file() and path.suffix != ".pyc"]


def _write(room: str, part: Path, facts: Mapping[str, Any]) -> None:
    for template in templates(room):
        place = part / template.relative_to(TEMPLATES)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, render(template.read_text(encoding="utf-8"), facts))
        place.chmod(template.stat().st_mode & 0o777)


def _copy_project(checkout: Path, place: Path) -> None:
    place.mkdir()
    for room in ROOMS:
        copy_room(room, checkout, place, ("__pycache__", "node_modules", "web"))
    for name in PROJECT:
        shutil.copy(project_file(name, checkout), place / name)


def _keep(folder: Path, part: Path) -> None:
    """Copy from an earlier export what no export wrote."""
    written = set(read_json(folder / FACTS)["files"])
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        place = part / name
        if name.as_posix() in written or place.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            # Git does not take a repository without its empty folders.
            if not any(path.iterdir()):
                place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place, follow_symlinks=False)
