"""The Python interface for notebooks and scripts: models predict in this process, runs have processes of their own.

Run as a script (`python -m flows.notebook FOLDER`), it is such a process and answers the one request in that folder.
"""

import json
import math
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline.errors
from flows.notebook_html import facts, metrics, sentences
from flows.outcome import Outcome
from pipeline.errors import ArtifactError, DataError, EvergreenError, ReleaseError, ServerError
from pipeline.files import read_json, write_bytes, write_json, write_parquet
from pipeline.gate import Check, Verdict
from pipeline.processes import supervised_child
from pipeline.project import CODE_FOLDER, project_folder, project_package
from pipeline.settings import settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

    from bentos.endpoint.model import ServedModel
    from bentos.ledger.releases import Release
    from expectations.report import Report
    from pipeline.drift import DriftReport
    from pipeline.predict import Answers

BATCH_ROWS = 8192
"""Rows that are predicted together; fewer if the model's max_rows is smaller."""
MAX_ERRORS_SHOWN = 3


class LoadedModel:
    """A release of a model, ready to predict in this process.

    Attributes:
        name: the model.
        release: the number of the release.
        metrics: the release's metrics on its held-out rows; None if one is undefined.
        metric: the name of the metric that the gate compares.
        verdict: why the gate let the release pass.
        card: the model card, as the endpoint's `GET /model` answers it.
    """

    def __init__(self, release: "Release", served: "ServedModel") -> None:
        self._release, self._served = release, served
        self.name: str = release.model
        self.release: int = release.number
        self.metrics: dict[str, float | None] = release.evaluation["challenger"]
        self.metric: str = release.evaluation["metric"]
        checks = tuple(Check(check["passed"], check["sentence"]) for check in release.verdict["checks"])
        self.verdict = Verdict(release.verdict["passed"], checks)

    def predict(self, rows: "pd.DataFrame | Sequence[Mapping[str, Any]]") -> "pd.Series":
        """Return a prediction for each row, exactly as the endpoint answers it, under the frame's own index.

        Columns that the model does not use are ignored, as in a request. Raises DataError, naming row and field, for
        rows that the endpoint refuses.
        """
        import pandas as pd

        answers, index = self._predict(rows)
        return pd.Series(answers.predictions, index=index, name="prediction")

    def predict_proba(self, rows: "pd.DataFrame | Sequence[Mapping[str, Any]]") -> "pd.DataFrame":
        """Return the probability of each label (a column) for each row, exactly as the endpoint answers it.

        Raises DataError as `predict` does, and for a model that has no probabilities.
        """
        import pandas as pd

        answers, index = self._predict(rows)
        if answers.probabilities is None:
            raise DataError(f"{self.name} has no probabilities; use predict", code="data.no_probabilities")
        return pd.DataFrame(answers.probabilities, index=index, columns=list(answers.labels))

    @property
    def card(self) -> dict[str, Any]:
        """The model card, as the endpoint's `GET /model` answers it. No value of a sensitive column is in it."""
        from bentos.endpoint import page
        from pipeline.guard import without_sensitive

        artifact = self._served.artifact
        sensitive = artifact.manifest.get("sensitive", ())
        example = without_sensitive(artifact.golden()[0][0], artifact.schema.features, artifact.guards, sensitive)
        return page.card(artifact.manifest, self.release, example)

    @cached_property
    def estimator(self) -> Any:
        """The fitted scikit-learn estimator, unpickled after its digest is checked.

        Raises ArtifactError if its file is not what was released, if other versions of its packages are installed, or
        if it does not predict as it was trained, because the project's own classes have changed since.
        """
        from pipeline.predict import disagreements, predict
        from pipeline.schema import to_frame

        project_package("pipeline")
        artifact = self._served.artifact
        estimator = artifact.estimator()
        frame = to_frame(artifact.golden_table(), artifact.schema.features)
        if wrong := disagreements(predict(estimator, frame), artifact.golden()[1], artifact.manifest["scale"]):
            raise ArtifactError(
                f"the estimator of release {self.release} of {self.name} does not predict as it was trained "
                f"({wrong[0]}): pipeline/models/{self.name}.py has changed since; use predict, which needs no pickle",
                code="artifact.estimator_changed",
            )
        return estimator

    def evaluation(self) -> "pd.DataFrame":
        """Return the held-out rows, which the model never saw, with `truth`, `prediction` and `probability_<label>`.

        Columns that the spec calls sensitive are left out. A row that the model cannot predict has a missing
        prediction. Raises ArtifactError if the snapshot is gone.
        """
        from pipeline.snapshot import SnapshotFile
        from pipeline.split import Rule, held_out

        manifest = self._served.artifact.manifest
        table = SnapshotFile(_snapshot_file(self._release))
        rows = table.filter(held_out(Rule.from_dict(manifest["holdout"]), table))
        shown = [name for name in rows.column_names if name not in {*manifest["sensitive"], manifest["target"]}]
        frame = rows.select(shown).to_pandas()
        frame["truth"] = rows.column(manifest["target"]).to_pandas().to_numpy()
        return self._with_predictions(frame, rows)

    def _with_predictions(self, frame: "pd.DataFrame", rows: "pyarrow.Table") -> "pd.DataFrame":
        import numpy as np

        from bentos.endpoint.formats import word
        from bentos.scoring.predict import predict_table
        from pipeline.schema import table_of

        features = self._served.schema.features
        typed = table_of({feature.name: rows.column(feature.name).to_pylist() for feature in features}, features)
        answers, unanswered = predict_table(self._served, typed)
        answered = np.setdiff1d(np.arange(len(frame)), unanswered)
        labelled = answers is not None and bool(answers.labels)
        predictions = np.full(len(frame), None if labelled else np.nan, dtype=object if labelled else np.float64)
        if answers is not None:
            predictions[answered] = answers.predictions
        frame["prediction"] = predictions
        if answers is not None and answers.probabilities is not None:
            for label, shares in zip(answers.labels, answers.probabilities.T, strict=True):
                column = np.full(len(frame), np.nan)
                column[answered] = shares
                frame[f"probability_{word(label)}"] = column
        return frame

    def _predict(self, rows: "pd.DataFrame | Sequence[Mapping[str, Any]]") -> "tuple[Answers, Any]":
        """Return the answers to rows and their index; the endpoint's own parser reads the rows."""
        import pandas as pd

        from bentos.endpoint import formats
        from bentos.endpoint.problems import Problem
        from pipeline.predict import concat

        if isinstance(rows, pd.DataFrame):
            records, index = _records(rows), rows.index
        elif isinstance(rows, Mapping) or not isinstance(rows, Sequence):
            raise DataError(
                f"rows is a {type(rows).__name__}; give a DataFrame or a list of dicts", code="data.not_rows"
            )
        else:
            records, index = [*rows], pd.RangeIndex(len(rows))
        if not records:
            raise DataError("there are no rows to predict; give at least one", code="data.no_rows")
        parts = []
        size = min(BATCH_ROWS, self._served.max_rows)
        for start in range(0, len(records), size):
            body = json.dumps({"records": records[start : start + size]}, default=_plain).encode()
            batch = self._served.read(formats.JSON, body)
            answers = batch if isinstance(batch, Problem) else self._served.predict(batch)
            if isinstance(answers, Problem):
                raise DataError(_refusal(answers, start), code="data.request_refused")
            parts.append(answers)
        return concat(parts), index

    def __repr__(self) -> str:
        return f"<release {self.release} of {self.name}: {self.metric} {self.metrics[self.metric]}>"

    def _repr_html_(self) -> str:
        manifest, features = self._served.artifact.manifest, self._served.schema.features
        rows = {
            "predicts": manifest["target"],
            "estimator": manifest["estimator"],
            "answered by": manifest["answers"]["by"],
            "features": ", ".join(
                f"{each.name} ({each.type}{'' if each.required else ', nullable'})" for each in features
            ),
            "created": self._release.created,
            "bento": self._release.bento,
        }
        return (
            facts(f"{self.name}, release {self.release}", rows)
            + metrics({"held-out rows": self.metrics})
            + sentences(self.verdict.reasons)
        )


