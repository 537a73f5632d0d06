"""The verbs of releasing: whatever changes which release of a model answers goes through one of these functions.

Each one takes the lock of the model's packages, so that `gc` removes nothing meanwhile. It then checks the package of
the release that answers afterwards, and adds one event to the ledger in one transaction. When a check fails, nothing
has changed.

| verb | what is checked first |
|---|---|
| `release`, `promote`, `hold` | the package is there, has the digests of the ledger and a format that this code reads |
| `rollback` | the same, and the package, started, answers its golden rows as it was trained |
| `unhold`, `retire`, `stop_canary` | nothing: they are the ways out when a package is lost or answers badly |

Only `stop_canary` takes no lock: an alarm must not wait for the trial of a rollback, which may take two minutes, and
nothing that `gc` may remove is needed afterwards.

`home` is the BentoML home with the packages, `cause` who or what asks ("person", "canary", "schedule"), `why` the
reason for the ledger. Every verb raises ReleaseError when the ledger refuses it, OvertakenError when another process
changed the model at the same moment, and PackageError when another process holds the lock for too long. Those that
check a package raise PackageError or ArtifactError when it is not what was released.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine

from bentos.ledger import releases, servers
from bentos.ledger.packages import artifact_of, package_of
from bentos.ledger.releases import RELEASED, Release
from bentos.ledger.runs import Run
from bentos.package import Bento, load_bento, package_lock
from bentos.serving.server_states import ServerState
from bentos.trial import run_trial
from pipeline.artifact import Artifact
from pipeline.errors import ReleaseError
from pipeline.processes import run_niced

SERVERS_TIMEOUT = 30.0
"""How many seconds `wait_for_servers` waits."""
POLL_INTERVAL = 0.2


@dataclass(frozen=True)
class Promoted:
    """What a promotion came to.

    Attributes:
        release: The release that was promoted.
        state: "champion", or "canary" when its spec asks for one and a server is up.
    """

    release: Release
    state: Literal["champion", "canary"]


@dataclass(frozen=True)
class RolledBack:
    """What a rollback came to.

    Attributes:
        release: The release that answers alone now.
        instead: The release that it took the place of, the canary if one was taken back; None after `retire`.
        was_canary: Whether `instead` is a canary: the champion stayed what it was.
    """

    release: Release
    instead: Release | None
    was_canary: bool


def release(ledger: Engine, home: Path, new: Release, run: Run | None = None, kind: str = RELEASED) -> Release:
    """Add a release and the run that made it to the ledger; return it with its number.

    `kind` is how it begins: RELEASED, CANARY or AWAITING of `bentos.ledger.releases`.
    """
    with package_lock(new.model, home):
        artifact_of(new, load_bento(new.bento, home, new.digests["bento"]))
        return releases.add_release(ledger, new, run, kind)


def promote(ledger: Engine, home: Path, model: str, number: int, cause: str, why: str) -> Promoted:
    """Make a release champion that awaits approval, or answers a share of the requests."""
    with package_lock(model, home):
        _check_package(ledger, releases.get_release(ledger, model, number), home)
        promoted = releases.promote(ledger, model, number, cause, why)
        canary = releases.desired_state(ledger, model).canary
    return Promoted(promoted, "canary" if canary is not None and canary.number == number else "champion")


def rollback(ledger: Engine, home: Path, model: str, to: int | None, cause: str, why: str) -> RolledBack:
    """Make an earlier release champion again: release `to`, or the one that the champion replaced.

    If a canary answers a share of the requests, it is stopped and the champion answers alone again, unless `to` names
    another release. Raises ReleaseError when the earlier release does not answer as it was trained.
    """
    before = releases.desired_state(ledger, model)
    if before.canary and before.champion and to in (None, before.champion.number):
        stop_canary(ledger, model, before.canary.number, cause, why or "taken back")
        return RolledBack(before.champion, before.canary, was_canary=True)
    with package_lock(model, home):
        target = releases.rollback_target(ledger, model, to)
        bento, artifact = _check_package(ledger, target, home)
        # The trial runs niced: requests that are answered meanwhile on this machine go first.
        trial = run_niced(run_trial, bento, artifact)
        if not trial.passed:
            raise ReleaseError(
                f"release {target.number} of {model} does not predict as its trained pipeline did, so nothing changed: "
                f"{trial.problems[0]}. Roll back to another release with `--to`.",
                code="release.trial_failed",
            )
        replaced = releases.champion(ledger, model)
        releases.rollback(ledger, model, target.number, cause, why)
        return RolledBack(target, replaced, was_canary=False)


def stop_canary(ledger: Engine, model: str, number: int, cause: str, why: str) -> Release:
    """Let the champion answer all requests again; return the canary that was stopped."""
    return releases.stop_canary(ledger, model, number, cause, why)


def hold(ledger: Engine, home: Path, model: str, why: str) -> Release:
    """Keep the champion whatever the schedule brings, until `unhold`; return it."""
    with package_lock(model, home):
        if champion := releases.champion(ledger, model):
            _check_package(ledger, champion, home)
        return releases.hold(ledger, model, why)


def unhold(ledger: Engine, home: Path, model: str, why: str) -> Release | None:
    """Let runs release again; return the champion, None when there is none any more."""
    with package_lock(model, home):
        return releases.unhold(ledger, model, why)


def retire(ledger: Engine, home: Path, model: str, cause: str) -> Release:
    """Leave a model without a champion, so that the next challenger is judged as a first one; return what it was."""
    with package_lock(model, home):
        return releases.retire(ledger, model, cause)


def wait_for_servers(ledger: Engine, release: Release) -> dict[str, float | None]:
    """Wait until a release alone answers at every server of its model; return the seconds each took, or None."""
    begun = time.monotonic()
    waiting = {server.server for server in servers.live_servers(ledger, release.model)}
    seconds: dict[str, float | None] = dict.fromkeys(sorted(waiting))
    while waiting and time.monotonic() - begun < SERVERS_TIMEOUT:
        time.sleep(POLL_INTERVAL)
        for server in servers.live_servers(ledger, release.model):
            serving = server.release == release.number and server.state == ServerState.SERVING
            if server.server in waiting and serving:
                seconds[server.server] = round(time.monotonic() - begun, 1)
                waiting.discard(server.server)
    return seconds


def _check_package(ledger: Engine, release: Release, home: Path) -> tuple[Bento, Artifact]:
    bento = package_of(ledger, release, home)
    return bento, artifact_of(release, bento)
