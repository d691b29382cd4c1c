"""Equal relative steps: everything that is controlled moves by the same ‖ΔW‖/‖W‖."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from workers.controls.layer_control import LayerControl

# Targets that are taken from the steps of other layers, so that one alone has nothing to equal.
RELATIVE = ("mean", "median", "budget")


class EqualStep(LayerControl):
    """U_l ← s_l·U_l with s_l = ρ / r_l, r_l = ‖U_l‖ / ‖W_l‖: equal relative steps, own directions.

    ρ is the mean or the median (middle values averaged) of r_l over what is controlled at this
    step; for ``budget`` √(Σ‖U_l‖² / Σ‖W_l‖²), which keeps the size of the whole step; for
    ``learning_rate`` the scheduled one (LAMB, You et al. 2020, arXiv 1904.00962, with ``unit`` as
    its layer); or a fixed number. What has an update or a weight of zero has no ratio: it keeps its
    step and does not enter ρ.
    """

    scales_updates = True

    def __init__(
        self, target: str | float, scope: str, unit: Literal["block", "matrix"] = "block"
    ) -> None:
        self.target = target
        self.scope = scope
        self.unit = unit

    def update_scale(self, update_norms: Tensor, weight_norms: Tensor) -> Tensor:
        live = (update_norms > 0) & (weight_norms > 0)
        ratios = torch.where(live, update_norms / weight_norms, torch.nan)
        if isinstance(self.target, float):
            rho = torch.full_like(ratios, self.target)
        elif self.target == "learning_rate":
            rho = torch.full_like(ratios, self.learning_rate)
        elif self.target == "budget":
            rho = update_norms[live].norm() / weight_norms[live].norm()
        else:
            rho = ratios.nanmean() if self.target == "mean" else ratios.nanquantile(0.5)
        return torch.where(live, rho / ratios, torch.ones_like(ratios))

    def controls(self, kind: str) -> bool:
        return kind == "block" or self.scope == "all"
