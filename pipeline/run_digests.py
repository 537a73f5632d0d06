"""The digests of a run: one for each thing that may change, and what is to be done when some have changed.

| digest | covers |
|---|---|
| snapshot | the rows that are trained on |
| ingested | the rows that were read, if some of them were set aside |
| suite | the rules that rows are held to |
| spec, code | what decides the model: fields of the kind *model*, the model's modules, DECISION_VERSION, pins |
| verdict | fields of the kind *verdict* |
| package | fields of the kind *package* |
| serving | the code that a package answers with, and the pins that only serving needs |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import digest
from pipeline.code import code_digest, serving_digest
from pipeline.field_kinds import spec_digest

if TYPE_CHECKING:
    from pipeline.spec import ModelSpec

Work = Literal["nothing", "repackage", "judge", "train"]

DECIDE_A_MODEL = ("snapshot", "spec", "code")
PACKAGED = ("package", "serving")


def digests_of(spec: "ModelSpec", snapshot: str, suite: str | None, checkout: Path) -> dict[str, str]:
    """Return the digests of a run of a model on the snapshot of that digest, with the code below `checkout`."""
    found = {
        "snapshot": snapshot,
        "spec": spec_digest(spec, "model"),
        # What is sensitive is no verdict, but the value of a sensitive slice must not stay in one.
        "verdict": digest.of_value([spec_digest(spec, "verdict"), sorted({*spec.sensitive} & {*spec.gate.slices})]),
        **digests_of_code(spec, checkout),
    }
    return found | ({"suite": suite} if suite else {})


def digests_of_code(spec: "ModelSpec", checkout: Path) -> dict[str, str]:
    """Return the digests of what a package is made of beside its trained model, and of the code of that model."""
    return {
        "code": code_digest(spec.name, checkout),
        "package": spec_digest(spec, "package"),
        "serving": serving_digest(spec.name, checkout),
    }


def work_needed(last: Mapping[str, str] | None, champion: Mapping[str, str] | None, now: Mapping[str, str]) -> Work:
    """Return what a run has to do, from the digests of the last run with a verdict, of the champion, and of today.

    Whether the model is trained or judged again depends on the last verdict, which may have kept the champion. Whether
    it is packaged again depends on the champion, since its package is the one that answers.
    """
    if last is None or not (_same_rows(last, now) and all(last.get(name) == now[name] for name in ("spec", "code"))):
        return "train"
    if last.get("verdict") != now.get("verdict") or not same_model(last, now):
        return "judge"
    if champion is not None and package_is_outdated(champion, now):
        return "repackage"
    return "nothing"


def same_model(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Tell whether a run now would train on what a run then did: it was asked to, or what is left of its rows is that.

    A run is asked to train on what it ingested; where rows of that were set aside, the suite that said so counts too,
    and "snapshot" is what was left.
    """
    if "ingested" in now and all(then.get(name) == now[name] for name in DECIDE_A_MODEL):
        return True
    return _same_rows(then, now) and all(then.get(name) == now.get(name) for name in ("spec", "code", "suite"))


def _same_rows(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    left = "ingested" in now and then.get("snapshot") == now["snapshot"]
    return left or then.get("ingested", then.get("snapshot")) == now.get("ingested", now.get("snapshot"))


def package_is_outdated(champion: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Tell whether a champion's package is of other limits or serving code than are here, and can be made anew.

    It can while its model's code is what is here; else the next run trains, and packages what it trained.
    """
    return champion.get("code") == now["code"] and any(champion.get(name) != now[name] for name in PACKAGED)


def same_package(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Tell whether two releases are the same model in the same package."""
    return all(one.get(name) == other.get(name) for name in (*DECIDE_A_MODEL, *PACKAGED))


def trained_folder(digests: Mapping[str, str]) -> str:
    """Return the name of the folder below `trained/`: that of everything that decides a model."""
    return digest.of_value([digests[name] for name in DECIDE_A_MODEL])[: digest.SHORT]


def artifact_folder(digests: Mapping[str, str]) -> str:
    """Return the name of the folder below `artifacts/`: a trained model, its verdict, and what its package needs."""
    names = (*DECIDE_A_MODEL, "verdict", *PACKAGED, "suite")
    return digest.of_value([digests.get(name) for name in names])[: digest.SHORT]
