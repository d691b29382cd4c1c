"""The optimizer's part of a step under each control, over torch's fused AdamW, in pairs.

GPT-NeoX shapes of 5.8 and 110 million parameters; gradients lie in memory as a backward pass leaves
them. In each repeat torch and a control take one step of the same parameters in turns, torch once
before and once after, so that what else the machine does falls on both. One thread: CPU time of the
thread; more: wall time.

The limit is what AdamW must move, 28 bytes a parameter (four arrays read, three written), at the
rate at which this machine adds one array of that size to another in place, as AdamW works: a sum
that is written elsewhere has memory read what it is about to overwrite.

On a GPU the same is timed from when it has done all before to when it has done the step.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sweeps.spec import Optimizer
from tests.benchmarks.recorded.figures import Figure
from tests.gpu.device import now
from workers.controls.equal_step import EqualStep
from workers.controls.layer_clip import LayerClip
from workers.controls.layer_control import LayerControl, Standard
from workers.controls.layer_groups import LayerGroup
from workers.engines.plain import PlainEngine

OPTIMIZER = Optimizer(learning_rate=1e-4, eps=1e-6)
CONTROLS: dict[str, Callable[[], LayerControl]] = {
    "standard": Standard,
    "layer_clip": lambda: LayerClip(0.05),
    "equal_step fixed": lambda: EqualStep(1e-3, "blocks"),
    "equal_step mean": lambda: EqualStep("mean", "blocks"),
    "equal_step budget": lambda: EqualStep("budget", "blocks"),
}
BYTES_MOVED = 28
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """A decoder's layers and width, its vocabulary, and how often each pair is timed."""

    layers: int
    width: int
    vocabulary: int
    repeats: int

    def parameters(self) -> int:
        return sum(p.numel() for group in self.groups() for p in group.parameters)

    def groups(self, device: torch.device | str = "meta") -> list[LayerGroup]:
        """Return layer groups of parameters alone, as a GPT-NeoX model has them."""
        w = self.width
        block = [(w,), (w,), (w,), (w,), (3 * w, w), (3 * w,), (w, w), (w,)]
        block += [(4 * w, w), (4 * w,), (w, 4 * w), (w,)]
        return [
            _group("embedding", 0, [(self.vocabulary, w)], device),
            *(_group("block", i, block, device) for i in range(1, self.layers + 1)),
            _group("head", self.layers + 1, [(w,), (w,), (self.vocabulary, w)], device),
        ]


SHAPES = {"5.8 M": Shape(6, 256, 2048, 25), "110 M": Shape(12, 768, 16384, 5)}
SMALL = {"0.1 M": Shape(2, 32, 512, 2)}


def _group(
    kind: str, layer: int, shapes: list[tuple[int, ...]], device: torch.device | str
) -> LayerGroup:
    parameters = [nn.Parameter(torch.empty(shape, device=device)) for shape in shapes]
    names = [f"{kind}.{layer}.{k}.weight" for k in range(len(shapes))]
    return LayerGroup(kind=kind, layer=layer, names=tuple(names), parameters=tuple(parameters))


@dataclass(frozen=True)
class Timed:
    """One control beside torch: medians in seconds, and the median of the paired ratios."""

    control: str
    seconds: float
    torch_seconds: float
    ratio: float


def measured(shape: Shape, threads: int, device: torch.device = CPU) -> Iterator[Timed]:
    """Yield the time of each control's optimizer beside torch's."""
    torch.set_num_threads(threads)
    clock = clock_of(threads, device)
    for name, control in CONTROLS.items():
        groups = shape.groups(device)
        parameters = [p for group in groups for p in group.parameters]
        gradients = [torch.randn(p.shape, device=device) * 1e-3 for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.normal_(std=0.02)
        model = nn.ParameterList(parameters)
        engine = PlainEngine(model, groups, control(), OPTIMIZER, "fp32")
        plain = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-6, weight_decay=0.0, fused=True)

        def ours(engine: PlainEngine = engine) -> object:
            return engine.step(1e-4)

        def theirs(plain: torch.optim.AdamW = plain) -> object:
            return plain.step()

        taken: list[tuple[float, float]] = []
        for repeat in range(shape.repeats + 2):
            before, mine, after = (
                _once(step, parameters, gradients, clock) for step in (theirs, ours, theirs)
            )
            if repeat >= 2:
                taken.append((mine, (before + after) / 2))
        yield Timed(
            name,
            statistics.median(mine for mine, _ in taken),
            statistics.median(other for _, other in taken),
            statistics.median(mine / other for mine, other in taken),
        )
        del engine, plain, groups, parameters, gradients, model, ours, theirs
        gc.collect()


def clock_of(threads: int, device: torch.device) -> Callable[[], float]:
    """Return what tells the time: of one thread of a CPU its own, which others do not lengthen by
    what they take; of a device the time at which it has done everything so far."""
    if device.type != "cpu":
        return lambda: now(device)
    return time.thread_time if threads == 1 else time.perf_counter


def _once(
    step: Callable[[], object],
    parameters: list[nn.Parameter],
    gradients: list[Tensor],
    clock: Callable[[], float],
) -> float:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    began = clock()
    step()
    return clock() - began


def bandwidth(parameters: int, threads: int, device: torch.device = CPU) -> float:
    """Return bytes a second of a ← a + b over arrays as large as the parameters, best of 7."""
    torch.set_num_threads(threads)
    a, b = (torch.ones(parameters, device=device) for _ in range(2))
    clock = clock_of(threads, device)
    best = float("inf")
    for _ in range(7):
        began = clock()
        a.add_(b)
        best = min(best, clock() - began)
    return 12 * parameters / best


def figures(threads: int, shapes: Mapping[str, Shape]) -> Iterator[Figure]:
    """Yield a figure a size and control."""
    for size, shape in shapes.items():
        count = shape.parameters()
        limit = BYTES_MOVED * count / bandwidth(count, threads)
        for timed in measured(shape, threads):
            yield Figure(
                what=f"optimizer, {timed.control}",
                size=size,
                threads=threads,
                seconds=timed.seconds,
                peer="torch AdamW(fused=True)",
                peer_seconds=timed.torch_seconds,
                ratio=timed.ratio,
                limit_seconds=limit,
                limit=f"{BYTES_MOVED} bytes a parameter at the measured rate of a += b",
            )
