"""Every error the project raises: each names the thing, the value found and the way out, and has a stable code."""

import difflib
from collections.abc import Iterable


class EvergreenError(Exception):
    """Base of everything raised on purpose.

    Attributes:
        code: names the error for programs and tests, such as `source.unreachable`; `--json` prints it. A raise site
            gives its own code; without one, the code is that of the class.
    """

    code: str = "evergreen.broken"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SpecError(EvergreenError):
    """A model's spec contradicts itself, or there is no such model."""

    code = "spec.invalid"


class SourceError(EvergreenError):
    """A source could not be reached; nothing is known about its data."""

    code = "source.unreachable"


class ProjectError(EvergreenError):
    """There is no project here, or another one than this evergreen's."""

    code = "project.not_found"


class DataError(EvergreenError):
    """A source was read and what it holds is not a usable table: the run ends `data-rejected`."""

    code = "data.invalid"


class CheckError(EvergreenError):
    """A data check itself is broken; this says nothing about the data."""

    code = "check.broken"


class TrainingError(EvergreenError):
    """No candidate could be trained."""

    code = "training.failed"


class ArtifactError(EvergreenError):
    """A snapshot, an artifact or a package on disk is incomplete or is not what its digest says."""

    code = "artifact.damaged"


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

    code = "storage.full"


class PackageError(EvergreenError):
    """A Bento could not be built, or holds something else than what was asked for."""

    code = "package.invalid"


class ReleaseError(EvergreenError):
    """The ledger refuses a release, or has no such release."""

    code = "release.refused"


class OvertakenError(ReleaseError):
    """Another process wrote to the ledger at the same moment; the same may be tried again."""

    code = "release.overtaken"


class LedgerError(EvergreenError):
    """The ledger cannot be written to now; nothing is known about what was to be written."""

    code = "ledger.unavailable"


class TimeLimitError(EvergreenError):
    """Something took longer than it may, and was ended."""

    code = "time_limit.exceeded"


class ServerError(EvergreenError):
    """A process that evergreen starts did not come up, or was ended by something else."""

    code = "process.failed"


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
