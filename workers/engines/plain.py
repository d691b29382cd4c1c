"""One process, plain PyTorch: the engine every other one is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sweeps import spec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Engine
from workers.engines.layer_optimizer import LayerOptimizer
from workers.engines.layer_step import LayerStep
from workers.updates.shards import PACKED, whole


class PlainEngine(Engine):
    """Float32 weights and states; with bf16, matrix products run under autocast.

    ``slab`` is as ``LayerOptimizer.bind`` takes it.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[LayerGroup],
        control: LayerControl,
        optimizer: spec.Optimizer,
        precision: str,
        slab: int | None = None,
    ) -> None:
        super().__init__(model, groups, LayerOptimizer(groups, control, optimizer), precision)
        # A rule of whole matrices has each by itself.
        packed = 0 if self.optimizer.rule.whole_matrices else PACKED
        self.optimizer.bind([whole(group.parameters, packed) for group in groups], slab=slab)

    @property
    def device(self) -> torch.device:
        return self.groups[0].parameters[0].device

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float, record: bool = True) -> LayerStep | None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.records = record
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.optimizer.record
