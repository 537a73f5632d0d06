"""Evaluate rules with the pandas engine of Great Expectations on only the columns that each rule is about.

If the rows that may break a rule are known beforehand, the engine gets only these, and the counts of all rows.
Great Expectations' own way passes the whole frame to each rule and copies it for most of them. Results are identical.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from expectations.prefilter import Part, can_prefilter, prefilter
from expectations.suite import cause_of, columns_named, send_no_analytics
from pipeline.errors import CheckError

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

RULES_ABOUT_NAMES = ("ExpectColumnToExist", "ExpectTableColumn", "ExpectTableRowCount")
"""How the names of expectations begin that are about column names and the number of rows, never about a value."""

RESULT_FORMAT = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": 100}}
"""BASIC never lists the index of unexpected rows. A report shows a few distinct ones of the first 100 values."""

Names = tuple[str, ...]


@dataclass(frozen=True)
class ColumnReader:
    """A table whose columns are read as frames, a few at a time; the frames' index counts the rows from 0.

    Attributes:
        names: the columns of the table.
        rows: the number of its rows.
        schema: its Arrow schema; None for a pandas frame.
        frame: returns the columns of these names, with all rows.
        prefilter: returns the columns of these names with only the rows that may break one of these rules. It needs
            a `schema`.
        only: returns a reader of the rows for which a mask is true.
    """

    names: tuple[str, ...]
    rows: int
    schema: "pyarrow.Schema | None"
    frame: "Callable[[Sequence[str]], pandas.DataFrame]"
    prefilter: Callable[[Sequence[str], Sequence[Any]], Part]
    only: "Callable[[numpy.ndarray], ColumnReader]"


def column_reader(data: Any, keep: "numpy.ndarray | None" = None) -> ColumnReader:
    """Return a reader of a pandas frame, an Arrow table or a SnapshotFile; `keep` is a mask of the rows to read."""
    import pandas as pd

    is_frame = isinstance(data, pd.DataFrame)
    rows = len(data) if is_frame else data.num_rows
    rows = rows if keep is None else int(keep.sum())
    return ColumnReader(
        names=tuple(data.columns if is_frame else data.column_names),
        rows=rows,
        schema=None if is_frame else data.schema,
        prefilter=partial(prefilter, data, keep, rows),
        frame=partial(_part_of_frame if is_frame else _part_of_table, data, keep),
        only=partial(column_reader, data),
    )


def _part_of_frame(data: "pandas.DataFrame", keep: "numpy.ndarray | None", names: Sequence[str]) -> "pandas.DataFrame":
    frame = data[[*names]]
    return (frame if keep is None else frame[keep]).reset_index(drop=True)


def _part_of_table(data: Any, keep: "numpy.ndarray | None", names: Sequence[str]) -> "pandas.DataFrame":
    import pyarrow as pa

    table = data.select([*names])
    # One thread: each thread of a pool keeps memory of its own, and a single column cannot be divided among them.
    return (table if keep is None else table.filter(pa.array(keep))).to_pandas(
        split_blocks=True, ignore_metadata=True, use_threads=False
    )


@dataclass(frozen=True)
class RuleOutcome:
    """The outcome of one rule.

    Attributes:
        unfit: why the rule cannot be evaluated on the data; None if it was evaluated.
        answer: the result object of Great Expectations; None if the rule is unfit.
        failing: a boolean mask of the rows that break the rule; None unless masks were requested.
    """

    unfit: str | None = None
    answer: Any = None
    failing: "numpy.ndarray | None" = None


def evaluate_rules(
    columns: ColumnReader,
    rules: Mapping[int, Any],
    prepare: "Callable[[Any, pandas.DataFrame], tuple[str | None, Any]]",
    masks: bool = False,
) -> dict[int, RuleOutcome]:
    """Evaluate numbered rules with Great Expectations and return the outcomes by number.

    `prepare` takes a rule and the frame of its columns. It returns why the rule cannot be evaluated, or the rule in
    the form to evaluate. With `masks`, outcomes have `failing`. Raises CrashedCheckError if a check itself crashed.
    """
    send_no_analytics()
    groups: dict[tuple[Names, bool], dict[int, Any]] = {}
    for number, rule in rules.items():
        names = _needs(rule, columns)
        groups.setdefault((names, can_prefilter(rule, names, columns.schema)), {})[number] = rule
    outcomes: dict[int, RuleOutcome] = {}
    crashed: dict[int, str] = {}
    for numbered, part in _read_ahead(columns, groups):
        prepared = {}
        for number, rule in numbered.items():
            unfit, rule = prepare(rule, part.frame)
            if unfit:
                outcomes[number] = RuleOutcome(unfit)
            else:
                prepared[number] = rule
        outcomes |= _evaluate(part, prepared, masks, crashed)
        del part
    if crashed:
        number = min(crashed)
        raise CrashedCheckError(rules[number], crashed[number], len(crashed) - 1)
    return outcomes


class CrashedCheckError(CheckError):
    """A check crashed.

    Attributes:
        rule: the expectation whose check crashed, the first of them in the order of the suite.
        cause: the class and message of the error, on one line.
        others: how many other checks crashed.
    """

    def __init__(self, rule: Any, cause: str, others: int) -> None:
        super().__init__(cause, code="check.crashed")
        self.rule, self.cause, self.others = rule, cause, others


def _read_ahead(
    columns: ColumnReader, groups: Mapping[tuple[Names, bool], Mapping[int, Any]]
) -> Iterator[tuple[Mapping[int, Any], Part]]:
    """Yield groups of rules with the columns they are about; a thread reads the next group during evaluation."""
    with ThreadPoolExecutor(1) as reader:
        waiting: list[tuple[Mapping[int, Any], Future[Part]]] = []
        for (names, prefiltered), rules in groups.items():
            waiting.append((rules, reader.submit(_part, columns, names, [*rules.values()], prefiltered)))
            if len(waiting) == 2:
                yield _done(waiting)
        while waiting:
            yield _done(waiting)


def _done(waiting: list[tuple[Mapping[int, Any], Future[Part]]]) -> tuple[Mapping[int, Any], Part]:
    # In a function of its own, so that no local variable keeps the evaluated part in memory.
    rules, read = waiting.pop(0)
    return rules, read.result()


def _part(columns: ColumnReader, names: Names, rules: Sequence[Any], prefiltered: bool) -> Part:
    """Return the columns that rules are about; for rules about none, all names with NaN as every value."""
    import numpy as np
    import pandas as pd

    if prefiltered:
        return columns.prefilter(names, rules)
    if names:
        return Part(columns.frame([name for name in names if name in columns.names]), columns.rows)
    nothing = np.broadcast_to(np.float64("nan"), (columns.rows, len(columns.names)))
    return Part(pd.DataFrame(nothing, columns=[*columns.names], copy=False), columns.rows)


def _needs(rule: Any, columns: ColumnReader) -> Names:
    """Return the columns that a rule reads: none if it is about names alone, all if that is not known."""
    core = [cls for cls in type(rule).__mro__ if cls.__module__.startswith("great_expectations.expectations.core")]
    condition = [*_texts(getattr(rule, "row_condition", None))]
    if core and core[0].__name__.startswith(RULES_ABOUT_NAMES) and not condition:
        return ()
    named = columns_named(rule)
    if not core or core[0].__name__.startswith(RULES_ABOUT_NAMES) or not named:
        return tuple(columns.names)
    others = {name for name in map(str, columns.names) if any(name in text for text in condition)}
    return tuple(dict.fromkeys([*named, *sorted(others)]))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a row condition; the names of its columns are among them."""
    if hasattr(value, "dict"):
        value = value.dict()
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _evaluate(part: Part, rules: Mapping[int, Any], masks: bool, crashed: dict[int, str]) -> dict[int, RuleOutcome]:
    """Evaluate the rules of one part all at once. If a check crashes, evaluate one by one to find which and why."""
    import warnings

    from great_expectations.execution_engine import PandasExecutionEngine

    engine = PandasExecutionEngine()
    engine.load_batch_data("batch", _in_nanoseconds(part.frame))
    # Rules about the same column share metrics, such as which values are null.
    batches = [[*rules]]
    outcomes: dict[int, RuleOutcome] = {}
    while batches:
        numbers = batches.pop()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcomes |= _outcomes(engine, {number: rules[number] for number in numbers}, part, masks)
        except Exception as error:
            if len(numbers) == 1:
                crashed[numbers[0]] = cause_of(error)
            else:
                batches += [[number] for number in numbers]
    # The engine and its batch refer to each other: without this the frame would stay until garbage is collected.
    engine.batch_manager.batch_data_cache.clear()
    return outcomes


