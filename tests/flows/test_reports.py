from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bentos.ledger.releases import Release
from bentos.trial import Trial
from expectations.report import Report, RuleResult
from flows.outcome import Outcome
from flows.reports import run as reports
from pipeline.drift import ColumnDrift, DriftReport
from pipeline.evaluate import Evaluation, Interval, Slice
from pipeline.gate import Check, Verdict
from pipeline.split import Rule
from pipeline.train import Candidate, Trained

TRIAL = Trial(True, (), 168, 4.0, {"p50": 4.12, "p95": 7.934, "max": 20.0})
VERDICT = Verdict(False, (Check(False, "rmse 9 is not at most the threshold 8"), Check(True, "better than guessing")))
REPORT = Report(
    rows=1_460,
    columns=81,
    rules=(RuleResult(rule="Id is unique", expectation="", column="Id", severity="error", passed=True),),
)


def trained(*candidates, chosen="lasso"):
    rule = Rule("houses", ("id",), 0.2)
    return Trained(Path("trained"), chosen, candidates, rule, 1_170, 290, "d" * 64, created="2024-05-01T00:00:00+00:00")


def evaluation(**changes):
    facts = {
        "metric": "rmse",
        "greater_is_better": False,
        "rows": 290,
        "challenger": {"mae": 14_905.4, "rmse": 30_541.2, "r2": 0.889235},
        "baseline": {"mae": 62_926.0, "rmse": 93_045.0, "r2": -0.02},
        "against_baseline": Interval(-62_503.8, -70_000.0, -50_000.0),
        "champion": {"mae": 15_331.0, "rmse": 29_929.0, "r2": 0.9},
        "champion_release": 3,
        "against_champion": Interval(612.2, -100.5, 1_300.0),
    }
    return Evaluation(**{**facts, **changes})


def release(replaced=3):
    digests = {"snapshot": "ab" * 32}
    return Release("house_prices", 4, "house_prices:3f2a", digests, {}, {}, {}, "schedule", "better", "now", replaced)


def rows(markdown, header):
    """The cells below the header that begins so, row by row."""
    lines = markdown.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header}"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (999.96, "1000"),
        (14_905.4, "14,905"),
        (-1_234_567.8, "-1,234,568"),
        (0.0, "0"),
        (0.0000123456, "0.00001235"),
        (None, "undefined"),
    ],
)
def test_numbers_are_short_and_large_ones_grouped(value, shown):
    assert reports.format_number(value) == shown


def test_what_changed_since_the_champion_shows_each_column_with_its_threshold():
    moved = ColumnDrift("LotArea", "feature", "Kolmogorov-Smirnov", 0.31, 0.09, 0.0, 0.0, 0.05, new=2)
    empty = ColumnDrift("Alley|x", "feature", None, None, None, 1.0, 0.9, 0.05)
    still = ColumnDrift("YrSold", "feature", "Jensen-Shannon distance", 0.01, 0.1, 0.0, 0.0, 0.05)
    found = DriftReport(4, notes=("2 of 3 features drifted",), columns=(moved, empty, still), sampled=100_000)
    said = reports.changes(found, "drift.png")
    assert said.startswith("2 of 3 columns drifted since release 4 was trained. Numbers are compared on 100,000 rows")
    assert "![histograms then and now](drift.png)" in said
    assert rows(said, "column") == [
        ["**LotArea**", "Kolmogorov-Smirnov", "**0.31**", "0.09", "0.0%", "0.0%", "2"],
        ["**Alley\\|x**", "no values to compare", "", "", "100.0%", "90.0%", ""],
        ["YrSold", "Jensen-Shannon distance", "0.01", "0.1", "0.0%", "0.0%", ""],
    ]
    assert reports.changes(DriftReport(4, errors=("column 'x' is gone",))).startswith(
        "**Data rejected**: 0 of 0 columns"
    )
    assert reports.changes(DriftReport(None, incomparable="there is no champion")).startswith(
        "**Not compared**: there is no"
    )


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        ({"sampled_from": 5_000}, "Fitted on 1,170 rows, a stratified sample of 5,000; 290 rows held out."),
        ({"epochs": 1, "compared_on": 1_170}, "Fitted on 1,170 rows in batches, once; 290 rows held out."),
    ],
)
def test_it_is_said_which_rows_were_fitted(drawn, sentence):
    assert sentence in reports.candidates(replace(trained(Candidate("lasso", (0.1, 0.3))), **drawn), "rmsle")


