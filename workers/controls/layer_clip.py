"""Clipping of each layer's gradient by itself."""

from __future__ import annotations

from torch import Tensor

from workers.controls.layer_control import LayerControl


class LayerClip(LayerControl):
    """G_l ← G_l · min(1, max_norm / (‖G_l‖ + 1e-6))."""

    scales_gradients = True

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def gradient_scale(self, gradient_norms: Tensor) -> Tensor:
        return (self.max_norm / (gradient_norms + 1e-6)).clamp(max=1.0)
