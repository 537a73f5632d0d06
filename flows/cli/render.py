"""What a person sees in the terminal: steps on stderr while they run, results on stdout.

One `show_...` function per view of `flows.cli.views`; each prints and returns nothing.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flows.cli.views import EventView, ServedView
from flows.progress import RowProgress, Step
from pipeline.format_numbers import format_number, format_times

if TYPE_CHECKING:
    from flows.cli.views import (
        BacktestView,
        CollectedView,
        DeployedView,
        ErasedView,
        FeatureView,
        HistoryView,
        ImportView,
        InitView,
        ModelStatus,
        ReleaseView,
        ReproductionView,
        RollbackView,
        ScoresView,
        SpecView,
        StatusView,
        TriggersView,
        TriggerView,
        ValidationView,
    )
    from flows.monitoring.report import MonitoringReport, Trigger
    from flows.ops.up import UpStatus
    from flows.outcome import Outcome
    from pipeline.drift import DriftReport

_STYLES = {
    "released": "bold green",
    "canary": "bold green",
    "awaiting-approval": "yellow",
    "unchanged": "green",
    "kept": "yellow",
    "tried": "green",
    "data-rejected": "bold red",
    "model-rejected": "bold red",
    "trial-failed": "bold red",
    "crashed": "bold red",
}


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Yield a listener that shows each step as a spinner, then as a line. With `quiet` it shows nothing."""
    if quiet:
        yield lambda _: None
        return
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:

        def listen(step: Step) -> None:
            if step.seconds is None:
                status.update(step.name)
                return
            mark = "[green]✓[/]" if step.passed else "[red]✗[/]"
            summary = escape(" ".join(step.summary.split()))
            _line(console, f"{mark} {step.name:<9}[dim]{step.seconds:6.1f} s[/]  {summary}", hang=21)

        yield listen


@contextmanager
def rows(quiet: bool, noun: str = "rows") -> Iterator[Callable[[Any], None]]:
    """Yield a listener that shows a progress bar of rows, or of another `noun`. With `quiet` it shows nothing."""
    if quiet:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("start", total=None, count="")

        def listen(event: Any) -> None:
            if isinstance(event, RowProgress):
                of = f" of {event.total:,}" if event.total else ""
                count = f"{event.done:,}{of} {noun}{event.summary}"
                bar.update(task, completed=event.done, total=event.total, count=count)
            elif isinstance(event, Step) and event.seconds is None:
                bar.update(task, description=event.name)

        yield listen


def show_scores(found: "ScoresView") -> None:
    """Print how many rows were scored and rejected, and how long it took."""
    console = Console(highlight=False)
    rate = found.rows / max(found.of_score["scoring"], 1e-9)
    console.print(
        f"{found.model}: [bold green]{found.scored:,}[/] of {found.rows:,} rows scored by release "
        f"{found.release} into {escape(found.out)}",
        soft_wrap=True,
    )
    if found.resumed:
        console.print(f"  resumed: an interrupted run had already scored {found.resumed:,} rows")
    if found.rejected_file:
        console.print(f"  [yellow]{found.rejected:,} rejected[/], in {escape(os.path.relpath(found.rejected_file))}")
    steps = ", ".join(f"{name} {value:.1f}" for name, value in found.of_score.items())
    console.print(f"{found.seconds['total']:.1f} s: {steps}; {rate:,.0f} rows/s", style="dim", soft_wrap=True)


def show_backtest(found: "BacktestView") -> None:
    """Print the metric of each strategy, month by month and over all months."""
    console = Console(highlight=False)
    strategies = {"never": "never retrained", "always": "always retrained", "gate": "by the gate"}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("month", "rows", *strategies.values(), "the month before"):
        table.add_column(heading, justify="left" if heading in ("month", "the month before") else "right")
    for month in found.months:
        figures = (format_number(month.metrics[strategy]) for strategy in strategies)
        table.add_row(month.month, f"{month.rows:,}", *figures, month.outcome)
    overall = (format_number(found.overall[strategy]) for strategy in strategies)
    table.add_row("all", f"{found.rows:,}", *overall, "", style="bold")
    table.add_row("models", "", *(f"{found.releases[strategy]}" for strategy in strategies), "", style="dim")
    better = "more" if found.greater_is_better else "less"
    console.print(f"{found.model}: {found.metric} on the month after training; {better} is better")
    console.print(table)
    for sentence in (*found.said, *found.notes):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    console.print(f"report: {escape(os.path.relpath(found.report))}", style="dim", soft_wrap=True)


