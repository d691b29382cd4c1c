import pytest
import torch
from torch import nn

from workers.controls.layer_groups import UngroupedParameters, find_blocks, find_layer_groups

IDS = torch.arange(4)[None]


def groups_of(model):
    return find_layer_groups(model, lambda: model(input_ids=IDS))


def test_every_parameter_is_in_exactly_one_group(family, make_language_model):
    model, _ = make_language_model(family)
    groups = groups_of(model)
    grouped = [id(p) for group in groups for p in group.parameters]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}


def test_groups_come_in_forward_order_with_the_blocks_between(family, make_language_model):
    model, _ = make_language_model(family)
    kinds = [(group.layer, group.kind) for group in groups_of(model)]
    assert kinds[:4] == [(0, "embedding"), (1, "block"), (2, "block"), (3, "block")]
    assert kinds[4:] in ([], [(4, "head")])


def names(model, layer):
    return {name for group in groups_of(model) if group.layer == layer for name in group.names}


def test_a_tied_output_embedding_belongs_to_the_embedding(make_language_model):
    model, _ = make_language_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert names(model, 0) == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert names(model, 4) == {"transformer.ln_f.weight", "transformer.ln_f.bias"}


def test_an_untied_output_embedding_belongs_to_the_head(make_language_model):
    model, _ = make_language_model("gpt_neox")
    assert "lm_head.weight" in names(model, 4)


def test_projections_are_placed_by_when_they_run_and_not_by_where_they_stand(make_language_model):
    model, _ = make_language_model("opt_post_norm")
    registered = [name for name, _ in model.model.decoder.named_children()]
    assert registered.index("project_out") < registered.index("layers")
    assert "model.decoder.project_in.weight" in names(model, 0)
    assert "model.decoder.project_out.weight" in names(model, 4)


def test_a_frozen_parameter_is_in_no_group(make_language_model):
    model, _ = make_language_model("gpt2")
    model.transformer.wpe.weight.requires_grad_(False)
    assert names(model, 0) == {"transformer.wte.weight"}


class Stack(nn.Module):
    """Blocks with whatever a test puts around them."""

    def __init__(self, blocks=2):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(blocks))

    def forward(self, input_ids):
        x = torch.zeros(len(input_ids), 4)
        for block in self.blocks:
            x = block(x)
        return x


def test_a_model_outside_the_catalogue_is_grouped_by_the_same_rule():
    class Novel(Stack):
        def __init__(self):
            super().__init__(3)
            self.readout = nn.Linear(4, 2)
            self.lift = nn.Embedding(8, 4)

        def forward(self, input_ids):
            self.lift(input_ids)
            return self.readout(super().forward(input_ids))

    found = {group.layer: group.names for group in groups_of(Novel())}
    assert found[0] == ("lift.weight",)
    assert found[4] == ("readout.weight", "readout.bias")
    assert found[2] == ("blocks.1.weight", "blocks.1.bias")


def test_parameters_the_forward_does_not_use_are_refused_by_name():
    model = Stack()
    model.unused = nn.Linear(4, 4)
    with pytest.raises(UngroupedParameters, match=r"unused\.weight, unused\.bias; freeze"):
        groups_of(model)


def test_a_parameter_around_all_blocks_is_refused_by_name():
    model = Stack()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(UngroupedParameters, match="scale"):
        groups_of(model)


def test_blocks_that_share_parameters_are_refused():
    model = Stack()
    model.blocks[1].weight = model.blocks[0].weight
    with pytest.raises(UngroupedParameters, match="share"):
        groups_of(model)


@pytest.mark.parametrize("count", [0, 2])
def test_no_stack_or_two_stacks_are_refused(count):
    model = nn.Module()
    for k in range(count):
        setattr(model, f"stack{k}", nn.ModuleList(nn.Linear(2, 2) for _ in range(2)))
    with pytest.raises(UngroupedParameters, match="exactly one stack"):
        find_blocks(model)


def test_a_list_inside_a_block_is_no_stack():
    model = nn.Module()
    model.blocks = nn.ModuleList(
        nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(4))})
        for _ in range(3)
    )
    assert find_blocks(model) is model.blocks
