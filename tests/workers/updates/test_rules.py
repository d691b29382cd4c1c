"""Every rule in the plain engine against torch's own optimizer, or an obvious one, for 20 steps."""

import copy
import math

import pytest
import torch

from sweeps import spec
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines.plain import PlainEngine
from workers.updates.muon import A, B, C, orthogonal
from workers.updates.registry import RULES

STEPS = 20
# Rates at which each rule moves weights by a similar share.
RATE = {"adamw": 2e-3, "sgd": 0.1, "lion": 5e-4, "adafactor": 1e-2, "muon": 2e-3}
DECAY = 0.05


def loss_of(model, step):
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 400, (4, 12), generator=generator)
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def groups_of(model):
    ids = torch.arange(4)[None]
    return find_layer_groups(model, lambda: model(input_ids=ids))


def optimizer_of(rule, **options):
    return spec.Optimizer(rule=rule, learning_rate=RATE[rule], **options)


def rate_at(rule, step):
    return RATE[rule] * (1 - step / (2 * STEPS))


def trained(model, optimizer, control=None, steps=range(2)):
    """Return the engine after its steps, and the record of each."""
    rule = build_control(control or spec.Standard())
    engine = PlainEngine(model, groups_of(model), rule, optimizer, "fp32")
    records = []
    for step in steps:
        engine.backward(loss_of(model, step))
        records.append(engine.step(rate_at(optimizer.rule, step)))
    return engine, records


class Lion:
    """Algorithm 2 of the paper, a line a line."""

    def __init__(self, model, betas, decay):
        self.parameters, self.betas, self.decay = list(model.parameters()), betas, decay
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate):
        for p, m in zip(self.parameters, self.momenta, strict=True):
            c = self.betas[0] * m + (1 - self.betas[0]) * p.grad
            p.copy_(p - rate * (c.sign() + self.decay * p))
            m.copy_(self.betas[1] * m + (1 - self.betas[1]) * p.grad)


class Muon:
    """Momentum, Nesterov, five rounds of the quintic on the singular values; AdamW for the rest."""

    def __init__(self, model, momentum, decay):
        blocks = [g.parameters for g in groups_of(model) if g.kind == "block"]
        self.matrices = [p for group in blocks for p in group if p.dim() == 2]
        mine = {id(p) for p in self.matrices}
        rest = [p for p in model.parameters() if id(p) not in mine]
        self.adamw = torch.optim.AdamW(rest, eps=1e-6, weight_decay=decay)
        self.momentum, self.decay = momentum, decay
        self.buffers = [torch.zeros_like(p, dtype=torch.float64) for p in self.matrices]

    @torch.no_grad()
    def step(self, rate):
        for p, buffer in zip(self.matrices, self.buffers, strict=True):
            gradient = p.grad.double()
            buffer.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
            u, s, vh = torch.linalg.svd(
                self.momentum * buffer + (1 - self.momentum) * gradient, full_matrices=False
            )
            s = s / s.norm()
            for _ in range(5):
                s = A * s + B * s**3 + C * s**5
            size = rate * 0.2 * math.sqrt(max(p.shape))
            p.copy_(p - size * (u * s @ vh) - rate * self.decay * p)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()


