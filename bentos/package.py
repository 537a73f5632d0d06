"""Artifact in, Bento out: built in a fresh process from a copy of the code, checked, and put into the store whole.

Run as a script (`python -P bentos/package.py` in a build context) it is that fresh process: a process that has built
one Bento keeps its service module, and would ship the first model again with the second Bento.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline import digest
from pipeline.artifact import Artifact, load_artifact
from pipeline.code import code_digest, local_modules, serving_digest, serving_pins
from pipeline.errors import ArtifactError, PackageError
from pipeline.files import NO_SPACE, no_space, put, space_for, whole_folder, write_text
from pipeline.processes import packaged_environment
from pipeline.project import code_folder
from pipeline.run_in_package import MANIFEST, PROTOCOL, protocol_of, write_protocol

SERVING_ENTRY_POINTS = ("bentos.service", PROTOCOL.modules["worker"])
"""The modules that a deployment starts."""
ENTRY_POINTS = ("bentos.service", *PROTOCOL.modules.values())
"""The modules that are started inside a Bento: BentoML starts the first, evergreen those of the package protocol. A
Bento carries these and what they import, and no other module."""
LOADED_BY_NAME = ("pipeline.sources.remote",)
"""Modules that no import statement names, because most models never need them."""
LOCK_TIMEOUT = 60.0
"""How many seconds a process that wants to change the packages of a model waits for another. Removing them takes a
fraction of that."""


@dataclass(frozen=True)
class Bento:
    """A Bento in the store.

    Attributes:
        tag: the exact tag, as `model:version`.
        path: the folder.
        digest: the digest of everything it serves from, see `digest_of`.
    """

    tag: str
    path: Path
    digest: str


def requirements(model: str, checkout: Path) -> tuple[str, ...]:
    """Return the pinned libraries of the model's Bento: what its serving entry points import, and what those require.

    Scoring and reproducing run beside the project, with its libraries: the image of a deployment stays without them.
    """
    return serving_pins(local_modules([*SERVING_ENTRY_POINTS, f"pipeline.models.{model}"], checkout).values())


@contextmanager
def package_lock(model: str, home: Path, seconds: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock of a model's packages in the BentoML home `home`: no other process adds, removes or promotes any.

    The process that holds the lock may take it again. Readers need no lock, because packages appear whole. Raises
    PackageError when another process holds it for `seconds`.
    """
    (home / "locks").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "locks" / f"{model}.lock", is_singleton=True).acquire(timeout=seconds):
            yield
    except Timeout as error:
        raise PackageError(
            f"another process has been changing the packages of {model} for more than {seconds:g} s; try again",
            code="package.locked",
        ) from error


def package(artifact: Artifact, checkout: Path, home: Path) -> Bento:
    """Build the Bento of an artifact from the code below `checkout`, into the BentoML home `home`.

    The tag depends only on the artifact; if the store has it already, nothing is built. Raises PackageError when the
    build fails, when the code is not the code of the training, or when the Bento holds other files than the context.
    """
    model = artifact.manifest["model"]
    version = artifact.digest[:16]
    target = home / "bentos" / model / version
    if target.exists():
        return load_bento(f"{model}:{version}", home)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name lets `sweep` remove it when this process is killed. BentoML would fail on such a folder inside `bentos`.
    with space_for(target), tempfile.TemporaryDirectory(prefix=f".part-{os.getpid()}-", dir=home) as scratch:
        context = Path(scratch) / "context"
        copy_carried(model, checkout, context)
        digests = artifact.manifest["digests"]
        if code_digest(model, context) != digests["code"]:
            raise PackageError(
                f"the code of {model} changed since it was trained; run again to train with the code as it is now",
                code="package.code_changed",
            )
        if serving_digest(model, context) != digests["serving"]:
            raise PackageError(
                f"the code that serves {model} changed during this run; run again to package the code as it is now",
                code="package.code_changed",
            )
        shutil.copytree(artifact.folder, context / "artifact")
        write_protocol(context)
        built = _build(model, version, artifact, context, Path(scratch) / "store")
        _check(built / "src", context, artifact)
        with whole_folder(Path(scratch) / "whole") as part:
            shutil.copytree(built, part, dirs_exist_ok=True)
        with package_lock(model, home):
            if not target.exists():
                put(Path(scratch) / "whole", target)
            write_text(target.parent / "latest", version)
    return load_bento(f"{model}:{version}", home)


def load_bento(tag: str, home: Path, expected: str | None = None, way_out: str | None = None) -> Bento:
    """Return the Bento with an exact tag; PackageError when it is not there or its digest is not the expected one.

    The error ends with `way_out`. A caller that does not know whose package it is leaves it out: `evergreen retire`
    helps only if the package is the champion's.
    """
    model, _, version = tag.partition(":")
    path = home / "bentos" / model / version
    way_out = way_out or f"restore it from a copy; if it is the champion's and lost, `evergreen retire {model}`"
    if not (path / "bento.yaml").exists():
        raise PackageError(f"there is no Bento {tag} in {home}; {way_out}", code="package.missing")
    actual = digest_of(path, expected)
    if expected is not None and actual != expected:
        raise PackageError(
            f"Bento {tag} is not what was released: its digest is {actual}, not {expected}"
            f"{_changed_in(path / 'src')}; {way_out}",
            code="package.changed",
        )
    return Bento(tag, path, actual)


