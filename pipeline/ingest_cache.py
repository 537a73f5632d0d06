"""Which snapshot a source was frozen as when its files were last as they are now: then they need not be read again."""

from pathlib import Path
from typing import Any

from pipeline import digest
from pipeline.errors import SourceError
from pipeline.files import read_json, write_json
from pipeline.sources import Csv, JsonLines, Parquet, Source
from pipeline.sources.locations import fingerprints

_READERS = Path(__file__).parent / "sources"


class IngestCache:
    """A source's record beside the snapshots: the marks of its files (sizes, times, ETags), and what they were then.

    It is believed only when every file has a mark that is sure, all are what they were before and after they were read,
    and the snapshot's file is the one that was written then, byte by byte.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source, self._folder = source, folder
        self._known: dict[str, Any] = {}
        self._marks: dict[str, Any] | None = None
        self._path: Path | None = None
        if isinstance(source, Csv | Parquet | JsonLines):
            import pyarrow

            # What is read otherwise, or by other code, may be another table.
            how = digest.of_value([source, digest.of_folder(_READERS), pyarrow.__version__])
            self._path = folder / "seen" / f"{how}.json"
            try:
                self._known = dict(read_json(self._path))
            except (OSError, ValueError, TypeError):
                self._known = {}
            self._marks = self._found(self._known.get("marks"))

    def snapshot(self) -> str | None:
        """Return the digest of the snapshot that the source still is; None when that is not sure."""
        name, file = self._known.get("snapshot"), self._known.get("file")
        if self._marks is None or self._marks != self._known.get("marks"):
            return None
        try:
            return name if digest.of_file(self._folder / f"{name}.parquet") == file else None
        except OSError:
            return None

    def changed(self) -> bool | None:
        """Tell whether the files are others than when they were frozen last; None where that cannot be told."""
        if self._marks is None or "marks" not in self._known:
            return None
        return bool(self._marks != self._known["marks"])

    def remember(self, name: str) -> None:
        """Keep what the source was frozen as just now, unless it changed meanwhile."""
        if self._path is None or self._marks is None or self._found(self._marks) != self._marks:
            return
        self._path.parent.mkdir(exist_ok=True)
        file = digest.of_file(self._folder / f"{name}.parquet")
        write_json(self._path, {"marks": self._marks, "snapshot": name, "file": file})

    def _found(self, known: Any) -> dict[str, Any] | None:
        assert isinstance(self._source, Csv | Parquet | JsonLines)
        try:
            return fingerprints(self._source, known if isinstance(known, dict) else {})
        except (SourceError, OSError):
            # Reading it tells what is wrong.
            return None
