"""A twin computes what its original does, from weights that are there only while they are used."""

import pytest
import torch
from transformers import (
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    ZambaConfig,
    ZambaForCausalLM,
)

from tests.zoo.looped_decoders import looped
from workers.controls.layer_groups import group_layers
from workers.depth.stacks import in_twin
from workers.engines.float32_twin import float32_twin
from workers.models.pretrained import backbone_of, examine, inputs_of

CPU = torch.device("cpu")
IDS = torch.arange(32).reshape(2, 16)
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def deberta():
    """A table of positions that is read outside the module that holds it."""
    return DebertaV2ForMaskedLM(
        DebertaV2Config(**SHAPE, relative_attention=True, position_buckets=8, pos_att_type=["c2p"])
    )


def zamba():
    """A transformer that lies in several blocks."""
    shape = {**SHAPE, "num_hidden_layers": 6}
    return ZambaForCausalLM(
        ZambaConfig(**shape, attn_layer_period=2, attn_layer_offset=1, num_key_value_heads=2)
    )


def t5():
    return T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    )


MODELS = {
    "deberta": deberta,
    "zamba": zamba,
    "t5": t5,
    "huginn": lambda: looped("huginn"),
    "recursive": lambda: looped("recursive"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_twin_computes_what_its_original_does(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    backbone = backbone_of(model)
    stacks = examine(model).stacks
    groups = group_layers(model, lambda: model(**inputs_of(model, IDS)), stacks).groups
    asked = []

    def gather(number, wanted):
        asked.append(number)
        return {k: groups[number].parameters[k].detach().clone() for k in wanted}

    twin = float32_twin(backbone, groups, gather, CPU)
    assert any(parameter.is_meta for parameter in twin.parameters())
    with torch.no_grad():
        wanted = backbone(**inputs_of(backbone, IDS))[0]
        found = twin(**inputs_of(twin, IDS))[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    empty = {n for n, p in twin.named_parameters() if p.is_meta}
    grouped = {id(p) for group in groups for p in group.parameters}
    assert empty == {n for n, p in backbone.named_parameters() if id(p) in grouped}
    blocks = [k for k, group in enumerate(groups) if group.kind == "block"]
    assert {asked.count(k) for k in blocks} >= {1} or stacks[0].depth > len(stacks[0].blocks)
    moved = in_twin(stacks, backbone, twin)
    assert [stack.calls for stack in moved] == [stack.calls for stack in stacks]
