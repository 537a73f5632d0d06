"""reference/outcomes.md: how a run can end, and what every command exits with."""

from docs.reference_pages.markdown import code, meanings, page, table
from flows.outcome import EXIT_CODES, Name, Outcome

OTHER_EXIT_CODES = ("1", "2", "3", "6")
"""What commands exit with besides 0 and the codes of an outcome; see flows/cli/main.py."""


def outcomes_page() -> str:
    """Return the page."""
    about = (
        "`evergreen run` and `repackage` end with one of these outcomes, and so does `evergreen.run`. An expected "
        '"no" is an outcome with reasons. A run that broke has no outcome: it exits with 1.'
    )
    texts = meanings("outcome", EXIT_CODES)
    rows = [[code(name), str(exits), _state(name), texts[name]] for name, exits in EXIT_CODES.items()]
    outcomes = table(["outcome", "exit code", "Prefect state", "meaning"], rows)
    others = table(["exit code", "meaning"], meanings("exit_code", OTHER_EXIT_CODES).items())
    return page("Outcomes", about, outcomes, "## Other exit codes", others)


def _state(name: Name) -> str:
    return code(Outcome("", name).state)
