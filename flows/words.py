"""What came out of a step of a run, in a few words."""

from functools import singledispatch
from typing import Any

from bentos.canary import share_in_words
from bentos.package import Bento
from bentos.releases import Release
from bentos.trial import Trial
from expectations.validate import Report
from flows.monitoring_report import MonitoringReport
from flows.reports import count
from pipeline.artifact import Artifact
from pipeline.drift import Changes
from pipeline.evaluate import Evaluation
from pipeline.gate import Verdict
from pipeline.numbers import number
from pipeline.snapshot import Snapshot
from pipeline.train import Trained


@singledispatch
def in_words(result: Any) -> str:
    """Say in a few words what came out of a step."""
    return "" if result is None else str(result)


@in_words.register
def _(snapshot: Snapshot) -> str:
    return f"{snapshot.rows:,} rows x {len(snapshot.columns)} columns from {snapshot.origin}, snapshot {snapshot.short}"


@in_words.register
def _(report: Report) -> str:
    broken = len(report.reasons)
    warnings = [rule for rule in report.rules if rule.severity == "warn" and not rule.passed]
    warned = f", {len(warnings)} warned" if warnings else ""
    aside = f", {report.quarantine.rows:,} rows set aside" if report.quarantine and report.quarantine.snapshot else ""
    return f"{len(report.rules)} rules, {broken} broken{warned}{aside}"


@in_words.register
def _(changes: Changes) -> str:
    if changes.incomparable:
        return changes.incomparable
    broken = f", {len(changes.errors)} refused" if changes.errors else ""
    return f"{len(changes.drifted)} of {len(changes.columns)} columns drifted since release {changes.since}{broken}"


@in_words.register
def _(trained: Trained) -> str:
    best = next(one for one in trained.candidates if one.name == trained.chosen)
    left_out = sum(one.error is not None for one in trained.candidates)
    failed = f", {left_out} left out" if left_out else ""
    rows = trained.compared_on or trained.training_rows
    return (
        f"{trained.chosen} of {len(trained.candidates)} candidates{failed}: "
        f"{number(best.mean)} ± {best.deviation:.2g} in cross-validation on {rows:,} rows"
    )


@in_words.register
def _(evaluation: Evaluation) -> str:
    def said(scores: dict[str, float | None] | None) -> str:
        return number((scores or {}).get(evaluation.metric))

    champion = f", champion {said(evaluation.champion)}" if evaluation.champion else ""
    return (
        f"{evaluation.metric} {said(evaluation.challenger)}{champion}, guessing {said(evaluation.baseline)} "
        f"on {evaluation.rows:,} held-out rows"
    )


@in_words.register
def _(verdict: Verdict) -> str:
    broken = sum(not check.passed for check in verdict.checks)
    if broken:
        return f"refused: {broken} of {len(verdict.checks)} conditions do not hold"
    return f"passed, {len(verdict.checks)} conditions"


@in_words.register
def _(artifact: Artifact) -> str:
    return f"artifact {artifact.digest[:12]}"


@in_words.register
def _(bento: Bento) -> str:
    return bento.tag


@in_words.register
def _(trial: Trial) -> str:
    if not trial.passed:
        return trial.problems[0]
    median = f", a row in {trial.milliseconds['p50']:g} ms" if trial.milliseconds else ""
    return f"{trial.answers} answers exactly as trained{median}"


@in_words.register
def _(release: Release) -> str:
    if release.canary:
        return f"release {release.number} {share_in_words(release.canary_settings)}"
    return f"release {release.number}"


def summarize(report: MonitoringReport) -> str:
    """Return what a look at a served model found in one sentence, without markup."""
    if report.inputs.columns is None:
        parts = [report.inputs.why or "nothing was compared"]
    else:
        columns = count(len(report.inputs.columns), "column")
        parts = [f"{len(report.inputs.drifted)} of {columns} drifted on {count(report.inputs.rows, 'row')}"]
    now = report.of_champion
    if now is not None and now.value is not None:
        parts.append(f"{report.metric} {number(now.value)} on {count(now.rows, 'labelled row')}")
    requests, errors = count(report.traffic.requests, "request"), count(report.traffic.errors, "error")
    parts.append(f"{requests} in {report.window.days:g} days, {errors}")
    return "; ".join(parts)
