"""The operations of transformers at run time: NumPy's functions, in the order in which the libraries use them.

Every function takes the parameters of an operation and returns it ready to run. Matrices have shape (rows, columns).
"""

import importlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.compiled.plan import Array, Run, UnanswerableError, operation, total
from pipeline.compiled.products import product

Texts = Sequence[str | None]


class Coded(Texts):
    """Many texts as positions in the list of the distinct ones."""

    def __init__(self, distinct: Sequence[str | None], codes: Array) -> None:
        self.distinct, self.codes = distinct, codes

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place: Any) -> Any:
        return self.distinct[self.codes[place]]


def coded(texts: Sequence[str | None]) -> Coded:
    """Return texts as positions among the distinct ones; TypeError if one is not hashable."""
    places: dict[Any, Any] = dict.fromkeys(texts)
    for place, text in enumerate(places):
        places[text] = place
    return Coded([*places], np.fromiter(map(places.__getitem__, texts), np.intp, len(texts)))


def of_a_row(values: Array) -> Array:
    """Return an array with a number per column as a matrix of one row: NumPy is faster on two of the same shape."""
    return values.reshape(1, -1)


@operation("columns")
def columns(take: Sequence[int] | None) -> Run:
    """Matrices side by side, then some of their columns (None: all)."""
    wanted = None if take is None else np.array(take, dtype=np.intp)

    def run(*parts: Array) -> Array:
        side_by_side = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return side_by_side if wanted is None else side_by_side.take(wanted, axis=1)

    return run


@operation("fill")
def fill(values: Array) -> Run:
    """Replace NaN by a value per column."""
    values = of_a_row(values)

    def run(x: Array) -> Array:
        missing = np.isnan(x)
        if len(x) > 1:
            return np.where(missing, values, x)
        x = x.copy()
        np.putmask(x, missing, values)
        return x

    return run


@operation("checked")
def checked(missing: bool) -> Run:
    """Return the matrix; unanswerable if it has an infinity, or a NaN unless values may be `missing`."""

    def run(x: Array) -> Array:
        if not math.isfinite(total(x)):
            wrong = np.isinf(x) if missing else ~np.isfinite(x)
            if wrong.any():
                raise UnanswerableError("a step refuses what reaches it: a missing or an infinite number")
        return x

    return run


@operation("present")
def present() -> Run:
    """Check that texts have no null; unanswerable otherwise."""

    def run(*texts: Texts) -> None:
        if any(value is None for column in texts for value in column):
            raise UnanswerableError("a step refuses a missing text")

    return run  # type: ignore[return-value]


class LookupTable(dict[Any, float]):
    """An encoder's output for each value of a column; unanswerable if the encoder would raise."""

    def __init__(self, known: Iterable[tuple[Any, float | None]], missing: float | None, rest: float | None) -> None:
        outputs = dict(known)
        super().__init__({value: output for value, output in outputs.items() if output is not None})
        self.refused = outputs.keys() - self.keys()
        self.missing, self.rest = missing, rest
        if missing is not None:
            self[None] = missing

    def __missing__(self, value: Any) -> float:
        # NaN is unequal to itself.
        output = self.missing if value is None or value != value else self.rest
        if output is None or value in self.refused:
            raise UnanswerableError("an encoder refuses a value")
        return output


@operation("lookup")
def lookup(known: Sequence[Mapping[str, Any]], missing: Sequence[Any], rest: Sequence[Any]) -> Run:
    """A number for every text: by column, the numbers of known values, of null and of any other (None: refused)."""
    encode = _Encoder([by.items() for by in known], missing, rest)
    return lambda *texts: encode.columns(texts)


@operation("lookup_numbers")
def lookup_numbers(known: Sequence[Sequence[Any]], missing: Sequence[Any], rest: Sequence[Any]) -> Run:
    """A number for every number: by column, pairs of a known value and its number; that of NaN; that of any other."""
    encode = _Encoder(known, missing, rest)
    return lambda x: encode.columns(x.T.tolist())


@operation("lookup_sum")
def lookup_sum(known: Sequence[Mapping[str, Any]], missing: Sequence[Any], rest: Sequence[Any]) -> Run:
    """The sum over all columns of the numbers that `lookup` finds, added in order."""
    encode = _Encoder([by.items() for by in known], missing, rest)
    return lambda *texts: encode.sum(texts)