@dataclass(frozen=True)
class Validation:
    """The result of validating a table.

    Attributes:
        model: the model whose suite was applied.
        report: the result of each rule of the suite.
        changes: the drift since the champion was trained; None if the data broke the suite.
    """

    model: str
    report: "Report"
    changes: "DriftReport | None"

    @property
    def passed(self) -> bool:
        """Whether a run would train on this data."""
        return self.report.passed and (self.changes is None or self.changes.passed)

    @property
    def reasons(self) -> list[str]:
        """Why the data is rejected; empty if it passed."""
        return [*self.report.reasons, *(self.changes.errors if self.changes else ())]

    @property
    def warnings(self) -> list[str]:
        """Findings that are worth a look and reject nothing."""
        return [*self.report.warnings, *(self.changes.notes if self.changes else ())]

    @property
    def rules(self) -> "pd.DataFrame":
        """One row per rule: `severity`, `column`, `rule`, `passed`, `unexpected` (a count), `reason`."""
        import pandas as pd

        columns = ("severity", "column", "rule", "passed", "unexpected", "reason")
        rows = [
            (rule.severity, rule.column, rule.rule, rule.passed, rule.unexpected_count, rule.reason)
            for rule in self.report.rules
        ]
        return pd.DataFrame(rows, columns=list(columns))

    def _repr_html_(self) -> str:
        broken = sum(not rule.passed for rule in self.report.rules)
        rows = {
            "rows": f"{self.report.rows:,}",
            "rules": f"{len(self.report.rules)}, {broken} broken",
            "refused": "; ".join(self.reasons) or "no",
            "warnings": "; ".join(self.warnings) or "none",
        }
        return facts(f"data of {self.model}: {'passed' if self.passed else 'rejected'}", rows)


