"""The artifact: a sealed folder with the fitted estimator, its compiled plan, golden rows and a manifest."""

import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import formats
from pipeline.compiled import (
    CompiledModel,
    Plan,
    UnanswerableError,
    UncompilableError,
    columns_of,
    compile_pipeline,
    load_plan,
    prove,
    save_plan,
)
from pipeline.errors import ArtifactError, TrainingError
from pipeline.evaluate import Evaluation
from pipeline.files import link_or_copy, read_json, whole_folder, write_json
from pipeline.formats import check_format
from pipeline.gate import Verdict
from pipeline.guard import Guard, passing, required_by
from pipeline.importance import importance
from pipeline.manifest import open_sealed, seal
from pipeline.pickle_requirements import pickle_requirements, unmet_requirements
from pipeline.predict import Answers, concat, predict, predict_rows, target
from pipeline.sample import sample_rows
from pipeline.schema import Feature, Schema, describe, to_frame, to_table
from pipeline.snapshot import Snapshot, SnapshotFile
from pipeline.split import held_out
from pipeline.train import Trained, load_estimator

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec

PLAN, ESTIMATOR = "plan", "estimator"
"""What answers requests: the compiled plan, or the estimator itself."""
SHUFFLES = {PLAN: 5, ESTIMATOR: 2}
"""How often a feature's values are shuffled to measure its importance; the estimator is slower than a plan."""
MAX_HELD_OUT = 100_000
"""With more held-out rows, the golden rows, the proof and the importance are computed on a sample of this size."""
GOLDEN_ROWS = 40
UNSEEN = "a category never seen in training"


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk.

    Attributes:
        folder: where it is.
        digest: of its manifest, which has the digests of all other files.
        manifest: its facts as JSON values; docs/internals/formats.md lists them.
    """

    folder: Path
    digest: str
    manifest: dict[str, Any]

    @property
    def schema(self) -> Schema:
        """What a request to the model may hold."""
        return Schema.from_dict(self.manifest["schema"])

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The rules that a request to the model has to follow."""
        return tuple(Guard.from_dict(guard) for guard in self.manifest["guards"])

    def estimator(self) -> Any:
        """Load the fitted estimator.

        Raises ArtifactError if its file is missing or has changed, or if other package versions pickled it. A golden
        fixture has a plan and no pickle.
        """
        if "model.joblib" not in self.manifest["files"]:
            raise ArtifactError(
                f"{self.folder} has a compiled plan but no model.joblib; train the model again to get one",
                code="artifact.no_estimator",
            )
        if lacking := unmet_requirements(self.manifest["pickle"]):
            raise ArtifactError(
                f"{self.manifest['model']} was trained {'; '.join(lacking)}; its pickle loads only under the versions "
                "it was trained with: install those, or train it again",
                code="artifact.other_versions",
            )
        return load_estimator(self.folder / "model.joblib", self.manifest["files"]["model.joblib"])

    def compiled_model(self) -> CompiledModel | None:
        """Return the compiled plan, which predicts as the estimator does; None if the model could not be compiled."""
        return CompiledModel(load_plan(self.folder)) if self.manifest["answers"]["by"] == PLAN else None

    def golden(self) -> tuple[list[dict[str, Any]], Answers]:
        """Return the golden rows as a caller would send them, and the predictions of the trained pipeline for them."""
        golden = read_json(self.folder / "golden.json")
        return golden["rows"], Answers.from_dict(golden["answers"])

    def golden_table(self) -> "pyarrow.Table":
        """Return the golden rows as a table of the features."""
        features = self.schema.features
        return to_table([_parsed(row, features) for row in self.golden()[0]], features)


