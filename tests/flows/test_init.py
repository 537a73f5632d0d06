"""A table that nobody prepared -> two files that work: on the data they were made of, and against a broken copy."""

import gzip
import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from project import CHECKOUT, copy_of_the_project
from sklearn import datasets

from expectations.validate import validate
from flows.init import begin
from pipeline import schema, sources
from pipeline.compiled import UncompilableError, compile_pipeline
from pipeline.errors import DataError, SourceError, SpecError
from pipeline.predict import target
from pipeline.sources import Csv, JsonLines
from pipeline.spec import BinaryClassification, MulticlassClassification, Regression

DATA = CHECKOUT.parent / "shared" / "data"


def likely(_question, choices):
    return choices[0]


def never(question, _choices):
    raise AssertionError(f"asked: {question}")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with room for models and suites, in which the data lies too."""
    for folder in ("pipeline/models", "expectations/suites"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(checkout):
    """Write a file and begin a model of it; return its spec, its suite, its rows and what was said."""

    def make(content, wanted, ask=likely, encoding="utf-8", file="data.csv"):
        content = content.to_csv(index=False) if isinstance(content, pd.DataFrame) else content
        (checkout / file).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        said = begin(checkout, file, wanted, "mine", False, ask)
        spec = imported(checkout / "pipeline/models/mine.py").spec
        suite = imported(checkout / "expectations/suites/mine.py").suite
        table = sources.read(spec.source)
        schema.check_columns(spec, table)
        return spec, suite, table, said

    return make


def imported(path):
    name = f"begun_{path.parent.name}"
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location(name, path))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def fitted(spec, table):
    """The spec's candidates, fitted on the whole table, and its features."""
    features = schema.describe(spec, table).features
    frame, y = schema.to_frame(table, features), target(spec.task.kind, table.column(spec.target))
    return {name: candidate.fit(frame, y) for name, candidate in spec.candidates.items()}, features


def orders(rows=400, seed=0):
    """Rows of every kind of column that `init` tells, under names that no program would choose."""
    rng = np.random.default_rng(seed)
    day = pd.date_range("2021-01-01", periods=rows, freq="47h")
    frame = pd.DataFrame(
        {
            "Order No.": [f"A-{row:05d}" for row in range(rows)],
            "1st price €": rng.lognormal(3, 1, rows).round(2),
            "Year Remod/Add": rng.integers(1950, 2020, rows),
            "Größe (m2)": rng.normal(100, 20, rows).round(1),
            "sold at": day,
            "birth_date": pd.Timestamp("1980-01-01") + pd.to_timedelta(rng.integers(0, 9000, rows), "D"),
            "paid on": day.strftime("%d/%m/%Y"),
            "class": rng.choice(["a", "b", "c d"], rows),
            "town": rng.choice([f"town {number}" for number in range(60)], rows),
            "lat": rng.normal(48, 1, rows),
            "lon": rng.normal(11, 1, rows),
            "review": [" ".join(rng.choice(["good", "bad", "nice", "slow", "cheap"], 7)) for _ in range(rows)],
            "member": rng.choice(["yes", "no"], rows),
            "active": rng.choice([True, False], rows),
            "store_id": rng.integers(1, 9, rows),
            "customer_id": rng.integers(1, 150, rows),
            "country": "DE",
            "empty": np.nan,
        }
    )
    frame["price"] = (frame["1st price €"] * 3 + frame["Größe (m2)"] + rng.normal(0, 5, rows)).round(2)
    for step, name in enumerate(("Größe (m2)", "review", "paid on", "birth_date", "town", "lat", "member"), start=7):
        frame.loc[::step, name] = np.nan
    return frame


