import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sweeps.errors import UserError
from sweeps.spec import TIED_STANDINS
from workers.controls.layer_groups import UngroupedParameters, find_layer_groups, group_layers
from workers.depth.finding import find_stacks

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
    blocks = 1 if family in TIED_STANDINS else 3
    assert kinds[0] == (0, "embedding")
    assert kinds[1 : 1 + blocks] == [(k, "block") for k in range(1, 1 + blocks)]
    assert kinds[1 + blocks :] in ([], [(1 + blocks, "head")])


def names(model, layer):
    return {name for group in groups_of(model) if group.layer == layer for name in group.names}


def test_a_block_is_known_with_its_class_and_nothing_else_has_one(make_language_model):
    for group in groups_of(make_language_model("gpt2")[0]):
        is_block = group.kind == "block"
        assert group.block_class == ("GPT2Block" if is_block else None)
        assert (group.block is not None) == is_block


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


class Chain(nn.Module):
    """Blocks with whatever a test puts around them; gives logits over 8 tokens."""

    def __init__(self, blocks=2):
        super().__init__()
        self.lift = nn.Embedding(8, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(blocks))
        self.readout = nn.Linear(4, 8)

    def forward(self, input_ids):
        x = self.lift(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.readout(x)


def grouping_of(model, **options):
    return group_layers(model, lambda: model(IDS), **options)


def found(model, **options):
    groups = grouping_of(model, **options).groups
    return {(group.stack, group.layer): set(group.names) for group in groups}


def test_a_model_outside_the_catalogue_is_grouped_by_the_same_rule():
    groups = found(Chain(3))
    assert groups[None, 0] == {"lift.weight"}
    assert groups[None, 4] == {"readout.weight", "readout.bias"}
    assert groups[None, 2] == {"blocks.1.weight", "blocks.1.bias"}


def test_a_parameter_that_no_loss_reaches_is_left_out_of_training_and_named():
    model = Chain()
    model.unused = nn.Linear(4, 4)
    grouping = grouping_of(model)
    assert grouping.unreached == ("unused.weight", "unused.bias")
    assert not model.unused.weight.requires_grad
    grouped = {name for group in grouping.groups for name in group.names}
    assert grouped == {name for name, p in model.named_parameters() if p.requires_grad}


def test_blocks_that_nothing_trains_leave_nothing_to_compare_by_depth():
    model = Chain()
    for parameter in model.blocks.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UngroupedParameters, match=r"Chain: no gradient .* its blocks \(blocks\)"):
        grouping_of(model)


def test_a_parameter_that_only_an_unused_output_reads_is_left_out():
    class Aside(Chain):
        def __init__(self):
            super().__init__()
            self.aside = nn.Linear(4, 4)

        def forward(self, input_ids):
            self.aside(self.lift(input_ids))
            return super().forward(input_ids)

    assert grouping_of(Aside()).unreached == ("aside.weight", "aside.bias")


class ReadElsewhere(Chain):
    """A table that every block reads, without its module being called (DeBERTa's)."""

    def __init__(self):
        super().__init__(3)
        self.table = nn.Embedding(4, 4)

    def forward(self, input_ids):
        table = nn.functional.layer_norm(self.table.weight, (4,))
        x = self.lift(input_ids)
        for block in self.blocks:
            x = block(x) + x @ table
        return self.readout(x)


def test_a_table_that_is_read_outside_its_module_by_all_blocks_is_of_the_embedding():
    assert found(ReadElsewhere())[None, 0] == {"lift.weight", "table.weight"}


class Between(Chain):
    """A projection of its own before each block, one before all of them, and one behind."""

    def __init__(self):
        super().__init__(3)
        self.own = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.shared = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)

    def forward(self, input_ids):
        x = self.lift(input_ids)
        for own, block in zip(self.own, self.blocks, strict=True):
            x = block(torch.tanh(self.shared(own(x))))
        return self.readout(self.last(x))


def test_what_stands_between_blocks_is_of_the_one_it_leads_to():
    model = Between()
    path = {"blocks": "blocks"}
    stacks = find_stacks(model, lambda: model(IDS), **path)
    groups = found(model, stacks=stacks)
    assert groups[None, 0] == {"lift.weight", "own.0.weight", "own.0.bias"} | {
        "shared.weight",
        "shared.bias",
    }
    for layer in (2, 3):
        own = {f"own.{layer - 1}.{kind}" for kind in ("weight", "bias")}
        assert groups[None, layer] == own | {
            f"blocks.{layer - 1}.{kind}" for kind in ("weight", "bias")
        }
    assert {"last.weight", "readout.weight"} <= groups[None, 4]


def test_a_parameter_that_some_blocks_share_is_of_the_embedding():
    model = Chain()
    model.blocks[1].weight = model.blocks[0].weight
    groups = found(model)
    assert groups[None, 0] == {"lift.weight", "blocks.0.weight"}
    assert groups[None, 1] == {"blocks.0.bias"}
    assert groups[None, 2] == {"blocks.1.bias"}


def test_experts_that_the_data_did_not_choose_are_of_the_block_they_are_in():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return x + self.experts[1](x)

    model = Chain(0)
    model.blocks = nn.ModuleList(Routed() for _ in range(2))
    grouping = grouping_of(model)
    assert grouping.unreached == ()
    assert "blocks.1.experts.2.weight" in found(model)[None, 2]


def test_the_groups_are_the_same_on_the_meta_device_and_under_fake_tensors(
    family, make_language_model
):
    model, _ = make_language_model(family)
    real = [(g.layer, g.kind, g.names) for g in groups_of(model)]
    with FakeTensorMode():
        fake, _ = make_language_model(family)
        ids = torch.arange(4)[None]
        groups = find_layer_groups(fake, lambda: fake(input_ids=ids))
    assert [(g.layer, g.kind, g.names) for g in groups] == real
    with torch.device("meta"):
        chain, ids = Chain(3), torch.arange(4)[None]
        assert [g.layer for g in find_layer_groups(chain, lambda: chain(ids))] == [0, 1, 2, 3, 4]


def test_grouping_leaves_no_gradient_and_no_hook():
    model = Chain()
    grouping_of(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# ----------------------------------------------------------------------------------------- freezing
def test_what_is_frozen_is_in_no_group():
    model = Chain(4)
    grouping = grouping_of(model, freeze=("embedding", "blocks 2-3", "readout.b*"))
    assert [group.layer for group in grouping.groups] == [1, 4, 5]
    assert grouping.groups[-1].names == ("readout.weight",)
    assert "blocks.1.weight" in grouping.frozen
    assert not model.blocks[1].weight.requires_grad


def test_a_pattern_is_over_the_names_of_the_language_model_itself():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.language_model = Chain()

        def forward(self, input_ids):
            return self.language_model(input_ids)

    assert grouping_of(Held(), freeze=("lift.*",)).frozen == ("language_model.lift.weight",)


def test_a_range_that_ends_behind_the_last_block_is_a_slip():
    with pytest.raises(UserError, match=r"'blocks 2-9' names blocks that are not there; .*1-3"):
        grouping_of(Chain(3), freeze=("blocks 2-9",))


@pytest.mark.parametrize("entry", ["blocks 3", "blocks 0", "encoder blocks 1", "no.such.*", "body"])
def test_an_entry_that_freezes_nothing_is_refused(entry):
    with pytest.raises(UserError, match=f"freeze: '{re.escape(entry)}' matches nothing"):
        grouping_of(Chain(2), freeze=(entry,))
    with pytest.raises(UserError, match="nothing is left to be trained"):
        grouping_of(Chain(2), freeze=("*",))