def show_outcome(outcome: "Outcome") -> None:
    """Print how a run ended, why, its metrics and times, and what to do next."""
    console = Console(highlight=False)
    console.print()
    release = f"release {outcome.release}" if outcome.release else ""
    console.print(f"{outcome.model}: [{_STYLES[outcome.outcome]}]{outcome.outcome}[/] {release}".rstrip())
    for reason in (outcome.resumed, *outcome.reasons):
        if reason:
            _line(console, f"  {escape(reason)}", hang=2)
    for warning in outcome.warnings:
        _line(console, f"  [yellow]warning[/] {escape(warning)}", hang=2)
    if outcome.metrics:
        console.print(_metrics_table(outcome.metrics))
    parts = [f"{name} {value:.1f}" for name, value in outcome.seconds.items()]
    total = sum(outcome.seconds.values())
    _line(console, f"{total:.1f} s: {', '.join(parts)}", style="dim", hang=2)
    if outcome.report:
        _line(console, f"report: {escape(_path(outcome.report))}", style="dim", hang=2)
        card = Path(outcome.report).with_name("card.html")
        if outcome.release and card.exists():
            _line(console, f"model card: {escape(_path(str(card)))}", style="dim", hang=2)
    if outcome.outcome == "released":
        console.print(
            f"next: [bold]evergreen serve {outcome.model}[/], undo: [bold]evergreen rollback {outcome.model}[/]"
        )


def log_line(sentence: str) -> None:
    """Print a line of the log of `evergreen up`, with the time."""
    Console(stderr=True, highlight=False).print(f"[dim]{datetime.now():%H:%M:%S}[/] {escape(sentence)}", soft_wrap=True)


def show_up(status: "UpStatus") -> None:
    """Print each process with its state and link, and each deployment with its next run."""
    console = Console(stderr=True, highlight=False)
    console.print()
    for part in status.parts:
        state = "[green]up[/]" if part.up else "[red]down[/]"
        console.print(f"  {escape(part.name):<28} {state:<15} {part.link}", soft_wrap=True)
    if status.models:
        console.print()
    for deployment in status.models:
        release = f"release {deployment.release}" if deployment.release else "no release"
        last = f", last run {deployment.last_run}" if deployment.last_run else ""
        line = f"  {deployment.deployment:<28} next run {_next_run(deployment.next)}, {release}{escape(last)}"
        console.print(line, soft_wrap=True)
    console.print()


def _next_run(iso: str | None) -> str:
    if iso is None or iso == "paused":
        return iso or "not scheduled"
    return f"{datetime.fromisoformat(iso).astimezone():%a %d %b %H:%M}"


def show_deployed(found: "DeployedView") -> None:
    """Print the registered deployments, and the command that runs them."""
    console = Console(highlight=False)
    for deployment in found.deployments:
        schedule = deployment.schedule
        due = f"{schedule.cron} in {schedule.timezone}" if schedule else "no schedule"
        paused = ", paused" if deployment.paused else ""
        console.print(f"[green]✓[/] {deployment.deployment}  {escape(due)}{paused}", soft_wrap=True)
        for note in deployment.notes:
            console.print(f"  [yellow]{escape(note)}[/]", soft_wrap=True)
    console.print(
        f"registered at {escape(found.url)}; [bold]prefect worker start --pool {found.pool}[/] runs them",
        soft_wrap=True,
    )


def _metrics_table(metrics: Mapping[str, Any], first: str | None = None) -> Table:
    known = {model: scores for model, scores in metrics.items() if scores}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("held-out rows")
    for model in known:
        table.add_column(model, justify="right")
    for name in sorted(known["challenger"], key=lambda name: name != first):
        table.add_row(name, *(format_number(scores.get(name)) for scores in known.values()))
    return table


