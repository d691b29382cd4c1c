"""The plain engine against torch's own optimizer and against the obvious way to control layers."""

import copy

import pytest
import torch

from sweeps import spec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.depth.finding import find_stacks
from workers.engines.plain import PlainEngine

OPTIMIZER = spec.Optimizer(learning_rate=1e-2, eps=1e-6, weight_decay=0.1)
RATES = (1e-2, 5e-3, 2e-3)
CONTROLS = {
    "standard": spec.Standard(),
    "layer_clip": spec.LayerClip(max_norm=0.05),
    "equal_step_mean": spec.EqualStep(),
    "equal_step_median": spec.EqualStep(target="median"),
    "equal_step_fixed": spec.EqualStep(target=0.003),
    "equal_step_all": spec.EqualStep(scope="all"),
    "equal_step_budget": spec.EqualStep(target="budget"),
    "equal_step_matrix": spec.EqualStep(target="median", unit="matrix"),
    "layer_rates": spec.LayerRates(rates=(0.2, 0.6, 0.4)),
}


def loss_of(model, step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 400, (4, 12), generator=generator)
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def groups_of(model):
    ids = torch.arange(4)[None]
    return find_layer_groups(model, lambda: model(input_ids=ids))


def engine_of(model, control, optimizer=OPTIMIZER):
    groups, rule = groups_of(model), build_control(control)
    ids = torch.arange(4)[None]
    rule.prepare(groups, find_stacks(model, lambda: model(input_ids=ids)))
    return PlainEngine(model, groups, rule, optimizer, "fp32")


def reference_step(groups, optimizer, control):
    """Clone every weight, step with torch, rescale each unit's displacement from the clone."""
    if control.kind == "layer_clip":
        for group in groups:
            torch.nn.utils.clip_grad_norm_(group.parameters, control.max_norm)
    before = [[p.detach().clone() for p in group.parameters] for group in groups]
    optimizer.step()
    if control.kind in ("standard", "layer_clip"):
        return
    units = []
    for group, old in zip(groups, before, strict=True):
        if group.kind == "block" or control.scope == "all":
            pairs = list(zip(group.parameters, old, strict=True))
            each = getattr(control, "unit", "block") == "matrix"
            units += [[pair] for pair in pairs] if each else [pairs]
    with torch.no_grad():
        for unit, factor in zip(units, factors_of(units, control), strict=True):
            for p, old in unit:
                p.copy_(old + (p - old) * factor)


def factors_of(units, control):
    if control.kind == "layer_rates":
        return control.rates
    moved = []
    for unit in units:
        now = torch.cat([p.detach().flatten() for p, _ in unit]).double()
        old = torch.cat([old.flatten() for _, old in unit]).double()
        moved.append(((now - old).norm().item(), old.norm().item()))
    # What begins at zero has no ratio.
    live = [(u, w) for u, w in moved if u > 0 and w > 0]
    ratios = torch.tensor([u / w for u, w in live], dtype=torch.float64)
    budget = sum(u * u for u, _ in live) / sum(w * w for _, w in live)
    rho = {"mean": ratios.mean(), "median": ratios.quantile(0.5), "budget": budget**0.5}.get(
        control.target, control.target
    )
    return [float(rho) * w / u if u > 0 and w > 0 else 1.0 for u, w in moved]


@pytest.mark.parametrize("name", CONTROLS)
def test_three_steps_equal_the_obvious_implementation(name, make_language_model):
    control = CONTROLS[name]
    model, _ = make_language_model("gpt2")
    twin = copy.deepcopy(model)
    engine = engine_of(model, control)
    groups = groups_of(twin)
    optimizer = torch.optim.AdamW(
        [{"params": list(group.parameters)} for group in groups],
        betas=OPTIMIZER.betas,
        eps=OPTIMIZER.eps,
        weight_decay=OPTIMIZER.weight_decay,
    )
    for step, rate in enumerate(RATES):
        engine.backward(loss_of(model, step))
        engine.step(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss_of(twin, step).backward()
        reference_step(groups, optimizer, control)
    # Float32 rounding of three steps of 1e-2 on weights of order 1; the reference itself subtracts
    # weights and loses the digits they share, the more the smaller the step of a parameter was that
    # is made equal to others'.
    tolerance = 3e-5 if name == "equal_step_matrix" else 3e-6
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "standard"])
def test_a_control_changes_the_weights_far_beyond_that_tolerance(name, make_language_model):
    changed = []
    for control in (CONTROLS["standard"], CONTROLS[name]):
        model, _ = make_language_model("gpt2")
        engine = engine_of(model, control)
        engine.backward(loss_of(model, 0))
        engine.step(1e-2)
        engine.backward(loss_of(model, 1))
        engine.step(1e-2)
        changed.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    # Fifty times the tolerance of parity; mean and median keep the step's size and so change least.
    assert (changed[0] - changed[1]).abs().max() > 1.5e-4


