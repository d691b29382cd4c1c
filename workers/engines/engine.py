"""What a run's engine is: it holds the model, its optimizer and, of each layer, this rank's part.

The engine is no part of a run's identity, so nothing here may be visible in a result beyond
rounding. Defaults are those of one process that holds everything.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from workers.controls.layer_groups import LayerGroup
from workers.engines.layer_optimizer import LayerOptimizer
from workers.engines.layer_step import LayerStep
from workers.updates.shards import Gather, Shard, assemble, fill

Batch = dict[str, Tensor]
WEIGHTS = "weights"


class Engine(ABC):
    """A model under training by one rank of ``ranks``."""

    rank = 0
    ranks = 1

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[LayerGroup],
        optimizer: LayerOptimizer,
        precision: str,
    ) -> None:
        self.model = model
        self.groups = tuple(groups)
        self.optimizer = optimizer
        self._bf16 = precision == "bf16"
        self._dropout: tuple[int, int] | None = None
        self._shapes = [tuple(p.shape for p in group.parameters) for group in groups]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are computed."""

    @property
    def measured_model(self) -> nn.Module:
        """The model for a pass whose gradients are looked at, and added to none: nothing is done
        for a step."""
        return self.model

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a share of the batch's mean loss."""

    @abstractmethod
    def step(self, learning_rate: float, record: bool = True) -> LayerStep | None:
        """Apply the accumulated gradient under the control, and clear it.

        Returns what it did to each layer. Without ``record`` only what the step itself needs is
        measured, the weights are the same, and it returns None, unless the step was not taken.
        """

    def measure(self) -> LayerStep:
        """Return the norms of the accumulated gradient and of the weights, and clear the gradient;
        nothing moves."""
        with self.optimizer.measuring():
            measured = self.step(0.0)
        assert measured is not None
        return measured

    def draw_dropout(self, seed: int, step: int) -> None:
        """Have the forward passes that follow draw their dropout for a step of a run of a seed; by
        default there is none to draw."""
        self._dropout = (seed, step)

    def forward_precision(self, micro_batch: int | None = None) -> AbstractContextManager[object]:
        """Return the context in which losses are computed: with bf16, products under autocast.

        Dropout in it is that of a ``micro_batch`` of the step, by its number on this rank: another
        pass of the same draws the same.
        """
        if self._dropout is not None and micro_batch is not None:
            words = json.dumps([*self._dropout, micro_batch, self.rank]).encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(words).digest()[:7], "big"))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    # ------------------------------------------------------------------------------------- ranks
    def share(self, batch: Batch) -> Batch:
        """Return this rank's rows of a batch, on the device."""
        rows = len(next(iter(batch.values()))) // self.ranks
        mine = slice(self.rank * rows, (self.rank + 1) * rows)
        return {name: tensor[mine].to(self.device) for name, tensor in batch.items()}

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks in rank order, (R·n, …); a collective."""
        return self.all_gather(rows).flatten(0, 1)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks; a collective."""
        return self.all_gather(value).sum(dim=0)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all ranks, (R, …), where this one is; a collective."""
        return tensor[None]

    def gather_to(self, rank: int, tensor: Tensor) -> Tensor | None:
        """Return the tensors of all ranks, (R, …), on one of them, None on the others; a
        collective."""
        return tensor[None] if rank == self.rank else None

    def spread(self, tensor: Tensor, source: int) -> Tensor:
        """Return a rank's tensor on every rank, where ``tensor`` has its shape; a collective."""
        del source
        return tensor

    # ------------------------------------------------------------------------------------ layers
    @property
    def sizes(self) -> list[int]:
        """Elements of each group."""
        return [sum(shape.numel() for shape in shapes) for shapes in self._shapes]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of what there is of a parameter: its float32 ``weights``, and what the optimizer's
        rule keeps of it, which is all of a run's state but the step."""
        return (WEIGHTS, *self.optimizer.rule.states)

    def held(self, i: int, name: str) -> list[int]:
        """Return the numbers of the parameters of group ``i`` of which there is a tensor."""
        if not self._apart(name):
            return list(range(len(self._shapes[i])))
        shards = self.optimizer.layers[i]
        return [k for k, s in _by_parameter(shards) if self.optimizer.tensor(s, name) is not None]

    def _apart(self, name: str) -> bool:
        """Return whether a tensor is kept by parameter, in a shape of its own."""
        return name != WEIGHTS and self.optimizer.rule.whole_matrices

    def layer(
        self,
        i: int,
        name: str,
        device: torch.device,
        wanted: Collection[int] | None = None,
        to: int | None = None,
    ) -> dict[int, Tensor]:
        """Return copies of one tensor of the ``wanted`` parameters (all) of group ``i``, whole, of
        those that have it.

        They are float32; keys are the parameters' numbers in the group. With ``to`` that rank alone
        gets them. A collective.
        """
        shards = self.optimizer.layers[i]
        tensors = [self.optimizer.tensor(shard, name) for shard in shards]
        if self._apart(name):
            found = zip(_by_parameter(shards), tensors, strict=True)
            kept = {k: tensor for (k, _), tensor in found if tensor is not None}
            return {
                k: tensor.to(device, copy=True)
                for k, tensor in sorted(kept.items())
                if wanted is None or k in wanted
            }
        if wanted is None:
            wanted = range(len(self._shapes[i]))
        gather: Gather = self.all_gather if to is None else partial(self.gather_to, to)
        mine = wanted if to in (None, self.rank) else ()
        return assemble(shards, _all(tensors), self._shapes[i], device, gather, mine)

    @torch.no_grad()
    def set_layer(
        self, i: int, name: str, full: Sequence[Tensor] | None, source: int | None = None
    ) -> None:
        """Write this rank's part of group ``i`` from whole tensors, those of the parameters that
        are ``held`` under the name; then call ``publish``.

        With ``source`` that rank alone has them, and gives them to all one by one: a collective.
        """
        shards = self.optimizer.layers[i]
        tensors = [self.optimizer.tensor(shard, name) for shard in shards]
        if self._apart(name):
            assert full is not None
            kept = {k: t for (k, _), t in zip(_by_parameter(shards), tensors, strict=True)}
            for k, one in zip(self.held(i, name), full, strict=True):
                held = kept[k]
                assert held is not None
                held.copy_(one)
            return
        for k, shape in enumerate(self._shapes[i]):
            one = full[k] if full is not None else torch.empty(shape)
            if source is not None:
                one = self.spread(one, source)
            fill(shards, _all(tensors), {k: one}, self.rank)

    def publish(self) -> None:
        """Make the model compute with weights written by ``set_layer``; a collective."""
        return

    def in_float32(self, backbone: nn.Module) -> nn.Module:
        """Return a module that computes as the model's ``backbone`` does, from float32 weights.

        Where ranks share the layers, a forward of it is a collective.
        """
        return backbone


def _by_parameter(shards: Sequence[Shard]) -> list[tuple[int, Shard]]:
    """Return the number of the parameter that each shard is, where it is one alone."""
    return [(shard.pieces[0][0].parameter, shard) for shard in shards]


def _all(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]
