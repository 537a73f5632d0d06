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

from flows.progress import Rows, Step
from pipeline.numbers import number, times_over

if TYPE_CHECKING:
    from bentos.releases import Event, Release, Wish
    from bentos.runs import Run
    from bentos.servers import Served, Server, Span
    from flows.outcome import Outcome
    from flows.up import Shown

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
            words = escape(" ".join(step.words.split()))
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
            if isinstance(told, Rows):
                of = f" of {told.total:,}" if told.total else ""
                bar.update(task, completed=told.done, total=told.total, said=f"{told.done:,}{of} {noun}{told.words}")
            elif isinstance(told, Step) and told.seconds is None:
                bar.update(task, description=told.name)

        yield listen


def show_scores(found: Mapping[str, Any]) -> None:
    """Print what came of a scoring."""
    console = Console(highlight=False)
    rate = found["rows"] / max(found["of_score"]["scoring"], 1e-9)
    console.print(
        f"{found['model']}: [bold green]{found['scored']:,}[/] of {found['rows']:,} rows scored by release "
        f"{found['release']} into {escape(found['out'])}",
        soft_wrap=True,
    )
    if found["resumed"]:
        console.print(f"  {found['resumed']:,} rows were scored by a run that did not finish")
    if found["rejected"]:
        console.print(
            f"  [yellow]{found['rejected']:,} rejected[/], in {escape(os.path.relpath(found['rejected_file']))}"
        )
    steps = ", ".join(f"{name} {value:.1f}" for name, value in found["of_score"].items())
    console.print(f"{found['seconds']['total']:.1f} s: {steps}; {rate:,.0f} rows/s", style="dim", soft_wrap=True)


def show_backtest(found: Mapping[str, Any]) -> None:
    """Print the metric of each way of life, month by month and over all."""
    console = Console(highlight=False)
    ways = {"never": "never retrained", "always": "always retrained", "gate": "by the gate"}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("month", "rows", *(f"{ways[way]}" for way in ways), "the month before"):
        table.add_column(heading, justify="left" if heading in ("month", "the month before") else "right")
    for month in found["months"]:
        figures = (number(month["metrics"][way]) for way in ways)
        table.add_row(month["month"], f"{month['rows']:,}", *figures, month["outcome"])
    table.add_row("all", f"{found['rows']:,}", *(number(found["overall"][way]) for way in ways), "", style="bold")
    table.add_row("models", "", *(f"{found['releases'][way]}" for way in ways), "", style="dim")
    better = "more" if found["greater_is_better"] else "less"
    console.print(f"{found['model']}: {found['metric']} on the month after training; {better} is better")
    console.print(table)
    for sentence in (*found["said"], *found["notes"]):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    console.print(f"report: {escape(os.path.relpath(found['report']))}", style="dim", soft_wrap=True)


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


def show_up(now: "Shown") -> None:
    """Print what is up, where, and when what runs next."""
    console = Console(stderr=True, highlight=False)
    console.print()
    for part in now.parts:
        state = "[green]up[/]" if part["up"] else "[red]down[/]"
        console.print(f"  {escape(part['part']):<28} {state:<15} {part['link']}", soft_wrap=True)
    if now.models:
        console.print()
    for one in now.models:
        release = f"release {one['release']}" if one["release"] else "no release"
        last = f", last run {one['last_run']}" if one["last_run"] else ""
        console.print(f"  {one['deployment']:<28} next {_when(one['next'])}, {release}{escape(last)}", soft_wrap=True)
    console.print()


def _when(iso: str | None) -> str:
    if iso is None or iso == "paused":
        return iso or "when asked to"
    return f"{datetime.fromisoformat(iso).astimezone():%a %d %b %H:%M}"


def show_deployed(url: str, pool: str, made: Sequence[Mapping[str, Any]]) -> None:
    """Print what was registered, and what runs it."""
    console = Console(highlight=False)
    for one in made:
        due = f"{one['schedule']['cron']} in {one['schedule']['timezone']}" if one["schedule"] else "when asked to"
        paused = ", paused" if one["paused"] else ""
        console.print(f"[green]✓[/] {one['deployment']}  {escape(due)}{paused}", soft_wrap=True)
        for note in one["notes"]:
            console.print(f"  [yellow]{escape(note)}[/]", soft_wrap=True)
    console.print(f"at {escape(url)}; [bold]prefect worker start --pool {pool}[/] runs them", soft_wrap=True)


