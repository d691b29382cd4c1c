"""A worked example of an objective: the two sentences of a pair are drawn together."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import cosine_similarity

from sweeps.plugins import objective
from workers.data.packing import pad
from workers.objectives.contrastive import SentenceEncoder
from workers.objectives.objective import TrainingObjective, reader_to_pool


@objective("cosine_margin")
class CosineMargin(TrainingObjective):
    """max(0, margin − cos(anchor, positive)), meaned over pairs: there are no negatives."""

    roles = ("anchor", "positive")

    def __init__(
        self, spec, *, margin: float = 1.2, pooling: Literal["mean", "first", "last"] = "mean"
    ) -> None:
        super().__init__(spec)
        self.margin, self.pooling = margin, pooling

    def build_model(self, pretrained):
        return SentenceEncoder(reader_to_pool("cosine_margin", pretrained), self.pooling)

    def tokenise(self, tokenizer, rows, length):
        return {
            **pad(tokenizer, rows["anchor"], length, "anchor_"),
            **pad(tokenizer, rows["positive"], length, "positive_"),
        }

    def targets(self, batch):
        return len(batch["anchor_input_ids"])

    def loss_sum(self, model, batch):
        one, other = (
            model(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"])
            for side in ("anchor", "positive")
        )
        return torch.relu(self.margin - cosine_similarity(one, other)).sum()
