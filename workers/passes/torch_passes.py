"""Passes in torch's own operations: every rule, every device, and what a kernel is compared with.

A rule makes the update on a zeroed scratch instead of the weights. A slab of the layer (weights,
gradient, what the rule keeps, scratch) fits the processor's cache: norms cost arithmetic, not
another trip to memory. Where the update must wait for the norms of whole layers, it is kept in the
gradient's own memory, which the rule no longer needs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from workers.passes.passes import GRADIENT, UPDATE, WEIGHT, Passes, Stepped
from workers.updates.slabs import cut
from workers.updates.update_rule import Slab

# Of one slab: scalars of ``found`` for gradients, updates and weights.
Places = tuple[list[Tensor], list[Tensor], list[Tensor]]


class TorchPasses(Passes):
    """See the module."""

    def __init__(self, stepped: Stepped) -> None:
        self._rule, self._weight_decay = stepped.rule, stepped.weight_decay
        self._firsts, self._count, self._limit = stepped.firsts, stepped.units, stepped.limit
        layers = stepped.layers
        self._by_parameter = layers[0].by_parameter
        device = layers[0].shards[0].weights.device
        sizes = [[shard.weights.numel() for shard in layer.shards] for layer in layers]
        room = min(self._limit, max(map(sum, sizes)))
        if self._rule.whole_matrices:
            room = max(room, *(size for of_layer in sizes for size in of_layer))
        self._scratch = torch.zeros(room, device=device)
        self._slabs = [
            list(cut(layer, stepped.rank, self._scratch, stepped.step)) for layer in layers
        ]
        units = [[unit for slab in slabs for unit in slab.units] for slabs in self._slabs]
        self._units = [torch.tensor(of_layer, device=device) for of_layer in units]
        self._found = torch.zeros((sum(map(len, units)), 3), device=device)
        self._places = self._found_places()

    def _found_places(self) -> list[list[Places]]:
        """Return of each slab where the squared norms of its pieces are put, by column: those of
        gradients, of updates (one for all, but by parameter) and of weights."""
        places, row = [], 0
        for slabs in self._slabs:
            of_group = []
            for slab in slabs:
                columns = self._found[row : row + len(slab.units)].unbind(1)
                gradients, updates, weights = (list(column.unbind()) for column in columns)
                of_group.append(
                    (gradients, updates if self._by_parameter else updates[:1], weights)
                )
                row += len(slab.units)
            places.append(of_group)
        return places

    def held(self) -> list[Tensor]:
        return [self._scratch, self._found, *self._units]

    def take(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        self._gradients = [
            [self._pieces(slab, flat) for slab in slabs]
            for slabs, flat in zip(self._slabs, gradients, strict=True)
        ]

    def _pieces(self, slab: Slab, flat: Sequence[Tensor]) -> list[Tensor]:
        cut = [flat[k] if e - a == flat[k].numel() else flat[k][a:e] for k, a, e in slab.pieces]
        if not self._rule.whole_matrices:
            return cut
        return [piece.view(like.shape) for piece, like in zip(cut, slab.weights, strict=True)]

    def measure(self, columns: Collection[int]) -> Tensor:
        self._found.zero_()
        for i, slabs in enumerate(self._gradients):
            for slab, places, gradient in zip(self._slabs[i], self._places[i], slabs, strict=True):
                for column in columns:
                    measured = gradient if column == GRADIENT else slab.weights
                    self._put_squares(places[column], measured)
        return self._sums()

    def update(
        self,
        rates: Sequence[float],
        factors: Tensor | None,
        waits: Collection[int],
        columns: Collection[int],
    ) -> Tensor:
        self._found.zero_()
        # The rule divides the gradient by these as it reads it.
        divisors = None if factors is None else factors.reciprocal()
        for i, slabs in enumerate(self._gradients):
            divisor = None if divisors is None else divisors[self._firsts[i]]
            for slab, places, gradient in zip(self._slabs[i], self._places[i], slabs, strict=True):
                self._make_update(slab, gradient, rates[i], divisor)
                # After the rule, whose arithmetic hides the fetching of what they read.
                if GRADIENT in columns:
                    self._put_squares(places[GRADIENT], gradient)
                if UPDATE in columns:
                    updates = slab.updates if self._by_parameter else [slab.scratch]
                    self._put_squares(places[UPDATE], updates)
                if WEIGHT in columns:
                    self._put_squares(places[WEIGHT], slab.weights)
                if i in waits:
                    torch._foreach_copy_(gradient, slab.updates)
                else:
                    torch._foreach_add_(slab.weights, slab.updates)
        return self._sums()

    def _make_update(
        self, slab: Slab, gradient: list[Tensor], rate: float, divisor: Tensor | None
    ) -> None:
        """Advance what the rule keeps and leave −U of the slab in the scratch."""
        slab.scratch.zero_()
        if divisor is None:
            self._rule.update(slab, gradient, rate)
        else:
            self._rule.update_divided(slab, gradient, rate, divisor)
        if self._weight_decay and slab.decays[0]:
            weights, updates = slab.decays
            torch._foreach_add_(updates, weights, alpha=-rate * self._weight_decay)

    def apply(self, waits: Collection[int], factors: Sequence[float]) -> None:
        for i in waits:
            for slab, update in zip(self._slabs[i], self._gradients[i], strict=True):
                if not self._by_parameter:
                    torch._foreach_add_(slab.weights, update, alpha=factors[self._firsts[i]])
                    continue
                for weight, one, unit in zip(slab.weights, update, slab.units, strict=True):
                    weight.add_(one, alpha=factors[unit])

    def let_go(self) -> None:
        self._gradients = []

    def _sums(self) -> Tensor:
        """Return the squared norms of units, (U, 3) in float64, from what was put of pieces."""
        squares = self._found.new_zeros((self._count, 3), dtype=torch.float64)
        groups = torch.split(self._found, [len(units) for units in self._units])
        for i, (of_group, units) in enumerate(zip(groups, self._units, strict=True)):
            if self._by_parameter:
                squares.index_add_(0, units, of_group.double())
            else:
                torch.sum(of_group, 0, dtype=torch.float64, out=squares[i])
        return squares

    def _put_squares(self, places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
        """Put the squared norm of each tensor.

        On a CPU as the sum of squares, which torch adds pairwise, of no more than the cache holds
        at once. A dot product and torch's norm add one after the other, in as many sums as the
        processor and its BLAS have: 2e-5 of 65,536 equal numbers was missing on an AMD EPYC.
        """
        if self._found.device.type != "cpu":
            norms = torch._foreach_norm(list(tensors))
            torch._foreach_copy_(list(places), torch._foreach_pow(norms, 2.0))
            return
        for place, tensor in zip(places, tensors, strict=True):
            flat = tensor if tensor.dim() == 1 else tensor.view(-1)
            if flat.numel() <= self._limit:
                torch.sum(flat.square(), 0, out=place)
            else:
                parts = [part.square().sum() for part in torch.split(flat, self._limit)]
                place.copy_(torch.stack(parts).double().sum())
