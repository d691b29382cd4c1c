"""Weights as rows: stretches that lie together, are of one layer and unit, and decay or do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from workers.passes.passes import Stepped
from workers.updates.adamw import AdamW
from workers.updates.slabs import cut
from workers.updates.update_rule import Slab

SIZE = 4  # bytes of a number


@dataclass(frozen=True)
class StretchRow:
    """``count`` float32 numbers of a layer and unit, by the addresses of weights and moments.

    Their gradients begin ``offset`` bytes into that of the ``shard``, by its number over all
    layers.
    """

    weights: int
    means: int
    squares: int
    count: int
    layer: int
    unit: int
    decays: bool
    shard: int
    offset: int


def rows_of(stepped: Stepped) -> tuple[list[StretchRow], list[Slab]]:
    """Return the rows of AdamW's weights, none longer than a slab, and what they point into."""
    # Slabs are cut as for a scratch that has no memory: a kernel needs none.
    scratch = torch.empty(stepped.limit, device="meta")
    rows: list[StretchRow] = []
    slabs: list[Slab] = []
    before = 0
    for i, layer in enumerate(stepped.layers):
        for slab in cut(layer, stepped.rank, scratch, stepped.step):
            slabs.append(slab)
            rows.extend(_rows(i, before, slab))
        before += len(layer.shards)
    return rows, slabs


def _rows(layer: int, before: int, slab: Slab) -> Iterator[StretchRow]:
    decays = sorted((view.data_ptr(), SIZE * view.numel()) for view in slab.decays[0])
    parts = zip(slab.pieces, slab.weights, slab.states, slab.units, strict=True)
    for (shard, start, _), weights, state, unit in parts:
        begin = weights.data_ptr()
        end = begin + SIZE * weights.numel()
        inside = [(a, a + size) for a, size in decays if begin <= a < end]
        bounds = sorted({begin, end, *(edge for pair in inside for edge in pair)})
        for a, e in itertools.pairwise(bounds):
            means, squares = (state[name].data_ptr() + a - begin for name in AdamW.states)
            yield StretchRow(
                weights=a,
                means=means,
                squares=squares,
                count=(e - a) // SIZE,
                layer=layer,
                unit=unit,
                decays=any(first <= a < last for first, last in inside),
                shard=before + shard,
                offset=SIZE * start + (a - begin),
            )
