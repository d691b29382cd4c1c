"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2), by torch's fused kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.updates.update_rule import Slab, UpdateRule


class AdamW(UpdateRule):
    """U = rate · m̂ / (√v̂ + eps), with moments m and v corrected for their start at zero."""

    states = ("exp_avg", "exp_avg_sq")

    def update(self, slab: Slab, gradients: list[Tensor], rate: float) -> None:
        self._step(slab, gradients, rate, None)

    def update_divided(
        self, slab: Slab, gradients: list[Tensor], rate: float, divisor: Tensor
    ) -> None:
        self._step(slab, gradients, rate, divisor)

    def _step(
        self, slab: Slab, gradients: list[Tensor], rate: float, divisor: Tensor | None
    ) -> None:
        beta1, beta2 = self.optimizer.betas
        # On weights that are zero what the kernel leaves there is −U.
        torch._fused_adamw_(
            slab.updates,
            gradients,
            slab.state("exp_avg"),
            slab.state("exp_avg_sq"),
            [],
            slab.steps,
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=self.optimizer.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )
