"""What an objective is: rows to tensors, a batch to a loss, over a model of its own shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.errors import Impossible
from sweeps.spec import Objective, RunSpec
from workers.data.array_file import Arrays, examples_of, highest_token
from workers.data.datasets import batch_indices
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.progress import PULSE

# What the last words of a name say: arrays with a number for each token of a sequence.
OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "labels")
# The number of a token that is no target.
IGNORED = -100


class TrainingObjective(ABC):
    """One kind of objective.

    A loss is a sum over targets divided by the targets of the whole batch, so that a batch gives
    the same gradient however it is cut into micro-batches.
    """

    needs_head = False
    # Whether the rows of its arrays are cut from text as it comes, and are no rows of the data.
    packed = False
    # Whether a term of the loss depends on the other examples of the batch.
    compares_examples = False
    # Whether ``losses`` reads the examples of a batch together; else it is given one at a time.
    reads_together = False

    def __init__(self, objective: Objective, *, held_out: bool = False) -> None:
        """``held_out``: its data is not trained on, and need not have every label."""
        self.objective = objective
        self.held_out = held_out

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the columns that are read."""
        return self.objective.roles

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

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of each example's terms, (B,), and take it as the only one that there is
        unless ``reads_together``."""
        return self.loss_sum(model, batch)[None]

    def terms(self, batch: Batch) -> Tensor:
        """Return how many terms each example has, (B,) whole numbers; their sum is ``targets``."""
        return torch.tensor([self.targets(part) for part in micro_batches(batch, 1)])

    def lengths(self, batch: Batch) -> Tensor:
        """Return of how many tokens each example's answer is, (B,); its texts, where none is."""
        masks = [tensor for name, tensor in batch.items() if name.endswith("attention_mask")]
        if masks:
            return torch.stack([mask.sum(dim=1) for mask in masks]).sum(dim=0)
        tokens = next(tensor for name, tensor in batch.items() if name.endswith("input_ids"))
        return torch.full((len(tokens),), tokens.shape[1])

    def batch(self, arrays: Arrays, run: RunSpec, step: int) -> Batch:
        """Return the batch of a step: a pure function of (run, step)."""
        chosen = batch_indices(run.seed, step, run.batch_size, examples_of(arrays))
        return self.batch_of(arrays, chosen, (run.seed, step))

    def batch_of(self, arrays: Arrays, chosen: NDArray[Any], draw: Sequence[int]) -> Batch:
        """Return the batch of the examples ``chosen``; ``draw`` seeds whatever is random in it."""
        del draw
        return _trimmed({name: _tensor(a[chosen]) for name, a in arrays.items()})

    def chosen_of(self, batch: Batch, chosen: NDArray[np.int64]) -> Batch:
        """Return the batch of some examples of another, as random things in it were drawn."""
        numbers = torch.from_numpy(chosen)
        part = {name: tensor[numbers] for name, tensor in batch.items()}
        # What makes batches of its own knows alone what of them is padding.
        own = type(self).batch_of is not TrainingObjective.batch_of
        return part if own else _trimmed(part)

    def completed(
        self,
        arrays: Arrays,
        engine: Engine,
        run: RunSpec,
        pretrained: PretrainedModel,
        cache: Path,
        chosen: NDArray[np.int64] | None = None,
    ) -> Arrays:
        """Return arrays with what the model, before training, has to say of the examples that
        ``chosen`` numbers, or that the run's steps will read; as they are, for most objectives.

        A collective, before any checkpoint is loaded into ``engine``.
        """
        del engine, run, pretrained, cache, chosen
        return arrays

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

    # -------------------------------------------------------------------------------- evaluation
    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return what ``scores`` needs of a batch; the first axis of each is what is scored."""
        del model, batch
        return {}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return the scores by name from the predictions of all batches and their mean loss."""
        del predictions, loss
        return {}

    def evaluated(
        self, model: nn.Module, parts: Sequence[Batch]
    ) -> tuple[float, list[dict[str, Tensor]]]:
        """Return the sum of the loss's terms over a batch in ``parts``, and their predictions."""
        total, found = 0.0, []
        for part in parts:
            total += float(self.loss_sum(model, part))
            found.append(self.predictions(model, part))
            PULSE.beat()
        return total, found


def micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch along the examples."""
    rows = len(next(iter(batch.values())))
    for start in range(0, rows, size):
        yield {name: tensor[start : start + size] for name, tensor in batch.items()}


def few_of(batch: Batch) -> Batch:
    """Return enough of a batch to see in which order a model's modules run."""
    return {
        name: tensor[:2, :16] if tensor.dim() > 1 and name.endswith(OF_TOKENS) else tensor[:2]
        for name, tensor in batch.items()
    }


def _tensor(rows: NDArray[Any]) -> Tensor:
    """Return rows of an array as a batch has them: whole numbers long, others as they are."""
    tensor = torch.from_numpy(np.ascontiguousarray(rows))
    return tensor if tensor.is_floating_point() else tensor.long()


def _trimmed(batch: Batch) -> Batch:
    """Cut the columns that are padding in every row of the batch."""
    for mask in [name for name in batch if name.endswith("attention_mask")]:
        longest = int(batch[mask].sum(dim=1).max())
        prefix = mask.removesuffix("attention_mask")
        for name in (prefix + kind for kind in OF_TOKENS):
            if name in batch and batch[name].dim() > 1:
                batch[name] = batch[name][:, :longest]
    return batch


def macro_f1(predicted: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return the mean F1 of the columns of two arrays of booleans (N, L); that of a column which
    neither has is 0, as scikit-learn's with ``zero_division=0``."""
    both = (predicted & wanted).sum(axis=0)
    either = predicted.sum(axis=0) + wanted.sum(axis=0)
    return float(np.mean(2 * both / np.maximum(1, either)))


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the cross-entropies of each row's tokens, (B,), of logits (B, T, V) and
    labels (B, T), of which IGNORED are none."""
    each = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.view(labels.shape).sum(dim=1)


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
