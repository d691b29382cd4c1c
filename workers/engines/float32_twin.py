"""A float32 twin of a module whose weights are elsewhere: cut over ranks, in bf16, off the device.

The parameters of a block are empty until a forward reaches it, are then gathered from the engine's
float32 weights, and are let go right after: never more than one block is whole at a time. Those
around the blocks, which may be read outside of the module that holds them, are whole as long as a
forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.controls.layer_groups import BLOCK, LayerGroup

# From the number of a layer group and the wanted parameters of it to those parameters, whole.
Gather = Callable[[int, Collection[int]], dict[int, Tensor]]


@dataclass(frozen=True)
class _Slot:
    """Where a parameter sits in the twin, and which one it is."""

    module: nn.Module
    name: str
    group: int
    number: int
    empty: nn.Parameter


def float32_twin(
    module: nn.Module, groups: Sequence[LayerGroup], gather: Gather, device: torch.device
) -> nn.Module:
    """Return the twin of ``module``, made while the parameters of ``module`` are still whole.

    Parameters that are in no group (frozen) are copied.
    """
    places = {id(p): (i, k) for i, g in enumerate(groups) for k, p in enumerate(g.parameters)}
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
        for p in module.parameters()
        if id(p) in places
    }
    twin = copy.deepcopy(module, memo=dict(empty))
    originals = {id(meta): places[key] for key, meta in empty.items()}
    for part in twin.modules():
        for name, tensor in part._buffers.items():
            part._buffers[name] = None if tensor is None else tensor.to(device)
        for parameter in part._parameters.values():
            if parameter is not None and not parameter.is_meta:
                parameter.data = parameter.data.to(device)
    names = {id(part): name for name, part in module.named_modules()}
    rest = {id(slot): slot for slot in _slots(twin.modules(), originals)}
    for number, group in enumerate(groups):
        if group.kind == BLOCK and id(group.block) in names:
            block = twin.get_submodule(names[id(group.block)])
            parts = {id(part) for part in block.modules()}
            mine = {
                key: slot
                for key, slot in rest.items()
                if slot.group == number and id(slot.module) in parts
            }
            _fill_for_forward(block, list(mine.values()), gather)
            rest = {key: slot for key, slot in rest.items() if key not in mine}
    # Whatever is no block's may be read anywhere in a forward pass, by whoever holds the module.
    _fill_for_forward(twin, list(rest.values()), gather)
    return twin.eval()


def _slots(
    modules: Iterator[nn.Module] | Sequence[nn.Module], originals: dict[int, tuple[int, int]]
) -> list[_Slot]:
    return [
        _Slot(part, name, *originals[id(parameter)], parameter)
        for part in modules
        for name, parameter in part._parameters.items()
        if parameter is not None and id(parameter) in originals
    ]


def _fill_for_forward(unit: nn.Module, slots: list[_Slot], gather: Gather) -> None:
    if not slots:
        return

    def fill(*_: Any) -> None:
        for group in sorted({slot.group for slot in slots}):
            mine = [slot for slot in slots if slot.group == group]
            whole = gather(group, {slot.number for slot in mine})
            for slot in mine:
                parameter = nn.Parameter(whole[slot.number], requires_grad=False)
                slot.module._parameters[slot.name] = parameter

    def empty(*_: Any) -> None:
        for slot in slots:
            slot.module._parameters[slot.name] = slot.empty

    unit.register_forward_pre_hook(fill)
    unit.register_forward_hook(empty, always_call=True)
