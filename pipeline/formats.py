"""The version numbers of all formats that evergreen keeps on disk, and the check that refuses an unknown one.

docs/internals/formats.md says what each format holds and how to raise its number.
"""

from dataclasses import dataclass

from pipeline.errors import FormatError


@dataclass(frozen=True)
class Format:
    """A persisted format.

    Attributes:
        name: what people call it.
        current: the number that this evergreen writes.
        oldest: the oldest number that this evergreen still reads.
        renew: what to do about a file whose number is too old.
    """

    name: str
    current: int
    oldest: int
    renew: str


ARTIFACT = Format("artifact", 3, 3, "`evergreen run MODEL --force` trains and releases the model again")
PACKAGE = Format("package", 1, 1, "`evergreen run MODEL --force` packages and releases the model again")
SNAPSHOT = Format("snapshot", 1, 1, "run again to ingest the source again")
REQUEST_LOG = Format("request log", 1, 1, "it is removed when it is older than the log's days, or remove the file")
ARCHIVE = Format("archive", 2, 2, "archive the release again, with the evergreen that reads it")
LEDGER = Format("ledger", 4, 1, "migrate it with an evergreen that reads it")

FORMATS = (ARTIFACT, PACKAGE, SNAPSHOT, REQUEST_LOG, ARCHIVE, LEDGER)


def check_format(format: Format, found: object, thing: object) -> None:
    """Raise FormatError unless this evergreen reads number `found` of a format; `thing` names the file for people.

    None, no number, counts as 0 and is too old. The error's code is `format.too_new`, `format.too_old` or
    `format.invalid`.
    """
    number = 0 if found is None else found
    if not isinstance(number, int) or isinstance(number, bool):
        raise FormatError(
            f"{thing} has format {found!r}, which is not a whole number; restore it from a copy", code="format.invalid"
        )
    reads = f"{format.current}" if format.oldest == format.current else f"{format.oldest} to {format.current}"
    sentence = f"{thing} has format {number}, and this evergreen reads {reads}"
    if number > format.current:
        raise FormatError(f"{sentence}; use a later evergreen", code="format.too_new")
    if number < format.oldest:
        raise FormatError(f"{sentence}; {format.renew}", code="format.too_old")
