"""A fully tied model meets equal steps by construction: the negative control of the study.

Its one block is all that is controlled, so ``budget``, ρ = ‖U‖/‖W‖ of that block, is its own ratio,
and the factor on its update is 1 but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM, PreTrainedModel

from sweeps.spec import Optimizer
from workers.controls.equal_step import EqualStep
from workers.controls.layer_control import LayerControl, Standard
from workers.controls.layer_groups import find_layer_groups
from workers.engines.plain import PlainEngine
from workers.models.looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel

STEPS = 8
# Each factor differs from 1 by a few roundings of float32, and so does each step of the weights.
ROUNDING = 1e-6


def albert(groups: int) -> AlbertForMaskedLM:
    torch.manual_seed(0)
    return AlbertForMaskedLM(
        AlbertConfig(
            vocab_size=100,
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=4,
            num_hidden_groups=groups,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def looped(groups: int) -> LoopedGPT2LMHeadModel:
    torch.manual_seed(0)
    config = LoopedGPT2Config(
        vocab_size=100,
        n_embd=32,
        n_layer=4,
        n_head=2,
        n_positions=32,
        iterations=4 // groups,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LoopedGPT2LMHeadModel(config)


def trained(
    model: PreTrainedModel, control: LayerControl
) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    """Return the weights after some steps, and of each step the factor on every group."""
    model = copy.deepcopy(model).train()
    ids = torch.randint(0, 100, (STEPS, 4, 16), generator=torch.Generator().manual_seed(1))
    groups = find_layer_groups(model, lambda: model(ids[0]))
    settings = Optimizer(learning_rate=1e-3, eps=1e-6, weight_decay=0.01)
    engine = PlainEngine(model, groups, control, settings, "fp32")
    coefficients = []
    for batch in ids:
        engine.backward(model(batch, labels=batch).loss)
        coefficients.append(engine.step(1e-3).coefficients)
    return {name: p.detach() for name, p in model.named_parameters()}, coefficients


@pytest.mark.parametrize("make", [albert, looped])
@pytest.mark.parametrize("target", ["budget", "mean", "median"])
def test_a_fully_tied_model_under_equal_steps_is_as_under_standard(
    make: Callable[[int], PreTrainedModel], target: str
) -> None:
    model = make(1)
    free, _ = trained(model, Standard())
    controlled, coefficients = trained(model, EqualStep(target, "blocks"))
    for step in coefficients:
        assert step == pytest.approx([1.0] * len(step), abs=ROUNDING)
    for name, weights in free.items():
        moved = (weights - dict(model.named_parameters())[name]).norm()
        assert moved > 0, name
        assert (weights - controlled[name]).norm() <= 10 * ROUNDING * weights.norm(), name


@pytest.mark.parametrize("make", [albert, looped])
def test_with_a_second_block_of_its_own_they_are_not_the_same(
    make: Callable[[int], PreTrainedModel],
) -> None:
    """So that the first test can fail."""
    model = make(2)
    _, coefficients = trained(model, EqualStep("budget", "blocks"))
    blocks = [step[1:3] for step in coefficients]
    assert max(abs(factor - 1.0) for step in blocks for factor in step) > 1e-3
