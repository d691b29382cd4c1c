"""From hidden states to the rows of the ``profiles`` table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.spec import Probe
from workers.probes.capture import ProbeRows, capture
from workers.probes.similarity import Reference, compare_with_null

# Metrics that depend on which row belongs to which, and so have a row-shuffled null.
PAIRED = ("procrustes", "cka_distance", "cka_distance_debiased")


class DepthProbe:
    """Compares a model with its own past, layer by layer, on fixed rows."""

    def __init__(
        self,
        probe: Probe,
        rows: ProbeRows,
        reference: list[Tensor],
        backbone: nn.Module,
        blocks: nn.ModuleList,
        device: torch.device,
    ) -> None:
        self._probe = probe
        self._rows = rows
        self._backbone = backbone
        self._blocks = blocks
        self._device = device
        self._references = [
            Reference.of(state, label=f"layer {layer} before fine-tuning")
            for layer, state in enumerate(reference)
        ]

    def measure(self, step: int) -> Iterator[dict[str, Any]]:
        """Yield one row a layer, 0..L; metrics that were not asked for are None."""
        states = capture(self._backbone, self._blocks, self._rows, self._device)
        for layer, (reference, state) in enumerate(zip(self._references, states, strict=True)):
            # One shuffle per (probe, step), the same for every layer and run.
            generator = torch.Generator().manual_seed(self._probe.seed + step)
            label = f"layer {layer} at step {step}"
            change, null = compare_with_null(reference, state, generator, label=label)
            asked = set(self._probe.metrics)
            yield {
                "layer": layer,
                "depth": layer / len(self._blocks),
                "rows": state.shape[0],
                "width": state.shape[1],
                **{name: getattr(change, name) for name in asked},
                **{f"{name}_null": getattr(null, name) for name in PAIRED if name in asked},
            }
