"""When a run is evaluated, where its scores go, and whether it is to end there."""

from __future__ import annotations

import math
from typing import Any

from sweeps.attempts.writer import ANSWERS, EVALUATIONS, OnlookersWriter, RunWriter
from sweeps.spec import LOSS, RunSpec
from workers.evaluation.evaluator import Evaluator
from workers.evaluation.refusals import Refusals
from workers.ranks.process_group import Ranks


class Evaluations:
    """The evaluations of one attempt at a run, from where it goes on.

    ``newest`` is what a watcher is told of the last one: its step and scores. ``stopped`` says that
    the run's ``stop`` ends it there, short of its last step.
    """

    def __init__(
        self,
        run: RunSpec,
        evaluator: Evaluator | None,
        refusals: Refusals | None,
        writer: RunWriter | OnlookersWriter,
        ranks: Ranks,
        step: int,
    ) -> None:
        """``step`` is the one that the attempt goes on after, whose rows ``writer`` has."""
        self._run, self._evaluator, self._writer = run, evaluator, writer
        self._refusals = refusals
        self._begins_after = step
        self._losses: list[float] = [] if evaluator is None else writer.evaluation_losses()
        self._losses = ranks.agree(self._losses)
        self.newest: dict[str, Any] | None = None
        self.stopped = self._is_over(step)

    def begin(self) -> None:
        """Evaluate before the first step, where the attempt begins with it; a collective."""
        if not self._begins_after:
            self.after(0)

    def after(self, step: int) -> bool:
        """Evaluate if it is time to; return whether the loss is a number, if so. A collective."""
        if self._evaluator is None or step not in self._run.evaluation_steps:
            return True
        rows = self._evaluator.evaluate()
        if self._refusals is not None:
            scores, answers = self._refusals.evaluate()
            rows = [*rows, *scores]
            self._writer.add(ANSWERS, step, answers)
        self._writer.add(EVALUATIONS, step, rows)
        self.newest = {"step": step, **{row["score"]: row["value"] for row in rows}}
        self._losses.append(self.newest[LOSS])
        self.stopped = self._is_over(step)
        return math.isfinite(self._losses[-1])

    def loss_at(self, step: int) -> float | None:
        """Return the loss on held-out examples after a step; None where it was not evaluated."""
        known = self.newest is not None and self.newest["step"] == step
        return self.newest[LOSS] if known and self.newest is not None else None

    def _is_over(self, step: int) -> bool:
        stop = self._run.stop
        return stop is not None and step < self._run.steps and stop.holds(self._losses)
