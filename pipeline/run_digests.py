"""The digests of a run: one for each input that may change, and the work that a run has to do after a change.

| digest | covers |
|---|---|
| snapshot | the training rows |
| ingested | the rows that were read, if some of them were set aside |
| suite | the data checks |
| spec | the spec's fields of the kind *model* |
| code | the model's modules, DECISION_VERSION, and the pins that training needs |
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
    """Return the digests of a model's run; `snapshot` and `suite` are digests, `checkout` the folder of the code."""
    digests = {
        "snapshot": snapshot,
        "spec": spec_digest(spec, "model"),
        # `sensitive` does not decide a verdict, but the value of a slice that became sensitive must not stay in one.
        "verdict": digest.of_value([spec_digest(spec, "verdict"), sorted({*spec.sensitive} & {*spec.gate.slices})]),
        **digests_of_code(spec, checkout),
    }
    return digests | ({"suite": suite} if suite else {})


def digests_of_code(spec: "ModelSpec", checkout: Path) -> dict[str, str]:
    """Return the digests of a package's contents besides the trained model, and of the model's code."""
    return {
        "code": code_digest(spec.name, checkout),
        "package": spec_digest(spec, "package"),
        "serving": serving_digest(spec.name, checkout),
    }


def work_needed(last: Mapping[str, str] | None, champion: Mapping[str, str] | None, now: Mapping[str, str]) -> Work:
    """Return the work of a run, from the digests of the last run with a verdict, of the champion, and of today.

    The last verdict, which may have kept the champion, decides whether to train or to judge again. The champion decides
    whether to package again, since its package is the one that answers requests.
    """
    if last is None or not (_same_rows(last, now) and all(last.get(name) == now[name] for name in ("spec", "code"))):
        return "train"
    if last.get("verdict") != now.get("verdict") or not same_model(last, now):
        return "judge"
    if champion is not None and package_is_outdated(champion, now):
        return "repackage"
    return "nothing"


def same_model(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether a run now would train the same model as a run then.

    That is so if spec and code are the same, and either the training rows of then are what a run ingests now, or both
    ingested the same rows under the same suite. The suite counts since it decides which rows are set aside; "snapshot"
    is what is left of the "ingested" rows.
    """
    if "ingested" in now and all(then.get(name) == now[name] for name in DECIDE_A_MODEL):
        return True
    return _same_rows(then, now) and all(then.get(name) == now.get(name) for name in ("spec", "code", "suite"))


def _same_rows(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    same_training_rows = "ingested" in now and then.get("snapshot") == now["snapshot"]
    return same_training_rows or then.get("ingested", then.get("snapshot")) == now.get("ingested", now.get("snapshot"))


def package_is_outdated(champion: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether the champion's package has outdated limits or serving code, and can be rebuilt.

    It can be rebuilt if its model's code has not changed; otherwise the next run trains and packages a new model.
    """
    return champion.get("code") == now["code"] and any(champion.get(name) != now[name] for name in PACKAGED)


def same_package(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether two releases are the same model in the same package."""
    return all(one.get(name) == other.get(name) for name in (*DECIDE_A_MODEL, *PACKAGED))


def trained_folder(digests: Mapping[str, str]) -> str:
    """Return the name of the folder below `trained/`: a digest of everything that decides a model."""
    return digest.of_value([digests[name] for name in DECIDE_A_MODEL])[: digest.SHORT]


def artifact_folder(digests: Mapping[str, str]) -> str:
    """Return the name of the folder below `artifacts/`: a digest of model, verdict, package and suite."""
    names = (*DECIDE_A_MODEL, "verdict", *PACKAGED, "suite")
    return digest.of_value([digests.get(name) for name in names])[: digest.SHORT]
