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
from expectations.subprocess_validator import STARTED_VALIDATOR, Validator, start_validator
from expectations.validate import Report, suite_digest
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
"""By outcome: the event with which a release begins. The run is recorded together with it."""


def _name() -> str:
    """Return what a run is called while it goes on; at its end comes what it came to."""
    return f"{runtime.flow_run.parameters['model']} {datetime.now(UTC):%Y-%m-%d}"


@flow(name="retrain", flow_run_name=_name)
def retrain(
    model: str,
    data: str | None = None,
    force: bool = False,
    release: bool = True,
    cause: str = "person",
    why: str = "",
    only_package: bool = False,
) -> State[Any]:
    """Run the whole loop once for a model; the final state bears the outcome's name.

    `data` is a file or glob read instead of the spec's source. `force` retrains what is unchanged and skips no gate.
    Without `release`, everything up to the trial is done. `cause` says who or what started the run, and `why`
    what moved it to: both are in the ledger. With `only_package` no data is read: the champion is packaged again when
    its package is out of date.
    """
    id, deployment = _ids()
    folder = settings().folder("runs", model, str(id))
    run = _Run(model, cause, folder, deployed=deployment is not None, why=why)
    said = {"started": run.started, "cause": cause, "deployment": deployment and str(deployment), "pid": os.getpid()}
    with run_state.run_marker(run.folder, **said) as run.mark:
        try:
            if deployment:
                _exit_with_worker()
                run.show(run_state.cancel_late_runs, id, deployment)
            with _model_lock(run), run_state.time_limit(load_spec(model).time_limit, f"the run of {model}"):
                if only_package:
                    outcome = _only_package(run)
                else:
                    with _validator(model) as validator:
                        outcome = _steps(run, validator, data, force, release)
                run.conclude(outcome)
                run.show(_notify, run, outcome)
                # What waits for the next run stays: it goes on from there.
                if run.digests and outcome.outcome not in ("tried", "trial-failed"):
                    run.show(_collect, run)
            run.show(notify.notify_outcome, outcome, _ledger())
        except Exception as error:
            run.crash(error)
            raise
    said_so = "; ".join([*([outcome.resumed] if outcome.resumed else []), *outcome.reasons])
    return (Completed if outcome.exit_code == 0 else Failed)(name=outcome.state, message=said_so)


