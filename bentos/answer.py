"""The answers of a served model to a table of any size, each row answered as it would be alone."""

from typing import TYPE_CHECKING

import numpy as np

from bentos import wire
from bentos.served import BLOCK, ServedModel
from pipeline.compiled import UnanswerableError, columns_of
from pipeline.errors import ArtifactError
from pipeline.predict import Answers, joined, predict, taken
from pipeline.schema import to_frame

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 8192
"""So many rows are predicted together: what a plan holds of them stays in the cache, and an endpoint takes as many."""
_Found = list[tuple[int, Answers]]


def answer(served: ServedModel, rows: "pyarrow.Table") -> tuple[Answers | None, list[int]]:
    """Return the answers to those rows that have one, in order, and the positions of the others.

    `rows` are a model's features in its types. The plan answers what it can, the trained pipeline the rest.
    """
    found: _Found = []
    left: list[int] = []
    none: list[int] = []
    for start in range(0, rows.num_rows, AT_ONCE):
        part = rows.slice(start, AT_ONCE)
        if served.program is not None:
            _by_plan(served, part, start, found, left)
        else:
            _by_pipeline(served, part, np.arange(start, start + part.num_rows), found, none)
    for start in range(0, len(left), AT_ONCE):
        places = np.array(left[start : start + AT_ONCE])
        _by_pipeline(served, rows.take(places), places, found, none)
    if not found:
        return None, sorted(none)
    if left:
        found.sort(key=lambda one: one[0])
    return joined([answers for _, answers in found]), sorted(none)


def _by_plan(served: ServedModel, rows: "pyarrow.Table", start: int, found: _Found, left: list[int]) -> None:
    """Find the rows that the plan leaves to the pipeline by halving."""
    assert served.program is not None
    try:
        found.append((start, served.program(*columns_of(rows, served.program.plan))))
    except UnanswerableError:
        if rows.num_rows == 1:
            left.append(start)
            return
        middle = rows.num_rows // 2
        _by_plan(served, rows.slice(0, middle), start, found, left)
        _by_plan(served, rows.slice(middle), start + middle, found, left)


def _by_pipeline(
    served: ServedModel, rows: "pyarrow.Table", places: "np.ndarray", found: _Found, none: list[int]
) -> None:
    """Ask the trained pipeline, in whole blocks as the endpoint does; rows that it raises on are found by halving."""
    try:
        padded = rows.take([*range(len(places)), *[len(places) - 1] * (-len(places) % BLOCK)])
        answers = taken(predict(served.estimator, to_frame(padded, served.schema.features)), slice(len(places)))
    except ArtifactError:
        raise
    except Exception:
        if len(places) == 1:
            none.append(int(places[0]))
            return
        middle = len(places) // 2
        _by_pipeline(served, rows.slice(0, middle), places[:middle], found, none)
        _by_pipeline(served, rows.slice(middle), places[middle:], found, none)
        return
    bad = wire.unanswered(answers)
    none += places[bad].tolist()
    good = np.setdiff1d(np.arange(len(places)), bad)
    if served.program is None:
        if len(good):
            found.append((int(places[0]), taken(answers, good)))
    else:
        # Between what the plan answered, row by row.
        found += [(int(places[one]), taken(answers, slice(one, one + 1))) for one in good.tolist()]
