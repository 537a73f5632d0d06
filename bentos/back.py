"""The way back: an earlier release proves that it still answers before it is champion again; servers follow."""

import time
from pathlib import Path

from sqlalchemy import Engine

from bentos import releases, servers
from bentos.kept import artifact_of, package_of
from bentos.package import alone_with
from bentos.releases import Release
from bentos.trial import try_bento
from pipeline.errors import ReleaseError
from pipeline.processes import gently

FOLLOW_SECONDS = 30.0


def roll_back(ledger: Engine, model: str, to: int | None, why: str, home: Path) -> Release:
    """Make an earlier release champion again, after its package has been started and answered its golden rows.

    While a canary answers a share of the requests, it is what is taken back, and the champion answers all of them
    again, unless `to` names another release. `home` is BentoML's. Raises ReleaseError when there is nowhere to go back
    to or it does not answer as it was trained, PackageError when its package is not what was released; nothing has
    changed then.
    """
    wish = releases.wished(ledger, model)
    if wish.canary and wish.champion and to in (None, wish.champion.number):
        releases.stop_canary(ledger, model, wish.canary.number, "person", why or "taken back")
        return wish.champion
    release = releases.going_back(ledger, model, to)
    # What `gc` removes it decides by the ledger: not while this is about to change.
    with alone_with(model, home):
        bento = package_of(ledger, release, home)
        # What answers meanwhile on this machine goes first.
        trial = gently(try_bento, bento, artifact_of(release, bento))
        if not trial.passed:
            raise ReleaseError(
                f"release {release.number} of {model} does not answer as it was trained, so nothing was changed: "
                f"{trial.problems[0]}"
            )
        return releases.rollback(ledger, model, release.number, "person", why)


def followed(ledger: Engine, model: str, release: Release) -> dict[str, float | None]:
    """Wait until a release alone answers at the servers of a model; return the seconds each took, None: it did not."""
    begun = time.monotonic()
    waiting = {server.server for server in servers.live_servers(ledger, model)}
    took: dict[str, float | None] = dict.fromkeys(sorted(waiting))
    while waiting and time.monotonic() - begun < FOLLOW_SECONDS:
        time.sleep(0.2)
        for server in servers.live_servers(ledger, model):
            if server.server in waiting and server.release == release.number and server.state == "serving":
                took[server.server] = round(time.monotonic() - begun, 1)
                waiting.discard(server.server)
    return took
