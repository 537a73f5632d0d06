"""A plan: the steps of a fitted pipeline as data, and the short program that runs them.

A plan is a list of operations on registers. Register 0 is the matrix of all number and boolean features, and after them
of all timestamps as microseconds since 1970, shape (rows, columns), float64, NaN where missing; registers 1 to t are
the text features, each a sequence of texts and None; every operation adds one register, a float64 matrix of shape
(rows, k). Plans are JSON and arrays, never code: OPERATIONS holds the function of each kind of operation.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files import write_arrays, write_text
from pipeline.predict import Answers, Label
from pipeline.schema import Feature

Array = NDArray[Any]
Run = Callable[..., Array]
"""An operation ready to run: takes the values of its input registers, returns the value of its own."""

OPERATIONS: dict[str, Callable[..., Run]] = {}
"""By kind: a function that takes an operation's parameters and returns the operation ready to run."""


def operation(kind: str) -> Callable[[Callable[..., Run]], Callable[..., Run]]:
    """Register a function that makes operations of a kind ready to run."""

    def register(prepare: Callable[..., Run]) -> Callable[..., Run]:
        if kind in OPERATIONS:
            raise ValueError(f"two operations have the kind {kind!r}")
        OPERATIONS[kind] = prepare
        return prepare

    return register


class UnanswerableError(Exception):
    """The estimator would refuse these rows, or the plan cannot know: use the estimator itself."""


class Finiteness(IntEnum):
    """What is known of a column of numbers, whatever the rows. It decides which checks a plan can leave out."""

    NOTHING = 0
    NOT_INFINITE = 1
    FINITE = 2


@dataclass(frozen=True)
class Operation:
    """One step of a plan.

    Attributes:
        kind: what it does, a key of OPERATIONS.
        inputs: the registers that it reads.
        parameters: JSON values and arrays.
    """

    kind: str
    inputs: tuple[int, ...]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A whole pipeline as operations.

    Attributes:
        numbers: the number and boolean features, in the order of register 0.
        times: the timestamp features, which follow them.
        texts: the text features, one register each.
        operations: the steps, one register each.
        predictions: the register of the predictions, shape (rows, 1): numbers, or positions in `labels`.
        probabilities: the register of the probabilities, shape (rows, labels); None without any.
        labels: the labels of a classifier; empty for a regression.
    """

    numbers: tuple[str, ...]
    times: tuple[str, ...]
    texts: tuple[str, ...]
    operations: tuple[Operation, ...]
    predictions: int
    probabilities: int | None = None
    labels: tuple[Label, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """All features that the plan takes."""
        return (*self.numbers, *self.times, *self.texts)

    @cached_property
    def pick_numbers(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """A function that takes the number features, in order, from a mapping by feature."""
        return picked(self.numbers)

    @cached_property
    def pick_texts(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """A function that takes the text features, in order, from a mapping by feature."""
        return picked(self.texts)


class Builder:
    """Collects the operations of a plan while a pipeline is compiled.

    Attributes:
        numbers, times, texts: the features, as in Plan.
        operations: the operations so far.
        superseded: registers whose operations are removed at the end unless another one reads them.
        sure: by register of known width, what is known of the values of each of its columns.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.numbers = tuple(feature.name for feature in features if feature.type in ("number", "boolean"))
        self.times = tuple(feature.name for feature in features if feature.type == "timestamp")
        self.texts = tuple(feature.name for feature in features if feature.type == "text")
        self.operations: list[Operation] = []
        self.superseded: set[int] = set()
        # A request cannot hold an infinity.
        self.sure: dict[int, tuple[Finiteness, ...]] = {0: (Finiteness.NOT_INFINITE,) * len(self.numbers + self.times)}

    def emit(
        self,
        kind: str,
        *inputs: int,
        width: int | None = None,
        sure: Sequence[Finiteness] | None = None,
        **parameters: Any,
    ) -> int:
        """Add an operation and return the register that will hold its result.

        If later steps take columns of the result, give its `width`, or what is `sure` of each column.
        """
        self.operations.append(Operation(kind, inputs, parameters))
        register = len(self.texts) + len(self.operations)
        if sure is not None or width is not None:
            self.sure[register] = tuple(sure) if sure is not None else (Finiteness.NOTHING,) * (width or 0)
        return register

    def made(self, register: int) -> Operation | None:
        """Return the operation whose result a register holds; None for a feature's."""
        position = register - len(self.texts) - 1
        return self.operations[position] if position >= 0 else None


