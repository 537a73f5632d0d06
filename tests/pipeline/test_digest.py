import functools
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.stats
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from profiles import examples
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import a_spec

from pipeline import digest
from pipeline.errors import SpecError
from pipeline.sources import Csv, Parquet, read
from pipeline.spec import BusinessValue, Gate, Holdout

# One more than 2**53: as a float64 it would be another number.
CELLS = {
    "whole": st.integers(-(2**53) - 1, 2**53 + 1),
    "decimal": st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    "text": st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
    "boolean": st.booleans(),
    "instant": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
}
TYPES = {
    "whole": pa.int64(),
    "decimal": pa.float64(),
    "text": pa.string(),
    "boolean": pa.bool_(),
    "instant": pa.timestamp("us"),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 8))
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=5, unique=True))
    return pa.table(
        {
            kind: pa.array(draw(st.lists(st.none() | CELLS[kind], min_size=rows, max_size=rows)), TYPES[kind])
            for kind in kinds
        }
    )


quickly = settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(table=tables(), cut=st.integers(0, 8))
@quickly
def test_a_table_has_one_digest_however_it_is_stored(table, cut, tmp_path):
    name = str(tmp_path / "x")
    pyarrow.parquet.write_table(table, f"{name}.parquet")
    whole = read(Parquet(f"{name}.parquet"))
    pyarrow.parquet.write_table(table, f"{name}-groups.parquet", row_group_size=2, compression="none")
    pyarrow.parquet.write_table(whole, f"{name}-again.parquet")
    texts = [kind for kind in table.column_names if kind == "text"]
    encoded = table
    for kind in texts:
        encoded = encoded.set_column(table.column_names.index(kind), kind, table[kind].dictionary_encode())
    pyarrow.parquet.write_table(encoded, f"{name}-encoded.parquet")
    others = [read(Parquet(f"{name}-{how}.parquet")) for how in ("groups", "again", "encoded")]
    others += [pa.concat_tables([whole.slice(0, cut), whole.slice(cut)]), whole.combine_chunks()]
    assert {digest.of_table(other) for other in others} == {digest.of_table(whole)}


@given(table=tables())
@quickly
def test_a_table_has_one_digest_as_csv_and_as_parquet(table, tmp_path):
    path = str(tmp_path / "x")
    pyarrow.parquet.write_table(table, f"{path}.parquet")
    # A null is nothing between two commas, and a text is always quoted: the words `1` and `true` need their type told.
    pyarrow.csv.write_csv(table.append_column("end", pa.array(range(len(table)))), f"{path}.csv")
    types = {name: "text" for name in table.column_names if name == "text"}
    types |= {name: "timestamp" for name in table.column_names if name == "instant"}
    from_csv = read(Csv(f"{path}.csv", types=types)).drop_columns(["end"])
    assert digest.of_table(from_csv) == digest.of_table(read(Parquet(f"{path}.parquet")))


@given(table=tables(), data=st.data())
@quickly
def test_any_cell_changed_is_another_digest(table, data):
    column = data.draw(st.sampled_from(table.column_names))
    row = data.draw(st.integers(0, len(table) - 1))
    cells = table[column].to_pylist()
    new = data.draw(st.none() | CELLS[column])
    assume(new != cells[row])
    changed = pa.array([*cells[:row], new, *cells[row + 1 :]], TYPES[column])
    other = table.set_column(table.column_names.index(column), column, changed)
    assert digest.of_table(other) != digest.of_table(table)


@given(table=tables(), data=st.data())
@quickly
def test_rows_in_another_order_are_another_digest(table, data):
    order = data.draw(st.permutations(range(len(table))))
    assume(table.take(order).to_pydict() != table.to_pydict())
    assert digest.of_table(table.take(order)) != digest.of_table(table)


TWO = pa.table({"a": [1, 2], "b": ["x", ""]})


@pytest.mark.parametrize(
    "other",
    [
        TWO.rename_columns(["a", "c"]),
        TWO.select(["b", "a"]),
        TWO.select(["a"]),
        TWO.set_column(1, "b", pa.array(["", "x"])),
        TWO.set_column(1, "b", pa.array(["x", None])),
        TWO.set_column(0, "a", pa.array([1, None])),
        TWO.set_column(0, "a", pa.array([1, 0])),
        TWO.set_column(0, "a", pa.array(["1", "2"])),
        TWO.set_column(0, "a", pa.array([True, False])),
        TWO.slice(0, 1),
    ],
)
def test_another_name_order_type_or_null_is_another_digest(other):
    assert digest.of_table(other) != digest.of_table(TWO)


def loss(y_true, y_pred):
    return y_true - y_pred


