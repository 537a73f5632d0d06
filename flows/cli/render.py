"""What a person sees in the terminal: steps as they happen on stderr, results on stdout."""

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
    """Yield a listener that shows each step with a spinner, then as a line; a quiet one shows nothing."""
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
            words = escape(" ".join(step.summary.split()))
            _line(console, f"{mark} {step.name:<9}[dim]{step.seconds:6.1f} s[/]  {words}", hang=21)

        yield listen


@contextmanager
def rows(quiet: bool, noun: str = "rows") -> Iterator[Callable[[Any], None]]:
    """Yield a listener that shows a bar of rows, or whatever is counted; a quiet one shows nothing."""
    if quiet:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("start", total=None, said="")

        def listen(told: Any) -> None:
            if isinstance(told, RowProgress):
                of = f" of {told.total:,}" if told.total else ""
                bar.update(task, completed=told.done, total=told.total, said=f"{told.done:,}{of} {noun}{told.summary}")
            elif isinstance(told, Step) and told.seconds is None:
                bar.update(task, description=told.name)

        yield listen


def show_scores(found: "ScoresView") -> None:
    """Print what came of a scoring."""
    console = Console(highlight=False)
    rate = found.rows / max(found.of_score["scoring"], 1e-9)
    console.print(
        f"{found.model}: [bold green]{found.scored:,}[/] of {found.rows:,} rows scored by release "
        f"{found.release} into {escape(found.out)}",
        soft_wrap=True,
    )
    if found.resumed:
        console.print(f"  {found.resumed:,} rows were scored by a run that did not finish")
    if found.rejected_file:
        console.print(f"  [yellow]{found.rejected:,} rejected[/], in {escape(os.path.relpath(found.rejected_file))}")
    steps = ", ".join(f"{name} {value:.1f}" for name, value in found.of_score.items())
    console.print(f"{found.seconds['total']:.1f} s: {steps}; {rate:,.0f} rows/s", style="dim", soft_wrap=True)


def show_backtest(found: "BacktestView") -> None:
    """Print the metric of each way of life, month by month and over all."""
    console = Console(highlight=False)
    ways = {"never": "never retrained", "always": "always retrained", "gate": "by the gate"}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("month", "rows", *(f"{ways[way]}" for way in ways), "the month before"):
        table.add_column(heading, justify="left" if heading in ("month", "the month before") else "right")
    for month in found.months:
        figures = (format_number(month.metrics[way]) for way in ways)
        table.add_row(month.month, f"{month.rows:,}", *figures, month.outcome)
    table.add_row("all", f"{found.rows:,}", *(format_number(found.overall[way]) for way in ways), "", style="bold")
    table.add_row("models", "", *(f"{found.releases[way]}" for way in ways), "", style="dim")
    better = "more" if found.greater_is_better else "less"
    console.print(f"{found.model}: {found.metric} on the month after training; {better} is better")
    console.print(table)
    for sentence in (*found.said, *found.notes):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    console.print(f"report: {escape(os.path.relpath(found.report))}", style="dim", soft_wrap=True)


def show_outcome(outcome: "Outcome") -> None:
    """Print how a run ended, why, with which numbers, and what to do next."""
    console = Console(highlight=False)
    console.print()
    what = f"release {outcome.release}" if outcome.release else ""
    console.print(f"{outcome.model}: [{_STYLES[outcome.outcome]}]{outcome.outcome}[/] {what}".rstrip())
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


def say(sentence: str) -> None:
    """Print a line of what happens in `evergreen up`, with the time."""
    Console(stderr=True, highlight=False).print(f"[dim]{datetime.now():%H:%M:%S}[/] {escape(sentence)}", soft_wrap=True)


