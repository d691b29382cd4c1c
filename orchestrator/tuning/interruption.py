"""SIGTERM ends a sweep as Ctrl-C does: running trials checkpoint, then everything is put away."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from orchestrator.connection.node_scratch import remove_node_scratch

POLL_SECONDS = 0.5


class Terminated(KeyboardInterrupt):
    """SIGTERM came where a command has no runs to stop."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end what is done in the context as an interrupt does, by raising Terminated.

    To be entered before Ray is started, for what comes before, and again after it: Ray puts a
    handler of its own in place, which leaves without a word. In another thread than the main one
    signals are the program's own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # by Ray's handler, while Ray was starting
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system says it again
    raise Terminated


class Interruption:
    """While entered, a SIGTERM to this process is an interrupt; ``code`` says which it was.

    130 for an interrupt, 143 for SIGTERM, of which only the first counts: a batch system says it
    again, and a second interrupt would end the sweep on the spot. To be entered after Ray is
    started, which puts a handler of its own in place, and in the main thread.

    ``gone`` says whether Ray is not there any more. `timeout` and service managers signal a whole
    process group: with Ray's processes gone Tune would wait a minute for them, and be ended by Ray.
    Runs are not in the group, and end by themselves.
    """

    def __init__(self, gone: Callable[[], bool] = lambda: False) -> None:
        self.code = 130
        self._gone = gone
        self._over = threading.Event()

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
        threading.Thread(target=self._leave_with_ray, daemon=True).start()
        signal.raise_signal(signal.SIGINT)

    def _leave_with_ray(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            if self._gone() and not self._over.is_set():
                said = "interrupted, and Ray with it: finished runs are kept; the same command runs"
                print(f"{said} the rest", file=sys.stderr, flush=True)
                remove_node_scratch()
                os._exit(self.code)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
