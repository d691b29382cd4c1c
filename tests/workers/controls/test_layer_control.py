"""What a control may return: one finite factor a layer, else an error that names the control."""

import pytest
import torch

from sweeps.errors import UserError
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import LayerControl, checked_factors

NORMS = torch.tensor([1.0, 2.0, 3.0])


class Own(LayerControl):
    plugin_place = "mine (own.py:7)"


class OwnByMatrix(Own):
    unit = "matrix"


def test_a_control_that_says_nothing_changes_nothing_and_controls_everything():
    control = LayerControl()
    assert control.gradient_scale(NORMS).tolist() == [1.0] * 3
    assert control.update_scale(2 * NORMS, NORMS).tolist() == [1.0] * 3
    assert all(control.controls(kind) for kind in ("embedding", "block", "head"))
    assert (control.scales_gradients, control.scales_updates, control.batches) == (False, False, 0)
    control.prepare([], [])
    control.learn(NORMS[None], NORMS[None])


def test_a_factor_for_each_layer_is_passed_on():
    for factors in (NORMS / 2, NORMS.double(), NORMS * 0):
        assert checked_factors(Own(), "update_scale", factors, NORMS) is factors


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        (1.0, "returns a float"),
        ([1.0] * 3, "returns a list"),
        (torch.ones(()), r"returns a tensor of shape \(\) and type float32"),
        (torch.ones(4), r"returns a tensor of shape \(4,\) and type float32"),
        (torch.ones(3, 1), r"returns a tensor of shape \(3, 1\) and type float32"),
        (torch.ones(3, dtype=torch.int64), r"returns a tensor of shape \(3,\) and type int64"),
        (torch.tensor([1.0, torch.nan, 1.0]), "returns a factor that is not finite"),
        (torch.tensor([1.0, torch.inf, 1.0]), "returns a factor that is not finite"),
    ],
)
def test_anything_else_is_refused_with_the_place_of_the_control(factors, said):
    with pytest.raises(
        UserError, match=rf"^mine \(own\.py:7\): gradient_scale {said}: .* 3 layers"
    ):
        checked_factors(Own(), "gradient_scale", factors, NORMS)
    with pytest.raises(UserError, match=rf"update_scale {said}: .* each of 3 matrices"):
        checked_factors(OwnByMatrix(), "update_scale", factors, NORMS)


def test_of_norms_that_are_not_finite_no_finite_factor_is_asked():
    factors = torch.tensor([1.0, torch.nan, 1.0])
    broken = torch.tensor([1.0, torch.inf, 1.0])
    assert checked_factors(Own(), "update_scale", factors, broken) is factors
    assert checked_factors(LayerClip(1.0), "gradient_scale", factors, NORMS) is factors
    with pytest.raises(UserError, match=r"^LayerClip: gradient_scale returns a tensor of shape"):
        checked_factors(LayerClip(1.0), "gradient_scale", torch.ones(2), NORMS)


def test_half_of_the_limit_is_left_alone_and_twice_of_it_is_halved():
    scale = LayerClip(2.0).gradient_scale(torch.tensor([0.0, 1.0, 4.0]))
    assert scale.tolist() == pytest.approx([1.0, 1.0, 0.5], rel=1e-6)