def show_up(now: "UpStatus") -> None:
    """Print what is up, where, and when what runs next."""
    console = Console(stderr=True, highlight=False)
    console.print()
    for part in now.parts:
        state = "[green]up[/]" if part.up else "[red]down[/]"
        console.print(f"  {escape(part.name):<28} {state:<15} {part.link}", soft_wrap=True)
    if now.models:
        console.print()
    for one in now.models:
        release = f"release {one.release}" if one.release else "no release"
        last = f", last run {one.last_run}" if one.last_run else ""
        console.print(f"  {one.deployment:<28} next {_when(one.next)}, {release}{escape(last)}", soft_wrap=True)
    console.print()


def _when(iso: str | None) -> str:
    if iso is None or iso == "paused":
        return iso or "when asked to"
    return f"{datetime.fromisoformat(iso).astimezone():%a %d %b %H:%M}"


def show_deployed(found: "DeployedView") -> None:
    """Print what was registered, and what runs it."""
    console = Console(highlight=False)
    for one in found.deployments:
        due = f"{one.schedule.cron} in {one.schedule.timezone}" if one.schedule else "when asked to"
        paused = ", paused" if one.paused else ""
        console.print(f"[green]✓[/] {one.deployment}  {escape(due)}{paused}", soft_wrap=True)
        for note in one.notes:
            console.print(f"  [yellow]{escape(note)}[/]", soft_wrap=True)
    console.print(
        f"at {escape(found.url)}; [bold]prefect worker start --pool {found.pool}[/] runs them", soft_wrap=True
    )


def _metrics_table(metrics: Mapping[str, Any], first: str | None = None) -> Table:
    said = {who: scores for who, scores in metrics.items() if scores}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("held-out rows")
    for who in said:
        table.add_column("guessing" if who == "baseline" else who, justify="right")
    for name in sorted(said["challenger"], key=lambda name: name != first):
        table.add_row(name, *(format_number(scores.get(name)) for scores in said.values()))
    return table


def prompt(question: str, choices: Sequence[str]) -> str:
    """Ask a person; an empty answer is the first choice."""
    import typer
    from click import Choice

    console = Console(stderr=True, highlight=False)
    console.print(escape(question))
    return str(typer.prompt("  ", type=Choice(list(choices)), default=choices[0], err=True))


def show_begun(found: "InitView", unasked: bool) -> None:
    """Print what `init` found in a table, what it decided, and which files it wrote."""
    console = Console(highlight=False)
    features = ", ".join(f"{len(names)} {_ROLES.get(role, role)}" for role, names in found.features.items())
    console.print(f"[bold]{found.model}[/]: {found.task} of {escape(found.target)}, {found.rows:,} rows")
    _line(console, f"  features  {features}", hang=12)
    for name, why in found.left_out.items():
        _line(console, f"  left out  {escape(name)}: {escape(why)}", hang=12)
    for said in found.decided:
        _line(console, f"  decided   {escape(said)}", hang=12)
    if unasked:
        console.print("  nobody was asked, since this is no terminal", style="dim")
    for folder in found.created:
        _line(console, f"  [green]created[/]   {folder}, a folder of this project", hang=12)
    for file in found.files:
        _line(console, f"  [green]wrote[/]     {file}", hang=12)
    console.print(f"next: look at both files, then [bold]evergreen run {found.model}[/]")


_ROLES = {
    "number": "numbers",
    "skewed": "skewed numbers",
    "place": "latitudes and longitudes",
    "boolean": "booleans",
    "category": "categories",
    "many": "categories with many values",
    "text": "free texts",
    "date": "dates",
    "written date": "dates written as words",
}


