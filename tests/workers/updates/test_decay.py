"""Which parameters weight decay moves, in models of every kind."""

import pytest
import torch
from torch import nn

from sweeps import spec
from workers.controls.layer_control import Standard
from workers.controls.layer_groups import find_layer_groups
from workers.engines.plain import PlainEngine
from workers.updates.decay import decaying

PART = spec.Optimizer(learning_rate=0.5, weight_decay=0.2, decay_all=False)


def test_every_matrix_decays_and_no_bias_or_norm_does(family, make_language_model):
    model, _ = make_language_model(family)
    named = dict(model.named_parameters())
    found = dict(zip(named, decaying(list(named), list(named.values()), PART), strict=True))
    norms = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if "Norm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    }
    assert norms
    for name, decays in found.items():
        if name in norms or name.endswith("bias"):
            assert not decays, name
        elif any(
            isinstance(m, nn.Linear | nn.Embedding) and m.weight is named[name]
            for m in model.modules()
            if hasattr(m, "weight")
        ):
            assert decays, name
    every = PART.model_copy(update={"decay_all": True})
    assert all(decaying(list(named), list(named.values()), every))


def test_wide_biases_and_norms_of_heads_are_left_out():
    shapes = {
        "mlp.experts.gate_up_proj_bias": (4, 8),
        "self_attn.q_norm.weight": (4, 8),
        "mixer.conv1d.weight": (8, 1, 4),
        "time_mix_key": (1, 1, 8),
        "mixer.A_log": (8, 4),
    }
    parameters = [torch.ones(shape) for shape in shapes.values()]
    assert decaying(list(shapes), parameters, PART) == [False, False, True, False, True]


@pytest.mark.parametrize("slab", [100, None])
@pytest.mark.parametrize("rule", ["sgd", "adafactor"])
def test_without_gradients_only_what_decays_moves(rule, slab, make_language_model):
    model, _ = make_language_model("gpt2")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = find_layer_groups(model, lambda: model(input_ids=torch.arange(4)[None]))
    optimizer = spec.Optimizer(
        rule=rule, **PART.model_dump(include={"learning_rate", "weight_decay", "decay_all"})
    )
    PlainEngine(model, groups, Standard(), optimizer, "fp32", slab).step(0.5)
    for name, parameter in model.named_parameters():
        kept = parameter.dim() < 2
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if kept else 0.9))
