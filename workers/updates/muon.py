"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum made orthogonal.

It is for the matrices inside of blocks. Whatever is none (embeddings, heads, vectors, stacks of
matrices) steps by AdamW, as its authors have it. One learning rate serves both: an orthogonal step
is scaled to the root mean square that AdamW's steps usually have (Liu et al. 2025, arXiv
2502.16982, equation 4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workers.controls.layer_groups import BLOCK
from workers.updates.update_rule import MatrixRule

# The quintic of Newton and Schulz: five rounds bring singular values to between 0.7 and 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5
TINY = 1e-7
# What the root mean square of AdamW's steps is, in learning rates.
USUAL_STEP = 0.2
BUFFER = "momentum_buffer"


class Muon(MatrixRule):
    """U = 0.2·√max(rows, columns) · rate · O, where O ≈ (M·Mᵀ)^−½·M of M = (1 − μ)·G + μ·b after
    b ← μ·b + (1 − μ)·G (Nesterov's momentum), for matrices; AdamW's U for the rest."""

    states = (BUFFER, "exp_avg", "exp_avg_sq")

    def shapes(self, shape: torch.Size, kind: str) -> dict[str, tuple[int, ...]]:
        names = (BUFFER,) if kind == BLOCK and len(shape) == 2 else ("exp_avg", "exp_avg_sq")
        return dict.fromkeys(names, tuple(shape))

    def step_of(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float, step: Tensor
    ) -> Tensor:
        if BUFFER not in state:
            return self._adamw(gradient, state, rate, step)
        momentum = self.optimizer.momentum or 0.0
        buffer = state[BUFFER].lerp_(gradient, 1 - momentum)
        made = orthogonal(gradient.lerp(buffer, momentum))
        return made * (rate * USUAL_STEP * math.sqrt(max(weight.shape)))

    def _adamw(
        self, gradient: Tensor, state: dict[str, Tensor], rate: float, step: Tensor
    ) -> Tensor:
        beta1, beta2 = self.optimizer.betas
        update = torch.zeros_like(gradient)
        torch._fused_adamw_(
            [update],
            [gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [step],
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=self.optimizer.eps,
            amsgrad=False,
            maximize=False,
        )
        return update.neg_()


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about U·Vᵀ of a matrix U·S·Vᵀ, in float32."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=TINY)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = A * x + (B * gram + C * (gram @ gram)) @ x
    made: Tensor = x.T if tall else x
    return made
