"""Which steps of a run leave rows of what they did."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class RecordedSteps:
    """The first step of a run, every k-th, and some besides; each stands for the steps since the
    one before it, itself included, so that a sum over steps can be told from some of them."""

    def __init__(self, steps: int, every: int, besides: Iterable[int]) -> None:
        """``besides`` may hold steps that the run has not: 0, or those after its last."""
        extra = {step for step in besides if 1 <= step <= steps}
        self._steps = sorted({1, *range(every, steps + 1, every), *extra})
        self._all = len(self._steps) == steps

    @property
    def all(self) -> bool:
        """Whether every step is recorded."""
        return self._all

    def __contains__(self, step: int) -> bool:
        at = bisect_left(self._steps, step)
        return at < len(self._steps) and self._steps[at] == step

    def until(self, last: int) -> list[int]:
        """Return those up to a step."""
        return [step for step in self._steps if step <= last]

    def covered(self, step: int) -> int:
        """Return for how many steps the rows of ``step`` stand, be it one of these or one that is
        recorded out of turn, since a run ends with it."""
        at = bisect_left(self._steps, step)
        return step - (self._steps[at - 1] if at else 0)
