import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    JambaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from sweeps.errors import UserError
from tests.zoo.looped_decoders import Block, looped
from workers.controls.layer_groups import group_layers
from workers.depth.finding import find_stacks
from workers.depth.stacks import UngroupedParameters, in_twin, own_parameters, positions
from workers.models.pretrained import examine, measure_facts

IDS = torch.arange(12).reshape(2, 6)


def albert(groups, inner):
    return AlbertForMaskedLM(
        AlbertConfig(
            vocab_size=64,
            embedding_size=16,
            hidden_size=32,
            num_hidden_layers=4,
            num_hidden_groups=groups,
            inner_group_num=inner,
            num_attention_heads=2,
            intermediate_size=32,
        )
    ).eval()


@pytest.mark.parametrize(
    ("groups", "inner", "calls"),
    [
        (1, 1, (0, 0, 0, 0)),
        (2, 1, (0, 0, 1, 1)),
        (1, 2, (0, 1, 0, 1, 0, 1, 0, 1)),
        (2, 2, (0, 1, 0, 1, 2, 3, 2, 3)),
    ],
)
def test_albert_has_a_depth_position_for_each_call_of_its_shared_blocks(groups, inner, calls):
    model = albert(groups, inner)
    (stack,) = examine(model).stacks
    assert stack.calls == calls
    assert len(stack.blocks) == groups * inner
    hidden = model(IDS, output_hidden_states=True).hidden_states
    assert len(hidden) == stack.depth + 1
    facts = measure_facts(model)
    assert (facts.layers, facts.depth, facts.width) == (groups * inner, len(calls), 32)


def test_a_position_says_which_block_ran_there_and_how_often_before():
    (stack,) = examine(albert(2, 1)).stacks
    found = [(p.layer, p.block, p.iteration, p.depth) for p in stack.positions()]
    assert found == [(0, 0, 0, 0), (1, 1, 0, 0.25), (2, 1, 1, 0.5), (3, 2, 0, 0.75), (4, 2, 1, 1)]
    assert [p.block_class for p in stack.positions()] == [None, *["AlbertLayer"] * 4]


T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_heads": 2}
BART = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
LLAMA = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **LLAMA)), "model.layers"),
        (
            lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=1, n_head=2)),
            "transformer.h",
        ),
        (
            lambda: MambaForCausalLM(
                MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1)
            ),
            "backbone.layers",
        ),
        (
            lambda: T5ForConditionalGeneration(T5Config(num_layers=2, num_decoder_layers=1, **T5)),
            "decoder.block",
        ),
        (
            lambda: T5ForConditionalGeneration(T5Config(num_layers=1, num_decoder_layers=2, **T5)),
            "encoder.block",
        ),
        (
            lambda: BartForConditionalGeneration(
                BartConfig(encoder_layers=2, decoder_layers=1, **BART)
            ),
            "model.decoder.layers",
        ),
    ],
    ids=["llama", "gpt2", "mamba", "t5 decoder", "t5 encoder", "bart decoder"],
)
def test_a_stack_of_one_block_is_refused_and_its_parts_are_no_blocks(make, path):
    with pytest.raises(UngroupedParameters, match=f"has one block in {path}, and a profile"):
        examine(make().eval())


def test_prelude_core_and_coda_of_a_looped_decoder_are_one_stack():
    model = looped("huginn", loops=3)
    (stack,) = examine(model).stacks
    assert len(stack.blocks) == 5
    assert stack.calls == (0, 1, 2, 3, 2, 3, 2, 3, 4)
    groups = group_layers(model, lambda: model(IDS)).groups
    assert [group.layer for group in groups] == [0, 1, 2, 3, 4, 5, 6]
    first_of_core = next(group for group in groups if group.layer == 3)
    assert {"model.loop.adapter.weight", "model.loop.core.0.norm.weight"} <= set(
        first_of_core.names
    )


def test_turns_without_gradients_are_turns():
    (stack,) = examine(looped("recursive", loops=3)).stacks
    assert len(stack.blocks) == 2
    assert stack.calls == (0, 1) * 9