def prompt(question: str, choices: Sequence[str]) -> str:
    """Ask a person, and return one of the choices; an empty answer is the first."""
    import typer
    from click import Choice

    console = Console(stderr=True, highlight=False)
    console.print(escape(question))
    return str(typer.prompt("  ", type=Choice(list(choices)), default=choices[0], err=True))


def show_init(found: "InitView", used_defaults: bool) -> None:
    """Print what `init` found in a table, what it decided, and which files it wrote."""
    console = Console(highlight=False)
    features = ", ".join(f"{len(names)} {_ROLES.get(role, role)}" for role, names in found.features.items())
    console.print(f"[bold]{found.model}[/]: {found.task} of {escape(found.target)}, {found.rows:,} rows")
    _line(console, f"  features  {features}", hang=12)
    for name, why in found.left_out.items():
        _line(console, f"  left out  {escape(name)}: {escape(why)}", hang=12)
    for sentence in found.decided:
        _line(console, f"  decided   {escape(sentence)}", hang=12)
    if used_defaults:
        console.print("  not a terminal: used default answers (see above)", style="dim")
    for folder in found.created:
        _line(console, f"  [green]created[/]   {folder}/", hang=12)
    for file in found.files:
        _line(console, f"  [green]wrote[/]     {file}", hang=12)
    console.print(f"next: review both files, then [bold]evergreen run {found.model}[/]")


_ROLES = {
    "number": "numbers",
    "skewed": "skewed numbers",
    "place": "latitudes and longitudes",
    "boolean": "booleans",
    "category": "categories",
    "many": "categories with many values",
    "text": "free texts",
    "date": "dates",
    "written date": "dates in text form",
}


