"""The scoring flow: a table of any size, answered by the champion's own package as the endpoint answers."""

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
"""A database: the environment variable that holds its URL, then a query or a table."""


@flow(name="score", flow_run_name="{model}")
def score(model: str, source: str, output: str) -> ScoresView:
    """Score the rows of `source` by the champion of a model into `output`; return what `evergreen score --json` prints.

    Both are a path (CSV or Parquet, and JSON Lines to be read), or `sql:URL_ENV:` and a query or a table.
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
    # One folder for each output: what waits there is of the same rows and release, or is forgotten.
    folder = here.folder("scores", model, digest.of_value([asdict(to)])[: digest.SHORT])
    request = {
        "artifact": champion.digests["artifact"],
        "release": champion.number,
        "source": to_json(origin(load_spec(model).source, source)),
        "output": asdict(to),
        "rejected": str(rejected_file(to, here.folder("scores", model))),
        "folder": str(folder),
    }
    done = timed("score", seconds, score_rows, str(package), request)
    found = ScoresView(
        model=model,
        release=champion.number,
        bento=champion.bento,
        source=source,
        out=output,
        rows=done["rows"],
        scored=done["scored"],
        rejected=done["rejected"],
        resumed=done["resumed"],
        rejected_file=str(request["rejected"]) if done["rejected"] else None,
        seconds={**seconds, "total": round(time.perf_counter() - started, 3)},
        of_score=done["seconds"],
    )
    try:
        create_markdown_artifact(to_markdown(found), key=key(model, "scores"), description=headline(found))
    except Exception:
        get_run_logger().warning("the scores could not be shown", exc_info=True)
    return found


@task(name="package", task_run_name="package", cache_policy=NO_CACHE)
def champions_package(tag: str, expected: str) -> Path:
    """Return the source folder of a package, after it was found to be what the ledger says."""
    return load_bento(tag, settings().folder("bentoml"), expected=expected).path / "src"


@task(name="score", task_run_name="score", cache_policy=NO_CACHE)
def score_rows(package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Score in a process of the package, and tell the listener how far it is."""
    total: int | None = None
    tell = LISTENER.get() or (lambda _: None)

    def hear(said: Mapping[str, Any]) -> None:
        nonlocal total
        if "total" in said:
            total = said["total"]
            if said["resumed"]:
                get_run_logger().info("%d rows were scored by a process before this one", said["resumed"])
        tell(RowProgress(said.get("rows", said.get("resumed", 0)), total, _rejected(said.get("rejected", 0))))

    return score_packaged(Path(package), request, hear)


def origin(source: Source, text: str) -> Source:
    """Return what rows are read from; a CSV in the dialect of the spec's own source, where that is one.

    Raises SpecError when the text names no source.
    """
    if found := SQL.fullmatch(text):
        return Sql(url_env=found[1], query=found[2])
    return sources.at(source, text if remote(text) else str(Path(text).absolute()))


def target(text: str) -> Output:
    """Return where scores go; SpecError when the text names no output."""
    if found := SQL.fullmatch(text):
        return Output("sql", found[2].strip(), found[1])
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
    wanted = ("path", "separator", "decimal", "encoding", "url_env", "query", "timeout")
    return {"kind": kind, **{name: getattr(source, name) for name in wanted if hasattr(source, name)}}


def rejected_file(to: Output, folder: Path) -> Path:
    """Return where rows are set aside that the endpoint would refuse: beside the output, always as CSV."""
    if to.kind == "sql":
        return folder / f"{to.where}.rejected.csv"
    path = Path(to.where)
    return path.with_name(f"{path.stem}.rejected.csv")


def headline(found: ScoresView) -> str:
    """Say in a sentence what came of a scoring."""
    words = f"**{found.scored:,} of {found.rows:,} rows scored by release {found.release}**"
    return f"{words} in {found.seconds['total']:,.1f} s{_rejected(found.rejected)}."


def to_markdown(found: ScoresView) -> str:
    """Return what came of a scoring as Markdown."""
    facts = {
        "from": f"`{found.source}`",
        "to": f"`{found.out}`",
        "set aside": f"`{found.rejected_file}`" if found.rejected_file else "no row",
        "gone on with": f"{found.resumed:,} rows of a run that did not finish" if found.resumed else "",
        "package": f"`{found.bento}`",
    }
    steps = ", ".join(f"{name} {value:,.1f} s" for name, value in found.of_score.items())
    return "\n".join([*(f"- {name}: {fact}" for name, fact in facts.items() if fact), "", f"It took: {steps}."])


def _rejected(count: int) -> str:
    return f", {count:,} rejected" if count else ""
