"""``length_matched``: any candidates that are as long as those of ``high``.

Examples of large gradients are mostly of another format, short answers above all: this arm has
their lengths and not their gradients.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from workers.selection.high import High
from workers.selection.selection_rule import Candidates, Numbers, SelectionRule


class LengthMatched(SelectionRule):
    """Each candidate that ``high`` would choose is matched with one that it leaves, so that the sum
    of the differences in length is smallest; of equally long ones any is as likely."""

    def __init__(self, loss_within: float | None = 1.0) -> None:
        self._high = High(loss_within)

    def choose(self, candidates: Candidates, count: int, draw: np.random.Generator) -> Numbers:
        high = self._high.choose(candidates, count, draw)
        others = draw.permutation(np.setdiff1d(np.arange(len(candidates)), high))
        lengths = candidates.lengths
        differences = np.abs(lengths[high][:, None] - lengths[others][None])
        _, matched = linear_sum_assignment(differences)
        chosen: Numbers = others[matched]
        return chosen
