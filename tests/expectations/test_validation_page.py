import re
from html.parser import HTMLParser

import pandas as pd
from great_expectations import expectations as gxe

from expectations.report_page import broken_page, page
from expectations.suite import Suite
from expectations.validate import validate
from pipeline.drift import ColumnDrift, DriftReport, Histogram

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Tags(HTMLParser):
    """Collects what a page holds, and fails on a tag that is not closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.names, self.attributes, self.text = [], set(), [], []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def report(sensitive=()):
    frame = pd.DataFrame({"x": [1, 2, 500, 4], "word": ["<b>", "a", "a", "a"]})
    return validate(
        frame,
        Suite(
            error=[gxe.ExpectColumnValuesToBeBetween(column="x", max_value=100)],
            warn=[gxe.ExpectColumnValuesToBeInSet(column="word", value_set=["a"])],
            quarantine=[gxe.ExpectColumnValuesToBeUnique(column="x")],
        ),
        sensitive,
    )


def test_the_page_says_the_verdict_why_and_value_and_threshold_of_each_rule():
    text = " ".join(read(page(report(), "houses")).text)
    assert "houses: data rejected" in text
    assert "column 'x' breaks the rule 'x is at most 100' in 1 of 4 values (25%), such as 500" in text
    assert "max value 100" in " ".join(text.split())
    assert "1 (25%)" in text
    assert "x is unique" in text


def test_the_page_needs_nothing_from_elsewhere_runs_nothing_and_has_a_dark_side():
    html = page(report(), "houses")
    tags = read(html)
    assert not {"script", "link", "img", "iframe", "object"} & tags.names
    assert not [name for name, _ in tags.attributes if name in ("src", "href") or name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html


def test_what_the_data_holds_is_never_markup():
    html = page(report(), "<i>houses")
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;b&gt;" in html


def test_no_value_of_a_sensitive_column_is_on_the_page():
    text = " ".join(read(page(report(sensitive=("x",)), "houses")).text)
    assert "500" not in text
    assert "in 1 of 4 values (25%)" in text


def changes(**changed):
    nulls = {"nulls_then": 0.0, "nulls_now": 0.25, "nulls_threshold": 0.05}
    histogram = Histogram(("<red>", "blue"), (0.25, 0.75), (0.5, 0.5))
    moved = ColumnDrift("colour <of>", "feature", "chi-squared", 20.0, 10.0, histogram=histogram, new=3, **nulls)
    still = ColumnDrift("size", "feature", "Kolmogorov-Smirnov", 0.1, 0.3, **{**nulls, "nulls_now": 0.0})
    return DriftReport(since=7, columns=(moved, still), **changed)


def test_the_page_shows_each_drifted_feature_then_and_now_with_value_and_threshold():
    html = page(report(), "houses", changes(notes=("3 new categories",)))
    tags = read(html)
    text = " ".join(tags.text)
    assert "Since release 7" in text
    assert "1 of 2 columns drifted" in text
    for said in ("3 new categories", "chi-squared", "<red>, then: 25.0%", "<red>, now: 50.0%", "blue, then: 75.0%"):
        assert said in text
    assert re.findall(r'<rect class="(then|now)"', html) == ["then", "now", "then", "now"]
    assert ("aria-label", "colour <of>, then and now") in tags.attributes
    assert "<red>" not in html
    assert not {"script", "img"} & tags.names


def test_what_drifted_too_far_rejects_the_page_and_without_a_champion_it_says_so():
    good = validate(pd.DataFrame({"x": [1]}), Suite(error=[gxe.ExpectColumnValuesToBeBetween(column="x", min_value=0)]))
    assert "data passed" in page(good, "houses", changes())
    refused = " ".join(read(page(good, "houses", changes(errors=("column 'x' drifted",)))).text)
    assert "data rejected" in refused
    assert "column 'x' drifted" in refused
    alone = page(good, "houses", DriftReport(since=None, incomparable="there is no champion to compare with"))
    assert "there is no champion to compare with" in alone


def test_a_broken_check_is_never_shown_as_bad_data():
    text = " ".join(read(broken_page("the check 'x' crashed: <b>", "houses")).text)
    assert "a check is broken" in text
    assert "says nothing about the data" in text
    assert "the check 'x' crashed: <b>" in text
    assert "data rejected" not in text
