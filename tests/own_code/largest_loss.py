"""A worked example of a selection: by the loss, whatever the gradient."""

import numpy as np

from sweeps.plugins import selection
from workers.selection.selection_rule import SelectionRule


@selection("largest_loss")
class LargestLoss(SelectionRule):
    """Candidates of the largest loss, but for the share of all that ``spared`` says: outliers."""

    def __init__(self, *, spared: float = 0.0) -> None:
        self.spared = spared

    def choose(self, candidates, count, draw):
        del draw
        order = np.argsort(-candidates.losses, kind="stable")
        first = min(int(self.spared * len(order)), len(order) - count)
        return order[first : first + count]
