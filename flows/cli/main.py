"""The `evergreen` command: one short function per verb. Each verb imports what it needs when it runs."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from pipeline.errors import ArtifactError, EvergreenError, ReleaseError, ServerError, SpecError
from pipeline.settings import settings

if TYPE_CHECKING:
    from bentos.ledger.releases import Release

app = typer.Typer(
    name="evergreen",
    help="Keeps a model fresh behind an endpoint: retrain, prove, release, serve, undo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

View = TypeVar("View")
"""A dataclass that a command prints; see `flows.cli.views`."""

Model = Annotated[str, typer.Argument(help="A model of this project: a module of pipeline/models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Why = Annotated[str, typer.Option("--why", help="The reason; the ledger records it.")]
Data = Annotated[
    str | None, typer.Option("--data", help="A CSV or Parquet file, or a glob, to read instead of the spec's source.")
]


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="A CSV or Parquet file, or a glob.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    name: Annotated[str, typer.Option(help="The name of the new model.")],
    yes: Annotated[bool, typer.Option("--yes", help="Ask no questions; use the default answers.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the two files if they exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a table and write a first spec and a first suite for it: two files to review, edit and run."""
    from flows.cli import render
    from flows.init import begin
    from pipeline.project import new_project_folder

    with _errors(as_json):
        terminal = sys.stdin.isatty() and not as_json
        try:
            ask = render.prompt if terminal and not yes else _default_answer
            view = begin(new_project_folder(), data, target, name, force, ask)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        _print_view(view, as_json, partial(render.show_init, used_defaults=not terminal and not yes))


def _default_answer(_question: str, choices: Sequence[str]) -> str:
    return choices[0]


@app.command()
def spec(model: Model, as_json: AsJson = False) -> None:
    """Show a model's spec with all defaults filled in: source, columns, candidates, gate, limits, size of its suite."""
    from flows.cli import render

    with _errors(as_json):
        _check_model(model)
        from bentos.ledger import runs
        from flows.spec import resolved
        from pipeline.spec import load_spec

        with _stdout_for_results():
            last = runs.last_run(_ledger(), model)
            view = resolved(load_spec(model), last.digests.get("snapshot") if last else None, settings())
        _print_view(view, as_json, render.show_spec)


