"""What a run shows to people: Markdown for its page in the Prefect UI and for the `report.md` in its folder.

Every report begins with a headline, a paragraph of one line.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.reports.markdown import bullets, count, data_uri, document, drift_table, strong, table, text
from pipeline import digest
from pipeline.evaluate import CONFIDENCE, gap
from pipeline.files import write_json, write_text
from pipeline.format_numbers import describe_fitted_rows, format_difference, format_number
from pipeline.metrics import METRICS

if TYPE_CHECKING:
    from bentos.ledger.releases import Release
    from bentos.trial import Trial
    from expectations.report import Report
    from flows.outcome import Outcome
    from pipeline.drift import DriftReport
    from pipeline.evaluate import Evaluation, Interval, Slice
    from pipeline.gate import Verdict
    from pipeline.train import Candidate, Trained

WIDTH = 440
"""Of a plot in the Prefect UI, in pixels."""
MAX_COLUMNS = 60
"""Maximum number of columns in the table of drift, those farthest beyond their thresholds."""
MAX_SLICES = 40
"""Maximum number of slices of a column in a comparison, the worst ones."""


def validation(report: "Report") -> str:
    """Return what validation found."""
    from expectations.report import markdown

    return markdown(report)


def changes(found: "DriftReport", image: str | None = None) -> str:
    """Return what changed since the champion was trained: sentences, histograms, and each column with its threshold.

    `image` is where the histograms are.
    """
    if found.incomparable:
        return document(f"**Not compared**: {text(found.incomparable)}.")
    verdict = "**Data rejected**: " if found.errors else ""
    drifted = f"{len(found.drifted):,} of {count(len(found.columns), 'column')} drifted"
    sampled = f" Numbers are compared on {found.sampled:,} rows of either side." if found.sampled else ""
    return document(
        f"{verdict}{drifted} since release {found.since} was trained.{sampled}",
        bullets(f"**refused**: {text(sentence)}" for sentence in found.errors),
        bullets(text(sentence) for sentence in found.notes),
        f"![histograms then and now]({image})" if image else "",
        *drift_table(found.columns, MAX_COLUMNS),
    )


def candidates(trained: "Trained", metric: str) -> str:
    """Return how the candidates fared in cross-validation, the best first and those left out last."""
    sign = -1.0 if METRICS[metric].greater_is_better else 1.0
    ranked = sorted(trained.candidates, key=lambda one: (one.mean is None, sign * (one.mean or 0.0)))
    chosen = next(one for one in ranked if one.name == trained.chosen)
    return document(
        f"**{text(chosen.name)} was chosen** of {count(len(ranked), 'candidate')}: {metric} {_spread(chosen)} over "
        f"{count(len(chosen.scores), 'fold')}. Fitted on {describe_fitted_rows(trained.rows)}; "
        f"{count(trained.holdout_rows, 'row')} held out.",
        table(
            ["candidate", f"{metric}, mean ± sd", "best to worst fold", "seconds"],
            ([strong(text(one.name), one is chosen), *_fared(one, metric)] for one in ranked),
        ),
        f"{_direction(metric).capitalize()} {metric} is better.",
        bullets(f"{text(one.name)} was left out: {text(one.error)}" for one in ranked if one.error),
        bullets(f"{text(one.name)} warned: {text(note)}" for one in ranked for note in one.notes),
    )


def comparison(evaluation: "Evaluation") -> str:
    """Return all metrics of challenger, champion and baseline, their differences in words, and the slices."""
    metric = evaluation.metric
    champion = f"champion, release {evaluation.champion_release}"
    if evaluation.champion_release is None:
        headline = "there is no champion yet"
    elif evaluation.champion is None:
        headline = f"not compared with the {champion}: {text(evaluation.incomparable)}"
    else:
        headline = f"{_difference(evaluation.against_champion, evaluation)} than the {champion}"
    sides = {"challenger": evaluation.challenger, champion: evaluation.champion, "baseline": evaluation.baseline}
    shown = {who: metrics for who, metrics in sides.items() if metrics is not None}
    rows = [
        [strong(name, name == metric), _direction(name), *(format_number(side.get(name)) for side in shown.values())]
        for name in sorted(evaluation.challenger, key=lambda name: name != metric)
    ]
    if evaluation.value is not None:
        worth = (format_number(evaluation.value.get(who.partition(",")[0])) for who in shown)
        rows.append([f"value, {text(evaluation.value['unit'])}", "", *worth])
    differences = {
        champion: evaluation.against_champion if evaluation.champion is not None else None,
        "baseline, which always guesses": evaluation.against_baseline,
    }
    return document(
        f"**{metric} {format_number(evaluation.challenger.get(metric))}** on {count(evaluation.rows, 'held-out row')}: "
        f"{headline}.",
        table(["metric", "better is", *shown], rows),
        bullets(
            f"By {metric} the challenger is {_difference(interval, evaluation)} than the {who}"
            f"{_sure(interval, evaluation)}."
            for who, interval in differences.items()
            if interval is not None
        ),
        *_slices(evaluation),
    )


def verdict(verdict: "Verdict") -> str:
    """Return whether the challenger may be released, and the sentence of every condition, refusals first."""
    held = sum(check.passed for check in verdict.checks)
    return document(
        f"**{'Passed' if verdict.passed else 'Refused'}**: {held} of {count(len(verdict.checks), 'condition')} hold.",
        bullets(f"{'passed' if one.passed else '**refused**'}: {text(one.sentence)}" for one in verdict.checks),
    )


def trial(trial: "Trial") -> str:
    """Return whether the package answered as trained, how fast, and what was wrong."""
    word = "passed" if trial.passed else "failed"
    return document(
        f"**Trial {word}**: {_tried(trial)}.",
        bullets(text(problem) for problem in trial.problems),
        "" if trial.start_seconds is None else f"The package was ready after {trial.start_seconds:.1f} s.",
    )


def release(
    release: "Release", trial: "Trial", outcome: str = "released", links: Mapping[str, str] | None = None
) -> str:
    """Return what was released, what it replaced, where its pages are, and how to serve and undo it."""
    from bentos.ledger.releases import answered_by

    replaced = "no other" if release.replaced is None else f"release {release.replaced}"
    digests = (f"{name} `{value[: digest.SHORT]}`" for name, value in release.digests.items())
    facts = {
        "Bento": f"`{release.bento}`",
        "released": f"{text(release.created)}, cause: {text(release.cause)}",
        "answers": text(answered_by(release)),
        "trial": _tried(trial),
        "digests": ", ".join(digests),
    }
    became, invited, commands = {
        "canary": (
            f"is a canary.** Beside it, {replaced} answers most requests.",
            "Make it champion at once:",
            [f"evergreen promote {release.model} {release.number}"],
        ),
        "awaiting-approval": (
            f"awaits approval.** Until then {replaced} is served.",
            "Make it champion:",
            [f"evergreen promote {release.model} {release.number}"],
        ),
    }.get(
        outcome,
        (
            f"is champion.** It replaced {replaced}.",
            "Serve it:" if release.replaced is None else f"Serve it, or go back to {replaced}:",
            [f"evergreen serve {release.model}"]
            + ([] if release.replaced is None else [f"evergreen rollback {release.model}"]),
        ),
    )
    return document(
        f"**Release {release.number} of {release.model} {became}",
        _links(links or {}),
        "Why:",
        bullets(text(reason) for reason in release.verdict.get("reasons") or [release.reason]),
        "What it is:",
        bullets(f"{name}: {value}" for name, value in facts.items()),
        invited,
        "\n".join(["```", *commands, "```"]),
    )


def outcome(outcome: "Outcome", links: Mapping[str, str]) -> str:
    """Return how a whole run ended, why, with which numbers, and where its pages are."""
    name = f"released as {outcome.release}" if outcome.outcome == "released" else outcome.outcome
    scores = {who: metrics for who, metrics in (outcome.metrics or {}).items() if metrics}
    facts = {"rows": outcome.rows and f"{outcome.rows:,}", "snapshot": outcome.snapshot, "Bento": outcome.bento}
    return document(
        f"**{outcome.model}: {name}**",
        _links(links or {}),
        bullets(text(reason) for reason in outcome.reasons),
        "Worth a look:" if outcome.warnings else "",
        bullets(text(warning) for warning in outcome.warnings),
        table(
            ["held-out rows", *scores],
            ([name, *(format_number(side.get(name)) for side in scores.values())] for name in scores["challenger"]),
        )
        if scores
        else "",
        bullets(f"{name}: `{value}`" for name, value in facts.items() if value is not None),
        table(["step", "seconds"], ([step, f"{seconds:,.1f}"] for step, seconds in outcome.seconds.items())),
    )


def alarm(model: str, release: int, why: str) -> str:
    """Return which canary an alarm sent back, why, and what is the way on."""
    return document(
        f"**Release {release} of {model} was a canary and was sent back**: {text(why)}.",
        "The champion answers every request again. What was sent back is not released again while its snapshot, spec "
        "and code stay the same.",
        "\n".join(["```", f"evergreen release {model} {release}", f"evergreen history {model}", "```"]),
    )


def plots(images: Mapping[str, str]) -> str:
    """Return images by name, shown from where they are: relative paths, or data URIs."""
    return document(
        "The challenger on the held-out rows.",
        # Two beside each other; Markdown's own images would fill the width.
        " ".join(
            f'<img src="{where}" alt="{name.replace("-", " ")}" width="{WIDTH}">' for name, where in images.items()
        ),
    )


def run_report(outcome: "Outcome", results: Mapping[str, Any]) -> str:
    """Return the report of a whole run: how it ended and why, then what its steps found, the most telling first.

    `results` are those of the steps it got to, by the step's name. Plots are shown from `<name>.png` beside the report.
    """
    facts = {"rows": outcome.rows, "snapshot": outcome.snapshot, "Bento": outcome.bento, "release": outcome.release}
    sections: dict[str, tuple[str, Callable[[Any], str]]] = {
        "alarm": ("Since the last run", lambda event: alarm(outcome.model, event.release, event.reason)),
        "release": ("Release", lambda made: release(made, results["trial"], outcome.outcome, results.get("card", {}))),
        "gate": ("Verdict", verdict),
        "evaluate": ("Comparison", comparison),
        "plots": ("Plots", lambda drawn: plots({name: f"{name}.png" for name in drawn})),
        "train": ("Candidates", lambda trained: candidates(trained, results["evaluate"].metric)),
        "trial": ("Trial", trial),
        "validate": ("Data", validation),
        "drift": (
            "Since the champion",
            lambda found: changes(found, "drift.png" if any(one.histogram for one in found.drifted) else None),
        ),
    }
    parts = [
        f"# {outcome.model}: {outcome.outcome}",
        bullets(text(reason) for reason in outcome.reasons),
        ", ".join(f"{name} `{value}`" for name, value in facts.items() if value is not None),
    ]
    for step, (heading, write) in sections.items():
        if step in results:
            parts += [f"## {heading}", re.sub(r"^#", "##", write(results[step]).strip(), flags=re.MULTILINE)]
    took = ", ".join(f"{step} {seconds:,.1f} s" for step, seconds in outcome.seconds.items())
    return document(*parts, f"The steps took: {took}." if took else "")


def publish_validation(model: str, report: "Report") -> None:
    """Show the validation report on the run's page in the Prefect UI, as the artifact `<model>-validation`."""
    publish_markdown(model, "validation", validation(report))