def _ids() -> tuple[UUID, UUID | None]:
    """Return the ids of this flow run and of the deployment that it is one of."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id, context.flow_run.deployment_id


def _steps(run: "_Run", validator: Validator, data: str | None, force: bool, release: bool) -> Outcome:
    """The promise, one step after the other, each leaving early with an outcome when the answer is no."""
    model, gate = run.model, load_spec(run.model).gate
    try:
        snapshot = run.step(
            "ingest", _retry_ingest(ingest_rows) if run.deployed else ingest_rows, model, data, run.deployed
        )
    except DataError as error:
        return run.outcome("data-rejected", [str(error)])
    run.digests = _digests(model, snapshot)
    run.show(_record_alarm, run)
    if not force and (settled := _without_training(run, release)):
        return settled

    report = run.step("validate", validate_rows, validator, snapshot)
    run.show(reports.publish_validation, model, report)
    run.show(reports.write_validation, run.folder, model, report)
    if not report.passed:
        return run.outcome("data-rejected", report.reasons)
    if report.quarantine:
        snapshot = run.continue_with(report.quarantine.snapshot or snapshot.digest)
        if not force and (settled := _without_training(run, release)):
            return settled
    changes = run.step("drift", compare_with_champion, model, snapshot)
    run.show(_notify_drift, run, changes)
    run.show(reports.write_validation, run.folder, model, report, changes)
    if not changes.passed:
        return run.outcome("data-rejected", changes.errors)

    try:
        trained = run.step("train", train_candidates, model, snapshot, run.digests, force)
    except DataError as error:
        return run.outcome("data-rejected", [str(error)])
    run.resume_from(trained)
    run.show(reports.publish_candidates, model, trained, load_spec(model).metric)

    wish = releases.desired_state(_ledger(), model)
    champion = wish.champion
    evaluation = run.step("evaluate", evaluate_models, model, snapshot, trained, champion)
    verdict = run.step("gate", decide_verdict, evaluation, gate)
    run.show(reports.publish_comparison, model, evaluation)
    run.show(reports.publish_verdict, model, verdict)
    if not verdict.passed:
        run.show(_draw, run, snapshot, trained, [])
        return run.outcome("kept" if champion else "model-rejected", verdict.reasons)
    if champion and not force and _is_champion(run.digests, champion):
        confirmed = f"the champion, release {champion.number}, is this very model and passes the gate as it is now"
        return run.outcome("kept", [confirmed, *verdict.reasons])
    if wish.held and release:
        # No verdict: when the hold ends, the next run takes the matter up again.
        run.digests = {}
        return run.outcome("kept", [releases.hold_sentence(model, wish.held)])

    artifact = run.step("artifact", make_artifact, model, snapshot, report, trained, evaluation, verdict, run.digests)
    run.show(_draw, run, snapshot, trained, artifact.manifest["importance"])
    bento = run.step("package", build_bento, artifact)
    trial = run.step("trial", try_package, bento, artifact)
    run.show(reports.publish_trial, model, trial)
    if not trial.passed:
        return run.outcome("trial-failed", trial.problems)
    if not release:
        return run.outcome("tried", verdict.reasons)

    name, why = _how(model, champion)
    reasons = [*why, *verdict.reasons]
    try:
        record = run.record(name, reasons)
        made = run.step("release", add_release, record, run.digests, bento, artifact, trial, champion)
    except ReleaseError as error:
        # Judged against a champion that is none now: no verdict, so that the next run takes the matter up again.
        run.digests = {}
        return run.outcome("kept", [str(error)])
    run.show(_write_card, run, made, part="card")
    run.show(_show_release, run, made, trial, name)
    return run.outcome(name, reasons)


def _without_training(run: "_Run", release: bool) -> Outcome | None:
    """Return the outcome of a run that neither trains nor judges: all is as it was, or only a package is out of date.

    What is barred is not trained either.
    """
    work, last = _work(run.model, run.digests)
    bar = releases.blocked_by(_ledger(), run.model, run.digests)
    if work in ("train", "judge") and not bar:
        run.judges = work == "judge"
        return None
    due = repackaging(_ledger(), run.model, run.digests)
    if due.champion and release:
        return _repackage(run, due, due.champion)
    if bar:
        return run.outcome("unchanged", [_blocked_by(bar)])
    # Without a verdict that holds there is work to do.
    assert last is not None
    return run.unchanged(last)


def _only_package(run: "_Run") -> Outcome:
    """Package, try and release the champion's model again, if its package is out of date; no data is read."""
    champion = releases.champion(_ledger(), run.model)
    if champion is None:
        raise ReleaseError(
            f"{run.model} has no champion to repackage; {releases.next_champion(_ledger(), run.model)}",
            code="release.no_champion",
        )
    due = repackaging(_ledger(), run.model, digests_of_code(load_spec(run.model), project_folder()))
    return _repackage(run, due, due.champion) if due.champion else run.outcome("unchanged", [due.reason])


def _repackage(run: "_Run", due: Repackaging, champion: Release) -> Outcome:
    """Package, try and release the champion's trained model again, as limits and serving code are now."""
    # The verdict that holds stays the last one: nothing was judged.
    last = runs.last_run(_ledger(), run.model, runs.VERDICTS)
    judged = last.digests if last and releases.still_valid(_ledger(), run.model, last) else champion.digests
    run.digests = {**judged, **due.digests}
    artifact = run.step("artifact", make_artifact_again, champion, due.digests)
    bento = run.step("package", build_bento, artifact)
    trial = run.step("trial", try_package, bento, artifact)
    run.show(reports.publish_trial, run.model, trial)
    if not trial.passed:
        return run.outcome("trial-failed", trial.problems)
    name, why = _how(run.model, champion)
    reasons = [due.reason, *why]
    digests = {**champion.digests, **due.digests}
    made = run.step("release", add_release, run.record(name, reasons), digests, bento, artifact, trial, champion)
    run.show(_write_card, run, made, part="card")
    run.show(_show_release, run, made, trial, name)
    return run.outcome(name, reasons)


def _is_champion(digests: Mapping[str, str], champion: Release) -> bool:
    return same_package(champion.digests, digests) and champion.digests.get("suite") == digests.get("suite")


