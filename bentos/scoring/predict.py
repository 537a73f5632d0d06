"""Predict a table of any size with a served model; each row gets the answer that it would get alone."""

from typing import TYPE_CHECKING

import numpy as np

from bentos.endpoint import formats
from bentos.endpoint.model import BLOCK, ServedModel
from pipeline.bisect_rows import Refused, bisect_rows
from pipeline.compiled import UnanswerableError, columns_of
from pipeline.errors import ArtifactError
from pipeline.predict import Answers, concat, predict, take
from pipeline.schema import to_frame

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 8192
"""How many rows are predicted together: their columns fit into the processor's cache."""
_Found = list[tuple[int, Answers]]


def predict_table(served: ServedModel, rows: "pyarrow.Table") -> tuple[Answers | None, list[int]]:
    """Return the answers to those rows that have one, in order, and the positions of the others.

    `rows` are a model's features in its types. The compiled plan predicts what it can, the trained pipeline the rest.
    """
    found: _Found = []
    left: list[int] = []
    none: list[int] = []
    for start in range(0, rows.num_rows, BATCH_ROWS):
        part = rows.slice(start, BATCH_ROWS)
        if served.program is not None:
            _by_plan(served, part, start, found, left)
        else:
            _by_pipeline(served, part, np.arange(start, start + part.num_rows), found, none)
    for start in range(0, len(left), BATCH_ROWS):
        places = np.array(left[start : start + BATCH_ROWS])
        _by_pipeline(served, rows.take(places), places, found, none)
    if not found:
        return None, sorted(none)
    if left:
        found.sort(key=lambda one: one[0])
    return concat([answers for _, answers in found]), sorted(none)


def _by_plan(served: ServedModel, rows: "pyarrow.Table", first: int, found: _Found, left: list[int]) -> None:
    """Ask the plan, and note the rows that it leaves to the pipeline."""
    program = served.program
    assert program is not None

    def ask(start: int, stop: int) -> Answers:
        return program(*columns_of(rows.slice(start, stop - start), program.plan))

    for part in bisect_rows(ask, rows.num_rows, UnanswerableError):
        if isinstance(part, Refused):
            left.append(first + part.row)
        else:
            found.append((first + part.start, part.result))


def _by_pipeline(
    served: ServedModel, rows: "pyarrow.Table", places: "np.ndarray", found: _Found, none: list[int]
) -> None:
    """Ask the trained pipeline, in whole blocks as the endpoint does, and note the rows that it raises on."""

    def ask(start: int, stop: int) -> Answers:
        size = stop - start
        padded = rows.slice(start, size).take([*range(size), *[size - 1] * (-size % BLOCK)])
        return take(predict(served.estimator, to_frame(padded, served.schema.features)), slice(size))

    for part in bisect_rows(ask, len(places), fatal=(ArtifactError,)):
        if isinstance(part, Refused):
            none.append(int(places[part.row]))
        else:
            _note(part.result, places[part.start : part.stop], served.program is None, found, none)


def _note(answers: Answers, places: "np.ndarray", together: bool, found: _Found, none: list[int]) -> None:
    """Note the answers to some rows, those of them that are not finite apart."""
    bad = formats.unanswered(answers)
    none += places[bad].tolist()
    good = np.setdiff1d(np.arange(len(places)), bad)
    if together and len(good):
        found.append((int(places[0]), take(answers, good)))
    elif not together:
        # Between what the plan answered, row by row.
        found += [(int(places[one]), take(answers, slice(one, one + 1))) for one in good.tolist()]
