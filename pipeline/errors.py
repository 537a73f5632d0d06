"""The errors that evergreen raises: each names the thing, the value found and the way out, and has a stable code."""

import difflib
from collections.abc import Iterable


class EvergreenError(Exception):
    """Base class of all errors that evergreen raises on purpose.

    Attributes:
        code: names the error for programs and tests, such as `source.unreachable`; `--json` prints it. Each `raise`
            passes its own code; the default is that of the class.
    """

    code: str = "evergreen.broken"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class SpecError(EvergreenError):
    """A model's spec is invalid or contradicts itself, or there is no such model."""

    code = "spec.invalid"


class SourceError(EvergreenError):
    """A source could not be reached; nothing is known about its data."""

    code = "source.unreachable"


class ProjectError(EvergreenError):
    """There is no project here, or it has an evergreen of its own."""

    code = "project.not_found"


class DataError(EvergreenError):
    """The data of a source is not a usable table: the run ends `data-rejected`."""

    code = "data.invalid"


class CheckError(EvergreenError):
    """A data check itself is broken, so nothing is known about the data."""

    code = "check.broken"


class TrainingError(EvergreenError):
    """No candidate could be trained, or the trained model cannot predict rows that it has to."""

    code = "training.failed"


class ArtifactError(EvergreenError):
    """A snapshot, an artifact or a package on disk is incomplete, or its content does not match its digest."""

    code = "artifact.damaged"


class FormatError(ArtifactError):
    """A file is in a format of an older or newer evergreen, which this one does not read."""

    code = "format.invalid"


class StorageError(EvergreenError):
    """The disk is full; nothing of the file or folder is left behind."""

    code = "storage.full"


class PackageError(EvergreenError):
    """A Bento could not be built, or its content is not what was asked for."""

    code = "package.invalid"


class ReleaseError(EvergreenError):
    """The ledger refuses to change a release, or has no such release."""

    code = "release.refused"


class OvertakenError(ReleaseError):
    """Another process wrote to the ledger at the same moment; try again."""

    code = "release.overtaken"


class LedgerError(EvergreenError):
    """The ledger cannot be read or written now; whether the last write arrived is not known."""

    code = "ledger.unavailable"


class TimeLimitError(EvergreenError):
    """Something exceeded its time limit and was stopped."""

    code = "time_limit.exceeded"


class ServerError(EvergreenError):
    """A process that evergreen starts did not come up, or something else killed it."""

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