def show_spec(found: "SpecView") -> None:
    """Print what a spec comes to."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.model)}[/]: {found.task.kind} of {escape(found.target)}")
    lines = {
        "source": found.source,
        "key": ", ".join(found.key) or "all features together",
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
    return f"{size}, {limits.timeout_seconds:g} s a request, {limits.max_concurrency} at once"


def _canary(found: "SpecView") -> str:
    if found.canary is None:
        return ""
    from bentos.canary import describe_share

    return describe_share(found.canary)


def _suite(found: "SpecView") -> str:
    suite = found.suite
    if suite.problem:
        return suite.problem
    aside = f", {suite.quarantine} that set rows aside" if suite.quarantine else ""
    return f"{suite.error} rules that stop a run, {suite.warn} that warn{aside}"


def _features(features: "Sequence[FeatureView] | None") -> str:
    if features is None:
        return "every column of the table that is none of these; which, the first run tells"
    typed = [f"{one.name} ({one.type})" if one.type else one.name for one in features]
    return f"{len(features)}: {', '.join(typed)}"


def show_status(found: "StatusView") -> None:
    """Print the models with their champions and last runs."""
    console = Console(highlight=False)
    for one in found.models:
        champion, run = one.release, one.last_run
        console.print(f"[bold]{escape(one.model)}[/]")
        if champion:
            value = f"{champion.metric} {format_number(champion.value)} on held-out rows"
            _line(console, f"  champion  release {champion.number} of {_time(champion.created)}, {value}", hang=12)
            _line(console, f"  package   {champion.bento}", hang=12)
            if champion.package_outdated:
                way_out = f"[bold]evergreen repackage {one.model}[/] makes it again, without training"
                _line(console, f"  [yellow]outdated[/]  the package answers with older code; {way_out}", hang=12)
            _line(console, f"  answers   {escape(champion.answers)}", hang=12)
        else:
            next_one = f"[bold]evergreen run {one.model}[/] makes one"
            console.print(f"  champion  none; {'one awaits approval' if one.awaiting_approval else next_one}")
        _show_desired_state(console, one)
        if run:
            console.print(f"  last run  {_time(run.started)} [{_STYLES.get(run.outcome, '')}]{run.outcome}[/]")
            if run.outcome != "released":
                _print_reasons(console, run.reasons)


def _show_desired_state(console: Console, one: "ModelStatus") -> None:
    if one.canary:
        canary = one.canary
        from bentos.canary import describe_share
        from pipeline.spec import Canary

        how = describe_share(Canary(share=canary.share, minutes=canary.minutes, shadow=canary.shadow))
        what = f"release {canary.number}, since {_time(canary.since or '')}: it {how}"
        console.print(f"  [yellow]canary[/]    {what}", soft_wrap=True)
    if one.sent_back:
        back = one.sent_back
        what = f"release {back.release}, a canary, {_time(back.at)}: {escape(back.reason)}"
        console.print(f"  [red]sent back[/] {what}", soft_wrap=True)
    for waiting in one.awaiting_approval:
        console.print(f"  [yellow]awaits[/]    release {waiting}: [bold]evergreen promote {one.model} {waiting}[/]")
        if report := one.reports[str(waiting)]:
            console.print(f"            its report: {escape(_path(report))}", soft_wrap=True)
    if one.held:
        held = one.held
        _line(
            console,
            f"  [yellow]held[/]      at release {held.release} since {_time(held.since)} "
            f"({escape(held.reason)}); [bold]evergreen unhold {one.model}[/] ends it",
            hang=12,
        )
    for server in one.servers:
        mark = "[red]" if server.state == "degraded" else "[green]"
        why = f": {escape(server.reason)}" if server.reason else ""
        what = f"release {server.release}, {mark}{server.state}[/]{why}"
        _line(console, f"  served    {server.server} {what}", hang=12)


def show_history(found: "HistoryView") -> None:
    """Print what was champion since when, by whom and why, newest first."""
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
        console.print("\nserved, as the servers say")
    for span in reversed(found.spans):
        until = f"{_time(span.until)} ({span.end})" if span.until else "[green]now[/]"
        what = f"  {_time(span.since)} to {until}: release {span.release} at {escape(span.server)}"
        console.print(what, soft_wrap=True)


def _show_served(console: Console, line: ServedView) -> None:
    what = f"{line.server}: {line.event} release {line.release}"
    _line(console, f"{_time(line.at)}  {what}", style="dim", hang=18)
    if line.event in ("refused", "alarm"):
        _print_reasons(console, [line.reason])


def _show_event(console: Console, line: EventView, history: "HistoryView") -> None:
    """Print an event with the metric of its release; of a release, why it was made."""
    from bentos.ledger.releases import CHAMPION_EVENTS

    release = next(one for one in history.releases if one.number == line.release)
    made = line.event == "released"
    what = f"release {line.release}" if made else f"{line.event} {line.release}"
    settling = [event for event in history.events if event.event in CHAMPION_EVENTS]
    now = " [green](champion)[/]" if history.champion and line is settling[-1] else ""
    value = (release.metrics["challenger"] or {}).get(release.metric)
    numbers = f"{release.metric} {format_number(value)}, {release.bento}"
    _line(console, f"{_time(line.at)}  [bold]{what}[/]{now} by {line.cause}: {numbers}", hang=18)
    _print_reasons(console, release.reasons if made else [line.reason])


def _print_reasons(console: Console, reasons: Sequence[str]) -> None:
    for reason in reasons:
        _line(console, f"    {escape(reason)}", style="dim", hang=4)


def show_release(found: "ReleaseView") -> None:
    """Print everything about one release: what it is, what it was compared with, what became of it."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.model)} release {found.release}[/]: {found.state}")
    _show_facts(console, found)
    _show_comparison(console, found)
    _show_rules(console, found)
    _fact(console, "card", _path(found.card) if found.card else "")
    _show_life(console, found)


