"""Layer groups of a model, found by rule: embedding, blocks 1..L of each stack, head.

The rule is where one forward pass uses a parameter (``workers.depth``), not where it is registered.
Every trainable parameter is in exactly one group. One that no loss reaches is left out of training:
an optimizer would move it by weight decay alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from workers.controls.freezing import frozen_by
from workers.depth.finding import stacks_of
from workers.depth.observation import Observation, observe
from workers.depth.parameter_use import (
    BLOCK,
    EMBEDDING,
    HEAD,
    OF_EMBEDDING,
    OF_HEAD,
    Owner,
    never_called_siblings,
    owners,
)
from workers.depth.stacks import Stack, UngroupedParameters

__all__ = ["BLOCK", "EMBEDDING", "HEAD", "LayerGroup", "UngroupedParameters", "find_layer_groups"]


@dataclass(frozen=True)
class LayerGroup:
    """The trainable parameters of one layer.

    ``layer`` is 0 for the embedding, 1..L for the blocks of a stack, and 1 more than the largest L
    for the head; (stack, layer) is unique. ``stack`` is None where a model has one stack, and for
    embedding and head, which have no ``block`` and no ``block_class`` either.
    """

    layer: int
    kind: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    stack: str | None = None
    block_class: str | None = None
    block: nn.Module | None = None


@dataclass(frozen=True)
class Grouping:
    """The layer groups of a model in training, its stacks, and what is not trained.

    ``unreached`` are the parameters that no loss reaches, ``frozen`` those that a setting freezes.
    """

    groups: tuple[LayerGroup, ...]
    stacks: tuple[Stack, ...]
    unreached: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()


def find_layer_groups(
    model: nn.Module, forward: Callable[[], Any], stacks: Sequence[Stack] | None = None
) -> tuple[LayerGroup, ...]:
    """Return every trainable parameter in exactly one group, in forward order.

    See ``group_layers``.
    """
    return group_layers(model, forward, stacks).groups


def group_layers(
    model: nn.Module,
    forward: Callable[[], Any],
    stacks: Sequence[Stack] | None = None,
    freeze: Sequence[str] = (),
) -> Grouping:
    """Return the layer groups of a model, found from one forward pass.

    ``forward`` runs the model on any valid input and returns its loss, or what a loss is taken
    from; it runs with gradients, on real, meta or fake tensors. ``stacks`` are those of the model
    where they are known. Groups without trainable parameters are left out.

    What no loss reaches, and what ``freeze`` names (see ``frozen_by``), requires no gradient
    afterwards. Raises UngroupedParameters where the model has no stack, or nothing is left to be
    trained in its blocks; UserError for an entry of ``freeze`` that matches nothing.
    """
    observation = observe(model, forward)
    known = tuple(stacks) if stacks is not None else stacks_of(observation)
    run = {id(call.module) for call in observation.calls}
    reached = tuple(s for s in known if any(id(block) in run for block in s.blocks))
    owner = owners(observation, known)
    _add_alternatives(model, observation, owner, known)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    unreached = tuple(name for name, p in trainable if id(p) not in owner)
    frozen = frozen_by(freeze, trainable, owner, known)
    members: dict[Owner, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trainable:
        if id(parameter) in owner and name not in frozen:
            members.setdefault(owner[id(parameter)], []).append((name, parameter))
        else:
            parameter.requires_grad_(False)
    if not any(each.kind == BLOCK for each in members) and not frozen:
        raise UngroupedParameters(
            f"{type(model).__name__}: no gradient of the loss reaches a parameter of its blocks"
            f" ({', '.join(stack.path for stack in known)}), so there is nothing to compare by"
            " depth; its code trains them by other means than autograd"
        )
    if not members:
        raise UngroupedParameters("freeze: nothing is left to be trained; name fewer layers")
    return Grouping(_groups(members, known), reached, unreached, tuple(sorted(frozen)))


def _add_alternatives(
    model: nn.Module,
    observation: Observation,
    owner: dict[int, Owner],
    stacks: Sequence[Stack],
) -> None:
    """Give what the data chose not to run, such as an expert, the layer of a like that ran."""
    like = never_called_siblings(model, observation.called, stacks)
    for parameter, (sibling, name) in like.items():
        ran = owner.get(id(sibling.get_parameter(name)))
        if ran is not None:
            owner.setdefault(parameter, ran)


def _groups(
    members: dict[Owner, list[tuple[str, nn.Parameter]]], stacks: Sequence[Stack]
) -> tuple[LayerGroup, ...]:
    head = 1 + max(len(stack.blocks) for stack in stacks)
    order = [OF_EMBEDDING]
    for s, stack in enumerate(stacks):
        order += [Owner(BLOCK, s, b) for b in range(len(stack.blocks))]
    found = []
    for owner in (*order, OF_HEAD):
        if owner not in members:
            continue
        layer = 0 if owner.kind == EMBEDDING else head
        name = block = None
        if owner.stack is not None and owner.block is not None:
            layer = owner.block + 1
            name = stacks[owner.stack].name
            block = stacks[owner.stack].blocks[owner.block]
        found.append(
            LayerGroup(
                layer=layer,
                kind=owner.kind,
                names=tuple(name for name, _ in members[owner]),
                parameters=tuple(parameter for _, parameter in members[owner]),
                stack=name,
                block_class=type(block).__name__ if block is not None else None,
                block=block,
            )
        )
    return tuple(found)
