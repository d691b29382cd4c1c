"""Stochastic gradient descent with momentum (Polyak's, as torch.optim.SGD has it)."""

from __future__ import annotations

import torch
from torch import Tensor

from sweeps import spec
from workers.updates.update_rule import Slab, UpdateRule

BUFFER = "momentum_buffer"


class Sgd(UpdateRule):
    """U = rate · b with b ← momentum · b + G; without momentum nothing is kept.

    Weight decay is apart from the gradient, as under every rule here: torch's is added to it.
    """

    def __init__(self, optimizer: spec.Optimizer) -> None:
        super().__init__(optimizer)
        self.momentum = optimizer.momentum or 0.0
        self.states = (BUFFER,) if self.momentum else ()

    def update(self, slab: Slab, gradients: list[Tensor], rate: float) -> None:
        direction = gradients
        if self.momentum:
            direction = slab.state(BUFFER)
            torch._foreach_mul_(direction, self.momentum)
            torch._foreach_add_(direction, gradients)
        torch._foreach_add_(slab.updates, direction, alpha=-rate)
