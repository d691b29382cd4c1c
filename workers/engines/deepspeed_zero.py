"""Where each ZeRO stage of DeepSpeed keeps float32 weights: its private attributes, in one place.

=================  =========================================  ==================================
stage              calls of the client optimizer a step       its float32 weights
=================  =========================================  ==================================
0, float32         1                                          the model's parameters
0, bf16            1, and 1 at start with zero gradients      a copy of each parameter
1, 2               1 a parameter group                        one stretch of each layer
3                  1 a sub-group                              one slice of every parameter
=================  =========================================  ==================================

Tests name every attribute used here, so that a release which moves one fails loudly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.controls.layer_groups import LayerGroup
from workers.updates.shards import Shard, padding, slices, stretches, whole


@dataclass(frozen=True)
class Ownership:
    """What this rank steps, and how what it stepped reaches the model.

    ``publish(c)`` repeats what DeepSpeed does after call ``c``; ``publish_all`` makes the model
    compute with the float32 weights, and is a collective.
    """

    layers: tuple[tuple[Shard, ...], ...]
    calls: int
    shared: bool
    publish: Callable[[int], None]
    publish_all: Callable[[], None]


def ownership(engine: Any, groups: Sequence[LayerGroup], rank: int, ranks: int) -> Ownership:
    """Return what a DeepSpeed engine lets its client optimizer own."""
    optimizer = engine.optimizer
    kinds: dict[str, Callable[..., Ownership]] = {
        "LayerOptimizer": _whole_parameters,
        "FP16_UnfusedOptimizer": _whole_copies,
        "DeepSpeedZeroOptimizer": _stretches_of_layers,
        "DeepSpeedZeroOptimizer_Stage3": _slices_of_parameters,
    }
    name = type(optimizer).__name__
    if name not in kinds:
        raise RuntimeError(f"DeepSpeed wrapped the optimizer in {name}, which is not known here")
    return kinds[name](optimizer, groups, rank, ranks)


def _nothing(call: int) -> None:
    del call


def _whole_parameters(
    optimizer: Any, groups: Sequence[LayerGroup], rank: int, ranks: int
) -> Ownership:
    del optimizer, rank, ranks
    layers = tuple(whole(group.parameters) for group in groups)
    return Ownership(layers, 1, False, _nothing, lambda: None)


def _whole_copies(optimizer: Any, groups: Sequence[LayerGroup], rank: int, ranks: int) -> Ownership:
    del rank, ranks
    ordered = [
        _in_order(group, zip(model, copies, strict=True))
        for group, model, copies in zip(
            groups, optimizer.fp16_groups, optimizer.fp32_groups, strict=True
        )
    ]

    def publish_all() -> None:
        for group, copies in zip(groups, ordered, strict=True):
            for parameter, copy in zip(group.parameters, copies, strict=True):
                parameter.data.copy_(copy.data)

    layers = tuple(whole(copies) for copies in ordered)
    return Ownership(layers, 1, False, _nothing, publish_all)


def _in_order(group: LayerGroup, pairs: Any) -> list[Tensor]:
    copies = {id(parameter): copy for parameter, copy in pairs}
    return [copies[id(parameter)] for parameter in group.parameters]


def _stretches_of_layers(
    optimizer: Any, groups: Sequence[LayerGroup], rank: int, ranks: int
) -> Ownership:
    layers = []
    for i, group in enumerate(groups):
        weights = optimizer.single_partition_of_fp32_groups[i]
        members = _members(group, optimizer.round_robin_bit16_groups[i])
        pieces = stretches(members, weights.numel(), ranks)
        layers.append((_shard(weights, pieces, rank),))

    def publish(call: int) -> None:
        own = optimizer.parallel_partitioned_bit16_groups[call][rank]
        own.data.copy_(optimizer.single_partition_of_fp32_groups[call].data)

    return Ownership(tuple(layers), len(groups), ranks > 1, publish, optimizer.update_lp_params)


def _slices_of_parameters(
    optimizer: Any, groups: Sequence[LayerGroup], rank: int, ranks: int
) -> Ownership:
    layers: list[list[Shard]] = [[] for _ in groups]
    calls = len(optimizer.fp16_groups)
    for call, parameters in enumerate(optimizer.fp16_groups):
        i = optimizer.sub_group_to_group_id[call]
        weights = optimizer.fp32_partitioned_groups_flat[call]
        members = _members(groups[i], parameters)
        partitions = [parameter.partition_numel() for parameter in parameters]
        layers[i].append(_shard(weights, slices(members, partitions, ranks), rank))
    publish = optimizer._reassign_or_swap_out_partitioned_parameters

    def publish_all() -> None:
        for call in range(calls):
            publish(call)
        persistent = optimizer.persistent_parameters
        if persistent:
            persistent[0].partition(persistent, has_been_updated=False)
            persistent[0].all_gather(persistent)

    return Ownership(tuple(map(tuple, layers)), calls, ranks > 1, publish, publish_all)


def _members(group: LayerGroup, parameters: Sequence[Any]) -> list[tuple[int, int]]:
    """Return (number in the group, elements) of parameters, whose data may be cut."""
    numbers = {id(parameter): k for k, parameter in enumerate(group.parameters)}
    return [(numbers[id(p)], getattr(p, "ds_numel", p.numel())) for p in parameters]


def _shard(weights: Tensor, pieces: Any, rank: int) -> Shard:
    return Shard(weights, (weights,), pieces, padding(pieces[rank], weights.numel()))


def restore_float_buffers(model: torch.nn.Module, originals: dict[str, Tensor]) -> None:
    """Undo the casting of float32 buffers, such as rotary frequencies, which bf16 would ruin."""
    for name, buffer in model.named_buffers():
        if name in originals and buffer.dtype != originals[name].dtype:
            buffer.data = originals[name].to(buffer.device)