def _how(model: str, champion: Release | None) -> tuple[Name, list[str]]:
    """Return how a release begins, and why so where the spec wishes otherwise."""
    spec = load_spec(model)
    if spec.approval == "manual":
        way = "`evergreen promote` makes it champion"
        if spec.canary and champion:
            way = f"`evergreen promote` goes on with it: it {describe_share(spec.canary)} where a server is up"
        return "awaiting-approval", [way]
    if spec.canary is None:
        return "released", []
    if champion is None:
        return "released", ["there was no champion to be a canary beside"]
    if not servers.live_servers(_ledger(), model):
        return "released", ["no server is up on which it could be a canary"]
    share = f"it {describe_share(spec.canary)}"
    return "canary", [f"{share}; then it answers all of them, unless an alarm sends it back"]


def _unreachable(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Retry what may heal by itself: not a path that is not there, bad data, or what `patience` retried."""
    error = state.result(raise_on_failure=False)
    return (
        isinstance(error, SourceError) and error.__cause__ is not None and not isinstance(error, RetriesExhaustedError)
    )


def _retry_ingest(step: Any) -> Any:
    """Retry a source's own function, say, as late as `patience` retries what it asks over a network."""
    return step.with_options(retries=len(SCHEDULED_PAUSES), retry_delay_seconds=list(SCHEDULED_PAUSES))


@task(
    name="ingest",
    task_run_name="ingest",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_unreachable,
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
            get_run_logger().info("trained already: going on from %s", folder)
            return trained
    return train(load_spec(model), snapshot, folder)


@task(name="evaluate", task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate_models(model: str, snapshot: Snapshot, trained: Trained, champion: Release | None) -> Evaluation:
    compared = _compared(champion) if champion else None
    return evaluate(load_spec(model), SnapshotFile(snapshot.path), trained.rule, trained.estimator(), compared)


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
    held_to = (report.guards, report.unguarded)
    return write_artifact(spec, snapshot, trained, evaluation, verdict, digests, needs, folder, *held_to)


@task(name="artifact", task_run_name="artifact", cache_policy=NO_CACHE)
def make_artifact_again(champion: Release, digests: dict[str, str]) -> Artifact:
    model = champion.model
    packed = artifact_of(champion, package_of(_ledger(), champion, settings().folder("bentoml")))
    folder = settings().folder("artifacts", model) / artifact_folder({**champion.digests, **digests})
    return repackaged(packed, load_spec(model), digests, requirements(model, project_folder()), folder)


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
    """Return what everything made from a snapshot is named by."""
    return digests_of(load_spec(model), snapshot.digest, suite_digest(model), project_folder())


def _work(model: str, digests: dict[str, str]) -> tuple[Work, Run | None]:
    """Return what a run with these digests has to do, and the last run with a verdict, if what it came to holds."""
    last, champion = runs.last_run(_ledger(), model, runs.VERDICTS), releases.champion(_ledger(), model)
    if last and not releases.still_valid(_ledger(), model, last):
        last = None
    return work_needed(last.digests if last else None, champion.digests if champion else None, digests), last


def nothing_new(model: str, data: str | None) -> bool:
    """Tell, reading no row, whether a run would surely neither train nor judge anything."""
    source, folder = load_spec(model).source, settings().folder("snapshots")
    known = IngestCache(source if data is None else sources.at(source, data), folder).snapshot()
    if known is None:
        return False
    digests = _digests(model, load_snapshot(folder / f"{known}.parquet"))
    work, _ = _work(model, digests)
    return work not in ("train", "judge") or releases.blocked_by(_ledger(), model, digests) is not None


def _blocked_by(bar: Event) -> str:
    return f"snapshot, spec and code are barred: {bar.kind} {bar.release}, {bar.reason}; --force retrains"


def _compared(champion: Release) -> Champion:
    """Return the champion as its own package answers, checked against the ledger's digests."""
    bento = load_bento(champion.bento, settings().folder("bentoml"), expected=champion.digests["bento"])
    packed = artifact_of(champion, bento)
    return Champion(
        release=champion.number,
        predict=lambda rows: predict_packaged(bento.path / "src", packed.digest, rows),
        required=tuple(feature.name for feature in packed.schema.features if feature.required),
        rule=Rule.from_dict(packed.manifest["holdout"]),
    )


def _collect(run: "_Run") -> None:
    """Remove what no release of the model needs any more, as its spec says."""
    gc.collect_garbage(settings(), _ledger(), {run.model: load_spec(run.model).keep_releases}, running=run.model)


def _write_card(run: "_Run", made: Release) -> None:
    """Write the release's model card; servers are on their way to the release meanwhile."""
    write_card(settings(), made, run.folder, run.folder / http.CARD)
    run.results["card"] = {"model card": http.CARD, "validation report": http.VALIDATION}


def _show_release(run: "_Run", made: Release, trial: Trial, name: Name) -> None:
    reports.publish_release(made, trial, name, _links(run))


def _links(run: "_Run") -> dict[str, str]:
    """Return where the pages of a run are, and the endpoints of its model that are up."""
    up = servers.live_servers(_ledger(), run.model)
    return http.links(settings(), run.folder) | {f"endpoint {one.server}": one.url for one in up}


def _notify(run: "_Run", outcome: Outcome) -> None:
    """Say in the run's log, its name and an artifact what it came to."""
    get_run_logger().info("%s: %s", outcome.outcome, "; ".join(outcome.reasons))
    reports.publish_outcome(outcome, _links(run))
    ended = f"released {outcome.release}" if outcome.outcome == "released" else outcome.outcome
    here = runtime.flow_run
    with get_client(sync_client=True) as client:
        client.update_flow_run(here.id, name=f"{here.name} -> {ended}", tags=sorted({*here.tags, run.model}))


def _notify_drift(run: "_Run", changes: DriftReport) -> None:
    """Show what changed since the champion, and leave it in the run's folder."""
    write_json(run.folder / "drift.json", changes.to_dict())
    image = plots.draw_drift(changes.drifted)
    if image is not None:
        write_bytes(run.folder / "drift.png", image)
    reports.publish_changes(run.model, changes, image)


def _record_alarm(run: "_Run") -> None:
    """Show the alarm that sent a canary back since the last run, if one did: nobody may have been told."""
    last = runs.last_run(_ledger(), run.model)
    for event in releases.history(_ledger(), run.model)[1]:
        if event.kind == releases.STOPPED and (last is None or event.at >= last.started):
            run.results["alarm"] = event
    if alarm := run.results.get("alarm"):
        reports.publish_alarm(run.model, alarm.release, alarm.reason)


def _draw(run: "_Run", snapshot: Snapshot, trained: Trained, importance: list[dict[str, Any]]) -> None:
    """Draw the challenger on the held-out rows, for the run's folder and for Prefect."""
    estimator, table = trained.estimator(), SnapshotFile(snapshot.path)
    drawn = plots.draw(load_spec(run.model), table, trained.rule, estimator, importance)
    for name, png in drawn.items():
        write_bytes(run.folder / f"{name}.png", png)
    run.results["plots"] = drawn
    reports.publish_plots(run.model, drawn)


@dataclass
class _Run:
    """What a run has found so far."""

    model: str
    cause: str
    folder: Path
    deployed: bool = False
    """Whether Prefect runs it for a deployment: nobody waits for it at a terminal."""
    why: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    digests: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    mark: RunMarker | None = None
    dead: CrashedRun | None = None
    """The run before, where its process died."""
    resumed: str | None = None
    judges: bool = False
    """Whether it judges again what a run before had trained and judged."""

    def step(self, name: str, work: Callable[..., Result], *args: Any) -> Result:
        """Do a step, timed and told of; its result belongs to the run's report."""
        self._mark(doing=name)
        self.results[name] = result = timed(name, self.seconds, work, *args)
        self._mark(doing=None, steps=[*self.results])
        get_run_logger().info("%s: %s", name, summarize(result))
        return result

    def _mark(self, **facts: Any) -> None:
        if self.mark is not None:
            self.mark.update(digests=self.digests, seconds=self.seconds, **facts)

    def resume_from(self, trained: Trained) -> None:
        """Say so when what is gone on with was trained by a run before."""
        if trained.created < self.started and self.judges:
            self.resumed = f"the model trained at {trained.created} is judged again; nothing is trained"
            get_run_logger().info(self.resumed)
        elif trained.created < self.started:
            before = f"{self.dead.sentence}, after" if self.dead else "an earlier run did not finish after"
            self.resumed = f"goes on from what was done: {before} it had trained at {trained.created}"
            get_run_logger().info(self.resumed)

    def show(self, publish: Callable[..., Any], *args: Any, part: str = "reports") -> None:
        """Publish something for people; that this fails must not fail a run whose work is sound."""
        started = time.perf_counter()
        try:
            publish(*args)
        except Exception:
            get_run_logger().warning("%s failed", publish.__name__, exc_info=True)
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.perf_counter() - started, 3)

    def continue_with(self, left: str) -> Snapshot:
        """Return the snapshot with this digest, which is what is left of the one ingested; it is trained on instead."""
        snapshot = load_snapshot(settings().folder("snapshots") / f"{left}.parquet")
        self.results["snapshot"] = snapshot
        self.digests |= {"snapshot": snapshot.digest, "ingested": self.digests["snapshot"]}
        return snapshot

    def outcome(self, name: Name, reasons: Any) -> Outcome:
        """Return how this run ends, with all it has found."""
        snapshot: Snapshot | None = self.results.get("snapshot", self.results.get("ingest"))
        report: Report | None = self.results.get("validate")
        changes: DriftReport | None = self.results.get("drift")
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
            metrics={who: getattr(evaluation, who) for who in ("challenger", "champion", "baseline")}
            if evaluation
            else None,
            seconds=self.seconds,
            warnings=(*(report.warnings if report else ()), *(changes.notes if changes else ())),
            report=str(self.folder / "report.md"),
            resumed=self.resumed,
        )

    def unchanged(self, same: Run) -> Outcome:
        """Return the outcome of a run that finds nothing new since another one."""
        why = f": {'; '.join(same.reasons)}" if same.outcome != "released" else ""
        reason = f"nothing that decides a model differs from the run of {same.started}, which ended {same.outcome}{why}"
        return self.outcome("unchanged", [f"{reason}; --force retrains"])

    def record(self, name: Name | Literal["crashed"], reasons: Any) -> Run:
        """Return the row that the ledger keeps of this run."""
        seconds, why = dict(self.seconds), self.why or None
        return Run(self.model, name, self.cause, list(reasons), self.digests, None, self.started, seconds, why)

    def crash(self, error: Exception) -> None:
        """Tell the ledger of a run that something broke in, if the ledger can still be told."""
        why = f"{type(error).__name__}: {error}"
        with suppress(Exception):
            runs.add_run(_ledger(), self.record("crashed", [why]))
        with suppress(Exception):
            notify.notify("crashed", self.model, [why])

    def conclude(self, outcome: Outcome) -> None:
        """Leave the outcome in the run's folder and in the ledger, where a release has put it already."""
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
    """Yield the process that validates: the one that was started with the command, or one that starts now."""
    here = STARTED_VALIDATOR.get()
    if here and here.model == model:
        yield here
        return
    with start_validator(model) as validator:
        validator.begin()
        yield validator


@contextmanager
def _model_lock(run: _Run) -> Iterator[None]:
    """Let one run per model go on at a time, on all machines that share a PostgreSQL ledger.

    The lock of a run that was killed is freed by the system, or by the database.
    """
    lock = FileLock(settings().folder("locks") / f"{run.model}.lock")

    def waiting(take: Callable[[], Any]) -> None:
        timed("wait for another run", run.seconds, lambda: take() and None)

    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting(lock.acquire)
    try:
        with model_lock(_ledger(), run.model, waiting):
            sweep(settings().folder())
            run.show(_close_crashed, run)
            yield
    finally:
        lock.release()


def _close_crashed(run: _Run) -> None:
    """Close runs whose process died, and go on from the last one of this model."""
    for dead in run_state.close_crashed(settings(), _ledger()):
        get_run_logger().warning("%s of %s: closed", dead.sentence, dead.model)
        if dead.model == run.model and (run.dead is None or dead.started > run.dead.started):
            run.dead = dead


def _exit_with_worker() -> None:
    """A run ends with the worker that has begun it, and with `evergreen up`; the next one goes on from what it did."""
    exit_with_parent(os.getppid())
    if up := os.environ.get(UP_PID_VARIABLE):
        exit_with_pid(int(up))
