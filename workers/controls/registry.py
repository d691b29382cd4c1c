"""From the control a specification names to its rule."""

from __future__ import annotations

from sweeps import spec
from workers.controls.equal_step import EqualStep
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import LayerControl, Standard


def build_control(control: spec.Control) -> LayerControl:
    """Return the rule a run's specification names."""
    if isinstance(control, spec.LayerClip):
        return LayerClip(control.max_norm)
    if isinstance(control, spec.EqualStep):
        return EqualStep(control.target, control.scope)
    return Standard()
