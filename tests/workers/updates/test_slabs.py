"""A layer cut into slabs: every element once, in the memory it is in, with what goes with it."""

import pytest
import torch

from workers.updates.shards import Piece, Shard, whole
from workers.updates.slabs import Layer, cut, mine

STEP = torch.zeros(())


def layer_of(*sizes, packed=0, decays=None, **said):
    """Return a layer of numbers from 0 on, one parameter a size, each in a shard of its own, or
    those of fewer than ``packed`` elements together."""
    shapes = [torch.Size(size if isinstance(size, tuple) else (size,)) for size in sizes]
    parameters, first = [], 0
    for shape in shapes:
        parameters.append(torch.arange(first, first + shape.numel()).float().view(shape))
        first += shape.numel()
    shards = whole(parameters, packed)
    return Layer(
        **{
            "kind": "block",
            "shards": shards,
            "held": [{"moment": -shard.weights} for shard in shards],
            "shapes": shapes,
            "decays": decays or [True] * len(shapes),
            "unit": 5,
            "by_parameter": False,
            "whole_matrices": False,
            **said,
        }
    )


def slabs_of(layer, room, rank=0):
    return list(cut(layer, rank, torch.zeros(room), STEP))


def values(tensors):
    return [tensor.flatten().tolist() for tensor in tensors]


def joined(tensors):
    return [value for one in values(tensors) for value in one]


def test_every_element_is_in_one_slab_of_no_more_than_the_scratch():
    first, second, third = slabs_of(layer_of(4, 7), room=5)
    assert values(first.weights) == [[0, 1, 2, 3], [4]]
    assert values(second.weights) == [[5, 6, 7, 8, 9]]
    assert values(third.weights) == [[10]]
    assert first.pieces == [(0, 0, 4), (1, 0, 1)]
    assert second.pieces == [(1, 1, 6)]
    assert third.pieces == [(1, 6, 7)]
    for slab in (first, second, third):
        assert values(s["moment"] for s in slab.states) == [
            [-v for v in w] for w in values(slab.weights)
        ]
        assert [len(u) for u in slab.updates] == [len(w) for w in slab.weights]
        assert len(slab.scratch) == sum(len(w) for w in slab.weights)
        assert slab.units == [5] * len(slab.weights)
        assert all(step is STEP for step in slab.steps)
        assert len(slab.steps) == len(slab.weights)
        assert slab.kind == "block"


def test_what_fills_a_scratch_to_the_last_element_is_one_slab():
    (only,) = slabs_of(layer_of(4, 6), room=10)
    assert values(only.weights) == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]


def test_a_slab_is_views_of_the_layers_memory_and_of_the_scratch():
    layer, scratch = layer_of(4, 7), torch.zeros(5)
    first, *_ = cut(layer, 0, scratch, STEP)
    first.updates[1].fill_(3.0)
    assert scratch.tolist() == [0, 0, 0, 0, 3]
    torch._foreach_add_(first.weights, first.updates)
    assert layer.shards[1].weights[0] == 7.0
    first.states[0]["moment"].fill_(2.0)
    assert layer.held[0]["moment"].tolist() == [2.0] * 4


@pytest.mark.parametrize(("room", "slabs"), [(12, [[0, 1]]), (8, [[0], [1]]), (6, [[0], [1]])])
def test_matrices_that_a_rule_needs_whole_share_a_slab_only_where_they_fit(room, slabs):
    layer = layer_of((2, 3), (3, 2), whole_matrices=True)
    found = slabs_of(layer, room)
    assert [[k for k, *_ in slab.pieces] for slab in found] == slabs
    shapes = [tuple(w.shape) for slab in found for w in slab.weights]
    assert shapes == [(2, 3), (3, 2)]
    assert [tuple(u.shape) for slab in found for u in slab.updates] == shapes
    assert values(w for slab in found for w in slab.weights) == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert all(s["moment"] is layer.held[k]["moment"] for slab in found
               for (k, *_), s in zip(slab.pieces, slab.states, strict=True))  # fmt: skip


def test_by_parameter_each_has_a_unit_of_its_own():
    layer = layer_of(3, 2, 4, packed=100, by_parameter=True)
    assert len(layer.shards) == 1
    (only,) = slabs_of(layer, room=9)
    assert only.units == [5, 6, 7]
    assert values(only.weights) == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    assert only.pieces == [(0, 0, 3), (0, 3, 5), (0, 5, 9)]


@pytest.mark.parametrize("room", [9, 4, 2])
def test_what_decays_is_found_wherever_a_slab_is_cut(room):
    layer = layer_of(3, 2, 4, packed=100, decays=[True, False, True])
    decaying = [v for slab in slabs_of(layer, room) for v in values(slab.decays[0])]
    assert [v for one in decaying for v in one] == [0, 1, 2, 5, 6, 7, 8]
    for slab in slabs_of(layer, room):
        for weights, updates in zip(*slab.decays, strict=True):
            updates.copy_(weights)
    scratch = torch.zeros(9)
    (slab,) = cut(layer, 0, scratch, STEP)
    for update in slab.decays[1]:
        update.fill_(1.0)
    assert scratch.tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1]


def test_neighbours_that_decay_are_one_stretch():
    layer = layer_of(3, 2, 4, packed=100, decays=[True, True, False])
    (slab,) = slabs_of(layer, room=9)
    assert values(slab.decays[0]) == [[0, 1, 2, 3, 4]]
    everything = layer_of(3, 2, packed=100)
    (slab,) = slabs_of(everything, room=9)
    assert slab.decays == (slab.weights, slab.updates)


@pytest.mark.parametrize(("rank", "held"), [(0, [(0, 0, 3, 0)]), (1, [(0, 3, 4, 0), (1, 0, 2, 1)])])
def test_of_a_shard_that_ranks_share_each_has_its_own_pieces(rank, held):
    """Parameters of four and two elements, three a rank."""
    pieces = ((Piece(0, 0, 3, 0),), (Piece(0, 3, 4, 0), Piece(1, 0, 2, 1)))
    weights = torch.tensor([float(rank * 3 + k) for k in range(3)])
    shard = Shard(weights, (weights,), pieces)
    assert [(p.parameter, p.start, p.end, p.offset) for p in mine(shard, rank)] == held
    layer = layer_of(4, 2, by_parameter=True, shards=(shard,), held=[{}], decays=[True, False])
    (slab,) = slabs_of(layer, room=3, rank=rank)
    assert slab.units == [5 + parameter for parameter, *_ in held]
    assert joined(slab.weights) == weights.tolist()
    assert joined(slab.decays[0]) == ([0, 1, 2] if rank == 0 else [3])


def test_what_is_held_whole_is_the_same_on_every_rank():
    layer = layer_of(4)
    assert mine(layer.shards[0], 3) == mine(layer.shards[0], 0)
