"""What an optimizer is here: names of what it keeps of a parameter, and one call on a slab.

A rule never sees layers, ranks, a ZeRO stage, a schedule or weight decay. It is given flat
stretches of weights with their gradients and what it keeps of them, and leaves the step it would
make. Controls, clipping, decay, checkpoints and memory follow. Writing a new optimizer is writing
one subclass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sweeps import spec
from workers.controls.layer_groups import BLOCK, EMBEDDING, HEAD

KINDS = (EMBEDDING, BLOCK, HEAD)
# Of a matrix of so many rows and columns a row of numbers is next to nothing.
LARGE = 4096
# What else there is of a parameter in memory and checkpoints.
TAKEN = ("weights", "step")


@dataclass
class Slab:
    """Some pieces of one layer, together at most a scratch full.

    ``weights`` and ``updates`` have one tensor a piece, views of the weights and of ``scratch``:
    flat (n,), or as the parameter is shaped for a rule of whole matrices. ``states`` has of each
    piece what the rule keeps of it, by name, shaped alike; ``steps`` the number of the step, from
    1, once a piece. ``kind`` is the layer's: embedding, block or head. ``units`` are the numbers of
    what a control scales as one, a piece each; ``decays`` are stretches (weights, updates) that
    weight decay moves.
    """

    kind: str
    pieces: list[tuple[int, int, int]]  # shard, first element, end
    weights: list[Tensor]
    updates: list[Tensor]
    states: list[dict[str, Tensor]]
    steps: list[Tensor]
    scratch: Tensor
    units: list[int]
    decays: tuple[list[Tensor], list[Tensor]]
    _columns: dict[str, list[Tensor]] = field(default_factory=dict)

    def state(self, name: str) -> list[Tensor]:
        """Return what is kept under a name of every piece."""
        if name not in self._columns:
            self._columns[name] = [held[name] for held in self.states]
        return self._columns[name]


class UpdateRule(ABC):
    """A rule that makes of a gradient, and of what it keeps, the update U of W ← W − U.

    ``states`` names what is kept of a parameter; each is float32, zero at first, and as large as
    the parameter, unless ``shapes`` says otherwise. ``whole_matrices`` says that pieces must be
    whole parameters in their own shape, which only the plain engine has.
    """

    states: tuple[str, ...] = ()
    whole_matrices = False

    def __init__(self, optimizer: spec.Optimizer) -> None:
        self.optimizer = optimizer

    @abstractmethod
    def update(self, slab: Slab, gradients: list[Tensor], rate: float) -> None:
        """Advance what is kept and leave −U in ``slab.updates``, which are zero; ``gradients`` have
        one tensor a piece and must stay as they are."""

    def update_divided(
        self, slab: Slab, gradients: list[Tensor], rate: float, divisor: Tensor
    ) -> None:
        """As ``update`` of the gradients over a number, which may be written in their place."""
        torch._foreach_div_(gradients, divisor)
        self.update(slab, gradients, rate)

    def shapes(self, shape: torch.Size, kind: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of what is kept of a parameter of a layer of some kind, by name."""
        del kind
        return dict.fromkeys(self.states, tuple(shape))

    def numbers_kept(self) -> int:
        """Return how many numbers are kept of each parameter of a large matrix, at the most."""
        shape = torch.Size((LARGE, LARGE))
        kept = [self.shapes(shape, kind).values() for kind in KINDS]
        return max(round(sum(map(math.prod, sizes)) / shape.numel()) for sizes in kept)

    def inconsistency(self) -> str | None:
        """Return what of ``states`` and ``shapes`` could not be kept, in words; None where all
        can."""
        names = self.states
        if not isinstance(names, tuple) or not all(isinstance(one, str) for one in names):
            return f'has states {names!r}: write a tuple of names, as ("momentum",)'
        for name in names:
            if not name.isidentifier() or name in TAKEN or names.count(name) > 1:
                return f"has a state {name!r}: give each a name of its own, none of {TAKEN}"
        for kind in KINDS:
            for shape in map(torch.Size, ((LARGE, LARGE // 2), (LARGE,))):
                found = self.shapes(shape, kind)
                if unknown := sorted(found.keys() - set(names)):
                    return f"has shapes of {unknown[0]!r}, which is none of its states"
                if not self.whole_matrices and found != dict.fromkeys(names, tuple(shape)):
                    return (
                        "has states of other shapes than parameters, which need whole ones:"
                        " inherit from MatrixRule"
                    )
        return None


class MatrixRule(UpdateRule):
    """A rule for parameters that are whole, one by one."""

    whole_matrices = True

    def update(self, slab: Slab, gradients: list[Tensor], rate: float) -> None:
        parts = zip(slab.weights, gradients, slab.states, slab.updates, strict=True)
        for (weight, gradient, state, update), step in zip(parts, slab.steps, strict=True):
            made = self.step_of(weight, gradient, state, rate, step)
            torch.neg(made, out=update)

    @abstractmethod
    def step_of(
        self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float, step: Tensor
    ) -> Tensor:
        """Advance the ``state`` of one parameter and return its U; ``weight`` and ``gradient`` have
        the parameter's shape and must stay as they are, ``step`` counts from 1."""


def root_mean_square(tensor: Tensor) -> Tensor:
    """Return √(Σx²/n), a scalar."""
    size: Tensor = tensor.norm() / math.sqrt(tensor.numel())
    return size