@operation("lookup_numbers_sum")
def lookup_numbers_sum(known: Sequence[Sequence[Any]], missing: Sequence[Any], rest: Sequence[Any]) -> Run:
    """The sum over all columns of the numbers that `lookup_numbers` finds, added in order."""
    encode = _Encoder(known, missing, rest)
    return lambda x: encode.sum(x.T.tolist())


class _Encoder:
    """The lookup tables of some columns, applied to one row or many."""

    def __init__(self, known: Sequence[Iterable[Any]], missing: Sequence[Any], rest: Sequence[Any]) -> None:
        self.tables = [LookupTable(*column) for column in zip(known, missing, rest, strict=True)]
        # A plain dict, without __missing__, finds a value faster.
        self.plain = [dict(table) for table in self.tables]

    def columns(self, columns: Sequence[Sequence[Any]]) -> Array:
        """Return a column of numbers for each."""
        if len(columns[0]) == 1:
            return np.array([self._row(columns)])
        out = np.empty((len(columns), len(columns[0])))
        for place, (table, column) in enumerate(zip(self.tables, columns, strict=True)):
            out[place] = _look_up(table, column)
        return out.T

    def sum(self, columns: Sequence[Sequence[Any]]) -> Array:
        """Return the sum over the columns, shape (rows, 1)."""
        # Python's floats and NumPy's columns round alike when added in the same order.
        if len(columns[0]) == 1:
            return np.array([[self._sum_of_row(columns)]])
        out = np.zeros(len(columns[0]))
        for table, column in zip(self.tables, columns, strict=True):
            out += _look_up(table, column)
        return out[:, None]

    def _sum_of_row(self, columns: Sequence[Sequence[Any]]) -> float:
        row_sum = 0.0
        try:
            for plain, (value,) in zip(self.plain, columns, strict=True):
                row_sum += plain[value]
        except KeyError:
            row_sum = 0.0
            for table, (value,) in zip(self.tables, columns, strict=True):
                row_sum += table[value]
        return row_sum

    def _row(self, columns: Sequence[Sequence[Any]]) -> list[float]:
        try:
            return [plain[value] for plain, (value,) in zip(self.plain, columns, strict=True)]
        except KeyError:
            return [table[value] for table, (value,) in zip(self.tables, columns, strict=True)]


def _look_up(table: LookupTable, column: Sequence[Any]) -> "Array | list[float]":
    if isinstance(column, Coded):
        return np.array([table[value] for value in column.distinct])[column.codes]
    return list(map(table.__getitem__, column))


@operation("one_hot")
def one_hot(places: int) -> Run:
    """A 1 at each of the positions in a row, -1 for none; shape (rows, places)."""

    def run(positions: Array) -> Array:
        # Position -1 sets a 1 in the last column, which is cut off.
        out = np.zeros((len(positions), places + 1))
        if len(positions) == 1:
            out[0, positions[0].astype(np.intp)] = 1.0
        else:
            out[np.arange(len(positions))[:, None], positions.astype(np.intp)] = 1.0
        return out[:, :places]

    return run


@operation("shift_scale")
def shift_scale(shift: Array | None, scale: Array | None) -> Run:
    """(x - shift) / scale."""
    shift, scale = (None if values is None else of_a_row(values) for values in (shift, scale))
    if shift is None:
        return (lambda x: x) if scale is None else (lambda x: x / scale)
    return (lambda x: x - shift) if scale is None else (lambda x: (x - shift) / scale)


@operation("scale_shift")
def scale_shift(scale: Array, shift: Array | None) -> Run:
    """x * scale + shift."""
    scale = of_a_row(scale)
    if shift is None:
        return lambda x: x * scale
    shift = of_a_row(shift)
    return lambda x: x * scale + shift


@operation("clip")
def clip(low: Array | None, high: Array | None) -> Run:
    """Every value, but not below `low` and not above `high`, each a number or one per column; NaN stays."""
    if low is None:
        return lambda x: np.minimum(x, high)  # type: ignore[arg-type]
    return (lambda x: np.maximum(x, low)) if high is None else (lambda x: np.maximum(np.minimum(x, high), low))


