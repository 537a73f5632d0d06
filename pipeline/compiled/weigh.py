"""A linear model of one-hot categories, as a sum of looked-up coefficients.

The column of zeros and ones that a category becomes is multiplied with its coefficient, so the coefficient itself may
be looked up in its place: no wide matrix, and a sum over as many columns as there are features.
"""

from dataclasses import replace

import numpy as np

from pipeline.compiled.plan import Array, Builder, Operation, Plan, Sure
from pipeline.compiled.table import Number, Table

LOOKUPS = ("lookup", "lookup_numbers")


def weigh(table: Table, coef: Array, builder: Builder) -> tuple[Table, Array]:
    """Return a table and its coefficients, shape (columns,), with a column of coefficients for each one-hot feature.

    What the lookups of positions refuse, those of coefficients refuse, too: the builder notes the first as superseded.
    """
    columns = list(zip(table.columns, coef.tolist(), strict=True))
    for register in sorted({column.register for column in table.columns if isinstance(column, Number)}):
        one_hot = builder.made(register)
        lookup = builder.made(one_hot.inputs[0]) if one_hot is not None and one_hot.kind == "one_hot" else None
        if one_hot is None or lookup is None or lookup.kind not in LOOKUPS:
            continue
        # The last place is that of -1, which is no category at all.
        weights = np.zeros(one_hot.parameters["places"] + 1)
        others = []
        for column, weight in columns:
            if isinstance(column, Number) and column.register == register:
                weights[column.index] += weight
            else:
                others.append((column, weight))
        found = _emit_weights(lookup, weights, builder)
        columns = [*others, *((Number(found, index), 1.0) for index in range(len(builder.sure[found])))]
        builder.superseded |= {register, one_hot.inputs[0]}
    return Table(tuple(column for column, _ in columns), None, table.sparse), np.array(
        [weight for _, weight in columns]
    )


def _emit_weights(lookup: Operation, weights: Array, builder: Builder) -> int:
    def weight(position: float | None) -> float | None:
        return None if position is None else float(weights[int(position)])

    known, missing, rest = (lookup.parameters[name] for name in ("known", "missing", "rest"))
    texts = lookup.kind == "lookup"
    return builder.emit(
        lookup.kind,
        *lookup.inputs,
        known=[
            {value: weight(one) for value, one in by.items()} if texts else [[value, weight(one)] for value, one in by]
            for by in known
        ],
        missing=list(map(weight, missing)),
        rest=list(map(weight, rest)),
        sure=[Sure.FINITE if np.isfinite(weights).all() else Sure.NOTHING] * len(known),
    )


def without(plan: Plan, superseded: set[int]) -> Plan:
    """Return the plan without those of some registers' operations whose result nothing reads any more."""
    first = 1 + len(plan.texts)
    dropped: set[int] = set()
    for place in reversed(range(len(plan.operations))):
        read = {plan.predictions, plan.probabilities}.union(
            *(one.inputs for later, one in enumerate(plan.operations) if first + later not in dropped)
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
