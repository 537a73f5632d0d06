"""Sums over decision trees: all trees of an ensemble at once, in NumPy, to the last bit of scikit-learn's own walk.

A node sends a row to the right if `column > threshold`, else to the left. Other questions (which way a missing value
goes, which categories go left) are comparisons of extra columns. `TreeColumns` numbers them while trees are compiled,
and the operation `tree_columns` adds them to each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled.plan import Array, Builder, Run, operation
from pipeline.compiled.table import UncompilableError

MAX_LEAVES = 64
"""Trees with at most this many leaves are evaluated by bit masks of leaves, others by walking down."""

NODES_PER_BATCH = 1 << 15
"""How many nodes are compared at a time: rows are split into parts, so that the data stays in the cache."""


@dataclass(frozen=True)
class Tree:
    """A tree's n nodes, the root first: arrays of shape (n,), `left` being -1 at leaves, and `value` (n, outputs)."""

    column: NDArray[np.intp]
    threshold: Array
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    value: NDArray[np.float64]


class TreeColumns:
    """The columns that trees compare: c of a matrix of some width, then copies of those, then lookups.

    Column width + c is column c with infinity for NaN, 2 width + c whether column c is NaN, and 3 width + i the
    i-th lookup: whether a category, a code in some column, goes right. `finite` says which columns never hold NaN.
    """

    def __init__(self, finite: Sequence[bool]) -> None:
        self.width = len(finite)
        self.finite = np.array(finite, np.bool_)
        self.lookups: dict[tuple[int, bytes], int] = {}

    def numeric(self, column: Array, threshold: Array, missing_left: Array) -> tuple[NDArray[np.intp], Array]:
        """Return the columns and thresholds of nodes that compare numbers.

        NaN is above no threshold, so by itself it goes left; where it goes right, infinity stands for it. A node
        with a threshold of infinity asks nothing but whether the value is missing.
        """
        missing_left = missing_left | self.finite[column]
        asks_missing = ~missing_left & (threshold == np.inf)
        column = column + self.width * (~missing_left + asks_missing.astype(np.intp))
        return column, np.where(asks_missing, threshold.dtype.type(0.5), threshold)

    def lookup(self, column: int, right: NDArray[np.bool_]) -> int:
        """Return the column that says whether a category goes right; the last of `right` is that of NaN."""
        return 3 * self.width + self.lookups.setdefault((column, right.tobytes()), len(self.lookups))

    def emit(self, builder: Builder, register: int, trees: Sequence[Tree]) -> tuple[int, list[Tree]]:
        """Add the extra columns that the trees use; return the wider matrix, and the trees that use it."""
        used = np.unique(np.concatenate([tree.column for tree in trees]))
        extra = used[used >= self.width]
        if not len(extra):
            return register, [*trees]
        asked = [[*self.lookups][one - 3 * self.width] for one in extra[extra >= 3 * self.width]]
        tables = [np.frombuffer(right, np.bool_) for _, right in asked]
        sizes = np.array([len(table) for table in tables], np.intp)
        wider = builder.emit(
            "tree_columns",
            register,
            high=extra[extra < 2 * self.width] - self.width,
            missing=extra[(extra >= 2 * self.width) & (extra < 3 * self.width)] - 2 * self.width,
            coded=np.array([column for column, _ in asked], np.intp),
            start=np.cumsum(sizes) - sizes,
            size=sizes,
            right=np.concatenate(tables) if tables else np.zeros(0, np.bool_),
        )
        places = [
            np.where(tree.column < self.width, tree.column, self.width + np.searchsorted(extra, tree.column))
            for tree in trees
        ]
        return wider, [replace(tree, column=place) for tree, place in zip(trees, places, strict=True)]


@operation("tree_columns")
def _run_tree_columns(high: Array, missing: Array, coded: Array, start: Array, size: Array, right: Array) -> Run:
    def run(x: Array) -> Array:
        parts = [x]
        if len(high):
            copy = x.take(high, axis=1)
            copy[np.isnan(copy)] = np.inf
            parts.append(copy)
        if len(missing):
            parts.append(np.isnan(x.take(missing, axis=1)))
        if len(coded):
            codes = x.take(coded, axis=1)
            codes = np.where(np.isnan(codes), size - 1, codes)
            parts.append(right.take(codes.astype(np.intp) + start))
        return np.concatenate(parts, axis=1)

    return run


