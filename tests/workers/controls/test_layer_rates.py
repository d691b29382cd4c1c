"""The number that each layer's step is multiplied by: powers, lists, relative gradient norms."""

import pytest
import torch
from torch import nn

from sweeps import spec
from sweeps.errors import UserError
from workers.controls.layer_groups import BLOCK, EMBEDDING, HEAD, LayerGroup
from workers.controls.layer_rates import LayerRates
from workers.depth.stacks import Stack


def stack(blocks, name=None):
    modules = tuple(nn.Identity() for _ in range(blocks))
    return Stack(name, name or "blocks", modules, tuple(range(blocks)), width=4)


def groups_of(*stacks):
    blocks = [(k, BLOCK, one.name) for one in stacks for k in range(1, len(one.blocks) + 1)]
    head = 1 + max(len(one.blocks) for one in stacks)
    places = [(0, EMBEDDING, None), *blocks, (head, HEAD, None)]
    return [LayerGroup(layer, kind, (), (), name) for layer, kind, name in places]


def multipliers(control, *stacks):
    rule = LayerRates(control)
    rule.prepare(groups_of(*stacks), stacks)
    ones = torch.ones(len(rule.multipliers))
    return rule.update_scale(ones, ones).tolist()


def test_a_decay_is_a_power_of_the_distance_from_the_last_block_of_its_stack():
    decay = spec.LayerRates(decay=0.5)
    assert multipliers(decay, stack(3)) == [0.25, 0.5, 1.0]
    assert multipliers(decay, stack(3, "encoder"), stack(2, "decoder")) == [
        *(0.25, 0.5, 1.0),
        *(0.5, 1.0),
    ]


def test_the_embedding_is_one_power_further_than_the_first_block_and_the_head_stays():
    decay = spec.LayerRates(decay=0.5, scope="all")
    assert multipliers(decay, stack(2)) == [0.25, 0.5, 1.0, 1.0]
    assert multipliers(decay, stack(1, "encoder"), stack(3, "decoder")) == [
        0.125,
        *(1.0,),
        *(0.25, 0.5, 1.0),
        1.0,
    ]


@pytest.mark.parametrize("blocks", [(4,), (1, 3), (3, 1)])
def test_a_list_is_in_forward_order_over_all_stacks(blocks):
    stacks = [stack(count, f"stack {k}") for k, count in enumerate(blocks)]
    rates = (0.1, 0.2, 0.3, 0.4)
    of_blocks = multipliers(spec.LayerRates(rates=rates), *stacks)
    assert of_blocks == pytest.approx(rates)
    of_all = multipliers(spec.LayerRates(rates=(0.7, *rates, 0.9), scope="all"), *stacks)
    assert of_all == pytest.approx((0.7, *rates, 0.9))


def test_a_list_of_another_length_is_the_users_mistake():
    with pytest.raises(UserError, match="control layer_rates has 2 rates, and the model has 3"):
        multipliers(spec.LayerRates(rates=(0.5, 0.25)), stack(3))


@pytest.mark.parametrize(
    ("scope", "kinds"), [("blocks", [BLOCK]), ("all", [EMBEDDING, BLOCK, HEAD])]
)
def test_scope_says_which_groups_are_controlled(scope, kinds):
    rule = LayerRates(spec.LayerRates(decay=0.5, scope=scope))
    assert [kind for kind in (EMBEDDING, BLOCK, HEAD) if rule.controls(kind)] == kinds


def test_relative_gradient_norms_are_means_of_ratios_as_shares_of_the_largest():
    rule = LayerRates(spec.LayerRates(rates="rgn"))
    rule.prepare(groups_of(stack(3)), [stack(3)])
    assert (rule.batches, rule.multipliers) == (5, None)
    gradients = torch.tensor([[1.0, 2.0, 4.0], [3.0, 2.0, 12.0]])
    weights = torch.tensor([[1.0, 1.0, 2.0], [1.0, 2.0, 2.0]])
    rule.learn(gradients, weights)  # ratios 1 2 2 and 3 1 6: means 2, 1.5 and 4
    assert rule.multipliers == pytest.approx([0.5, 0.375, 1.0])


def test_only_rgn_asks_for_batches_before_training():
    assert LayerRates(spec.LayerRates(decay=0.5)).batches == 0
    assert LayerRates(spec.LayerRates(rates=(0.5, 1.0))).batches == 0
