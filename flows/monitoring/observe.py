"""A look at a model as it is served: what it was asked and answered, beside what its champion was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from bentos.canary import quantile
from bentos.endpoint import formats
from bentos.ledger import releases, runs, servers
from bentos.ledger.releases import Release
from bentos.ledger.runs import Observation
from bentos.package import load_bento
from flows.monitoring import triggers
from flows.monitoring.champion_drift import packed_manifest
from flows.monitoring.report import (
    DayPerformance,
    ExpectedMetric,
    Inputs,
    MonitoringReport,
    NewData,
    PeriodTraffic,
    ReleasePerformance,
    ReleaseTraffic,
    ServerState,
    Traffic,
    Unseen,
    Window,
)
from flows.summaries import summarize_monitoring
from pipeline import performance, request_log, sources
from pipeline.drift import ColumnDrift, column_drift
from pipeline.errors import DataError, EvergreenError, SourceError
from pipeline.ingest_cache import IngestCache
from pipeline.performance import Estimate, Labelled
from pipeline.predict import Answers, Label, target
from pipeline.predict_in_package import predict_packaged
from pipeline.request_log import FEATURE, Counts, Recorded
from pipeline.schema import Schema
from pipeline.settings import Settings
from pipeline.snapshot import SnapshotFile, load_snapshot
from pipeline.sources import Csv, JsonLines, Parquet
from pipeline.spec import ModelSpec
from pipeline.split import Rule, held_out

if TYPE_CHECKING:
    import pyarrow
    from sqlalchemy import Engine

MAX_HELD_OUT = 5_000
"""Predictions are compared with those of so many held-out rows at most."""
DAY_ROWS = 30
"""From so many labelled rows on, the metric of a day is told."""
HOURLY_DAYS = 3
"""In a window of more days than this, requests are counted by day."""


@dataclass(frozen=True)
class Observed:
    """A report, and the reports of the looks before it, the oldest first."""

    report: MonitoringReport
    before: list[MonitoringReport] = field(default_factory=list)

    def __str__(self) -> str:
        return summarize_monitoring(self.report)


def observe(settings: Settings, ledger: "Engine", spec: ModelSpec, now: datetime) -> Observed:
    """Look at a model now. What cannot be looked at is a note of the report, and holds nothing else back."""
    model, days = spec.name, spec.monitor.days
    made, _ = releases.history(ledger, model)
    champion = releases.champion(ledger, model)
    log, notes = _read_log(settings, spec, now)
    since = now - timedelta(days=days)
    counts = [one for one in log.counts if one.ended >= since.timestamp()]
    table = log.tables.get(champion.number) if champion else None
    manifests = {one.number: packed_manifest(settings, one) for one in made}
    inputs, expected = _inputs(settings, spec, champion, manifests, None if table is None else _since(table, since))
    measured, unlabelled = _performance(spec, made, manifests, log.tables)
    report = MonitoringReport(
        model=model,
        at=now.isoformat(timespec="seconds"),
        release=champion.number if champion else None,
        metric=spec.metric,
        schedule=spec.schedule,
        monitor=spec.monitor,
        window=Window(since.isoformat(timespec="seconds"), days),
        traffic=_traffic(counts),
        by_release=_by_release(counts),
        over_time=_over_time(counts, timedelta(hours=1) if days <= HOURLY_DAYS else timedelta(days=1)),
        servers=tuple(ServerState(**asdict(server)) for server in servers.live_servers(ledger, model)),
        inputs=inputs,
        expected=expected,
        performance=measured,
        unlabelled=unlabelled,
        data=_new_data(settings, ledger, spec),
        notes=tuple(notes),
    )
    before = [MonitoringReport.from_dict(one.found) for one in runs.observations(ledger, model, triggers.MAX_LOOKS)]
    recent = runs.newest_runs(ledger, model, triggers.MAX_RUNS)
    decided = triggers.decide(report, champion.created if champion else None, recent, before, now)
    return Observed(replace(report, triggers=tuple(decided)), before)


def record(ledger: "Engine", report: MonitoringReport) -> None:
    """Put into the ledger what later looks, plots and `evergreen triggers` go by; the rest is in the folder of the
    run."""
    kept = Observation(report.release, report.at, report.for_ledger().to_dict())
    runs.add_observation(ledger, report.model, kept, triggers.MAX_LOOKS)


def _read_log(settings: Settings, spec: ModelSpec, now: datetime) -> tuple[Recorded, list[str]]:
    """Remove what is too old from the log of requests; return the rest, and what is wrong with it."""
    folder, days = settings.folder("requests", spec.name), spec.monitor.days
    notes = []
    if spec.log is not None:
        request_log.prune(folder, spec.log.max_bytes, spec.log.retention_days)
    else:
        notes.append("no requests are logged: give log=RequestLog() in the spec, and release again")
    log = request_log.read(folder, now - timedelta(days=max(spec.log.retention_days if spec.log else days, days)))
    if log.unreadable:
        notes.append(f"{len(log.unreadable)} files of the log cannot be read, the first is {log.unreadable[0]}")
    return log, notes


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
) -> tuple[Inputs, ExpectedMetric | None]:
    """Compare what the champion was asked with what it was trained on, and its answers with those it was judged by.

    Return that, and the metric that is to be expected of a classifier.
    """
    count = rows.num_rows if rows is not None else 0
    if champion is None:
        return Inputs(count, why="there is no champion to compare with"), None
    if rows is None or count < spec.monitor.min_rows:
        why = f"{count:,} rows are logged in {spec.monitor.days:g} days, {spec.monitor.min_rows:,} are needed to judge"
        return Inputs(count, why=why), None
    try:
        return _compared(settings, spec, champion, manifests[champion.number], rows)
    except EvergreenError as error:
        return Inputs(count, why=f"not compared: {error}"), None


def _compared(
    settings: Settings, spec: ModelSpec, champion: Release, manifest: dict[str, Any] | None, rows: "pyarrow.Table"
) -> tuple[Inputs, ExpectedMetric | None]:
    """Raises EvergreenError when the champion's package or its snapshot is gone or damaged."""
    if manifest is None:
        raise EvergreenError(f"the package of release {champion.number} is gone")
    path = settings.folder("snapshots") / f"{champion.digests['snapshot']}.parquet"
    then = SnapshotFile(load_snapshot(path).path)
    mask = held_out(Rule.from_dict(manifest["holdout"]), then)
    held = then.filter(mask & (np.cumsum(mask) <= MAX_HELD_OUT))
    bento = load_bento(champion.bento, settings.folder("bentoml"), expected=champion.digests["bento"])
    judged = predict_packaged(bento.path / "src", champion.digests["artifact"], held)
    answers = performance.answers_of(rows, _names(manifest))
    logged = [one for one in Schema.from_dict(manifest["schema"]).features if FEATURE + one.name in rows.column_names]
    columns = [
        column_drift(spec, one.name, "feature", then.column(one.name), rows.column(FEATURE + one.name))
        for one in logged
    ]
    columns.append(_predictions(spec, judged, answers))
    columns.sort(key=lambda one: (not one.drifted, one.role == "feature", -_beyond(one)))
    shares = [
        Unseen(one.name, _unseen(rows.column(FEATURE + one.name), one.categories)) for one in logged if one.categories
    ]
    unseen = sorted((one for one in shares if one.share), key=lambda one: -one.share)
    likely = performance.expected(spec, answers, target(spec.task.kind, held.column(spec.target)), judged)
    inputs = Inputs(rows.num_rows, tuple(columns), tuple(unseen))
    return inputs, ExpectedMetric(**asdict(likely)) if likely else None