def _fact(console: Console, name: str, text: str, style: str | None = None) -> None:
    """Print a name and what is to be said of it, unless that is nothing."""
    if text:
        _line(console, f"  {name:<9} {escape(text)}", hang=12, style=style)


def _show_facts(console: Console, found: "ReleaseView") -> None:
    """Print the package, rows, code, validation and digests of a release."""
    rows, code, validation = found.rows, found.code, found.validation
    _fact(console, "package", f"{found.bento}, answers {found.answers}")
    _fact(console, "made", f"{_time(found.created)} by {found.cause}")
    if rows.all is not None:
        _fact(console, "rows", f"{rows.all:,} from {rows.origin}, {_time(rows.ingested or '')}")
    if rows.trained_on is not None:
        _fact(console, "", f"{rows.trained_on:,} trained on, {rows.held_out or 0:,} held out")
    if code.folder:
        _fact(console, "code", f"{code.estimator}; all of it in {_path(code.folder)}")
    if validation:
        aside = f", {validation.quarantined:,} rows set aside" if validation.quarantined else ""
        warned = f", {len(validation.warnings)} warned" if validation.warnings else ""
        _fact(console, "data", f"{validation.rules} rules, 0 broken{warned}{aside}")
        for warning in validation.warnings:
            _line(console, f"            [yellow]warning[/] {escape(warning)}", hang=12)
    _fact(console, "report", _path(found.report) if found.report else "")
    for name, value in found.digests.items():
        _fact(console, name, value, style="dim")


def _show_comparison(console: Console, found: "ReleaseView") -> None:
    """Print the metrics of all sides, the conditions of the gate, and the trial."""
    compared = found.compared_with
    against = f"release {compared.release}" if compared.champion else "guessing"
    _fact(console, "compared", f"with {against} on {compared.rows or 0:,} held-out rows")
    sides = {"challenger": compared.challenger, "champion": compared.champion, "baseline": compared.baseline}
    console.print(_metrics_table(sides, compared.metric))
    for check in found.checks:
        mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
        _line(console, f"  {mark} {escape(check.sentence)}", hang=4)
    if answers := found.trial.get("answers"):
        _fact(console, "trial", f"{answers} answers exactly as trained")


