"""evergreen in Python, for notebooks and scripts. This module only names what it offers; the code is in the rooms.

    import evergreen

    model = evergreen.load("house_prices")       # the champion, or release=3
    model.predict(frame)                         # equal to the endpoint's predictions, to the last bit
    outcome = evergreen.run("house_prices", data=frame)

Each name is imported when it is used first, so `import evergreen` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.notebook import LoadedModel, Validation, history, load, run, snapshot, validate
    from flows.outcome import Outcome
    from pipeline.errors import EvergreenError
    from pipeline.gate import Verdict

__all__ = [
    "EvergreenError",
    "LoadedModel",
    "Outcome",
    "Validation",
    "Verdict",
    "history",
    "load",
    "run",
    "snapshot",
    "validate",
]

_ELSEWHERE = {"EvergreenError": "pipeline.errors", "Outcome": "flows.outcome", "Verdict": "pipeline.gate"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'evergreen' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_ELSEWHERE.get(name, "flows.notebook")), name)


def __dir__() -> list[str]:
    return __all__
