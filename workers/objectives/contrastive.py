"""In-batch InfoNCE over sentence pairs (van den Oord et al. 2018, arXiv 1807.03748).

Of an encoder-decoder the encoder is read, and the decoder takes no part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from workers.data.array_file import Arrays
from workers.data.packing import pad
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, micro_batches, pool, reader_to_pool


class SentenceEncoder(nn.Module):
    """A backbone; forward returns one unit vector a sequence, (B, d)."""

    def __init__(self, backbone: nn.Module, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self._pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        return normalize(pool(output.last_hidden_state.float(), attention_mask, self._pooling))


class Contrastive(TrainingObjective):
    """Every other positive of the whole batch is a negative, whatever the micro-batch.

    With several micro-batches, or ranks, the gradient is cached at the embeddings (Gao et al. 2021,
    arXiv 2101.06983): embeddings of the whole batch without a graph, the loss's gradient on them,
    then each micro-batch again with that gradient pulled back.
    """

    roles = ("anchor", "positive")

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        pooling = self.objective.pooling
        assert pooling is not None
        return SentenceEncoder(reader_to_pool("contrastive", pretrained), pooling)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        return {
            **pad(tokenizer, rows["anchor"], length, "anchor_"),
            **pad(tokenizer, rows["positive"], length, "positive_"),
        }

    def targets(self, batch: Batch) -> int:
        return len(batch["anchor_input_ids"])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._info_nce(*_embed(model, batch))

    def _info_nce(self, anchors: Tensor, positives: Tensor) -> Tensor:
        assert self.objective.temperature is not None
        # Float32 in every precision: the cached gradient is computed outside of autocast.
        with torch.autocast(anchors.device.type, enabled=False):
            similarity = anchors @ positives.T / self.objective.temperature
        own = torch.arange(len(anchors), device=anchors.device)
        return cross_entropy(similarity.float(), own, reduction="sum")

    def accumulate(self, engine: Engine, batch: Batch, micro_batch_size: int) -> Tensor:
        if micro_batch_size >= self.targets(batch):
            return super().accumulate(engine, batch, micro_batch_size)
        mine = engine.share(batch)
        first = engine.rank * len(mine["anchor_input_ids"])
        parts = list(micro_batches(mine, micro_batch_size))
        embedded = []
        for k, part in enumerate(parts):
            with torch.no_grad(), engine.forward_precision(k):
                embedded.append(_embed(engine.model, part))
        anchors = engine.gather(torch.cat([pair[0] for pair in embedded])).requires_grad_()
        positives = engine.gather(torch.cat([pair[1] for pair in embedded])).requires_grad_()
        loss = self._info_nce(anchors, positives) / len(anchors)
        pulls = torch.autograd.grad(loss, [anchors, positives])
        for k, part in enumerate(parts):
            start = first + k * micro_batch_size
            rows = slice(start, start + micro_batch_size)
            with engine.forward_precision(k):
                pair = _embed(engine.model, part)
                surrogate = sum(
                    (vectors * pull[rows]).sum() for vectors, pull in zip(pair, pulls, strict=True)
                )
            assert isinstance(surrogate, Tensor)
            engine.backward(surrogate)
        return loss.detach()


def _embed(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    return (
        model(batch["anchor_input_ids"], batch["anchor_attention_mask"]),
        model(batch["positive_input_ids"], batch["positive_attention_mask"]),
    )
