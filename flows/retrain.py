"""The retraining flow: ingest > validate > drift > train > evaluate > gate > package > trial > release.

Tasks hand each other paths, digests and small results, never frames: a frame between tasks is hashed and pickled.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

from filelock import FileLock, Timeout
from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed, State

from bentos import releasing
from bentos.canary import describe_share
from bentos.ledger import releases, runs, servers
from bentos.ledger.database import model_lock, open_ledger
from bentos.ledger.packages import artifact_of, package_of
from bentos.ledger.releases import Event, Release
from bentos.ledger.runs import Run
from bentos.package import Bento, load_bento, package, requirements
from bentos.trial import Trial, run_trial
from expectations.report import Report
from expectations.subprocess_validator import STARTED_VALIDATOR, Validator, start_validator
from expectations.suite import suite_digest
from flows import gc
from flows.monitoring.champion_drift import drift_since_champion
from flows.ops import notify, run_state
from flows.ops.run_state import UP_PID_VARIABLE, CrashedRun, RunMarker
from flows.outcome import Name, Outcome
from flows.progress import timed
from flows.repackaging import Repackaging, repackaging
from flows.reports import http, plots
from flows.reports import run as reports
from flows.reports.model_card import write_card
from flows.summaries import summarize
from pipeline import sources
from pipeline.artifact import Artifact, repackaged, write_artifact
from pipeline.drift import DriftReport
from pipeline.errors import ArtifactError, DataError, ReleaseError, SourceError
from pipeline.evaluate import Champion, Evaluation, evaluate
from pipeline.files import sweep, write_bytes, write_json, write_text
from pipeline.gate import Verdict, decide
from pipeline.ingest_cache import IngestCache
from pipeline.predict_in_package import predict_packaged
from pipeline.processes import exit_with_parent, exit_with_pid, run_niced
from pipeline.project import project_folder
from pipeline.run_digests import (
    Work,
    artifact_folder,
    digests_of,
    digests_of_code,
    same_package,
    trained_folder,
    work_needed,
)
from pipeline.settings import settings
from pipeline.snapshot import Snapshot, SnapshotFile, ingest, load_snapshot
from pipeline.sources.retry import SCHEDULED_PAUSES, RetriesExhaustedError, nobody_waits
from pipeline.spec import load_spec
from pipeline.split import Rule
from pipeline.train import Trained, load_trained, train

Result = TypeVar("Result")
EVENT_OF_OUTCOME = {"released": releases.RELEASED, "canary": releases.CANARY, "awaiting-approval": releases.AWAITING}
"""The ledger's first event of a release, by the outcome of its run. The ledger records both in one transaction."""


def _flow_run_name() -> str:
    """Return the name of a run in Prefect; the outcome is appended when the run ends."""
    return f"{runtime.flow_run.parameters['model']} {datetime.now(UTC):%Y-%m-%d}"


@flow(name="retrain", flow_run_name=_flow_run_name)
def retrain(
    model: str,
    data: str | None = None,
    force: bool = False,
    release: bool = True,
    cause: str = "person",
    why: str = "",
    only_package: bool = False,
) -> State[Any]:
    """Run the whole loop once for a model; the final state has the name of the outcome.

    Args:
        model: its name.
        data: a file or glob to read instead of the spec's source.
        force: retrain even if nothing changed; skips no gate.
        release: without it, the run stops after the trial.
        cause: who or what started the run, such as "person" or "schedule"; the ledger records it.
        why: the reason of that cause; the ledger records it.
        only_package: read no data; rebuild the champion's package if it is out of date.
    """
    id, deployment = _flow_run_ids()
    folder = settings().folder("runs", model, str(id))
    run = _Run(model, cause, folder, deployed=deployment is not None, why=why)
    facts = {"started": run.started, "cause": cause, "deployment": deployment and str(deployment), "pid": os.getpid()}
    with run_state.run_marker(run.folder, **facts) as run.marker:
        try:
            if deployment:
                _exit_with_worker()
                run.show(run_state.cancel_late_runs, id, deployment)
            with _model_lock(run), run_state.time_limit(load_spec(model).time_limit, f"the run of {model}"):
                if only_package:
                    outcome = _only_package(run)
                else:
                    with _validator(model) as validator:
                        outcome = _run_steps(run, validator, data, force, release)
                run.record_outcome(outcome)
                run.show(_publish_outcome, run, outcome)
                # After these two outcomes, and without a verdict, the trained model stays: the next run resumes there.
                if run.digests and outcome.outcome not in ("tried", "trial-failed"):
                    run.show(_collect_garbage, run)
            run.show(notify.notify_outcome, outcome, _ledger())
        except Exception as error:
            run.record_crash(error)
            raise
    message = "; ".join([*([outcome.resumed] if outcome.resumed else []), *outcome.reasons])
    return (Completed if outcome.exit_code == 0 else Failed)(name=outcome.state, message=message)


