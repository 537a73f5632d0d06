"""Measure a served model: logged requests and predictions, compared with what its champion was trained on."""

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
from pipeline.errors import ArtifactError, DataError, EvergreenError, SourceError
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
"""Maximum number of held-out rows whose predictions are compared with the logged ones."""
DAY_ROWS = 30
"""Minimum labelled rows of a day for its metric to be reported."""
HOURLY_DAYS = 3
"""In a window of more days than this, requests are counted by day."""


@dataclass(frozen=True)
class Observed:
    """A report and its history.

    Attributes:
        report: the new report.
        before: the reports before it, oldest first.
    """

    report: MonitoringReport
    before: list[MonitoringReport] = field(default_factory=list)

    def __str__(self) -> str:
        return summarize_monitoring(self.report)


def observe(settings: Settings, ledger: "Engine", spec: ModelSpec, now: datetime) -> Observed:
    """Observe a model now. If something cannot be measured, a note of the report says so, and the rest is measured."""
    model, days = spec.name, spec.monitor.days
    made, _ = releases.history(ledger, model)
    champion = releases.champion(ledger, model)
    log, notes = _read_log(settings, spec, now)
    since = now - timedelta(days=days)
    counts = [count for count in log.counts if count.ended >= since.timestamp()]
    table = log.tables.get(champion.number) if champion else None
    manifests = {release.number: packed_manifest(settings, release) for release in made}
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
    before = [
        MonitoringReport.from_dict(observation.found)
        for observation in runs.observations(ledger, model, triggers.MAX_LOOKS)
    ]
    recent = runs.newest_runs(ledger, model, triggers.MAX_RUNS)
    decided = triggers.decide(report, champion.created if champion else None, recent, before, now)
    return Observed(replace(report, triggers=tuple(decided)), before)


def record(ledger: "Engine", report: MonitoringReport) -> None:
    """Write to the ledger what later observations, plots and `evergreen triggers` need; the rest is in the folder."""
    kept = Observation(report.release, report.at, report.for_ledger().to_dict())
    runs.add_observation(ledger, report.model, kept, triggers.MAX_LOOKS)


def _read_log(settings: Settings, spec: ModelSpec, now: datetime) -> tuple[Recorded, list[str]]:
    """Delete old entries from the request log; return the rest, and notes about problems with it."""
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
    """Compare logged requests with the training data, and logged predictions with those on held-out rows.

    Return that, and the metric to expect of a classifier before labels arrive.
    """
    count = rows.num_rows if rows is not None else 0
    if champion is None:
        return Inputs(count, why="there is no champion to compare with"), None
    if rows is None or count < spec.monitor.min_rows:
        why = (
            f"{count:,} rows are logged in {spec.monitor.days:g} days, {spec.monitor.min_rows:,} are needed to compare"
        )
        return Inputs(count, why=why), None
    try:
        return _compared(settings, spec, champion, manifests[champion.number], rows)
    except EvergreenError as error:
        return Inputs(count, why=f"not compared: {error}"), None


def _compared(
    settings: Settings, spec: ModelSpec, champion: Release, manifest: dict[str, Any] | None, rows: "pyarrow.Table"
) -> tuple[Inputs, ExpectedMetric | None]:
    """Raises EvergreenError if the champion's package or its snapshot is gone or damaged."""
    if manifest is None:
        raise ArtifactError(f"the package of release {champion.number} is gone", code="artifact.package_gone")
    path = settings.folder("snapshots") / f"{champion.digests['snapshot']}.parquet"
    then = SnapshotFile(load_snapshot(path).path)
    mask = held_out(Rule.from_dict(manifest["holdout"]), then)
    held = then.filter(mask & (np.cumsum(mask) <= MAX_HELD_OUT))
    bento = load_bento(champion.bento, settings.folder("bentoml"), expected=champion.digests["bento"])
    judged = predict_packaged(bento.path / "src", champion.digests["artifact"], held)
    answers = performance.answers_of(rows, _names(manifest))
    features = Schema.from_dict(manifest["schema"]).features
    logged = [feature for feature in features if FEATURE + feature.name in rows.column_names]
    columns = [
        column_drift(spec, feature.name, "feature", then.column(feature.name), rows.column(FEATURE + feature.name))
        for feature in logged
    ]
    columns.append(_predictions(spec, judged, answers))
    columns.sort(key=lambda column: (not column.drifted, column.role == "feature", -_beyond(column)))
    shares = [
        Unseen(feature.name, _unseen(rows.column(FEATURE + feature.name), feature.categories))
        for feature in logged
        if feature.categories
    ]
    unseen = sorted((column for column in shares if column.share), key=lambda column: -column.share)
    expected = performance.expected(spec, answers, target(spec.task.kind, held.column(spec.target)), judged)
    inputs = Inputs(rows.num_rows, tuple(columns), tuple(unseen))
    return inputs, ExpectedMetric(**asdict(expected)) if expected else None


