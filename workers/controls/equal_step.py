"""Equal relative steps: every controlled layer moves by the same ‖ΔW‖/‖W‖."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.controls.layer_control import LayerControl


class EqualStep(LayerControl):
    """U_l ← s_l·U_l with s_l = ρ / r_l, r_l = ‖U_l‖ / ‖W_l‖: equal relative steps, own directions.

    ρ is the mean or the median (middle values averaged) of r_l over the controlled layers at this
    step, or a fixed number. A layer whose update or weight is zero has no ratio: it keeps its step
    and does not enter ρ.
    """

    scales_updates = True

    def __init__(self, target: str | float, scope: str) -> None:
        self.target = target
        self.scope = scope

    def update_scale(self, update_norms: Tensor, weight_norms: Tensor) -> Tensor:
        live = (update_norms > 0) & (weight_norms > 0)
        ratios = torch.where(live, update_norms / weight_norms, torch.nan)
        if isinstance(self.target, float):
            rho = torch.full_like(ratios, self.target)
        else:
            rho = ratios.nanmean() if self.target == "mean" else ratios.nanquantile(0.5)
        return torch.where(live, rho / ratios, torch.ones_like(ratios))

    def controls(self, kind: str) -> bool:
        return kind == "block" or self.scope == "all"
