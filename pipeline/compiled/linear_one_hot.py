"""A linear model of one-hot categories, as a sum of looked-up coefficients.

A one-hot column times its coefficient is the coefficient if the row has the category, else 0. So the plan looks up the
coefficient itself: no wide matrix, and a sum of as many numbers as there are features.
"""

from dataclasses import replace

import numpy as np

from pipeline.compiled.plan import Array, Builder, Operation, Plan
from pipeline.compiled.table import Number, Table

LOOKUPS = ("lookup", "lookup_numbers")


def fuse_one_hot_sums(table: Table, coef: Array, builder: Builder) -> tuple[Table, Array, list[int]]:
    """Return the columns of a table that are not one-hot features, their coefficients, and registers to add.

    `coef` has shape (columns,). Each register has shape (rows, 1) and holds the sum of the coefficients of some one-hot
    features. The lookups of coefficients refuse the same values as the lookups of positions, so the builder marks the
    latter as superseded.
    """
    columns = list(zip(table.columns, coef.tolist(), strict=True))
    sums = []
    for register in sorted({column.register for column in table.columns if isinstance(column, Number)}):
        one_hot = builder.made(register)
        lookup = builder.made(one_hot.inputs[0]) if one_hot is not None and one_hot.kind == "one_hot" else None
        if one_hot is None or lookup is None or lookup.kind not in LOOKUPS:
            continue
        # The last weight is for position -1, which means no category; it stays 0.
        weights = np.zeros(one_hot.parameters["places"] + 1)
        others = []
        for column, weight in columns:
            if isinstance(column, Number) and column.register == register:
                weights[column.index] += weight
            else:
                others.append((column, weight))
        columns = others
        sums.append(_emit_sum(lookup, weights, builder))
        builder.superseded |= {register, one_hot.inputs[0]}
    left = Table(tuple(column for column, _ in columns), None, table.sparse)
    return left, np.array([weight for _, weight in columns]), sums


def _emit_sum(lookup: Operation, weights: Array, builder: Builder) -> int:
    def weight(position: float | None) -> float | None:
        return None if position is None else float(weights[int(position)])

    known, missing, rest = (lookup.parameters[name] for name in ("known", "missing", "rest"))
    texts = lookup.kind == "lookup"
    return builder.emit(
        f"{lookup.kind}_sum",
        *lookup.inputs,
        known=[
            {value: weight(position) for value, position in by.items()}
            if texts
            else [[value, weight(position)] for value, position in by]
            for by in known
        ],
        missing=list(map(weight, missing)),
        rest=list(map(weight, rest)),
    )


def without_operation(plan: Plan, superseded: set[int]) -> Plan:
    """Return the plan without the operations of the superseded registers that nothing reads any more."""
    first = 1 + len(plan.texts)
    dropped: set[int] = set()
    for place in reversed(range(len(plan.operations))):
        read = {plan.predictions, plan.probabilities}.union(
            *(operation.inputs for later, operation in enumerate(plan.operations) if first + later not in dropped)
        )
        if first + place in superseded - read:
            dropped.add(first + place)
    kept = [register for register in range(first + len(plan.operations)) if register not in dropped]
    moved = {register: place for place, register in enumerate(kept)}
    return replace(
        plan,
        operations=tuple(
            replace(plan.operations[register - first], inputs=tuple(map(moved.__getitem__, inputs)))
            for register in kept[first:]
            for inputs in [plan.operations[register - first].inputs]
        ),
        predictions=moved[plan.predictions],
        probabilities=None if plan.probabilities is None else moved[plan.probabilities],
    )
