"""How far each layer's weights are from where they began (definition "Displacement").

Per layer group ‖W(t) − W(0)‖ / ‖W(0)‖ and cos(W(t), W(0)), over all of its parameters together;
where an adapter stands beside a matrix, W is what the model computes with, both together. Equal
steps do not make equal displacements, since directions may cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Engine
from workers.models.first_weights import FirstWeights
from workers.progress import PULSE
from workers.ranks.process_group import Ranks

CPU = torch.device("cpu")
A, B = ".lora_A.", ".lora_B."
# Displacement, cosine.
Displaced = tuple[float | None, float | None]
UNKNOWN: Displaced = (None, None)


class Displacement:
    """Compares an engine's weights with those that its model was loaded with.

    To be made while the parameters are whole and as they were loaded. The first rank alone reads
    and compares.
    """

    def __init__(
        self, folder: Path, model: nn.Module, groups: Sequence[LayerGroup], ranks: Ranks
    ) -> None:
        self._ranks = ranks
        self._modules = dict(model.named_modules()) if ranks.leads else {}
        named = _named(groups, self._modules) if ranks.leads else ()
        self._first = FirstWeights(folder, named)

    @torch.no_grad()
    def measure(self, engine: Engine) -> list[Displaced]:
        """Return the displacement and cosine of each layer group; of nothing, and on other ranks,
        None. A collective."""
        found = []
        for i, group in enumerate(engine.groups):
            now = engine.layer(i, "weights", CPU, to=0)
            found.append(displaced(self._pairs(group, now)) if self._ranks.leads else UNKNOWN)
            PULSE.beat()
        return found

    def _pairs(self, group: LayerGroup, now: dict[int, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what each matrix of a layer was, and what it is."""
        numbers = {name: k for k, name in enumerate(group.names)}
        for name, k in numbers.items():
            if B in name:
                continue  # goes with its A
            if A not in name:
                yield self._first.read(name), now[k]
                continue
            from workers.adapters.lora import change_of

            module = name.partition(A)[0]
            other = numbers[name.replace(A, B)]
            before = self._first.read(module)
            change = change_of(self._modules[module], now[k], now[other])
            yield before, before + change


def _named(
    groups: Iterable[LayerGroup], modules: dict[str, nn.Module]
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters whose first values are asked for; a matrix beside which an adapter
    stands is called by its module."""
    for group in groups:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            if A in name:
                module = name.partition(A)[0]
                adapted: Any = modules[module]
                yield module, adapted.get_base_layer().weight
            elif B not in name:
                yield name, parameter


def displaced(pairs: Iterable[tuple[Tensor, Tensor]]) -> Displaced:
    """Return ‖W − W₀‖/‖W₀‖ and cos(W, W₀) of pairs (W₀, W) taken together, summed in float64; None
    where a norm is 0."""
    moved = first = last = product = 0.0
    for before, after in pairs:
        x, y = before.double().flatten(), after.double().flatten()
        moved += float((y - x).square().sum())
        first += float(x @ x)
        last += float(y @ y)
        product += float(x @ y)
    if not first:
        return UNKNOWN
    cosine = product / math.sqrt(first * last) if last else None
    return math.sqrt(moved / first), cosine