def write_artifact(
    spec: "ModelSpec",
    snapshot: Snapshot,
    trained: Trained,
    evaluation: Evaluation,
    verdict: Verdict,
    digests: dict[str, str],
    requirements: Sequence[str],
    folder: Path,
    guards: Sequence[Guard] = (),
    unguarded: Sequence[str] = (),
) -> Artifact:
    """Write the artifact of a trained and judged challenger to `folder`, whole or not at all.

    `digests` are those of the snapshot, the spec and the code it was made from. `guards` are the rules that requests
    have to follow, `unguarded` names the suite's other rules. Raises TrainingError if the pipeline cannot predict a row
    that its own spec allows, or if the guards would refuse every held-out row.
    """
    table = SnapshotFile(snapshot.path)
    schema = required_by(describe(spec, table), guards)
    estimator = trained.estimator()
    mask = held_out(trained.rule, table)
    held = table.filter(sample_rows(MAX_HELD_OUT, mask, spec.seed))
    accepted = held.filter(passing(held, guards))
    if not accepted.num_rows:
        rules = ", ".join(str(guard) for guard in guards if guard.refuse)
        raise TrainingError(
            f"the endpoint of {spec.name} would refuse every held-out row, since it refuses requests unless {rules}; "
            "change these rules of the suite",
            code="training.all_rows_refused",
        )
    rows, answers = _golden(spec.name, estimator, accepted, schema.features)
    y = target(spec.task.kind, table.column(spec.target).filter(~mask))
    scale = float(np.std(y)) if spec.task.kind == "regression" else 1.0
    plan, answered = _compiled(estimator, held, schema.features, scale)
    predict_table = _predictor(estimator, plan, schema.features)
    manifest = {
        "format": formats.ARTIFACT.current,
        "model": spec.name,
        "target": spec.target,
        "created": trained.created,
        "python": platform.python_version(),
        "requirements": list(requirements),
        "pickle": pickle_requirements(estimator),
        "digests": {**digests, "model": trained.model_digest},
        "schema": schema.to_dict(),
        "labels": list(answers.labels),
        "scale": scale,
        "target_quantiles": _deciles(y) if spec.task.kind == "regression" else [],
        "estimator": trained.chosen,
        "candidates": [asdict(candidate) for candidate in trained.candidates],
        "rows": trained.rows,
        "holdout": trained.rule.to_dict(),
        "metric": spec.metric,
        "evaluation": evaluation.to_dict(),
        "importance": importance(spec, held, schema.features, predict_table, SHUFFLES[answered["by"]]),
        "verdict": verdict.to_dict(),
        **_packaged(spec),
        "answers": answered,
        "guards": [guard.to_dict() for guard in guards],
        "unguarded": list(unguarded),
    }
    with whole_folder(folder) as part:
        if plan is not None:
            save_plan(plan, part)
        link_or_copy(trained.folder / "model.joblib", part / "model.joblib")
        write_json(part / "golden.json", {"rows": rows, "answers": answers.to_dict()})
        seal(part, manifest)
    return load_artifact(folder)


def repackaged(
    artifact: Artifact, spec: "ModelSpec", digests: dict[str, str], requirements: Sequence[str], folder: Path
) -> Artifact:
    """Write the artifact of the same trained model to `folder`, with today's limits, log and requirements.

    The estimator, its plan, golden rows, evaluation and verdict are those of `artifact`; `digests` replaces some of its
    digests.
    """
    sealed = artifact.manifest["files"]
    manifest = {name: value for name, value in artifact.manifest.items() if name != "files"}
    manifest |= {**_packaged(spec), "requirements": list(requirements)}
    manifest["digests"] = {**manifest["digests"], **digests}
    with whole_folder(folder) as part:
        for name in sealed:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(artifact.folder / name, part / name)
        seal(part, manifest)
    return load_artifact(folder)


def _packaged(spec: "ModelSpec") -> dict[str, Any]:
    """Return the manifest's facts that follow from the spec's fields of the kind *package*."""
    return {
        "task": asdict(spec.task),
        "sensitive": list(spec.sensitive),
        "limits": asdict(spec.limits),
        "log": {**asdict(spec.log), "sensitive": list(spec.sensitive)} if spec.log else None,
    }


def _compiled(
    estimator: Any, held_out_rows: "pyarrow.Table", features: Sequence[Feature], scale: float
) -> tuple[Plan | None, dict[str, Any]]:
    """Return the plan, if it is proven to predict as the estimator does, and the manifest's facts about it."""
    from threadpoolctl import threadpool_limits

    try:
        plan = compile_pipeline(estimator, features)
        # One thread, as in a server's worker. Hostile rows overflow in the estimator, as expected.
        with threadpool_limits(1), warnings.catch_warnings(action="ignore"):
            proof = prove(estimator, CompiledModel(plan), held_out_rows, features, scale)
    except UncompilableError as error:
        return None, {"by": ESTIMATOR, "why": str(error), "proof": None}
    except Exception as error:
        # A plan is only faster than the estimator, so an error here does not stop the release; the manifest names it.
        return None, {"by": ESTIMATOR, "why": f"compiling broke: {type(error).__name__}: {error}", "proof": None}
    if not proof.passed:
        why = f"the plan answers otherwise, {proof.wrong} times: {proof.problems[0]}"
        return None, {"by": ESTIMATOR, "why": why, "proof": proof.to_dict()}
    return plan, {"by": PLAN, "why": None, "proof": proof.to_dict()}