def _show_rules(console: Console, found: "ReleaseView") -> None:
    """Print which rules of the suite requests are held to, and which not."""
    from pipeline.guard import Guard

    for guard in found.guards or ():
        if guard.refuse:
            _fact(console, "refuses", f"requests unless {Guard.from_dict(asdict(guard))}")
    if found.guards:
        _fact(console, "counts", f"what breaks one of {len(found.guards)} rules of the suite")
    if found.unguarded:
        _line(console, f"  [dim]no request is held to: {escape('; '.join(found.unguarded))}[/]", hang=4)


def _show_life(console: Console, found: "ReleaseView") -> None:
    """Print what became of a release, and what servers said of it; the reason for its release is said above."""
    lines: list[EventView | ServedView] = [*found.events, *found.served]
    for line in lines:
        who = line.server if isinstance(line, ServedView) else f"by {line.cause}"
        what = line.event if line.release == found.release else f"{line.event} {line.release}"
        why = f": {escape(line.reason)}" if line.reason not in ("", found.reason) else ""
        _line(console, f"  {_time(line.at)}  {what} {who}{why}", style="dim", hang=20)


def show_reproduction(found: "ReproductionView") -> None:
    """Print whether a release that was trained again answers as it did, by how much it differs, and what changed."""
    console = Console(highlight=False)
    verdict = "[bold green]equal[/] on all" if found.equal else f"[bold red]differs[/] on {len(found.reasons)} of"
    by = "" if found.largest is None else f", by at most {found.largest:.3g}"
    what = f"release {found.release} of {escape(found.model)}, trained again"
    _line(console, f"{what}: {verdict} {found.rows} golden rows{by}", hang=12)
    _print_reasons(console, found.reasons[:5])
    for change in found.changes:
        _line(console, f"  [yellow]changed[/] {escape(change)}", hang=12)


def show_collected(found: "CollectedView") -> None:
    """Print how much of what was removed, or would be, and which releases are kept and why."""
    console = Console(highlight=False)
    for kind, removed in found.removed.items():
        if removed.count:
            console.print(f"{kind:<10}{removed.count:>6}  {removed.mb:>10,.1f} MB")
    console.print(f"[bold]{'would free' if found.dry_run else 'freed'} {found.mb:,.1f} MB[/]")
    for model, kept in found.kept.items():
        if kept:
            said = ", ".join(f"{number} ({why})" for number, why in kept.items())
            _line(console, f"kept of {escape(model)}: release {said}", hang=12)
    for note in found.notes:
        _line(console, f"  [yellow]note[/] {escape(note)}", hang=12)


def show_erased(found: "ErasedView", dry_run: bool, words: Sequence[str]) -> None:
    """Print how many rows were taken out of what, or would be, and what still holds some."""
    console = Console(highlight=False)
    said = "; ".join(words) if words else "nothing: no row has this key"
    console.print(f"[bold]{'would forget' if dry_run else 'forgot'}[/] {escape(said)}")
    for model, releases in found.golden.items():
        for release, count in releases.items():
            said = (
                f"release {release} of {model} carries {count} of them as golden rows until `evergreen gc` removes it"
            )
            _line(console, f"  [yellow]note[/] {escape(said)}", hang=12)
    if words and not dry_run:
        said = "what holds the rows elsewhere, such as the source or an exported release, brings them back with them"
        _line(console, f"  [yellow]note[/] {said}", hang=12)


