"""AdamW on an accelerator in two reads: update and norms in one pass, scaling in another.

Words a parameter, read and written: 7, norms included; 3 more for updates that wait for the norms
of layers; 1 more where gradients are measured before they are used. One launch a pass, and nothing
that waits for the device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from workers.passes import triton_kernel as kernel
from workers.passes.passes import GRADIENT, UPDATE, WEIGHT, Passes, Stepped
from workers.passes.stretch_rows import rows_of
from workers.updates.adamw import AdamW

BLOCK = 1024


class TritonPasses(Passes):
    """A table of rows on the device (``stretch_rows``); sums over the rows of a unit are taken in
    their order, in float64."""

    def __init__(self, stepped: Stepped) -> None:
        assert type(stepped.rule) is AdamW
        self._optimizer, self._weight_decay = stepped.rule.optimizer, stepped.weight_decay
        self._step, self._count = stepped.step, stepped.units
        self._device = stepped.step.device
        rows, self._slabs = rows_of(stepped)
        table = [
            (r.weights, 0, r.means, r.squares, r.count, r.layer, r.unit, r.decays) for r in rows
        ]
        self._rows = self._there(table).view(-1, kernel.COLUMNS)
        self._shard = self._there([row.shard for row in rows])
        self._offset = self._there([row.offset for row in rows])
        units = self._there([row.unit for row in rows])
        self._by_unit = torch.argsort(units, stable=True)
        self._lengths = torch.bincount(units, minlength=self._count)
        self._starts = self._lengths.cumsum(0) - self._lengths
        self._firsts = self._there(list(stepped.firsts))
        self._found = torch.zeros((len(rows), 3), device=self._device)
        self._layers = len(stepped.layers)
        self._marked: dict[tuple[int, ...], Tensor] = {}

    def _there(self, numbers: Sequence[object]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)

    def held(self) -> list[Tensor]:
        kept = [self._rows, self._shard, self._offset, self._firsts, self._found]
        return [*kept, self._by_unit, self._lengths, self._starts, *self._marked.values()]

    def take(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        # Rows have their addresses, and updates wait in them.
        self._gradients = [flat.contiguous() for layer in gradients for flat in layer]
        if any(f.dtype != torch.float32 or f.device != self._device for f in self._gradients):
            raise TypeError("gradients of float32 weights on a device have to be so, too")
        starts = self._there([flat.data_ptr() for flat in self._gradients])
        self._rows[:, 1] = starts[self._shard] + self._offset

    def measure(self, columns: Collection[int]) -> Tensor:
        self._found.zero_()
        with self._launching():
            for column in (GRADIENT, WEIGHT):
                if column in columns:
                    kernel.measure[(len(self._rows),)](self._rows, self._found, column, BLOCK)
        return self._sums(columns)

    def update(
        self,
        rates: Sequence[float],
        factors: Tensor | None,
        waits: Collection[int],
        columns: Collection[int],
    ) -> Tensor:
        beta1, beta2 = self._optimizer.betas
        step = self._step.double()
        rate = torch.tensor(rates, dtype=torch.float64, device=self._device)
        layers = rate.new_ones((kernel.OF_LAYER, self._layers))
        if factors is not None:
            layers[0] = factors[self._firsts]
        layers[1] = rate / (1 - beta1**step)
        layers[2] = rate * self._weight_decay
        layers[3] = (1 - beta2**step) ** -0.5
        self._found.zero_()
        with self._launching():
            kernel.update[(len(self._rows),)](
                self._rows,
                layers.T.float().contiguous(),
                self._marks(waits),
                self._found,
                1 - beta1,
                beta2,
                1 - beta2,
                self._optimizer.eps,
                bool(columns),
                BLOCK,
            )
        return self._sums(columns)

    def apply(self, waits: Collection[int], factors: Sequence[float]) -> None:
        of_units = torch.tensor(factors, dtype=torch.float32, device=self._device)
        with self._launching():
            kernel.apply[(len(self._rows),)](self._rows, self._marks(waits), of_units, BLOCK)

    def let_go(self) -> None:
        self._gradients = []
        self._rows[:, 1] = 0

    def _launching(self) -> AbstractContextManager[object]:
        """Return the context in which kernels go to the device that has the weights."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _marks(self, waits: Collection[int]) -> Tensor:
        key = tuple(waits)
        if key not in self._marked:
            marks = [int(layer in key) for layer in range(self._layers)]
            self._marked[key] = torch.tensor(marks, dtype=torch.int32, device=self._device)
        return self._marked[key]

    def _sums(self, columns: Collection[int]) -> Tensor:
        """Return the squared norms of units, (U, 3) in float64; those of other columns are 0."""
        squares = self._found.new_zeros((self._count, 3), dtype=torch.float64)
        if columns:
            with self._launching():
                kernel.add[(self._count, 3)](
                    self._found, self._by_unit, self._starts, self._lengths, squares, BLOCK
                )
            for column in {GRADIENT, UPDATE, WEIGHT} - set(columns):
                squares[:, column] = 0
        return squares
