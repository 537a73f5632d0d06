"""History replayed month by month: what retraining would have been worth, and what the gate would have let through.

At the end of each month a challenger is trained on all rows until then, as a run would have trained it, and judged by
the gate against the champion of that day. How good a model was is told by the rows of the month after alone, which
neither it nor the gate had seen. Three ways of life are compared: the first model that passed the gate is kept for
ever; every challenger replaces the model before it; a challenger replaces it when the gate says so.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import digest
from pipeline.errors import DataError, TrainingError, did_you_mean
from pipeline.evaluate import Champion, Interval, evaluate, interval, score
from pipeline.files import write_parquet
from pipeline.gate import decide
from pipeline.predict import Answers, concat, predict_rows, target
from pipeline.schema import check_columns, describe, feature_names
from pipeline.snapshot import Snapshot
from pipeline.sources import logical_type
from pipeline.train import Trained, train

if TYPE_CHECKING:
    import pyarrow

    from pipeline.spec import ModelSpec

Array = NDArray[Any]
Strategy = str
NEVER, ALWAYS, GATE = "never", "always", "gate"
STRATEGIES = (NEVER, ALWAYS, GATE)
"""Never retrained, always retrained, retrained by the gate."""
FIRST_MONTHS = 12
"""So many months are there before the first model is trained; half of all, where there are few."""
POOLED_ROWS = 100
"""A month's figure is that of its rows and of those of as many months before it as make up so many."""


@dataclass(frozen=True)
class Month:
    """One step of the replay: trained at the end of the month before, judged on the rows of this one.

    `metrics` are those of the month's rows alone, `pooled` also of so many months before it that there are rows enough.
    `outcome` is what the gate said of the challenger: `released` or `kept`, or `failed` when none could be trained.
    """

    month: str
    rows: int
    outcome: str
    reasons: tuple[str, ...]
    metrics: dict[Strategy, float | None]
    pooled: dict[Strategy, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Backtest:
    """A whole replay. `overall` is the metric of all rows that were judged, `releases` how many models each way had.

    `differences` are those of the gate less the two other ways, with paired bootstrap intervals over all judged rows.
    """

    model: str
    metric: str
    greater_is_better: bool
    trained_before: str
    months: tuple[Month, ...]
    rows: int
    overall: dict[Strategy, float | None]
    releases: dict[Strategy, int]
    differences: dict[Strategy, Interval | None]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the backtest as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class History:
    """A table with the month of each row, as a number (12 year + month - 1), and what was changed to read it."""

    table: "pyarrow.Table"
    months: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Model:
    """A fitted estimator, and what is needed to ask it."""

    number: int
    estimator: Any
    features: Any
    trained: Trained

    def predict(self, rows: "pyarrow.Table") -> Answers:
        return predict_rows(self.estimator, rows, self.features)


def history(spec: "ModelSpec", table: "pyarrow.Table", time: Sequence[str] = ()) -> History:
    """Return a table in the spec's own spelling, with the month of each row.

    `time` names a column of timestamps, or one of years and one of months; without, it is the spec's time column.
    Columns are found by their letters and digits alone where the spec's spelling is not there; without the key column,
    the number of a row is its key. Raises DataError, naming the column, where there is no such column or month.
    """
    names = list(time) or ([spec.time] if spec.time else [])
    if not names:
        raise DataError(
            f"{spec.name} has no time column; name a column of timestamps, or columns of year and month, such as "
            "--time 'YrSold,MoSold'",
            code="data.no_time_column",
        )
    for name in names:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names)
            raise DataError(
                f"the data has no column {name!r}, which --time or the spec names{hint}", code="data.missing_column"
            )
    months = _months(table, names)
    table, notes = _spelled(spec, table)
    check_columns(spec, table)
    return History(table, months, notes)