@app.command()
def run(
    model: Model,
    data: Data = None,
    force: Annotated[bool, typer.Option("--force", help="Retrain even if nothing changed. Skips no gate.")] = False,
    no_release: Annotated[bool, typer.Option("--no-release", help="Stop after the trial; release nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Retrain a model: ingest, validate, train, evaluate, gate, package, trial, release."""
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.ops.warmup import launch

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            outcome = launch(settings(), listener, model=model, data=data, force=force, release=not no_release)
        _print_view(outcome, as_json, render.show_outcome)
        raise typer.Exit(outcome.exit_code)


@app.command()
def repackage(model: Model, as_json: AsJson = False) -> None:
    """Package, try and release the champion's trained model again if its package is out of date. Trains nothing.

    A package is out of date when the serving code changed, or the spec's limits, log or sensitive columns did.
    """
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.ops.warmup import launch

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            outcome = launch(settings(), listener, model=model, only_package=True)
        _print_view(outcome, as_json, render.show_outcome)
        raise typer.Exit(outcome.exit_code)


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    workers: Annotated[int, typer.Option(min=1, help="The number of worker processes.")] = 1,
    certificate: Annotated[Path | None, typer.Option("--ssl-certfile", help="A TLS certificate, for HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option("--ssl-keyfile", help="The certificate's private key.")] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", help="An origin whose pages may send requests; may be repeated."),
    ] = None,
) -> None:
    """Serve the champion of a model over HTTP, and switch to each new champion without losing a request.

    Ctrl-C stops the server.
    """
    with _errors(as_json=False):
        from bentos.serving import supervisor
        from flows import gc
        from flows.ops import alarms

        _check_model(model)
        here = settings()
        logged = here.folder("requests", model)
        options = supervisor.Options(host, port, workers, certificate, key, tuple(cors or ()), logged)
        with gc.serving(here.folder(), f"{model}-{port}"):
            supervisor.serve(
                _ledger(),
                model,
                here.folder("bentoml"),
                here.folder("serving", f"{model}-{port}"),
                options,
                on_alarm=lambda release, why: alarms.show(here, model, release, why),
            )


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="The model; default: all models.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show each model's champion, canary, servers and last run, and which releases await approval or were stopped."""
    from bentos.ledger import releases, runs, servers
    from flows.cli import render, views
    from pipeline.spec import model_names

    with _errors(as_json):
        if model:
            _check_model(model)
        ledger = _ledger()
        names = [model] if model else sorted({*model_names(), *releases.models(ledger)})
        models = [
            views.status_of(
                name,
                desired := releases.desired_state(ledger, name),
                runs.last_run(ledger, name),
                servers.live_servers(ledger, name),
                {number: _report_of(name, number) for number in releases.awaiting(ledger, name)},
                _serving_code_differs(name, desired.champion) if name in model_names() else False,
            )
            for name in names
        ]
        _print_view(views.StatusView(models), as_json, render.show_status)


def _serving_code_differs(model: str, champion: "Release | None") -> bool:
    """Tell, without importing the model, whether the serving code changed since the champion was packaged."""
    from pipeline.code import serving_digest
    from pipeline.project import project_folder

    # A module that cannot be parsed is reported when the model runs.
    with suppress(SpecError, SyntaxError):
        return champion is not None and champion.digests.get("serving") != serving_digest(model, project_folder())
    return False


@app.command()
def history(model: Model, as_json: AsJson = False) -> None:
    """Show which release was served when, and why: releases, their changes of state, and the servers' own records."""
    from bentos.ledger import releases, servers
    from flows.cli import render, views

    with _errors(as_json):
        _check_model(model)
        ledger = _ledger()
        made, events = releases.history(ledger, model)
        champion, served = releases.champion(ledger, model), servers.server_events(ledger, model)
        view = views.history_of(model, champion, made, events, served, servers.serving_intervals(ledger, model))
        _print_view(view, as_json, render.show_history)


@app.command()
def monitor(model: Model, as_json: AsJson = False) -> None:
    """Report on a model in service: drift of its requests, traffic, performance on labels, and due triggers."""
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            report = launch_flow("monitor", settings(), listener, model=model)
        _print_view(report, as_json, render.show_observation)


@app.command()
def triggers(model: Model, as_json: AsJson = False) -> None:
    """Show the triggers that would retrain a model next, each with its value and threshold."""
    from datetime import UTC, datetime

    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.monitoring import triggers

        view = triggers.current_triggers(_ledger(), model, datetime.now(UTC))
        _print_view(view, as_json, render.show_triggers)


@app.command()
def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="The release to return to; default: the one replaced last.")] = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier release the champion again, after its package passed the trial. Rebuilds nothing.

    If a canary is running, rollback stops the canary first. Servers switch within seconds. The release that was
    replaced is not released again until its snapshot, spec or code changes.
    """
    from bentos import releasing
    from flows.cli import render
    from flows.cli.views import RollbackView

    with _errors(as_json):
        _check_model(model)
        ledger = _ledger()
        with _stdout_for_results():
            done = releasing.rollback(ledger, settings().folder("bentoml"), model, to, "person", why)
            release, instead = done.release, done.instead
            served = releasing.wait_for_servers(ledger, release)
        view = RollbackView(model, release.number, release.bento, instead.number if instead else None, dict(served))
        _print_view(view, as_json, partial(render.show_rollback, stopped_canary=done.was_canary))


@app.command()
def promote(
    model: Model,
    number: Annotated[int, typer.Argument(help="A release that awaits approval, or a canary.")],
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make a release champion that awaits approval or is a canary.

    A release that awaits approval starts as a canary if its spec sets `canary` and a server is running.
    """
    from bentos import releasing
    from bentos.canary import describe_share
    from flows.cli.views import PromotionView

    with _errors(as_json):
        _check_model(model)
        done = releasing.promote(_ledger(), settings().folder("bentoml"), model, number, "person", _by(why))
        release = done.release
        now = describe_share(release.canary_settings) if done.state == "canary" else "is the champion"
        view = PromotionView(model, number, release.bento, done.state)
        _print_view(view, as_json, lambda _: typer.echo(f"release {number} of {model}, {release.bento}, {now}"))


@app.command()
def hold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """Keep the current champion: no run replaces it until `unhold`."""
    from bentos import releasing
    from flows.cli.views import HoldView

    with _errors(as_json):
        _check_model(model)
        release = releasing.hold(_ledger(), settings().folder("bentoml"), model, _by(why))
        sentence = f"{model} is held at release {release.number}; `evergreen unhold {model}` ends it"
        _print_view(HoldView(model, release.number, release.number), as_json, lambda _: typer.echo(sentence))


@app.command()
def unhold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """End a hold: runs may release again."""
    from bentos import releasing
    from flows.cli.views import HoldView

    with _errors(as_json):
        _check_model(model)
        release = releasing.unhold(_ledger(), settings().folder("bentoml"), model, _by(why))
        now = f"the champion is release {release.number}" if release else "there is no champion"
        view = HoldView(model, None, release.number if release else None)
        _print_view(view, as_json, lambda _: typer.echo(f"{model} is no longer held; {now}"))


@app.command()
def release(
    model: Model,
    number: Annotated[int | None, typer.Argument(metavar="[N]", help="Its number; default: the champion.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write its model card to this HTML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about one release: its rows, code and checks, the comparison, and its changes of state."""
    from bentos.ledger import releases, servers
    from flows.cli import render, views
    from flows.provenance import provenance_of, run_folder

    with _errors(as_json):
        _check_model(model)
        ledger = _ledger()
        _, events = releases.history(ledger, model)
        if number is None:
            champion = releases.champion(ledger, model)
            if champion is None:
                raise ReleaseError(
                    f"{model} has no champion; name a release: `evergreen release {model} N`",
                    code="release.no_champion",
                )
            number = champion.number
        release = releases.get_release(ledger, model, number)
        run = run_folder(settings(), model, number)
        if html:
            from bentos.ledger.packages import package_of
            from flows.reports.model_card import write_card

            # The model card shows predictions of the package, so the package must be intact.
            package_of(ledger, release, settings().folder("bentoml"))
            with _stdout_for_results():
                write_card(settings(), release, run, html)
        card = html or next((path for path in [run and run / "card.html"] if path and path.exists()), None)
        proofs = provenance_of(settings(), release)
        served = servers.server_events(ledger, model)
        view = views.release_of(release, events, served, proofs, str(card) if card else None)
        written = f"the model card of release {number} of {model} is in {html}"
        _print_view(view, as_json, (lambda _: typer.echo(written)) if html else render.show_release)


@app.command()
def retire(model: Model, as_json: AsJson = False) -> None:
    """Leave a model without a champion; the next release is evaluated as a first one. Undo it with `rollback`."""
    from bentos import releasing
    from flows.cli.views import RetiredView

    with _errors(as_json):
        _check_model(model)
        release = releasing.retire(_ledger(), settings().folder("bentoml"), model, cause="person")
        sentence = f"release {release.number} of {model} is retired: there is no champion now"
        view = RetiredView(model, release.number, release.bento)
        _print_view(view, as_json, lambda _: typer.echo(sentence))


@app.command()
def export(
    model: Model,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="[N] DIR", help="The release (default: the champion), and a new folder."),
    ] = None,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="The port of the container.")] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder that deploys a release: Dockerfile, Kubernetes manifests, AWS template, CI workflow."""
    with _errors(as_json):
        _check_model(model)
        if not where:
            raise typer.BadParameter(f"the folder is missing: `evergreen export {model} DIR`")
        if len(where) > 2 or (len(where) == 2 and not where[0].isdecimal()):
            raise typer.BadParameter(f"{' '.join(where)!r} is not `N DIR`; give a release's number and a folder")
        from bentos.ledger.packages import package_of
        from flows import export as deployment
        from flows.cli.views import ExportView
        from pipeline.project import project_folder

        ledger, folder = _ledger(), Path(where[-1])
        release = deployment.released(ledger, model, int(where[0]) if len(where) == 2 else None)
        bento = package_of(ledger, release, settings().folder("bentoml"))
        deployment.export(release, bento, project_folder(), folder, port, force)
        sentence = f"release {release.number} of {model} is in {folder}; {folder / 'README.md'} says how to run it"
        view = ExportView(model, release.number, release.bento, str(folder))
        _print_view(view, as_json, lambda _: typer.echo(sentence))


@app.command()
def archive(
    model: Model,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="The number of a release.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a release, its package, snapshot and report into one file, for `evergreen import` in another home."""
    with _errors(as_json):
        _check_model(model)
        from flows.cli.views import ArchiveView
        from flows.export import released
        from flows.release_transfer import pack

        ledger = _ledger()
        release = released(ledger, model, number)
        pack(settings(), ledger, release, file)
        sentence = f"release {number} of {model} is in {file}; `evergreen import {file}` adds it to another home"
        view = ArchiveView(model, number, release.bento, str(file))
        _print_view(view, as_json, lambda _: typer.echo(sentence))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `evergreen archive MODEL N FILE` wrote in another home.")],
    as_json: AsJson = False,
) -> None:
    """Add a release of another home, after every file was checked and the package passed the trial.

    It becomes champion if it was evaluated against this home's champion, or if there is none. Otherwise it awaits
    approval.
    """
    with _errors(as_json):
        from flows.cli import render
        from flows.cli.views import ImportView
        from flows.release_transfer import unpack

        with _stdout_for_results():
            imported = unpack(settings(), _ledger(), file)
        release = imported.release
        view = ImportView(release.model, release.number, release.bento, imported.state, list(imported.reasons))
        _print_view(view, as_json, render.show_import)


