"""Every error the project raises: each names the thing, the value found and the way out."""

import difflib
from collections.abc import Iterable


class EvergreenError(Exception):
    """Base of everything raised on purpose."""


class SpecError(EvergreenError):
    """A model's spec contradicts itself, or there is no such model."""


class SourceError(EvergreenError):
    """A source could not be reached; nothing is known about its data."""


class DataError(EvergreenError):
    """A source was read and what it holds is not a usable table: the run ends `data-rejected`."""


class CheckError(EvergreenError):
    """A data check itself is broken; this says nothing about the data."""


class TrainingError(EvergreenError):
    """No candidate could be trained."""


class ArtifactError(EvergreenError):
    """A snapshot, an artifact or a package on disk is incomplete or is not what its digest says."""


class FormatError(ArtifactError):
    """Something that was written by an older or a newer evergreen, whose format this one does not read.

    Attributes:
        code: `format.too_old`, `format.too_new`, or `format.invalid` when it has no number at all.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class StorageError(EvergreenError):
    """There is no space left to write something; nothing of it is left behind."""


class PackageError(EvergreenError):
    """A Bento could not be built, or holds something else than what was asked for."""


class ReleaseError(EvergreenError):
    """The ledger refuses a release, or has no such release."""


class OvertakenError(ReleaseError):
    """Another process wrote to the ledger at the same moment; the same may be tried again."""


class LedgerError(EvergreenError):
    """The ledger cannot be written to now; nothing is known about what was to be written."""


class TimeLimitError(EvergreenError):
    """Something took longer than it may, and was ended."""


class ServerError(EvergreenError):
    """A process that evergreen starts did not come up, or was ended by something else."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name closest to `name`, or an empty string.

    >>> did_you_mean("SalePrice", ["Sale_Price", "LotArea"])
    "; did you mean 'Sale_Price'?"
    >>> did_you_mean("SalePrice", ["Alley"])
    ''
    """
    names = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