def test_candidates_are_ranked_best_first_with_those_left_out_last():
    left_out = Candidate("forest", error="ValueError: a | b\nand more", seconds=0.25)
    noisy = Candidate("boosting", (0.2, 0.4), 1_234.5, notes=("ConvergenceWarning: not <b>yet</b>",))
    shown = reports.candidates(trained(left_out, noisy, Candidate("lasso", (0.1, 0.3), 1.5)), "rmsle")
    assert shown.startswith("**lasso was chosen** of 3 candidates: rmsle 0.2 ± 0.1 over 2 folds. ")
    assert rows(shown, "candidate") == [
        ["**lasso**", "0.2 ± 0.1", "0.1 to 0.3", "1.5"],
        ["boosting", "0.3 ± 0.1", "0.2 to 0.4", "1,234.5"],
        ["forest", "left out", "", "0.2"],
    ]
    assert "Fitted on 1,170 rows; 290 rows held out." in shown
    assert "Less rmsle is better." in shown
    assert r"- forest was left out: ValueError: a \| b and more" in shown
    assert r"- boosting warned: ConvergenceWarning: not \<b>yet\</b>" in shown


def test_where_more_is_better_the_largest_is_first():
    shown = reports.candidates(trained(Candidate("a", (0.6, 0.7)), Candidate("lasso", (0.8, 0.9))), "roc_auc")
    assert [cells[0] for cells in rows(shown, "candidate")] == ["**lasso**", "a"]
    assert rows(shown, "candidate")[0][2] == "0.9 to 0.8"


def test_a_comparison_shows_every_metric_the_one_that_judges_first():
    worth = {"unit": "USD per sale", "challenger": 9_390.6, "champion": 10_121.0, "baseline": 41_525.2}
    shown = reports.comparison(evaluation(value=worth))
    assert rows(shown, "metric") == [
        ["**rmse**", "less", "30,541", "29,929", "93,045"],
        ["mae", "less", "14,905", "15,331", "62,926"],
        ["r2", "more", "0.8892", "0.9", "-0.02"],
        ["value, USD per sale", "", "9,391", "10,121", "41,525"],
    ]


def test_differences_are_said_as_better_or_worse():
    shown = reports.comparison(evaluation())
    assert shown.startswith("**rmse 30,541** on 290 held-out rows: 612.2 worse than the champion, release 3.\n\n")
    assert (
        "- By rmse the challenger is 612.2 worse than the champion, release 3; with 95% confidence it is between "
        "1,300 worse and 100.5 better.\n"
    ) in shown
    assert (
        "- By rmse the challenger is 62,504 better than the baseline, which always guesses; with 95% confidence it is "
        "between 50,000 better and 70,000 better.\n"
    ) in shown


def test_where_more_is_better_a_greater_number_is_better():
    auc = evaluation(
        metric="roc_auc",
        greater_is_better=True,
        challenger={"roc_auc": 0.95},
        champion={"roc_auc": 0.94},
        baseline={"roc_auc": 0.5},
        against_champion=Interval(0.01, -0.02, 0.03),
    )
    shown = reports.comparison(auc)
    assert "the challenger is 0.01 better than the champion, release 3" in shown
    assert "between 0.02 worse and 0.03 better" in shown


def test_without_a_champion_there_is_no_column_for_it():
    shown = reports.comparison(evaluation(champion=None, champion_release=None, against_champion=None))
    assert shown.startswith("**rmse 30,541** on 290 held-out rows: there is no champion yet.\n")
    assert rows(shown, "metric")[0] == ["**rmse**", "less", "30,541", "93,045"]


def test_a_champion_that_cannot_be_compared_says_why():
    why = "release 3 requires 'LotArea', which the data no longer has"
    shown = reports.comparison(evaluation(champion=None, against_champion=None, incomparable=why))
    assert f"not compared with the champion, release 3: {why}" in shown


