"""SIGTERM ends a sweep as Ctrl-C does: running trials checkpoint, then everything is put away."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """While entered, a SIGTERM to this process is an interrupt; ``code`` says which it was.

    130 for an interrupt, 143 for SIGTERM, of which only the first counts: a batch system says it
    again, and a second interrupt would end the sweep on the spot. To be entered after Ray is
    started, which puts a handler of its own in place, and in the main thread.
    """

    def __init__(self) -> None:
        self.code = 130

    def __enter__(self) -> Self:
        # In another thread of a program that runs a sweep, signals are that program's own.
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._terminated)
        return self

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.code == 143:
            return
        self.code = 143
        signal.raise_signal(signal.SIGINT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
