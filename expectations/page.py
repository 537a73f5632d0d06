"""A report as one HTML file for people: no script, nothing from elsewhere, light or dark as the reader's system is."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from expectations.validate import Report, RuleResult

STYLE = """
:root { color-scheme: light dark; --edge: #d0d4d9; --dim: #5c6370; --good: #1a7f37; --bad: #b3261e; --note: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --edge: #3b4048; --dim: #a0a7b3; --good: #57c773; --bad: #ff8a80; --note: #e0b050 }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--edge); padding: .3rem .6rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { overflow-wrap: anywhere }
.dim { color: var(--dim) } .good { color: var(--good) } .bad { color: var(--bad) } .note { color: var(--note) }
"""


def page(report: Report, title: str) -> str:
    """Return the report as a whole page: the verdict, why, what was set aside, and every rule, failed ones first."""
    verdict = '<strong class="good">passed</strong>' if report.passed else '<strong class="bad">rejected</strong>'
    held = sum(rule.passed for rule in report.rules)
    # What could not even be read has no size.
    size = f"{report.rows:,} rows, {report.columns:,} columns; " if report.columns else ""
    parts = [
        f"<h1>{escape(title)}: data {verdict}</h1>",
        f"<p>{size}{held:,} of {len(report.rules):,} rules hold.</p>",
        _listed("Why it was rejected", "bad", report.reasons),
        _listed("Warnings", "note", report.warnings),
        "<h2>Rules</h2>",
        _table(sorted(report.rules, key=lambda rule: rule.passed)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: data {'passed' if report.passed else 'rejected'}</title>\n<style>{STYLE}</style>\n"
        "</head>\n<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"
    )


def _listed(heading: str, kind: str, sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<h2 class="{kind}">{heading}</h2>\n<ul>\n{items}\n</ul>'


def _table(rules: Iterable[RuleResult]) -> str:
    heads = ("held", "rule", "severity", "found", "asked for", "unexpected", "such as")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "\n".join(_row(rule) for rule in rules)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Rules">\n{table}\n</div>'


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
