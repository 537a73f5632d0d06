"""What good data is. The only room that imports great_expectations.

suite: what a suite is, and how it is loaded.
validate: applies a suite to a table; which rows break quarantine rules.
rules: evaluates rules with Great Expectations, each on only the columns it is about.
prefilter: finds the rows that may break a rule, so that Great Expectations gets only these.
report: the result of a validation, as values, JSON and Markdown.
report_page: the report as an HTML page.
phrases: rules and values in words.
check: checks a snapshot against a model's spec and suite.
guard: the rules that an endpoint applies to requests.
subprocess_validator: `check` in a process of its own.
scaffold: the first suite that `evergreen init` writes.
suites/: the suites of your models.
"""