def show_spec(found: "SpecView") -> None:
    """Print a spec with its defaults filled in."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.model)}[/]: {found.task.kind} of {escape(found.target)}")
    lines = {
        "source": found.source,
        "key": ", ".join(found.key) or "none; all features together identify a row",
        "time": found.time,
        "group": found.group,
        "features": _features(found.features),
        "sensitive": ", ".join(found.sensitive),
        **{f"candidate {name}": steps for name, steps in found.candidates.items()},
        "gate": _gate(found),
        "holdout": _holdout(found),
        "limits": _limits(found),
        "canary": _canary(found),
        "approval": "by a person" if found.approval == "manual" else "none",
        "schedule": f"{found.schedule.expression} in {found.schedule.timezone}" if found.schedule else "none",
        "suite": _suite(found),
    }
    width = max(map(len, lines)) + 2
    for name, text in lines.items():
        if text:
            _line(console, f"  [dim]{escape(name):<{width}}[/]{escape(text)}", hang=width + 2)


def _gate(found: "SpecView") -> str:
    gate = found.gate
    bound = f"at most {gate.at_most:g}" if gate.at_most is not None else f"at least {gate.at_least:g}"
    slices = f", slices of {', '.join(gate.slices)}" if gate.slices else ""
    return f"{found.metric} {bound}, tolerance {gate.tolerance:g}{slices}"


def _holdout(found: "SpecView") -> str:
    holdout = found.holdout
    days = f", the newest {holdout.days:g} days" if holdout.days else ", the newest" if found.time else ""
    rest = f"a stratified sample of {found.sample:,} rows of the rest" if found.sample else "the rest"
    batches = f"; the best then learns all the rest in batches, {format_times(found.epochs)}" if found.epochs else ""
    return f"{holdout.fraction:.0%}{days}; {found.folds} folds of {rest}{batches}"


def _limits(found: "SpecView") -> str:
    limits = found.limits
    size = f"{limits.max_rows:,} rows, {limits.max_body_bytes:,} bytes"
    return f"{size} and {limits.timeout_seconds:g} s per request, {limits.max_concurrency} requests at once"


def _canary(found: "SpecView") -> str:
    if found.canary is None:
        return ""
    from bentos.canary import describe_share

    return describe_share(found.canary)


def _suite(found: "SpecView") -> str:
    suite = found.suite
    if suite.problem:
        return suite.problem
    quarantine = f", {suite.quarantine} that quarantine rows" if suite.quarantine else ""
    return f"{suite.error} rules that stop a run, {suite.warn} that warn{quarantine}"


def _features(features: "Sequence[FeatureView] | None") -> str:
    if features is None:
        return "all other columns of the table; the first run finds them"
    typed = [f"{feature.name} ({feature.type})" if feature.type else feature.name for feature in features]
    return f"{len(features)}: {', '.join(typed)}"


def show_status(found: "StatusView") -> None:
    """Print the models with their champions and last runs."""
    console = Console(highlight=False)
    for status in found.models:
        champion, run = status.release, status.last_run
        console.print(f"[bold]{escape(status.model)}[/]")
        if champion:
            value = f"{champion.metric} {format_number(champion.value)} on held-out rows"
            _line(console, f"  champion  release {champion.number} of {_time(champion.created)}, {value}", hang=12)
            _line(console, f"  package   {champion.bento}", hang=12)
            if champion.package_outdated:
                way_out = f"[bold]evergreen repackage {status.model}[/] rebuilds it without training"
                _line(console, f"  [yellow]outdated[/]  the package has older serving code; {way_out}", hang=12)
            _line(console, f"  answers   {escape(champion.answers)}", hang=12)
        else:
            next_step = f"[bold]evergreen run {status.model}[/] makes one"
            console.print(f"  champion  none; {'one awaits approval' if status.awaiting_approval else next_step}")
        _show_desired_state(console, status)
        if run:
            console.print(f"  last run  {_time(run.started)} [{_STYLES.get(run.outcome, '')}]{run.outcome}[/]")
            if run.outcome != "released":
                _print_reasons(console, run.reasons)


def _show_desired_state(console: Console, status: "ModelStatus") -> None:
    if status.canary:
        canary = status.canary
        from bentos.canary import describe_share
        from pipeline.spec import Canary

        share = describe_share(Canary(share=canary.share, minutes=canary.minutes, shadow=canary.shadow))
        text = f"release {canary.number}, since {_time(canary.since or '')}: it {share}"
        console.print(f"  [yellow]canary[/]    {text}", soft_wrap=True)
    if status.sent_back:
        stopped = status.sent_back
        text = f"canary release {stopped.release}, {_time(stopped.at)}: {escape(stopped.reason)}"
        console.print(f"  [red]stopped[/]   {text}", soft_wrap=True)
    for number in status.awaiting_approval:
        console.print(f"  [yellow]awaits[/]    release {number}: [bold]evergreen promote {status.model} {number}[/]")
        if report := status.reports[str(number)]:
            console.print(f"            its report: {escape(_path(report))}", soft_wrap=True)
    if status.held:
        held = status.held
        _line(
            console,
            f"  [yellow]held[/]      at release {held.release} since {_time(held.since)} "
            f"({escape(held.reason)}); [bold]evergreen unhold {status.model}[/] ends it",
            hang=12,
        )
    for server in status.servers:
        mark = "[red]" if server.state == "degraded" else "[green]"
        why = f": {escape(server.reason)}" if server.reason else ""
        text = f"release {server.release}, {mark}{server.state}[/]{why}"
        _line(console, f"  served    by {server.server}: {text}", hang=12)


def show_history(found: "HistoryView") -> None:
    """Print the releases, their changes of state and the servers' records, newest first."""
    console = Console(highlight=False)
    if not found.events:
        console.print(f"{escape(found.model)} has no release yet; [bold]evergreen run {found.model}[/] makes one")
        return
    lines: list[EventView | ServedView] = [*reversed(found.events), *reversed(found.served)]
    for line in sorted(lines, key=lambda line: line.at, reverse=True):
        if isinstance(line, ServedView):
            _show_served(console, line)
        else:
            _show_event(console, line, found)
    if found.spans:
        console.print("\nserved, as recorded by the servers")
    for span in reversed(found.spans):
        until = f"{_time(span.until)} ({span.end})" if span.until else "[green]now[/]"
        text = f"  {_time(span.since)} to {until}: release {span.release} by {escape(span.server)}"
        console.print(text, soft_wrap=True)