@operation("is_nan")
def is_nan() -> Run:
    """1 where NaN."""
    return lambda x: np.isnan(x).astype(np.float64)


@operation("function")
def function(name: str) -> Run:
    """A universal function of NumPy, by name."""
    applied = getattr(np, name)
    if not isinstance(applied, np.ufunc):
        raise TypeError(f"numpy.{name} is not a universal function")

    def run(x: Array) -> Array:
        out: Array = applied(x)
        return out if out.dtype == np.float64 else out.astype(np.float64)

    return run


@operation("yeo_johnson")
def yeo_johnson(lambdas: Array) -> Run:
    """Yeo and Johnson (2000), as SciPy writes it, for all columns at once.

    expm1(l log1p(x)) / l where x >= 0, and -expm1((2 - l) log1p(-x)) / (2 - l) elsewhere; the limits where l is 0 or 2.
    """
    tiny = np.finfo(np.float64).eps
    above, below = np.abs(lambdas) < tiny, np.abs(lambdas - 2) <= tiny
    power = np.where(above, 1.0, lambdas), np.where(below, 1.0, 2 - lambdas)
    # -a / b is a / -b, to the bit.
    divisor = power[0], -power[1]
    limits = bool((above | below).any())

    def run(x: Array) -> Array:
        positive = x >= 0
        logarithm = np.log1p(np.abs(x))
        out = np.expm1(np.where(positive, *power) * logarithm) / np.where(positive, *divisor)
        if limits:
            out = np.where(above & positive, logarithm, np.where(below & ~positive, -logarithm, out))
        return out

    return run


@operation("box_cox")
def box_cox(lambdas: Array) -> Run:
    """Box and Cox (1964), by SciPy; unanswerable if a value is not positive, which scikit-learn refuses."""
    special = importlib.import_module("scipy.special")

    def run(x: Array) -> Array:
        if (x <= 0).any():
            raise UnanswerableError("Box-Cox takes positive numbers")
        return special.boxcox(x, lambdas)

    return run


@operation("above_zero")
def above_zero() -> Run:
    """Return the matrix; unanswerable if a number is not above 0."""

    def run(x: Array) -> Array:
        if (x <= 0).any():
            raise UnanswerableError("a logarithm takes positive numbers")
        return x

    return run


@operation("quantiles")
def quantiles(edges: Array, references: Array, normal: bool) -> Run:
    """scikit-learn's QuantileTransformer: where a value lies between the `edges` (one column each) seen in training."""
    forth = _interpolation(np.ascontiguousarray(edges.T), references)
    back = _interpolation(np.ascontiguousarray(-edges[::-1].T), -references[::-1])
    least, most, threshold = edges[0], edges[-1], 1e-7
    if not normal:

        def uniform(x: Array) -> Array:
            found = 0.5 * (forth(x) - back(-x))
            return np.where(x == least, 0.0, np.where(x == most, 1.0, found))

        return uniform
    inverse = importlib.import_module("scipy.special").ndtri
    low, high = inverse(threshold - np.spacing(1)), inverse(1 - (threshold - np.spacing(1)))

    def deviate(x: Array) -> Array:
        found = 0.5 * (forth(x) - back(-x))
        found = np.where(x - threshold < least, 0.0, np.where(x + threshold > most, 1.0, found))
        return np.clip(inverse(found), low, high)

    return deviate


def _interpolation(edges: Array, heights: Array) -> Run:
    """`numpy.interp` of every column with edges of its own, shape (columns, edges), as it is computed there."""
    last = edges.shape[1] - 1
    sides = np.arange(len(edges))
    lists = edges.tolist()

    def run(x: Array) -> Array:
        if len(x) == 1:
            place = np.array([[bisect_right(edge, value) for edge, value in zip(lists, x[0].tolist(), strict=True)]])
        else:
            place = np.stack(
                [edge.searchsorted(given, side="right") for edge, given in zip(edges, x.T, strict=True)], 1
            )
        left = np.clip(place - 1, 0, last)
        right = np.minimum(left + 1, last)
        start, height = edges[sides, left], heights[left]
        slope = (heights[right] - height) / (edges[sides, right] - start)
        between = slope * (x - start) + height
        found = np.where((x <= start) | ((left == last) & (x > start)), height, between)
        # Where a slope overflows, NumPy has a second way.
        if (np.isnan(found) != np.isnan(x)).any():
            return np.stack([np.interp(given, edge, heights) for edge, given in zip(edges, x.T, strict=True)], 1)
        return found

    return run


