"""The `evergreen` command: one short function per verb. What a verb needs is imported when it is used."""

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
"""A dataclass: what a command prints; see `flows.cli.views`."""

Model = Annotated[str, typer.Argument(help="A model of this project: a module of pipeline/models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the ledger.")]
Data = Annotated[str | None, typer.Option("--data", help="A CSV or Parquet file, or a glob, to read instead.")]


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="A CSV or Parquet file, or a glob.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    name: Annotated[str, typer.Option(help="What the model is to be called.")],
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the likely answers.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the two files when they are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a table and write a first spec and a first suite for it: two files to look at, edit and run."""
    from flows.cli import render
    from flows.init import begin
    from pipeline.project import new_project_folder

    with _errors(as_json):
        terminal = sys.stdin.isatty() and not as_json
        try:
            found = begin(
                new_project_folder(), data, target, name, force, render.prompt if terminal and not yes else _likely
            )
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        _answer(found, as_json, partial(render.show_begun, unasked=not terminal and not yes))


def _likely(_question: str, choices: Sequence[str]) -> str:
    return choices[0]


@app.command()
def spec(model: Model, as_json: AsJson = False) -> None:
    """Show what a model's spec comes to: source, columns, candidates, gate, limits, the size of its suite."""
    from flows.cli import render

    with _errors(as_json):
        _known(model)
        from bentos.ledger import runs
        from flows.spec import resolved
        from pipeline.spec import load_spec

        with _stdout_for_results():
            last = runs.last_run(_ledger(), model)
            found = resolved(load_spec(model), last.digests.get("snapshot") if last else None, settings())
        _answer(found, as_json, render.show_spec)


@app.command()
def run(
    model: Model,
    data: Data = None,
    force: Annotated[bool, typer.Option("--force", help="Retrain what is unchanged; no gate is skipped.")] = False,
    no_release: Annotated[bool, typer.Option("--no-release", help="Do everything up to the trial.")] = False,
    as_json: AsJson = False,
) -> None:
    """Retrain a model: ingest, validate, train, evaluate, gate, package, trial, release."""
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.ops.warmup import launch

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            outcome = launch(settings(), listener, model=model, data=data, force=force, release=not no_release)
        _answer(outcome, as_json, render.show_outcome)
        raise typer.Exit(outcome.exit_code)


@app.command()
def repackage(model: Model, as_json: AsJson = False) -> None:
    """Package, try and release the champion's trained model again, when its package is out of date; nothing is trained.

    It is when the code that answers, or limits, log or sensitive columns of the spec, are others than in the package.
    """
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.ops.warmup import launch

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            outcome = launch(settings(), listener, model=model, only_package=True)
        if as_json:
            _print_json(outcome.to_dict())
        else:
            render.show_outcome(outcome)
        raise typer.Exit(outcome.exit_code)