def _show_served(console: Console, line: ServedView) -> None:
    text = f"{line.server}: {line.event} release {line.release}"
    _line(console, f"{_time(line.at)}  {text}", style="dim", hang=18)
    if line.event in ("refused", "alarm"):
        _print_reasons(console, [line.reason])


def _show_event(console: Console, line: EventView, history: "HistoryView") -> None:
    """Print an event with the metric of its release and the reason; for a new release, the reasons of its verdict."""
    from bentos.ledger.releases import CHAMPION_EVENTS

    release = next(release for release in history.releases if release.number == line.release)
    is_new = line.event == "released"
    title = f"release {line.release}" if is_new else f"{line.event} {line.release}"
    champion_events = [event for event in history.events if event.event in CHAMPION_EVENTS]
    champion = " [green](champion)[/]" if history.champion and line is champion_events[-1] else ""
    value = (release.metrics["challenger"] or {}).get(release.metric)
    numbers = f"{release.metric} {format_number(value)}, {release.bento}"
    _line(console, f"{_time(line.at)}  [bold]{title}[/]{champion} by {line.cause}: {numbers}", hang=18)
    _print_reasons(console, release.reasons if is_new else [line.reason])


def _print_reasons(console: Console, reasons: Sequence[str]) -> None:
    for reason in reasons:
        _line(console, f"    {escape(reason)}", style="dim", hang=4)