def _flow_run_ids() -> tuple[UUID, UUID | None]:
    """Return the id of this flow run, and of its deployment if it has one."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id, context.flow_run.deployment_id


def _run_steps(run: "_Run", validator: Validator, data: str | None, force: bool, release: bool) -> Outcome:
    """The promise, step by step; each step that says no ends the run early, with an outcome."""
    model, gate = run.model, load_spec(run.model).gate

    ingest_task = _with_long_retries(ingest_rows) if run.deployed else ingest_rows
    try:
        snapshot = run.step("ingest", ingest_task, model, data, run.deployed)
    except DataError as error:
        return run.outcome("data-rejected", [str(error)])
    run.digests = _digests(model, snapshot)
    run.show(_publish_alarm, run)
    if not force and (early_outcome := _outcome_without_training(run, release)):
        return early_outcome

    report = run.step("validate", validate_rows, validator, snapshot)
    run.show(reports.publish_validation, model, report)
    run.show(reports.write_validation, run.folder, model, report)
    if not report.passed:
        return run.outcome("data-rejected", report.reasons)
    if report.quarantine:
        snapshot = run.continue_with(report.quarantine.snapshot or snapshot.digest)
        if not force and (early_outcome := _outcome_without_training(run, release)):
            return early_outcome

    drift = run.step("drift", compare_with_champion, model, snapshot)
    run.show(_publish_drift, run, drift)
    run.show(reports.write_validation, run.folder, model, report, drift)
    if not drift.passed:
        return run.outcome("data-rejected", drift.errors)

    try:
        trained = run.step("train", train_candidates, model, snapshot, run.digests, force)
    except DataError as error:
        return run.outcome("data-rejected", [str(error)])
    run.resume_from(trained)
    run.show(reports.publish_candidates, model, trained, load_spec(model).metric)

    desired = releases.desired_state(_ledger(), model)
    champion = desired.champion
    evaluation = run.step("evaluate", evaluate_models, model, snapshot, trained, champion)
    run.show(reports.publish_comparison, model, evaluation)

    verdict = run.step("gate", decide_verdict, evaluation, gate)
    run.show(reports.publish_verdict, model, verdict)
    if not verdict.passed:
        run.show(_draw_plots, run, snapshot, trained, [])
        return run.outcome("kept" if champion else "model-rejected", verdict.reasons)
    if champion and not force and _is_champion(run.digests, champion):
        confirmed = f"the champion, release {champion.number}, already is this model and passes the current gate"
        return run.outcome("kept", [confirmed, *verdict.reasons])
    if desired.held and release:
        # Without digests the ledger records no verdict, so the first run after the hold decides again.
        run.digests = {}
        return run.outcome("kept", [releases.hold_sentence(model, desired.held)])

    artifact = run.step("artifact", make_artifact, model, snapshot, report, trained, evaluation, verdict, run.digests)
    run.show(_draw_plots, run, snapshot, trained, artifact.manifest["importance"])

    bento = run.step("package", build_bento, artifact)

    trial = run.step("trial", try_package, bento, artifact)
    run.show(reports.publish_trial, model, trial)
    if not trial.passed:
        return run.outcome("trial-failed", trial.problems)
    if not release:
        return run.outcome("tried", verdict.reasons)

    name, reasons_for_state = _first_state(model, champion)
    reasons = [*reasons_for_state, *verdict.reasons]
    try:
        made = run.step(
            "release", add_release, run.record(name, reasons), run.digests, bento, artifact, trial, champion
        )
    except ReleaseError as error:
        # The champion changed meanwhile. Without digests the ledger records no verdict, so the next run decides again.
        run.digests = {}
        return run.outcome("kept", [str(error)])
    run.show(_write_card, run, made, part="card")
    run.show(_publish_release, run, made, trial, name)
    return run.outcome(name, reasons)


def _outcome_without_training(run: "_Run", release: bool) -> Outcome | None:
    """Return the outcome of a run that has nothing to train or evaluate; None if it has.

    It has nothing to do if nothing changed, if only the package is out of date, or if the release is blocked.
    """
    work, last_verdict = _work_needed(run.model, run.digests)
    block = releases.blocked_by(_ledger(), run.model, run.digests)
    if work in ("train", "judge") and not block:
        run.evaluates_again = work == "judge"
        return None
    due = repackaging(_ledger(), run.model, run.digests)
    if due.champion and release:
        return _repackage(run, due, due.champion)
    if block:
        return run.outcome("unchanged", [_blocked_sentence(block)])
    # Without a valid verdict, `work` would be "train" or "judge".
    assert last_verdict is not None
    return run.unchanged(last_verdict)


def _only_package(run: "_Run") -> Outcome:
    """Package, try and release the champion's model again if its package is out of date. Reads no data."""
    champion = releases.champion(_ledger(), run.model)
    if champion is None:
        raise ReleaseError(
            f"{run.model} has no champion to repackage; {releases.next_champion(_ledger(), run.model)}",
            code="release.no_champion",
        )
    due = repackaging(_ledger(), run.model, digests_of_code(load_spec(run.model), project_folder()))
    return _repackage(run, due, due.champion) if due.champion else run.outcome("unchanged", [due.reason])