class CompiledModel:
    """A plan made ready to run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.labels = np.array(plan.labels, dtype=object)
        # The inputs belong to the caller, and the results are read at the end. Free the others after their last use.
        kept = {*range(1 + len(plan.texts)), plan.predictions, plan.probabilities}
        last = {register: step for step, operation in enumerate(plan.operations) for register in operation.inputs}
        self.steps = [
            (
                OPERATIONS[operation.kind](**operation.parameters),
                picked(operation.inputs),
                # Memory that is freed at once is reused; getting more from the system costs more than the operation.
                tuple(register for register in {*operation.inputs} - kept if last[register] == step),
            )
            for step, operation in enumerate(plan.operations)
        ]

    def __call__(self, numbers: Array, texts: Sequence[Sequence[str | None]]) -> Answers:
        """Return the answers to rows: the matrix of numbers and timestamps, and one sequence per text feature.

        Raises UnanswerableError, for all rows, if the estimator would refuse one or a prediction is not finite.
        """
        values = self.registers(numbers, texts)
        predictions = values[self.plan.predictions][:, 0]
        if not self.plan.labels:
            return Answers(_finite(predictions))
        probabilities = None if self.plan.probabilities is None else _finite(values[self.plan.probabilities])
        return Answers(self.labels[predictions.astype(np.intp)], self.plan.labels, probabilities)

    def registers(self, numbers: Array, texts: Sequence[Sequence[str | None]]) -> list[Any]:
        """Return the values of all registers, None if freed; UnanswerableError if the estimator would refuse a row."""
        values: list[Any] = [numbers, *texts]
        # A number that overflows here overflows in the estimator too; a warning would not help the caller.
        with np.errstate(all="ignore"):
            for run, inputs, used_up in self.steps:
                values.append(run(*inputs(values)))
                for register in used_up:
                    values[register] = None
        return values


def picked(names: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that takes some items, in this order, from a list or a mapping."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda items: tuple(items[name] for name in names)


def total(values: Array) -> float:
    """Return the sum of all values of a matrix: a cheap check, because it is finite only if all of them are."""
    return values.item() if values.size == 1 else float(np.add.reduce(values, axis=None))


def _finite(answers: Array) -> Array:
    if not math.isfinite(total(answers)) and not np.isfinite(answers).all():
        raise UnanswerableError("an answer is not finite")
    return answers


def save_plan(plan: Plan, folder: Path) -> None:
    """Write a plan as `plan.json` and `plan.npz` into a folder."""
    arrays: dict[str, Array] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"a{len(arrays)}"
            arrays[name] = value
            return {"array": name}
        if isinstance(value, Mapping):
            return {"mapping": {key: plain(one) for key, one in value.items()}}
        return [plain(one) for one in value] if isinstance(value, list | tuple) else value

    operations = [
        [one.kind, list(one.inputs), {k: plain(v) for k, v in one.parameters.items()}] for one in plan.operations
    ]
    facts = {
        "numbers": plan.numbers,
        "times": plan.times,
        "texts": plan.texts,
        "operations": operations,
        "predictions": plan.predictions,
        "probabilities": plan.probabilities,
        "labels": plan.labels,
    }
    write_text(folder / "plan.json", json.dumps(facts))
    write_arrays(folder / "plan.npz", arrays)


def load_plan(folder: Path) -> Plan:
    """Return the plan that `save_plan` wrote to a folder; nothing in it is unpickled or run."""
    facts = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    with np.load(folder / "plan.npz", allow_pickle=False) as stored:
        arrays = dict(stored)

    def back(value: Any) -> Any:
        if isinstance(value, dict):
            if "array" in value:
                return arrays[value["array"]]
            return {key: back(one) for key, one in value["mapping"].items()}
        return [back(one) for one in value] if isinstance(value, list) else value

    operations = tuple(
        Operation(kind, tuple(inputs), {name: back(value) for name, value in parameters.items()})
        for kind, inputs, parameters in facts["operations"]
    )
    return Plan(
        numbers=tuple(facts["numbers"]),
        times=tuple(facts["times"]),
        texts=tuple(facts["texts"]),
        operations=operations,
        predictions=facts["predictions"],
        probabilities=facts["probabilities"],
        labels=tuple(facts["labels"]),
    )
