"""The way back: an earlier release proves that it still answers before it is champion again; servers follow."""

import time
from pathlib import Path

from sqlalchemy import Engine

from bentos import releases
from bentos.package import Bento, alone_with, load_bento
from bentos.releases import Release
from bentos.trial import try_bento
from pipeline.artifact import load_artifact
from pipeline.errors import PackageError, ReleaseError
from pipeline.processes import gently

FOLLOW_SECONDS = 30.0


def roll_back(ledger: Engine, model: str, to: int | None, why: str, home: Path) -> Release:
    """Make an earlier release champion again, after its package has been started and answered its golden rows.

    While a canary answers a share of the requests, it is what is taken back, unless `to` names another release than the
    champion, which then answers all of them again. `home` is BentoML's. Raises ReleaseError when there is nowhere to go
    back to or it does not answer as it was trained, PackageError when its package is not what was released; nothing has
    changed then.
    """
    wish = releases.wished(ledger, model)
    if wish.canary and wish.champion and to in (None, wish.champion.number):
        releases.stop_canary(ledger, model, wish.canary.number, "person", why or "taken back")
        return wish.champion
    release = releases.going_back(ledger, model, to)
    # What `gc` removes it decides by the ledger: not while this is about to change.
    with alone_with(model, home):
        bento = _package_of(ledger, release, home)
        # What answers meanwhile on this machine goes first.
        trial = gently(try_bento, bento, load_artifact(bento.path / "src" / "artifact", release.digests["artifact"]))
        if not trial.passed:
            raise ReleaseError(
                f"release {release.number} of {model} does not answer as it was trained, so nothing was changed: "
                f"{trial.problems[0]}"
            )
        return releases.rollback(ledger, model, release.number, "person", why)


def _package_of(ledger: Engine, release: Release, home: Path) -> Bento:
    try:
        return load_bento(release.bento, home, expected=release.digests["bento"])
    except PackageError as error:
        _, events = releases.history(ledger, release.model)
        if releases.states(events)[release.number] != releases.ARCHIVED:
            raise
        raise ReleaseError(
            f"release {release.number} of {release.model} is archived: `evergreen gc` removed its package, so there is "
            f"no going back to it ({error})"
        ) from error


def followed(ledger: Engine, model: str, release: Release) -> dict[str, float | None]:
    """Wait until a release alone answers at the servers of a model; return the seconds each took, None: it did not."""
    begun = time.monotonic()
    waiting = {server.server for server in releases.servers(ledger, model)}
    took: dict[str, float | None] = dict.fromkeys(sorted(waiting))
    while waiting and time.monotonic() - begun < FOLLOW_SECONDS:
        time.sleep(0.2)
        for server in releases.servers(ledger, model):
            if server.server in waiting and server.release == release.number and server.state == "serving":
                took[server.server] = round(time.monotonic() - begun, 1)
                waiting.discard(server.server)
    return took