def load(model: str, release: int | None = None) -> LoadedModel:
    """Return a model's champion, or one of its releases by number, checked and ready to predict.

    Checks the digest of its package, and that it predicts its golden rows as it was trained. Raises ReleaseError if
    there is no such release, PackageError or ArtifactError if its package is gone or not what was released.
    """
    from bentos.endpoint.model import ServedModel
    from bentos.ledger.packages import artifact_of, package_of

    found = _release_of(model, release)
    artifact = artifact_of(found, package_of(_ledger(), found, settings().folder("bentoml")))
    if artifact.manifest["answers"]["by"] != "plan":
        # Its pickle names classes of the model's module.
        project_package("pipeline")
    served = ServedModel(artifact, found.number)
    served.check()
    return LoadedModel(found, served)


def run(
    model: str,
    data: "pd.DataFrame | str | Path | None" = None,
    *,
    force: bool = False,
    release: bool = True,
) -> Outcome:
    """Retrain a model as `evergreen run` does, and return how that ended.

    `data` is a frame, a file or a glob to read instead of the spec's source; its path is relative to the current
    folder. `force` retrains on unchanged data. With `release=False` the run ends after the trial. An expected "no" is
    an outcome with reasons; a failure is raised.
    """
    with _as_path(data) as path:
        outcome: Outcome = _in_process("run", model, path, force=force, release=release)
        return outcome


def validate(model: str, data: "pd.DataFrame | str | Path | None" = None) -> Validation:
    """Validate data, or the spec's own source, by a model's suite and by what its champion was trained on.

    Nothing is kept. Raises CheckError if a check is broken, which says nothing about the data.
    """
    with _as_path(data) as path:
        validation: Validation = _in_process("validate", model, path)
        return validation


