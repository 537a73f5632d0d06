"""A report as one HTML file for people: no script, nothing from elsewhere, light or dark as the reader's system is."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from expectations.report import Report, RuleResult
from pipeline.drift import DRIFT_HEADINGS, ColumnDrift, DriftReport, Histogram, drift_cells

MAX_HISTOGRAMS = 24
"""So many drifted columns are drawn, the worst ones."""
MAX_COLUMNS = 60
"""Of so many columns, the farthest beyond their thresholds, a page tells how far each moved."""
BAR, LABEL, WIDTH = 7, 110, 320
"""Sizes in a histogram: how high a bar is, and how much of the width is for its name."""

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
    """Return the report as a whole page: the verdict, why, what was set aside, and every rule, failed ones first.

    `changes` is what changed since the champion was trained, where that was compared: it can refuse the data, too.
    """
    errors = changes.errors if changes else ()
    passed = report.passed and not errors
    verdict = '<strong class="good">passed</strong>' if passed else '<strong class="bad">rejected</strong>'
    held = sum(rule.passed for rule in report.rules)
    # What could not even be read has no size.
    size = f"{report.rows:,} rows, {report.columns:,} columns; " if report.columns else ""
    return _whole(
        f"{title}: data {'passed' if passed else 'rejected'}",
        f"<h1>{escape(title)}: data {verdict}</h1>",
        f"<p>{size}{held:,} of {len(report.rules):,} rules hold.</p>",
        _listed("Why it was rejected", "bad", [*report.reasons, *errors]),
        _listed("Warnings", "note", report.warnings),
        *(_since(changes) if changes else ()),
        "<h2>Rules</h2>",
        _table(sorted(report.rules, key=lambda rule: rule.passed)),
    )


def broken_page(why: str, title: str) -> str:
    """Return a page that says that a check is broken, and so nothing of the data."""
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
    """Yield what changed since the champion: sentences, histograms of what drifted, and how far each column moved."""
    if changes.incomparable:
        yield f'<p class="dim">Not compared with a champion: {escape(changes.incomparable)}.</p>'
        return
    yield f"<h2>Since release {changes.since}</h2>"
    yield f"<p>{len(changes.drifted):,} of {len(changes.columns):,} columns drifted.</p>"
    if changes.notes:
        yield "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in changes.notes) + "\n</ul>"
    drawn = [(one.column, one.histogram) for one in changes.drifted if one.histogram][:MAX_HISTOGRAMS]
    if drawn:
        yield '<p><i class="then"></i> then, <i class="now"></i> now: shares of the values</p>'
        yield '<div class="drawn">\n' + "\n".join(_drawn(*one) for one in drawn) + "\n</div>"
    if changes.columns:
        yield _scrolled("Columns", ("drifted", *DRIFT_HEADINGS), map(_moved, changes.columns[:MAX_COLUMNS]))


def _moved(one: ColumnDrift) -> str:
    drifted = '<td class="note">yes</td>' if one.drifted else '<td class="good">no</td>'
    name, test, *numbers = map(escape, drift_cells(one))
    words = f"<td>{name}</td><td>{test}</td>"
    return f"<tr>{drifted}{words}" + "".join(f'<td class="number">{cell}</td>' for cell in numbers) + "</tr>"


def _drawn(column: str, histogram: Histogram) -> str:
    """Return a histogram as a picture: two bars for each bar, then above now."""
    most = max(*histogram.then, *histogram.now) or 1.0
    parts = []
    for place, (bar, then, now) in enumerate(zip(histogram.bars, histogram.then, histogram.now, strict=True)):
        top = place * (2 * BAR + 4)
        name = escape(bar if len(bar) <= 18 else f"{bar[:17]}…")
        parts.append(f'<text x="{LABEL - 6}" y="{top + BAR + 4}" text-anchor="end">{name}</text>')
        for side, share, y in (("then", then, top), ("now", now, top + BAR)):
            width = (WIDTH - LABEL) * share / most
            said = f"<title>{escape(bar)}, {side}: {share:.1%}</title>"
            parts.append(f'<rect class="{side}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}">{said}</rect>')
    height = len(histogram.bars) * (2 * BAR + 4)
    said = f'role="img" aria-label="{escape(column)}, then and now"'
    return (
        f"<figure><figcaption>{escape(column)}</figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {height}" {said}>{"".join(parts)}</svg></figure>'
    )


def _listed(heading: str, kind: str, sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<h2 class="{kind}">{heading}</h2>\n<ul>\n{items}\n</ul>'


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
    kind = {"error": "bad"}.get(rule.severity, "note")
    held = '<td class="good">yes</td>' if rule.passed else f'<td class="{kind}">no</td>'
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
    said = json.dumps(value, ensure_ascii=False)
    return f"<code>{escape(said if len(said) <= 200 else said[:197] + '...')}</code>"