def test_a_block_in_no_list_that_feeds_itself_is_the_stack():
    (stack,) = examine(looped("universal", loops=4)).stacks
    assert stack.path == "model.loop.block"
    assert stack.calls == (0, 0, 0, 0)


@pytest.mark.parametrize("shape", ["huginn", "recursive", "universal"])
def test_each_parameter_of_a_looped_decoder_is_in_one_group(shape):
    model = looped(shape)
    grouping = group_layers(model, lambda: model(IDS))
    names = [name for group in grouping.groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_modules_with_the_very_same_parameters_are_one_block():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(12, 16), nn.Linear(16, 12)
            self.blocks = nn.ModuleList(Block() for _ in range(3))
            for block in self.blocks[1:]:
                for name, _ in list(block.named_parameters()):
                    owner, _, kind = name.rpartition(".")
                    first = self.blocks[0].get_parameter(name)
                    setattr(block.get_submodule(owner), kind, first)

        def forward(self, ids):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Tied()
    (stack,) = find_stacks(model, lambda: model(IDS))
    assert (len(stack.blocks), stack.calls) == (1, (0, 0, 0))
    groups = group_layers(model, lambda: model(IDS)).groups
    assert [group.layer for group in groups] == [0, 1, 2]


def test_unlike_blocks_in_one_list_are_blocks():
    model = JambaForCausalLM(
        JambaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=2,
            mamba_d_state=4,
        )
    ).eval()
    groups = group_layers(model, lambda: model(IDS)).groups
    kinds = [group.block_class for group in groups]
    assert kinds == [None, *["JambaMambaDecoderLayer", "JambaAttentionDecoderLayer"] * 2, None]


def bart():
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=64,
            d_model=32,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=32,
        )
    ).eval()


def test_an_encoder_decoder_has_two_stacks_and_layers_are_counted_in_each():
    model = bart()
    stacks = examine(model).stacks
    assert [(stack.name, stack.calls) for stack in stacks] == [
        ("encoder", (0, 1)),
        ("decoder", (0, 1, 2)),
    ]
    facts = measure_facts(model)
    assert (facts.layers, facts.depth, facts.stacks) == (5, 5, "encoder 2, decoder 3")
    groups = group_layers(model, lambda: model(input_ids=IDS, decoder_input_ids=IDS)).groups
    places = [(group.stack, group.layer) for group in groups]
    assert places == [
        (None, 0),
        *[("encoder", k) for k in (1, 2)],
        *[("decoder", k) for k in (1, 2, 3)],
    ]
    assert [p.label for p in positions(stacks)][-1] == "decoder layer 3"


def test_the_norm_behind_an_encoder_is_of_the_head_and_its_biases_of_the_block_that_makes_them():
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    )
    groups = group_layers(model, lambda: model(input_ids=IDS, decoder_input_ids=IDS)).groups
    found = {(group.stack, group.layer): group.names for group in groups}
    assert found[None, 3] == ("encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight")
    assert any("relative_attention_bias" in name for name in found["encoder", 1])
    assert not any("relative_attention_bias" in name for name in found["encoder", 2])