def test_slices_are_judged_ones_first_and_the_worst_of_them_on_top():
    sure = Interval(-0.01, -0.02, 0.005)
    slices = (
        Slice("Zone", "few", 2, 0.9, 0.1),
        Slice("Zone", "better", 30, 0.1, 0.11, sure),
        Slice("Zone", "a|b\n*c*", 1_200, 0.3, 0.2, Interval(0.1, 0.05, 0.15)),
        Slice("Zone", "lost", 1, None, 0.1),
        Slice("Street", "Pave", 31, 0.1, 0.1, sure),
    )
    shown = reports.comparison(evaluation(slices=slices))
    assert "3 of 5 slices have rows enough to be judged against the champion." in shown
    assert rows(shown, "Zone") == [
        [r"a\|b \*c\*", "1,200", "0.3", "0.2", "0.1 worse", "0.15 worse and 0.05 worse"],
        ["better", "30", "0.1", "0.11", "0.01 better", "0.005 worse and 0.02 better"],
        ["few", "2", "0.9", "0.1", "0.8 worse", "too few rows"],
        ["lost", "1", "undefined", "0.1", "", "undefined"],
    ]
    assert [cells[0] for cells in rows(shown, "Street")] == ["Pave"]


def test_what_makes_no_difference_is_no_worse():
    same = Interval(0.0, 0.0, 0.0)
    shown = reports.comparison(
        evaluation(against_champion=same, slices=(Slice("Zone", "a", 30, 0.1 + 0.2, 0.3, same),))
    )
    assert "held-out rows: no worse than the champion" in shown
    assert "is no worse than the champion, release 3, whichever of the rows are drawn." in shown
    assert rows(shown, "Zone") == [["a", "30", "0.3", "0.3", "no worse", "no worse"]]


def test_slices_without_a_champion_show_where_the_challenger_is_weak():
    slices = (Slice("Zone", "good", 30, 0.1), Slice("Zone", "weak", 30, 0.3))
    changes = {"champion": None, "champion_release": None, "against_champion": None, "slices": slices}
    assert rows(reports.comparison(evaluation(**changes)), "Zone") == [["weak", "30", "0.3"], ["good", "30", "0.1"]]


def test_many_slices_are_cut_and_it_is_said():
    slices = tuple(Slice("Zip", str(number), 30, 0.1, 0.1) for number in range(45))
    shown = reports.comparison(evaluation(slices=slices))
    assert len(rows(shown, "Zip")) == 40
    assert "5 more of Zip are not shown." in shown


def test_a_verdict_shows_the_sentence_of_every_condition():
    assert reports.verdict(VERDICT) == (
        "**Refused**: 1 of 2 conditions hold.\n\n"
        "- **refused**: rmse 9 is not at most the threshold 8\n"
        "- passed: better than guessing\n"
    )
    passed = reports.verdict(Verdict(True, (Check(True, "one"), Check(True, "two"))))
    assert passed == "**Passed**: 2 of 2 conditions hold.\n\n- passed: one\n- passed: two\n"


def test_a_trial_says_how_many_answers_were_compared_and_how_fast_they_came():
    said = "168 answers exactly as trained, a row alone in 4.12 ms (median), 7.934 ms (95th percentile)"
    assert reports.trial(TRIAL) == f"**Trial passed**: {said}.\n\nThe package was ready after 4.0 s.\n"


def test_a_failed_trial_says_what_was_wrong():
    shown = reports.trial(Trial(False, ("the package did not become ready;\nits log ends: `boom`",)))
    problem = r"the package did not become ready; its log ends: \`boom\`"
    assert shown == f"**Trial failed**: no answer was compared.\n\n- {problem}\n"
    differing = reports.trial(Trial(False, ("row 3: 1.0 where the trained pipeline says 2.0",), 12))
    assert differing.startswith("**Trial failed**: 12 answers compared.\n")


def test_a_release_says_how_to_serve_and_how_to_undo_it():
    shown = reports.release(release(), TRIAL)
    assert shown.startswith("**Release 4 of house_prices is champion.** It replaced release 3.\n")
    assert "- Bento: `house_prices:3f2a`\n" in shown
    assert "- digests: snapshot `abababababab`\n" in shown
    assert shown.endswith("```\nevergreen serve house_prices\nevergreen rollback house_prices\n```\n")


def test_a_release_shows_its_reasons_one_by_one_and_links_to_its_pages():
    judged = replace(release(), verdict={"reasons": ["better; much", "not worse"]})
    shown = reports.release(judged, TRIAL, "released", {"model card": "card.html", "endpoint": "http://x/"})
    assert "\n\n[model card](card.html) · [endpoint](http://x/)\n\nWhy:\n\n- better; much\n- not worse\n" in shown


