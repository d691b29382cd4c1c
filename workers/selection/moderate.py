"""``moderate``: the candidates whose gradients are nearest the median (arXiv 2604.17215)."""

from __future__ import annotations

import numpy as np

from workers.selection.selection_rule import Candidates, Numbers, SelectionRule


class Moderate(SelectionRule):
    """The median is that of the candidates whose loss is near the mean; of equally near ones the
    first drawn."""

    def __init__(self, loss_within: float | None = 1.0) -> None:
        self.loss_within = loss_within

    def choose(self, candidates: Candidates, count: int, draw: np.random.Generator) -> Numbers:
        del draw
        within = candidates.loss_within(self.loss_within, count)
        norms = candidates.norms[within]
        median = np.nanmedian(norms) if np.isfinite(norms).any() else np.nan
        return within[np.argsort(np.abs(norms - median), kind="stable")[:count]]
