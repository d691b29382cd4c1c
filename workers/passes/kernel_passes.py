"""AdamW on the CPU with each pass one trip to memory.

Words a parameter, read and written: 7 as in torch's fused kernel, norms included; 3 more for
updates that wait for the norms of layers; 1 more where gradients are measured before they are used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from workers.passes import adamw_kernel as kernel
from workers.passes.passes import GRADIENT, WEIGHT, Passes, Stepped
from workers.passes.row_threads import Work, over_rows
from workers.passes.stretch_rows import rows_of
from workers.updates.adamw import AdamW

NONE = np.zeros(0, dtype=np.float32)


class KernelPasses(Passes):
    """A table with one row a stretch of weights that lies together, is of one layer and unit, and
    decays or does not; rows are no longer than a slab."""

    def __init__(self, stepped: Stepped) -> None:
        assert type(stepped.rule) is AdamW
        self._optimizer, self._weight_decay = stepped.rule.optimizer, stepped.weight_decay
        self._step, self._firsts, self._count = stepped.step, stepped.firsts, stepped.units
        rows, self._slabs = rows_of(stepped)
        table = [
            (r.weights, 0, r.means, r.squares, r.count, r.layer, r.unit, r.decays) for r in rows
        ]
        self._rows = np.array(table, dtype=np.int64).reshape(-1, kernel.COLUMNS)
        self._shard = np.array([row.shard for row in rows], dtype=np.int64)
        self._offset = np.array([row.offset for row in rows], dtype=np.int64)
        self._found = np.zeros((len(rows), 3))
        self._layers = len(stepped.layers)

    def held(self) -> list[Tensor]:
        return [torch.from_numpy(one) for one in (self._rows, self._found)]

    def take(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        # Rows have their addresses, and updates wait in them.
        self._gradients = [flat.contiguous() for layer in gradients for flat in layer]
        if any(flat.dtype != torch.float32 or flat.is_cuda for flat in self._gradients):
            raise TypeError("gradients of float32 weights on the CPU have to be so, too")
        starts = np.array([flat.data_ptr() for flat in self._gradients], dtype=np.int64)
        self._rows[:, kernel.GRADIENTS] = starts[self._shard] + self._offset

    def measure(self, columns: Collection[int]) -> Tensor:
        self._found.fill(0)
        self._over(kernel.measure, of_gradients=GRADIENT in columns, of_weights=WEIGHT in columns)
        return self._sums(columns)

    def update(
        self,
        rates: Sequence[float],
        factors: Tensor | None,
        waits: Collection[int],
        columns: Collection[int],
    ) -> Tensor:
        beta1, beta2 = self._optimizer.betas
        step = float(self._step)
        layers = np.zeros((self._layers, 3), dtype=np.float32)
        layers[:, kernel.FACTOR] = 1.0 if factors is None else factors[list(self._firsts)].numpy()
        rate = np.array(rates, dtype=np.float64)
        layers[:, kernel.STEP_SIZE] = rate / (1 - beta1**step)
        layers[:, kernel.DECAY] = rate * self._weight_decay
        constants = (1 - beta1, beta2, 1 - beta2, (1 - beta2**step) ** -0.5, self._optimizer.eps)
        self._over(
            kernel.update,
            waits,
            of_gradients=bool(columns),
            layers=layers,
            numbers=np.array(constants, dtype=np.float32),
        )
        return self._sums(columns)

    def apply(self, waits: Collection[int], factors: Sequence[float]) -> None:
        self._over(kernel.apply, waits, factors=np.array(factors, dtype=np.float32))

    def let_go(self) -> None:
        self._gradients = []
        self._rows[:, kernel.GRADIENTS] = 0

    def _over(
        self,
        work: Work,
        waits: Collection[int] = (),
        *,
        of_gradients: bool = False,
        of_weights: bool = False,
        layers: np.ndarray = NONE,
        numbers: np.ndarray = NONE,
        factors: np.ndarray = NONE,
    ) -> None:
        marks = np.zeros(self._layers, dtype=np.bool_)
        marks[list(waits)] = True
        lengths = (len(self._rows), self._layers, len(factors))
        arrays = (marks, layers, numbers, factors, self._found)
        addresses = (array.ctypes.data for array in arrays)
        over_rows(
            self._rows[:, kernel.COUNT],
            work,
            (self._rows.ctypes.data, *lengths, *addresses, of_gradients, of_weights),
        )

    def _sums(self, columns: Collection[int]) -> Tensor:
        """Return the squared norms of units, (U, 3) in float64, summed in the order of rows."""
        squares = torch.zeros((self._count, 3), dtype=torch.float64)
        units = self._rows[:, kernel.UNIT]
        for column in columns:
            sums = np.bincount(units, self._found[:, column], self._count)
            squares[:, column] = torch.from_numpy(sums)
        return squares
