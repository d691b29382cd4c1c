"""What a setting leaves out of training: layers, or parameters by a pattern of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from sweeps.errors import UserError
from sweeps.spec.training.block_ranges import block_range
from workers.depth.parameter_use import BLOCK, EMBEDDING, HEAD, Owner
from workers.depth.stacks import Stack, blocks_in, ranges_of

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
    matches nothing, or a block that is not there.
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
                f"freeze: {entry!r} matches nothing that is trained; give embedding, head,"
                f" {', '.join(ranges_of(stacks))}, or a pattern over parameter names"
            )
        frozen |= found
    return frozen


def _layers(entry: str, stacks: Sequence[Stack]) -> set[Owner] | None:
    if entry in (EMBEDDING, HEAD):
        return {Owner(entry)}
    named = block_range(entry)
    if named is None:
        return None
    # A pattern matches what there is; a number means a block, and one that is not there is a slip.
    if blocks_in(named, stacks) and not blocks_in(named._replace(first=named.last), stacks):
        raise UserError(
            f"freeze: {entry!r} names blocks that are not there; the model has"
            f" {', '.join(ranges_of(stacks))}"
        )
    return {Owner(BLOCK, s, b) for s, b in blocks_in(named, stacks)}


def _own(name: str) -> str:
    for holder in HOLDERS:
        name = name.removeprefix(holder)
    return name