@operation("bins")
def bins(edges: Sequence[Array]) -> Run:
    """By column, how many of the inner edges a value is not below."""
    lists = [edge.tolist() for edge in edges]

    def run(x: Array) -> Array:
        if len(x) == 1:
            values = zip(lists, x[0].tolist(), strict=True)
            return np.array([[bisect_right(edge, value) for edge, value in values]], dtype=np.float64)
        out = np.empty_like(x)
        for column, edge in enumerate(edges):
            out[:, column] = edge.searchsorted(x[:, column], side="right")
        return out

    return run


@operation("shift")
def shift(by: Array) -> Run:
    """x + by."""
    return lambda x: x + by


@operation("above")
def above(threshold: float) -> Run:
    """1 where above the threshold."""
    return lambda x: (x > threshold).astype(np.float64)


@operation("normalize")
def normalize(norm: str) -> Run:
    """Every row divided by its norm, unless that is 0."""

    def run(x: Array) -> Array:
        if norm == "l1":
            norms = np.abs(x).sum(axis=1)
        elif norm == "l2":
            norms = np.sqrt(np.einsum("ij,ij->i", x, x))
        else:
            norms = np.abs(x).max(axis=1)
        norms[norms < 10 * np.finfo(np.float64).eps] = 1.0
        return x / norms[:, None]

    return run


@operation("products")
def products(bias: bool, first: int, steps: Sequence[Sequence[Array]]) -> Run:
    """Polynomial terms: those of each degree are some of the degree before times some of the columns."""

    def run(x: Array) -> Array:
        degrees = [x]
        for term, factor in steps:
            degrees.append(degrees[-1][:, term] * x[:, factor])
        ones = [np.ones((len(x), 1))] if bias else []
        return np.concatenate([*ones, *degrees[first:]], axis=1)

    return run


@operation("project")
def project(components: Array, shift: Array | None, scale: Array | None) -> Run:
    """(x @ components - shift) / scale."""

    def run(x: Array) -> Array:
        out = product(x, components)
        if shift is not None:
            out = out - shift
        return out if scale is None else out / scale

    return run


@operation("across")
def across(functions: Sequence[str], missing: bool) -> Run:
    """The sum, product, mean, smallest or largest of the values of each row that are not NaN, as in pandas."""

    def mean(x: Array, **by_row: Any) -> Array:
        count = x.shape[1] - np.isnan(x).sum(**by_row) if missing else x.shape[1]
        return total(x, **by_row) / count

    def total(x: Array, **by_row: Any) -> Array:
        return np.add.reduce(np.where(np.isnan(x), 0.0, x) if missing else x, **by_row)

    def product(x: Array, **by_row: Any) -> Array:
        return np.multiply.reduce(np.where(np.isnan(x), 1.0, x) if missing else x, **by_row)

    kinds = {"sum": total, "prod": product, "mean": mean, "min": np.fmin.reduce, "max": np.fmax.reduce}
    chosen: list[Any] = [kinds[one] for one in functions]
    if len(chosen) == 1:
        return lambda x: chosen[0](x, axis=1, keepdims=True)
    return lambda x: np.concatenate([one(x, axis=1, keepdims=True) for one in chosen], axis=1)


@operation("pairs")
def pairs(function: str, zero: float | None) -> Run:
    """A universal function of two matrices of one shape; a quotient by 0 becomes `zero` (None: refused)."""
    applied = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "pow": np.power, "div": np.divide}[function]
    if function != "div":
        return lambda x, y: applied(x, y)

    def run(x: Array, y: Array) -> Array:
        none = y == 0
        if not none.any():
            return applied(x, y)
        if zero is None:
            raise UnanswerableError("a division by zero")
        return np.where(none, zero, applied(x, y))

    return run