def publish_changes(model: str, found: "DriftReport", image: bytes | None) -> None:
    """Show what changed since the champion was trained, with the histograms of what drifted."""
    publish_markdown(model, "drift", changes(found, None if image is None else data_uri(image)))


def write_validation(folder: Path, model: str, report: "Report", changes: "DriftReport | None" = None) -> None:
    """Leave the validation report in the run's folder, as a page for people and as JSON for programs."""
    from expectations.report_page import page

    write_text(folder / "validation.html", page(report, model, changes))
    write_json(folder / "validation.json", report.to_dict())


def publish_candidates(model: str, trained: "Trained", metric: str) -> None:
    """Show how the candidates fared."""
    publish_markdown(model, "candidates", candidates(trained, metric))


def publish_comparison(model: str, evaluation: "Evaluation") -> None:
    """Show challenger, champion and baseline side by side."""
    publish_markdown(model, "comparison", comparison(evaluation))


def publish_verdict(model: str, judged: "Verdict") -> None:
    """Show the verdict with all its checks."""
    publish_markdown(model, "verdict", verdict(judged))


def publish_plots(model: str, drawn: Mapping[str, bytes]) -> None:
    """Show PNG images, given by name."""
    # An image artifact would print its whole data URI below the image, and a link to a file leads nowhere in a browser.
    publish_markdown(model, "plots", plots({name: data_uri(png) for name, png in drawn.items()}))