def _repackage(run: "_Run", due: Repackaging, champion: Release) -> Outcome:
    """Package, try and release the champion's trained model again, with today's limits and serving code."""
    # The run evaluates nothing, so it carries on the digests of the verdict that is valid.
    last = runs.last_run(_ledger(), run.model, runs.VERDICTS)
    evaluated = last.digests if last and releases.still_valid(_ledger(), run.model, last) else champion.digests
    run.digests = {**evaluated, **due.digests}
    artifact = run.step("artifact", make_artifact_again, champion, due.digests)
    bento = run.step("package", build_bento, artifact)
    trial = run.step("trial", try_package, bento, artifact)
    run.show(reports.publish_trial, run.model, trial)
    if not trial.passed:
        return run.outcome("trial-failed", trial.problems)
    name, reasons_for_state = _first_state(run.model, champion)
    reasons = [due.reason, *reasons_for_state]
    digests = {**champion.digests, **due.digests}
    made = run.step("release", add_release, run.record(name, reasons), digests, bento, artifact, trial, champion)
    run.show(_write_card, run, made, part="card")
    run.show(_publish_release, run, made, trial, name)
    return run.outcome(name, reasons)


def _is_champion(digests: Mapping[str, str], champion: Release) -> bool:
    return same_package(champion.digests, digests) and champion.digests.get("suite") == digests.get("suite")


def _first_state(model: str, champion: Release | None) -> tuple[Name, list[str]]:
    """Return the first state of a release: champion, canary or awaiting approval; and why, if the spec asks for more.

    The state is returned as the outcome of the run that makes the release.
    """
    spec = load_spec(model)
    if spec.approval == "manual":
        next_step = "`evergreen promote` makes it champion"
        if spec.canary and champion:
            next_step = (
                f"`evergreen promote` makes it a canary if a server is running: it {describe_share(spec.canary)}"
            )
        return "awaiting-approval", [next_step]
    if spec.canary is None:
        return "released", []
    if champion is None:
        return "released", ["it was not a canary first: there was no champion"]
    if not servers.live_servers(_ledger(), model):
        return "released", ["it was not a canary first: no server is running"]
    return "canary", [f"it {describe_share(spec.canary)}; then it becomes champion, unless an alarm stops it"]


