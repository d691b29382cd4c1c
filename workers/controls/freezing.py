"""What a setting leaves out of training: layers, or parameters by a pattern of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from sweeps.errors import UserError
from sweeps.spec.training.block_ranges import block_range
from workers.depth.parameter_use import BLOCK, EMBEDDING, HEAD, Owner
from workers.depth.stacks import Stack

# What the module that is trained calls the model it holds; patterns are over the model's own names.
HOLDERS = ("language_model.", "backbone.")


def frozen_by(
    freeze: Sequence[str],
    parameters: Sequence[tuple[str, nn.Parameter]],
    owner: Mapping[int, Owner],
    stacks: Sequence[Stack],
) -> set[str]:
    """Return the names of the parameters that the entries of ``freeze`` name.

    An entry is ``embedding``, ``head``, ``blocks 3`` or ``blocks 1-6`` (``encoder blocks 1-2``
    where a model has stacks), or a pattern over parameter names. Raises UserError for one that
    matches nothing.
    """
    frozen: set[str] = set()
    for entry in freeze:
        layers = _layers(entry, stacks)
        if layers is None:
            found = {name for name, _ in parameters if fnmatchcase(_own(name), entry)}
        else:
            found = {name for name, p in parameters if owner.get(id(p)) in layers}
        if not found:
            raise UserError(
                f"freeze: {entry!r} matches nothing that is trained; {_choices(stacks)}"
            )
        frozen |= found
    return frozen


def _layers(entry: str, stacks: Sequence[Stack]) -> set[Owner] | None:
    if entry in (EMBEDDING, HEAD):
        return {Owner(entry)}
    named = block_range(entry)
    if named is None:
        return None
    return {
        Owner(BLOCK, s, number - 1)
        for s, stack in enumerate(stacks)
        if named.stack in (None, stack.name)
        for number in range(named.first, named.last + 1)
        if 1 <= number <= len(stack.blocks)
    }


def _own(name: str) -> str:
    for holder in HOLDERS:
        name = name.removeprefix(holder)
    return name


def _choices(stacks: Sequence[Stack]) -> str:
    ranges = [
        f"{stack.name + ' ' if stack.name else ''}blocks 1-{len(stack.blocks)}" for stack in stacks
    ]
    return f"give embedding, head, {', '.join(ranges)}, or a pattern over parameter names"