def _metrics_table(metrics: Mapping[str, Any], first: str | None = None) -> Table:
    said = {who: scores for who, scores in metrics.items() if scores}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("held-out rows")
    for who in said:
        table.add_column("guessing" if who == "baseline" else who, justify="right")
    for name in sorted(said["challenger"], key=lambda name: name != first):
        table.add_row(name, *(number(scores.get(name)) for scores in said.values()))
    return table


def ask(question: str, choices: Sequence[str]) -> str:
    """Ask a person; an empty answer is the first choice."""
    import typer
    from click import Choice

    console = Console(stderr=True, highlight=False)
    console.print(escape(question))
    return str(typer.prompt("  ", type=Choice(list(choices)), default=choices[0], err=True))


def show_begun(found: Mapping[str, Any], unasked: bool) -> None:
    """Print what `init` found in a table, what it decided, and which files it wrote."""
    console = Console(highlight=False)
    features = ", ".join(f"{len(names)} {_ROLES.get(role, role)}" for role, names in found["features"].items())
    console.print(f"[bold]{found['model']}[/]: {found['task']} of {escape(found['target'])}, {found['rows']:,} rows")
    _line(console, f"  features  {features}", hang=12)
    for name, why in found["left_out"].items():
        _line(console, f"  left out  {escape(name)}: {escape(why)}", hang=12)
    for said in found["decided"]:
        _line(console, f"  decided   {escape(said)}", hang=12)
    if unasked:
        console.print("  nobody was asked, since this is no terminal", style="dim")
    for file in found["files"]:
        _line(console, f"  [green]wrote[/]     {file}", hang=12)
    console.print(f"next: look at both files, then [bold]evergreen run {found['model']}[/]")


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


def show_spec(found: Mapping[str, Any]) -> None:
    """Print what a spec comes to."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(found['model'])}[/]: {found['task']['kind']} of {escape(found['target'])}")
    lines = {
        "source": found["source"],
        "key": ", ".join(found["key"]) or "all features together",
        "time": found["time"],
        "group": found["group"],
        "features": _features(found["features"]),
        "sensitive": ", ".join(found["sensitive"]),
    }
    lines |= {f"candidate {name}": steps for name, steps in found["candidates"].items()}
    gate = found["gate"]
    bound = f"at most {gate['at_most']:g}" if gate["at_most"] is not None else f"at least {gate['at_least']:g}"
    slices = f", slices of {', '.join(gate['slices'])}" if gate["slices"] else ""
    lines["gate"] = f"{found['metric']} {bound}, tolerance {gate['tolerance']:g}{slices}"
    held = found["holdout"]
    days = f", the newest {held['days']:g} days" if held["days"] else ", the newest" if found["time"] else ""
    rest = f"a stratified sample of {found['sample']:,} rows of the rest" if found["sample"] else "the rest"
    lines["holdout"] = f"{held['share']:.0%}{days}; {found['folds']} folds of {rest}"
    if epochs := found["epochs"]:
        lines["holdout"] += f"; the best then learns all the rest in batches, {times_over(epochs)}"
    limits = found["limits"]
    lines["limits"] = f"{limits['rows']:,} rows, {limits['body_bytes']:,} bytes, {limits['seconds']:g} s a request"
    lines["limits"] += f", {limits['at_once']} at once"
    if canary := found["canary"]:
        from bentos.canary import share_in_words

        lines["canary"] = share_in_words(canary)
    lines["approval"] = "by a person" if found["approval"] == "manual" else "none"
    schedule = found["schedule"]
    lines["schedule"] = f"{schedule['expression']} in {schedule['timezone']}" if schedule else "none"
    suite = found["suite"]
    counted = f"{suite['error']} rules that stop a run, {suite['warn']} that warn"
    counted += f", {suite['quarantine']} that set rows aside" if suite["quarantine"] else ""
    lines["suite"] = suite["problem"] or counted
    width = max(map(len, lines)) + 2
    for name, said in lines.items():
        if said:
            _line(console, f"  [dim]{escape(name):<{width}}[/]{escape(said)}", hang=width + 2)


def _features(features: Sequence[Mapping[str, Any]] | None) -> str:
    if features is None:
        return "every column of the table that is none of these; which, the first run tells"
    typed = [f"{one['name']} ({one['type']})" if one["type"] else one["name"] for one in features]
    return f"{len(features)}: {', '.join(typed)}"


def status_of(
    model: str, wish: "Wish", last: "Run | None", servers: Sequence["Server"], awaiting: Mapping[int, str | None]
) -> dict[str, Any]:
    """Return what `status` says of a model, as JSON values; `awaiting` are releases and the reports of their runs."""
    from bentos.releases import answered_by

    champion, canary, held, stopped = wish.champion, wish.canary, wish.held, wish.stopped
    released = None
    if champion:
        metric = champion.evaluation["metric"]
        released = {
            "number": champion.number,
            "bento": champion.bento,
            "created": champion.created,
            "cause": champion.cause,
            "metric": metric,
            "value": champion.evaluation["challenger"].get(metric),
            "snapshot": champion.digests["snapshot"],
            "answers": answered_by(champion),
        }
    run = None
    if last:
        run = {"started": last.started, "outcome": last.outcome, "reasons": last.reasons, "cause": last.cause}
    return {
        "model": model,
        "release": released,
        "last_run": run,
        "canary": canary and {"number": canary.number, "since": wish.since, **(canary.canary or {})},
        "held": held and {"release": held.release, "since": held.at, "reason": held.reason},
        "sent_back": stopped and {"release": stopped.release, "at": stopped.at, "reason": stopped.reason},
        "awaiting_approval": list(awaiting),
        "reports": {str(number): report for number, report in awaiting.items()},
        "servers": [
            {"server": one.server, "release": one.release, "state": one.state, "reason": one.reason} for one in servers
        ],
    }


def show_status(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the models with their champions and last runs."""
    console = Console(highlight=False)
    for one in found:
        champion, run = one["release"], one["last_run"]
        console.print(f"[bold]{escape(one['model'])}[/]")
        if champion:
            value = f"{champion['metric']} {number(champion['value'])} on held-out rows"
            _line(
                console, f"  champion  release {champion['number']} of {_time(champion['created'])}, {value}", hang=12
            )
            _line(console, f"  package   {champion['bento']}", hang=12)
            _line(console, f"  answers   {escape(champion['answers'])}", hang=12)
        else:
            next_one = f"[bold]evergreen run {one['model']}[/] makes one"
            console.print(f"  champion  none; {'one awaits approval' if one['awaiting_approval'] else next_one}")
        _show_wishes(console, one)
        if run:
            console.print(f"  last run  {_time(run['started'])} [{_STYLES.get(run['outcome'], '')}]{run['outcome']}[/]")
            if run["outcome"] != "released":
                _print_reasons(console, run["reasons"])


