"""What a pickle of an estimator needs to be read again: the packages whose classes it names, in their versions."""

import pickle
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

READS_OLDER = ("numpy", "pandas", "scipy")
"""Packages that read the pickles of their earlier versions, as long as the major version is the same."""


class _Names(pickle.Pickler):
    """Pickles into nothing, and notes the modules of all classes and functions that the pickle names."""

    def __init__(self) -> None:
        super().__init__(self)
        self.modules: set[str] = set()

    def write(self, data: bytes) -> int:
        """Take what is pickled."""
        return len(data)

    def reducer_override(self, obj: Any) -> Any:
        """Note where an object's class, or a class or function itself, comes from."""
        for module in (getattr(obj, "__module__", None), type(obj).__module__):
            if isinstance(module, str):
                self.modules.add(module)
        return NotImplemented


def pickle_requirements(estimator: Any) -> dict[str, str]:
    """Return the packages, with their versions, whose classes and functions a pickle of an estimator names."""
    from pipeline.code import packages_of

    names = _Names()
    names.dump(estimator)
    return {package: version(package) for package in sorted(packages_of(names.modules))}


def unmet_requirements(needed: Mapping[str, str]) -> list[str]:
    """Return a sentence for every package whose version here cannot be trusted to read a pickle that needs these.

    Only the very version that wrote it can, but for READS_OLDER.
    """
    sentences = []
    for package, wanted in needed.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            sentences.append(f"with {package} {wanted}, here is none")
            continue
        same = here == wanted
        if package in READS_OLDER:
            same = Version(here).major == Version(wanted).major and Version(here) >= Version(wanted)
        if not same:
            sentences.append(f"with {package} {wanted}, here is {here}")
    return sentences
