"""The flat float32 memory one process steps, and which elements of which parameters it holds.

A process may hold whole parameters (plain, ZeRO-0), a stretch of a layer (ZeRO-1, 2) or a stretch
of every parameter (ZeRO-3). All are flat tensors of pieces here, so the optimizer, the probes and
the checkpoints are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Parameters of fewer elements share one flat tensor: a call costs more than their arithmetic.
PACKED = 1 << 16
ALIGNED = 16


@dataclass(frozen=True)
class Piece:
    """Elements ``start``..``end`` of a layer's k-th parameter lie at ``offset`` of a shard."""

    parameter: int
    start: int
    end: int
    offset: int


@dataclass(frozen=True)
class Shard:
    """Flat float32 ``weights`` of one layer, which the optimizer changes in place.

    The gradients of ``gradient_of``, laid end to end, are the gradient of ``weights``.
    ``pieces[r]`` is what rank r holds in its shard of this place; whole parameters have one entry.
    """

    weights: Tensor
    gradient_of: tuple[Tensor, ...]
    pieces: tuple[tuple[Piece, ...], ...]
    # Stretches (start, end) of this rank's tensor that belong to no parameter.
    padding: tuple[tuple[int, int], ...] = ()


# From this rank's flat tensor (n,) to those of all ranks, (R, n); None where another one gets them.
Gather = Callable[[Tensor], Tensor | None]


def whole(parameters: Sequence[Tensor], packed: int = PACKED) -> tuple[Shard, ...]:
    """Return shards that hold whole parameters; small ones become views of one flat tensor.

    ``packed`` is from how many elements on a parameter has a shard of its own. Those whose size is
    no multiple of 64 bytes come last, so that the others stay aligned.
    """
    small = [k for k, parameter in enumerate(parameters) if parameter.numel() < packed]
    small.sort(key=lambda k: parameters[k].numel() % ALIGNED != 0)
    shards = []
    if small:
        members = [parameters[k] for k in small]
        flat = torch.cat([member.detach().reshape(-1) for member in members])
        pieces, offset = [], 0
        for k, member in zip(small, members, strict=True):
            end = offset + member.numel()
            member.data = flat[offset:end].view(member.shape)
            pieces.append(Piece(k, 0, member.numel(), offset))
            offset = end
        shards.append(Shard(flat, tuple(members), (tuple(pieces),)))
    for k, parameter in enumerate(parameters):
        if parameter.numel() >= packed:
            parameter.data = parameter.data.contiguous()
            piece = Piece(k, 0, parameter.numel(), 0)
            shards.append(Shard(parameter.detach().view(-1), (parameter,), ((piece,),)))
    return tuple(shards)


def stretches(
    members: Sequence[tuple[int, int]], partition: int, ranks: int
) -> tuple[tuple[Piece, ...], ...]:
    """Return each rank's pieces of parameters laid end to end, cut every ``partition`` elements.

    ``members`` are (number in the layer, elements) of the parameters, in order.
    """
    pieces: list[list[Piece]] = [[] for _ in range(ranks)]
    begin = 0
    for k, size in members:
        for rank in range(ranks):
            first = max(begin, rank * partition)
            last = min(begin + size, (rank + 1) * partition)
            if first < last:
                offset = first - rank * partition
                pieces[rank].append(Piece(k, first - begin, last - begin, offset))
        begin += size
    return tuple(tuple(held) for held in pieces)


def slices(
    members: Sequence[tuple[int, int]], partitions: Sequence[int], ranks: int
) -> tuple[tuple[Piece, ...], ...]:
    """Return each rank's pieces where every parameter is cut into ``ranks`` partitions of its own.

    ``members`` are (number in the layer, elements) of the parameters, in order.
    """
    pieces: list[list[Piece]] = [[] for _ in range(ranks)]
    offset = 0
    for (k, size), partition in zip(members, partitions, strict=True):
        for rank in range(ranks):
            start, end = rank * partition, min(size, (rank + 1) * partition)
            if start < end:
                pieces[rank].append(Piece(k, start, end, offset))
        offset += partition
    return tuple(tuple(held) for held in pieces)


def padding(pieces: Sequence[Piece], size: int) -> tuple[tuple[int, int], ...]:
    """Return the stretches (start, end) of a flat tensor of ``size`` that no piece covers."""
    gaps, end = [], 0
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        if piece.offset > end:
            gaps.append((end, piece.offset))
        end = piece.offset + piece.end - piece.start
    return (*gaps, (end, size)) if end < size else tuple(gaps)


def assemble(
    shards: Sequence[Shard],
    tensors: Sequence[Tensor],
    shapes: Sequence[torch.Size],
    device: torch.device,
    gather: Gather,
    wanted: Collection[int],
) -> dict[int, Tensor]:
    """Return whole copies of the ``wanted`` parameters of a layer (or their moments) on ``device``.

    ``tensors`` are the flat tensors of this rank, one a shard. A collective where layers are cut.
    """
    full = {k: torch.empty(shapes[k], dtype=torch.float32, device=device) for k in wanted}
    for shard, tensor in zip(shards, tensors, strict=True):
        held = gather(tensor) if len(shard.pieces) > 1 else tensor[None]
        if held is None:
            continue
        for rank, pieces in enumerate(shard.pieces):
            for piece in pieces:
                if piece.parameter not in full:
                    continue
                end = piece.offset + piece.end - piece.start
                full[piece.parameter].view(-1)[piece.start : piece.end] = held[
                    rank, piece.offset : end
                ]
    return full


def fill(
    shards: Sequence[Shard], tensors: Sequence[Tensor], full: Mapping[int, Tensor], rank: int
) -> None:
    """Write this rank's pieces of the whole parameters that are given into its flat ``tensors``."""
    for shard, tensor in zip(shards, tensors, strict=True):
        for piece in shard.pieces[rank if len(shard.pieces) > 1 else 0]:
            if piece.parameter not in full:
                continue
            end = piece.offset + piece.end - piece.start
            source = full[piece.parameter].reshape(-1)[piece.start : piece.end]
            tensor[piece.offset : end].copy_(source)