def float32_tree(estimator: Any, columns: TreeColumns, features: Array) -> Tree:
    """Return a fitted DecisionTree* or ExtraTree*, which was given some `features` and compares them cast to float32.

    A float32 is at most a float64 threshold exactly when it is at most the largest float32 not above that.
    """
    if estimator.n_outputs_ != 1:
        raise UncompilableError(f"it predicts {estimator.n_outputs_} targets at once")
    tree = estimator.tree_
    inner = tree.children_left >= 0
    column = features[np.where(inner, tree.feature, 0)]
    with np.errstate(over="ignore"):
        threshold = tree.threshold.astype(np.float32)
    threshold = np.where(threshold > tree.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    missing_left = (tree.missing_go_to_left == 1) | ~inner
    column, threshold = columns.numeric(column, threshold, missing_left)
    return Tree(column, threshold, tree.children_left, tree.children_right, tree.value[:, 0, :])


def histogram_tree(predictor: Any, columns: TreeColumns, categories: dict[int, int]) -> Tree:
    """Return a `TreePredictor` of histogram gradient boosting, which compares float64.

    Args:
        predictor: the fitted tree.
        columns: numbers the columns that the tree asks for.
        categories: by column, how many categories training knew; their codes are 0, 1, ..., and all else is NaN.
    """
    nodes = predictor.nodes
    inner, missing_left = nodes["is_leaf"] == 0, nodes["missing_go_to_left"] == 1
    by_category = inner & (nodes["is_categorical"] == 1)
    column, threshold = columns.numeric(
        np.where(inner, nodes["feature_idx"], 0), nodes["num_threshold"], missing_left | ~inner | by_category
    )
    for node in np.flatnonzero(by_category):
        codes = np.arange(categories[int(column[node])])
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        right = (bits[codes // 32] >> (codes % 32).astype(np.uint32)) & 1 == 0
        column[node] = columns.lookup(int(column[node]), np.append(right, not missing_left[node]))
        threshold[node] = 0.5
    left, right = (np.where(inner, nodes[side].astype(np.intp), -1) for side in ("left", "right"))
    return Tree(column, threshold, left, right, nodes["value"][:, None])


def emit_tree_sum(
    builder: Builder,
    register: int,
    columns: TreeColumns,
    trees: Sequence[Tree],
    start: Array | int,
    divisor: int = 1,
) -> int:
    """Add (start + first + second + ...) / divisor over the trees' values, in that order; shape (rows, outputs).

    Args:
        builder: collects the operations.
        register: the matrix that holds the trees' columns.
        columns: what numbered them.
        trees: with one value per leaf, they add to the outputs in turn; else a leaf has a value for each output.
        start: a value per output, or the register that holds (rows, outputs) of them; one output, if so.
        divisor: what the sum is divided by.
    """
    wider, trees = columns.emit(builder, register, trees)
    few = _most_leaves(trees) <= MAX_LEAVES
    parameters = _masks(trees) if few else _walks(trees)
    kind = "tree_masks" if few else "tree_walk"
    if isinstance(start, int):
        return builder.emit(kind, wider, start, **parameters, outputs=1, divisor=divisor)
    return builder.emit(kind, wider, **parameters, start=start, outputs=len(start), divisor=divisor)


def _most_leaves(trees: Sequence[Tree]) -> int:
    return max(int(np.count_nonzero(tree.left < 0)) for tree in trees)


def _masks(trees: Sequence[Tree]) -> dict[str, Any]:
    """Return the parameters of `tree_masks`: nodes of shape (most nodes, trees), values (trees, most leaves, outputs).

    Leaves are bits, the leftmost first. A node that sends a row to the right rules out the leaves on its left, and of
    the leaves that no node rules out, the first is the row's (Lucchese et al., QuickScorer, SIGIR 2015).
    """
    leaves = _most_leaves(trees)
    shape = (max(leaves - 1, 1), len(trees))
    column = np.zeros(shape, np.int32)
    threshold = np.full(shape, np.inf, trees[0].threshold.dtype)
    ruled_out = np.zeros(shape, next(f"u{size // 8}" for size in (8, 16, 32, 64) if leaves <= size))
    value = np.zeros((len(trees), leaves, trees[0].value.shape[1]))
    for number, tree in enumerate(trees):
        places, found = _in_order(tree)
        for place, (node, first, last) in enumerate(places):
            column[place, number], threshold[place, number] = tree.column[node], tree.threshold[node]
            ruled_out[place, number] = (1 << last) - (1 << first)
        value[number, : len(found)] = tree.value[found]
    return {"column": column, "threshold": threshold, "ruled_out": ruled_out, "value": value}


def _in_order(tree: Tree) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Return the inner nodes, each with the range of the leaves on its left, and the leaves from left to right."""
    inner: list[tuple[int, int, int]] = []
    leaves: list[int] = []

    def visit(node: int) -> None:
        if tree.left[node] < 0:
            leaves.append(node)
            return
        first = len(leaves)
        visit(int(tree.left[node]))
        inner.append((node, first, len(leaves)))
        visit(int(tree.right[node]))

    visit(0)
    return inner, leaves


@operation("tree_masks")
def _run_tree_masks(
    column: Array,
    threshold: Array,
    ruled_out: Array,
    value: Array,
    outputs: int,
    divisor: int,
    start: Array | None = None,
) -> Run:
    shape, bits, one = column.shape, ruled_out.dtype, ruled_out.dtype.type(1)
    column, threshold, ruled_out = column.ravel().astype(np.intp), threshold.ravel(), ruled_out.ravel()
    # As a float64, a power of two is its exponent, plus 1023, above 52 bits.
    first = np.arange(shape[1]) * value.shape[1] - 1023
    value = value.reshape(-1, value.shape[2])
    value = value[:, 0] if value.shape[1] == 1 else value

    def values(x: Array) -> Array:
        # Arithmetic instead of np.where, which is several times slower where nobody can guess the side.
        out = (x.take(column, axis=1) > threshold).astype(bits) * ruled_out
        out = np.bitwise_or.reduce(out.reshape(len(x), *shape), axis=1)
        lowest = ~out & (out + one)
        return value.take((lowest.astype(np.float64).view(np.int64) >> 52) + first, axis=0)

    return _in_parts(values, max(1, NODES_PER_BATCH // len(column)), outputs, divisor, start)


def _walks(trees: Sequence[Tree]) -> dict[str, Any]:
    """Return the parameters of `tree_walk`: the nodes of all trees, level by level, each right child after its left."""
    parts, root, size, depth = [], [], 0, 0
    for tree in trees:
        levels = [np.zeros(1, np.intp)]
        while len(inner := levels[-1][tree.left[levels[-1]] >= 0]):
            levels.append(np.stack([tree.left[inner], tree.right[inner]], axis=1).ravel())
        order = np.concatenate(levels)
        place = np.empty(len(tree.left), np.intp)
        place[order] = size + np.arange(len(order))
        leaf = tree.left[order] < 0
        threshold = np.where(leaf, tree.threshold.dtype.type(np.inf), tree.threshold[order])
        left = np.where(leaf, place[order], place[tree.left[order]])
        parts.append((tree.column[order], threshold, left, tree.value[order]))
        root.append(size)
        size, depth = size + len(order), max(depth, len(levels) - 1)
    column, threshold, left, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return {
        "column": column.astype(np.int32),
        "threshold": threshold,
        "left": left.astype(np.int32),
        "value": value,
        "root": np.array(root, np.int32),
        "depth": np.array(depth),
    }


@operation("tree_walk")
def _run_tree_walk(
    column: Array,
    threshold: Array,
    left: Array,
    value: Array,
    root: Array,
    depth: Array,
    outputs: int,
    divisor: int,
    start: Array | None = None,
) -> Run:
    column, left, root, levels = column.astype(np.intp), left.astype(np.intp), root.astype(np.intp), range(int(depth))
    value = value[:, 0] if value.shape[1] == 1 else value

    def values(x: Array) -> Array:
        row = np.arange(0, x.size, x.shape[1])[:, None]
        node, look_up = root, x.ravel().take
        for _ in levels:
            place = column.take(node) if len(row) == 1 else column.take(node) + row
            # A leaf is its own left child, and nothing is above its threshold.
            node = left.take(node) + (look_up(place) > threshold.take(node))
        return value.take(node, axis=0)

    return _in_parts(values, max(1, NODES_PER_BATCH // len(root)), outputs, divisor, start)


def _in_parts(values: Run, at_once: int, outputs: int, divisor: int, start: Array | None) -> Run:
    """Return what sums the trees' values of a batch, taking so many rows at once."""

    def part(x: Array, begin: Any) -> Array:
        each = values(x).reshape(len(x), -1, outputs)
        each[:, 0] += begin
        # One after the other, as scikit-learn does; `sum` would add pairwise, which differs in the last bits.
        return np.add.accumulate(each, axis=1)[:, -1] / divisor

    def run(x: Array, begin: Any = start) -> Array:
        if len(x) <= at_once:
            return part(x, begin)
        cuts = [slice(cut, cut + at_once) for cut in range(0, len(x), at_once)]
        return np.concatenate([part(x[cut], begin if begin is start else begin[cut]) for cut in cuts])

    return run