def test_a_release_that_is_no_champion_yet_says_so_and_how_it_becomes_one():
    assert reports.release(release(), TRIAL, "canary").startswith(
        "**Release 4 of house_prices is a canary.** Beside it"
    )
    waiting = reports.release(release(), TRIAL, "awaiting-approval")
    assert waiting.startswith("**Release 4 of house_prices awaits approval.** Until then release 3 is served.")
    assert waiting.endswith("```\nevergreen promote house_prices 4\n```\n")


def test_an_outcome_says_what_a_run_came_to_and_how_long_each_step_took():
    metrics = {"challenger": {"rmse": 30_541.2}, "champion": None, "baseline": {"rmse": 93_045.0}}
    ended = Outcome("house_prices", "kept", ("may be worse",), rows=1_460, metrics=metrics, seconds={"train": 12.34})
    shown = reports.outcome(ended, {"validation report": "http://x/validation.html"})
    assert shown.startswith("**house_prices: kept**\n\n[validation report](http://x/validation.html)\n\n- may be worse")
    assert rows(shown, "held-out rows") == [["rmse", "30,541", "93,045"]]
    assert rows(shown, "step") == [["train", "12.3"]]
    made = reports.outcome(Outcome("house_prices", "released", release=14), {})
    assert made.startswith("**house_prices: released as 14**\n")


def test_a_first_release_cannot_be_undone():
    shown = reports.release(release(replaced=None), TRIAL)
    assert "It replaced no other." in shown
    assert "rollback" not in shown


def test_names_from_the_data_are_shown_as_they_are():
    name = "_a_ [x](y) `z` <i> & log_loss"
    shown = reports.candidates(trained(Candidate(name, (1.0,)), chosen=name), "rmse")
    assert r"**\_a\_ \[x](y) \`z\` \<i> \& log_loss**" in shown


def test_the_report_of_a_run_shows_what_it_got_to():
    outcome = Outcome("house_prices", "data-rejected", ("column 'Id' | is\nnot unique",), snapshot="ede40e", rows=3)
    shown = reports.run_report(outcome, {"ingest": object(), "validate": REPORT})
    assert shown.startswith("# house_prices: data-rejected\n\n- column 'Id' \\| is not unique\n\n")
    assert [line for line in shown.splitlines() if line.startswith("#")] == [
        "# house_prices: data-rejected",
        "## Data",
        "### Passed",
    ]


def test_the_report_of_a_whole_run_shows_all_and_the_plots_from_beside_it():
    outcome = Outcome("house_prices", "released", ("better",), release=4, seconds={"ingest": 0.123, "train": 1_500.0})
    results = {
        "validate": REPORT,
        "train": trained(Candidate("lasso", (0.1,))),
        "evaluate": evaluation(),
        "gate": VERDICT,
        "plots": {"residuals": b"png"},
        "trial": TRIAL,
        "release": release(),
    }
    shown = reports.run_report(outcome, results)
    headings = [line[3:] for line in shown.splitlines() if line.startswith("## ")]
    assert headings == ["Release", "Verdict", "Comparison", "Plots", "Candidates", "Trial", "Data"]
    assert '<img src="residuals.png" alt="residuals" width="440">' in shown
    assert shown.endswith("The steps took: ingest 0.1 s, train 1,500.0 s.\n")


def test_a_flow_run_shows_its_reports_in_prefect(prefect_server, run_python, tmp_path):
    code = """
from prefect import flow, runtime
from flows.reports import run as reports
from test_reports import TRIAL, VERDICT

@flow
def publish():
    reports.publish_verdict("toy_model", VERDICT)
    reports.publish_trial("toy_model", TRIAL)
    reports.publish_plots("toy_model", {"residuals": b"png"})
    return str(runtime.flow_run.id)

print(publish())
"""
    run = run_python(code, PREFECT_API_URL=prefect_server, PREFECT_HOME=str(tmp_path), PREFECT_LOGGING_LEVEL="ERROR")
    query = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    found = httpx.post(f"{prefect_server}/artifacts/filter", json=query).raise_for_status().json()
    shown = {one["key"]: (one["type"], one["description"], one["data"]) for one in found}
    verdict = "- **refused**: rmse 9 is not at most the threshold 8\n- passed: better than guessing\n"
    assert shown == {
        "toy-model-verdict": ("markdown", "**Refused**: 1 of 2 conditions hold.", verdict),
        "toy-model-trial": ("markdown", *reports.trial(TRIAL).split("\n\n")),
        "toy-model-plots": (
            "markdown",
            "The challenger on the held-out rows.",
            '<img src="data:image/png;base64,cG5n" alt="residuals" width="440">\n',
        ),
    }
