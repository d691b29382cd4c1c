"""A control that frozen layers leave nothing to do is refused; the negative control is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sweeps import spec
from sweeps.errors import UserError
from workers.controls.layer_groups import LayerGroup
from workers.controls.registry import build_control, require_effect


def groups(*kinds: str) -> list[LayerGroup]:
    one = (nn.Parameter(torch.ones(2)),)
    return [LayerGroup(k, kind, (f"w{k}",), one) for k, kind in enumerate(kinds)]


CONTROLS = [spec.EqualStep(), spec.EqualStep(target="median"), spec.EqualStep(target=0.001)]


@pytest.mark.parametrize("control", CONTROLS, ids=str)
def test_a_control_without_layers_is_refused(control) -> None:
    with pytest.raises(UserError, match="none of the layers that it controls is trained"):
        require_effect(build_control(control), "equal_step", groups("embedding", "head"), 4)


def test_of_one_layer_among_frozen_ones_there_is_nothing_to_make_equal() -> None:
    left = groups("embedding", "block", "head")
    for control in CONTROLS[:2]:
        with pytest.raises(UserError, match="one layer alone is trained"):
            require_effect(build_control(control), "equal_step", left, 4)
        require_effect(build_control(control), "equal_step", left, 1)  # called again and again
    require_effect(build_control(CONTROLS[2]), "equal_step", left, 4)  # a number is kept by one
    everything = build_control(spec.EqualStep(scope="all"))
    require_effect(everything, "equal_step", left, 4)
    require_effect(build_control(spec.LayerClip(max_norm=0.1)), "layer_clip", left, 4)
    require_effect(build_control(spec.Standard()), "standard", groups("head"), 4)
