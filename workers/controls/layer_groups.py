"""Layer groups of a model, found by rule: embedding, blocks 1..L, head.

The blocks are the one outermost ``ModuleList`` of like modules that a forward pass runs in order. A
parameter outside them belongs to the embedding when the module that owns it runs before the first
block, to the head when it runs after the last. The order is observed on a real forward pass, since
modules are often registered in another order than they run in (OPT registers its final norm before
its blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sweeps.errors import UserError

EMBEDDING, BLOCK, HEAD = "embedding", "block", "head"


class UngroupedParameters(UserError):
    """Trainable parameters that no rule places; the message names them."""


@dataclass(frozen=True)
class LayerGroup:
    """The trainable parameters of one layer. ``layer`` is 0, 1..L for blocks, or L + 1."""

    layer: int
    kind: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the stack of blocks.

    Raises UngroupedParameters when the model has no stack, or more than one (an encoder and a
    decoder, for instance): depth is then not one number.
    """
    stacks: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        nested = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList) and not nested and _is_stack(module):
            stacks[name] = module
    if len(stacks) != 1:
        found = ", ".join(f"{name} ({len(stack)})" for name, stack in stacks.items())
        raise UngroupedParameters(
            f"{type(model).__name__} needs exactly one stack of at least two like blocks;"
            f" found {found or 'none'}"
        )
    (stack,) = stacks.values()
    return stack


def _is_stack(module: nn.ModuleList) -> bool:
    kinds = {type(child) for child in module}
    return len(module) >= 2 and len(kinds) == 1 and any(True for _ in module.parameters())


def find_layer_groups(model: nn.Module, forward: Callable[[], Any]) -> tuple[LayerGroup, ...]:
    """Return every trainable parameter in exactly one group, in forward order.

    ``forward`` runs the model once on any valid input; it is called without gradients. Groups
    without trainable parameters are left out. Raises UngroupedParameters naming what no rule
    places: parameters the forward pass does not use, that wrap the blocks, or that blocks share.
    """
    blocks = find_blocks(model)
    owner: dict[int, int] = {}
    shared: list[str] = []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for layer, block in enumerate(blocks, start=1):
        for parameter in block.parameters():
            if owner.setdefault(id(parameter), layer) != layer:
                shared.append(names[id(parameter)])
    if shared:
        raise UngroupedParameters(f"blocks share parameters, so depth is undefined: {shared}")
    head = len(blocks) + 1
    sides = _sides(model, blocks, forward)
    unplaced: list[str] = []
    for module in model.modules():
        side = sides.get(id(module))
        for parameter in module.parameters(recurse=False):
            if id(parameter) in owner and owner[id(parameter)] not in (0, head):
                continue
            if side is not None:
                layer = 0 if side == EMBEDDING else head
                # A tied output embedding runs on both sides and belongs to the first.
                owner[id(parameter)] = min(layer, owner.get(id(parameter), layer))
    grouped: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in owner:
            grouped.setdefault(owner[id(parameter)], []).append((name, parameter))
        else:
            unplaced.append(name)
    if unplaced:
        raise UngroupedParameters(
            f"{type(model).__name__}: parameters that belong to no layer (not used by the forward"
            f" pass, or around all blocks): {', '.join(unplaced)}; freeze or remove them"
        )
    return tuple(
        LayerGroup(
            layer=layer,
            kind=EMBEDDING if layer == 0 else HEAD if layer == head else BLOCK,
            names=tuple(name for name, _ in members),
            parameters=tuple(parameter for _, parameter in members),
        )
        for layer, members in sorted(grouped.items())
    )


def _sides(model: nn.Module, blocks: nn.ModuleList, forward: Callable[[], Any]) -> dict[int, str]:
    """Return which side of the blocks each module that owns parameters outside them runs on."""
    sides: dict[int, str] = {}
    began_before: set[int] = set()
    inside = {id(module) for module in blocks.modules()}
    entered = finished = False

    def enter_blocks(*_: Any) -> None:
        nonlocal entered
        entered = True

    def leave_blocks(*_: Any) -> None:
        nonlocal finished
        finished = True

    def began(module: nn.Module, *_: Any) -> None:
        if not entered:
            began_before.add(id(module))

    def ended(module: nn.Module, *_: Any) -> None:
        if not entered:
            sides.setdefault(id(module), EMBEDDING)
        elif finished and id(module) not in began_before:
            sides.setdefault(id(module), HEAD)

    with _hooks() as add:
        add(blocks[0].register_forward_pre_hook(enter_blocks))
        add(blocks[-1].register_forward_hook(leave_blocks))
        for module in model.modules():
            if id(module) not in inside and any(True for _ in module.parameters(recurse=False)):
                add(module.register_forward_pre_hook(began))
                add(module.register_forward_hook(ended))
        with torch.no_grad():
            forward()
    return sides


@contextmanager
def _hooks() -> Iterator[Callable[[Any], None]]:
    handles: list[Any] = []
    try:
        yield handles.append
    finally:
        for handle in handles:
            handle.remove()
