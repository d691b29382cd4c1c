"""``random``: any of the candidates."""

from __future__ import annotations

import numpy as np

from workers.selection.selection_rule import Candidates, Numbers, SelectionRule


class RandomShare(SelectionRule):
    """Each candidate is as likely as any other; gradients are not asked for."""

    needs_gradients = False

    def choose(self, candidates: Candidates, count: int, draw: np.random.Generator) -> Numbers:
        return draw.permutation(len(candidates))[:count]