def _predictor(estimator: Any, plan: Plan | None, features: Sequence[Feature]) -> Callable[["pyarrow.Table"], Answers]:
    """Return the function that predicts as an endpoint does: by the plan, or by the estimator if the plan cannot."""

    def by_estimator(rows: "pyarrow.Table") -> Answers:
        return predict_rows(estimator, rows, features)

    if plan is None:
        return by_estimator
    compiled = CompiledModel(plan)

    def by_plan(rows: "pyarrow.Table") -> Answers:
        try:
            return compiled(*columns_of(rows, plan))
        except UnanswerableError:
            return by_estimator(rows)

    return by_plan


def load_artifact(folder: Path, expected: str | None = None) -> Artifact:
    """Check every file of an artifact against its manifest, and return the artifact.

    Nothing is unpickled. Raises ArtifactError, naming the file, as `open_sealed` does, and FormatError if this
    evergreen does not read the artifact's format.
    """
    found, manifest = open_sealed(folder, expected)
    check_format(formats.ARTIFACT, manifest.get("format"), f"artifact {folder}")
    return Artifact(folder, found, manifest)


def _deciles(y: NDArray[np.float64]) -> list[float]:
    """Return the deciles of a target, rounded to three digits so that most releases have the same ones."""
    return sorted({float(f"{value:.3g}") for value in np.quantile(y, np.arange(0.1, 1, 0.1))})


def _golden(
    model: str, estimator: Any, rows: "pyarrow.Table", features: Sequence[Feature]
) -> tuple[list[dict[str, Any]], Answers]:
    """Return golden rows as JSON values: real held-out rows, then hostile ones, with the estimator's answers."""
    table = rows.select([feature.name for feature in features]).take(_golden_positions(rows, features))
    plain = [{name: _json(value) for name, value in row.items()} for row in table.to_pylist()]
    hostile = [{**plain[0], **change} for change in _hostile(features)]
    answers = [predict(estimator, to_frame(table, features))]
    for row, change in zip(hostile, ("missing", "unseen"), strict=False):
        try:
            answer = predict(estimator, to_frame(to_table([_parsed(row, features)], features), features))
            if not answer.labels and not np.isfinite(answer.predictions).all():
                raise ValueError(f"it predicts {answer.predictions[0]}")
            answers.append(answer)
            plain.append(row)
        except Exception as error:
            # A pipeline may refuse unseen categories, but it has to predict rows without the features that may be null.
            if change == "missing":
                names = ", ".join(repr(name) for name in _nullable(features))
                raise TrainingError(
                    f"{model} allows {names} to be null, but its trained pipeline cannot predict such a row: "
                    f"{type(error).__name__}: {error}; add an imputer, or remove the feature from nullable",
                    code="training.null_not_predicted",
                ) from error
    return plain, concat(answers)


def _golden_positions(rows: "pyarrow.Table", features: Sequence[Feature]) -> list[int]:
    """Return positions of rows: half at even steps, the others with a null or the min or max of a feature."""
    found: dict[int, None] = {}
    for feature in features:
        column = rows.column(feature.name)
        if column.null_count:
            found.setdefault(column.is_null().index(True).as_py())
        if feature.type == "number" and column.null_count < len(column):
            values = column.to_numpy().astype(float)
            found.setdefault(int(np.nanargmin(values)))
            found.setdefault(int(np.nanargmax(values)))
    even = np.linspace(0, rows.num_rows - 1, GOLDEN_ROWS // 2).astype(int).tolist()
    return list(dict.fromkeys([*even, *list(found)[: GOLDEN_ROWS // 2]]))


def _nullable(features: Sequence[Feature]) -> list[str]:
    return [feature.name for feature in features if not feature.required]


def _hostile(features: Sequence[Feature]) -> Iterator[dict[str, Any]]:
    yield dict.fromkeys(_nullable(features))
    yield {feature.name: UNSEEN for feature in features if feature.type == "text"}


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _parsed(row: dict[str, Any], features: Sequence[Feature]) -> dict[str, Any]:
    times = {feature.name for feature in features if feature.type == "timestamp"}
    return {
        name: datetime.fromisoformat(value) if name in times and value is not None else value
        for name, value in row.items()
    }
