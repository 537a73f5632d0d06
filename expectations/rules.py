"""Rules put to Great Expectations: its pandas engine, given of a table only the columns that a rule is about.

Of these it is given the rows that may break the rule, where that can be told beforehand, and the counts of all rows.
Its own way hands each rule the whole frame, and copies it for most of them. What it finds is the same.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from expectations.prefilter import Part, can_prefilter, prefilter
from pipeline.errors import CheckError

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

RULES_ABOUT_NAMES = ("ExpectColumnToExist", "ExpectTableColumn", "ExpectTableRowCount")
"""What expectations begin with that are about the names of columns and the number of rows, never about a value."""

RESULT_FORMAT = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": 100}}
"""BASIC never lists the index of unexpected rows. Of 100 unexpected values a few distinct ones are shown."""


Names = tuple[str, ...]


@dataclass(frozen=True)
class ColumnReader:
    """A table of which some columns at a time are turned into a frame, its index counting the rows from 0.

    `prefilter` returns only the rows that may break some rules, of a table with a `schema`. `only` returns the same
    columns of the rows for which a mask is true.
    """

    names: tuple[str, ...]
    rows: int
    schema: "pyarrow.Schema | None"
    frame: "Callable[[Sequence[str]], pandas.DataFrame]"
    sift: Callable[[Sequence[str], Sequence[Any]], Part]
    only: "Callable[[numpy.ndarray], ColumnReader]"


def column_reader(data: Any, keep: "numpy.ndarray | None" = None) -> ColumnReader:
    """Return the columns of a frame, of an Arrow table or of a stored one."""
    import pandas as pd

    is_frame = isinstance(data, pd.DataFrame)
    rows = len(data) if is_frame else data.num_rows
    rows = rows if keep is None else int(keep.sum())
    return ColumnReader(
        names=tuple(data.columns if is_frame else data.column_names),
        rows=rows,
        schema=None if is_frame else data.schema,
        sift=partial(prefilter, data, keep, rows),
        frame=partial(_part_of_frame if is_frame else _part_of_table, data, keep),
        only=partial(column_reader, data),
    )


def _part_of_frame(data: "pandas.DataFrame", keep: "numpy.ndarray | None", names: Sequence[str]) -> "pandas.DataFrame":
    frame = data[[*names]]
    return (frame if keep is None else frame[keep]).reset_index(drop=True)


def _part_of_table(data: Any, keep: "numpy.ndarray | None", names: Sequence[str]) -> "pandas.DataFrame":
    import pyarrow as pa

    table = data.select([*names])
    # One thread: each of a pool keeps memory of its own, and one column gives them nothing to share.
    return (table if keep is None else table.filter(pa.array(keep))).to_pandas(
        split_blocks=True, ignore_metadata=True, use_threads=False
    )


@dataclass(frozen=True)
class RuleOutcome:
    """What became of one rule: why it could not even be asked, or Great Expectations' answer.

    `failing` says of every row whether it is unexpected, where that was asked for.
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
    """Ask Great Expectations about numbered rules and return what it found, by number.

    `prepare` is given a rule and the frame of its columns, and returns why the rule cannot be asked or the rule as it
    is to be asked. Raises CheckError, naming the rule, when a check itself crashed.
    """
    send_no_analytics()
    groups: dict[tuple[Names, bool], dict[int, Any]] = {}
    for number, rule in rules.items():
        names = _needs(rule, columns)
        groups.setdefault((names, can_prefilter(rule, names, columns.schema)), {})[number] = rule
    found: dict[int, RuleOutcome] = {}
    crashed: dict[int, str] = {}
    for numbered, part in _read_ahead(columns, groups):
        asked = {}
        for number, rule in numbered.items():
            unfit, rule = prepare(rule, part.frame)
            if unfit:
                found[number] = RuleOutcome(unfit)
            else:
                asked[number] = rule
        found |= _evaluate(part, asked, masks, crashed)
        del part
    if crashed:
        number = min(crashed)
        raise CrashedCheckError(rules[number], crashed[number], len(crashed) - 1)
    return found


class CrashedCheckError(CheckError):
    """A check crashed: which rule, why, and how many others did."""

    def __init__(self, rule: Any, cause: str, others: int) -> None:
        super().__init__(cause)
        self.rule, self.cause, self.others = rule, cause, others


