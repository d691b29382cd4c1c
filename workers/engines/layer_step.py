"""What one step did to each layer: norms and factors, read from the device at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.passes.passes import GRADIENT, UPDATE


@dataclass(frozen=True)
class LayerStep:
    """What one step did, one entry per layer group in forward order, all of shape (G,)."""

    gradient_norms: list[float]
    weight_norms: list[float]
    update_norms: list[float]
    coefficients: list[float]
    total_gradient_norm: float
    clip_coefficient: float


def no_step(groups: int) -> LayerStep:
    """Return the record of a step that was not taken, for gradients that are not finite."""
    unknown = [math.nan] * groups
    return LayerStep(unknown, unknown, unknown, unknown, math.nan, math.nan)


def record_of(norms: Tensor, coefficients: Tensor, clip: Tensor, scaled_updates: bool) -> LayerStep:
    """Return the record of norms (G, 3), with updates as they were applied."""
    if scaled_updates:
        norms[:, UPDATE] *= coefficients
    total = norms[:, GRADIENT].norm()
    rows = torch.cat([norms.T.flatten(), coefficients.double(), total[None], clip.double()[None]])
    values = rows.tolist()  # the one synchronisation with the device
    n = len(norms)
    return LayerStep(
        gradient_norms=values[:n],
        update_norms=values[n : 2 * n],
        weight_norms=values[2 * n : 3 * n],
        coefficients=values[3 * n : 4 * n],
        total_gradient_norm=values[-2],
        clip_coefficient=values[-1],
    )
