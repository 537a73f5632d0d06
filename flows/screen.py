"""What a person sees in the terminal: steps as they happen on stderr, results on stdout."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.progress import Step
from pipeline.numbers import number

if TYPE_CHECKING:
    from bentos.releases import Event, Release, Run, Served, Server, Wish
    from flows.outcome import Outcome

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
            console.print(f"{mark} {step.name:<9}[dim]{step.seconds:6.1f} s[/]  {words}", soft_wrap=True)

        yield listen


def show_outcome(outcome: "Outcome") -> None:
    """Print how a run ended, why, with which numbers, and what to do next."""
    console = Console(highlight=False)
    console.print()
    what = f"release {outcome.release}" if outcome.release else ""
    console.print(f"{outcome.model}: [{_STYLES[outcome.outcome]}]{outcome.outcome}[/] {what}".rstrip())
    for reason in outcome.reasons:
        console.print(f"  {escape(reason)}", soft_wrap=True)
    for warning in outcome.warnings:
        console.print(f"  [yellow]warning[/] {escape(warning)}", soft_wrap=True)
    if outcome.metrics:
        console.print(_metrics_table(outcome.metrics))
    parts = [f"{name} {value:.1f}" for name, value in outcome.seconds.items()]
    total = sum(outcome.seconds.values())
    console.print(f"{total:.1f} s: {', '.join(parts)}", style="dim", soft_wrap=True)
    if outcome.report:
        console.print(f"report: {escape(os.path.relpath(outcome.report))}", style="dim", soft_wrap=True)
    if outcome.outcome == "released":
        console.print(
            f"next: [bold]evergreen serve {outcome.model}[/], undo: [bold]evergreen rollback {outcome.model}[/]"
        )


def _metrics_table(metrics: Mapping[str, Any]) -> Table:
    said = {who: scores for who, scores in metrics.items() if scores}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("held-out rows")
    for who in said:
        table.add_column("guessing" if who == "baseline" else who, justify="right")
    for name in said["challenger"]:
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
    console.print(f"  features  {features}", soft_wrap=True)
    for name, why in found["left_out"].items():
        console.print(f"  left out  {escape(name)}: {escape(why)}", soft_wrap=True)
    for said in found["decided"]:
        console.print(f"  decided   {escape(said)}", soft_wrap=True)
    if unasked:
        console.print("  nobody was asked, since this is no terminal", style="dim")
    for file in found["files"]:
        console.print(f"  [green]wrote[/]     {file}", soft_wrap=True)
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
    }
    lines |= {f"candidate {name}": steps for name, steps in found["candidates"].items()}
    gate = found["gate"]
    bound = f"at most {gate['at_most']:g}" if gate["at_most"] is not None else f"at least {gate['at_least']:g}"
    slices = f", slices of {', '.join(gate['slices'])}" if gate["slices"] else ""
    lines["gate"] = f"{found['metric']} {bound}, tolerance {gate['tolerance']:g}{slices}"
    held = found["holdout"]
    days = f", the newest {held['days']:g} days" if held["days"] else ", the newest" if found["time"] else ""
    lines["holdout"] = f"{held['share']:.0%}{days}; {found['folds']} folds of the rest"
    limits = found["limits"]
    lines["limits"] = f"{limits['rows']:,} rows, {limits['body_bytes']:,} bytes, {limits['seconds']:g} s a request"
    lines["limits"] += f", {limits['at_once']} at once"
    if canary := found["canary"]:
        lines["canary"] = f"{canary['share']:.0%} of the requests for {canary['minutes']:g} minutes"
    lines["approval"] = "by a person" if found["approval"] == "manual" else "none"
    schedule = found["schedule"]
    lines["schedule"] = f"{schedule['expression']} in {schedule['timezone']}" if schedule else "none"
    suite = found["suite"]
    counted = f"{suite['error']} rules that stop a run, {suite['warn']} that warn"
    lines["suite"] = suite["problem"] or counted
    width = max(map(len, lines)) + 2
    for name, said in lines.items():
        if said:
            console.print(f"  [dim]{escape(name):<{width}}[/]{escape(said)}", soft_wrap=True)


def _features(features: Sequence[Mapping[str, Any]] | None) -> str:
    if features is None:
        return "every column of the table that is none of these; which, the first run tells"
    typed = [f"{one['name']} ({one['type']})" if one["type"] else one["name"] for one in features]
    return f"{len(features)}: {', '.join(typed)}"


def status_of(
    model: str, wish: "Wish", last: "Run | None", servers: Sequence["Server"], awaiting: Sequence[int]
) -> dict[str, Any]:
    """Return what `status` says of a model, as JSON values."""
    from bentos.releases import answered_by

    champion, canary, held = wish.champion, wish.canary, wish.held
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
        "canary": canary and {"number": canary.number, "since": canary.created, **(canary.canary or {})},
        "held": held and {"release": held.release, "since": held.at, "reason": held.reason},
        "awaiting_approval": list(awaiting),
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
            console.print(
                f"  champion  release {champion['number']} of {_time(champion['created'])}, {value}", soft_wrap=True
            )
            console.print(f"  package   {champion['bento']}", soft_wrap=True)
            console.print(f"  answers   {escape(champion['answers'])}", soft_wrap=True)
        else:
            console.print(f"  champion  none; [bold]evergreen run {one['model']}[/] makes one")
        _show_wishes(console, one)
        if run:
            console.print(f"  last run  {_time(run['started'])} [{_STYLES.get(run['outcome'], '')}]{run['outcome']}[/]")
            if run["outcome"] != "released":
                _print_reasons(console, run["reasons"])


def _show_wishes(console: Console, one: Mapping[str, Any]) -> None:
    if one["canary"]:
        canary = one["canary"]
        share = f"{canary['share']:.0%} of the requests for {canary['minutes']:g} minutes"
        console.print(f"  [yellow]canary[/]    release {canary['number']}, since {_time(canary['since'])}: {share}")
    for waiting in one["awaiting_approval"]:
        console.print(f"  [yellow]awaits[/]    release {waiting}: [bold]evergreen promote {one['model']} {waiting}[/]")
    if one["held"]:
        held = one["held"]
        console.print(
            f"  [yellow]held[/]      at release {held['release']} since {_time(held['since'])} "
            f"({escape(held['reason'])}); [bold]evergreen unhold {one['model']}[/] ends it",
            soft_wrap=True,
        )
    for server in one["servers"]:
        mark = "[red]" if server["state"] == "degraded" else "[green]"
        why = f": {escape(server['reason'])}" if server["reason"] else ""
        what = f"release {server['release']}, {mark}{server['state']}[/]{why}"
        console.print(f"  served    {server['server']} {what}", soft_wrap=True)


def history_of(
    model: str,
    champion: "Release | None",
    made: Sequence["Release"],
    events: Sequence["Event"],
    served: Sequence["Served"] = (),
) -> dict[str, Any]:
    """Return what `history` says of a model, as JSON values: its releases, and what became of them, oldest first."""
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
            console.print(f"{_time(event['at'])}  {what}", style="dim", soft_wrap=True)
            if event["event"] in ("refused", "alarm"):
                _print_reasons(console, [event["reason"]])
            continue
        release = by_number[event["release"]]
        value = release["metrics"]["challenger"].get(release["metric"])
        what = f"release {event['release']}" if event["event"] == "released" else f"{event['event']} {event['release']}"
        now = " [green](champion)[/]" if event is settling[-1] and found["champion"] else ""
        numbers = f"{release['metric']} {number(value)}, {release['bento']}"
        console.print(f"{_time(event['at'])}  [bold]{what}[/]{now} by {event['cause']}: {numbers}", soft_wrap=True)
        _print_reasons(console, release["reasons"] if event["event"] == "released" else [event["reason"]])


def _print_reasons(console: Console, reasons: Sequence[str]) -> None:
    for reason in reasons:
        console.print(f"    {escape(reason)}", style="dim", soft_wrap=True)


def explanation_of(
    release: "Release",
    events: Sequence["Event"],
    served: Sequence["Served"],
    manifest: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything about one release, as JSON values; `manifest` is that of its artifact, where it is not gone."""
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
            "release": evaluation.get("release"),
            "rows": evaluation.get("rows"),
            "metric": evaluation.get("metric"),
            **{who: evaluation.get(who) for who in ("challenger", "champion", "baseline")},
        },
        "checks": release.verdict.get("checks", []),
        "reasons": release.verdict.get("reasons", []),
        "trial": release.trial,
        "answers": answered_by(release),
        "guards": manifest and manifest.get("guards", []),
        "unguarded": manifest and manifest.get("unguarded", []),
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
    console.print(f"  package   {found['bento']}, answers {escape(found['answers'])}", soft_wrap=True)
    console.print(f"  made      {_time(found['created'])} by {found['cause']}", soft_wrap=True)
    for name, value in found["digests"].items():
        console.print(f"  {name:<9} {value}", style="dim", soft_wrap=True)
    compared = found["compared_with"]
    against = f"release {found['replaced']}" if compared["champion"] else "guessing"
    console.print(f"  compared  with {against} on {compared['rows']:,} held-out rows", soft_wrap=True)
    console.print(_metrics_table({who: compared[who] for who in ("challenger", "champion", "baseline")}))
    for check in found["checks"]:
        mark = "[green]✓[/]" if check["passed"] else "[red]✗[/]"
        console.print(f"  {mark} {escape(check['sentence'])}", soft_wrap=True)
    trial = found["trial"]
    if trial.get("answers"):
        console.print(f"  trial     {trial['answers']} answers exactly as trained", soft_wrap=True)
    for guard in found["guards"] or ():
        if guard["refuse"]:
            console.print(f"  refuses   requests unless {escape(str(Guard.from_dict(guard)))}", soft_wrap=True)
    if found["guards"]:
        console.print(f"  counts    what breaks one of {len(found['guards'])} rules of the suite", soft_wrap=True)
    if found["unguarded"]:
        console.print(f"  [dim]no request is held to: {escape('; '.join(found['unguarded']))}[/]", soft_wrap=True)
    for event in [*found["events"], *found["served"]]:
        who = event.get("server") or f"by {event['cause']}"
        what = f"{event['event']} {event['release']}" if event["release"] != found["release"] else event["event"]
        why = f": {escape(event['reason'])}" if event["reason"] else ""
        console.print(f"  {_time(event['at'])}  {what} {who}{why}", style="dim", soft_wrap=True)


