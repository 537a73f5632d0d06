import pytest

from pipeline.run_digests import artifact_folder, same_model, trained_folder, work_needed

NOW = {
    "snapshot": "rows",
    "spec": "spec",
    "code": "code",
    "verdict": "gate",
    "package": "limits",
    "serving": "parsers",
    "suite": "rules",
}


@pytest.mark.parametrize(
    ("last", "champion", "work"),
    [
        (NOW, NOW, "nothing"),
        (None, None, "train"),
        (None, NOW, "train"),
        (NOW | {"snapshot": "other"}, NOW, "train"),
        (NOW | {"spec": "other"}, NOW, "train"),
        (NOW | {"code": "other"}, NOW, "train"),
        (NOW | {"code": "other", "verdict": "other", "serving": "other"}, NOW, "train"),
        (NOW | {"verdict": "other"}, NOW, "judge"),
        (NOW | {"verdict": "other"}, NOW | {"serving": "other"}, "judge"),
        (NOW | {"suite": "other"}, NOW, "judge"),
        (NOW, NOW | {"package": "other"}, "repackage"),
        (NOW, NOW | {"serving": "other"}, "repackage"),
        # The last run kept a champion that was trained on other rows: its package is the one that answers.
        (NOW, NOW | {"snapshot": "earlier", "serving": "other"}, "repackage"),
        # What it was trained with is not here any more.
        (NOW, NOW | {"code": "earlier", "serving": "other"}, "nothing"),
        # No champion has no package.
        (NOW | {"serving": "other"}, None, "nothing"),
        # What the last run's package would have been is nothing that a verdict is about.
        (NOW | {"serving": "other"}, NOW, "nothing"),
    ],
)
def test_what_differs_says_what_is_to_be_done(last, champion, work):
    assert work_needed(last, champion, NOW) == work


@pytest.mark.parametrize(
    ("then", "now", "work"),
    [
        # Rows were set aside then; before they are today, what was read is compared.
        (NOW | {"snapshot": "left", "ingested": "read"}, NOW | {"snapshot": "read"}, "nothing"),
        # Other bad rows around the same good ones.
        (NOW | {"snapshot": "left", "ingested": "read"}, NOW | {"snapshot": "left", "ingested": "other"}, "nothing"),
        (NOW | {"snapshot": "left", "ingested": "read"}, NOW | {"snapshot": "fewer", "ingested": "other"}, "train"),
    ],
)
def test_rows_are_the_same_when_what_was_read_is_or_what_is_left_of_it(then, now, work):
    assert work_needed(then, None, now) == work
    assert same_model(then, now) == (work == "nothing")


@pytest.mark.parametrize("name", ["verdict", "package", "serving", "suite"])
def test_one_trained_folder_serves_every_verdict_and_package(name):
    assert trained_folder(NOW | {name: "other"}) == trained_folder(NOW)
    assert artifact_folder(NOW | {name: "other"}) != artifact_folder(NOW)


@pytest.mark.parametrize("name", ["snapshot", "spec", "code"])
def test_what_decides_a_model_is_trained_in_a_folder_of_its_own(name):
    assert trained_folder(NOW | {name: "other"}) != trained_folder(NOW)
    assert artifact_folder(NOW | {name: "other"}) != artifact_folder(NOW)