def history(model: str) -> "pd.DataFrame":
    """Return one row per release, oldest first, under its number.

    Columns are `state`, `created`, `cause`, `reason`, `replaced`, `bento`, `snapshot`, and each metric of the release
    on its held-out rows.
    """
    import pandas as pd

    from bentos.ledger import releases

    _check_model(model)
    made, events = releases.history(_ledger(), model)
    states = releases.states(events)
    rows = [
        {
            "release": release.number,
            "state": states.get(release.number),
            "created": pd.Timestamp(release.created),
            "cause": release.cause,
            "reason": release.reason,
            "replaced": release.replaced,
            "bento": release.bento,
            "snapshot": release.digests["snapshot"],
            **release.evaluation["challenger"],
        }
        for release in made
    ]
    columns = ["release", "state", "created", "cause", "reason", "replaced", "bento", "snapshot"]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*columns, *(name for row in rows for name in row)])))
    return frame.astype({"replaced": "Int64"}).set_index("release")


def snapshot(model: str, release: int | None = None, *, sensitive: bool = False) -> "pd.DataFrame":
    """Return the rows that a model's champion, or one of its releases, was trained and evaluated on.

    Sensitive columns are included only with `sensitive=True`. Raises ReleaseError if there is no such release,
    ArtifactError if its snapshot is gone.
    """
    from flows.monitoring.champion_drift import packed_manifest
    from pipeline.snapshot import SnapshotFile

    found = _release_of(model, release)
    table = SnapshotFile(_snapshot_file(found))
    hidden: set[str] = set()
    if not sensitive:
        manifest = packed_manifest(settings(), found)
        if manifest is None:
            raise ArtifactError(
                f"the package of release {found.number} of {model} is gone, and with it which columns are sensitive; "
                "give sensitive=True to read all of them",
                code="artifact.package_gone",
            )
        hidden = set(manifest["sensitive"])
    frame: pd.DataFrame = table.select([name for name in table.column_names if name not in hidden]).to_pandas()
    return frame


def _ledger() -> Any:
    from bentos.ledger.database import open_ledger

    return open_ledger(settings().ledger_url)


def _check_model(model: str) -> None:
    from pipeline.spec import check_name

    check_name(model)


def _release_of(model: str, number: int | None) -> "Release":
    from bentos.ledger import releases

    _check_model(model)
    if number is not None:
        return releases.get_release(_ledger(), model, number)
    champion = releases.champion(_ledger(), model)
    if champion is None:
        raise ReleaseError(
            f"{model} has no champion; `evergreen run {model}` makes one, or name a release=",
            code="release.no_champion",
        )
    return champion


def _snapshot_file(release: "Release") -> Path:
    path = settings().folder("snapshots") / f"{release.digests['snapshot']}.parquet"
    if not path.exists():
        raise ArtifactError(
            f"snapshot {path.name} of release {release.number} of {release.model} is gone from {path.parent}; restore "
            "it from a copy",
            code="artifact.snapshot_gone",
        )
    return path


