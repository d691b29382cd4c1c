"""``high``: the candidates whose gradients are largest."""

from __future__ import annotations

import numpy as np

from workers.selection.selection_rule import Candidates, Numbers, SelectionRule


class High(SelectionRule):
    """Of equal ones the first drawn."""

    def __init__(self, loss_within: float | None = 1.0) -> None:
        self.loss_within = loss_within

    def choose(self, candidates: Candidates, count: int, draw: np.random.Generator) -> Numbers:
        del draw
        within = candidates.loss_within(self.loss_within, count)
        return within[np.argsort(-candidates.norms[within], kind="stable")[:count]]
