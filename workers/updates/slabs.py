"""A layer's flat memory cut into slabs, which an update is made of one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.updates.shards import Piece, Shard
from workers.updates.update_rule import Slab

# Elements of a slab: five float32 arrays of it stay in a CPU's second-level cache; on an
# accelerator slabs only bound the scratch, so they are as large as launches want.
CPU_SLAB = 1 << 16
DEVICE_SLAB = 1 << 26

# A shard's number, its first element and end, the number of a unit, and the parameter where it is
# one alone.
Stretch = tuple[int, int, int, int, int | None]


@dataclass(frozen=True)
class Layer:
    """One layer as a rank holds it.

    ``held`` has of each shard's weights what the rule keeps, by name; ``shapes`` and ``decays`` are
    of the parameters, by their number. A control scales as one what has one number: the layer
    ``unit``, or where ``by_parameter`` that of parameter k is ``unit + k``.
    """

    kind: str
    shards: tuple[Shard, ...]
    held: Sequence[Mapping[str, Tensor]]
    shapes: Sequence[torch.Size]
    decays: Sequence[bool]
    unit: int
    by_parameter: bool
    whole_matrices: bool


def cut(layer: Layer, rank: int, scratch: Tensor, step: Tensor) -> Iterator[Slab]:
    """Cut a layer into slabs of at most a ``scratch``, with views of everything but gradients."""
    room = scratch.numel()
    slab: list[Stretch] = []
    for shard, begin, stop, unit, alone in _stretches(layer, rank):
        start = begin
        if layer.whole_matrices and slab and stop - begin > room:
            yield _slab(layer, rank, slab, scratch, step)
            room, slab = scratch.numel(), []
        while start < stop:
            end = min(stop, start + room)
            slab.append((shard, start, end, unit, alone))
            room -= end - start
            start = end
            if not room:
                yield _slab(layer, rank, slab, scratch, step)
                room, slab = scratch.numel(), []
    if slab:
        yield _slab(layer, rank, slab, scratch, step)


def _stretches(layer: Layer, rank: int) -> Iterator[Stretch]:
    """Yield what is cut: shards, or this rank's pieces of each parameter."""
    for index, shard in enumerate(layer.shards):
        if not layer.by_parameter and not layer.whole_matrices:
            yield index, 0, shard.weights.numel(), layer.unit, None
            continue
        for piece in mine(shard, rank):
            end = piece.offset + piece.end - piece.start
            unit = layer.unit + piece.parameter if layer.by_parameter else layer.unit
            yield index, piece.offset, end, unit, piece.parameter


def mine(shard: Shard, rank: int) -> tuple[Piece, ...]:
    """Return what a rank holds of a shard."""
    return shard.pieces[rank if len(shard.pieces) > 1 else 0]


def _slab(
    layer: Layer, rank: int, stretches: Sequence[Stretch], scratch: Tensor, step: Tensor
) -> Slab:
    sizes = [end - start for _, start, end, _, _ in stretches]
    scratch = scratch[: sum(sizes)]
    updates = list(torch.split(scratch, sizes))
    weights = [layer.shards[k].weights.detach()[a:e] for k, a, e, _, _ in stretches]
    decays = _decaying(layer, rank, stretches, weights, updates)
    if layer.whole_matrices:
        shapes = [layer.shapes[p] for *_, p in stretches if p is not None]
        weights = [flat.view(shape) for flat, shape in zip(weights, shapes, strict=True)]
        updates = [flat.view(shape) for flat, shape in zip(updates, shapes, strict=True)]
        states = [dict(layer.held[k]) for k, *_ in stretches]
    else:
        states = [
            {name: tensor[a:e] for name, tensor in layer.held[k].items()}
            for k, a, e, _, _ in stretches
        ]
    return Slab(
        kind=layer.kind,
        pieces=[(k, a, e) for k, a, e, _, _ in stretches],
        weights=weights,
        updates=updates,
        states=states,
        steps=[step] * len(stretches),
        scratch=scratch,
        units=[unit for *_, unit, _ in stretches],
        decays=decays,
    )


def _decaying(
    layer: Layer,
    rank: int,
    stretches: Sequence[Stretch],
    weights: list[Tensor],
    updates: list[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Return views (weights, updates) of what decays in a slab."""
    if all(layer.decays):
        return weights, updates
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    parts = zip(stretches, weights, updates, strict=True)
    for (k, first, last, _, _), weight, update in parts:
        for begin, end in _joined(layer, mine(layer.shards[k], rank)):
            start, stop = max(begin, first), min(end, last)
            if start < stop:
                found[0].append(weight[start - first : stop - first])
                found[1].append(update[start - first : stop - first])
    return found


def _joined(layer: Layer, pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Return where in a shard what decays lies, neighbours as one."""
    found: list[tuple[int, int]] = []
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        if layer.decays[piece.parameter]:
            begin, end = piece.offset, piece.offset + piece.end - piece.start
            if found and found[-1][1] == begin:
                begin = found.pop()[0]
            found.append((begin, end))
    return found
