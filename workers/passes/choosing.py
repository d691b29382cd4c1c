"""Which passes a rank takes: the kernel where it pays and can be had, else torch's operations."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from importlib import import_module

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from workers.passes.passes import Passes, Stepped
from workers.passes.torch_passes import TorchPasses
from workers.updates.adamw import AdamW
from workers.updates.slabs import CPU_SLAB, Layer

# Elements of a rank's layers from which on the kernel is used. It saves a nanosecond each a step
# and takes a third of a second to import: of smaller models whole runs are shorter than that pays.
KERNEL_FROM = 1 << 20


def passes_for(stepped: Stepped) -> Passes:
    """Return the passes for a rule and the layers as this rank holds them.

    The kernel knows AdamW on float32 in the CPU's memory, offloaded weights included; every other
    rule, and every other device, has torch's operations.
    """
    if type(stepped.rule) is AdamW and _worth(stepped.layers) and compiles():
        from workers.passes.kernel_passes import KernelPasses

        return KernelPasses(replace(stepped, limit=min(stepped.limit, CPU_SLAB)))
    return TorchPasses(stepped)


def _worth(layers: tuple[Layer, ...]) -> bool:
    weights = [shard.weights for layer in layers for shard in layer.shards]
    return all(map(_has_values, weights)) and sum(w.numel() for w in weights) >= KERNEL_FROM


def _has_values(weights: Tensor) -> bool:
    return weights.device.type == "cpu" and not isinstance(weights, FakeTensor)


@cache
def compiles() -> bool:
    """Return whether the kernel can be had, and say once where it cannot: results are the same
    within rounding, steps take twice as long."""
    try:
        _import_kernel()
    except Exception as error:  # whatever a compiler raises on a machine it does not know
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"optimizer steps in torch's operations, without numba: {said}", file=sys.stderr)
        return False
    return True


def _import_kernel() -> None:
    import_module("workers.passes.adamw_kernel")
