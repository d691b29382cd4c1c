"""What a user's own file says of what it brings: controls, objectives, optimizers and the like.

    from sweeps.plugins import control
    from workers.controls.layer_control import LayerControl

    @control("soft_clip")
    class SoftClip(LayerControl):
        scales_gradients = True

        def __init__(self, *, strength: float = 1.0) -> None:
            self.strength = strength

        def gradient_scale(self, gradient_norms):
            return self.strength / (self.strength + gradient_norms)

A sweep file that lists it, ``plugins: [./mine.py]``, then has the control ``soft_clip`` with the
option ``strength``. Options are the parameters after the ``*``, each with a type and, where it need
not be said, a default. An installed package offers its own under the entry point
``depthsweep.plugins``, which names the module that has them.

Importing this loads neither torch nor anything of the rest.
"""

from sweeps.plugins.marks import control, family, metric, objective, optimizer, selection

__all__ = ["control", "family", "metric", "objective", "optimizer", "selection"]
