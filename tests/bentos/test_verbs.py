"""The verbs of releasing live in one place, which has the locks and the checks."""

import re

from project import CHECKOUT

VERB = re.compile(r"\breleases\.(add_release|promote|rollback|stop_canary|hold|unhold|retire)\(")


def test_only_the_module_of_the_verbs_changes_what_the_ledger_says_is_served():
    files = [*(CHECKOUT / "bentos").rglob("*.py"), *(CHECKOUT / "flows").rglob("*.py")]
    assert [file.name for file in files if VERB.search(file.read_text())] == ["releasing.py"]
