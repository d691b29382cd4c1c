"""How far each layer's weights are from where they began (definition "Displacement").

Per layer group ‖W(t) − W(0)‖ / ‖W(0)‖ and cos(W(t), W(0)), over all of its parameters together;
where an adapter stands beside a matrix, W is what the model computes with, both together. Equal
steps do not make equal displacements, since directions may cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Engine
from workers.models.first_weights import FirstWeights, OtherWeights
from workers.progress import PULSE
from workers.ranks.process_group import Ranks

CPU = torch.device("cpu")
A, B = ".lora_A.", ".lora_B."
# Displacement, cosine.
Displaced = tuple[float | None, float | None]
UNKNOWN: Displaced = (None, None)


@dataclass(frozen=True)
class Moved:
    """How far a layer group has come from where it began, as its columns are called."""

    displacement: float | None = None
    displacement_cosine: float | None = None
    reversion: float | None = None


# What a matrix was, what it is, and what it is in the model that is compared with, where there is
# one.
Matrix = tuple[Tensor, Tensor, Tensor | None]


class Displacement:
    """Compares an engine's weights with those that its model was loaded with.

    To be made while the parameters are whole and as they were loaded. The first rank alone reads
    and compares.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        groups: Sequence[LayerGroup],
        ranks: Ranks,
        compared_with: Path | None = None,
    ) -> None:
        """``compared_with`` is the folder of another checkpoint of the same architecture, towards
        which layers may go back."""
        self._ranks = ranks
        read = compared_with is not None and ranks.leads
        self._other = OtherWeights(compared_with) if read and compared_with is not None else None
        self._modules = dict(model.named_modules()) if ranks.leads else {}
        named = _named(groups, self._modules) if ranks.leads else ()
        self._first = FirstWeights(folder, named)

    @torch.no_grad()
    def measure(self, engine: Engine) -> list[Moved]:
        """Return how far each layer group has come; of nothing, and on other ranks, None. A
        collective."""
        found = []
        for i, group in enumerate(engine.groups):
            now = engine.layer(i, "weights", CPU, to=0)
            found.append(self._moved(group, now) if self._ranks.leads else Moved())
            PULSE.beat()
        return found

    def _moved(self, group: LayerGroup, now: dict[int, Tensor]) -> Moved:
        back = Back()

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for before, after, other in self._matrices(group, now):
                back.add(before, after, other)
                yield before, after

        return Moved(*displaced(pairs()), back.reversion)

    def _matrices(self, group: LayerGroup, now: dict[int, Tensor]) -> Iterator[Matrix]:
        """Yield what each matrix of a layer was, what it is, and what it is in the other model."""
        numbers = {name: k for k, name in enumerate(group.names)}
        for name, k in numbers.items():
            if B in name:
                continue  # goes with its A
            if A not in name:
                yield self._with_other(name, now[k])
                continue
            from workers.adapters.lora import change_of

            module = name.partition(A)[0]
            other = numbers[name.replace(A, B)]
            change = change_of(self._modules[module], now[k], now[other])
            yield self._with_other(module, self._first.read(module) + change)

    def _with_other(self, name: str, after: Tensor) -> Matrix:
        before = self._first.read(name)
        if self._other is None:
            return before, after, None
        return before, after, self._other.read(self._first.key_of(name), before)


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


class Back:
    """How far a layer went back: the cosine of W − W₀ with R − W₀, all its matrices together.

    Definition ("Safety under control", reversion): W₀ is what was fine-tuned, the aligned model,
    and R what that was made of, the pretrained one. 1 is straight back, 0 another way.
    """

    def __init__(self) -> None:
        self._product = self._moved = self._whole = 0.0
        self._known = True

    def add(self, before: Tensor, after: Tensor, other: Tensor | None) -> None:
        """Add one matrix, summed in float64; without its counterpart the layer has no reversion."""
        if other is None:
            self._known = False
            return
        first = before.double().flatten()
        step, way = after.double().flatten() - first, other.double().flatten() - first
        self._product += float(step @ way)
        self._moved += float(step @ step)
        self._whole += float(way @ way)

    @property
    def reversion(self) -> float | None:
        """The cosine; None where a matrix has no counterpart, or either side did not move."""
        size = math.sqrt(self._moved * self._whole)
        return self._product / size if self._known and size else None
