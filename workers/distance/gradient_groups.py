"""The mean gradients of groups of batches, block by block, as sketches that grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sweeps.spec import RunSpec, content_id
from workers.data.array_file import Arrays, examples_of
from workers.depth.stacks import own_parameters
from workers.distance.distance_estimate import RELIABLE, Products, reliability
from workers.distance.gradient_sketch import BlockSketch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, micro_batches
from workers.progress import PULSE

# Of all groups together.
MOST_BATCHES = 256


class GradientGroups:
    """The gradients of one objective on the examples of some groups, which share none.

    The batches of a group walk through one permutation of its examples, and end where it ends: no
    example is read twice. Each group has a batch at least.
    """

    def __init__(
        self,
        name: str,
        objective: TrainingObjective,
        arrays: Sequence[Arrays],
        run: RunSpec,
        pretrained: PretrainedModel,
        device: torch.device,
    ) -> None:
        """``arrays`` are those of each group; ``name`` keeps the random numbers of two objectives
        apart, such as which tokens are masked; new parameters come from the seed of ``run``."""
        self._objective, self._arrays, self._run = objective, arrays, run
        self._pretrained, self._device = pretrained, device
        self._seeds = [
            int(content_id([run.seed, name, group], 7), 16) for group in range(len(arrays))
        ]
        self._sketches = [
            BlockSketch(parameters, seed=number)
            for number, parameters in enumerate(own_parameters(pretrained.stacks))
        ]
        self._available = min(examples_of(each) for each in arrays) // run.batch_size
        self._most = min(self._available, max(1, MOST_BATCHES // len(arrays)))
        self._sums: list[list[Tensor]] = []
        self._a_group = 0
        self._reliability = 0.0

    @property
    def batches(self) -> int:
        """How many have been read."""
        return self._a_group * len(self._arrays)

    @property
    def known(self) -> bool:
        """Whether halves of the batches agree well enough, or no more may be read."""
        return self._a_group > 0 and (self._reliable or self._a_group >= self._most)

    @property
    def text_ended(self) -> bool:
        """Whether the text ended before the gradient was known well enough."""
        return not self._reliable and self._a_group >= self._available

    @property
    def _reliable(self) -> bool:
        return self._reliability >= RELIABLE

    def grow(self) -> Iterator[None]:
        """Double the batches of every group, as far as there are any; yield after each one."""
        target = min(max(1, 2 * self._a_group), self._most)
        torch.manual_seed(self._run.seed)
        model = self._objective.build_model(self._pretrained).to(self._device)
        model.eval()
        for group in range(len(self._arrays)):
            model.zero_grad()
            for k in range(self._a_group, target):
                self._add_gradient(model, group, k + 1)
                yield
            added = [sketch.of_gradients() for sketch in self._sketches]
            if len(self._sums) <= group:
                self._sums.append(added)
            else:
                for total, more in zip(self._sums[group], added, strict=True):
                    total += more
        model.zero_grad()
        self._a_group = target
        vectors = self.means()
        self._reliability = reliability(Products.of(vectors, vectors).aa)

    def means(self) -> list[list[Tensor]]:
        """Return the mean gradient of each group and block, as sketches."""
        return [[total / self._a_group for total in group] for group in self._sums]

    def _add_gradient(self, model: nn.Module, group: int, step: int) -> None:
        """Add the gradient of a batch's mean loss.

        It is cut into micro-batches where its loss is a sum over examples: one that compares them
        with each other, as a contrastive loss does, has its own way to accumulate.
        """
        seeded = self._run.model_copy(update={"seed": self._seeds[group]})
        batch = self._objective.batch(self._arrays[group], seeded, step)
        targets = max(1, self._objective.targets(batch))
        apart = type(self._objective).accumulate is TrainingObjective.accumulate
        size = self._run.micro_batch_size if apart else self._run.batch_size
        for part in micro_batches(batch, size):
            here = {name: tensor.to(self._device) for name, tensor in part.items()}
            loss = self._objective.loss_sum(model, here) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            PULSE.beat()