def send_no_analytics() -> None:
    """Let Great Expectations tell nobody that it was imported."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def _read_ahead(
    columns: ColumnReader, groups: Mapping[tuple[Names, bool], Mapping[int, Any]]
) -> Iterator[tuple[Mapping[int, Any], Part]]:
    """Yield groups of rules with what they are about; the next is read while the one before is looked at."""
    with ThreadPoolExecutor(1) as reader:
        waiting: list[tuple[Mapping[int, Any], Future[Part]]] = []
        for (names, sifted), rules in groups.items():
            waiting.append((rules, reader.submit(_part, columns, names, [*rules.values()], sifted)))
            if len(waiting) == 2:
                yield _done(waiting)
        while waiting:
            yield _done(waiting)


def _done(waiting: list[tuple[Mapping[int, Any], Future[Part]]]) -> tuple[Mapping[int, Any], Part]:
    # In a function of its own, so that what has been looked at is not kept by a name here.
    rules, read = waiting.pop(0)
    return rules, read.result()


def _part(columns: ColumnReader, names: Names, rules: Sequence[Any], sifted: bool) -> Part:
    """Return the columns that rules are about; those that are about none are given all names, and nothing in them."""
    import numpy as np
    import pandas as pd

    if sifted:
        return columns.sift(names, rules)
    if names:
        return Part(columns.frame([name for name in names if name in columns.names]), columns.rows)
    nothing = np.broadcast_to(np.float64("nan"), (columns.rows, len(columns.names)))
    return Part(pd.DataFrame(nothing, columns=[*columns.names], copy=False), columns.rows)


def _needs(rule: Any, columns: ColumnReader) -> Names:
    """Return the columns that a rule looks at, none when it is about names alone; all when that cannot be told."""
    core = [cls for cls in type(rule).__mro__ if cls.__module__.startswith("great_expectations.expectations.core")]
    condition = [*_texts(getattr(rule, "row_condition", None))]
    if core and core[0].__name__.startswith(RULES_ABOUT_NAMES) and not condition:
        return ()
    named = columns_named(rule)
    if not core or core[0].__name__.startswith(RULES_ABOUT_NAMES) or not named:
        return tuple(columns.names)
    others = {name for name in map(str, columns.names) if any(name in text for text in condition)}
    return tuple(dict.fromkeys([*named, *sorted(others)]))


def columns_named(rule: Any) -> list[str]:
    """Return the columns a rule is about; one that asks whether columns are there is about the table."""
    single = [getattr(rule, name, None) for name in ("column", "column_A", "column_B")]
    several = [] if type(rule).__name__.startswith("ExpectTable") else getattr(rule, "column_list", [])
    return [column for column in (*single, *several) if isinstance(column, str)]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a row condition, which names its columns in one of them."""
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
    """Ask about the rules of one part, all at once; when something crashes one by one, to tell which did and why."""
    import warnings

    from great_expectations.execution_engine import PandasExecutionEngine

    engine = PandasExecutionEngine()
    engine.load_batch_data("batch", _in_nanoseconds(part.frame))
    # Rules of the same column share what they are made from, such as where it is null.
    batches = [[*rules]]
    found: dict[int, RuleOutcome] = {}
    while batches:
        numbers = batches.pop()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found |= _answers(engine, {number: rules[number] for number in numbers}, part, masks)
        except Exception as error:
            if len(numbers) == 1:
                crashed[numbers[0]] = cause_of(error)
            else:
                batches += [[number] for number in numbers]
    # The engine and its batch know each other: without this the frame would stay until garbage is collected.
    engine.batch_manager.batch_data_cache.clear()
    return found


def _answers(engine: Any, rules: Mapping[int, Any], part: Part, masks: bool) -> dict[int, RuleOutcome]:
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
    found = {}
    for number, rule in rules.items():
        answer = rule.metrics_validate(metrics=metrics, runtime_configuration={**settings}, execution_engine=engine)
        failing = _failing(needed[number], metrics, getattr(rule, "map_metric", None), part.rows) if masks else None
        found[number] = RuleOutcome(None, answer, failing)
    return found


def _failing(needed: Any, metrics: Mapping[Any, Any], name: str | None, rows: int) -> "numpy.ndarray | None":
    """Return which rows are unexpected, from the condition that their count was taken of; None without one."""
    import numpy as np

    count = needed.metric_configurations.get(f"{name}.unexpected_count")
    if count is None:
        return None
    condition = metrics[count.metric_dependencies["unexpected_condition"].id][0]
    failing = np.zeros(rows, dtype=bool)
    # The condition is about the rows that were asked: not the nulls, nor those that a row condition leaves out.
    if hasattr(condition, "index"):
        failing[condition.index[condition.to_numpy(dtype=bool)]] = True
    return failing


def _in_nanoseconds(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the frame with timestamps as Great Expectations compares quickly, where they fit between 1678 and 2262."""
    import pandas as pd

    changed = {}
    for name, column in frame.items():
        if pd.api.types.is_datetime64_any_dtype(column.dtype) and not str(column.dtype).startswith("datetime64[ns"):
            with suppress(pd.errors.OutOfBoundsDatetime):
                changed[name] = column.dt.as_unit("ns")
    return frame.assign(**changed) if changed else frame


def cause_of(error: BaseException) -> str:
    """Say in one line what an error is."""
    return " ".join(f"{type(error).__name__}: {error}".split())
