"""Where a run is, as whoever watches it is told, and when it last got on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run is: after ``step`` of ``steps``; ``status`` is set once it has ended.

    ``resumed_from`` is the step of the checkpoint it continued from; 0 is the beginning.
    ``learning_rate`` is the schedule's at this step. ``probe`` sums up the newest probe: its
    ``step``, and the ``slope`` of the change over depth; ``evaluation`` has the ``step`` of the
    newest one with its scores.
    """

    step: int
    steps: int
    loss: float | None
    status: str | None = None
    resumed_from: int = 0
    learning_rate: float | None = None
    probe: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None


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
