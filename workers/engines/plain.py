"""One process, plain PyTorch: the engine every other one is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from sweeps import spec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup
from workers.engines.layer_adamw import LayerAdamW, LayerStep


class PlainEngine:
    """Float32 weights and moments; with bf16, matrix products run under autocast."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[LayerGroup],
        control: LayerControl,
        optimizer: spec.Optimizer,
        precision: str,
    ) -> None:
        self.model = model
        self.device = groups[0].parameters[0].device
        self._optimizer = LayerAdamW(groups, control, optimizer)
        self._bf16 = precision == "bf16"

    def forward_precision(self) -> AbstractContextManager[object]:
        """Return the context in which losses are computed."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a share of the batch's mean loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> LayerStep:
        """Apply the accumulated gradient under the control, and clear it."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        record = self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return record
