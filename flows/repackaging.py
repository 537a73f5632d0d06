"""Whether the champion of a model is packaged again: its package is of other limits or serving code than are here."""

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
        champion: the release whose model is packaged again; None when none is.
        reason: what makes its package out of date, or why nothing is packaged.
        digests: those of the new package that differ from the champion's.
    """

    champion: Release | None
    reason: str
    digests: dict[str, str]


def repackaging(ledger: Engine, model: str, now: Mapping[str, str]) -> Repackaging:
    """Decide, from the digests of what is here now, whether the champion of a model is packaged again."""
    desired = releases.desired_state(ledger, model)
    champion = desired.champion
    if champion is None:
        return _no(f"{model} has no champion")
    name = f"release {champion.number}"
    if not package_is_outdated(champion.digests, now):
        if champion.digests.get("code") != now["code"]:
            return _no(f"the code of {model} is not what {name} was trained with; `evergreen run {model}` trains it")
        return _no(f"the package of {name} is up to date")
    changed = {part: now[part] for part in PACKAGED if champion.digests.get(part) != now[part]}
    if desired.held:
        return _no(releases.hold_sentence(model, desired.held))
    if desired.canary:
        return _no(f"release {desired.canary.number} is a canary; packages are made again when that has ended")
    if waiting := releases.awaiting(ledger, model):
        return _no(f"release {waiting[-1]} awaits approval; packages are made again when that has ended")
    if bar := releases.blocked_by(ledger, model, {**champion.digests, **changed}, package=True):
        return _no(f"the package is barred: {bar.kind} {bar.release}, {bar.reason}")
    return Repackaging(champion, f"repackaged the model of {name}: {outdated_parts(changed)} changed", changed)


def outdated_parts(changed: Mapping[str, str]) -> str:
    """Say which parts of a package changed."""
    said = {"package": "package fields of the spec", "serving": "serving code"}
    return " and ".join(words for part, words in said.items() if part in changed)


def _no(reason: str) -> Repackaging:
    return Repackaging(None, reason, {})
