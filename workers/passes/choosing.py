"""Which passes a rank takes: a kernel where it pays and can be had, else torch's operations."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from functools import cache
from importlib import import_module

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from sweeps import spec
from workers.passes.passes import GRADIENT, UPDATE, WEIGHT, Passes, Stepped
from workers.passes.torch_passes import TorchPasses
from workers.updates.adamw import AdamW
from workers.updates.shards import Piece, Shard
from workers.updates.slabs import CPU_SLAB, DEVICE_SLAB, Layer

# Elements of a rank's layers from which on the kernel is used. It saves a nanosecond each a step
# and takes a third of a second to import: of smaller models whole runs are shorter than that pays.
KERNEL_FROM = 1 << 20
# What both ways are timed on, on a GPU: layers, elements of each, and steps.
TRIED_LAYERS, TRIED_SIZE, TRIED_STEPS = 8, 1 << 21, 5
# A kernel that is hardly faster is not taken: by chance an attempt that follows would choose
# otherwise, and end with rows that differ by rounding.
FASTER = 0.9


def passes_for(stepped: Stepped) -> Passes:
    """Return the passes for a rule and the layers as this rank holds them.

    A kernel knows AdamW on float32 in the CPU's memory, offloaded weights included; another one
    that on a GPU, where it is taken if it was seen to be faster there. Every other rule, and every
    other device, has torch's operations.
    """
    if type(stepped.rule) is AdamW and _worth(stepped.layers) and compiles():
        from workers.passes.kernel_passes import KernelPasses

        return KernelPasses(replace(stepped, limit=min(stepped.limit, CPU_SLAB)))
    if type(stepped.rule) is AdamW and _on_gpu(stepped.layers) and wins(stepped.step.device):
        from workers.passes.triton_passes import TritonPasses

        return TritonPasses(replace(stepped, limit=min(stepped.limit, CPU_SLAB)))
    return TorchPasses(stepped)


def _worth(layers: tuple[Layer, ...]) -> bool:
    weights = [shard.weights for layer in layers for shard in layer.shards]
    return all(map(_has_values, weights)) and sum(w.numel() for w in weights) >= KERNEL_FROM


def _on_gpu(layers: tuple[Layer, ...]) -> bool:
    weights = [shard.weights for layer in layers for shard in layer.shards]
    return all(w.device.type == "cuda" and not isinstance(w, FakeTensor) for w in weights)


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


@cache
def wins(device: torch.device) -> bool:
    """Return whether the kernel for a GPU can be had and is faster there, and say once what was
    seen."""
    try:
        from workers.passes.triton_passes import TritonPasses

        theirs, mine = (seconds(way, device) for way in (TorchPasses, TritonPasses))
    except Exception as error:  # whatever a compiler raises on a device it does not know
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"optimizer steps in torch's operations, without Triton: {said}", file=sys.stderr)
        return False
    if device.type == "cuda":
        torch.cuda.empty_cache()  # a run's memory is planned without what was tried here
    taken = mine < FASTER * theirs
    print(
        f"optimizer steps {'by a Triton kernel' if taken else 'in torch operations'}:"
        f" {TRIED_LAYERS * TRIED_SIZE / 1e6:.0f} M parameters take it {mine * 1e3:.2f} ms,"
        f" torch's operations {theirs * 1e3:.2f} ms",
        file=sys.stderr,
    )
    return taken


def seconds(way: type[Passes], device: torch.device) -> float:
    """Return the median time of an update with its norms, of layers made up for it."""
    step = torch.zeros((), device=device)
    rule = AdamW(spec.Optimizer(learning_rate=1e-3))
    layers = []
    for unit in range(TRIED_LAYERS):
        weights = torch.zeros(TRIED_SIZE, device=device)
        piece = Piece(parameter=0, start=0, end=TRIED_SIZE, offset=0)
        layers.append(
            Layer(
                kind="block",
                shards=(Shard(weights, (weights,), ((piece,),)),),
                held=({name: torch.zeros_like(weights) for name in rule.states},),
                shapes=[weights.shape],
                decays=[False],
                unit=unit,
                by_parameter=False,
                whole_matrices=False,
            )
        )
    units = list(range(TRIED_LAYERS))
    limit = CPU_SLAB if way is not TorchPasses else DEVICE_SLAB
    stepped = Stepped(tuple(layers), 0, rule, 0.0, step, units, TRIED_LAYERS, limit)
    passes, taken = way(stepped), []  # type: ignore[call-arg]
    gradients = [[torch.ones(TRIED_SIZE, device=device)] for _ in units]
    for _ in range(2 + TRIED_STEPS):  # the first compile, and fetch code
        step += 1
        passes.take(gradients)
        _wait(device)
        began = time.perf_counter()
        passes.update([1e-3] * TRIED_LAYERS, None, (), (GRADIENT, UPDATE, WEIGHT))
        _wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