def _is_transient(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Tell whether a failed ingest may succeed when it is retried.

    A missing path and bad data stay as they are, and `pipeline.sources.retry` has retried the network already.
    """
    error = state.result(raise_on_failure=False)
    return (
        isinstance(error, SourceError) and error.__cause__ is not None and not isinstance(error, RetriesExhaustedError)
    )


def _with_long_retries(ingest_task: Any) -> Any:
    """Retry as long as `pipeline.sources.retry` retries a network: also a source that is a function of the project."""
    return ingest_task.with_options(retries=len(SCHEDULED_PAUSES), retry_delay_seconds=list(SCHEDULED_PAUSES))


@task(
    name="ingest",
    task_run_name="ingest",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_is_transient,
)
def ingest_rows(model: str, data: str | None, scheduled: bool) -> Snapshot:
    source = load_spec(model).source
    with nobody_waits() if scheduled else nullcontext():
        return ingest(source if data is None else sources.at(source, data), settings().folder("snapshots"))


@task(name="validate", task_run_name="validate", cache_policy=NO_CACHE)
def validate_rows(validator: Validator, snapshot: Snapshot) -> Report:
    return validator.check(snapshot)


@task(name="drift", task_run_name="drift", cache_policy=NO_CACHE)
def compare_with_champion(model: str, snapshot: Snapshot) -> DriftReport:
    return drift_since_champion(settings(), _ledger(), model, SnapshotFile(snapshot.path), snapshot.digest)


@task(name="train", task_run_name="train", cache_policy=NO_CACHE)
def train_candidates(model: str, snapshot: Snapshot, digests: dict[str, str], force: bool) -> Trained:
    folder = settings().folder("trained", model) / trained_folder(digests)
    if not force:
        try:
            trained = load_trained(folder)
            trained.estimator()
        except ArtifactError:
            pass
        else:
            get_run_logger().info("already trained: resuming from %s", folder)
            return trained
    return train(load_spec(model), snapshot, folder)


@task(name="evaluate", task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate_models(model: str, snapshot: Snapshot, trained: Trained, champion: Release | None) -> Evaluation:
    opponent = _packaged_champion(champion) if champion else None
    return evaluate(load_spec(model), SnapshotFile(snapshot.path), trained.rule, trained.estimator(), opponent)


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE)
def decide_verdict(evaluation: Evaluation, gate: Any) -> Verdict:
    return decide(evaluation, gate)


@task(name="artifact", task_run_name="artifact", cache_policy=NO_CACHE)
def make_artifact(
    model: str,
    snapshot: Snapshot,
    report: Report,
    trained: Trained,
    evaluation: Evaluation,
    verdict: Verdict,
    digests: dict[str, str],
) -> Artifact:
    folder = settings().folder("artifacts", model) / artifact_folder(digests)
    spec, needs = load_spec(model), requirements(model, project_folder())
    guards = (report.guards, report.unguarded)
    return write_artifact(spec, snapshot, trained, evaluation, verdict, digests, needs, folder, *guards)


@task(name="artifact", task_run_name="artifact", cache_policy=NO_CACHE)
def make_artifact_again(champion: Release, digests: dict[str, str]) -> Artifact:
    model = champion.model
    artifact = artifact_of(champion, package_of(_ledger(), champion, settings().folder("bentoml")))
    folder = settings().folder("artifacts", model) / artifact_folder({**champion.digests, **digests})
    return repackaged(artifact, load_spec(model), digests, requirements(model, project_folder()), folder)


@task(name="package", task_run_name="package", cache_policy=NO_CACHE)
def build_bento(artifact: Artifact) -> Bento:
    return package(artifact, project_folder(), settings().folder("bentoml"))


@task(name="trial", task_run_name="trial", cache_policy=NO_CACHE)
def try_package(bento: Bento, artifact: Artifact) -> Trial:
    return run_niced(run_trial, bento, artifact)


@task(name="release", task_run_name="release", cache_policy=NO_CACHE)
def add_release(
    run: Run, digests: dict[str, str], bento: Bento, artifact: Artifact, trial: Trial, champion: Release | None
) -> Release:
    canary = load_spec(run.model).canary
    release = Release(
        model=run.model,
        number=0,
        bento=bento.tag,
        digests={**digests, "artifact": artifact.digest, "bento": bento.digest},
        verdict=artifact.manifest["verdict"],
        evaluation=artifact.manifest["evaluation"],
        trial=trial.to_dict(),
        answers=artifact.manifest["answers"],
        cause=run.cause,
        reason="; ".join([*([run.why] if run.why else []), *run.reasons]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        replaced=champion.number if champion else None,
        canary=asdict(canary) if canary and champion and run.outcome in ("canary", "awaiting-approval") else None,
    )
    return releasing.release(_ledger(), settings().folder("bentoml"), release, run, EVENT_OF_OUTCOME[run.outcome])


def _ledger() -> Any:
    return open_ledger(settings().ledger_url)


def _digests(model: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the digests of snapshot, spec, code and suite, which identify everything made from them."""
    return digests_of(load_spec(model), snapshot.digest, suite_digest(model), project_folder())


def _work_needed(model: str, digests: dict[str, str]) -> tuple[Work, Run | None]:
    """Return what a run with these digests has to do, and the last run with a verdict, if that verdict is valid."""
    last, champion = runs.last_run(_ledger(), model, runs.VERDICTS), releases.champion(_ledger(), model)
    if last and not releases.still_valid(_ledger(), model, last):
        last = None
    return work_needed(last.digests if last else None, champion.digests if champion else None, digests), last


def nothing_new(model: str, data: str | None) -> bool:
    """Tell, without reading a row, whether a run certainly has nothing to train or evaluate."""
    source, folder = load_spec(model).source, settings().folder("snapshots")
    known = IngestCache(source if data is None else sources.at(source, data), folder).snapshot()
    if known is None:
        return False
    digests = _digests(model, load_snapshot(folder / f"{known}.parquet"))
    work, _ = _work_needed(model, digests)
    return work not in ("train", "judge") or releases.blocked_by(_ledger(), model, digests) is not None


def _blocked_sentence(block: Event) -> str:
    return f"snapshot, spec and code are blocked: {block.kind} {block.release}, {block.reason}; --force retrains"


def _packaged_champion(champion: Release) -> Champion:
    """Return the champion as its package predicts, after checking the package against the ledger's digests."""
    bento = load_bento(champion.bento, settings().folder("bentoml"), expected=champion.digests["bento"])
    artifact = artifact_of(champion, bento)
    return Champion(
        release=champion.number,
        predict=lambda rows: predict_packaged(bento.path / "src", artifact.digest, rows),
        required=tuple(feature.name for feature in artifact.schema.features if feature.required),
        rule=Rule.from_dict(artifact.manifest["holdout"]),
    )


def _collect_garbage(run: "_Run") -> None:
    """Remove files that no release of the model needs, keeping as many releases as its spec says."""
    gc.collect_garbage(settings(), _ledger(), {run.model: load_spec(run.model).keep_releases}, running=run.model)


def _write_card(run: "_Run", made: Release) -> None:
    """Write the release's model card; servers are already switching to the release."""
    write_card(settings(), made, run.folder, run.folder / http.CARD)
    run.results["card"] = {"model card": http.CARD, "validation report": http.VALIDATION}


def _publish_release(run: "_Run", made: Release, trial: Trial, name: Name) -> None:
    reports.publish_release(made, trial, name, _links(run))


def _links(run: "_Run") -> dict[str, str]:
    """Return the addresses of the run's pages, and of the running endpoints of its model."""
    live = servers.live_servers(_ledger(), run.model)
    return http.links(settings(), run.folder) | {f"endpoint {server.server}": server.url for server in live}


def _publish_outcome(run: "_Run", outcome: Outcome) -> None:
    """Put the outcome into the run's log, its name in Prefect and an artifact."""
    get_run_logger().info("%s: %s", outcome.outcome, "; ".join(outcome.reasons))
    reports.publish_outcome(outcome, _links(run))
    ended = f"released {outcome.release}" if outcome.outcome == "released" else outcome.outcome
    flow_run = runtime.flow_run
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            flow_run.id, name=f"{flow_run.name} -> {ended}", tags=sorted({*flow_run.tags, run.model})
        )