def show_release(found: "ReleaseView") -> None:
    """Print everything about one release: its package and data, the comparison, its rules, its changes of state."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.model)} release {found.release}[/]: {found.state}")
    _show_facts(console, found)
    _show_comparison(console, found)
    _show_rules(console, found)
    _fact(console, "card", _path(found.card) if found.card else "")
    _show_events(console, found)


def _fact(console: Console, name: str, text: str, style: str | None = None) -> None:
    """Print a name and a text; nothing if the text is empty."""
    if text:
        _line(console, f"  {name:<9} {escape(text)}", hang=12, style=style)


def _show_facts(console: Console, found: "ReleaseView") -> None:
    """Print the package, rows, code, validation and digests of a release."""
    rows, code, validation = found.rows, found.code, found.validation
    _fact(console, "package", f"{found.bento}, answers with {found.answers}")
    _fact(console, "made", f"{_time(found.created)} by {found.cause}")
    if rows.all is not None:
        _fact(console, "rows", f"{rows.all:,} from {rows.origin}, {_time(rows.ingested or '')}")
    if rows.trained_on is not None:
        _fact(console, "", f"{rows.trained_on:,} trained on, {rows.held_out or 0:,} held out")
    if code.folder:
        _fact(console, "code", f"{code.estimator}; all of it in {_path(code.folder)}")
    if validation:
        quarantined = f", {validation.quarantined:,} rows quarantined" if validation.quarantined else ""
        warned = f", {len(validation.warnings)} warned" if validation.warnings else ""
        _fact(console, "data", f"{validation.rules} rules, 0 failed{warned}{quarantined}")
        for warning in validation.warnings:
            _line(console, f"            [yellow]warning[/] {escape(warning)}", hang=12)
    _fact(console, "report", _path(found.report) if found.report else "")
    for name, value in found.digests.items():
        _fact(console, name, value, style="dim")


def _show_comparison(console: Console, found: "ReleaseView") -> None:
    """Print the metrics of challenger, champion and baseline, the conditions of the gate, and the trial."""
    compared = found.compared_with
    opponent = f"release {compared.release}" if compared.champion else "the baseline"
    _fact(console, "compared", f"with {opponent} on {compared.rows or 0:,} held-out rows")
    sides = {"challenger": compared.challenger, "champion": compared.champion, "baseline": compared.baseline}
    console.print(_metrics_table(sides, compared.metric))
    for check in found.checks:
        mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
        _line(console, f"  {mark} {escape(check.sentence)}", hang=4)
    if answers := found.trial.get("answers"):
        _fact(console, "trial", f"{answers} predictions exactly as when trained")


def _show_rules(console: Console, found: "ReleaseView") -> None:
    """Print which rules of the suite the endpoint applies to requests, and which not."""
    from pipeline.guard import Guard

    for guard in found.guards or ():
        if guard.refuse:
            _fact(console, "rejects", f"requests unless {Guard.from_dict(asdict(guard))}")
    if found.guards:
        _fact(console, "counts", f"requests that break one of {len(found.guards)} rules of the suite")
    if found.unguarded:
        _line(console, f"  [dim]not applied to requests: {escape('; '.join(found.unguarded))}[/]", hang=4)


def _show_events(console: Console, found: "ReleaseView") -> None:
    """Print a release's changes of state and the servers' records; the reason for the release is printed above."""
    lines: list[EventView | ServedView] = [*found.events, *found.served]
    for line in lines:
        actor = line.server if isinstance(line, ServedView) else f"by {line.cause}"
        event = line.event if line.release == found.release else f"{line.event} {line.release}"
        why = f": {escape(line.reason)}" if line.reason not in ("", found.reason) else ""
        _line(console, f"  {_time(line.at)}  {event} {actor}{why}", style="dim", hang=20)


def show_reproduction(found: "ReproductionView") -> None:
    """Print whether the retrained release predicts the same, the largest difference, and what changed since."""
    console = Console(highlight=False)
    verdict = "[bold green]equal[/] on all" if found.equal else f"[bold red]differs[/] on {len(found.reasons)} of"
    largest = "" if found.largest is None else f", by at most {found.largest:.3g}"
    release = f"release {found.release} of {escape(found.model)}, trained again"
    _line(console, f"{release}: {verdict} {found.rows} golden rows{largest}", hang=12)
    _print_reasons(console, found.reasons[:5])
    for change in found.changes:
        _line(console, f"  [yellow]changed[/] {escape(change)}", hang=12)


def show_collected(found: "CollectedView") -> None:
    """Print how much was removed, or would be, and which releases are kept and why."""
    console = Console(highlight=False)
    for kind, removed in found.removed.items():
        if removed.count:
            console.print(f"{kind:<10}{removed.count:>6}  {removed.mb:>10,.1f} MB")
    console.print(f"[bold]{'would free' if found.dry_run else 'freed'} {found.mb:,.1f} MB[/]")
    for model, kept in found.kept.items():
        if kept:
            releases = ", ".join(f"{number} ({why})" for number, why in kept.items())
            _line(console, f"kept of {escape(model)}: release {releases}", hang=12)
    for note in found.notes:
        _line(console, f"  [yellow]note[/] {escape(note)}", hang=12)


def show_erased(found: "ErasedView", dry_run: bool, counts: Sequence[str]) -> None:
    """Print how many rows were erased, or would be, and which releases still hold some."""
    console = Console(highlight=False)
    erased = "; ".join(counts) if counts else "nothing: no row has this key"
    console.print(f"[bold]{'would erase' if dry_run else 'erased'}[/] {escape(erased)}")
    for model, releases in found.golden.items():
        for release, count in releases.items():
            note = f"release {release} of {model} has {count} of them as golden rows until `evergreen gc` removes it"
            _line(console, f"  [yellow]note[/] {escape(note)}", hang=12)
    if counts and not dry_run:
        note = "erase the rows in the source and in exported releases too, or a later run or import brings them back"
        _line(console, f"  [yellow]note[/] {note}", hang=12)


def show_validation(found: "ValidationView", changes: "DriftReport | None") -> None:
    """Print how many rules passed, then the errors and warnings, then what changed since the champion."""
    console = Console(highlight=False)
    refused = changes.errors if changes else ()
    passed = sum(rule.passed for rule in found.rules)
    # Errors of the drift check are printed below, with the drift.
    reasons = [reason for reason in found.reasons if reason not in refused]
    verdict = "[bold red]rejected[/]" if reasons else "[bold green]passed[/]"
    size = f", {found.rows:,} rows x {found.columns} columns" if found.rows is not None else ""
    console.print(f"{verdict}: {passed} of {len(found.rules)} rules passed{size}")
    for reason in reasons:
        _line(console, f"  [red]error[/] {escape(reason)}", hang=12)
    for warning in found.warnings:
        _line(console, f"  [yellow]warning[/] {escape(warning)}", hang=12)
    if changes:
        _show_changes(console, changes)


def _show_changes(console: Console, changes: "DriftReport") -> None:
    """Print what changed since the champion was trained."""
    if changes.incomparable:
        _line(console, f"drift: {escape(changes.incomparable)}", style="dim", hang=12)
        return
    text = f"{len(changes.drifted)} of {len(changes.columns)} columns drifted since release {changes.since}"
    console.print(f"{'' if changes.passed else '[bold red]rejected[/]: '}{text}")
    for error in changes.errors:
        _line(console, f"  [red]error[/] {escape(error)}", hang=12)
    for note in changes.notes:
        _line(console, f"  [yellow]warning[/] {escape(note)}", hang=12)


def show_rollback(found: "RollbackView", stopped_canary: bool) -> None:
    """Print the champion, and which servers serve it; with `stopped_canary`, that it answers all requests again."""
    now = "answers all requests again" if stopped_canary else "is the champion again"
    console = Console(highlight=False)
    console.print(escape(f"release {found.release} of {found.model}, {found.bento}, {now}"), soft_wrap=True)
    for server, seconds in found.served.items():
        state = "does not serve it yet; see `evergreen status`" if seconds is None else f"serves it after {seconds} s"
        console.print(escape(f"  {server} {state}"), soft_wrap=True)


def show_import(found: "ImportView") -> None:
    """Print the number and state of an imported release, and why it has that state."""
    console = Console(highlight=False)
    console.print(escape(f"release {found.release} of {found.model}, {found.bento}: {found.state}"), soft_wrap=True)
    for reason in found.reasons:
        console.print(escape(f"  {reason}"), soft_wrap=True)


def _line(console: Console, markup: str, hang: int, style: str | None = None) -> None:
    """Print a line. On a terminal, wrap it at the width and indent the following lines by `hang` columns."""
    if not console.is_terminal:
        console.print(markup, style=style, soft_wrap=True)
        return
    text = Text.from_markup(markup, style=style or "")
    for index, part in enumerate(text[hang:].wrap(console, max(console.width - hang, 20))):
        part.rstrip()
        console.print(Text.assemble(text[:hang] if index == 0 else " " * hang, part), soft_wrap=True)


def _path(path: str) -> str:
    """Return a path relative to the working folder if it lies below it, else as it is."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def show_observation(found: "MonitoringReport") -> None:
    """Print a monitoring report: its summary, its notes and its triggers."""
    from flows.summaries import summarize_monitoring

    console = Console(highlight=False)
    release = "no champion" if found.release is None else f"release {found.release}"
    console.print(f"[bold]{found.model}[/], {release}: {escape(summarize_monitoring(found))}", soft_wrap=True)
    for note in found.notes:
        console.print(f"  [yellow]note[/] {escape(note)}", soft_wrap=True)
    _show_triggers(console, found.triggers)


