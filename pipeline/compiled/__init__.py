"""A fitted pipeline as a plan of lookups and array operations, with the proof that its predictions are the same.

compile_pipeline        a fitted estimator -> Plan, or UncompilableError with the step and the reason
save_plan, load_plan    a Plan <-> JSON and arrays in a folder, never code
CompiledModel           a Plan made ready to run: predictions, or UnanswerableError (use the estimator then)
columns_of              columns of a request, or an Arrow table -> the numbers and texts that a CompiledModel takes
prove                   predictions of estimator and CompiledModel for thousands of rows, compared -> Proof

Compiling needs scikit-learn; running needs NumPy, and for some plans SciPy's special functions. See README.md.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.compiled import date_operations, estimator_operations, operations, trees  # noqa: F401  they register their operations
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
    """Return a fitted estimator as a plan. Raises UncompilableError, naming the step and the reason."""
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