def _publish_drift(run: "_Run", drift: DriftReport) -> None:
    """Write what changed since the champion into the run's folder, and show it in Prefect."""
    write_json(run.folder / "drift.json", drift.to_dict())
    image = plots.draw_drift(drift.drifted)
    if image is not None:
        write_bytes(run.folder / "drift.png", image)
    reports.publish_changes(run.model, drift, image)


def _publish_alarm(run: "_Run") -> None:
    """Show the alarm that stopped a canary since the last run, if one did: it may not have been shown yet."""
    last = runs.last_run(_ledger(), run.model)
    for event in releases.history(_ledger(), run.model)[1]:
        if event.kind == releases.STOPPED and (last is None or event.at >= last.started):
            run.results["alarm"] = event
    if alarm := run.results.get("alarm"):
        reports.publish_alarm(run.model, alarm.release, alarm.reason)


def _draw_plots(run: "_Run", snapshot: Snapshot, trained: Trained, importance: list[dict[str, Any]]) -> None:
    """Plot the challenger's predictions on the held-out rows, for the run's folder and for Prefect."""
    estimator, table = trained.estimator(), SnapshotFile(snapshot.path)
    images = plots.draw(load_spec(run.model), table, trained.rule, estimator, importance)
    for name, png in images.items():
        write_bytes(run.folder / f"{name}.png", png)
    run.results["plots"] = images
    reports.publish_plots(run.model, images)