@app.command()
def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
    workers: Annotated[int, typer.Option(min=1, help="How many processes answer.")] = 1,
    certificate: Annotated[Path | None, typer.Option("--ssl-certfile", help="A TLS certificate, for HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option("--ssl-keyfile", help="The certificate's key.")] = None,
    cors: Annotated[
        list[str] | None, typer.Option("--cors-origin", help="An origin whose pages may ask; may be repeated.")
    ] = None,
) -> None:
    """Serve the champion of a model over HTTP, and each next champion without losing a request. Ctrl-C ends it."""
    with _errors(as_json=False):
        from bentos.serving import supervisor
        from flows import gc
        from flows.ops import alarms

        _known(model)
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
    model: Annotated[str | None, typer.Argument(help="One model; without, all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is released, what servers serve, what waits or was sent back, and how the last run ended."""
    from bentos.ledger import releases, runs, servers
    from flows.cli import render, views
    from pipeline.spec import model_names

    with _errors(as_json):
        if model:
            _known(model)
        ledger = _ledger()
        names = [model] if model else sorted({*model_names(), *releases.models(ledger)})
        found = [
            views.status_of(
                name,
                wish := releases.desired_state(ledger, name),
                runs.last_run(ledger, name),
                servers.live_servers(ledger, name),
                {number: _report_of(name, number) for number in releases.awaiting(ledger, name)},
                _serving_code_differs(name, wish.champion) if name in model_names() else False,
            )
            for name in names
        ]
        _answer(views.StatusView(found), as_json, render.show_status)


def _serving_code_differs(model: str, champion: "Release | None") -> bool:
    """Tell, importing no model, whether a champion's package answers with other code than is here."""
    from pipeline.code import serving_digest
    from pipeline.project import project_folder

    # A model whose module cannot be read says so when it is run.
    with suppress(SpecError, SyntaxError):
        return champion is not None and champion.digests.get("serving") != serving_digest(model, project_folder())
    return False


@app.command()
def history(model: Model, as_json: AsJson = False) -> None:
    """Show what was served when, and why: each release, what became of it, and what servers say they served."""
    from bentos.ledger import releases, servers
    from flows.cli import render, views

    with _errors(as_json):
        _known(model)
        ledger = _ledger()
        made, events = releases.history(ledger, model)
        champion, served = releases.champion(ledger, model), servers.server_events(ledger, model)
        found = views.history_of(model, champion, made, events, served, servers.serving_intervals(ledger, model))
        _answer(found, as_json, render.show_history)


@app.command()
def monitor(model: Model, as_json: AsJson = False) -> None:
    """Look at a model as it is served: drift of its requests, traffic, performance on labels, and what is due."""
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow

        with _stdout_for_results(), render.steps(quiet=as_json) as listener:
            found = launch_flow("monitor", settings(), listener, model=model)
        _answer(found, as_json, render.show_observation)


@app.command()
def triggers(model: Model, as_json: AsJson = False) -> None:
    """Say what would have a model retrained next, and how far that is."""
    from datetime import UTC, datetime

    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.monitoring import triggers

        found = triggers.current_triggers(_ledger(), model, datetime.now(UTC))
        _answer(found, as_json, render.show_triggers)


@app.command()
def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="The release to go back to; without, the one replaced last.")] = None,
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier release the champion again, once it has answered as it was trained; nothing is rebuilt.

    A canary is taken back first: the champion answers alone again. Servers go back within seconds. What it takes the
    place of is not released again while snapshot, spec and code stay.
    """
    from bentos import releasing
    from flows.cli import render
    from flows.cli.views import RollbackView

    with _errors(as_json):
        _known(model)
        ledger = _ledger()
        with _stdout_for_results():
            done = releasing.rollback(ledger, settings().folder("bentoml"), model, to, "person", why)
            release, instead = done.release, done.instead
            served = releasing.wait_for_servers(ledger, release)
        found = RollbackView(model, release.number, release.bento, instead.number if instead else None, dict(served))
        _answer(found, as_json, partial(render.show_rollback, stayed=done.was_canary))


@app.command()
def promote(
    model: Model,
    number: Annotated[int, typer.Argument(help="A release that awaits approval, or a canary.")],
    why: Why = "",
    as_json: AsJson = False,
) -> None:
    """Make a release champion that awaits approval, or answers a share of the requests.

    One that awaits approval begins as a canary where its spec wishes that, and a server is up.
    """
    from bentos import releasing
    from bentos.canary import describe_share
    from flows.cli.views import PromotionView

    with _errors(as_json):
        _known(model)
        done = releasing.promote(_ledger(), settings().folder("bentoml"), model, number, "person", _by(why))
        release = done.release
        now = describe_share(release.canary_settings) if done.state == "canary" else "is the champion"
        found = PromotionView(model, number, release.bento, done.state)
        _answer(found, as_json, lambda _: typer.echo(f"release {number} of {model}, {release.bento}, {now}"))


@app.command()
def hold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """Keep the champion whatever the schedule brings, until `unhold`."""
    from bentos import releasing
    from flows.cli.views import HoldView

    with _errors(as_json):
        _known(model)
        release = releasing.hold(_ledger(), settings().folder("bentoml"), model, _by(why))
        sentence = f"{model} is held at release {release.number}; `evergreen unhold {model}` ends it"
        _answer(HoldView(model, release.number, release.number), as_json, lambda _: typer.echo(sentence))


@app.command()
def unhold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """Let runs release again."""
    from bentos import releasing
    from flows.cli.views import HoldView

    with _errors(as_json):
        _known(model)
        release = releasing.unhold(_ledger(), settings().folder("bentoml"), model, _by(why))
        now = f"release {release.number} is the champion until a better one" if release else "there is no champion"
        found = HoldView(model, None, release.number if release else None)
        _answer(found, as_json, lambda _: typer.echo(f"{model} is held no more; {now}"))


@app.command()
def release(
    model: Model,
    number: Annotated[int | None, typer.Argument(metavar="[N]", help="Its number; without, the champion.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write its model card to this file, as a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything about one release: its rows, code and checks, what it was compared with, what became of it."""
    from bentos.ledger import releases, servers
    from flows.cli import render, views
    from flows.provenance import provenance_of, run_folder

    with _errors(as_json):
        _known(model)
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

            # The card is what the package answers.
            package_of(ledger, release, settings().folder("bentoml"))
            with _stdout_for_results():
                write_card(settings(), release, run, html)
        card = html or next((path for path in [run and run / "card.html"] if path and path.exists()), None)
        proofs = provenance_of(settings(), release)
        served = servers.server_events(ledger, model)
        found = views.release_of(release, events, served, proofs, str(card) if card else None)
        written = f"the model card of release {number} of {model} is in {html}"
        _answer(found, as_json, (lambda _: typer.echo(written)) if html else render.show_release)


@app.command()
def retire(model: Model, as_json: AsJson = False) -> None:
    """Leave a model without a champion; the next one is judged as a first. Undo: rollback."""
    from bentos import releasing
    from flows.cli.views import RetiredView

    with _errors(as_json):
        _known(model)
        release = releasing.retire(_ledger(), settings().folder("bentoml"), model, cause="person")
        sentence = f"release {release.number} of {model} is retired: there is no champion now"
        found = RetiredView(model, release.number, release.bento)
        _answer(found, as_json, lambda _: typer.echo(sentence))


@app.command()
def export(
    model: Model,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="[N] DIR", help="The release (without, the champion), and a new folder."),
    ] = None,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="The port of the container.")] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder with all that a container of a release needs: images, Kubernetes, AWS, a workflow."""
    with _errors(as_json):
        _known(model)
        if not where:
            raise typer.BadParameter(f"no folder is named: `evergreen export {model} DIR`")
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
        found = ExportView(model, release.number, release.bento, str(folder))
        _answer(found, as_json, lambda _: typer.echo(sentence))


@app.command()
def archive(
    model: Model,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="The number of a release.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a release with its proofs into a file, which `evergreen import` enters in another home."""
    with _errors(as_json):
        _known(model)
        from flows.cli.views import ArchiveView
        from flows.export import released
        from flows.release_transfer import pack

        ledger = _ledger()
        release = released(ledger, model, number)
        pack(settings(), ledger, release, file)
        sentence = f"release {number} of {model} is in {file}; `evergreen import {file}` enters it in another home"
        found = ArchiveView(model, number, release.bento, str(file))
        _answer(found, as_json, lambda _: typer.echo(sentence))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `evergreen archive MODEL N FILE` wrote in another home.")],
    as_json: AsJson = False,
) -> None:
    """Enter a release of another home, once every file of it was checked and it has answered as it was trained.

    It becomes champion where it was judged against this home's champion, or there is none; else a person promotes it.
    """
    with _errors(as_json):
        from flows.cli import render
        from flows.cli.views import ImportView
        from flows.release_transfer import unpack

        with _stdout_for_results():
            arrived = unpack(settings(), _ledger(), file)
        release = arrived.release
        found = ImportView(release.model, release.number, release.bento, arrived.state, list(arrived.reasons))
        _answer(found, as_json, render.show_import)