def show_reproduction(model: str, release: int, found: Mapping[str, Any]) -> None:
    """Print whether a release that was trained again answers as it did, by how much it differs, and what changed."""
    console = Console(highlight=False)
    verdict = "[bold green]equal[/] on all" if found["equal"] else f"[bold red]differs[/] on {len(found['reasons'])} of"
    by = "" if found["largest"] is None else f", by at most {found['largest']:.3g}"
    what = f"release {release} of {escape(model)}, trained again"
    console.print(f"{what}: {verdict} {found['rows']} golden rows{by}", soft_wrap=True)
    _print_reasons(console, found["reasons"][:5])
    for change in found["changes"]:
        console.print(f"  [yellow]changed[/] {escape(change)}", soft_wrap=True)


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
            console.print(f"kept of {escape(model)}: release {said}", soft_wrap=True)
    for note in found["notes"]:
        console.print(f"  [yellow]note[/] {escape(note)}", soft_wrap=True)


def show_report(report: Mapping[str, Any]) -> None:
    """Print what validation found: refusals, then warnings, then the count of what held."""
    console = Console(highlight=False)
    held = sum(rule["passed"] for rule in report["rules"])
    verdict = "[bold green]passed[/]" if report["passed"] else "[bold red]rejected[/]"
    size = f", {report['rows']:,} rows x {report['columns']} columns" if report["rows"] is not None else ""
    console.print(f"{verdict}: {held} of {len(report['rules'])} rules hold{size}")
    for reason in report["reasons"]:
        console.print(f"  [red]error[/] {escape(reason)}", soft_wrap=True)
    for warning in report["warnings"]:
        console.print(f"  [yellow]warning[/] {escape(warning)}", soft_wrap=True)


def show_changes(changes: Mapping[str, Any]) -> None:
    """Print what changed since the champion was trained."""
    console = Console(highlight=False)
    if changes["incomparable"]:
        console.print(f"drift: {escape(changes['incomparable'])}", style="dim", soft_wrap=True)
        return
    drifted = sum(one["drifted"] for one in changes["columns"])
    what = f"{drifted} of {len(changes['columns'])} columns drifted since release {changes['since']}"
    console.print(f"{'' if changes['passed'] else '[bold red]rejected[/]: '}{what}")
    for error in changes["errors"]:
        console.print(f"  [red]error[/] {escape(error)}", soft_wrap=True)
    for note in changes["notes"]:
        console.print(f"  [yellow]warning[/] {escape(note)}", soft_wrap=True)


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
