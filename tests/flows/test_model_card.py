"""The model card: what it says of a release, that it shows no more, and that everybody can read it."""

import html
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from house_endpoints import in_process, regression
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge, SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from test_page import chromium, violations  # noqa: F401
from tiny import a_snapshot, a_spec

from bentos.ledger.releases import Release
from flows.reports import charts, model_card
from pipeline.artifact import load_artifact, write_artifact
from pipeline.evaluate import evaluate
from pipeline.gate import decide
from pipeline.predict import Answers, predict
from pipeline.schema import to_frame
from pipeline.snapshot import SnapshotFile
from pipeline.spec import BinaryClassification, Gate, MulticlassClassification
from pipeline.train import train

SCRIPT, CELL = "<script>alert('x')</script>", "</td><b>\"'&"


def houses(rows=300, seed=0):
    """Rows whose names and values would be markup, were they not escaped; 7654321 is a value that nothing else is."""
    rng = np.random.default_rng(seed)
    area, kind = rng.uniform(20, 100, rows).round(1), rng.choice([CELL, "plain"], rows)
    price = 3 * area + 50 * (kind == CELL) + rng.normal(0, 5, rows)
    secret = np.where(np.arange(rows) % 3 == 0, 7654321.0, 1234567.0)
    return pa.table(
        {
            "id": np.arange(rows),
            SCRIPT: area,
            "kind": kind,
            "secret": secret,
            "price": price,
            "dear": np.where(price > 200, "</p>dear", "cheap"),
            "size": np.array(["small", "mid", "large"])[np.digitize(area, [45, 75])],
        }
    )


def estimator(last):
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind"]), ("passthrough", [SCRIPT, "secret"])
    )
    return make_pipeline(columns, last)


REGRESSION = {
    "metric": "rmse",
    "gate": Gate(at_most=1e6, slices=("kind", "secret")),
    "candidates": {"ridge": estimator(Ridge())},
}
LABELS = {"candidates": {"logistic": estimator(LogisticRegression(max_iter=1000))}}
BINARY = LABELS | {
    "target": "dear",
    "task": BinaryClassification(positive="</p>dear"),
    "metric": "roc_auc",
    "gate": Gate(at_least=0.5),
}
MULTICLASS = LABELS | {
    "target": "size",
    "task": MulticlassClassification(),
    "metric": "accuracy",
    "gate": Gate(at_least=0.1),
}


def made(folder, **changes):
    """A release of houses, what it was trained on, and what it answers."""
    spec = a_spec(features=(SCRIPT, "kind", "secret"), **changes)
    snapshot = a_snapshot(houses(), folder)
    trained = train(spec, snapshot, folder / "trained", workers=1)
    evaluation = evaluate(spec, houses(), trained.rule, trained.estimator(), None)
    verdict = decide(evaluation, spec.gate)
    digests = {"snapshot": snapshot.digest, "spec": "s", "code": "c"}
    artifact = write_artifact(spec, snapshot, trained, evaluation, verdict, digests, ("numpy==1",), folder / "artifact")
    release = Release(
        model=spec.name,
        number=3,
        bento="houses:abc",
        digests=digests,
        verdict=verdict.to_dict(),
        evaluation=artifact.manifest["evaluation"],
        trial={"answers": 40, "milliseconds": {"p50": 1.5}},
        cause="schedule",
        reason="better",
        created="2024-05-06T07:08:09+00:00",
        replaced=2,
    )

    def answer(rows):
        return predict(trained.estimator(), to_frame(rows, artifact.schema.features))

    return release, artifact, answer


def page_of(release, artifact, answer, table=None, sensitive=(), **found):
    found = {"origin": "houses.csv", "validation": None, "drift": None, "beside": False} | found
    table = houses() if table is None else table
    return model_card.page(model_card.facts(release, artifact, table, answer, sensitive) | found)


