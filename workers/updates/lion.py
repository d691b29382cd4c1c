"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2): the sign of a momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.updates.update_rule import Slab, UpdateRule


class Lion(UpdateRule):
    """U = rate · sign(β₁·m + (1 − β₁)·G), then m ← β₂·m + (1 − β₂)·G."""

    states = ("exp_avg",)

    def update(self, slab: Slab, gradients: list[Tensor], rate: float) -> None:
        beta1, beta2 = self.optimizer.betas
        momenta = slab.state("exp_avg")
        torch._foreach_add_(slab.updates, momenta, alpha=beta1)
        torch._foreach_add_(slab.updates, gradients, alpha=1 - beta1)
        slab.scratch.sign_().mul_(-rate)
        torch._foreach_mul_(momenta, beta2)
        torch._foreach_add_(momenta, gradients, alpha=1 - beta2)
