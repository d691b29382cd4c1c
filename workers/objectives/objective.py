"""What an objective is: rows to tensors, a batch to a loss, over a model of its own shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.errors import Impossible
from sweeps.spec import Objective, RunSpec
from workers.data.array_file import Arrays, highest_token
from workers.data.datasets import batch_indices
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.progress import PULSE


class TrainingObjective(ABC):
    """One kind of objective.

    A loss is a sum over targets divided by the targets of the whole batch, so that a batch gives
    the same gradient however it is cut into micro-batches.
    """

    roles: tuple[str, ...]
    needs_head = False

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        """Return the module to train; new parameters come from torch's global generator."""

    @abstractmethod
    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        """Return arrays whose first axis is the example."""

    def highest_token(self, arrays: Arrays) -> int:
        """Return the largest token id that a batch of the arrays can hold."""
        return highest_token(arrays)

    @abstractmethod
    def targets(self, batch: Batch) -> int:
        """Return how many terms the batch's loss is a mean of."""

    @abstractmethod
    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of the terms, a scalar."""

    def batch(self, arrays: Arrays, run: RunSpec, step: int) -> Batch:
        """Return the batch of a step: a pure function of (run, step)."""
        examples = len(next(iter(arrays.values())))
        chosen = batch_indices(run.seed, step, run.batch_size, examples)
        return _trimmed({name: torch.from_numpy(a[chosen]).long() for name, a in arrays.items()})

    def accumulate(self, engine: Engine, batch: Batch, micro_batch_size: int) -> Tensor:
        """Add the gradient of the batch's mean loss to the parameters; return it, detached."""
        targets = max(1, self.targets(batch))
        total = torch.zeros((), device=engine.device)
        for k, part in enumerate(micro_batches(engine.share(batch), micro_batch_size)):
            with engine.forward_precision(k):
                loss = self.loss_sum(engine.model, part) / targets
            engine.backward(loss)
            total += loss.detach()
            PULSE.beat()
        return engine.total(total)


def micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch along the examples."""
    rows = len(next(iter(batch.values())))
    for start in range(0, rows, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def few_of(batch: Batch) -> Batch:
    """Return enough of a batch to see in which order a model's modules run."""
    return {
        name: tensor[:2, :16] if tensor.dim() > 1 else tensor[:2] for name, tensor in batch.items()
    }


def _trimmed(batch: Batch) -> Batch:
    """Cut the columns that are padding in every row of the batch."""
    for name in [name for name in batch if name.endswith("attention_mask")]:
        longest = int(batch[name].sum(dim=1).max())
        tokens = name.replace("attention_mask", "input_ids")
        batch[name], batch[tokens] = batch[name][:, :longest], batch[tokens][:, :longest]
    return batch


def reader_to_pool(name: str, pretrained: PretrainedModel) -> nn.Module:
    """Return the part of a model whose last hidden states an objective pools.

    Raises Impossible, with the objective's name, where the model has none.
    """
    if not pretrained.output_width:
        raise Impossible(
            f"{type(pretrained.language_model).__name__} has no part that ends in hidden states,"
            f" which objective {name} pools; use its pretraining objective"
        )
    return pretrained.reader


def pool(states: Tensor, mask: Tensor, how: str) -> Tensor:
    """Return a vector a sequence, (B, d), of states (B, T, d) under a right-padded mask (B, T)."""
    if how == "first":
        return states[:, 0]
    if how == "last":
        last = mask.sum(dim=1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