@app.command()
def reproduce(
    model: Model,
    number: Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="The release to train again.")],
    as_json: AsJson = False,
) -> None:
    """Train a release again from its snapshot, spec and code, and compare its predictions for the golden rows.

    Exits 0 if they are equal, 6 if they differ.
    """
    with _errors(as_json):
        _check_model(model)
        from bentos.ledger import releases
        from bentos.ledger.packages import package_of
        from flows.cli import render
        from flows.cli.views import ReproductionView
        from pipeline.erase import check_whole
        from pipeline.reproduce import reproduce as train_again

        ledger = _ledger()
        release = releases.get_release(ledger, model, number)
        bento = package_of(ledger, release, settings().folder("bentoml"))
        snapshot = settings().folder("snapshots") / f"{release.digests['snapshot']}.parquet"
        if not snapshot.exists():
            raise ArtifactError(
                f"snapshot {snapshot.name} of release {number} of {model} is missing from {snapshot.parent}; restore "
                "it from a copy: the release cannot be trained again without its rows",
                code="artifact.snapshot_missing",
            )
        check_whole(snapshot)
        result = train_again(bento.path / "src", release.digests["artifact"], snapshot)
        reasons, changes = list(result.reasons), list(result.changes)
        view = ReproductionView(model, number, result.equal, result.rows, result.largest, reasons, changes)
        _print_view(view, as_json, render.show_reproduction)
        raise typer.Exit(0 if result.equal else 6)


