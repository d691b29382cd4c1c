"""The log of one attempt: a JSON object a line, beside the run's rows.

Has what the run says of itself and every warning that a library logs meanwhile. A log that cannot
be written is no reason to lose a run: what fails here is dropped.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class RunLog(logging.Handler):
    """Appends events to a file, each flushed when it happens."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.WARNING)
        self._path = path

    def event(self, message: str, level: str = "info", **fields: Any) -> None:
        """Append one event; ``fields`` are JSON data."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "level": level, "event": message, **fields}, default=str)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Append what a library logged."""
        self.event(record.getMessage(), record.levelname.lower(), logger=record.name)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take in warnings of all libraries for a while."""
        root = logging.getLogger()
        root.addHandler(self)
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
            root.removeHandler(self)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; a last line that a crash has torn is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def event_text(event: dict[str, Any]) -> str:
    """Return an event as a line for a person."""
    fields = {k: v for k, v in event.items() if k not in ("time", "level", "event")}
    said = " ".join(f"{key}={value}" for key, value in fields.items())
    level = "" if event["level"] == "info" else f"{event['level'].upper()} "
    return f"{event['time'][11:19]} {level}{event['event']} {said}".rstrip()