@dataclass
class _Run:
    """The state of one run, from its start to its outcome.

    Attributes:
        model: its name.
        cause: who or what started the run.
        folder: the folder of its reports.
        deployed: whether Prefect runs it for a deployment, so that nobody waits at a terminal.
        why: the reason of the cause.
        started: when it began, ISO 8601 in UTC.
        digests: of snapshot, spec, code and suite; empty before ingest, and if the run reaches no verdict.
        seconds: how long each step took.
        results: the result of each step, by its name.
        marker: the file that says that this run is in progress.
        crashed: the model's run before this one, if its process died.
        resumed: the work of an earlier run that this one did not do again, as a sentence.
        evaluates_again: whether it evaluates a model again that an earlier run trained and evaluated.
    """

    model: str
    cause: str
    folder: Path
    deployed: bool = False
    why: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    digests: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    marker: RunMarker | None = None
    crashed: CrashedRun | None = None
    resumed: str | None = None
    evaluates_again: bool = False

    def step(self, name: str, work: Callable[..., Result], *args: Any) -> Result:
        """Run a step and return its result; record its time, its progress and its result."""
        self._update_marker(doing=name)
        self.results[name] = result = timed(name, self.seconds, work, *args)
        self._update_marker(doing=None, steps=[*self.results])
        get_run_logger().info("%s: %s", name, summarize(result))
        return result

    def _update_marker(self, **facts: Any) -> None:
        if self.marker is not None:
            self.marker.update(digests=self.digests, seconds=self.seconds, **facts)

    def resume_from(self, trained: Trained) -> None:
        """Record that an earlier run trained this model, if one did."""
        if trained.created >= self.started:
            return
        if self.evaluates_again:
            self.resumed = f"the model trained at {trained.created} is evaluated again; nothing is trained"
        elif self.crashed:
            self.resumed = f"resumed: {self.crashed.sentence}, after it had trained at {trained.created}"
        else:
            self.resumed = f"resumed: an earlier run did not finish after it had trained at {trained.created}"
        get_run_logger().info(self.resumed)

    def show(self, publish: Callable[..., Any], *args: Any, part: str = "reports") -> None:
        """Publish something for people. An error here is logged: it must not fail a run whose work is sound."""
        started = time.perf_counter()
        try:
            publish(*args)
        except Exception:
            get_run_logger().warning("%s failed", publish.__name__, exc_info=True)
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - started, 3)

    def continue_with(self, remaining: str) -> Snapshot:
        """Return the snapshot with this digest: the rows left after quarantine, which the run trains on from here."""
        snapshot = load_snapshot(settings().folder("snapshots") / f"{remaining}.parquet")
        self.results["snapshot"] = snapshot
        self.digests |= {"snapshot": snapshot.digest, "ingested": self.digests["snapshot"]}
        return snapshot

    def outcome(self, name: Name, reasons: Any) -> Outcome:
        """Return the outcome of this run, with the results of the steps it has done."""
        snapshot: Snapshot | None = self.results.get("snapshot", self.results.get("ingest"))
        report: Report | None = self.results.get("validate")
        drift: DriftReport | None = self.results.get("drift")
        evaluation: Evaluation | None = self.results.get("evaluate")
        release: Release | None = self.results.get("release")
        bento: Bento | None = self.results.get("package")
        return Outcome(
            model=self.model,
            outcome=name,
            reasons=tuple(reasons),
            release=release.number if release else None,
            bento=bento.tag if bento else None,
            snapshot=snapshot.digest if snapshot else None,
            rows=snapshot.rows if snapshot else None,
            metrics={name: getattr(evaluation, name) for name in ("challenger", "champion", "baseline")}
            if evaluation
            else None,
            seconds=self.seconds,
            warnings=(*(report.warnings if report else ()), *(drift.notes if drift else ())),
            report=str(self.folder / "report.md"),
            resumed=self.resumed,
        )

    def unchanged(self, last: Run) -> Outcome:
        """Return the outcome of a run that finds nothing new since the last one."""
        why = f": {'; '.join(last.reasons)}" if last.outcome != "released" else ""
        since = f"since the run of {last.started}, which ended {last.outcome}{why}"
        return self.outcome("unchanged", [f"nothing that decides a model has changed {since}; --force retrains"])

    def record(self, name: Name | Literal["crashed"], reasons: Any) -> Run:
        """Return the row of this run for the ledger."""
        seconds, why = dict(self.seconds), self.why or None
        return Run(self.model, name, self.cause, list(reasons), self.digests, None, self.started, seconds, why)

    def record_crash(self, error: Exception) -> None:
        """Record in the ledger that this run broke, and notify people; each is skipped if it fails."""
        why = f"{type(error).__name__}: {error}"
        with suppress(Exception):
            runs.add_run(_ledger(), self.record("crashed", [why]))
        with suppress(Exception):
            notify.notify("crashed", self.model, [why])

    def record_outcome(self, outcome: Outcome) -> None:
        """Write the outcome to the run's folder and, unless a release was recorded with it, to the ledger."""
        write_json(self.folder / "outcome.json", outcome.to_dict())
        report = reports.run_report(outcome, self.results)
        if outcome.resumed:
            headline, _, rest = report.partition("\n\n")
            report = f"{headline}\n\n- {outcome.resumed}\n\n{rest}"
        write_text(self.folder / "report.md", report)
        if outcome.outcome not in EVENT_OF_OUTCOME:
            runs.add_run(_ledger(), self.record(outcome.outcome, outcome.reasons))