@app.command()
def erase(
    model: Model,
    key: Annotated[
        list[str], typer.Option("--key", help="COLUMN=VALUE of a key column; may be repeated, all must match.")
    ],
    why: Why = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a person's rows from a model's snapshots and its log of requests, and record the removal."""
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.erase import erase as erase_rows
        from flows.erase import key_of
        from pipeline.spec import load_spec

        with _stdout_for_results():
            spec = load_spec(model)
        try:
            values = key_of(spec, key)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        erased = erase_rows(settings(), _ledger(), spec, values, why, dry_run)
        show = partial(render.show_erased, dry_run=dry_run, counts=erased.sentences)
        _print_view(erased.view(model), as_json, show)


@app.command("gc")
def collect(
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="How many of the newest releases to keep; default: the spec's keep_releases."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove snapshots, artifacts, packages and reports that no servable release needs."""
    with _errors(as_json):
        from bentos.ledger import releases
        from flows import gc
        from flows.cli import render
        from pipeline.spec import ModelSpec, load_spec, model_names

        ledger, known = _ledger(), model_names()
        keep_of = {
            model: keep or (load_spec(model).keep_releases if model in known else ModelSpec.keep_releases)
            for model in sorted({*known, *releases.models(ledger)})
        }
        view = gc.collect_garbage(settings(), ledger, keep_of, dry_run).view(dry_run)
        _print_view(view, as_json, render.show_collected)


@app.command()
def validate(
    model: Model,
    data: Data = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write the report to this HTML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check data against a model's suite and the champion's training rows. Trains nothing and keeps nothing.

    Exits 0 if the data passes, with or without warnings and quarantined rows; 3 if it is rejected; 1 if a check is
    broken.
    """
    from flows.cli import render

    with _errors(as_json):
        _check_model(model)
        from expectations.report_page import broken_page, page
        from flows.check import check, unreadable, view_of
        from pipeline.errors import CheckError, DataError
        from pipeline.files import write_text

        try:
            with _stdout_for_results():
                report, changes = check(settings(), _ledger(), model, data)
            view = view_of(model, report, changes)
        except DataError as error:
            report, changes = unreadable(error), None
            view = replace(view_of(model, report, None), rows=None, columns=None, rules=[])
        except CheckError as error:
            if html:
                write_text(html, broken_page(str(error), model))
            raise
        if html:
            write_text(html, page(report, model, changes))
        _print_view(view, as_json, partial(render.show_validation, changes=changes))
        raise typer.Exit(0 if view.passed else 3)


@app.command()
def score(
    model: Model,
    rows: Annotated[str, typer.Argument(metavar="IN", help="CSV, Parquet, JSON Lines, a glob, or sql:URL_ENV:query.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A .csv or .parquet file, or sql:URL_ENV:table.")],
    as_json: AsJson = False,
) -> None:
    """Score a table of any size with the champion's package. Interrupted runs resume.

    Rows that the endpoint would reject go to a file of their own, with the reason. Exits 3 if the table cannot be
    scored at all.
    """
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow
        from pipeline.errors import DataError

        try:
            with _stdout_for_results(), render.rows(quiet=as_json) as listener:
                view = launch_flow("score", settings(), listener, model=model, source=rows, output=out)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        except DataError as error:
            if as_json:
                _print_error(error)
            else:
                typer.echo(f"error: {error}", err=True)
            raise typer.Exit(3) from error
        _print_view(view, as_json, render.show_scores)


@app.command()
def backtest(
    model: Model,
    by: Annotated[Literal["month"], typer.Option(help="How often to retrain in the replay.")] = "month",
    data: Data = None,
    time: Annotated[
        str | None, typer.Option(help="A timestamp column, or a year and a month column such as YrSold,MoSold.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay history month by month: compare no retraining, always retraining, and retraining by the gate."""
    with _errors(as_json):
        _check_model(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow

        columns = [] if time is None else [name.strip() for name in time.split(",")]
        with _stdout_for_results(), render.rows(quiet=as_json, noun=f"{by}s") as listener:
            view = launch_flow("backtest", settings(), listener, model=model, by=by, data=data, time=columns)
        _print_view(view, as_json, render.show_backtest)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the Prefect UI.")] = 4200,
) -> None:
    """Run everything on this machine: the Prefect UI, all schedules, and an endpoint for each released model.

    Crashed processes are restarted. Ctrl-C stops all of them. If PREFECT_API_URL is set, `up` uses that server.
    """
    from flows.cli import render

    with _errors(as_json=False):
        from flows.ops.up import up as keep_up

        with _stdout_for_results():
            keep_up(settings(), port, render.log_line, render.show_up)


@app.command()
def deploy(
    yaml: Annotated[bool, typer.Option("--yaml", help="Print a prefect.yaml instead of registering.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register the flows of all models, with their schedules, as deployments at PREFECT_API_URL.

    They go to a work pool of type process. `prefect worker start --pool evergreen` runs them.
    """
    from flows.cli import render

    with _errors(as_json):
        from flows.cli.views import DeployedView
        from flows.ops import deploy as deploying
        from flows.ops.prefect_server import prefect_environment, reachable
        from pipeline.spec import model_names

        if yaml:
            typer.echo(deploying.prefect_yaml(model_names()), nl=False)
            return
        url = reachable(settings(), patience=15.0)
        if url is None:
            raise ServerError(
                "no Prefect server answers; set PREFECT_API_URL to yours, or start one with `evergreen up`",
                code="process.no_prefect_server",
            )
        os.environ.update({**prefect_environment(settings()), "PREFECT_API_URL": url})
        with _stdout_for_results():
            registered = deploying.deploy(model_names())
        registered = [replace(view, package_outdated=_package_outdated(view.model)) for view in registered]
        _print_view(DeployedView(url, deploying.POOL, registered), as_json, render.show_deployed)


def _package_outdated(model: str) -> bool:
    """Tell whether `evergreen repackage` would package the model's champion again."""
    from flows.repackaging import repackaging
    from pipeline.project import project_folder
    from pipeline.run_digests import digests_of_code
    from pipeline.spec import load_spec

    return repackaging(_ledger(), model, digests_of_code(load_spec(model), project_folder())).champion is not None


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the Prefect UI.")] = 4200,
) -> None:
    """Start the Prefect UI with this project's history. Runs report to it while it is up. Ctrl-C stops it."""
    import signal

    from flows.ops import prefect_server

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _errors(as_json=False), suppress(KeyboardInterrupt), prefect_server.announced(settings(), port):
        typer.echo(f"Prefect UI: http://127.0.0.1:{port} (Ctrl-C stops it)")
        signal.pause()


def main() -> None:
    """Run the command."""
    try:
        app()
    finally:
        # At exit Python would collect the garbage of all modules once more, which takes a second and gains nothing.
        gc.freeze()


def _by(why: str) -> str:
    """Return a reason, preceded by the name of the person who gives it."""
    import getpass

    try:
        person = getpass.getuser()
    except (OSError, KeyError):
        person = "somebody"
    return f"{person}: {why}" if why else person


def _ledger() -> Any:
    from bentos.ledger.database import open_ledger

    return open_ledger(settings().ledger_url)


def _report_of(model: str, release: int) -> str | None:
    from flows.provenance import run_folder

    folder = run_folder(settings(), model, release)
    return str(folder / "report.md") if folder else None


def _check_model(model: str) -> None:
    """Raise a usage error if there is no such model."""
    from pipeline.spec import check_name

    try:
        check_name(model)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Print an exception as a sentence on stderr, or as one JSON object on stdout. Exit 1, or 2 for a usage error."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt):
        raise
    except typer.BadParameter as error:
        if not as_json:
            raise
        _print_error(error)
        raise typer.Exit(2) from error
    except Exception as error:
        if as_json:
            _print_error(error)
        else:
            typer.echo(f"{'error' if isinstance(error, EvergreenError) else type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from error


@contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Send to stderr what a model's own code prints on stdout during the block, in this process or its children."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def _print_error(error: Exception) -> None:
    """Print an error as JSON: its code for programs, its sentence for people, the name of its class."""
    from flows.cli.views import ErrorDetails, ErrorView

    if isinstance(error, typer.BadParameter):
        # A usage error that wraps an EvergreenError has the code of that error.
        cause, name, message = error.__cause__, "UsageError", error.message
    else:
        cause, name, message = error, type(error).__name__, str(error)
    other = "usage" if isinstance(error, typer.BadParameter) else "internal"
    code = cause.code if isinstance(cause, EvergreenError) else other
    _print_json(ErrorView(ErrorDetails(code, message, name)))


def _print_view(view: View, as_json: bool, show: Callable[[View], None]) -> None:
    """Print a view as JSON, or call `show`, which prints it for people."""
    if as_json:
        _print_json(view)
    else:
        show(view)


def _print_json(view: Any) -> None:
    sys.stdout.write(json.dumps(asdict(view), ensure_ascii=False, allow_nan=False) + "\n")