def _predictions(spec: ModelSpec, judged: Answers, answers: Answers) -> ColumnDrift:
    """Compare logged answers with those on held-out rows; with two labels, the probabilities of the positive one."""
    import pyarrow as pa

    name, sides = f"predicted {spec.target}", []
    for side in (judged, answers):
        values: Any = side.predictions
        if spec.task.kind == "binary" and side.probabilities is not None:
            positive = spec.task.positive  # type: ignore[union-attr]
            name = f"probability of {formats.word(positive)}"
            values = side.probabilities[:, side.labels.index(positive)]
        elif side.labels:
            values = [formats.word(label) for label in values.tolist()]
        sides.append(pa.chunked_array([pa.array(values)]))
    return replace(column_drift(spec, spec.target, "target", *sides), column=name)


def _beyond(column: ColumnDrift) -> float:
    return column.value / column.threshold if column.value is not None and column.threshold else 0.0


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
    logged = {release.number: tables[release.number] for release in made if release.number in tables}
    if not logged:
        return (), "nothing is logged yet that a label could belong to"
    measured = []
    try:
        labels = sources.read(spec.labels)
        for release in made:
            manifest = manifests[release.number]
            if release.number in logged and manifest is not None:
                joined = performance.join(spec, logged[release.number], labels, _names(manifest))
                measured.append(_of_release(spec, release, joined))
    except (SourceError, DataError) as error:
        return (), f"the labels cannot be read: {error}"
    why = None
    if not any(release.rows for release in measured):
        keyed = sum(release.logged for release in measured)
        why = f"none of {keyed:,} logged keys has a label yet" if keyed else "no logged request has the key"
    return tuple(measured), why


def _of_release(spec: ModelSpec, release: Release, joined: Labelled) -> ReleasePerformance:
    known = joined.y_true.tolist()
    days = performance.by_day(spec, joined, DAY_ROWS)
    return ReleasePerformance(
        release=release.number,
        **asdict(performance.estimate(spec, joined.y_true, joined.answers) if known else Estimate(0, None)),
        released=release.evaluation["challenger"].get(spec.metric),
        logged=joined.logged,
        unkeyed=joined.unkeyed,
        by_day=tuple(DayPerformance(str(np.datetime64(day, "D")), **asdict(estimate)) for day, estimate in days),
    )


def _traffic(counts: Sequence[Counts]) -> Traffic:
    """Return the counts of all requests, with latencies in ms as upper bounds of their buckets."""
    edges = counts[-1].edges if counts else ()
    seconds = np.sum([count.seconds for count in counts if count.edges == edges], axis=0).tolist() if counts else []

    def total(name: str) -> int:
        return sum(getattr(count, name) for count in counts)

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
    numbers = sorted({count.release for count in counts}, key=lambda number: number or 0)
    return tuple(
        ReleaseTraffic(number, _traffic([count for count in counts if count.release == number])) for number in numbers
    )


def _over_time(counts: Sequence[Counts], width: timedelta) -> tuple[PeriodTraffic, ...]:
    """Return the counts of each hour or day with requests, by when the count ended."""
    groups: dict[int, list[Counts]] = {}
    for count in counts:
        groups.setdefault(int(count.ended // width.total_seconds()), []).append(count)
    return tuple(
        PeriodTraffic(datetime.fromtimestamp(number * width.total_seconds(), UTC).isoformat(), _traffic(group))
        for number, group in sorted(groups.items())
    )


def _new_data(settings: Settings, ledger: "Engine", spec: ModelSpec) -> NewData:
    """Return whether the source has other rows than the last run read, if that is known without reading its files."""
    if not isinstance(spec.source, Csv | Parquet | JsonLines):
        sentence = f"whether a {type(spec.source).__name__} source has new rows is known when a run reads it"
        return NewData(None, sentence)
    if runs.last_run(ledger, spec.name) is None:
        return NewData(None, "no run has read the source yet")
    changed = IngestCache(spec.source, settings.folder("snapshots")).changed()
    where = sources.origin(spec.source)
    if changed is None:
        return NewData(None, f"whether {where} has new rows is known when a run reads it")
    return NewData(changed, f"{where} {'changed' if changed else 'has not changed'} since a run read it")
