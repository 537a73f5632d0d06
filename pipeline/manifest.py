"""The seal of a folder: a manifest that names every other file in it by its digest, signed where there is a key.

The digest of a sealed folder is that of its manifest's bytes, so that it covers every file and no signature.
"""

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from pipeline import digest
from pipeline.errors import ArtifactError
from pipeline.files import write_json, write_text

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
KEY = "EVERGREEN_SIGNING_KEY"


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write facts as the folder's manifest, with `files`, the digest of every file in it by its relative path.

    Where the environment has a signing key, the manifest's HMAC-SHA256 is written beside it.
    """
    files = {name: digest.of_file(folder / name) for name in _files(folder)}
    write_json(folder / MANIFEST, {**facts, "files": files})
    if key := os.environ.get(KEY):
        write_text(folder / SIGNATURE, _signature(key, (folder / MANIFEST).read_bytes()) + "\n")


def open_sealed(folder: Path, expected: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return the digest and the manifest of a sealed folder, after each of its files was found to be as it was sealed.

    Raises ArtifactError, naming the file, when one was changed, is missing or is too many, when the digest is not the
    expected one, or when the environment has a signing key and the manifest was not signed with it.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{folder} is no artifact: {MANIFEST} cannot be read ({error.strerror})") from error
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise ArtifactError(
            f"{folder} is not the artifact that was written: the digest of {MANIFEST} is {found}, not {expected}"
        )
    _check_signature(folder, content)
    try:
        manifest: dict[str, Any] = json.loads(content)
        _check_files(folder, manifest["files"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{folder} is no artifact: {MANIFEST} is not what evergreen writes ({type(error).__name__}: {error})"
        ) from error
    return found, manifest


def _check_signature(folder: Path, content: bytes) -> None:
    key = os.environ.get(KEY)
    if not key:
        return
    # Without --force, an artifact of the same rows is the same one, and its package, which bears no signature, is kept.
    way_out = (
        "`evergreen run MODEL --force` signs a new one, after `evergreen retire MODEL` where this is the champion's; "
        f"or unset {KEY} to trust what is not signed"
    )
    try:
        said = (folder / SIGNATURE).read_bytes().strip()
    except OSError as error:
        raise ArtifactError(
            f"{folder} is not signed: {SIGNATURE} cannot be read ({error.strerror}); {way_out}"
        ) from error
    if not hmac.compare_digest(said, _signature(key, content).encode()):
        raise ArtifactError(f"{folder}: {SIGNATURE} was not made of this {MANIFEST} with this {KEY}; {way_out}")


def _check_files(folder: Path, sealed: dict[str, str]) -> None:
    there = _files(folder)
    if missing := sorted({*sealed} - {*there}):
        raise ArtifactError(f"{folder} is not whole: it has no {missing[0]}; run again to write it anew")
    if extra := sorted({*there} - {*sealed}):
        raise ArtifactError(f"{folder} has {extra[0]}, which is not in {MANIFEST}; take it away")
    for name, wanted in sealed.items():
        try:
            found = digest.of_file(folder / name)
        except OSError as error:
            raise ArtifactError(f"{folder / name} cannot be read: {error.strerror}") from error
        if found != wanted:
            raise ArtifactError(
                f"{folder / name} is not the file that was written: its digest is {found}, not {wanted}"
            )


def _files(folder: Path) -> list[str]:
    """Return the relative paths of all that is in a folder and no folder, but for the seal itself."""
    names = [
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    ]
    return sorted({*names} - {MANIFEST, SIGNATURE})


def _signature(key: str, content: bytes) -> str:
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
