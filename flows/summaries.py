"""The result of a step of a run in a few words."""

from functools import singledispatch
from typing import Any

from bentos.canary import describe_share
from bentos.ledger.releases import Release
from bentos.package import Bento
from bentos.trial import Trial
from expectations.report import Report
from flows.monitoring.report import MonitoringReport
from flows.reports.markdown import count
from pipeline.artifact import Artifact
from pipeline.drift import DriftReport
from pipeline.evaluate import Evaluation
from pipeline.format_numbers import format_number
from pipeline.gate import Verdict
from pipeline.snapshot import Snapshot
from pipeline.train import Trained


@singledispatch
def summarize(result: Any) -> str:
    """Return the result of a step in a few words."""
    return "" if result is None else str(result)


@summarize.register
def _(snapshot: Snapshot) -> str:
    return f"{snapshot.rows:,} rows x {len(snapshot.columns)} columns from {snapshot.origin}, snapshot {snapshot.short}"


@summarize.register
def _(report: Report) -> str:
    broken = len(report.reasons)
    warnings = [rule for rule in report.rules if rule.severity == "warn" and not rule.passed]
    warned = f", {len(warnings)} warned" if warnings else ""
    aside = f", {report.quarantine.rows:,} rows set aside" if report.quarantine and report.quarantine.snapshot else ""
    return f"{len(report.rules)} rules, {broken} broken{warned}{aside}"


@summarize.register
def _(changes: DriftReport) -> str:
    if changes.incomparable:
        return changes.incomparable
    broken = f", {len(changes.errors)} refused" if changes.errors else ""
    return f"{len(changes.drifted)} of {len(changes.columns)} columns drifted since release {changes.since}{broken}"


@summarize.register
def _(trained: Trained) -> str:
    best = next(candidate for candidate in trained.candidates if candidate.name == trained.chosen)
    left_out = sum(candidate.error is not None for candidate in trained.candidates)
    failed = f", {left_out} left out" if left_out else ""
    rows = trained.compared_on or trained.training_rows
    return (
        f"{trained.chosen} of {len(trained.candidates)} candidates{failed}: "
        f"{format_number(best.mean)} ± {best.deviation:.2g} in cross-validation on {rows:,} rows"
    )


@summarize.register
def _(evaluation: Evaluation) -> str:
    def score(scores: dict[str, float | None] | None) -> str:
        return format_number((scores or {}).get(evaluation.metric))

    champion = f", champion {score(evaluation.champion)}" if evaluation.champion else ""
    return (
        f"{evaluation.metric} {score(evaluation.challenger)}{champion}, guessing {score(evaluation.baseline)} "
        f"on {evaluation.rows:,} held-out rows"
    )


@summarize.register
def _(verdict: Verdict) -> str:
    broken = sum(not check.passed for check in verdict.checks)
    if broken:
        return f"refused: {broken} of {len(verdict.checks)} conditions do not hold"
    return f"passed, {len(verdict.checks)} conditions"


@summarize.register
def _(artifact: Artifact) -> str:
    return f"artifact {artifact.digest[:12]}"


@summarize.register
def _(bento: Bento) -> str:
    return bento.tag


@summarize.register
def _(trial: Trial) -> str:
    if not trial.passed:
        return trial.problems[0]
    median = f", a row in {trial.milliseconds['p50']:g} ms" if trial.milliseconds else ""
    return f"{trial.answers} answers exactly as trained{median}"


@summarize.register
def _(release: Release) -> str:
    if release.canary:
        return f"release {release.number} {describe_share(release.canary_settings)}"
    return f"release {release.number}"


def summarize_monitoring(report: MonitoringReport) -> str:
    """Return a monitoring report in one sentence, without markup."""
    if report.inputs.columns is None:
        parts = [report.inputs.why or "nothing was compared"]
    else:
        columns = count(len(report.inputs.columns), "column")
        parts = [f"{len(report.inputs.drifted)} of {columns} drifted on {count(report.inputs.rows, 'row')}"]
    now = report.of_champion
    if now is not None and now.value is not None:
        parts.append(f"{report.metric} {format_number(now.value)} on {count(now.rows, 'labelled row')}")
    requests, errors = count(report.traffic.requests, "request"), count(report.traffic.errors, "error")
    parts.append(f"{requests} in {report.window.days:g} days, {errors}")
    return "; ".join(parts)