def digest_of(bento: Path, expected: str | None = None) -> str:
    """Return the digest of a Bento's sources and of what its image is built of.

    It does not depend on when the Bento was built, so an equal one can be built again. For early releases the ledger
    has the digest of the sources alone; if that is `expected`, it is returned.
    """
    sources = digest.of_folder(bento / "src")
    return sources if sources == expected else digest.of_value([sources, digest.of_folder(bento / "env")])


def _changed_in(source: Path) -> str:
    """Name the file of a Bento's artifact that differs from its manifest; for code only the digest is known."""
    try:
        load_artifact(source / "artifact")
    except ArtifactError as error:
        return f" ({error})"
    return ""


def carried_modules(model: str, checkout: Path) -> dict[str, Path]:
    """Return the modules that a Bento of the model carries, with their files: the closure of its entry points."""
    return local_modules([*ENTRY_POINTS, *LOADED_BY_NAME, f"pipeline.models.{model}"], checkout)


def copy_carried(model: str, checkout: Path, context: Path) -> None:
    """Copy into `context` the modules of a project that the model's Bento carries, and the files they read."""
    for name, path in carried_modules(model, checkout).items():
        base = context.joinpath(*name.split("."))
        _copy(path, base / "__init__.py" if path.name == "__init__.py" else base.with_suffix(".py"))
    for folder in (checkout, code_folder(checkout)):
        for data in (folder / "pipeline", folder / "bentos" / "static"):
            for path in data.rglob("*"):
                if path.is_file() and path.suffix not in (".py", ".pyc"):
                    _copy(path, context / path.relative_to(folder))


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _build(model: str, version: str, artifact: Artifact, context: Path, store: Path) -> Path:
    manifest = artifact.manifest
    request = {
        "name": model,
        "version": version,
        "labels": _labels(manifest),
        "packages": manifest["requirements"],
        "python": manifest["python"].rpartition(".")[0],
    }
    done = subprocess.run(
        # With -P Python does not import from this file's folder, whose modules have plain names.
        [sys.executable, "-P", __file__, json.dumps(request)],
        cwd=context,
        env=bentoml_environment(store) | {"PYTHONPATH": str(context)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    built = store / "bentos" / model / version
    if done.returncode != 0 or not built.exists():
        output = (done.stderr or done.stdout).strip()
        if NO_SPACE in output:
            raise no_space(built)
        raise PackageError(
            f"BentoML could not build {model}:{version}: {output[-2000:]}. Fix this, then run again.",
            code="package.build_failed",
        )
    return built


def bentoml_environment(home: Path) -> dict[str, str]:
    """Return the environment of a process that runs BentoML on `home` with the package's own code."""
    return packaged_environment() | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}


def _labels(manifest: Mapping[str, Any]) -> dict[str, str]:
    digests, rows = manifest["digests"], manifest["rows"]
    facts = {"model": manifest["model"], "estimator": manifest["estimator"], "created": manifest["created"]}
    facts |= {f"{name}_digest": value[:32] for name, value in digests.items()}
    facts |= {f"{name}_rows": str(count) for name, count in rows.items()}
    return {name: str(value) for name, value in facts.items()}


def _check(source: Path, context: Path, artifact: Artifact) -> None:
    """Raise PackageError unless a Bento's source folder holds exactly the artifact and the code it was built from."""
    way_out = "its files changed during the build, so run again"
    name = f"the new Bento of {artifact.manifest['model']}"
    try:
        load_artifact(source / "artifact", artifact.digest)
    except ArtifactError as error:
        raise PackageError(
            f"{name} holds another artifact ({error}); {way_out}", code="package.built_differently"
        ) from error
    if protocol_of(source) != PROTOCOL:
        raise PackageError(f"{name} holds another {MANIFEST}; {way_out}", code="package.built_differently")
    for room in ("pipeline", "bentos"):
        if digest.of_folder(source / room) != digest.of_folder(context / room):
            raise PackageError(f"{name} holds other files in {room}/; {way_out}", code="package.built_differently")


def _build_here(request: dict[str, Any]) -> None:
    import bentoml

    if not Path(digest.__file__).resolve().is_relative_to(Path.cwd().resolve()):
        raise PackageError(
            f"the build imports {digest.__file__}, which is outside of the build context {Path.cwd()}; "
            "remove that folder from PYTHONPATH and run again",
            code="package.foreign_code",
        )
    bentoml.build(
        "bentos.service:EndpointService",
        name=request["name"],
        version=request["version"],
        labels=request["labels"],
        include=["pipeline/", "bentos/", "artifact/", MANIFEST],
        python={"packages": request["packages"], "lock_packages": False},
        docker={"python_version": request["python"]},
        build_ctx=".",
    )


if __name__ == "__main__":
    _build_here(json.loads(sys.argv[1]))
