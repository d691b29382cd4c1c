"""A notice to stop: checkpoint at the next step boundary, then release."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal, get_args

Cause = Literal["cancelled", "preempted"]
# What every run may take for its last step and its checkpoint.
LEAST_SECONDS = 30.0
CAUSES: tuple[Cause, ...] = get_args(Cause)


class Notice:
    """What a run looks at after every step: whether somebody wants it to stop, and why.

    ``seconds`` is how long it must be given then, as far as the run has found out: for the step it
    is in and the checkpoint.
    """

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.seconds = LEAST_SECONDS

    def give(self, cause: Cause) -> None:
        """Ask for a stop; the first cause stays."""
        if self.cause is None:
            self.cause = cause

    def needs(self, seconds: float) -> None:
        """Say how long the checkpoint of the run takes that looks at this."""
        self.seconds = max(LEAST_SECONDS, seconds)

    @property
    def number(self) -> int:
        """The cause as a number that ranks can compare: 0 for none."""
        return 0 if self.cause is None else 1 + CAUSES.index(self.cause)


def cause_of(number: int) -> Cause | None:
    """Return the cause that ``Notice.number`` stands for."""
    return CAUSES[number - 1] if number else None


@contextmanager
def given_by_signals(notice: Notice) -> Iterator[None]:
    """Let SIGTERM (a machine is taken away) and SIGINT (Ctrl-C) give the notice.

    A second SIGINT interrupts at once. Only the main thread may enter.
    """

    def preempted(number: int, frame: FrameType | None) -> None:
        del number, frame
        notice.give("preempted")

    def cancelled(number: int, frame: FrameType | None) -> None:
        if notice.cause == "cancelled":
            signal.default_int_handler(number, frame)
        notice.give("cancelled")

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, preempted),
        signal.SIGINT: signal.signal(signal.SIGINT, cancelled),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