def _records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a frame as the records of a request: missing values are null, and nothing is rounded."""
    names = [*frame.columns]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise DataError(f"the frame has two columns {repeated[0]!r}; keep one of them", code="data.repeated_column")
    if not_text := [name for name in names if not isinstance(name, str)]:
        raise DataError(
            f"the frame has a column {not_text[0]!r}; rename it, since column names must be text",
            code="data.column_name_not_text",
        )
    columns = []
    for name in names:
        column = frame[name].astype(object)
        columns.append(column.where(frame[name].notna(), None).tolist())
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """Return a value that `json` cannot write as a JSON value."""
    import numpy as np

    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, np.generic):
        plain = value.item()
        return None if isinstance(plain, float) and math.isnan(plain) else plain
    return str(value)


def _refusal(problem: Any, start: int) -> str:
    """Return the problems that the endpoint reports, a sentence each; rows count from 0 in the whole frame."""
    listed = [
        f"{'' if error.row is None else f'row {error.row + start}: '}"
        f"{'' if error.field is None else f'field {error.field!r}: '}{error.problem}"
        for error in problem.errors[:MAX_ERRORS_SHOWN]
    ]
    more = ["and more"] if len(problem.errors) > len(listed) else []
    return "; ".join([*(listed or [problem.detail]), *more])


@contextmanager
def _as_path(data: "pd.DataFrame | str | Path | None") -> Iterator[str | None]:
    """Yield data as an absolute path or a URL, for a process in the project's folder; a frame is written to a file."""
    import pandas as pd
    import pyarrow

    from pipeline.sources.source_types import remote

    if data is None:
        yield None
    elif isinstance(data, pd.DataFrame):
        with tempfile.TemporaryDirectory(prefix="evergreen-notebook-") as folder:
            path = Path(folder) / "frame.parquet"
            write_parquet(path, pyarrow.Table.from_pandas(data, preserve_index=False))
            yield str(path)
    else:
        yield str(data) if remote(str(data)) else str(Path(data).absolute())


def _in_process(verb: str, model: str, data: str | None, **options: bool) -> Any:
    """Run a verb in a process of its own, which imports the project's current code; return its result."""
    project = project_folder()
    _check_model(model)
    with tempfile.TemporaryDirectory(prefix="evergreen-notebook-") as name:
        folder = Path(name)
        write_json(folder / "request.json", {"verb": verb, "model": model, "data": data, **options})
        path = os.pathsep.join(part for part in (str(CODE_FOLDER), os.environ.get("PYTHONPATH")) if part)
        command = [sys.executable, "-m", "flows.notebook", name]
        with supervised_child(command, {**os.environ, "PYTHONPATH": path}, project, folder / "log") as child:
            code = child.wait()
        if not (folder / "answer").exists():
            log = (folder / "log").read_text(errors="replace")[-2000:].strip()
            raise ServerError(
                f"the process for {verb} {model} ended with exit code {code}; its output: {log or 'none'}",
                code="process.ended",
            )
        # This code wrote it a moment ago, in a folder that nobody else may enter.
        result = pickle.loads((folder / "answer").read_bytes())
    if not isinstance(result, _Failure):
        return result
    raise getattr(pipeline.errors, result.error_class, EvergreenError)(result.message, code=result.code)


@dataclass(frozen=True)
class _Failure:
    """An error of the other process.

    Attributes:
        error_class: the name of its class in `pipeline.errors`.
        message: its sentence.
        code: its stable code.
    """

    error_class: str
    message: str
    code: str


def _run(model: str, data: str | None, force: bool, release: bool) -> Outcome:
    from flows.ops.warmup import launch

    return launch(settings(), lambda _: None, model=model, data=data, force=force, release=release)


def _validate(model: str, data: str | None) -> Validation:
    from expectations.report import Report
    from flows.check import check

    try:
        return Validation(model, *check(settings(), _ledger(), model, data))
    except DataError as error:
        return Validation(model, Report(rows=0, columns=0, rules=()).refused(str(error)), None)


def _answer(folder: Path) -> None:
    request = read_json(folder / "request.json")
    result: Any
    try:
        verbs: dict[str, Callable[..., Any]] = {"run": _run, "validate": _validate}
        result = verbs[request.pop("verb")](**request)
    except EvergreenError as error:
        known = next(cls for cls in type(error).__mro__ if cls.__module__ == "pipeline.errors")
        result = _Failure(known.__name__, str(error), error.code)
    except Exception as error:
        result = _Failure("EvergreenError", f"{type(error).__name__}: {error}", EvergreenError.code)
    write_bytes(folder / "answer", pickle.dumps(result))


if __name__ == "__main__":
    # Imported by its own name, so that the other process can unpickle the classes of this module.
    from flows import notebook

    notebook._answer(Path(sys.argv[1]))
