"""What goes over the memory of a step: measure, update, apply. How is each subclass's own.

Between passes a control reads norms and says factors; that is ``LayerOptimizer``'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from workers.updates.slabs import Layer
from workers.updates.update_rule import UpdateRule

# Columns of squared norms.
GRADIENT, UPDATE, WEIGHT = 0, 1, 2


@dataclass(frozen=True)
class Stepped:
    """What a rank steps: its layers in order, with a rule, whose steps are counted in ``step``.

    ``firsts`` are the layers' first units of ``units``, ``limit`` the most elements a slab may
    have.
    """

    layers: tuple[Layer, ...]
    rank: int
    rule: UpdateRule
    weight_decay: float
    step: Tensor
    firsts: Sequence[int]
    units: int
    limit: int


class Passes(ABC):
    """The passes over the memory of one step.

    Squared norms are (U, 3) in float64, of gradients, updates and weights by unit: here of what
    this rank holds, zero where not asked for. Their sums are taken in one order whatever the number
    of threads.
    """

    @abstractmethod
    def take(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        """Have this step's gradients, flat, one a shard of each layer; they are used up."""

    @abstractmethod
    def measure(self, columns: Collection[int]) -> Tensor:
        """Return squared norms of gradients and weights, as ``columns`` say, before any update."""

    @abstractmethod
    def update(
        self,
        rates: Sequence[float],
        factors: Tensor | None,
        waits: Collection[int],
        columns: Collection[int],
    ) -> Tensor:
        """Advance what the rule keeps and return the squared norms that ``columns`` say.

        ``rates`` are the layers' learning rates; ``factors``, (U,), scale gradients first, whose
        norms are then not those of ``columns``. Updates are applied at once, but of the layers that
        ``waits`` names: those stay in the gradients' memory.
        """

    @abstractmethod
    def apply(self, waits: Collection[int], factors: Sequence[float]) -> None:
        """Apply the updates that wait, each times the factor of its unit, one of (U,)."""

    @abstractmethod
    def let_go(self) -> None:
        """Hold this step's gradients no longer: the next pass of the model needs their memory."""

    @abstractmethod
    def held(self) -> list[Tensor]:
        """Return what is kept from step to step."""