def test_each_kind_of_column_is_told_and_what_nothing_is_learned_from_is_left_out_with_the_reason(made):
    _, _, _, said = made(orders(), "price")

    assert said.task == "regression"
    assert said.key == ["Order No."]
    assert said.time == "sold at"
    assert said.features == {
        "boolean": ["active"],
        "category": ["class", "member", "store_id"],
        "date": ["sold at", "birth_date"],
        "many": ["town"],
        "number": ["Year Remod/Add", "Größe (m2)"],
        "place": ["lat", "lon"],
        "skewed": ["1st price €"],
        "text": ["review"],
        "written date": ["paid on"],
    }
    assert said.left_out == {
        "customer_id": f"names what rows are about: {orders()['customer_id'].nunique()} values",
        "country": "is 'DE' in every row",
        "empty": "is null in every row",
    }


def test_every_candidate_of_the_first_spec_learns_from_every_kind_of_column(made):
    spec, _, table, _ = made(orders(), "price")

    candidates, features = fitted(spec, table)
    nothing = schema.to_table([{}], features)
    for estimator in candidates.values():
        assert np.isfinite(estimator.predict(schema.to_frame(nothing, features))).all()


def test_without_free_text_and_dates_written_as_words_every_candidate_is_compiled(made):
    spec, _, table, _ = made(orders().drop(columns=["review", "paid on"]), "price")

    candidates, features = fitted(spec, table)
    assert set(candidates) == {"ridge", "boosting", "blend"}
    for estimator in candidates.values():
        compile_pipeline(estimator, features)


def test_what_cannot_be_compiled_is_free_text(made):
    spec, _, table, _ = made(orders().drop(columns="paid on"), "price")

    candidates, features = fitted(spec, table)
    with pytest.raises(UncompilableError, match="vector"):
        compile_pipeline(candidates["ridge"], features)