def _show_wishes(console: Console, one: Mapping[str, Any]) -> None:
    if one["canary"]:
        canary = one["canary"]
        from bentos.canary import share_in_words

        what = f"release {canary['number']}, since {_time(canary['since'])}: it {share_in_words(canary)}"
        console.print(f"  [yellow]canary[/]    {what}", soft_wrap=True)
    if one["sent_back"]:
        back = one["sent_back"]
        what = f"release {back['release']}, a canary, {_time(back['at'])}: {escape(back['reason'])}"
        console.print(f"  [red]sent back[/] {what}", soft_wrap=True)
    for waiting in one["awaiting_approval"]:
        console.print(f"  [yellow]awaits[/]    release {waiting}: [bold]evergreen promote {one['model']} {waiting}[/]")
        if report := one["reports"][str(waiting)]:
            console.print(f"            its report: {escape(_path(report))}", soft_wrap=True)
    if one["held"]:
        held = one["held"]
        _line(
            console,
            f"  [yellow]held[/]      at release {held['release']} since {_time(held['since'])} "
            f"({escape(held['reason'])}); [bold]evergreen unhold {one['model']}[/] ends it",
            hang=12,
        )
    for server in one["servers"]:
        mark = "[red]" if server["state"] == "degraded" else "[green]"
        why = f": {escape(server['reason'])}" if server["reason"] else ""
        what = f"release {server['release']}, {mark}{server['state']}[/]{why}"
        _line(console, f"  served    {server['server']} {what}", hang=12)


