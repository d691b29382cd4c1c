"""What a selection is: of a batch of candidates, which are trained on.

A rule never sees tokens or weights. It is told of each candidate the size of its gradient, its loss
and its length, and says the numbers of those that are chosen. Writing a new one is writing one
subclass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """What is known of N examples, at the weights before the step, each (N,).

    ``norms`` are of the gradient of an example's own mean loss over all that is trained, ``losses``
    that loss, NaN of an example without targets; both are NaN where the rule does not need them.
    ``lengths`` are tokens of an example's answer, or of its texts where it has none.
    """

    norms: Floats
    losses: Floats
    lengths: Numbers

    def __len__(self) -> int:
        return len(self.lengths)

    def loss_within(self, deviations: float | None, count: int) -> Numbers:
        """Return the numbers, in order, of those whose loss is within so many standard deviations
        of the mean; all with ``None``.

        Where these are fewer than ``count``, the nearest to the mean beyond them are among them,
        too. Examples without a loss, or whose gradient is not finite, are the last to be.
        """
        known = np.isfinite(self.losses) & np.isfinite(self.norms)
        distance = np.full(len(self), np.inf)
        if known.any():
            losses = self.losses[known]
            distance[known] = 0.0
            if deviations is not None:
                # A little more than so many, lest rounding decides where all losses are alike.
                reach = deviations * losses.std() * (1 + 1e-9) + 1e-12
                distance[known] = np.maximum(np.abs(losses - losses.mean()) - reach, 0.0)
        enough = max(count, int((distance == 0.0).sum()))
        return np.sort(np.argsort(distance, kind="stable")[:enough])


class SelectionRule:
    """A rule that chooses ``count`` of N candidates.

    ``needs_gradients`` says whether norms and losses are asked for: they cost a forward and a
    backward pass of all candidates.
    """

    needs_gradients = True
    # Of a user's own: how it is called, and the file and line where it is marked.
    plugin_place = ""

    def choose(self, candidates: Candidates, count: int, draw: np.random.Generator) -> Numbers:
        """Return the numbers of the chosen, (count,), each once, in any order.

        ``draw`` is seeded by the run's seed and the step: what a rule draws from it alone is drawn
        again when a run is resumed.
        """
        raise NotImplementedError


def checked_choice(rule: SelectionRule, chosen: object, candidates: int, count: int) -> Numbers:
    """Return what a rule has chosen, in the order of candidates.

    Raises UserError, naming the rule, for anything but ``count`` different numbers of candidates.
    """
    found = np.asarray(chosen)
    sound = found.shape == (count,) and np.issubdtype(found.dtype, np.integer)
    if sound and len(set(found.tolist())) == count and 0 <= found.min() <= found.max() < candidates:
        return np.sort(found).astype(np.int64)
    said = rule.plugin_place or type(rule).__name__
    raise UserError(
        f"{said}: choose returns {str(found.tolist())[:80]}: it has to return {count} different"
        f" numbers from 0 to {candidates - 1}"
    )