def publish_trial(model: str, tried: "Trial") -> None:
    """Show what the trial found."""
    publish_markdown(model, "trial", trial(tried))


def publish_alarm(model: str, release: int, why: str) -> None:
    """Show that an alarm sent a canary back."""
    publish_markdown(model, "alarm", alarm(model, release, why))


def publish_release(made: "Release", tried: "Trial", ended: str, links: Mapping[str, str]) -> None:
    """Show what was released, where its pages are, and how to serve and undo it."""
    publish_markdown(made.model, "release", release(made, tried, ended, links))


def publish_outcome(ended: "Outcome", links: Mapping[str, str]) -> None:
    """Show how a whole run ended."""
    publish_markdown(ended.model, "outcome", outcome(ended, links))


def publish_markdown(model: str, part: str, markdown: str) -> None:
    """Show a document on the run's page in the Prefect UI, as the artifact `<model>-<part>`."""
    from prefect.artifacts import create_markdown_artifact

    # The headline is the description, which is on the artifact's card and above its body.
    headline, _, body = markdown.partition("\n\n")
    create_markdown_artifact(body or markdown, key=key(model, part), description=headline.strip())


def key(model: str, part: str) -> str:
    """Return the key of an artifact; Prefect takes no underscores."""
    return f"{model}-{part}".replace("_", "-")