def history_of(
    model: str,
    champion: "Release | None",
    made: Sequence["Release"],
    events: Sequence["Event"],
    served: Sequence["Served"] = (),
    spans: Sequence["Span"] = (),
) -> dict[str, Any]:
    """Return what `history` says of a model, as JSON values: its releases, and what became of them, oldest first.

    `spans` are what servers served from when to when, `served` all that they said.
    """
    releases = [
        {
            "number": one.number,
            "bento": one.bento,
            "created": one.created,
            "cause": one.cause,
            "reasons": one.verdict["reasons"],
            "replaced": one.replaced,
            "metric": one.evaluation["metric"],
            "metrics": {who: one.evaluation[who] for who in ("challenger", "champion", "baseline")},
            "digests": one.digests,
            "trial": one.trial,
        }
        for one in made
    ]
    changes = [
        {"at": one.at, "release": one.release, "event": one.kind, "cause": one.cause, "reason": one.reason}
        for one in events
    ]
    return {
        "model": model,
        "champion": champion and champion.number,
        "releases": releases,
        "events": changes,
        "served": [_told(one) for one in served],
        "spans": [asdict(one) for one in spans],
    }


def _told(one: "Served") -> dict[str, Any]:
    return {"at": one.at, "server": one.server, "release": one.release, "event": one.kind, "reason": one.reason}


def show_history(found: Mapping[str, Any]) -> None:
    """Print what was champion since when, by whom and why, newest first."""
    from bentos.releases import SETTLING

    console = Console(highlight=False)
    if not found["events"]:
        console.print(f"{escape(found['model'])} has no release yet; [bold]evergreen run {found['model']}[/] makes one")
        return
    by_number = {one["number"]: one for one in found["releases"]}
    lines = [*reversed(found["events"]), *reversed(found["served"])]
    settling = [one for one in found["events"] if one["event"] in SETTLING]
    for event in sorted(lines, key=lambda one: str(one["at"]), reverse=True):
        if "server" in event:
            what = f"{event['server']}: {event['event']} release {event['release']}"
            _line(console, f"{_time(event['at'])}  {what}", style="dim", hang=18)
            if event["event"] in ("refused", "alarm"):
                _print_reasons(console, [event["reason"]])
            continue
        release = by_number[event["release"]]
        value = release["metrics"]["challenger"].get(release["metric"])
        what = f"release {event['release']}" if event["event"] == "released" else f"{event['event']} {event['release']}"
        now = " [green](champion)[/]" if found["champion"] and event is settling[-1] else ""
        numbers = f"{release['metric']} {number(value)}, {release['bento']}"
        _line(console, f"{_time(event['at'])}  [bold]{what}[/]{now} by {event['cause']}: {numbers}", hang=18)
        _print_reasons(console, release["reasons"] if event["event"] == "released" else [event["reason"]])
    if found["spans"]:
        console.print("\nserved, as the servers say")
    for span in reversed(found["spans"]):
        until = f"{_time(span['until'])} ({span['end']})" if span["until"] else "[green]now[/]"
        what = f"  {_time(span['since'])} to {until}: release {span['release']} at {escape(span['server'])}"
        console.print(what, soft_wrap=True)


def _print_reasons(console: Console, reasons: Sequence[str]) -> None:
    for reason in reasons:
        _line(console, f"    {escape(reason)}", style="dim", hang=4)


