"""Matrix products in which a row's result is the same to the last bit, whatever other rows are in the matrix."""

import numpy as np

from pipeline.compiled.plan import Array

BLOCK = 16
"""Rows per block: a BLAS rounds rows of an incomplete block differently from those of a complete one."""


def product(rows: Array, matrix: Array) -> Array:
    """Return rows @ matrix. Rows of zeros fill the last block and are cut off from the result."""
    padding = -len(rows) % BLOCK
    if not padding:
        return np.asarray(rows @ matrix)
    padded = np.zeros((len(rows) + padding, rows.shape[1]))
    padded[: len(rows)] = rows
    return np.asarray((padded @ matrix)[: len(rows)])