def _outcomes(engine: Any, rules: Mapping[int, Any], part: Part, masks: bool) -> dict[int, RuleOutcome]:
    from great_expectations.validator.metrics_calculator import MetricsCalculator

    settings = {"catch_exceptions": False, **RESULT_FORMAT}
    needed = {}
    for number, rule in rules.items():
        needed[number] = rule.get_validation_dependencies(execution_engine=engine, runtime_configuration=settings)
    wanted = [metric for metrics in needed.values() for metric in metrics.get_metric_configurations()]
    metrics, _ = MetricsCalculator(engine).compute_metrics(wanted, runtime_configuration=settings)
    for metrics_of in needed.values():
        for name, metric in metrics_of.metric_configurations.items():
            for end, count in part.known.items():
                if name.endswith(end):
                    metrics[metric.id] = count
    outcomes = {}
    for number, rule in rules.items():
        answer = rule.metrics_validate(metrics=metrics, runtime_configuration={**settings}, execution_engine=engine)
        failing = _failing(needed[number], metrics, getattr(rule, "map_metric", None), part.rows) if masks else None
        outcomes[number] = RuleOutcome(None, answer, failing)
    return outcomes


def _failing(needed: Any, metrics: Mapping[Any, Any], name: str | None, rows: int) -> "numpy.ndarray | None":
    """Return a mask of the rows that break a rule, from the condition behind their count; None without a count."""
    import numpy as np

    count = needed.metric_configurations.get(f"{name}.unexpected_count")
    if count is None:
        return None
    condition = metrics[count.metric_dependencies["unexpected_condition"].id][0]
    failing = np.zeros(rows, dtype=bool)
    # The condition has only the evaluated rows: no nulls, and no rows that a row condition leaves out.
    if hasattr(condition, "index"):
        failing[condition.index[condition.to_numpy(dtype=bool)]] = True
    return failing


def _in_nanoseconds(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the frame with timestamps in nanoseconds, which compare fast, if they lie between 1678 and 2262."""
    import pandas as pd

    changed = {}
    for name, column in frame.items():
        if pd.api.types.is_datetime64_any_dtype(column.dtype) and not str(column.dtype).startswith("datetime64[ns"):
            with suppress(pd.errors.OutOfBoundsDatetime):
                changed[name] = column.dt.as_unit("ns")
    return frame.assign(**changed) if changed else frame