@pytest.mark.parametrize("columns", [["review", "paid on"], []], ids=["without texts", "with texts"])
def test_both_files_are_formatted_as_the_house_formats_code_and_pass_its_checks(checkout, made, columns):
    made(orders().drop(columns=columns), "price")
    # What is the project's own stands apart from other imports, so it has to be there.
    for room in ("pipeline", "expectations"):
        shutil.copytree(CHECKOUT / room, checkout / room, dirs_exist_ok=True)
    shutil.copy(CHECKOUT / "pyproject.toml", checkout)
    files = ["pipeline/models/mine.py", "expectations/suites/mine.py"]

    for command in (
        ["ruff", "check"],
        ["ruff", "format", "--diff"],
        ["mypy", "--follow-imports=silent", "--cache-dir=cache"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, *files],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_many_classes_and_large_numbers_are_formatted_as_the_house_formats_code(checkout, made):
    rng = np.random.default_rng(0)
    labels = [f"a class with a long name, {row % 45}" for row in range(450)]
    made(columns(account=10**18 + rng.integers(0, 10**6, 450), y=labels), "y")

    command = [sys.executable, "-m", "ruff", "format", "--diff", "--line-length", "120", "expectations", "pipeline"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("least", "width"), [(10**15, 10**6), (10**18, 10**6), (10**9, 1), (-(10**12), 3)])
def test_the_suite_passes_on_large_numbers_that_are_close_together(made, least, width):
    rng = np.random.default_rng(0)
    near = least + width * rng.random(300)
    _, suite, table, _ = made(columns(x=near, z=rng.random(300), y=near[::-1]), "y")

    assert validate(table, suite).reasons == []


def test_the_suite_passes_on_the_data_and_on_another_sample_of_it(made):
    _, suite, table, _ = made(orders(), "price")

    report = validate(table.to_pandas(), suite)
    assert (report.reasons, report.warnings) == ([], [])
    other = orders(rows=350, seed=1).assign(**{"sold at": pd.Timestamp("2023-05-01")})
    assert validate(other, suite).reasons == []


def zeros(frame):
    return frame.assign(**{"Größe (m2)": 0.0})


def falses(frame):
    return frame.assign(active=False)


def half(frame):
    return frame.head(len(frame) // 2)


def nulls(frame):
    return frame.assign(lat=frame["lat"].where(frame.index % 2 == 0))


def words(frame):
    return frame.assign(**{"1st price €": [*frame["1st price €"][:-1].astype(str), "on request"]})


def thousands(frame):
    return frame.assign(price=frame["price"] / 1000)


def miles(frame):
    return frame.assign(**{"Größe (m2)": frame["Größe (m2)"] * 10.76})


def recoded(frame):
    return frame.assign(member=frame["member"].map({"yes": "Y", "no": "N"}))


def swapped(frame):
    return frame.assign(lat=frame["lon"], lon=frame["lat"])


def american(frame):
    dates = pd.to_datetime(frame["paid on"], format="%d/%m/%Y")
    return frame.assign(**{"paid on": dates.dt.strftime("%m/%d/%Y")})


def epoch(frame):
    return frame.assign(**{"sold at": pd.Timestamp("1970-01-01")})


def twice(frame):
    return pd.concat([frame, frame.head(1)])


def renamed(frame):
    return frame.rename(columns={"town": "Town"})


@pytest.mark.parametrize(
    ("broken", "column"),
    [
        (zeros, "Größe (m2)"),
        (falses, "active"),
        (half, "number of rows"),
        (nulls, "lat"),
        (words, "1st price €"),
        (thousands, "price"),
        (miles, "Größe (m2)"),
        (recoded, "member"),
        (swapped, "lat"),
        (american, "paid on"),
        (epoch, "sold at"),
        (twice, "Order No."),
        (renamed, "town"),
    ],
)
def test_a_broken_export_fails_naming_the_column(made, broken, column):
    _, suite, table, _ = made(orders(), "price")

    reasons = validate(broken(table.to_pandas()), suite).reasons
    assert reasons
    assert all(column in reason for reason in reasons if broken is not swapped)


# How files are written.

LINES = [f"{row},{row * 1.5},{row % 7}" for row in range(100)]


def test_semicolons_decimal_commas_and_another_encoding_are_read_and_said(made):
    frame = orders()[["Order No.", "Größe (m2)", "class", "price"]]
    spec, _, table, said = made(frame.to_csv(index=False, sep=";", decimal=","), "price", encoding="cp1252")

    assert spec.source == Csv("data.csv", separator=";", decimal=",", encoding="cp1252")
    assert table.column("price").to_pylist() == frame["price"].tolist()
    assert said.decided[:3] == [
        "values are separated by ';'",
        "numbers have a decimal comma",
        "the file is not UTF-8; it is read as cp1252",
    ]


@pytest.mark.parametrize("form", ["${:,.2f}", "{:,.2f} €", "{:,.1f}%", "1'234'{:.0f}", "1.234.{:.0f},50"])
def test_numbers_that_are_written_as_words_are_left_out_and_are_no_key(made, form):
    amounts = [form.format(row + 300.25) for row in range(400)]
    _, _, _, said = made(orders()[["Größe (m2)", "price"]].assign(cost=amounts), "price")

    why = f"holds numbers that are written as words, such as {amounts[0]!r}: write them as plain numbers to use it"
    assert said.left_out == {"cost": why}
    assert said.key == []


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson.gz"])
def test_json_lines_are_read_as_they_are(made, ending):
    lines = orders()[["Order No.", "Größe (m2)", "price"]].to_json(orient="records", lines=True).encode()
    file = f"data{ending}"
    spec, _, table, said = made(gzip.compress(lines) if ending.endswith("gz") else lines, "price", file=file)

    assert spec.source == JsonLines(file)
    assert (len(table), said.key) == (400, ["Order No."])


@pytest.mark.parametrize(
    "form",
    [
        *("%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M", "%B %d, %Y", "%d.%m.%y"),
        *("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"),
    ],
)
def test_dates_are_told_however_they_are_written(checkout, form):
    frame = orders()[["Größe (m2)", "price"]]
    # As texts in Parquet also those that are read as dates of a CSV file.
    frame = frame.assign(when=pd.date_range("2021-01-20 13:30", periods=400, freq="47h").strftime(form))
    frame.to_parquet(checkout / "data.parquet")
    said = begin(checkout, "data.parquet", "price", "mine", False, likely)

    assert said.features["written date"] == ["when"]
    spec = imported(checkout / "pipeline/models/mine.py").spec
    candidates, features = fitted(spec, table := sources.read(spec.source))
    assert np.isfinite(candidates["boosting"].predict(schema.to_frame(table, features))).all()
    hours = "hour" in (checkout / "pipeline/models/mine.py").read_text()
    assert hours == ("%M" in form)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_tells_the_encoding(made, encoding):
    frame = orders()[["Order No.", "Größe (m2)", "price"]]
    _, _, table, _ = made(frame.to_csv(index=False), "price", encoding=encoding)

    assert table.column_names == ["Order No.", "Größe (m2)", "price"]


def test_an_umlaut_far_down_in_a_file_that_is_not_utf8_is_found(made):
    rows = [f"{row},{'Köln' if row == 99_999 else 'Bonn'},{row % 97}.5" for row in range(100_000)]
    spec, _, _, _ = made("\n".join(["id,town,y", *rows]), "y", encoding="cp1252")

    assert spec.source.encoding == "cp1252"


def test_words_for_a_missing_value_are_found_where_they_stand_and_a_category_that_looks_like_one_stays(made):
    rows = [
        f"{row},{'?' if row % 9 == 0 else row * 1.5},{' ' if row % 7 == 0 else row % 50},{'-' if row % 5 else 8},"
        f"{'NA' if row % 4 == 0 else 'None' if row % 4 == 1 else 'big'},{row * 2}"
        for row in range(150)
    ]
    spec, _, table, said = made("\n".join(["id,a,b,c,size,y", *rows]), "y")

    assert set(spec.source.na_values) == {"", "?", " ", "-", "NA"}
    assert table.column("a").null_count == 17
    assert table.column("b").null_count == 22
    assert table.column("c").null_count == 120
    assert set(table.column("size").to_pylist()) == {None, "None", "big"}
    assert "'?' means a missing value, as in 'a'" in said.decided


def test_a_word_for_a_missing_value_in_the_last_row_is_found(made):
    rows = [f"{row},{row * 0.5}" for row in range(30_000)]
    spec, _, table, _ = made("\n".join(["x,y", *rows, "-,3"]), "y")

    assert spec.source.na_values == ("", "-")
    assert str(table.schema.field("x").type) in ("int64", "double")


def test_a_second_count_of_the_rows_is_left_out(made):
    frame = pd.DataFrame({"Order": np.arange(60) * 2 + 5, "PID": [f"P{n}" for n in range(60)], "x": np.arange(60) % 7})
    frame["y"] = frame["x"] * 2.5
    spec, _, _, said = made(frame, "y")
    assert spec.key == ("PID",)
    assert spec.features == ("x",)
    assert said.left_out == {"Order": "names the row, as the key does"}


def test_codes_of_digits_stay_texts(made):
    spec, _, table, _ = made("zip,y\n" + "\n".join(f"{row % 40:05d},{row}" for row in range(120)), "y")

    assert spec.source.types == {"zip": "text"}
    assert table.column("zip")[7].as_py() == "00007"


def test_a_target_with_stray_blanks_in_its_name_and_labels_is_found_and_said(made):
    rows = [f"{row},{row * 1.5},{' yes' if row % 3 else ' no'}" for row in range(100)]
    spec, _, _, said = made("\n".join(["id,a, label ", *rows]), "label")

    assert spec.target == " label "
    assert spec.task == BinaryClassification(positive=" yes")
    assert "the target is the column ' label '" in said.decided


def test_quotes_and_backslashes_in_names_and_values_are_python_too(made):
    frame = pd.DataFrame(
        {
            "id": range(100),
            'a "q"': [row % 9 for row in range(100)],
            "it's": ["O'Brien", 'say "hi"'] * 50,
            "back\\slash": ["a\\b", "c"] * 50,
            "both'\"": ["a'\"b", "c"] * 50,
            "y": np.arange(100) * 1.5,
        }
    )
    spec, suite, table, _ = made(frame, "y")

    assert spec.features == ('a "q"', "it's", "back\\slash", "both'\"")
    assert validate(table.to_pandas(), suite).reasons == []


def test_two_columns_are_enough_and_rows_without_a_key_are_told_apart_by_what_they_hold(made):
    spec, _, table, said = made("x,y\n" + "\n".join(f"{row * 1.1:.2f},{row * 2.5}" for row in range(100)), "y")

    assert (spec.key, spec.features) == ((), ("x",))
    assert any("no column tells one row from another" in one for one in said.decided)
    fitted(spec, table)


def test_500_columns_that_count_up_are_one_line_of_the_spec(checkout, made):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(100, 500)), columns=[f"sensor{number}" for number in range(500)])
    spec, suite, _, _ = made(frame.assign(y=rng.choice(["on", "off"], 100)), "y")

    assert spec.features == tuple(frame.columns)
    assert 'tuple(f"sensor{number}" for number in range(0, 500))' in (checkout / "pipeline/models/mine.py").read_text()
    assert 1_000 < len(suite.error) < 1_600


