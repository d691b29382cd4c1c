"""A worked example of a control: each layer's gradient, gently bounded."""

from near_soft_clip import bounded

from sweeps.plugins import control
from workers.controls.layer_control import LayerControl


@control("soft_clip")
class SoftClip(LayerControl):
    """G_l ← G_l · s / (s + ‖G_l‖): never longer than ``strength``, and without a corner."""

    scales_gradients = True

    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength

    def gradient_scale(self, gradient_norms):
        return bounded(gradient_norms, self.strength)
