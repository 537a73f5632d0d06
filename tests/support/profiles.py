"""How many examples a property is tried on: few in `make test`, all with EVERGREEN_THOROUGH, as CI does afterwards."""

import os


def examples(thorough: int) -> int:
    """The examples of a property that is to be tried on so many when there is time."""
    return thorough if os.environ.get("EVERGREEN_THOROUGH") else max(10, thorough // 5)
