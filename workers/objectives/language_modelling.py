"""The pretraining objectives: next token (clm) and masked token (mlm), on packed text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.errors import UserError
from workers.data.array_file import Arrays
from workers.data.packing import pack
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import IGNORED, TrainingObjective, token_losses


class LanguageModel(nn.Module):
    """A pretrained model with its own head; forward returns logits (B, T, vocabulary)."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, input_ids: Tensor, **others: Tensor) -> Tensor:
        """``others`` are an attention mask, or position ids that begin anew with each example."""
        logits: Tensor = self.language_model(input_ids=input_ids, **others).logits
        return logits


class CausalLanguageModelling(TrainingObjective):
    """Cross-entropy of each token given those before it."""

    packed = True
    needs_head = True
    framed = False
    reads_together = True

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        return LanguageModel(pretrained.language_model)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        bos = self.objective.bos
        return pack(tokenizer, rows["text"], length, framed=self.framed, bos=bos)

    def targets(self, batch: Batch) -> int:
        rows, length = batch["input_ids"].shape
        return int(rows * (length - 1))

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"])[:, :-1]
        return _cross_entropy_sum(logits, batch["input_ids"][:, 1:])

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"])[:, :-1]
        return token_losses(logits, batch["input_ids"][:, 1:])

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        del predictions
        return {"perplexity": float(np.exp(loss))}


class MaskedLanguageModelling(CausalLanguageModelling):
    """Cross-entropy at masked positions: 80 % mask token, 10 % random token, 10 % unchanged."""

    framed = True

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        arrays = super().tokenise(tokenizer, rows, length)
        if tokenizer.mask_token_id is None:
            raise UserError("the tokenizer has no mask token, which objective mlm predicts at")
        special = np.asarray(sorted(tokenizer.all_special_ids), dtype=np.int32)
        about = np.asarray([tokenizer.mask_token_id, len(tokenizer)], dtype=np.int32)
        return {**arrays, "special_ids": special, "mask_and_vocabulary": about}

    def highest_token(self, arrays: Arrays) -> int:
        """Return the largest token id: any of the vocabulary may stand in for a masked token."""
        mask_token, vocabulary = arrays["mask_and_vocabulary"]
        return max(super().highest_token(arrays), int(mask_token), int(vocabulary) - 1)

    def batch_of(self, arrays: Arrays, chosen: NDArray[Any], draw: Sequence[int]) -> Batch:
        batch = super().batch_of({"input_ids": arrays["input_ids"]}, chosen, draw)
        generator = np.random.default_rng([*draw, 1])
        ids = batch["input_ids"].numpy()
        mask_token, vocabulary = arrays["mask_and_vocabulary"]
        ordinary = ~np.isin(ids, arrays["special_ids"])
        probability = self.objective.mask_probability
        assert probability is not None
        masked = ordinary & (generator.random(ids.shape) < probability)
        if not masked.any():
            masked[0, np.flatnonzero(ordinary[0])[:1]] = True
        fate = generator.random(ids.shape)
        shown = np.where(masked & (fate < 0.8), mask_token, ids)
        random_ids = generator.integers(0, vocabulary, ids.shape)
        shown = np.where(masked & (fate >= 0.9), random_ids, shown)
        labels = np.where(masked, ids, IGNORED)
        return {"input_ids": torch.from_numpy(shown), "labels": torch.from_numpy(labels)}

    def targets(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return _cross_entropy_sum(model(batch["input_ids"]), batch["labels"])

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return token_losses(model(batch["input_ids"]), batch["labels"])

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        # Of masked tokens alone: no perplexity of a text.
        del predictions, loss
        return {}


def _cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
