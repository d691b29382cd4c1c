"""A worked example of an optimizer: AdaBelief (Zhuang et al. 2020, arXiv 2010.07468)."""

import torch

from sweeps.plugins import optimizer
from workers.updates.update_rule import UpdateRule


@optimizer("adabelief")
class AdaBelief(UpdateRule):
    """U = rate · m̂ / (√ŝ + eps), where s follows (G − m)²: large steps where the gradient is as
    was expected."""

    states = ("mean", "surprise")

    def __init__(
        self, spec, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(spec)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def update(self, slab, gradients, rate):
        parts = zip(
            slab.updates,
            gradients,
            slab.state("mean"),
            slab.state("surprise"),
            slab.steps,
            strict=True,
        )
        for update, gradient, mean, surprise, step in parts:
            mean.lerp_(gradient, 1 - self.beta1)
            surprise.lerp_((gradient - mean).square(), 1 - self.beta2)
            size = (surprise / (1 - self.beta2**step)).sqrt() + self.eps
            torch.div(mean, size, out=update)
            update.mul_(-rate / (1 - self.beta1**step))