def show_validation(found: "ValidationView", changes: "DriftReport | None") -> None:
    """Print what validation found: refusals, then warnings, the count of what held, and what changed."""
    console = Console(highlight=False)
    refused = changes.errors if changes else ()
    passed = sum(rule.passed for rule in found.rules)
    # What drift refuses is said with what drifted.
    reasons = [reason for reason in found.reasons if reason not in refused]
    verdict = "[bold red]rejected[/]" if reasons else "[bold green]passed[/]"
    size = f", {found.rows:,} rows x {found.columns} columns" if found.rows is not None else ""
    console.print(f"{verdict}: {passed} of {len(found.rules)} rules hold{size}")
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
    what = f"{len(changes.drifted)} of {len(changes.columns)} columns drifted since release {changes.since}"
    console.print(f"{'' if changes.passed else '[bold red]rejected[/]: '}{what}")
    for error in changes.errors:
        _line(console, f"  [red]error[/] {escape(error)}", hang=12)
    for note in changes.notes:
        _line(console, f"  [yellow]warning[/] {escape(note)}", hang=12)


def show_rollback(found: "RollbackView", stayed: bool) -> None:
    """Print what is champion now, and which servers serve it; `stayed` where a canary beside it was stopped."""
    now = "answers alone again" if stayed else "is the champion again"
    console = Console(highlight=False)
    console.print(escape(f"release {found.release} of {found.model}, {found.bento}, {now}"), soft_wrap=True)
    for server, seconds in found.served.items():
        now = "does not serve it yet; see `evergreen status`" if seconds is None else f"serves it, {seconds} s"
        console.print(escape(f"  {server} {now}"), soft_wrap=True)


def show_import(found: "ImportView") -> None:
    """Print what became of a release of another home."""
    console = Console(highlight=False)
    console.print(escape(f"release {found.release} of {found.model}, {found.bento}: {found.state}"), soft_wrap=True)
    for reason in found.reasons:
        console.print(escape(f"  {reason}"), soft_wrap=True)


def _line(console: Console, markup: str, hang: int, style: str | None = None) -> None:
    """Print a line, on a terminal broken at its width with what follows below its own column, else as it is."""
    if not console.is_terminal:
        console.print(markup, style=style, soft_wrap=True)
        return
    text = Text.from_markup(markup, style=style or "")
    for place, part in enumerate(text[hang:].wrap(console, max(console.width - hang, 20))):
        part.rstrip()
        console.print(Text.assemble(text[:hang] if place == 0 else " " * hang, part), soft_wrap=True)


def _path(path: str) -> str:
    """Return a path as it is typed from here; whole where that would lead up."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


def show_observation(found: "MonitoringReport") -> None:
    """Print what a look at a served model found."""
    from flows.summaries import summarize_monitoring

    console = Console(highlight=False)
    who = "no champion" if found.release is None else f"release {found.release}"
    console.print(f"[bold]{found.model}[/], {who}: {escape(summarize_monitoring(found))}", soft_wrap=True)
    for note in found.notes:
        console.print(f"  [yellow]note[/] {escape(note)}", soft_wrap=True)
    _show_triggers(console, found.triggers)


def show_triggers(found: "TriggersView") -> None:
    """Print what would have a model retrained next."""
    console = Console(highlight=False)
    who = "no champion" if found.release is None else f"release {found.release}"
    console.print(f"[bold]{found.model}[/], {who}")
    if last := found.last_run:
        why = f": {last.why}" if last.why else ""
        said = f"  last run {_time(last.started)}, {last.outcome}, cause {last.cause}{why}"
        console.print(escape(said), soft_wrap=True)
    if found.looked is None:
        said = f"  nobody has looked at what is served; `evergreen monitor {found.model}` does"
        console.print(said, style="dim", soft_wrap=True)
        return
    console.print(f"  looked at {_time(found.looked)}")
    if schedule := found.schedule:
        console.print(f"  schedule: {schedule.expression} in {schedule.timezone}")
    _show_triggers(console, found.triggers)


def _show_triggers(console: Console, found: "Sequence[Trigger | TriggerView]") -> None:
    for one in found:
        mark = "[bold yellow]due[/]" if one.due else "[dim]not due[/]"
        waits = f" ({one.waits})" if one.waits else ", and retrains" if one.retrains else ""
        console.print(f"  {one.name}: {mark}, {escape(one.sentence + waits)}", soft_wrap=True)


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")