@pytest.mark.parametrize(
    ("content", "wanted", "error", "sentence"),
    [
        (
            "id,a,a,y\n" + "\n".join(f"{row},1,2,{row}" for row in range(100)),
            "y",
            DataError,
            "two columns are named 'a'",
        ),
        ("a,A ,y\n" + "\n".join(LINES), "y", DataError, "only case or blanks tell the columns 'a' and 'A ' apart"),
        (
            ",a,y\n" + "\n".join(LINES),
            "y",
            DataError,
            "column 1 has no name; if it is an index, write the table without",
        ),
        ("\n".join(LINES), "y", DataError, "the first row, '0', '0.0', '0', is not a header"),
        ("y\n1\n2\n", "y", DataError, "one column only"),
        ("x,y\n1,2\n2,3\n", "y", DataError, "2 rows are too few to learn from and to judge by; give 50 or more"),
        ("x,z,y\n" + "\n".join(LINES), "Z ", None, ""),
        ("x,z,price\n" + "\n".join(LINES), "prize", DataError, "no such column; did you mean 'price'"),
        (
            "x,z,y\n" + "\n".join([*LINES, "1,2,"]),
            "y",
            DataError,
            "'y', the target, is null in 1 of 101 rows, first row 101",
        ),
        (
            "x,y\n" + "\n".join(f"{row},1" for row in range(99)),
            "y",
            DataError,
            "is 1 in every row; there is nothing to",
        ),
        (
            "x,y\n" + "\n".join(f"{row},w{row}" for row in range(99)),
            "y",
            DataError,
            "too many to be classes, and not num",
        ),
        ("x,y\n" + "\n".join(f"{row},2024-01-01" for row in range(99)), "y", DataError, "the target"),
        (
            "x,y\n" + "\n".join(f"1,{row}" for row in range(99)),
            "y",
            DataError,
            "besides the target there is nothing to l",
        ),
        (
            "x,y\n" + "\n".join(f"{'-inf' if row == 7 else row * 0.5},{row % 50}" for row in range(99)),
            "y",
            DataError,
            "column 'x' holds an infinity in row 8, which no request to a model may hold; write what it stands for",
        ),
        (
            "x,y\n" + "\n".join(f"{row % 50},{'inf' if row == 7 else row * 0.5}" for row in range(99)),
            "y",
            DataError,
            "column 'y' holds an infinity in row 8",
        ),
        (
            "x,y\n" + "\n".join(f"{row % 50},{int(row < 9)}" for row in range(99)),
            "y",
            DataError,
            "column 'y', the target, is 1 in only 9 of 99 rows; give a table with 10 or more of them",
        ),
        (
            "x,y\n" + "\n".join(f"{row % 50},{'good' if row else 'bad'}" for row in range(99)),
            "y",
            DataError,
            "column 'y', the target, is 'bad' in only 1 of 99 rows",
        ),
        (
            "x,y\n" + "\n".join(f'{row % 50},"$1,{row:03}.50"' for row in range(99)),
            "y",
            DataError,
            r"column 'y', the target, holds numbers that are written as words, such as '\$1,000\.50': write them as",
        ),
        (
            "x,y\n" + "\n".join(f"{row},{'yes ' if row % 9 == 0 else 'yes' if row % 3 else 'no'}" for row in range(99)),
            "y",
            DataError,
            "holds 'yes' and 'yes ', which blanks or case alone tell apart",
        ),
        ("", "y", DataError, "one column only|is empty"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused_naming_the_way_out_and_nothing_is_written(
    checkout, content, wanted, error, sentence
):
    (checkout / "data.csv").write_text(content)
    if error is None:
        assert begin(checkout, "data.csv", wanted, "mine", False, likely).target == "z"
        return
    with pytest.raises(error, match=sentence):
        begin(checkout, "data.csv", wanted, "mine", False, likely)
    assert not [*checkout.rglob("mine.py")]


def test_a_file_that_is_not_there_and_a_name_that_cannot_be_one_are_refused(checkout):
    with pytest.raises(SourceError, match=r"there is no file 'nowhere\.csv'"):
        begin(checkout, "nowhere.csv", "y", "mine", False, likely)
    with pytest.raises(SpecError, match=r"'My Sales' cannot name a model.* as in 'my_sales'"):
        begin(checkout, "nowhere.csv", "y", "My Sales", False, likely)
    with pytest.raises(SpecError, match="'class' cannot name a model"):
        begin(checkout, "nowhere.csv", "y", "class", False, likely)


def test_files_that_are_there_are_never_overwritten_without_force(checkout, made):
    made("x,y\n" + "\n".join(f"{row},{row}.5" for row in range(100)), "y")
    spec = checkout / "pipeline/models/mine.py"
    spec.write_text("edited\n")

    with pytest.raises(
        SpecError, match=r"pipeline/models/mine.py and expectations/suites/mine.py already exist; .*--force"
    ):
        begin(checkout, "data.csv", "y", "mine", False, likely)
    assert spec.read_text() == "edited\n"
    begin(checkout, "data.csv", "y", "mine", True, likely)
    assert "ModelSpec" in spec.read_text()


# What is to be predicted.


def columns(**named):
    rows = len(next(iter(named.values())))
    return pd.DataFrame({"x": np.random.default_rng(0).normal(size=rows), **named})


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (np.arange(100) * 0.5, Regression()),
        ([0, 1] * 50, BinaryClassification(positive=1)),
        ([True, False] * 50, BinaryClassification(positive=True)),
        (["no", "yes", "yes"] * 33, BinaryClassification(positive="yes")),
        (["a", "b", "b"] * 33, BinaryClassification(positive="a")),
        (["a", "b", "c"] * 33, MulticlassClassification()),
        ([0, 1, 2, 3] * 25, MulticlassClassification()),
        ([10, 20, 35, 40] * 25, Regression()),
    ],
    ids=["numbers", "0 and 1", "booleans", "yes and no", "two words", "three words", "codes", "few numbers"],
)
def test_the_task_is_what_the_target_holds(made, values, task):
    assert made(columns(y=values), "y")[0].task == task


def test_what_cannot_be_known_is_asked_and_the_answer_is_taken(made):
    asked = []

    def ask(question, choices):
        asked.append((question, list(choices)))
        return choices[-1]

    spec, _, _, _ = made(columns(y=[0, 1, 2, 3] * 25), "y", ask)
    assert asked == [("'y' is a whole number from 0 to 3. What is to be predicted?", ["a class", "a number"])]
    assert spec.task == Regression()


def test_what_can_be_known_is_not_asked(made):
    made(
        orders(), "price", lambda question, choices: choices[0] if "row came to be" in question else never(question, 0)
    )


def test_a_long_tail_upwards_is_learned_as_its_logarithm(made):
    spec, _, _, _ = made(columns(y=np.exp(np.random.default_rng(1).normal(5, 1, 300))), "y")

    assert spec.metric == "rmsle"
    assert all(type(one).__name__ == "TransformedTargetRegressor" for one in spec.candidates.values())


def test_the_gates_threshold_is_a_little_better_than_guessing(made):
    values = [3.0, 7.0, 11.0, 27.0] * 30
    spec, _, _, _ = made(columns(y=values), "y")

    assert spec.metric == "rmse"
    assert spec.gate.at_most == pytest.approx(0.95 * np.std(values), rel=0.01)


def test_rows_about_the_same_customer_are_held_out_together(made):
    rng = np.random.default_rng(0)
    frame = columns(customer_id=[f"c{number}" for number in rng.integers(0, 150, 600)], y=rng.normal(size=600))
    spec, _, _, _ = made(frame, "y")

    assert (spec.group, spec.features) == ("customer_id", ("x",))


def test_a_parquet_file_is_read_as_it_is(checkout):
    frame = columns(day=pd.date_range("2024-01-01", periods=100), y=np.arange(100.0))
    frame.to_parquet(checkout / "data.parquet")
    said = begin(checkout, "data.parquet", "y", "mine", False, likely)

    assert said.time == "day"
    spec = imported(checkout / "pipeline/models/mine.py").spec
    assert type(spec.source).__name__ == "Parquet"
    assert spec.time == "day"


# The command, and the whole loop.


def test_the_command_says_that_nobody_was_asked_writes_both_files_and_refuses_to_do_it_twice(tmp_path):
    project = copy_of_the_project(tmp_path / "project", "")
    project.write("sales.csv", "x,y\n" + "\n".join(f"{row},{row % 3}" for row in range(120)))

    code, out, err = project.evergreen("init", "sales.csv", "--target", "y", "--name", "sales")
    assert (code, err) == (0, "")
    assert "not a terminal: used default answers (see above)" in out
    assert "wrote     pipeline/models/sales.py" in out
    code, said = project.json("init", "sales.csv", "--target", "y", "--name", "sales")
    assert (code, said["error"]["type"]) == (2, "UsageError")
    code, said = project.json("init", "sales.csv", "--target", "z", "--name", "other")
    assert (code, said["error"]["type"]) == (1, "DataError")
    code, said = project.json("init", "sales.csv", "--target", "y", "--name", "sales", "--force")
    assert (code, said["task"], said["files"]) == (
        0,
        "multiclass",
        ["pipeline/models/sales.py", "expectations/suites/sales.py"],
    )


def bundled(name):
    data = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = data.frame
    return (
        frame.assign(target=[data.target_names[code] for code in frame["target"]])
        if name in ("iris", "wine")
        else frame
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *((name, "target") for name in ("iris", "wine", "breast_cancer", "diabetes", "digits")),
        ("house_prices.csv", "SalePrice"),
        ("ames_sales.csv", "SalePrice"),
    ],
)
def test_init_then_run_releases_a_compiled_model_of_a_real_table(name, wanted, tmp_path, prefect_server):
    path = DATA / name
    if name.endswith(".csv") and not path.exists():
        pytest.skip(f"{path} is not there")
    project = copy_of_the_project(tmp_path / "project", prefect_server)
    if not name.endswith(".csv"):
        path = project.folder / "data.csv"
        bundled(name).to_csv(path, index=False)

    assert project.evergreen("init", str(path), "--target", wanted, "--name", "mine", "--yes")[0] == 0
    code, outcome = project.json("run", "mine")
    assert (code, outcome["outcome"]) == (0, "released"), outcome
    assert outcome["warnings"] == []
    answers = project.json("status", "mine")[1]["models"][0]["release"]["answers"]
    assert answers.startswith("by the compiled plan")