@app.command()
def reproduce(
    model: Model,
    number: Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="The release to train again.")],
    as_json: AsJson = False,
) -> None:
    """Train a release again from its snapshot, spec and code, and compare its answers to the golden rows.

    Exits 0 when they are equal, 6 when they differ.
    """
    with _errors(as_json):
        _known(model)
        from bentos.ledger import releases
        from bentos.ledger.packages import package_of
        from flows.cli import render
        from flows.cli.views import ReproductionView
        from pipeline.erase import check_whole
        from pipeline.reproduce import reproduce as again

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
        found = again(bento.path / "src", release.digests["artifact"], snapshot)
        reasons, changes = list(found.reasons), list(found.changes)
        view = ReproductionView(model, number, found.equal, found.rows, found.largest, reasons, changes)
        _answer(view, as_json, render.show_reproduction)
        raise typer.Exit(0 if found.equal else 6)


@app.command()
def erase(
    model: Model,
    key: Annotated[
        list[str], typer.Option("--key", help="COLUMN=VALUE of a key column; may be repeated, all must hold.")
    ],
    why: Why = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a person's rows out of the snapshots and the log of requests of a model, and record that."""
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.erase import erase as take_out
        from flows.erase import key_of
        from pipeline.spec import load_spec

        with _stdout_for_results():
            spec = load_spec(model)
        try:
            wanted = key_of(spec, key)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        found = take_out(settings(), _ledger(), spec, wanted, why, dry_run)
        show = partial(render.show_erased, dry_run=dry_run, words=found.words)
        _answer(found.view(model), as_json, show)


@app.command("gc")
def collect(
    keep: Annotated[
        int | None, typer.Option(min=1, help="How many of the newest releases to keep; without, as the spec says.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove snapshots, artifacts, packages and reports that no release needs which may be served again."""
    with _errors(as_json):
        from bentos.ledger import releases
        from flows import gc
        from flows.cli import render
        from pipeline.spec import ModelSpec, load_spec, model_names

        ledger, known = _ledger(), model_names()
        said = {
            model: keep or (load_spec(model).keep_releases if model in known else ModelSpec.keep_releases)
            for model in sorted({*known, *releases.models(ledger)})
        }
        found = gc.collect_garbage(settings(), ledger, said, dry_run).view(dry_run)
        _answer(found, as_json, render.show_collected)


@app.command()
def validate(
    model: Model,
    data: Data = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report to this file, as a page too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check data against a model's suite and what its champion was trained on; nothing is trained or set aside.

    Exits 0 when it passes, also with warnings and rows for the quarantine, 3 when it is bad, 1 when a check is broken.
    """
    from flows.cli import render

    with _errors(as_json):
        _known(model)
        from expectations.report_page import broken_page, page
        from flows.check import check, unreadable, view_of
        from pipeline.errors import CheckError, DataError
        from pipeline.files import write_text

        try:
            with _stdout_for_results():
                report, changes = check(settings(), _ledger(), model, data)
            found = view_of(model, report, changes)
        except DataError as error:
            report, changes = unreadable(error), None
            found = replace(view_of(model, report, None), rows=None, columns=None, rules=[])
        except CheckError as error:
            if html:
                write_text(html, broken_page(str(error), model))
            raise
        if html:
            write_text(html, page(report, model, changes))
        _answer(found, as_json, partial(render.show_validation, changes=changes))
        raise typer.Exit(0 if found.passed else 3)


@app.command()
def score(
    model: Model,
    rows: Annotated[str, typer.Argument(metavar="IN", help="CSV, Parquet, JSON Lines, a glob, or sql:URL_ENV:query.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A .csv or .parquet file, or sql:URL_ENV:table.")],
    as_json: AsJson = False,
) -> None:
    """Predict a table of any size by the champion's own package, as the endpoint would; a killed run is gone on with.

    Rows that the endpoint would refuse are set aside, with the reason. Exits 3 when the data is of no use at all.
    """
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow
        from pipeline.errors import DataError

        try:
            with _stdout_for_results(), render.rows(quiet=as_json) as listener:
                found = launch_flow("score", settings(), listener, model=model, source=rows, output=out)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        except DataError as error:
            if not as_json:
                raise _said(error) from error
            _print_error(error)
            raise typer.Exit(3) from error
        _answer(found, as_json, render.show_scores)


@app.command()
def backtest(
    model: Model,
    by: Annotated[Literal["month"], typer.Option(help="How often history was retrained on.")] = "month",
    data: Data = None,
    time: Annotated[
        str | None, typer.Option(help="A column of timestamps, or one of years and one of months: YrSold,MoSold.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay history month by month: what would never, always and the gate's retraining have been worth?"""
    with _errors(as_json):
        _known(model)
        from flows.cli import render
        from flows.ops.warmup import launch_flow

        columns = [] if time is None else [name.strip() for name in time.split(",")]
        with _stdout_for_results(), render.rows(quiet=as_json, noun=f"{by}s") as listener:
            found = launch_flow("backtest", settings(), listener, model=model, by=by, data=data, time=columns)
        _answer(found, as_json, render.show_backtest)


def _said(error: Exception) -> typer.Exit:
    """Say what is wrong with data; return the exit."""
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(3)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the Prefect UI.")] = 4200,
) -> None:
    """Keep everything up on this machine: the Prefect UI, all schedules, an endpoint per released model.

    What ends is started anew. Ctrl-C ends all of it. Where PREFECT_API_URL is set, that server is used.
    """
    from flows.cli import render

    with _errors(as_json=False):
        from flows.ops.up import up as keep_up

        with _stdout_for_results():
            keep_up(settings(), port, render.say, render.show_up)


@app.command()
def deploy(
    yaml: Annotated[bool, typer.Option("--yaml", help="Print it as a prefect.yaml instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register all models' flows as deployments at PREFECT_API_URL, with schedules, on a work pool of type process.

    `prefect worker start --pool evergreen` runs them.
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
            made = deploying.deploy(model_names())
        made = [replace(one, package_outdated=_package_outdated(one.model)) for one in made]
        _answer(DeployedView(url, deploying.POOL, made), as_json, render.show_deployed)


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
    """Open the Prefect UI on this project's history; runs started meanwhile report to it. Ctrl-C ends it."""
    import signal

    from flows.ops import prefect_server

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _errors(as_json=False), suppress(KeyboardInterrupt), prefect_server.announced(settings(), port):
        typer.echo(f"Prefect UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
        signal.pause()


def main() -> None:
    """Run the command."""
    try:
        app()
    finally:
        # At its end Python collects every module's garbage once more, for a second; the process ends all the same.
        gc.freeze()


def _by(why: str) -> str:
    """Return a reason with the person who gives it."""
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


def _known(model: str) -> None:
    """End with the usage error when there is no such model."""
    from pipeline.spec import check_name

    try:
        check_name(model)
    except SpecError as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turn what broke into a sentence on stderr, or one JSON object on stdout, and exit 1; after a usage error, 2."""
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
    """Send to stderr what the models' own code prints on stdout meanwhile, in this process or in its workers."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print_error(error: Exception) -> None:
    """Print what broke as JSON: its code for programs, its sentence for people, the name of its class."""
    from flows.cli.views import ErrorDetails, ErrorView

    if isinstance(error, typer.BadParameter):
        # A usage error that was raised for an error of the project's has the code of that one.
        cause, name, message = error.__cause__, "UsageError", error.message
    else:
        cause, name, message = error, type(error).__name__, str(error)
    other = "usage" if isinstance(error, typer.BadParameter) else "internal"
    code = cause.code if isinstance(cause, EvergreenError) else other
    _print_json(ErrorView(ErrorDetails(code, message, name)))


def _answer(view: View, as_json: bool, show: Callable[[View], None]) -> None:
    """Print a view as JSON, or as `spec` shows it to people."""
    if as_json:
        _print_json(view)
    else:
        show(view)


def _print_json(view: Any) -> None:
    sys.stdout.write(json.dumps(asdict(view), ensure_ascii=False, allow_nan=False) + "\n")
