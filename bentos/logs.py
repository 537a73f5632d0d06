"""Logs as JSON lines, written by a thread, so that a reader that hangs never delays a request."""

import json
import logging
import os
import threading
from datetime import UTC, datetime
from functools import cache
from queue import Queue

MAX_WAITING = 10_000
"""The max number of lines that wait; further lines are dropped, and their number is logged later."""


class Lines:
    """A file of lines, appended to in the background."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.dropped = 0
        self._waiting: Queue[str] = Queue()
        self._lines = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def write(self, lines: str) -> None:
        """Queue complete lines for writing."""
        count = lines.count("\n")
        with self._lock:
            # One call may have many lines, so lines are counted, not calls.
            fits = self._lines + count <= MAX_WAITING
            if fits:
                self._lines += count
            else:
                self.dropped += count
        if fits:
            self._waiting.put(lines)

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until everything is written, for at most `seconds`."""
        done = threading.Thread(target=self._waiting.join, daemon=True)
        done.start()
        done.join(seconds)

    def _write_on(self) -> None:
        while True:
            text = self._waiting.get()
            count = text.count("\n")
            with self._lock:
                dropped, self.dropped = self.dropped, 0
            if dropped:
                text += line(
                    "warning", "log", message=f"{dropped} log lines were dropped because the reader was too slow"
                )
            data = text.encode(errors="backslashreplace")
            try:
                while data:
                    data = data[os.write(self.descriptor, data) :]
            except OSError:
                with self._lock:
                    self.dropped += dropped + count
            with self._lock:
                self._lines -= count
            self._waiting.task_done()


def line(level: str, event: str, **facts: object) -> str:
    """Return a line of the log."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "event": event, **facts}, ensure_ascii=False) + "\n"


class JsonHandler(logging.Handler):
    """Writes records of Python's logging as JSON lines."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line."""
        self.lines.write(line(record.levelname.lower(), record.name, message=self.format(record)))


@cache
def stderr() -> Lines:
    """Return this process's standard error."""
    return Lines(2)


def to_stderr() -> Lines:
    """Send everything that is logged in this process to its standard error, as JSON lines."""
    lines = stderr()
    root = logging.getLogger()
    root.handlers[:] = [JsonHandler(lines)]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    return lines


def say(level: str, message: str, **facts: object) -> None:
    """Write a line about the server to this process's standard error."""
    stderr().write(line(level, "server", message=message, **facts))