def gain(y_true, y_pred):
    return y_pred - y_true


SPEC = """
import functools, scipy.stats, numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import a_spec
from pipeline import digest
np.random.seed(SEED)
search = RandomizedSearchCV(
    make_pipeline(FunctionTransformer(functools.partial(np.clip, a_min=0, a_max=None)), Ridge()),
    {"ridge__alpha": scipy.stats.loguniform(1e-4, 1), "ridge__solver": ["svd", "lsqr"]},
    cv=KFold(3, shuffle=True, random_state=0),
    random_state=np.random.RandomState(7),
)
print(digest.of_value(a_spec(candidates={"search": search}, nullable=("a", "b"))))
print(digest.of_value({"some", "words", "in", "a", "set"}))
"""


def test_a_spec_has_the_same_digest_in_every_process(run_python):
    first, second = (run_python(SPEC.replace("SEED", seed), PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first == second


def searched(**changes):
    parameters = {"cv": KFold(3), "param_distributions": {"alpha": scipy.stats.uniform(0, 1)}, "random_state": 0}
    return RandomizedSearchCV(Ridge(), **parameters | changes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Ridge(alpha=1.0), Ridge(alpha=2.0)),
        (Ridge(alpha=1), Ridge(alpha=1.0)),
        (Ridge(), Lasso()),
        (make_pipeline(Ridge(alpha=1.0)), make_pipeline(Ridge(alpha=2.0))),
        (GridSearchCV(Ridge(), {"alpha": [1, 2]}), GridSearchCV(Ridge(), {"alpha": [1, 3]})),
        (searched(), searched(cv=KFold(4))),
        (searched(), searched(param_distributions={"alpha": scipy.stats.uniform(0, 2)})),
        (searched(), searched(param_distributions={"alpha": scipy.stats.norm(0, 1)})),
        (searched(random_state=np.random.RandomState(0)), searched(random_state=np.random.RandomState(1))),
        (FunctionTransformer(np.log), FunctionTransformer(np.log1p)),
        (FunctionTransformer(np.sum), FunctionTransformer(np.cumsum)),
        (FunctionTransformer(loss), FunctionTransformer(gain)),
        (functools.partial(loss, y_true=1), functools.partial(loss, y_true=2)),
        (functools.partial(loss), functools.partial(gain)),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0])),
        (np.array([[1.0, 2.0]]), np.array([1.0, 2.0])),
        ([1, [2]], [[1], 2]),
        ("1", 1),
        (True, 1),
        ({"a": 1}, {"a": None}),
    ],
)
def test_another_parameter_or_function_is_another_digest(one, other):
    assert digest.of_value(one) != digest.of_value(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": Gate(at_most=11.0)},
        {"gate": Gate(at_most=10.0, tolerance=0.1)},
        {"holdout": Holdout(fraction=0.3)},
        {"seed": 1},
        {"target": "rent"},
        {"candidates": {"lasso": Lasso(), "ridge": Ridge()}},
        {"value": BusinessValue(function=gain, unit="USD")},
        {"source": Csv("houses.csv", na_values=("NA",))},
    ],
)
def test_a_spec_with_another_part_has_another_digest(changes):
    both = {"candidates": {"ridge": Ridge(), "lasso": Lasso()}, "value": BusinessValue(function=loss, unit="USD")}
    assert digest.of_value(a_spec(**both)) == digest.of_value(a_spec(**both))
    assert digest.of_value(replace(a_spec(**both), **changes)) != digest.of_value(a_spec(**both))


def test_an_object_that_contains_itself_has_a_digest():
    one: list = [1]
    one.append(one)
    other: list = [2]
    other.append(other)
    assert digest.of_value(one) != digest.of_value(other)


def test_what_has_no_content_to_name_it_by_is_refused(tmp_path):
    with (tmp_path / "x").open("w") as file, pytest.raises(SpecError, match="a TextIOWrapper in a spec has no content"):
        digest.of_value({"log": file})


def test_a_folder_is_named_by_its_files_not_by_its_place_or_times(tmp_path):
    for place in ("a", "b/c"):
        (tmp_path / place / "sub" / "__pycache__").mkdir(parents=True)
        (tmp_path / place / "sub" / "x.txt").write_text("x")
        (tmp_path / place / "sub" / "__pycache__" / "x.pyc").write_text(place)
    assert digest.of_folder(tmp_path / "a") == digest.of_folder(tmp_path / "b" / "c")
    (tmp_path / "a" / "sub" / "x.txt").rename(tmp_path / "a" / "sub" / "y.txt")
    assert digest.of_folder(tmp_path / "a") != digest.of_folder(tmp_path / "b" / "c")
