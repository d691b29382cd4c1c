"""What the turns of a loop have in common: the subspaces of a block's states, turn by turn.

Of a block that runs T times there are T(T − 1)/2 pairs of an earlier and a later turn. A row of the
table ``subspaces`` says how much of the later state's energy lies in the span of the earlier one's
principal directions: the `subspace_overlap` of `similarity`, whose reference is the earlier turn
instead of the model before fine-tuning. The same of the model before fine-tuning stands beside it,
so that what training did to the loop is a difference within a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from workers.depth.stacks import Position
from workers.probes.similarity import FIDELITY, Reference, subspace_overlap
from workers.progress import PULSE
from workers.spectra.inputs import Incomparable

UNKNOWN = {"rank_95": math.nan, "subspace_overlap": math.nan}


@dataclass(frozen=True)
class Loop:
    """A block that runs several times; ``turns`` are the numbers of its calls among positions."""

    stack: str | None
    block: int
    turns: tuple[int, ...]


def loops_of(positions: Sequence[Position]) -> tuple[Loop, ...]:
    """Return the blocks that run more than once, in forward order."""
    turns: dict[tuple[str | None, int], list[int]] = {}
    for k, position in enumerate(positions):
        if position.layer:
            turns.setdefault((position.stack, position.block), []).append(k)
    return tuple(
        Loop(stack, block, tuple(found))
        for (stack, block), found in turns.items()
        if len(found) > 1
    )


def overlap_of(earlier: Reference, later: Reference) -> float:
    """Return ‖UᵀY‖²_F in [0, 1], U (n, r) the principal directions over the rows that hold 95 % of
    the earlier state's energy, Y (n, k) the later one, centred and of norm 1."""
    assert earlier.principal is not None
    leading = earlier.principal[:, -earlier.rank_at(FIDELITY) :]
    return subspace_overlap(earlier, (leading.T @ later.coordinates).square().sum(dim=1))


class Turns:
    """Compares the states of each loop of a model with one another, now and before fine-tuning."""

    def __init__(
        self,
        positions: Sequence[Position],
        before: Sequence[Reference | str],
        device: torch.device,
    ) -> None:
        """``before`` are the states before fine-tuning, one a position, or why one cannot be
        compared."""
        self._loops, self._device = loops_of(positions), device
        self._before = before
        self._pairs: dict[tuple[int, int], Mapping[str, float]] | None = None

    def rows(self, states: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
        """Return a row a pair of turns; what cannot be compared has NaN. ``states`` (n, d) are one
        a position."""
        if self._pairs is None:
            # They are the same at every step of a run.
            self._pairs = {}
            for loop in self._loops:
                self._pairs |= _pairs({k: self._moved(self._before[k]) for k in loop.turns})
        rows = []
        for loop in self._loops:
            now = _pairs({k: self._prepared(states[k]) for k in loop.turns})
            for (earlier, one), (later, other) in combinations(enumerate(loop.turns), 2):
                before = self._pairs[one, other]
                rows.append(
                    {
                        "stack": loop.stack,
                        "block_number": loop.block,
                        "iteration": earlier,
                        "later_iteration": later,
                        **now[one, other],
                        **{f"{name}_before": value for name, value in before.items()},
                    }
                )
        return rows

    def _prepared(self, state: torch.Tensor) -> Reference | None:
        try:
            return Reference.of(state.to(self._device))
        except Incomparable:
            return None

    def _moved(self, reference: Reference | str) -> Reference | None:
        return None if isinstance(reference, str) else reference.to(self._device)


def _pairs(
    turns: Mapping[int, Reference | None],
) -> dict[tuple[int, int], Mapping[str, float]]:
    """Return, by two positions, what is said of the later turn in the earlier one's subspace."""
    found: dict[tuple[int, int], Mapping[str, float]] = {}
    for (one, earlier), (other, later) in combinations(turns.items(), 2):
        PULSE.beat()
        if earlier is None or later is None:
            found[one, other] = UNKNOWN
        else:
            found[one, other] = {
                "rank_95": float(earlier.rank_at(FIDELITY)),
                "subspace_overlap": overlap_of(earlier, later),
            }
    return found
