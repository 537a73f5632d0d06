"""The seal of a folder: a manifest with the digest of every other file in it, signed if a signing key is set.

The digest of a sealed folder is that of its manifest's bytes, so it covers every file but not the signature.
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
RESTORE = "restore it, or train and release the model again"
"""The way out of a damaged artifact."""


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write facts as the folder's manifest, and add `files`, the digest of every file in it by its relative path.

    If the environment has a signing key, the manifest's HMAC-SHA256 is written beside it.
    """
    files = {name: digest.of_file(folder / name) for name in _files(folder)}
    write_json(folder / MANIFEST, {**facts, "files": files})
    if key := os.environ.get(KEY):
        write_text(folder / SIGNATURE, _signature(key, (folder / MANIFEST).read_bytes()) + "\n")


def open_sealed(folder: Path, expected: str | None = None) -> tuple[str, dict[str, Any]]:
    """Check every file of a sealed folder and return its digest and its manifest.

    Raises ArtifactError, naming the file, if a file is changed, missing or unexpected, if the digest is not the
    expected one, or if the environment has a signing key and the manifest was not signed with it.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{folder} is not an artifact: {MANIFEST} cannot be read ({error.strerror}); {RESTORE}",
            code="artifact.not_an_artifact",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise ArtifactError(
            f"{folder} has changed since it was written: the digest of {MANIFEST} is {found}, not {expected}; "
            f"{RESTORE}",
            code="artifact.changed",
        )
    _check_signature(folder, content)
    try:
        manifest: dict[str, Any] = json.loads(content)
        _check_files(folder, manifest["files"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{folder} is not an artifact: {MANIFEST} is not as evergreen writes it ({type(error).__name__}: {error}); "
            f"{RESTORE}",
            code="artifact.not_an_artifact",
        ) from error
    return found, manifest


def _check_signature(folder: Path, content: bytes) -> None:
    key = os.environ.get(KEY)
    if not key:
        return
    # Without --force, a run on the same rows keeps this artifact and its package, which is not signed.
    way_out = (
        "sign a new one by `evergreen run MODEL --force`, after `evergreen retire MODEL` if this is the champion's; "
        f"or unset {KEY} to trust unsigned artifacts"
    )
    try:
        signature = (folder / SIGNATURE).read_bytes().strip()
    except OSError as error:
        raise ArtifactError(
            f"{folder} is not signed: {SIGNATURE} cannot be read ({error.strerror}); {way_out}",
            code="artifact.not_signed",
        ) from error
    if not hmac.compare_digest(signature, _signature(key, content).encode()):
        raise ArtifactError(
            f"{folder}: {SIGNATURE} does not match {MANIFEST} and this {KEY}; {way_out}",
            code="artifact.wrong_signature",
        )


def _check_files(folder: Path, sealed: dict[str, str]) -> None:
    present = _files(folder)
    if missing := sorted({*sealed} - {*present}):
        raise ArtifactError(f"{folder} lacks the file {missing[0]}; {RESTORE}", code="artifact.missing_file")
    if extra := sorted({*present} - {*sealed}):
        raise ArtifactError(
            f"{folder} has {extra[0]}, which is not in {MANIFEST}; remove it", code="artifact.unexpected_file"
        )
    for name, wanted in sealed.items():
        try:
            found = digest.of_file(folder / name)
        except OSError as error:
            raise ArtifactError(
                f"{folder / name} cannot be read: {error.strerror}; {RESTORE}", code="artifact.unreadable"
            ) from error
        if found != wanted:
            raise ArtifactError(
                f"{folder / name} has changed since it was written: its digest is {found}, not {wanted}; {RESTORE}",
                code="artifact.changed",
            )


def _files(folder: Path) -> list[str]:
    """Return the relative paths of all files and links in a folder, except for the manifest and its signature."""
    names = [
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    ]
    return sorted({*names} - {MANIFEST, SIGNATURE})


def _signature(key: str, content: bytes) -> str:
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
