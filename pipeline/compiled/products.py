"""Matrix products in which a row comes out the same to the last bit, whatever rows come with it."""

import numpy as np

from pipeline.compiled.plan import Array

BLOCK = 16
"""A BLAS rounds rows that fill no whole block of its kernels differently from those that do."""


def product(rows: Array, matrix: Array) -> Array:
    """Return rows @ matrix; rows of zeros fill the last block and are cut off again."""
    lacking = -len(rows) % BLOCK
    if not lacking:
        return np.asarray(rows @ matrix)
    filled = np.zeros((len(rows) + lacking, rows.shape[1]))
    filled[: len(rows)] = rows
    return np.asarray((filled @ matrix)[: len(rows)])
