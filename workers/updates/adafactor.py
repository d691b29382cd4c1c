"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5), as torch.optim has it.

Of a matrix it keeps a number a row and a number a column: next to nothing beside the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.updates.update_rule import MatrixRule, root_mean_square

# The paper's ε₂, d and the exponent of its decay; its ε₁ as torch takes it for float32.
LEAST_SCALE, CLIP, DECAY = 1e-3, 1.0, -0.8
TINY = torch.finfo(torch.float32).eps


class Adafactor(MatrixRule):
    """U = α·R / max(1, RMS(R)), R = G/√V̂, α = max(10⁻³, RMS(W)) · min(rate, 1/√t).

    V̂ is the product of the rows' and the columns' mean squares over the mean of the rows', and of
    a vector its own squares; both are means that forget as 1 − t^−0.8. A tensor of more than two
    axes is a stack of matrices over its last two.
    """

    states = ("row_var", "col_var", "variance")

    def shapes(self, shape: torch.Size, kind: str) -> dict[str, tuple[int, ...]]:
        del kind
        if len(shape) < 2:
            return {"variance": tuple(shape)}
        return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}

    def step_of(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float, step: Tensor
    ) -> Tensor:
        fresh = step**DECAY
        if weight.dim() > 1:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(_mean_square(gradient, -1), fresh)
            columns.lerp_(_mean_square(gradient, -2), fresh)
            second = rows @ columns
            second.div_(rows.mean(dim=-2, keepdim=True).clamp_(min=TINY))
        else:
            second = state["variance"].lerp_(gradient.square(), fresh).clone()
        made = second.clamp_(min=TINY * TINY).rsqrt_().mul_(gradient)
        size = root_mean_square(weight).clamp(min=LEAST_SCALE) * step.rsqrt().clamp(max=rate)
        return made.mul_(size / (root_mean_square(made) / CLIP).clamp(min=1.0))


def _mean_square(gradient: Tensor, axis: int) -> Tensor:
    norms: Tensor = gradient.norm(dim=axis, keepdim=True)
    return norms.square_().div_(gradient.size(axis))