@contextmanager
def _validator(model: str) -> Iterator[Validator]:
    """Yield the process that validates: the one that the command has started already, or a new one."""
    started = STARTED_VALIDATOR.get()
    if started and started.model == model:
        yield started
        return
    with start_validator(model) as validator:
        validator.begin()
        yield validator


@contextmanager
def _model_lock(run: _Run) -> Iterator[None]:
    """Let only one run of a model work at a time, on all machines that share a PostgreSQL ledger.

    If a run is killed, the operating system frees its lock file and PostgreSQL its advisory lock.
    """
    lock = FileLock(settings().folder("locks") / f"{run.model}.lock")

    def wait(acquire: Callable[[], Any]) -> None:
        timed("wait for another run", run.seconds, lambda: acquire() and None)

    try:
        lock.acquire(timeout=0)
    except Timeout:
        wait(lock.acquire)
    try:
        with model_lock(_ledger(), run.model, wait):
            sweep(settings().folder())
            run.show(_close_crashed, run)
            yield
    finally:
        lock.release()


def _close_crashed(run: _Run) -> None:
    """Close runs whose process died, and remember the latest one of this model: this run resumes its work."""
    for crashed in run_state.close_crashed(settings(), _ledger()):
        get_run_logger().warning("%s, %s: closed", crashed.model, crashed.sentence)
        if crashed.model == run.model and (run.crashed is None or crashed.started > run.crashed.started):
            run.crashed = crashed


def _exit_with_worker() -> None:
    """End this process when its worker or `evergreen up` ends; the next run resumes its work."""
    exit_with_parent(os.getppid())
    if up := os.environ.get(UP_PID_VARIABLE):
        exit_with_pid(int(up))
