"""Serve the released Bento of a model."""

import os
import socket
from pathlib import Path

from sqlalchemy import Engine

from bentos import releases
from bentos.package import Bento, bentoml_environment, load_bento
from bentos.releases import Release
from bentos.trial import serve_command
from pipeline.errors import ReleaseError, ServerError


def champion_bento(ledger: Engine, model: str, home: Path) -> tuple[Release, Bento]:
    """Return the champion of a model and its Bento, checked against the digest in the ledger.

    Raises ReleaseError when nothing was released yet, PackageError when the Bento is not what was released.
    """
    release = releases.champion(ledger, model)
    if release is None:
        raise ReleaseError(f"{model} has no release to serve; `evergreen run {model}` makes the first")
    return release, load_bento(release.bento, home, expected=release.digests["bento"])


def serve(release: Release, bento: Bento, folder: Path, host: str, port: int, workers: int) -> None:
    """Become the server of a release: this process is replaced by BentoML's, and does not return.

    It runs in `folder`, which is its own, so that only the Bento is imported and no other server loses its metrics.
    Raises ServerError when it could not listen on the port.
    """
    host = "127.0.0.1" if host == "localhost" else host
    _check_free(host, port)
    env = bentoml_environment(folder) | {
        "EVERGREEN_RELEASE": str(release.number),
        "EVERGREEN_ARTIFACT": release.digests["artifact"],
        "BENTOML_CONFIG_OPTIONS": f"services.Endpoint.workers={workers}",
        # More threads than cores in each worker only take turns: measured 73 against 203 requests a second.
        "OMP_NUM_THREADS": "1",
    }
    env.pop("EVERGREEN_TRIAL", None)
    command = serve_command(bento, host, port)
    os.chdir(folder)
    os.execve(command[0], command, env)


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ServerError(f"cannot listen on {host}, port {port}: {error.strerror}; give another one") from error