class Torch:
    """An optimizer of torch's, with decay apart from the gradient."""

    def __init__(self, optimizer, decay=0.0):
        self.optimizer, self.decay = optimizer, decay

    @torch.no_grad()
    def step(self, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            for p in group["params"]:
                p.mul_(1 - rate * self.decay)
        self.optimizer.step()


def reference(rule, model):
    parameters = list(model.parameters())
    if rule == "lion":
        return Lion(model, (0.9, 0.99), DECAY)
    if rule == "muon":
        return Muon(model, 0.95, DECAY)
    if rule == "sgd":
        return Torch(torch.optim.SGD(parameters, momentum=0.9), DECAY)
    if rule == "adafactor":
        return Torch(torch.optim.Adafactor(parameters, weight_decay=DECAY))
    return Torch(torch.optim.AdamW(parameters, eps=1e-6, weight_decay=DECAY))


def give(model, rule, step):
    """Give the parameters their gradients: those of a loss, but where rounding turns signs."""
    model.zero_grad()
    if rule != "lion":
        loss_of(model, step).backward()
        return
    generator = torch.Generator().manual_seed(step)
    for k, p in enumerate(model.parameters()):
        p.grad = torch.randn(p.shape, generator=generator) * 0.01 / (1 + k % 5)


# In float32 after 20 steps, of weights that moved by 0.01 to 0.2. Muon's reference takes singular
# values in float64.
TOLERANCE = {"adamw": 5e-6, "sgd": 5e-6, "lion": 5e-6, "adafactor": 5e-6, "muon": 5e-5}


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_equal_torchs_or_the_obvious_ones(rule, family, make_language_model):
    model, _ = make_language_model(family)
    twin, before = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = optimizer_of(rule, weight_decay=DECAY)
    groups = groups_of(model)
    # Small slabs: a layer is cut in many places.
    engine = PlainEngine(model, groups, build_control(spec.Standard()), optimizer, "fp32", 1000)
    obvious = reference(rule, twin)
    for step in range(STEPS):
        give(model, rule, step)
        engine.step(rate_at(rule, step))
        give(twin, rule, step)
        for p in twin.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        obvious.step(rate_at(rule, step))
    three = (one.parameters() for one in (model, twin, before))
    moved = 0.0
    for mine, other, old in zip(*three, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=TOLERANCE[rule])
        moved = max(moved, (other - old).abs().max().item())
    assert moved > 100 * TOLERANCE[rule]


def copies(groups):
    return [[p.detach().double().clone() for p in group.parameters] for group in groups]


def spread(ratios):
    return max(ratios) / min(ratios) - 1


@pytest.mark.parametrize("unit", ["block", "matrix"])
@pytest.mark.parametrize("rule", RULES)
def test_equal_steps_are_equal_under_every_rule(rule, unit, make_language_model):
    found = {}
    for control in (spec.EqualStep(target="budget", unit=unit), spec.Standard()):
        model, _ = make_language_model("gpt2")
        engine, _ = trained(model, optimizer_of(rule), control, range(2))
        before = copies(engine.groups)
        engine.backward(loss_of(model, 2))
        record = engine.step(RATE[rule])
        blocks = [k for k, group in enumerate(engine.groups) if group.kind == "block"]
        layers = [record.update_norms[k] / record.weight_norms[k] for k in blocks]
        after = copies(engine.groups)
        matrices = [
            ((new - old).norm() / old.norm()).item()
            for k in blocks
            for old, new in zip(before[k], after[k], strict=True)
        ]
        found[control.kind] = spread(layers), spread(matrices)
    assert found["equal_step"][0] < 1e-5
    assert min(found["standard"]) > 1e-4
    # Displacements are differences of float32 weights.
    assert (found["equal_step"][1] < 1e-3) == (unit == "matrix")


@pytest.mark.parametrize("rule", RULES)
def test_clipping_comes_before_the_rule(rule, make_language_model):
    ends = []
    for clip in (1e9, 0.05):
        model, _ = make_language_model("gpt2")
        _, records = trained(model, optimizer_of(rule, max_grad_norm=clip), steps=range(2))
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert (records[-1].clip_coefficient < 1) == (clip == 0.05)
    # Only the size of the gradient changes, to which sgd is proportional and others nearly blind.
    assert (ends[0] - ends[1]).abs().max() > (1e-3 if rule == "sgd" else 0)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_recorded_is_what_happened(rule, make_language_model):
    model, _ = make_language_model("opt")
    engine, _ = trained(model, optimizer_of(rule, weight_decay=DECAY), steps=range(2))
    before = copies(engine.groups)
    engine.backward(loss_of(model, 7))
    record = engine.step(RATE[rule])
    parts = zip(before, copies(engine.groups), record.update_norms, strict=True)
    for old, new, update in parts:
        moved = sum((n - o).square().sum() for n, o in zip(new, old, strict=True))
        assert update == pytest.approx(math.sqrt(moved), rel=1e-4)


def test_orthogonal_has_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((20, 50), (50, 20), (16, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.3 < values.min() <= values.max() < 1.3


def test_a_rule_keeps_what_the_specification_says_of_it():
    for name, rule in RULES.items():
        optimizer = optimizer_of(name)
        made = rule(optimizer)
        assert made.whole_matrices == optimizer.whole_matrices
        if not made.whole_matrices:
            assert len(made.states) == optimizer.kept
    without = spec.Optimizer(rule="sgd", learning_rate=0.1, momentum=0.0)
    assert (RULES["sgd"](without).states, without.kept) == ((), 0)
    assert set(RULES) == set(spec.OPTIMIZERS)
