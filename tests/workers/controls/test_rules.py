"""The rules of the controls, as vectors: definitions.md, 'Gradient controls'."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweeps import spec
from workers.controls.equal_step import EqualStep
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import Standard
from workers.controls.registry import build_control

norms = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20)


@given(norms, st.floats(1e-2, 1e2))
def test_clipped_norms_do_not_exceed_the_limit_and_small_ones_are_untouched(values, limit):
    gradient = torch.tensor(values)
    clipped = gradient * LayerClip(limit).gradient_scale(gradient)
    assert (clipped <= limit * (1 + 1e-6)).all()
    small = gradient < limit * 0.99 - 1e-6
    assert (clipped[small] == gradient[small]).all()


@given(norms, st.data())
def test_equal_steps_are_equal_and_keep_the_mean(values, data):
    update = torch.tensor(values, dtype=torch.float64)
    weights = torch.tensor(
        data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(values), max_size=len(values))),
        dtype=torch.float64,
    )
    ratios = (update / weights).numpy()
    for target, rho in (("mean", ratios.mean()), ("median", np.median(ratios)), (1e-3, 1e-3)):
        scale = EqualStep(target, "blocks").update_scale(update, weights)
        np.testing.assert_allclose((update * scale / weights).numpy(), rho, rtol=1e-9)


@given(norms, st.data())
def test_a_budget_keeps_the_size_of_the_whole_step(values, data):
    update = torch.tensor(values, dtype=torch.float64)
    weights = torch.tensor(
        data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(values), max_size=len(values))),
        dtype=torch.float64,
    )
    scaled = update * EqualStep("budget", "blocks").update_scale(update, weights)
    assert scaled.norm().item() == pytest.approx(update.norm().item(), rel=1e-9)
    ratios = scaled / weights
    assert (ratios.max() / ratios.min()).item() == pytest.approx(1, rel=1e-9)


def test_a_learning_rate_as_target_is_that_of_the_step():
    control = EqualStep("learning_rate", "blocks")
    for rate in (0.5, 0.01):
        control.learning_rate = rate
        scale = control.update_scale(torch.tensor([1.0, 3.0]), torch.tensor([10.0, 5.0]))
        assert scale.tolist() == pytest.approx([rate / 0.1, rate / 0.6])


@pytest.mark.parametrize("target", ["mean", "median", "budget", 0.01])
def test_a_layer_without_a_ratio_keeps_its_step_and_does_not_count(target):
    update = torch.tensor([1.0, 3.0, 0.0, 5.0])
    weights = torch.tensor([10.0, 10.0, 10.0, 0.0])
    scale = EqualStep(target, "blocks").update_scale(update, weights)
    budget = ((1 + 9) / (100 + 100)) ** 0.5
    rho = {"mean": 0.2, "median": 0.2, "budget": budget, 0.01: 0.01}[target]
    assert scale.tolist() == pytest.approx([rho / 0.1, rho / 0.3, 1.0, 1.0])


@pytest.mark.parametrize(
    ("control", "gradients", "updates"),
    [
        (spec.Standard(), False, False),
        (spec.LayerClip(max_norm=1.0), True, False),
        (spec.EqualStep(), False, True),
        (spec.LayerRates(decay=0.5), False, True),
    ],
)
def test_a_control_scales_gradients_before_a_step_or_updates_after_it(control, gradients, updates):
    rule = build_control(control)
    assert (rule.scales_gradients, rule.scales_updates) == (gradients, updates)


def test_scope_decides_which_groups_are_controlled():
    assert [EqualStep("mean", "blocks").controls(kind) for kind in ("embedding", "block")] == [
        False,
        True,
    ]
    assert EqualStep("mean", "all").controls("embedding")
    assert LayerClip(1.0).controls("head")


def test_the_specification_builds_its_rule():
    assert isinstance(build_control(spec.Standard()), Standard)
    assert build_control(spec.LayerClip(max_norm=2.0)).max_norm == 2.0
    rule = build_control(spec.EqualStep(target=0.5, scope="all"))
    assert (rule.target, rule.scope) == (0.5, "all")