def explanation_of(
    release: "Release",
    events: Sequence["Event"],
    served: Sequence["Served"],
    proofs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything about one release, as JSON values; `proofs` are those of `flows.proofs`."""
    from bentos.releases import answered_by, states

    evaluation = release.evaluation
    return {
        "model": release.model,
        "release": release.number,
        "state": states(events).get(release.number, "unknown"),
        "bento": release.bento,
        "created": release.created,
        "cause": release.cause,
        "reason": release.reason,
        "replaced": release.replaced,
        "digests": release.digests,
        "compared_with": {
            "release": evaluation.get("champion_release"),
            "rows": evaluation.get("rows"),
            "metric": evaluation.get("metric"),
            **{who: evaluation.get(who) for who in ("challenger", "champion", "baseline")},
        },
        "checks": release.verdict.get("checks", []),
        "reasons": release.verdict.get("reasons", []),
        "trial": release.trial,
        "answers": answered_by(release),
        **proofs,
        "canary": release.canary,
        "events": [
            {"at": one.at, "event": one.kind, "release": one.release, "cause": one.cause, "reason": one.reason}
            for one in events
            if release.number in (one.release, one.instead)
        ],
        "served": [_told(one) for one in served if one.release == release.number],
    }


def show_explanation(found: Mapping[str, Any]) -> None:
    """Print everything about one release."""
    from pipeline.guard import Guard

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found['model'])} release {found['release']}[/]: {found['state']}")
    _line(console, f"  package   {found['bento']}, answers {escape(found['answers'])}", hang=12)
    _line(console, f"  made      {_time(found['created'])} by {found['cause']}", hang=12)
    rows, code, validation = found["rows"], found["code"], found["validation"]
    if rows["all"] is not None:
        origin = f"{escape(rows['origin'])}, {_time(rows['ingested'])}"
        _line(console, f"  rows      {rows['all']:,} from {origin}", hang=12)
    if rows["trained_on"] is not None:
        _line(console, f"            {rows['trained_on']:,} trained on, {rows['held_out']:,} held out", hang=12)
    if code["folder"]:
        where = f"all of it in {escape(_path(code['folder']))}"
        _line(console, f"  code      {escape(code['estimator'])}; {where}", hang=12)
    if validation:
        aside = f", {validation['quarantined']:,} rows set aside" if validation["quarantined"] else ""
        warned = f", {len(validation['warnings'])} warned" if validation["warnings"] else ""
        _line(console, f"  data      {validation['rules']} rules, 0 broken{warned}{aside}", hang=12)
        for warning in validation["warnings"]:
            _line(console, f"            [yellow]warning[/] {escape(warning)}", hang=12)
    if found["report"]:
        _line(console, f"  report    {escape(_path(found['report']))}", hang=12)
    for name, value in found["digests"].items():
        _line(console, f"  {name:<9} {value}", style="dim", hang=12)
    compared = found["compared_with"]
    against = f"release {compared['release']}" if compared["champion"] else "guessing"
    _line(console, f"  compared  with {against} on {compared['rows']:,} held-out rows", hang=12)
    console.print(
        _metrics_table({who: compared[who] for who in ("challenger", "champion", "baseline")}, compared["metric"])
    )
    for check in found["checks"]:
        mark = "[green]✓[/]" if check["passed"] else "[red]✗[/]"
        _line(console, f"  {mark} {escape(check['sentence'])}", hang=4)
    trial = found["trial"]
    if trial.get("answers"):
        _line(console, f"  trial     {trial['answers']} answers exactly as trained", hang=12)
    for guard in found["guards"] or ():
        if guard["refuse"]:
            _line(console, f"  refuses   requests unless {escape(str(Guard.from_dict(guard)))}", hang=12)
    if found["guards"]:
        _line(console, f"  counts    what breaks one of {len(found['guards'])} rules of the suite", hang=12)
    if found["unguarded"]:
        _line(console, f"  [dim]no request is held to: {escape('; '.join(found['unguarded']))}[/]", hang=4)
    if found["card"]:
        _line(console, f"  card      {escape(_path(found['card']))}", hang=12)
    for event in [*found["events"], *found["served"]]:
        who = event.get("server") or f"by {event['cause']}"
        what = f"{event['event']} {event['release']}" if event["release"] != found["release"] else event["event"]
        # What it was released for is said above.
        why = f": {escape(event['reason'])}" if event["reason"] not in ("", found["reason"]) else ""
        _line(console, f"  {_time(event['at'])}  {what} {who}{why}", style="dim", hang=20)


def show_reproduction(model: str, release: int, found: Mapping[str, Any]) -> None:
    """Print whether a release that was trained again answers as it did, by how much it differs, and what changed."""
    console = Console(highlight=False)
    verdict = "[bold green]equal[/] on all" if found["equal"] else f"[bold red]differs[/] on {len(found['reasons'])} of"
    by = "" if found["largest"] is None else f", by at most {found['largest']:.3g}"
    what = f"release {release} of {escape(model)}, trained again"
    _line(console, f"{what}: {verdict} {found['rows']} golden rows{by}", hang=12)
    _print_reasons(console, found["reasons"][:5])
    for change in found["changes"]:
        _line(console, f"  [yellow]changed[/] {escape(change)}", hang=12)


def show_collected(dry_run: bool, found: Mapping[str, Any]) -> None:
    """Print how much of what was removed, or would be, and which releases are kept and why."""
    console = Console(highlight=False)
    for kind, removed in found["removed"].items():
        if removed["count"]:
            console.print(f"{kind:<10}{removed['count']:>6}  {removed['mb']:>10,.1f} MB")
    console.print(f"[bold]{'would free' if dry_run else 'freed'} {found['mb']:,.1f} MB[/]")
    for model, kept in found["kept"].items():
        if kept:
            said = ", ".join(f"{number} ({why})" for number, why in kept.items())
            _line(console, f"kept of {escape(model)}: release {said}", hang=12)
    for note in found["notes"]:
        _line(console, f"  [yellow]note[/] {escape(note)}", hang=12)


def show_forgotten(dry_run: bool, words: Sequence[str], golden: Mapping[str, Mapping[int, int]]) -> None:
    """Print how many rows were taken out of what, or would be, and what still holds some."""
    console = Console(highlight=False)
    said = "; ".join(words) if words else "nothing: no row has this key"
    console.print(f"[bold]{'would forget' if dry_run else 'forgot'}[/] {escape(said)}")
    for model, releases in golden.items():
        for release, count in releases.items():
            said = (
                f"release {release} of {model} carries {count} of them as golden rows until `evergreen gc` removes it"
            )
            _line(console, f"  [yellow]note[/] {escape(said)}", hang=12)
    if words and not dry_run:
        said = "what holds the rows elsewhere, such as the source or an exported release, brings them back with them"
        _line(console, f"  [yellow]note[/] {said}", hang=12)


def show_report(report: Mapping[str, Any]) -> None:
    """Print what validation found: refusals, then warnings, then the count of what held."""
    console = Console(highlight=False)
    held = sum(rule["passed"] for rule in report["rules"])
    verdict = "[bold green]passed[/]" if report["passed"] else "[bold red]rejected[/]"
    size = f", {report['rows']:,} rows x {report['columns']} columns" if report["rows"] is not None else ""
    console.print(f"{verdict}: {held} of {len(report['rules'])} rules hold{size}")
    for reason in report["reasons"]:
        _line(console, f"  [red]error[/] {escape(reason)}", hang=12)
    for warning in report["warnings"]:
        _line(console, f"  [yellow]warning[/] {escape(warning)}", hang=12)


def show_changes(changes: Mapping[str, Any]) -> None:
    """Print what changed since the champion was trained."""
    console = Console(highlight=False)
    if changes["incomparable"]:
        _line(console, f"drift: {escape(changes['incomparable'])}", style="dim", hang=12)
        return
    drifted = sum(one["drifted"] for one in changes["columns"])
    what = f"{drifted} of {len(changes['columns'])} columns drifted since release {changes['since']}"
    console.print(f"{'' if changes['passed'] else '[bold red]rejected[/]: '}{what}")
    for error in changes["errors"]:
        _line(console, f"  [red]error[/] {escape(error)}", hang=12)
    for note in changes["notes"]:
        _line(console, f"  [yellow]warning[/] {escape(note)}", hang=12)


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


def show_look(found: Mapping[str, Any]) -> None:
    """Print what a look at a served model found."""
    from flows.monitoring import headline

    console = Console(highlight=False)
    who = "no champion" if found["release"] is None else f"release {found['release']}"
    console.print(f"[bold]{found['model']}[/], {who}: {escape(headline(found))}", soft_wrap=True)
    for note in found["notes"]:
        console.print(f"  [yellow]note[/] {escape(note)}", soft_wrap=True)
    _show_triggers(console, found["triggers"])


def show_standing(found: Mapping[str, Any]) -> None:
    """Print what would have a model retrained next."""
    console = Console(highlight=False)
    who = "no champion" if found["release"] is None else f"release {found['release']}"
    console.print(f"[bold]{found['model']}[/], {who}")
    if last := found["last_run"]:
        why = f": {last['why']}" if last["why"] else ""
        said = f"  last run {_time(last['started'])}, {last['outcome']}, cause {last['cause']}{why}"
        console.print(escape(said), soft_wrap=True)
    if found["looked"] is None:
        said = f"  nobody has looked at what is served; `evergreen monitor {found['model']}` does"
        console.print(said, style="dim", soft_wrap=True)
        return
    console.print(f"  looked at {_time(found['looked'])}")
    if schedule := found["schedule"]:
        console.print(f"  schedule: {schedule['expression']} in {schedule['timezone']}")
    _show_triggers(console, found["triggers"])


def _show_triggers(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    for one in found:
        mark = "[bold yellow]due[/]" if one["due"] else "[dim]not due[/]"
        waits = f" ({one['waits']})" if one["waits"] else ", and retrains" if one["retrains"] else ""
        console.print(f"  {one['name']}: {mark}, {escape(one['sentence'] + waits)}", soft_wrap=True)


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ")
