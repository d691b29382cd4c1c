"""Where a run is, as whoever watches it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run is: after ``step`` of ``steps``; ``status`` is set once it has ended.

    ``resumed_from`` is the step of the checkpoint it continued from; 0 is the beginning.
    """

    step: int
    steps: int
    loss: float | None
    status: str | None = None
    resumed_from: int = 0