def replay(spec: "ModelSpec", past: History, done: Callable[[str, int, int], object] = lambda *_: None) -> Backtest:
    """Replay a history; `done` is told the month that was just trained on, its place, and how many there are.

    Raises DataError when there are too few months, or no challenger of any month passes the gate.
    """
    months = np.unique(past.months)
    first = min(FIRST_MONTHS, len(months) // 2)
    if first < 1:
        raise DataError(
            f"a backtest needs at least two months of data, and there are {len(months)}; use a longer history",
            code="data.too_few_months",
        )
    models: dict[Strategy, _Model] = {}
    steps: list[tuple[Month, Array, dict[Strategy, Answers | None]]] = []
    releases = dict.fromkeys(STRATEGIES, 0)
    began = ""
    with tempfile.TemporaryDirectory(prefix="evergreen-backtest-") as scratch:
        for place in range(first - 1, len(months) - 1):
            until, then = months[place], months[place + 1]
            folder = Path(scratch) / str(place)
            challenger, outcome, reasons = _challenge(spec, past, until, models.get(GATE), folder, place)
            done(_name(until), place - first + 2, len(months) - first)
            if not models and outcome != "released":
                continue
            if challenger:
                changed = [ALWAYS, *([GATE] if outcome == "released" else []), *([] if models else [NEVER])]
                models |= dict.fromkeys(changed, challenger)
                for way in changed:
                    releases[way] += 1
            began = began or _name(until)
            rows = past.table.filter(past.months == then)
            y = target(spec.task.kind, rows.column(spec.target))
            answers = {way: _predict(models[way], rows) for way in STRATEGIES}
            metrics = {way: _metric(spec, [y], [said]) for way, said in answers.items()}
            steps.append((Month(_name(then), len(y), outcome, reasons, metrics), y, answers))
    if not steps:
        raise DataError(
            f"no challenger of {spec.name} passed the gate in any month, so there is nothing to compare; change the "
            f"gate or the model. The last reasons: {'; '.join(reasons)}",
            code="data.no_month_passes",
        )
    truth = [y for _, y, _ in steps]
    by_way = {way: [answers[way] for _, _, answers in steps] for way in STRATEGIES}
    return Backtest(
        model=spec.name,
        metric=spec.metric,
        greater_is_better=spec.greater_is_better,
        trained_before=began,
        months=tuple(_pooled(spec, steps)),
        rows=sum(len(y) for y in truth),
        overall={way: _metric(spec, truth, by_way[way]) for way in STRATEGIES},
        releases=releases,
        differences={way: _difference(spec, truth, by_way[GATE], by_way[way]) for way in (NEVER, ALWAYS)},
        notes=past.notes,
    )


def _challenge(
    spec: "ModelSpec", past: History, until: int, champion: _Model | None, folder: Path, number: int
) -> tuple[_Model | None, str, tuple[str, ...]]:
    """Train on all rows until a month, and let the gate judge; return the challenger, the outcome and the reasons."""
    table = past.table.filter(past.months <= until)
    folder.mkdir()
    try:
        # Workers that start anew each month take longer to start than they save.
        trained = train(spec, _frozen(table, folder), folder / "trained", workers=1)
        model = _Model(number, trained.estimator(), describe(spec, table).features, trained)
        evaluation = evaluate(spec, table, trained.rule, model.estimator, _champion(champion) if champion else None)
    except (DataError, TrainingError) as error:
        return None, "failed", (str(error),)
    verdict = decide(evaluation, spec.gate)
    return model, "released" if verdict.passed else "kept", verdict.reasons


def _champion(model: _Model) -> Champion:
    required = tuple(feature.name for feature in model.features if feature.required)
    return Champion(model.number, model.predict, required, model.trained.rule)


def _frozen(table: "pyarrow.Table", folder: Path) -> Snapshot:
    name = digest.of_table(table)
    path = folder / f"{name}.parquet"
    write_parquet(path, table)
    columns: dict[str, str] = {one.name: logical_type(one.type) for one in table.schema}
    return Snapshot(path, name, table.num_rows, columns, "a backtest", "")


def _predict(model: _Model, rows: "pyarrow.Table") -> Answers | None:
    """Return a model's answers to rows that came later; None when it has none, as for words that it never saw."""
    try:
        return model.predict(rows)
    except Exception:
        return None


def _metric(spec: "ModelSpec", truth: Sequence[Array], answers: Sequence[Answers | None]) -> float | None:
    known = [one for one in answers if one is not None]
    if len(known) < len(answers) or len({one.labels for one in known}) > 1:
        return None
    value = score(spec.task, spec.metric, np.concatenate(truth), concat(known))
    return float(value) if np.isfinite(value) else None


def _difference(
    spec: "ModelSpec", truth: Sequence[Array], ours: Sequence[Answers | None], theirs: Sequence[Answers | None]
) -> Interval | None:
    one, other = [a for a in ours if a is not None], [a for a in theirs if a is not None]
    if len(one) < len(ours) or len(other) < len(theirs) or len({a.labels for a in (*one, *other)}) > 1:
        return None
    return interval(spec, np.concatenate(truth), concat(one), concat(other))


def _pooled(
    spec: "ModelSpec", steps: Sequence[tuple[Month, Array, Mapping[Strategy, Answers | None]]]
) -> Iterator[Month]:
    for place, (month, _, _) in enumerate(steps):
        start = place
        while start > 0 and sum(len(y) for _, y, _ in steps[start : place + 1]) < POOLED_ROWS:
            start -= 1
        some = steps[start : place + 1]
        truth = [y for _, y, _ in some]
        pooled = {way: _metric(spec, truth, [answers[way] for _, _, answers in some]) for way in STRATEGIES}
        yield Month(**{**_fields(month), "pooled": pooled})


def _fields(month: Month) -> dict[str, Any]:
    return {name: getattr(month, name) for name in ("month", "rows", "outcome", "reasons", "metrics")}


def _name(month: int) -> str:
    return f"{month // 12:04}-{month % 12 + 1:02}"


def _months(table: "pyarrow.Table", names: Sequence[str]) -> NDArray[np.int64]:
    """Return the month of each row, from a column of timestamps, or of years and of months from 1 to 12."""
    import pyarrow as pa

    columns = [table.column(name) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.null_count:
            raise DataError(
                f"column {name!r}, which gives the month, is null in {column.null_count} rows; fill or remove them",
                code="data.null_column",
            )
    if len(columns) == 1 and pa.types.is_timestamp(columns[0].type):
        return columns[0].to_numpy().astype("datetime64[M]").astype(np.int64) + 12 * 1970
    if len(columns) == 2 and all(logical_type(column.type) == "number" for column in columns):
        year, month = (column.to_numpy().astype(np.float64) for column in columns)
        if not ((month >= 1) & (month <= 12) & (month % 1 == 0) & (year % 1 == 0)).all():
            raise DataError(
                f"columns {names[0]!r} and {names[1]!r} do not hold whole years and months from 1 to 12; name others",
                code="data.invalid_months",
            )
        return (12 * year + month - 1).astype(np.int64)
    kinds = " and ".join(f"{name!r} holds {logical_type(one.type)}" for name, one in zip(names, columns, strict=True))
    raise DataError(
        f"{kinds}; name one column of timestamps, or one of years and one of months", code="data.invalid_months"
    )


def _spelled(spec: "ModelSpec", table: "pyarrow.Table") -> tuple["pyarrow.Table", tuple[str, ...]]:
    """Return a table with the columns that the spec names under these names, and what was done to it."""
    wanted = {*feature_names(spec, table.column_names), spec.target, *spec.gate.slices, *spec.key}
    wanted |= {name for name in (spec.group, spec.time) if name}
    by_letters = {_letters(name): name for name in table.column_names}
    renamed = {
        by_letters[_letters(name)]: name
        for name in wanted
        if name not in table.column_names and _letters(name) in by_letters
    }
    notes = []
    if renamed:
        shown = ", ".join(f"{theirs!r} is {ours!r}" for theirs, ours in sorted(renamed.items())[:3])
        notes.append(f"{len(renamed)} columns have another spelling: {shown}{', ...' if len(renamed) > 3 else ''}")
        table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
    for name in spec.key:
        if name not in table.column_names and len(spec.key) == 1:
            notes.append(f"there is no key column {name!r}: the number of a row is its key")
            table = table.append_column(name, [np.arange(1, table.num_rows + 1)])
    return table, tuple(notes)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