def _links(links: Mapping[str, str]) -> str:
    return " · ".join(f"[{what}]({where})" for what, where in links.items())


def _fared(one: "Candidate", metric: str) -> list[str]:
    seconds = f"{one.seconds:,.1f}"
    if one.error is not None:
        return ["left out", "", seconds]
    best, worst = sorted((min(one.scores), max(one.scores)), reverse=METRICS[metric].greater_is_better)
    return [_spread(one), f"{format_number(best)} to {format_number(worst)}", seconds]


def _spread(one: "Candidate") -> str:
    return f"{format_number(one.mean)} ± {one.deviation:.2g}"


def _direction(metric: str) -> str:
    return "more" if METRICS[metric].greater_is_better else "less"


def _difference(interval: "Interval | None", evaluation: "Evaluation") -> str:
    return (
        "not known to be better"
        if interval is None
        else format_difference(interval.difference, evaluation.greater_is_better)
    )


def _sure(interval: "Interval", evaluation: "Evaluation") -> str:
    if interval.low == interval.high:
        return ", whichever of the rows are drawn"
    return f"; with {100 * interval.confidence:.4g}% confidence it is between {_ends(interval, evaluation)}"


def _ends(interval: "Interval", evaluation: "Evaluation") -> str:
    if interval.low == interval.high:
        return format_difference(interval.low, evaluation.greater_is_better)
    worst, best = sorted((interval.low, interval.high), reverse=not evaluation.greater_is_better)
    greater = evaluation.greater_is_better
    return f"{format_difference(worst, greater)} and {format_difference(best, greater)}"


def _slices(evaluation: "Evaluation") -> Iterator[str]:
    if not evaluation.slices:
        return
    judged, compared = sum(one.interval is not None for one in evaluation.slices), evaluation.champion is not None
    yield "## Slices"
    yield (
        f"{judged:,} of {count(len(evaluation.slices), 'slice')} have rows enough to be judged against the champion. "
        f"The intervals are widened so that all hold at once with {100 * CONFIDENCE:g}% confidence."
        if compared
        else "Not judged, since there is no champion to compare with."
    )
    beside = ["champion", "difference", "between"] if compared else []
    for column in dict.fromkeys(one.column for one in evaluation.slices):
        slices = [one for one in evaluation.slices if one.column == column]
        slices.sort(key=lambda one: (one.interval is None, -_badness(one, evaluation)))
        yield table(
            [text(column), "rows", "challenger", *beside],
            (
                [text(one.value), f"{one.rows:,}", format_number(one.challenger)]
                + (_beside(one, evaluation) if compared else [])
                for one in slices[:MAX_SLICES]
            ),
        )
        if len(slices) > MAX_SLICES:
            yield f"{len(slices) - MAX_SLICES:,} more of {text(column)} are not shown."


def _badness(one: "Slice", evaluation: "Evaluation") -> float:
    """Return by how much the challenger is worse there than the champion, or, without one, how bad it is."""
    if one.challenger is None or (one.champion is None and evaluation.champion is not None):
        return float("-inf")
    difference = one.challenger - (one.champion or 0.0)
    return -difference if evaluation.greater_is_better else difference


def _beside(one: "Slice", evaluation: "Evaluation") -> list[str]:
    if one.challenger is None or one.champion is None:
        return [format_number(one.champion), "", "undefined"]
    said = format_difference(gap(one.challenger, one.champion), evaluation.greater_is_better)
    return [format_number(one.champion), said, _ends(one.interval, evaluation) if one.interval else "too few rows"]


def _tried(trial: "Trial") -> str:
    if not trial.answers:
        return "no answer was compared"
    said = f"{count(trial.answers, 'answer')} {'exactly as trained' if trial.passed else 'compared'}"
    if trial.milliseconds is None:
        return said
    p50, p95 = (format_number(trial.milliseconds[name]) for name in ("p50", "p95"))
    return f"{said}, a row alone in {p50} ms (median), {p95} ms (95th percentile)"
