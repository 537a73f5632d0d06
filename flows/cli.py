"""The `evergreen` command: one short function per verb. What a verb needs is imported when it is used."""

import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.errors import ArtifactError, EvergreenError, ServerError, SpecError
from pipeline.settings import settings

app = typer.Typer(
    name="evergreen",
    help="Keeps a model fresh behind an endpoint: retrain, prove, release, serve, undo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
    from flows import screen
    from flows.init import begin
    from pipeline.settings import CHECKOUT

    with _errors(as_json):
        terminal = sys.stdin.isatty() and not as_json
        try:
            found = begin(CHECKOUT, data, target, name, force, screen.ask if terminal and not yes else _likely)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        if as_json:
            _print_json(found)
        else:
            screen.show_begun(found, unasked=not terminal and not yes)


def _likely(_question: str, choices: Sequence[str]) -> str:
    return choices[0]


@app.command()
def show(model: Model, as_json: AsJson = False) -> None:
    """Show what a model's spec comes to: source, columns, candidates, gate, limits, the size of its suite."""
    from flows import screen

    with _errors(as_json):
        _known(model)
        from bentos import runs
        from flows.spec import resolved
        from pipeline.spec import load_spec

        with _stdout_for_results():
            last = runs.last_run(_ledger(), model)
            found = resolved(load_spec(model), last.digests.get("snapshot") if last else None, settings())
        if as_json:
            _print_json(found)
        else:
            screen.show_spec(found)


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
        from flows import screen
        from flows.launch import launch

        with _stdout_for_results(), screen.steps(quiet=as_json) as listener:
            outcome = launch(settings(), listener, model=model, data=data, force=force, release=not no_release)
        if as_json:
            _print_json(outcome.to_dict())
        else:
            screen.show_outcome(outcome)
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
        from bentos import server
        from flows import alarms, retention

        _known(model)
        here = settings()
        logged = here.folder("requests", model)
        options = server.Options(host, port, workers, certificate, key, tuple(cors or ()), logged)
        with retention.serving(here.folder(), f"{model}-{port}"):
            server.serve(
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
    from bentos import releases, runs, servers
    from flows import screen
    from pipeline.spec import model_names

    with _errors(as_json):
        if model:
            _known(model)
        ledger = _ledger()
        names = [model] if model else sorted({*model_names(), *releases.models(ledger)})
        found = [
            screen.status_of(
                name,
                releases.wished(ledger, name),
                runs.last_run(ledger, name),
                servers.live_servers(ledger, name),
                {number: _report_of(name, number) for number in releases.awaiting(ledger, name)},
            )
            for name in names
        ]
        if as_json:
            _print_json({"models": found})
        else:
            screen.show_status(found)


@app.command()
def history(model: Model, as_json: AsJson = False) -> None:
    """Show what was served when, and why: each release, what became of it, and what servers say they served."""
    from bentos import releases, servers
    from flows import screen

    with _errors(as_json):
        _known(model)
        ledger = _ledger()
        made, events = releases.history(ledger, model)
        champion, served = releases.champion(ledger, model), servers.served(ledger, model)
        found = screen.history_of(model, champion, made, events, served, servers.spans(ledger, model))
        if as_json:
            _print_json(found)
        else:
            screen.show_history(found)


@app.command()
def monitor(model: Model, as_json: AsJson = False) -> None:
    """Look at a model as it is served: drift of its requests, traffic, performance on labels, and what is due."""
    with _errors(as_json):
        _known(model)
        from flows import screen
        from flows.launch import launch_flow

        with _stdout_for_results(), screen.steps(quiet=as_json) as listener:
            found = launch_flow("monitor", settings(), listener, model=model)
        if as_json:
            _print_json(found)
        else:
            screen.show_look(found)


@app.command()
def why(model: Model, as_json: AsJson = False) -> None:
    """Say what would have a model retrained next, and how far that is."""
    from datetime import UTC, datetime

    with _errors(as_json):
        _known(model)
        from flows import screen, triggers

        found = triggers.standing(_ledger(), model, datetime.now(UTC))
        if as_json:
            _print_json(found)
        else:
            screen.show_standing(found)


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

    with _errors(as_json):
        _known(model)
        ledger = _ledger()
        with _stdout_for_results():
            done = releasing.rollback(ledger, settings().folder("bentoml"), model, to, "person", why)
            release, instead = done.release, done.instead
            served = releasing.wait_for_servers(ledger, release)
        if as_json:
            said = {"model": model, "release": release.number, "bento": release.bento}
            said["instead_of"] = instead.number if instead else None
            _print_json(said | {"served": served})
        else:
            now = "answers alone again" if done.was_canary else "is the champion again"
            typer.echo(f"release {release.number} of {model}, {release.bento}, {now}")
            for server, seconds in served.items():
                now = "does not serve it yet; see `evergreen status`" if seconds is None else f"serves it, {seconds} s"
                typer.echo(f"  {server} {now}")


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

    with _errors(as_json):
        _known(model)
        done = releasing.promote(_ledger(), settings().folder("bentoml"), model, number, "person", _by(why))
        release = done.release
        if as_json:
            said = {"model": model, "release": release.number, "bento": release.bento}
            _print_json(said | {"state": done.state})
        elif done.state == "canary":
            from bentos.canary import share_in_words

            typer.echo(f"release {number} of {model}, {release.bento}, {share_in_words(release.canary or {})}")
        else:
            typer.echo(f"release {number} of {model}, {release.bento}, is the champion")


@app.command()
def hold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """Keep the champion whatever the schedule brings, until `unhold`."""
    from bentos import releasing

    with _errors(as_json):
        _known(model)
        release = releasing.hold(_ledger(), settings().folder("bentoml"), model, _by(why))
        if as_json:
            _print_json({"model": model, "held": release.number})
        else:
            typer.echo(f"{model} is held at release {release.number}; `evergreen unhold {model}` ends it")


@app.command()
def unhold(model: Model, why: Why = "", as_json: AsJson = False) -> None:
    """Let runs release again."""
    from bentos import releasing

    with _errors(as_json):
        _known(model)
        release = releasing.unhold(_ledger(), settings().folder("bentoml"), model, _by(why))
        if as_json:
            _print_json({"model": model, "held": None, "release": release.number if release else None})
        else:
            now = f"release {release.number} is the champion until a better one" if release else "there is no champion"
            typer.echo(f"{model} is held no more; {now}")


@app.command()
def explain(
    model: Model,
    number: Annotated[int, typer.Argument(help="The number of a release.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write its model card to this file, as a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything about one release: its rows, code and checks, what it was compared with, what became of it."""
    from bentos import releases, servers
    from flows import screen
    from flows.proofs import proofs_of, run_folder

    with _errors(as_json):
        _known(model)
        ledger = _ledger()
        _, events = releases.history(ledger, model)
        release = releases.numbered(ledger, model, number)
        proofs = proofs_of(settings(), release)
        found = screen.explanation_of(release, events, servers.served(ledger, model), proofs)
        run = run_folder(settings(), model, number)
        if html:
            from bentos.kept import package_of
            from flows.card import write_card

            # The card is what the package answers.
            package_of(ledger, release, settings().folder("bentoml"))
            with _stdout_for_results():
                write_card(settings(), release, run, html)
        kept = run and run / "card.html"
        found["card"] = str(html) if html else str(kept) if kept and kept.exists() else None
        if as_json:
            _print_json(found)
        elif html:
            typer.echo(f"the model card of release {number} of {model} is in {html}")
        else:
            screen.show_explanation(found)


@app.command()
def withdraw(model: Model, as_json: AsJson = False) -> None:
    """Leave a model without a champion; the next one is judged as a first. Undo: rollback."""
    from bentos import releasing

    with _errors(as_json):
        _known(model)
        release = releasing.retire(_ledger(), settings().folder("bentoml"), model, cause="person")
        if as_json:
            _print_json({"model": model, "retired": release.number, "bento": release.bento})
        else:
            typer.echo(f"release {release.number} of {model} is retired: there is no champion now")


@app.command()
def export(
    model: Model,
    where: Annotated[
        list[str] | None,
        typer.Argument(metavar="[N] DIR", help="The release (without, the champion), and a new folder."),
    ] = None,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="The port of the container.")] = 3000,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    release_file: Annotated[
        Path | None, typer.Option("--release", help="Write the release itself to this file, for `evergreen import`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a folder with all that a container of a release needs: images, Kubernetes, AWS, a workflow.

    With --release FILE and no folder: the release with its proofs, to be imported into another home.
    """
    with _errors(as_json):
        _known(model)
        given = [*(where or ()), *([] if release_file is None else [str(release_file)])]
        if not given:
            raise typer.BadParameter(f"no folder is named: `evergreen export {model} DIR`, or --release FILE")
        if len(given) > 2 or (len(given) == 2 and not given[0].isdecimal()):
            raise typer.BadParameter(f"{' '.join(given)!r} is no `N DIR`; give a release's number and a folder")
        from bentos.kept import package_of
        from flows import export as away
        from pipeline.settings import CHECKOUT

        ledger, place = _ledger(), Path(given[-1])
        release = away.released(ledger, model, int(given[0]) if len(given) == 2 else None)
        said = {"model": model, "release": release.number, "bento": release.bento}
        if release_file is not None:
            from flows.travel import pack

            pack(settings(), ledger, release, place)
            said["file"] = str(place)
            hint = f"`evergreen import {place}` enters it in another home"
        else:
            bento = package_of(ledger, release, settings().folder("bentoml"))
            away.export(release, bento, CHECKOUT, place, port, force)
            said["folder"] = str(place)
            hint = f"{place / 'README.md'} says how to run it"
        if as_json:
            _print_json(said)
        else:
            typer.echo(f"release {release.number} of {model} is in {place}; {hint}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `evergreen export MODEL --release FILE` wrote in another home.")],
    as_json: AsJson = False,
) -> None:
    """Enter a release of another home, once every file of it was checked and it has answered as it was trained.

    It becomes champion where it was judged against this home's champion, or there is none; else a person promotes it.
    """
    with _errors(as_json):
        from flows.travel import unpack

        with _stdout_for_results():
            arrived = unpack(settings(), _ledger(), file)
        release = arrived.release
        if as_json:
            said = {"model": release.model, "release": release.number, "bento": release.bento}
            _print_json(said | {"state": arrived.state, "reasons": list(arrived.reasons)})
        else:
            typer.echo(f"release {release.number} of {release.model}, {release.bento}: {arrived.state}")
            for reason in arrived.reasons:
                typer.echo(f"  {reason}")


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
        from bentos import releases
        from bentos.kept import package_of
        from flows import screen
        from pipeline.forget import check_whole
        from pipeline.reproduce import reproduce as again

        ledger = _ledger()
        release = releases.numbered(ledger, model, number)
        bento = package_of(ledger, release, settings().folder("bentoml"))
        snapshot = settings().folder("snapshots") / f"{release.digests['snapshot']}.parquet"
        if not snapshot.exists():
            raise ArtifactError(
                f"snapshot {snapshot.name} of release {number} of {model} is gone from {snapshot.parent}; restore it "
                "from a copy: without its rows nothing can be trained again"
            )
        check_whole(snapshot)
        found = again(bento.path / "src", release.digests["artifact"], snapshot)
        if as_json:
            _print_json({"model": model, "release": number, **found.to_dict()})
        else:
            screen.show_reproduction(model, number, found.to_dict())
        raise typer.Exit(0 if found.equal else 6)


@app.command()
def forget(
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
        from flows import screen
        from flows.forget import forget as take_out
        from flows.forget import key_of
        from pipeline.spec import load_spec

        with _stdout_for_results():
            spec = load_spec(model)
        try:
            wanted = key_of(spec, key)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        found = take_out(settings(), _ledger(), spec, wanted, why, dry_run)
        if as_json:
            _print_json({"model": model, **found.to_dict()})
        else:
            screen.show_forgotten(dry_run, found.words, found.golden)


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
        from bentos import releases
        from flows import retention, screen
        from pipeline.spec import ModelSpec, load_spec, model_names

        ledger, known = _ledger(), model_names()
        said = {
            model: keep or (load_spec(model).keep if model in known else ModelSpec.keep)
            for model in sorted({*known, *releases.models(ledger)})
        }
        found = retention.collect(settings(), ledger, said, dry_run).to_dict()
        if as_json:
            _print_json({"dry_run": dry_run, **found})
        else:
            screen.show_collected(dry_run, found)


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
    from flows import screen

    with _errors(as_json):
        _known(model)
        from expectations.page import broken_page, page
        from expectations.validate import Report
        from flows.check import check
        from pipeline.errors import CheckError, DataError
        from pipeline.files import write_text

        try:
            with _stdout_for_results():
                found, since = check(settings(), _ledger(), model, data)
            report = found.to_dict()
        except DataError as error:
            nothing: dict[str, Any] = {"rows": None, "columns": None, "quarantine": None, "warnings": [], "rules": []}
            found, since = Report(rows=0, columns=0, rules=()).refused(str(error)), None
            report = {"passed": False, **nothing, "reasons": [str(error)]}
        except CheckError as error:
            if html:
                write_text(html, broken_page(str(error), model))
            raise
        if html:
            write_text(html, page(found, model, since))
        changes = since.to_dict() if since else None
        refused = since.errors if since else ()
        if as_json:
            said = {"passed": report["passed"] and not refused, "reasons": [*report["reasons"], *refused]}
            _print_json({"model": model, **report, **said, "drift": changes})
        else:
            screen.show_report(report)
            if changes:
                screen.show_changes(changes)
        raise typer.Exit(0 if report["passed"] and not refused else 3)


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
        from flows import screen
        from flows.launch import launch_flow
        from pipeline.errors import DataError

        try:
            with _stdout_for_results(), screen.rows(quiet=as_json) as listener:
                found = launch_flow("score", settings(), listener, model=model, source=rows, output=out)
        except SpecError as error:
            raise typer.BadParameter(str(error)) from error
        except DataError as error:
            if not as_json:
                raise _said(error) from error
            _print_json({"error": {"type": "DataError", "message": str(error)}})
            raise typer.Exit(3) from error
        if as_json:
            _print_json(found)
        else:
            screen.show_scores(found)


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
        from flows import screen
        from flows.launch import launch_flow

        columns = [] if time is None else [name.strip() for name in time.split(",")]
        with _stdout_for_results(), screen.rows(quiet=as_json, noun=f"{by}s") as listener:
            found = launch_flow("backtest", settings(), listener, model=model, by=by, data=data, time=columns)
        if as_json:
            _print_json(found)
        else:
            screen.show_backtest(found)


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
    from flows import screen

    with _errors(as_json=False):
        from flows.up import up as keep_up

        with _stdout_for_results():
            keep_up(settings(), port, screen.say, screen.show_up)


@app.command()
def deploy(
    yaml: Annotated[bool, typer.Option("--yaml", help="Print it as a prefect.yaml instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register all models' flows as deployments at PREFECT_API_URL, with schedules, on a work pool of type process.

    `prefect worker start --pool evergreen` runs them.
    """
    from flows import screen

    with _errors(as_json):
        from flows import deploy as deploying
        from flows.server import prefect_environment, reachable
        from pipeline.spec import model_names

        if yaml:
            typer.echo(deploying.prefect_yaml(model_names()), nl=False)
            return
        url = reachable(settings(), patience=15.0)
        if url is None:
            raise ServerError(
                "no Prefect server answers; set PREFECT_API_URL to yours, or start one with `evergreen up`"
            )
        os.environ.update({**prefect_environment(settings()), "PREFECT_API_URL": url})
        with _stdout_for_results():
            made = deploying.deploy(model_names())
        if as_json:
            _print_json({"url": url, "pool": deploying.POOL, "deployments": made})
        else:
            screen.show_deployed(url, deploying.POOL, made)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the Prefect UI.")] = 4200,
) -> None:
    """Open the Prefect UI on this project's history; runs started meanwhile report to it. Ctrl-C ends it."""
    import signal

    from flows import server

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _errors(as_json=False), suppress(KeyboardInterrupt), server.announced(settings(), port):
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
    from bentos.ledger import open_ledger

    return open_ledger(settings().ledger_url)


def _report_of(model: str, release: int) -> str | None:
    from flows.proofs import run_folder

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
        _print_json({"error": {"type": "UsageError", "message": error.message}})
        raise typer.Exit(2) from error
    except Exception as error:
        if as_json:
            _print_json({"error": {"type": type(error).__name__, "message": str(error)}})
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


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
