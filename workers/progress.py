"""Where a run is, as whoever watches it is told, and when it last got on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
# Seconds after which work that is no step is told of; then after twice as many each time.
TOLD_AFTER, TOLD_EVERY = 2.0, 60.0


@dataclass(frozen=True)
class Progress:
    """Where a run is: after ``step`` of ``steps``; ``status`` is set once it has ended.

    ``resumed_from`` is the step of the checkpoint it continued from; 0 is the beginning.
    ``learning_rate`` is the schedule's at this step. ``probe`` sums up the newest probe: its
    ``step``, and the ``slope`` of the change over depth; ``evaluation`` has the ``step`` of the
    newest one with its scores. ``doing`` is, before the first step, what takes long, in words.
    """

    step: int
    steps: int
    loss: float | None
    status: str | None = None
    resumed_from: int = 0
    learning_rate: float | None = None
    probe: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    doing: str | None = None


class Pulse:
    """When the work of this process last got on; felt from another thread.

    A loop that may take minutes between two steps (a probe, micro-batches, a stand-in's
    pretraining) beats it, so that slow work is not taken for a collective that hangs.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """Say that the work gets on."""
        self._last = time.monotonic()

    def quiet(self) -> float:
        """Return the seconds since the last beat."""
        return time.monotonic() - self._last


PULSE = Pulse()


@dataclass(frozen=True)
class Work:
    """Work before the first step that takes long: how many ``unit`` of it are done by now."""

    what: str
    unit: str
    done: int
    seconds: float
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.done:,} {self.unit}"


class Preparation:
    """What this process does before it steps, told to whoever listens once it has taken long."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Work], None]] = []
        self._subject = ""

    @contextmanager
    def heard_by(self, listener: Callable[[Work], None]) -> Iterator[None]:
        """Surround work that ``listener`` is told of."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def of(self, subject: str) -> Iterator[None]:
        """Surround work on something that has a name."""
        before, self._subject = self._subject, subject
        try:
            yield
        finally:
            self._subject = before

    @contextmanager
    def counting(self, verb: str, unit: str) -> Iterator[Callable[[int], None]]:
        """Surround work that is counted; what it is given takes in how many more are done."""
        what = f"{verb} {self._subject}".rstrip()
        began = told = time.monotonic()
        wait, done = TOLD_AFTER, 0

        def more(count: int) -> None:
            nonlocal told, wait, done
            PULSE.beat()
            done += count
            now = time.monotonic()
            if now - told >= wait:
                told, wait = now, min(2 * wait, TOLD_EVERY)
                self._tell(Work(what, unit, done, round(now - began, 1)))

        yield more
        if told != began:
            seconds = round(time.monotonic() - began, 1)
            self._tell(Work(what, unit, done, seconds, ended=True))

    def counted(self, items: Iterable[Item], verb: str, unit: str) -> Iterator[Item]:
        """Yield items, counting those that were dealt with."""
        with self.counting(verb, unit) as more:
            for item in items:
                yield item
                more(1)

    def _tell(self, work: Work) -> None:
        for listener in self._listeners:
            listener(work)


PREPARATION = Preparation()


def logged(log: Callable[..., None]) -> Callable[[Work], None]:
    """Return a listener that puts what it is told into an attempt's log."""

    def write(work: Work) -> None:
        event = f"{work.what} is done" if work.ended else work.what
        log(event, **{work.unit: work.done, "seconds": work.seconds})

    return write
