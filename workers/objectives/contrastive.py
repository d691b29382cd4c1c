"""In-batch InfoNCE over sentence pairs (van den Oord et al. 2018, arXiv 1807.03748).

Of an encoder-decoder the encoder is read, and the decoder takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from workers.data.array_file import Arrays
from workers.data.packing import pad
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, micro_batches, pool, reader_to_pool

ROLES = ("anchor", "positive", "negative")


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
    """Every other positive of the whole batch, and every row's ``negative`` where rows have one, is
    a negative, whatever the micro-batch; with ``mask_duplicates``, but for what is as good as the
    anchor's own positive.

    With several micro-batches, or ranks, the gradient is cached at the embeddings (Gao et al. 2021,
    arXiv 2101.06983): embeddings of the whole batch without a graph, the loss's gradient on them,
    then each micro-batch again with that gradient pulled back.
    """

    compares_examples = True

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        pooling = self.objective.pooling
        assert pooling is not None
        return SentenceEncoder(reader_to_pool("contrastive", pretrained), pooling)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        arrays: Arrays = {}
        for role in self.roles:
            arrays |= pad(tokenizer, rows[role], length, f"{role}_")
        if self.objective.mask_duplicates:
            arrays["texts"] = _numbered([arrays[f"{role}_input_ids"] for role in self.roles])
        return arrays

    def targets(self, batch: Batch) -> int:
        return len(batch["anchor_input_ids"])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._info_nce(*_embed(model, batch), texts=batch.get("texts"))

    def _info_nce(
        self, anchors: Tensor, *candidates: Tensor, texts: Tensor | None = None
    ) -> Tensor:
        """Return the loss of anchors (B, d) among positives and negatives, each (B, d)."""
        similarity = self._similarity(anchors, *candidates, texts=texts)
        own = torch.arange(len(anchors), device=anchors.device)
        return cross_entropy(similarity, own, reduction="sum")

    def _similarity(
        self, anchors: Tensor, *candidates: Tensor, texts: Tensor | None = None
    ) -> Tensor:
        """Return how alike anchors (B, d) and candidates are, over the temperature, in float32,
        (B, B·candidates); the numbers of their texts, (B, 1 + candidates), say which candidates are
        no negatives: −inf."""
        assert self.objective.temperature is not None
        # Float32 in every precision: the cached gradient is computed outside of autocast.
        with torch.autocast(anchors.device.type, enabled=False):
            similarity = anchors @ torch.cat(candidates).T / self.objective.temperature
        if texts is not None:
            alike = _alike(texts).to(anchors.device)
            similarity = similarity.masked_fill(alike, float("-inf"))
        return similarity.float()

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
        gathered = [
            engine.gather(torch.cat(vectors)).requires_grad_()
            for vectors in zip(*embedded, strict=True)
        ]
        loss = self._info_nce(*gathered, texts=batch.get("texts")) / len(gathered[0])
        pulls = torch.autograd.grad(loss, gathered)
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

    def evaluated(
        self, model: nn.Module, parts: Sequence[Batch]
    ) -> tuple[float, list[dict[str, Tensor]]]:
        embedded = zip(*(_embed(model, part) for part in parts), strict=True)
        vectors = [torch.cat(side) for side in embedded]
        texts = torch.cat([part["texts"] for part in parts]) if "texts" in parts[0] else None
        similarity = self._similarity(*vectors, texts=texts)
        own = torch.arange(len(similarity), device=similarity.device)
        loss = cross_entropy(similarity, own, reduction="sum")
        return float(loss), [{"hit": similarity.argmax(dim=1) == own}]

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        del loss
        return {"recall_at_1": float(predictions["hit"].mean())}


def _embed(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Return the vectors, (B, d) each, of anchors, positives and, where there are, negatives."""
    return [
        model(batch[f"{role}_input_ids"], batch[f"{role}_attention_mask"])
        for role in ROLES
        if f"{role}_input_ids" in batch
    ]


def _numbered(sides: list[NDArray[Any]]) -> NDArray[np.int32]:
    """Return a number for each text, (N, sides), the same for those of the same tokens (N, T)."""
    _, numbers = np.unique(np.concatenate(sides), axis=0, return_inverse=True)
    return numbers.reshape(len(sides), -1).T.astype(np.int32)


def _alike(texts: Tensor) -> Tensor:
    """Return which candidates, (B, B·(sides − 1)), are as good as the anchor's own positive, which
    is never among them: the same text, or the positive of the same anchor."""
    anchors, positives = texts[:, 0], texts[:, 1]
    columns = [positives[:, None] == side[None] for side in texts[:, 1:].T]
    columns[0] = columns[0] | (anchors[:, None] == anchors[None])
    columns[0].fill_diagonal_(False)
    return torch.cat(columns, dim=1)
