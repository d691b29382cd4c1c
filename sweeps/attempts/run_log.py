"""The log of one attempt: a JSON object a line, beside the run's rows.

Has what the run says of itself and every warning that a library logs meanwhile, without signatures
and tokens. A log that cannot be written is no reason to lose a run: what fails here is dropped.

An object cannot be appended to: on an object store the log is put whole with every heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sweeps.attempts.signed_addresses import without_secrets
from sweeps.files.whole_files import Place, is_local


class RunLog(logging.Handler):
    """Appends events to a file, each flushed when it happens, or as ``flush`` is called."""

    def __init__(self, path: Place) -> None:
        super().__init__(logging.WARNING)
        self._path = path
        self._lines: list[str] = []
        self._flushed = 0

    def event(self, message: str, level: str = "info", **fields: Any) -> None:
        """Append one event; ``fields`` are JSON data."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = without_secrets(
            json.dumps(
                {"time": now, "level": level, "event": message, **fields},
                default=str,
                ensure_ascii=False,
            )
        )
        if not is_local(self._path):
            self._lines.append(line)
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Append what a library logged."""
        self.event(record.getMessage(), record.levelname.lower(), logger=record.name)

    def flush(self) -> None:
        """Put the log of an object store in place, if there is anything new."""
        known = len(self._lines)
        if not is_local(self._path) and known > self._flushed:
            with contextlib.suppress(OSError):
                self._path.write_bytes(("\n".join(self._lines[:known]) + "\n").encode())
                self._flushed = known

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


def read_events(path: Place) -> Iterator[dict[str, Any]]:
    """Yield the events of a log; a last line that a crash has torn is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def event_text(event: dict[str, Any]) -> str:
    """Return an event as a line for a person."""
    fields = {k: v for k, v in event.items() if k not in ("time", "level", "event")}
    said = " ".join(f"{key}={value}" for key, value in fields.items())
    level = "" if event["level"] == "info" else f"{event['level'].upper()} "
    return f"{event['time'][11:19]} {level}{event['event']} {said}".rstrip()
