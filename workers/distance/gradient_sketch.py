"""Gradients of a block in so few numbers that many of them can be kept.

A gradient of D coordinates is kept as a count sketch of at most ``WIDTH`` (Charikar, Chen and
Farach-Colton 2002): every coordinate is added, with a random sign, to a random bucket. Inner
products of sketches are then unbiased for those of the gradients a and b, with a standard deviation
of at most √(2/WIDTH)·‖a‖‖b‖, about 1e-3 of the norms' product. A block of no more than ``WIDTH``
parameters is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sweeps.spec import content_id

WIDTH = 2**20
# Coordinates that are hashed at once: 36 MB of buckets, signs and values.
CHUNK = 2**21


class BlockSketch:
    """The map of one block's gradient to its sketch; equal seeds and devices give equal maps.

    Args:
        parameters: those of the block, each once.
        seed: of buckets and signs.
        width: the most coordinates of a sketch.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], seed: int, width: int = WIDTH) -> None:
        self._parameters = tuple(parameters)
        self._seed = seed
        size = sum(parameter.numel() for parameter in parameters)
        self.exact = size <= width
        self.width = min(size, width)

    @torch.no_grad()
    def of_gradients(self) -> Tensor:
        """Return the sketch of the parameters' present gradients: (width,), float32, on the CPU.

        Parameters without a gradient count as zero.
        """
        if self.exact:
            return torch.cat([_gradient(each).flatten().float() for each in self._parameters]).cpu()
        device = self._parameters[0].device
        sketch = torch.zeros(self.width, device=device)
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            flat = parameter.grad.flatten()
            for start, buckets, signs in self._hashes(number, flat.numel(), device):
                part = flat[start : start + len(buckets)].float()
                sketch.index_add_(0, buckets, part * signs)
        return sketch.cpu()

    def _hashes(
        self, number: int, size: int, device: torch.device
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield where a chunk of a parameter begins, and its buckets and signs."""
        generator = torch.Generator(device)
        generator.manual_seed(int(content_id([self._seed, number], 15), 16))
        for start in range(0, size, CHUNK):
            count = min(CHUNK, size - start)
            drawn = torch.randint(2 * self.width, (count,), generator=generator, device=device)
            yield start, drawn // 2, (drawn % 2 * 2 - 1).float()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
