"""Export a release: one folder with everything that deploys it on other machines, complete or not there at all.

The folder has the package, the project, and the files of `exported/`, in which each `<<name>>` is replaced by a name,
port, digest or size.
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
"""The lines that are appended to the Dockerfile that BentoML put into the package."""
FACTS = "release.json"
"""The file that marks a folder as an export: the release, and the list of files that the export wrote."""
PROJECT = ("evergreen.py", "pyproject.toml", "requirements.in", "requirements.txt", "README.md", "LICENSE")
"""The files of the project that are exported besides the rooms."""

MEMORY = 512
"""MiB that a service needs besides its model; 350 measured, in two processes."""
MODEL_MEMORY = 4
"""MiB that a model needs for each MiB of its artifact."""
FARGATE = ((512, 4096), (1024, 8192), (2048, 16384), (4096, 30720))
"""CPU units (1024 are a core), and the max MiB of memory that AWS Fargate offers with them."""


def released(ledger: Engine, model: str, number: int | None) -> Release:
    """Return release `number` of a model, or its champion; ReleaseError if there is none."""
    made, _ = releases.history(ledger, model)
    by_number = {release.number: release for release in made}
    release = releases.champion(ledger, model) if number is None else by_number.get(number)
    if release is None:
        wanted = "champion" if number is None else f"release {number}"
        numbers = ", ".join(map(str, by_number)) or f"none; `evergreen run {model}` makes the first"
        code = "release.no_champion" if number is None else "release.not_found"
        raise ReleaseError(f"{model} has no {wanted} to export; its releases are: {numbers}", code=code)
    return release


def export(release: Release, bento: Bento, checkout: Path, folder: Path, port: int, force: bool) -> None:
    """Write the package of a release, the project and the deployment files into `folder`, completely or not at all.

    With `force`, an earlier export in the folder is replaced; files that no export wrote (a Git repository, a state)
    stay. Raises ReleaseError if the folder is not empty and may not be replaced, and ArtifactError if the package holds
    another artifact than was released.
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
        # Kubernetes and AWS reject underscores in some names.
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
        bentoml_lines = (bento.path / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
        our_lines = (part / OUR_PART).read_text(encoding="utf-8")
        (part / OUR_PART).unlink()
        write_text(part / "Dockerfile", f"{bentoml_lines.rstrip()}\n\n{our_lines}")
        files = [FACTS, *(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())]
        write_json(part / FACTS, {**facts, "digests": release.digests, "files": sorted(files)})
        if (folder / FACTS).exists():
            _keep_foreign_files(folder, part)


def check_makeable(folder: Path) -> None:
    """Raise ReleaseError if a file is in the way of a folder or one of its parents."""
    for parent in (folder, *folder.parents):
        if parent.exists() and not parent.is_dir():
            raise ReleaseError(f"{parent} is a file, not a folder; name another path", code="release.path_is_a_file")


def size(artifact_bytes: int) -> tuple[int, int]:
    """Return the CPU units (1024 are a core) and the MiB of memory, in whole GiB, that a service requests."""
    needed = MEMORY + MODEL_MEMORY * artifact_bytes / 2**20
    memory = min(1024 * ceil(needed / 1024), FARGATE[-1][1])
    return next(cpu for cpu, max_memory in FARGATE if memory <= max_memory), memory


def render(text: str, facts: Mapping[str, Any]) -> str:
    """Return a text with every `<<name>>` replaced by that fact; KeyError if there is no such fact.

    >>> render("<<model>>:<<number>> costs ${price}", {"model": "houses", "number": 3})
    'houses:3 costs ${price}'
    """
    return re.sub(r"<<(\w+)>>", lambda match: str(facts[match[1]]), text)


def templates(room: str = "") -> list[Path]:
    """Return the files of `exported/`, or of one folder in it, that are written into an export."""
    # An image's build or an editor may have left bytecode beside worker.py.
    return [path for path in (TEMPLATES / room).rglob("*") if path.is_file() and path.suffix != ".pyc"]


def _write(room: str, part: Path, facts: Mapping[str, Any]) -> None:
    for template in templates(room):
        target = part / template.relative_to(TEMPLATES)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, render(template.read_text(encoding="utf-8"), facts))
        target.chmod(template.stat().st_mode & 0o777)


def _copy_project(checkout: Path, target: Path) -> None:
    target.mkdir()
    for room in ROOMS:
        copy_room(room, checkout, target, ("__pycache__", "node_modules", "web"))
    for name in PROJECT:
        shutil.copy(project_file(name, checkout), target / name)


def _keep_foreign_files(folder: Path, part: Path) -> None:
    """Copy the files of an earlier export's folder that no export wrote."""
    written = set(read_json(folder / FACTS)["files"])
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        target = part / name
        if name.as_posix() in written or target.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            # A Git repository is not valid without its empty folders.
            if not any(path.iterdir()):
                target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
