"""A look at a model as it is served: what it was asked and answered, beside what its champion was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from bentos import releases, runs, servers, wire
from bentos.canary import quantile
from bentos.package import load_bento
from bentos.releases import Release
from bentos.runs import Look
from flows import triggers
from flows.since import packed_manifest
from pipeline import performance, recorded, sources
from pipeline.answer import ask
from pipeline.drift import ColumnDrift, column_drift
from pipeline.errors import DataError, EvergreenError, SourceError
from pipeline.performance import Estimate, Labelled
from pipeline.predict import Answers, Label, target
from pipeline.recorded import FEATURE, Counts
from pipeline.schema import Schema
from pipeline.seen import Seen
from pipeline.settings import Settings
from pipeline.snapshot import Stored, load_snapshot
from pipeline.sources import Csv, JsonLines, Parquet
from pipeline.spec import ModelSpec
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow
    from sqlalchemy import Engine

MOST_HELD_OUT = 5_000
"""Predictions are compared with those of so many held-out rows at most."""
DAY_ROWS = 30
"""From so many labelled rows on, the metric of a day is told."""
HOURLY_DAYS = 3
"""In a window of more days than this, requests are counted by day."""


@dataclass
class View:
    """What a look found: JSON values, what drifted with its histograms, and the looks before it."""

    found: dict[str, Any]
    drifted: list[ColumnDrift] = field(default_factory=list)
    before: list[Look] = field(default_factory=list)

    def __str__(self) -> str:
        from flows.monitoring import headline

        return headline(self.found)


def look(settings: Settings, ledger: "Engine", spec: ModelSpec, now: datetime) -> View:
    """Look at a model now; what cannot be looked at is said in what is found, and holds nothing else back."""
    model, days = spec.name, spec.monitor.days
    made, _ = releases.history(ledger, model)
    champion = releases.champion(ledger, model)
    notes: list[str] = []
    folder = settings.folder("requests", model)
    kept = spec.log.days if spec.log else days
    if spec.log is not None:
        recorded.prune(folder, spec.log.most_bytes, spec.log.days)
    else:
        notes.append("no requests are logged: give log=RequestLog() in the spec, and release again")
    log = recorded.read(folder, now - timedelta(days=max(kept, days)))
    if log.unreadable:
        notes.append(f"{len(log.unreadable)} files of the log cannot be read, the first is {log.unreadable[0]}")
    since = now - timedelta(days=days)
    counts = [one for one in log.counts if one.ended >= since.timestamp()]
    table = log.tables.get(champion.number) if champion else None
    rows = None if table is None else _since(table, since)
    manifests = {one.number: packed_manifest(settings, one) for one in made}
    inputs, drifted, likely = _inputs(settings, spec, champion, manifests, rows)
    told, unlabelled = _performance(spec, made, manifests, log.tables)
    found: dict[str, Any] = {
        "model": model,
        "at": now.isoformat(timespec="seconds"),
        "release": champion.number if champion else None,
        "metric": spec.metric,
        "schedule": asdict(spec.schedule) if spec.schedule else None,
        "monitor": asdict(spec.monitor),
        "window": {"since": since.isoformat(timespec="seconds"), "days": days},
        "traffic": _traffic(counts),
        "by_release": [
            {"release": release, **_traffic([one for one in counts if one.release == release])}
            for release in sorted({one.release for one in counts}, key=lambda one: one or 0)
        ],
        "over_time": _over_time(counts, timedelta(hours=1) if days <= HOURLY_DAYS else timedelta(days=1)),
        "servers": [asdict(one) for one in servers.live_servers(ledger, model)],
        "inputs": inputs,
        "expected": asdict(likely) if likely else None,
        "performance": told,
        "unlabelled": unlabelled,
        "data": _new_data(settings, ledger, spec),
        "notes": notes,
    }
    before = runs.looks(ledger, model, triggers.MOST_LOOKS)
    recent = runs.newest_runs(ledger, model, triggers.MOST_RUNS)
    created = champion.created if champion else None
    decided = triggers.decide(spec.monitor, found, created, recent, before, now)
    found["triggers"] = [one.to_dict() for one in decided]
    return View(found, drifted, before)


def record(ledger: "Engine", view: View) -> None:
    """Put into the ledger what later looks, plots and `evergreen why` go by; the rest is in the folder of the run."""
    found = view.found
    columns = found["inputs"]["columns"]
    names = ("column", "role", "drifted", "value", "threshold")
    told = columns and [{name: one[name] for name in names} for one in columns]
    performance = [{**one, "by_day": []} for one in found["performance"] or ()]
    kept = {
        name: found[name]
        for name in found
        if name not in ("window", "by_release", "over_time", "servers", "expected", "notes", "inputs", "performance")
    }
    kept |= {"inputs": {**found["inputs"], "columns": told, "unseen": []}, "performance": performance}
    runs.add_look(ledger, found["model"], Look(found["release"], found["at"], kept), triggers.MOST_LOOKS)


def _since(table: "pyarrow.Table", since: datetime) -> "pyarrow.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.greater_equal(table.column("time"), pa.scalar(since.replace(tzinfo=None))))


def _inputs(
    settings: Settings,
    spec: ModelSpec,
    champion: Release | None,
    manifests: Mapping[int, dict[str, Any] | None],
    rows: "pyarrow.Table | None",
) -> tuple[dict[str, Any], list[ColumnDrift], Estimate | None]:
    """Compare what the champion was asked with what it was trained on, and its answers with those it was judged by.

    Returns JSON values, what drifted, and the metric that is to be expected of a classifier.
    """
    count = rows.num_rows if rows is not None else 0
    nothing: dict[str, Any] = {"rows": count, "columns": None, "unseen": [], "why": None}
    if champion is None:
        return {**nothing, "why": "there is no champion to compare with"}, [], None
    if rows is None or count < spec.monitor.rows:
        why = f"{count:,} rows are logged in {spec.monitor.days:g} days, {spec.monitor.rows:,} are needed to judge"
        return {**nothing, "why": why}, [], None
    manifest = manifests[champion.number]
    try:
        if manifest is None:
            raise EvergreenError(f"the package of release {champion.number} is gone")
        path = settings.folder("snapshots") / f"{champion.digests['snapshot']}.parquet"
        then = Stored(load_snapshot(path).path)
        mask = held_out(Rule.from_dict(manifest["holdout"]), then)
        held = then.filter(mask & (np.cumsum(mask) <= MOST_HELD_OUT))
        bento = load_bento(champion.bento, settings.folder("bentoml"), expected=champion.digests["bento"])
        judged = ask(bento.path / "src", champion.digests["artifact"], held)
        features = Schema.from_dict(manifest["schema"]).features
        columns = [
            column_drift(spec, one.name, "feature", then.column(one.name), rows.column(FEATURE + one.name))
            for one in features
            if FEATURE + one.name in rows.column_names
        ]
    except EvergreenError as error:
        return {**nothing, "why": f"not compared: {error}"}, [], None
    answers = performance.answers_of(rows, _names(manifest))
    columns.append(_predictions(spec, judged, answers))
    columns.sort(key=lambda one: (not one.drifted, one.role == "feature", -_beyond(one)))
    shares = {
        one.name: _unseen(rows.column(FEATURE + one.name), one.categories)
        for one in features
        if one.categories and FEATURE + one.name in rows.column_names
    }
    unseen = [
        {"column": name, "share": share} for name, share in sorted(shares.items(), key=lambda one: -one[1]) if share
    ]
    told = [{**asdict(one), "drifted": one.drifted} for one in columns]
    likely = performance.expected(spec, answers, target(spec.task.kind, held.column(spec.target)), judged)
    found = {"rows": count, "columns": told, "unseen": unseen, "why": None}
    return found, [one for one in columns if one.drifted], likely


def _predictions(spec: ModelSpec, judged: Answers, answers: Answers) -> ColumnDrift:
    """Compare answers with those that the champion was judged by; of two labels, the probabilities of one."""
    import pyarrow as pa

    name, sides = f"predicted {spec.target}", []
    for one in (judged, answers):
        values: Any = one.predictions
        if spec.task.kind == "binary" and one.probabilities is not None:
            positive = spec.task.positive  # type: ignore[union-attr]
            name, values = f"probability of {wire.word(positive)}", one.probabilities[:, one.labels.index(positive)]
        elif one.labels:
            values = [wire.word(label) for label in values.tolist()]
        sides.append(pa.chunked_array([pa.array(values)]))
    return replace(column_drift(spec, spec.target, "target", *sides), column=name)


def _beyond(one: ColumnDrift) -> float:
    return one.value / one.threshold if one.value is not None and one.threshold else 0.0


def _unseen(column: "pyarrow.ChunkedArray", known: Sequence[str]) -> float:
    """Return the share of the values that training never saw."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.drop_null()
    return 1 - pc.sum(pc.is_in(values, pa.array(known, values.type))).as_py() / len(values) if len(values) else 0.0