def show_triggers(found: "TriggersView") -> None:
    """Print the triggers that would retrain a model next."""
    console = Console(highlight=False)
    release = "no champion" if found.release is None else f"release {found.release}"
    console.print(f"[bold]{found.model}[/], {release}")
    if last := found.last_run:
        why = f": {last.why}" if last.why else ""
        text = f"  last run {_time(last.started)}, {last.outcome}, cause {last.cause}{why}"
        console.print(escape(text), soft_wrap=True)
    if found.looked is None:
        text = f"  not monitored yet; run `evergreen monitor {found.model}`"
        console.print(text, style="dim", soft_wrap=True)
        return
    console.print(f"  monitored {_time(found.looked)}")
    if schedule := found.schedule:
        console.print(f"  schedule: {schedule.expression} in {schedule.timezone}")
    _show_triggers(console, found.triggers)


def _show_triggers(console: Console, found: "Sequence[Trigger | TriggerView]") -> None:
    for trigger in found:
        mark = "[bold yellow]due[/]" if trigger.due else "[dim]not due[/]"
        effect = f" ({trigger.waits})" if trigger.waits else ", and retrains" if trigger.retrains else ""
        console.print(f"  {trigger.name}: {mark}, {escape(trigger.sentence + effect)}", soft_wrap=True)


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")
