"""A validation report as one HTML file without scripts or external files; light or dark like the reader's system."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from expectations.report import Report, RuleResult
from pipeline.drift import DRIFT_HEADINGS, ColumnDrift, DriftReport, Histogram, drift_cells

MAX_HISTOGRAMS = 24
"""Maximum number of drifted columns with a histogram, the worst ones."""
MAX_COLUMNS = 60
"""Maximum number of columns in the table of drift, those farthest beyond their thresholds."""
BAR, LABEL, WIDTH = 7, 110, 320
"""Sizes in a histogram: the height of a bar, the width of its name, and the whole width."""

STYLE = """
:root { color-scheme: light dark; --edge: #d0d4d9; --dim: #5c6370; --now: #2a6f97 }
:root { --good: #1a7f37; --bad: #b3261e; --note: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --edge: #3b4048; --dim: #a0a7b3; --now: #5aa9d6 }
  :root { --good: #57c773; --bad: #ff8a80; --note: #e0b050 }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--edge); padding: .3rem .6rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { overflow-wrap: anywhere }
.drawn { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
figure { margin: 0 } svg { width: 100%; height: auto; font: 10px system-ui, sans-serif; fill: currentColor }
.then { fill: var(--dim) } .now { fill: var(--now) }
i { display: inline-block; width: .7em; height: .7em }
i.then { background: var(--dim) } i.now { background: var(--now) }
.dim { color: var(--dim) } .good { color: var(--good) } .bad { color: var(--bad) } .note { color: var(--note) }
"""


def page(report: Report, title: str, changes: DriftReport | None = None) -> str:
    """Return the report as a page: verdict, reasons, warnings with the rows set aside, and every rule, failed first.

    `changes` is the drift since the champion was trained, if it was compared. Its errors reject the data, too.
    """
    errors = changes.errors if changes else ()
    passed = report.passed and not errors
    verdict = '<strong class="good">passed</strong>' if passed else '<strong class="bad">rejected</strong>'
    held = sum(rule.passed for rule in report.rules)
    # Data that could not be read has no size.
    size = f"{report.rows:,} rows, {report.columns:,} columns; " if report.columns else ""
    return _whole(
        f"{title}: data {'passed' if passed else 'rejected'}",
        f"<h1>{escape(title)}: data {verdict}</h1>",
        f"<p>{size}{held:,} of {len(report.rules):,} rules hold.</p>",
        _list("Why it was rejected", "bad", [*report.reasons, *errors]),
        _list("Warnings", "note", report.warnings),
        *(_since(changes) if changes else ()),
        "<h2>Rules</h2>",
        _table(sorted(report.rules, key=lambda rule: rule.passed)),
    )


def broken_page(why: str, title: str) -> str:
    """Return a page for a broken check, which says nothing about the data."""
    return _whole(
        f"{title}: a check is broken",
        f'<h1>{escape(title)}: <strong class="note">a check is broken</strong></h1>',
        "<p>This says nothing about the data, which was neither passed nor rejected.</p>",
        f"<p><code>{escape(why)}</code></p>",
    )


def _whole(title: str, *parts: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        "</head>\n<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"
    )


def _since(changes: DriftReport) -> Iterable[str]:
    """Yield the drift since the champion: sentences, histograms of drifted columns, and a table of all columns."""
    if changes.incomparable:
        yield f'<p class="dim">Not compared with a champion: {escape(changes.incomparable)}.</p>'
        return
    yield f"<h2>Since release {changes.since}</h2>"
    yield f"<p>{len(changes.drifted):,} of {len(changes.columns):,} columns drifted.</p>"
    if changes.notes:
        yield "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in changes.notes) + "\n</ul>"
    drawn = [(column.column, column.histogram) for column in changes.drifted if column.histogram][:MAX_HISTOGRAMS]
    if drawn:
        yield '<p><i class="then"></i> then, <i class="now"></i> now: shares of the values</p>'
        yield '<div class="drawn">\n' + "\n".join(_histogram(*pair) for pair in drawn) + "\n</div>"
    if changes.columns:
        yield _scrolled("Columns", ("drifted", *DRIFT_HEADINGS), map(_drift_row, changes.columns[:MAX_COLUMNS]))


def _drift_row(column: ColumnDrift) -> str:
    drifted = '<td class="note">yes</td>' if column.drifted else '<td class="good">no</td>'
    name, test, *numbers = map(escape, drift_cells(column))
    words = f"<td>{name}</td><td>{test}</td>"
    return f"<tr>{drifted}{words}" + "".join(f'<td class="number">{cell}</td>' for cell in numbers) + "</tr>"


def _histogram(column: str, histogram: Histogram) -> str:
    """Return a histogram as SVG: two bars for each category or range, then above now."""
    largest = max(*histogram.then, *histogram.now) or 1.0
    parts = []
    for place, (bar, then, now) in enumerate(zip(histogram.bars, histogram.then, histogram.now, strict=True)):
        top = place * (2 * BAR + 4)
        name = escape(bar if len(bar) <= 18 else f"{bar[:17]}…")
        parts.append(f'<text x="{LABEL - 6}" y="{top + BAR + 4}" text-anchor="end">{name}</text>')
        for side, share, y in (("then", then, top), ("now", now, top + BAR)):
            width = (WIDTH - LABEL) * share / largest
            tooltip = f"<title>{escape(bar)}, {side}: {share:.1%}</title>"
            parts.append(
                f'<rect class="{side}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}">{tooltip}</rect>'
            )
    height = len(histogram.bars) * (2 * BAR + 4)
    attributes = f'role="img" aria-label="{escape(column)}, then and now"'
    return (
        f"<figure><figcaption>{escape(column)}</figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {height}" {attributes}>{"".join(parts)}</svg></figure>'
    )


def _list(heading: str, css_class: str, sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<h2 class="{css_class}">{heading}</h2>\n<ul>\n{items}\n</ul>'


def _table(rules: Iterable[RuleResult]) -> str:
    return _scrolled(
        "Rules", ("held", "rule", "severity", "found", "asked for", "unexpected", "such as"), map(_row, rules)
    )


def _scrolled(label: str, heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n{table}\n</div>'


def _row(rule: RuleResult) -> str:
    css_class = {"error": "bad"}.get(rule.severity, "note")
    held = '<td class="good">yes</td>' if rule.passed else f'<td class="{css_class}">no</td>'
    count = ""
    if rule.unexpected_count is not None and rule.unexpected_share is not None:
        count = f"{rule.unexpected_count:,} ({100 * rule.unexpected_share:.3g}%)"
    cells = [escape(rule.rule), escape(rule.severity), _value(rule.observed), _value(rule.threshold)]
    examples = ", ".join(map(_value, rule.examples))
    words = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr>{held}{words}<td class="number">{count}</td><td>{examples}</td></tr>'


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{escape(str(name).replace('_', ' '))} {_value(part)}" for name, part in value.items())
    text = json.dumps(value, ensure_ascii=False)
    return f"<code>{escape(text if len(text) <= 200 else text[:197] + '...')}</code>"