def _names(manifest: Mapping[str, Any]) -> dict[str, Label]:
    return {wire.word(label): label for label in manifest["labels"]}


def _performance(
    spec: ModelSpec,
    made: Sequence[Release],
    manifests: Mapping[int, dict[str, Any] | None],
    tables: "Mapping[int | None, pyarrow.Table]",
) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Return the metric of each release on the rows whose labels have arrived, and why there is none."""
    if spec.labels is None:
        return None, "the spec has no labels= to read the truth from"
    logged = {one.number: tables[one.number] for one in made if one.number in tables}
    if not logged:
        return [], "nothing is logged yet that a label could belong to"
    found = []
    try:
        labels = sources.read(spec.labels)
        for one in made:
            manifest = manifests[one.number]
            if one.number in logged and manifest is not None:
                joined = performance.join(spec, logged[one.number], labels, _names(manifest))
                found.append(_of_release(spec, one, joined))
    except (SourceError, DataError) as error:
        return [], f"the labels cannot be read: {error}"
    why = None
    if not any(one["rows"] for one in found):
        keyed = sum(one["logged"] for one in found)
        why = f"of {keyed:,} logged keys none has a label yet" if keyed else "no logged request bore the key"
    return found, why


def _of_release(spec: ModelSpec, release: Release, joined: Labelled) -> dict[str, Any]:
    known = joined.y_true.tolist()
    days = performance.by_day(spec, joined, DAY_ROWS)
    evaluation = release.evaluation
    return {
        "release": release.number,
        **asdict(performance.estimate(spec, joined.y_true, joined.answers) if known else Estimate(0, None)),
        "released": evaluation["challenger"].get(spec.metric),
        "logged": joined.logged,
        "unkeyed": joined.unkeyed,
        "by_day": [{"day": str(np.datetime64(day, "D")), **asdict(one)} for day, one in days],
    }


def _traffic(counts: Sequence[Counts]) -> dict[str, Any]:
    """Return what was counted of all requests, with latencies in ms as upper bounds of their buckets."""
    names = ("requests", "refused", "errors", "rows", "nulls", "unseen", "logged", "dropped")
    total: dict[str, Any] = {name: sum(getattr(one, name) for one in counts) for name in names}
    edges = counts[-1].edges if counts else ()
    seconds = np.sum([one.seconds for one in counts if one.edges == edges], axis=0).tolist() if counts else []
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        total[name] = round(1000 * quantile(seconds, edges, share), 3) if sum(seconds) else None
    return total


def _over_time(counts: Sequence[Counts], width: timedelta) -> list[dict[str, Any]]:
    """Return what was counted in each hour or day in which there was something, by when it ended."""
    groups: dict[int, list[Counts]] = {}
    for one in counts:
        groups.setdefault(int(one.ended // width.total_seconds()), []).append(one)
    return [
        {"at": datetime.fromtimestamp(place * width.total_seconds(), UTC).isoformat(), **_traffic(some)}
        for place, some in sorted(groups.items())
    ]


def _new_data(settings: Settings, ledger: "Engine", spec: ModelSpec) -> dict[str, Any]:
    """Tell whether the source has other rows than the last run read, where its files tell that without being read."""
    if not isinstance(spec.source, Csv | Parquet | JsonLines):
        said = f"whether a {type(spec.source).__name__} source has new rows is known when a run reads it"
        return {"new": None, "sentence": said}
    if runs.last_run(ledger, spec.name) is None:
        return {"new": None, "sentence": "no run has read the source yet"}
    changed = Seen(spec.source, settings.folder("snapshots")).changed()
    where = sources.origin(spec.source)
    if changed is None:
        return {"new": None, "sentence": f"whether {where} has new rows is known when a run reads it"}
    return {"new": changed, "sentence": f"{where} {'changed' if changed else 'has not changed'} since a run read it"}
