"""From the control a specification names to its rule."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps import spec
from sweeps.errors import UserError
from sweeps.plugins.opened import opened
from workers.controls.equal_step import RELATIVE, EqualStep
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import LayerControl, Standard
from workers.controls.layer_groups import LayerGroup
from workers.controls.layer_rates import LayerRates


def require_effect(
    control: LayerControl, said: str, groups: Sequence[LayerGroup], blocks: int
) -> None:
    """Raise UserError where a control would do nothing, since ``freeze`` leaves it no layers.

    ``blocks`` is how many distinct ones the model has: of a single one, called again and again,
    equal steps are true by construction, and such a run is what others are compared with.
    """
    if not (control.scales_gradients or control.scales_updates):
        return
    controlled = [group for group in groups if control.controls(group.kind)]
    if not controlled:
        raise UserError(f"control {said}: none of the layers that it controls is trained (freeze)")
    relative = isinstance(control, LayerRates) and control.batches > 0
    if isinstance(control, EqualStep) and control.unit == "block":
        relative = control.target in RELATIVE
    if relative and len(controlled) == 1 < blocks:
        raise UserError(
            f"control {said}: does nothing where one layer alone is trained (freeze): it compares"
            " the steps of several; freeze fewer, or take the standard control"
        )
    if isinstance(control, LayerRates) and set(control.multipliers or ()) == {1.0}:
        raise UserError(
            f"control {said}: multiplies all that is trained (freeze) by 1, which does nothing;"
            " freeze fewer, or take the standard control"
        )


def build_control(control: spec.Control) -> LayerControl:
    """Return the rule a run's specification names; a user's own has been opened."""
    if isinstance(control, spec.PluginControl):
        own = opened(control.code, "control", control.kind)
        built: LayerControl = own.build(options=control.options)
        built.plugin_place = f"{own.where}: control {own.name!r}"
        return built
    if isinstance(control, spec.LayerClip):
        return LayerClip(control.max_norm)
    if isinstance(control, spec.EqualStep):
        return EqualStep(control.target, control.scope, control.unit)
    if isinstance(control, spec.LayerRates):
        return LayerRates(control)
    return Standard()