class Parsed(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return made(tmp_path_factory.mktemp("regression"), **REGRESSION)


@pytest.mark.parametrize("changes", [REGRESSION, BINARY, MULTICLASS], ids=["regression", "binary", "multiclass"])
def test_every_kind_of_model_has_a_whole_card_in_which_nothing_of_the_data_is_markup(tmp_path, changes):
    page = page_of(*made(tmp_path, **changes))
    parsed = Parsed(page)
    for heading in (
        "Verdict", "Metrics", "Answers", "Features", "Candidates", "Data", "Checks", "Known limits", "How to call it",
    ):  # fmt: skip
        assert re.search(rf"<h2[^>]*>{heading}</h2>", page)
    assert SCRIPT in parsed.text
    assert CELL in parsed.text
    assert not parsed.tags & {"script", "b", "img", "link", "iframe"}
    assert re.findall(r'(?:src|href)="(?!#|validation\.html)', page) == []
    assert "url(" not in page
    assert "at least" in parsed.text or "at most" in parsed.text


def test_a_sensitive_column_shows_no_value(house):
    assert "7654321" in Parsed(page_of(*house)).text
    page = page_of(*house, sensitive=("secret",))
    assert not re.search("7654321|7,654,321|1234567|1,234,567", page)
    assert "Made up, since sensitive: secret." in Parsed(page).text


def test_a_sensitive_target_has_no_charts_of_its_answers(tmp_path):
    page = page_of(*made(tmp_path, **BINARY), sensitive=("dear",))
    assert "dear is sensitive: answers are not shown." in page
    assert "&lt;/p&gt;dear" not in page


def test_what_is_gone_is_said_and_the_rest_is_there(house):
    release, artifact, answer = house
    found = {"origin": None, "validation": None, "drift": None, "beside": False}
    page = model_card.page(model_card.facts(release, artifact, None, answer, ()) | found)
    assert "which is gone from this machine" in page
    assert "nothing can be drawn" in page
    assert "The report of the run that validated its data is gone." in page
    assert "Importance of features" in page


def test_a_model_that_answers_nothing_here_has_a_card_all_the_same(house):
    def broken(_rows):
        raise RuntimeError("another Python")

    release, artifact, _ = house
    assert "nothing can be drawn" in page_of(release, artifact, broken)


def test_checks_show_what_was_set_aside_what_warned_and_what_drifted(house):
    rule = {"rule": "area < 9 & more", "passed": False, "severity": "warn"}
    validation = {"rules": [rule], "warnings": ["<i>odd</i>"], "quarantine": {"rows": 7, "share": 0.05}}
    column = {
        "column": CELL, "role": "feature", "nulls_threshold": 0.05,
        "test": "chi-squared", "value": 9.5, "threshold": 3.0, "nulls_then": 0.0, "nulls_now": 0.25,
        "drifted": True,
    }  # fmt: skip
    drift = {"incomparable": None, "columns": [column], "notes": [], "since": 2}
    text = Parsed(page_of(*house, validation=validation, drift=drift, beside=True)).text
    assert "0 of 1 rules of the suite hold; 7 rows (5.0%) were set aside." in text
    assert "<i>odd</i>" in text
    assert re.search(r"chi-squared\s*9\.5\s*3\s*0\.0%\s*25\.0%", text)


def test_a_champion_stands_beside_with_its_interval_and_slices(house):
    release, artifact, answer = house
    changes = {
        "champion": dict.fromkeys(release.evaluation["challenger"], 12.5),
        "champion_release": 2,
        "against_champion": {"difference": -2.5, "low": -4.0, "high": 0.5, "confidence": 0.95},
        "slices": [
            {"column": "kind", "value": "a", "rows": 40, "challenger": 1.0, "champion": 2.0,
             "interval": {"difference": -1.0, "low": -2.0, "high": -0.5, "confidence": 0.975}},
            {"column": "kind", "value": "b", "rows": 2, "challenger": 9.0, "champion": 2.0, "interval": None},
        ],
    }  # fmt: skip
    beside = Release(**{**vars(release), "evaluation": {**release.evaluation, **changes}})
    text = Parsed(page_of(beside, artifact, answer)).text
    assert "rmse is 2.5 better than the champion, release 2: -2.5, with 95% confidence from -4 to +0.5." in text
    assert text.index("too few rows to judge") < text.index("-0.5"), "the worst slice comes first"
    assert "1 slices had too few held-out rows" in text


@pytest.mark.parametrize(
    ("changes", "sentence", "where"),
    [
        ({}, r"trained on \d+ rows; \d+ held out", "training"),
        ({"sample": 60}, r"trained on 60 rows, a stratified sample of \d+; \d+ held out", "all rows not held out"),
        (
            {"sample": 60, "epochs": 2, "candidates": {"sgd": estimator(SGDRegressor(eta0=1e-6))}},
            r"trained on \d+ rows in batches, 2 times over \(chosen, and its .* on a stratified sample of 60\);",
            "training",
        ),
    ],
)
def test_it_says_which_rows_the_model_was_trained_on_and_whose_values_it_shows(changes, sentence, where, tmp_path):
    text = Parsed(page_of(*made(tmp_path, **REGRESSION | changes))).text
    assert re.search(sentence, text)
    assert f"with what they held in {where} " in " ".join(text.split())


def test_columns_are_counted_once_by_what_they_are(house):
    # id is the key and price the target; dear and size are neither, and no features.
    assert (
        "7 columns: 3 features, the target price, key id; 2 others never reach the model"
        in Parsed(page_of(*house)).text
    )


def test_the_card_of_a_stored_snapshot_is_that_of_its_table(house, tmp_path):
    release, artifact, answer = house
    table = SnapshotFile(a_snapshot(houses(), tmp_path).path)
    assert page_of(release, artifact, answer, table) == page_of(release, artifact, answer)


def test_the_command_on_the_card_gets_the_answer_on_the_card(tmp_path):
    model = regression(tmp_path)
    artifact = load_artifact(model.folder / "artifact")
    (snapshot,) = tmp_path.glob("*.parquet")
    release = Release(
        "houses", 1, "houses:x", artifact.manifest["digests"], artifact.manifest["verdict"],
        artifact.manifest["evaluation"], {}, "person", "", "2024-05-06T07:08:09+00:00",
    )  # fmt: skip

    def answer(rows):
        return predict(model.estimator, to_frame(rows, artifact.schema.features))

    page = page_of(release, artifact, answer, SnapshotFile(snapshot))
    command = shlex.split(html.unescape(re.search(r'<pre id="curl">(.*?)</pre>', page, re.DOTALL)[1]))
    assert command[:3] == ["curl", "http://127.0.0.1:3000/predict", "--json"]
    with in_process(model, tmp_path / "log") as server:
        (said,) = server.send(command[3].encode()).json()["predictions"]
    assert f"It answers <strong>{model_card.format_number(said)}</strong> USD." in page


def test_calibration_compares_what_was_said_with_what_was_so():
    """Of 40 rows said 0.2, 10 were so: 5 points off; of 40 said 0.9, 36: none."""
    probability = np.repeat([0.2, 0.9], 40)
    truth = np.concatenate([np.arange(40) < 10, np.arange(40) < 36])
    found = model_card._calibration("of x", truth, probability)
    # Four groups of 20 rows: the first half of each kind holds the positives.
    assert "in the mean of 4 groups" in found["words"]
    assert found["drawn"].count("<circle") == 4


def test_of_many_labels_the_most_frequent_are_shown_and_the_others_together():
    labels = [f"l{number}" for number in range(20)]
    y = np.array(labels + ["l19"] * 5, dtype=object)
    found = model_card._confusion(y, Answers(y.copy(), tuple(labels)))
    assert len(found["labels"]) == model_card.MAX_LABELS
    assert (found["labels"][0], found["labels"][-1]) == ("l19", "(others)")
    assert found["counts"][0][0] == 6
    assert np.sum(found["counts"]) == 25


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ((1_880.0, 2_010.0), ["1900", "1950", "2000"]),
        ((0.0, 95_000.0), ["0", "20,000", "40,000", "60,000", "80,000"]),
        ((-0.004, 0.001), ["-0.004", "-0.003", "-0.002", "-0.001", "0", "0.001"]),
    ],
)
def test_ticks_are_round(ends, ticks):
    assert [word for _, word in charts.Scale(*ends).ticks()] == ticks


def test_a_scale_of_a_decade_is_logarithmic_and_one_of_a_single_value_has_room():
    scale = charts.scale_of([10.0, 1_000.0], maybe_logarithmic=True)
    assert scale.at(100.0) == pytest.approx(0.5)
    assert [value for value, _ in scale.ticks()] == [10, 20, 50, 100, 200, 500, 1_000]
    assert charts.scale_of([5.0, 5.0]).at(5.0) == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [REGRESSION, BINARY], ids=["regression", "binary"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_to_complain_of_in_a_card(tmp_path, chromium, changes, scheme, width):  # noqa: F811
    path = tmp_path / "card.html"
    path.write_text(page_of(*made(tmp_path, **changes)), encoding="utf-8")
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    asked, page = [], context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    for details in page.locator("summary").all():
        details.click()
    assert violations(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert asked == [path.as_uri()]
    context.close()
