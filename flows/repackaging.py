"""Decide whether a champion is repackaged: its package may have older limits or serving code than the project."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from bentos.ledger import releases
from bentos.ledger.releases import Release
from pipeline.run_digests import PACKAGED, package_is_outdated


@dataclass(frozen=True)
class Repackaging:
    """The decision, with its reason.

    Attributes:
        champion: the release to repackage; None if nothing is repackaged.
        reason: why the package is out of date, or why nothing is repackaged.
        digests: the digests of the new package that differ from the champion's.
    """

    champion: Release | None
    reason: str
    digests: dict[str, str]


def repackaging(ledger: Engine, model: str, now: Mapping[str, str]) -> Repackaging:
    """Decide whether to repackage the champion of a model; `now` has the digests of the project's code and spec."""
    desired = releases.desired_state(ledger, model)
    champion = desired.champion
    if champion is None:
        return _no(f"{model} has no champion")
    name = f"release {champion.number}"
    if not package_is_outdated(champion.digests, now):
        if champion.digests.get("code") != now["code"]:
            return _no(
                f"the code of {model} has changed since {name} was trained; train it with `evergreen run {model}`"
            )
        return _no(f"the package of {name} is up to date")
    changed = {part: now[part] for part in PACKAGED if champion.digests.get(part) != now[part]}
    if desired.held:
        return _no(releases.hold_sentence(model, desired.held))
    if desired.canary:
        return _no(f"release {desired.canary.number} is a canary; repackage when the canary has ended")
    if awaiting := releases.awaiting(ledger, model):
        return _no(f"release {awaiting[-1]} awaits approval; repackage when that is decided")
    if block := releases.blocked_by(ledger, model, {**champion.digests, **changed}, package=True):
        return _no(f"the package is blocked: {block.kind} {block.release}, {block.reason}")
    return Repackaging(champion, f"repackaged the model of {name}: {outdated_parts(changed)} changed", changed)


def outdated_parts(changed: Mapping[str, str]) -> str:
    """Return the names of the parts of a package that changed."""
    names = {"package": "package fields of the spec", "serving": "serving code"}
    return " and ".join(name for part, name in names.items() if part in changed)


def _no(reason: str) -> Repackaging:
    return Repackaging(None, reason, {})
