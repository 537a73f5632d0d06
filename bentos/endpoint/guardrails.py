"""The endpoint's guard: requests held to what the model's suite says of single values, before they are predicted."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from bentos.endpoint.batch import Batch
from bentos.endpoint.problems import Problem, ProblemCollector
from pipeline.compiled.operations import Coded
from pipeline.guard import Guard


class RequestGuard:
    """The rules of one model, ready to look at batches, whichever reader made them."""

    def __init__(self, guards: Iterable[Guard]) -> None:
        # Nulls that refuse are those of required features, which no reader lets pass; all others are counted anyway.
        self.ranges = [(one, one.feature, *one.bounds) for one in guards if one.kind == "range"]
        self.sets = [(one, one.feature, frozenset(one.values or ())) for one in guards if one.kind == "set"]

    def __bool__(self) -> bool:
        return bool(self.ranges or self.sets)

    def check(self, batch: Batch) -> Batch | Problem:
        """Return a batch, or its refusal where a rule that it breaks says so; either counts what was broken."""
        broken = self.broken(batch)
        if not broken:
            return batch
        counts = {(guard.feature, str(guard)): len(rows) for guard, rows in broken}
        refused = sorted(
            ((row, place) for place, (guard, rows) in enumerate(broken) if guard.refuse for row in rows),
        )
        found = ProblemCollector()
        for row, place in refused:
            guard = broken[place][0]
            found.add(row, guard.feature, refusal(guard, batch.columns[guard.feature][row]))
        problem = found.problem()
        return replace(batch, broken=counts) if problem is None else replace(problem, broken=counts)

    def broken(self, batch: Batch) -> list[tuple[Guard, list[int]]]:
        """Return the rules that a batch breaks, each with the rows."""
        return self._of_one(batch) if batch.size == 1 else self._of_many(batch)

    def _of_one(self, batch: Batch) -> list[tuple[Guard, list[int]]]:
        columns = batch.columns
        broken = []
        for guard, name, low, high in self.ranges:
            value = columns[name][0]
            if value is not None and (value < low or value > high):
                broken.append(guard)
        for guard, name, known in self.sets:
            value = columns[name][0]
            if value is not None and value not in known and value == value:
                broken.append(guard)
        return [(guard, [0]) for guard in broken]

    def _of_many(self, batch: Batch) -> list[tuple[Guard, list[int]]]:
        found = self._outside_at_once(batch)
        if found is None:
            found = [(guard, _outside(batch.columns[name], low, high)) for guard, name, low, high in self.ranges]
        found += [(guard, _not_in(batch.columns[name], known)) for guard, name, known in self.sets]
        return [(guard, rows) for guard, rows in found if rows]

    def _outside_at_once(self, batch: Batch) -> list[tuple[Guard, list[int]]] | None:
        """Compare all numbers with all bounds by one call; None where some are not in arrays."""
        columns = [batch.columns[name] for _, name, _, _ in self.ranges]
        if not columns or not all(isinstance(column, np.ndarray) for column in columns):
            return None
        values, low, high = np.array(columns), *(np.array([one[at] for one in self.ranges]) for at in (2, 3))
        wrong = (values < low[:, None]) | (values > high[:, None])
        if not wrong.any():
            return []
        return [(one[0], np.flatnonzero(row).tolist()) for one, row in zip(self.ranges, wrong, strict=True)]


def refusal(guard: Guard, value: Any) -> str:
    """Say why a value that breaks a rule is refused."""
    noun = "a time" if isinstance(guard.minimum or guard.maximum, str) else "a number"
    return f"{_shown(value)} is out of range; give {noun} {guard.range}"


def _outside(column: Sequence[Any], low: Any, high: Any) -> list[int]:
    if isinstance(column, np.ndarray):
        wrong = (column < low) | (column > high)
        return np.flatnonzero(wrong).tolist() if wrong.any() else []
    return [row for row, value in enumerate(column) if value is not None and (value < low or value > high)]


def _not_in(column: Sequence[Any], known: frozenset[Any]) -> list[int]:
    if isinstance(column, Coded):
        strange = [code for code, value in enumerate(column.distinct) if value is not None and value not in known]
        return np.flatnonzero(np.isin(column.codes, strange)).tolist() if strange else []
    if isinstance(column, np.ndarray):
        wrong = ~(np.isin(column, list(known)) | np.isnan(column))
        return np.flatnonzero(wrong).tolist()
    strange_values = set(column) - known - {None}
    return [row for row, value in enumerate(column) if value in strange_values] if strange_values else []


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    value = float(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else json.dumps(value)