def measured_ratios(groups, act):
    """Return what ``act`` moved each group by, from clones of the weights, in float64."""
    before = [torch.cat([p.detach().flatten() for p in g.parameters]).double() for g in groups]
    record = act()
    after = [torch.cat([p.detach().flatten() for p in g.parameters]).double() for g in groups]
    moved = [((a - b).norm().item(), b.norm().item()) for a, b in zip(after, before, strict=True)]
    return moved, record


@pytest.mark.parametrize("name", CONTROLS)
def test_what_is_recorded_is_what_happened(name, make_language_model):
    model, _ = make_language_model("opt")
    engine = engine_of(model, CONTROLS[name])
    groups = groups_of(model)
    for step in range(3):
        engine.backward(loss_of(model, step))
        gradients = [
            torch.cat([p.grad.flatten() for p in g.parameters]).double().norm().item()
            for g in groups
        ]
        moved, record = measured_ratios(groups, lambda: engine.step(1e-2))
        assert record.gradient_norms == pytest.approx(gradients, rel=1e-5)
        assert record.weight_norms == pytest.approx([w for _, w in moved], rel=1e-6)
        # The displacement is measured by subtracting float32 weights: 1e-7 of the weight's norm.
        for recorded, (update, weight) in zip(record.update_norms, moved, strict=True):
            assert recorded == pytest.approx(update, rel=1e-4, abs=2e-7 * weight)


def test_equal_step_moves_every_block_alike_and_standard_does_not(make_language_model):
    for name, equal in (("equal_step_mean", True), ("standard", False)):
        model, _ = make_language_model("gpt2")
        engine = engine_of(model, CONTROLS[name])
        groups = groups_of(model)
        for step in range(4):
            engine.backward(loss_of(model, step))
            record = engine.step(1e-2)
            ratios = [
                u / w
                for u, w, g in zip(record.update_norms, record.weight_norms, groups, strict=True)
                if g.kind == "block"
            ]
            assert (max(ratios) / min(ratios) - 1 < 1e-5) == equal


def test_global_clipping_is_torchs(make_language_model):
    optimizer = OPTIMIZER.model_copy(update={"max_grad_norm": 0.1})
    model, _ = make_language_model("gpt2")
    twin = copy.deepcopy(model)
    engine = engine_of(model, spec.Standard(), optimizer)
    reference = torch.optim.AdamW(twin.parameters(), lr=1e-2, eps=1e-6, weight_decay=0.1)
    engine.backward(loss_of(model, 0))
    record = engine.step(1e-2)
    loss_of(twin, 0).backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    reference.step()
    assert record.total_gradient_norm == pytest.approx(norm.item(), rel=1e-5)
    assert record.clip_coefficient == pytest.approx(0.1 / (norm.item() + 1e-6), rel=1e-5)
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=3e-6)


def test_gradients_under_the_limit_are_left_as_they_are(make_language_model):
    ends, records = [], []
    for limit in (None, 1e4):
        model, _ = make_language_model("gpt2")
        optimizer = OPTIMIZER.model_copy(update={"max_grad_norm": limit})
        engine = engine_of(model, spec.Standard(), optimizer)
        engine.backward(loss_of(model, 0))
        records.append(engine.step(1e-2))
        ends.append([p.detach().clone() for p in model.parameters()])
    assert [record.clip_coefficient for record in records] == [1.0, 1.0]
    assert records[1].total_gradient_norm < 1e4
    for free, limited in zip(*ends, strict=True):
        torch.testing.assert_close(free, limited, rtol=0, atol=1e-7)


def test_a_control_that_scales_gradients_parameter_by_parameter_is_refused(make_language_model):
    class ByMatrix(LayerControl):
        unit = "matrix"
        scales_gradients = True

    model, _ = make_language_model("gpt2")
    with pytest.raises(ValueError, match="unit is block"):
        PlainEngine(model, groups_of(model), ByMatrix(), OPTIMIZER, "fp32")


def test_bf16_computes_in_bf16_and_keeps_float32_weights(make_language_model):
    model, _ = make_language_model("gpt2")
    engine = PlainEngine(model, groups_of(model), build_control(spec.Standard()), OPTIMIZER, "bf16")
    with engine.forward_precision():
        assert model(input_ids=torch.arange(4)[None]).logits.dtype == torch.bfloat16
        loss = loss_of(model, 0)
    engine.backward(loss)
    engine.step(1e-2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
