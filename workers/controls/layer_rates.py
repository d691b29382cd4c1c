"""Steps multiplied by a number of each layer's own: the arm that says what depth itself does."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sweeps import spec
from sweeps.errors import UserError
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import BLOCK, EMBEDDING, LayerGroup
from workers.depth.stacks import Stack

# Of so many batches relative gradient norms are averaged.
BATCHES = 5


class LayerRates(LayerControl):
    """U_l ← m_l·U_l, where m_l stays as it is over all steps.

    The m_l are a list, powers of a decay (decay^(L − l) for block l of its stack's L, that of l = 0
    for the embedding, 1 for the head), or RGN_l / max RGN with RGN_l the mean of ‖G_l‖/‖W_l‖ over
    the batches of the first five steps, at the weights before training.
    """

    scales_updates = True

    def __init__(self, control: spec.LayerRates) -> None:
        self.rates, self.decay, self.scope = control.rates, control.decay, control.scope
        self.batches = BATCHES if self.rates == "rgn" else 0
        self._control = control
        self.multipliers: list[float] | None = None

    def controls(self, kind: str) -> bool:
        return kind == BLOCK or self.scope == "all"

    def prepare(self, groups: Sequence[LayerGroup], stacks: Sequence[Stack]) -> None:
        try:
            self._control.require_blocks(sum(len(stack.blocks) for stack in stacks))
        except ValueError as error:
            raise UserError(f"control {error}") from None
        if not self.batches:
            controlled = [group for group in groups if self.controls(group.kind)]
            self.multipliers = [self._multiplier(group, stacks) for group in controlled]

    def _multiplier(self, group: LayerGroup, stacks: Sequence[Stack]) -> float:
        sizes = {stack.name: len(stack.blocks) for stack in stacks}
        if self.decay is not None:
            if group.kind == BLOCK:
                return float(self.decay ** (sizes[group.stack] - group.layer))
            return float(self.decay ** max(sizes.values())) if group.kind == EMBEDDING else 1.0
        assert isinstance(self.rates, tuple)
        if group.kind != BLOCK:
            return self.rates[0 if group.kind == EMBEDDING else -1]
        before = 0
        for stack in stacks:
            if stack.name == group.stack:
                break
            before += len(stack.blocks)
        return self.rates[before + group.layer - (self.scope == "blocks")]

    def learn(self, gradient_norms: Tensor, weight_norms: Tensor) -> None:
        relative = (gradient_norms / weight_norms).mean(dim=0)
        self.multipliers = (relative / relative.max()).tolist()

    def update_scale(self, update_norms: Tensor, weight_norms: Tensor) -> Tensor:
        del weight_norms
        assert self.multipliers is not None
        return update_norms.new_tensor(self.multipliers)
