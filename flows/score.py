"""The scoring flow: score a table of any size with the champion's package, as the endpoint would."""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from bentos.ledger import releases
from bentos.ledger.database import open_ledger
from bentos.package import load_bento
from bentos.score import SOURCE_TYPES, score_packaged
from bentos.scoring.output import Output
from flows.cli.views import ScoresView
from flows.progress import LISTENER, RowProgress, timed
from flows.reports.run import key
from pipeline import digest, sources
from pipeline.errors import ReleaseError, SpecError
from pipeline.settings import settings
from pipeline.sources import Source, Sql
from pipeline.sources.source_types import remote
from pipeline.spec import load_spec

SQL = re.compile(r"sql:([A-Za-z_]\w*):(.+)", re.DOTALL)
"""A database: the environment variable with its URL, then a query or a table."""


@flow(name="score", flow_run_name="{model}")
def score(model: str, source: str, output: str) -> ScoresView:
    """Score the rows of `source` with the champion into `output`; return what `evergreen score --json` prints.

    Each is the path of a CSV or Parquet file, or `sql:URL_ENV:` followed by a query (source) or a table (output). A
    source may also be a JSON Lines file. Raises ReleaseError if there is no champion.
    """
    here, started = settings(), time.perf_counter()
    seconds: dict[str, float] = {}
    champion = releases.champion(open_ledger(here.ledger_url), model)
    if champion is None:
        raise ReleaseError(
            f"{model} has no champion; make one with `evergreen run {model}`", code="release.no_champion"
        )
    to = target(output)
    package = timed("package", seconds, champions_package, champion.bento, champion.digests["bento"])
    # One folder per output. A run resumes what is in it if rows and release are the same, else it starts again.
    folder = here.folder("scores", model, digest.of_value([asdict(to)])[: digest.SHORT])
    request = {
        "artifact": champion.digests["artifact"],
        "release": champion.number,
        "source": to_json(origin(load_spec(model).source, source)),
        "output": asdict(to),
        "rejected": str(rejected_file(to, here.folder("scores", model))),
        "folder": str(folder),
    }
    result = timed("score", seconds, score_rows, str(package), request)
    view = ScoresView(
        model=model,
        release=champion.number,
        bento=champion.bento,
        source=source,
        out=output,
        rows=result["rows"],
        scored=result["scored"],
        rejected=result["rejected"],
        resumed=result["resumed"],
        rejected_file=str(request["rejected"]) if result["rejected"] else None,
        seconds={**seconds, "total": round(time.perf_counter() - started, 3)},
        of_score=result["seconds"],
    )
    try:
        create_markdown_artifact(to_markdown(view), key=key(model, "scores"), description=headline(view))
    except Exception:
        get_run_logger().warning("the scores could not be shown in Prefect", exc_info=True)
    return view


@task(name="package", task_run_name="package", cache_policy=NO_CACHE)
def champions_package(tag: str, expected: str) -> Path:
    """Return the source folder of a package, after checking its digest against the ledger."""
    return load_bento(tag, settings().folder("bentoml"), expected=expected).path / "src"


@task(name="score", task_run_name="score", cache_policy=NO_CACHE)
def score_rows(package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Score in a child process that runs the package's code, and report its progress to the listener."""
    total: int | None = None
    report = LISTENER.get() or (lambda _: None)

    def on_message(message: Mapping[str, Any]) -> None:
        nonlocal total
        if "total" in message:
            total = message["total"]
            if message["resumed"]:
                get_run_logger().info("resumed: an interrupted run had scored %d rows", message["resumed"])
        done = message.get("rows", message.get("resumed", 0))
        report(RowProgress(done, total, _rejected(message.get("rejected", 0))))

    return score_packaged(Path(package), request, on_message)


def origin(source: Source, text: str) -> Source:
    """Return the source that a text names; a CSV has the dialect of the spec's source, if that is a CSV too.

    Raises SpecError if the text names no source.
    """
    if match := SQL.fullmatch(text):
        return Sql(url_env=match[1], query=match[2])
    return sources.at(source, text if remote(text) else str(Path(text).absolute()))


def target(text: str) -> Output:
    """Return the output that a text names; SpecError if it names none."""
    if match := SQL.fullmatch(text):
        return Output("sql", match[2].strip(), match[1])
    kinds: dict[str, Any] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
    path = Path(text).absolute()
    if path.suffix.lower() not in kinds:
        raise SpecError(
            f"{text!r} is not an output for scores; name a .csv or .parquet file, or sql:URL_ENV:table",
            code="spec.unknown_output",
        )
    if not path.parent.is_dir():
        raise SpecError(
            f"the folder {str(path.parent)!r} for {path.name} does not exist; create it, or name another one",
            code="spec.no_output_folder",
        )
    return Output(kinds[path.suffix.lower()], str(path))


def to_json(source: Source) -> dict[str, Any]:
    """Return a source as JSON values, for the process that reads it."""
    kind = type(source).__name__
    assert kind in SOURCE_TYPES
    fields = ("path", "separator", "decimal", "encoding", "url_env", "query", "timeout")
    return {"kind": kind, **{name: getattr(source, name) for name in fields if hasattr(source, name)}}


def rejected_file(to: Output, folder: Path) -> Path:
    """Return the file for rows that the endpoint would reject: a CSV beside the output, or in `folder` for a table."""
    if to.kind == "sql":
        return folder / f"{to.where}.rejected.csv"
    path = Path(to.where)
    return path.with_name(f"{path.stem}.rejected.csv")


def headline(view: ScoresView) -> str:
    """Return the result of a scoring as one sentence in Markdown."""
    count = f"**{view.scored:,} of {view.rows:,} rows scored by release {view.release}**"
    return f"{count} in {view.seconds['total']:,.1f} s{_rejected(view.rejected)}."


def to_markdown(view: ScoresView) -> str:
    """Return the details of a scoring as Markdown."""
    facts = {
        "from": f"`{view.source}`",
        "to": f"`{view.out}`",
        "rejected": f"`{view.rejected_file}`" if view.rejected_file else "no row",
        "resumed": f"{view.resumed:,} rows were scored by an interrupted run" if view.resumed else "",
        "package": f"`{view.bento}`",
    }
    steps = ", ".join(f"{name} {value:,.1f} s" for name, value in view.of_score.items())
    return "\n".join([*(f"- {name}: {fact}" for name, fact in facts.items() if fact), "", f"Times: {steps}."])


def _rejected(count: int) -> str:
    return f", {count:,} rejected" if count else ""