class Around(nn.Module):
    """Two towers beside each other, whose results are added, and lists that are no stacks."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 16), nn.Linear(16, 12)
        self.left = nn.ModuleList(Block() for _ in range(2))
        self.right = nn.ModuleList(Block() for _ in range(3))
        self.parallel = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, ids):
        x = self.embed(ids)
        x = sum(projection(x) for projection in self.parallel)
        left = right = x
        for block in self.left:
            left = block(left)
        for block in self.right:
            right = block(right)
        return self.head(left + right)


def test_two_towers_are_refused_by_name_and_one_can_be_chosen():
    model = Around()
    with pytest.raises(UngroupedParameters, match=r"2 stacks .*left \(2\), right \(3\).*`blocks: "):
        find_stacks(model, lambda: model(IDS))
    (stack,) = find_stacks(model, lambda: model(IDS), "right")
    assert (stack.path, len(stack.blocks), stack.name) == ("right", 3, None)
    grouping = group_layers(model, lambda: model(IDS), [stack])
    names = {group.layer: group.names for group in grouping.groups}
    assert "parallel.3.weight" in names[0]
    assert sorted(n for each in names.values() for n in each) == sorted(
        name for name, _ in model.named_parameters()
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [("middle", "Around has no middle; it has left, right, parallel"), ("idle", "are not run")],
)
def test_a_path_that_leads_to_no_blocks_is_refused(path, said):
    model = Around()
    model.idle = nn.ModuleList(Block() for _ in range(2))
    with pytest.raises(UserError, match=said):
        find_stacks(model, lambda: model(IDS), path)


def test_a_model_without_depth_is_refused():
    model = nn.Sequential(nn.Embedding(12, 16), nn.Linear(16, 12))
    with pytest.raises(UngroupedParameters, match="no stack of blocks"):
        find_stacks(model, lambda: model(IDS))


def test_numbered_blocks_in_no_list_are_a_stack():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(12, 16), nn.Linear(16, 12)
            self.h0, self.h1, self.h2 = Block(), Block(), Block()

        def forward(self, ids):
            return self.head(self.h2(self.h1(self.h0(self.embed(ids)))))

    model = Numbered()
    (stack,) = find_stacks(model, lambda: model(IDS))
    assert stack.blocks == (model.h0, model.h1, model.h2)


def test_blocks_that_shorten_the_sequence_are_refused_and_named():
    class Shorter(Block):
        def forward(self, hidden_states):
            return super().forward(hidden_states)[:, ::2]

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(12, 16)
            self.blocks = nn.ModuleList([Block(), Shorter(), Block()])

        def forward(self, ids):
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            return x

    model = Pyramid()
    with pytest.raises(
        UngroupedParameters, match=r"block 2 \(Shorter\) of blocks works on \(2, 3, 16\)"
    ):
        find_stacks(model, lambda: model(IDS), tokens=(2, 6))


def test_tokens_first_and_streams_side_by_side_are_states_a_token():
    class Streams(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(12, 16)
            self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))

        def forward(self, ids):
            x = self.embed(ids).transpose(0, 1)[None].repeat(4, 1, 1, 1)  # (streams, T, B, d)
            for block in self.blocks:
                x = block(x)
            return x

    model = Streams()
    (stack,) = find_stacks(model, lambda: model(IDS), tokens=(2, 6))
    assert (stack.axes, stack.width) == ((2, 1), 64)


def test_a_twin_has_the_stack_of_its_original():
    model, twin = looped("huginn"), looped("huginn")
    stacks = examine(model).stacks
    (moved,) = in_twin(stacks, model, twin)
    assert moved.calls == stacks[0].calls
    assert moved.blocks[2] is twin.model.loop.core[0]


def test_what_blocks_share_is_none_of_theirs():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(12, 16)
            self.blocks = nn.ModuleList(Block() for _ in range(2))
            self.blocks[1].mix = self.blocks[0].mix

        def forward(self, ids):
            return self.blocks[1](self.blocks[0](self.embed(ids)))

    model = Shared()
    stacks = find_stacks(model, lambda: model(IDS))
    own = own_parameters(stacks)
    assert [len(parameters) for parameters in own] == [6, 6]
    assert not any(p is model.blocks[0].mix.weight for each in own for p in each)


def test_one_block_is_no_list_of_blocks():
    """Its parts feed each other, too: a slip of one character is not to make them a depth."""
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50))
    path = "transformer.h"
    assert [stack.path for stack in examine(model, path).stacks] == [path]
    for wrong, said in ((f"{path}.0", "has no list of blocks at"), ("transformer.j", "has no")):
        with pytest.raises(UserError, match=rf"blocks: .*{said} {wrong}; it has {path}"):
            examine(model, wrong)
