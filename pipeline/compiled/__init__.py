"""A fitted pipeline as a plan of lookups and array walks, with the proof that it answers the same.

compile_pipeline    a fitted estimator -> Plan, or UncompilableError with the step and why
save_plan, load_plan    a Plan <-> JSON and arrays in a folder, never code
Program     a Plan made ready to run: answers to numbers and texts, or UnanswerableError: ask the estimator
columns_of  columns of a request, or an Arrow table -> the numbers and texts that a Program takes
prove       estimator and program, asked the same thousands of rows -> Proof

Compiling needs scikit-learn; running needs NumPy, and SciPy's special functions where a plan says so.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.compiled import date_operations, estimator_operations, operations, trees  # noqa: F401  what plans are made of
from pipeline.compiled.columns import columns_of
from pipeline.compiled.linear_one_hot import without_operation
from pipeline.compiled.plan import Builder, CompiledModel, Plan, UnanswerableError, load_plan, save_plan
from pipeline.compiled.proof import Proof, prove
from pipeline.compiled.table import UncompilableError, input_table
from pipeline.schema import Feature

__all__ = [
    "CompiledModel",
    "Plan",
    "Proof",
    "UnanswerableError",
    "UncompilableError",
    "columns_of",
    "compile_pipeline",
    "load_plan",
    "prove",
    "save_plan",
]


def compile_pipeline(estimator: Any, features: Sequence[Feature]) -> Plan:
    """Return a fitted estimator as a plan; UncompilableError, naming the step and why, where that cannot be."""
    from pipeline.compiled.estimators import compile_estimator

    builder = Builder(features)
    outputs = compile_estimator(estimator, input_table(features, builder), builder)
    plan = Plan(
        numbers=builder.numbers,
        times=builder.times,
        texts=builder.texts,
        operations=tuple(builder.operations),
        predictions=outputs.predictions,
        probabilities=outputs.probabilities,
        labels=outputs.labels,
    )
    return without_operation(plan, builder.superseded)