def _predictions(spec: ModelSpec, judged: Answers, answers: Answers) -> ColumnDrift:
    """Compare answers with those that the champion was judged by; of two labels, the probabilities of one."""
    import pyarrow as pa

    name, sides = f"predicted {spec.target}", []
    for one in (judged, answers):
        values: Any = one.predictions
        if spec.task.kind == "binary" and one.probabilities is not None:
            positive = spec.task.positive  # type: ignore[union-attr]
            name, values = f"probability of {formats.word(positive)}", one.probabilities[:, one.labels.index(positive)]
        elif one.labels:
            values = [formats.word(label) for label in values.tolist()]
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
    return {formats.word(label): label for label in manifest["labels"]}


def _performance(
    spec: ModelSpec,
    made: Sequence[Release],
    manifests: Mapping[int, dict[str, Any] | None],
    tables: "Mapping[int | None, pyarrow.Table]",
) -> tuple[tuple[ReleasePerformance, ...] | None, str | None]:
    """Return the metric of each release on the rows whose labels have arrived, and why there is none."""
    if spec.labels is None:
        return None, "the spec has no labels= to read the truth from"
    logged = {one.number: tables[one.number] for one in made if one.number in tables}
    if not logged:
        return (), "nothing is logged yet that a label could belong to"
    found = []
    try:
        labels = sources.read(spec.labels)
        for one in made:
            manifest = manifests[one.number]
            if one.number in logged and manifest is not None:
                joined = performance.join(spec, logged[one.number], labels, _names(manifest))
                found.append(_of_release(spec, one, joined))
    except (SourceError, DataError) as error:
        return (), f"the labels cannot be read: {error}"
    why = None
    if not any(one.rows for one in found):
        keyed = sum(one.logged for one in found)
        why = f"of {keyed:,} logged keys none has a label yet" if keyed else "no logged request bore the key"
    return tuple(found), why


def _of_release(spec: ModelSpec, release: Release, joined: Labelled) -> ReleasePerformance:
    known = joined.y_true.tolist()
    days = performance.by_day(spec, joined, DAY_ROWS)
    return ReleasePerformance(
        release=release.number,
        **asdict(performance.estimate(spec, joined.y_true, joined.answers) if known else Estimate(0, None)),
        released=release.evaluation["challenger"].get(spec.metric),
        logged=joined.logged,
        unkeyed=joined.unkeyed,
        by_day=tuple(DayPerformance(str(np.datetime64(day, "D")), **asdict(one)) for day, one in days),
    )


def _traffic(counts: Sequence[Counts]) -> Traffic:
    """Return what was counted of all requests, with latencies in ms as upper bounds of their buckets."""
    edges = counts[-1].edges if counts else ()
    seconds = np.sum([one.seconds for one in counts if one.edges == edges], axis=0).tolist() if counts else []

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in counts)

    def latency(share: float) -> float | None:
        return round(1000 * quantile(seconds, edges, share), 3) if sum(seconds) else None

    return Traffic(
        requests=total("requests"),
        refused=total("refused"),
        errors=total("errors"),
        rows=total("rows"),
        nulls=total("nulls"),
        unseen=total("unseen"),
        logged=total("logged"),
        dropped=total("dropped"),
        p50_ms=latency(0.5),
        p95_ms=latency(0.95),
        p99_ms=latency(0.99),
    )


def _by_release(counts: Sequence[Counts]) -> tuple[ReleaseTraffic, ...]:
    numbers = sorted({one.release for one in counts}, key=lambda number: number or 0)
    return tuple(
        ReleaseTraffic(number, _traffic([one for one in counts if one.release == number])) for number in numbers
    )


def _over_time(counts: Sequence[Counts], width: timedelta) -> tuple[PeriodTraffic, ...]:
    """Return what was counted in each hour or day in which there was something, by when it ended."""
    groups: dict[int, list[Counts]] = {}
    for one in counts:
        groups.setdefault(int(one.ended // width.total_seconds()), []).append(one)
    return tuple(
        PeriodTraffic(datetime.fromtimestamp(place * width.total_seconds(), UTC).isoformat(), _traffic(some))
        for place, some in sorted(groups.items())
    )


def _new_data(settings: Settings, ledger: "Engine", spec: ModelSpec) -> NewData:
    """Tell whether the source has other rows than the last run read, where its files tell that without being read."""
    if not isinstance(spec.source, Csv | Parquet | JsonLines):
        said = f"whether a {type(spec.source).__name__} source has new rows is known when a run reads it"
        return NewData(None, said)
    if runs.last_run(ledger, spec.name) is None:
        return NewData(None, "no run has read the source yet")
    changed = IngestCache(spec.source, settings.folder("snapshots")).changed()
    where = sources.origin(spec.source)
    if changed is None:
        return NewData(None, f"whether {where} has new rows is known when a run reads it")
    return NewData(changed, f"{where} {'changed' if changed else 'has not changed'} since a run read it")
