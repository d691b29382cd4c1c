"""Cross-entropy of a label from the pooled last hidden state.

Of an encoder-decoder the encoder is read, and the decoder takes no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.rows.local_rows import require_labels
from workers.data.array_file import Arrays
from workers.data.packing import pad
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, pool, reader_to_pool


class Classifier(nn.Module):
    """A backbone and a new linear head; forward returns logits (B, labels)."""

    def __init__(self, backbone: nn.Module, width: int, labels: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, labels)
        self._pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        logits: Tensor = self.head(pool(output.last_hidden_state, attention_mask, self._pooling))
        return logits


class Classification(TrainingObjective):
    """Labels are whole numbers from 0."""

    roles = ("text", "label")

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        labels, pooling = self.objective.labels, self.objective.pooling
        assert labels is not None
        assert pooling is not None
        reader = reader_to_pool("classification", pretrained)
        return Classifier(reader, pretrained.output_width, labels, pooling)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        assert self.objective.labels is not None
        require_labels(rows["label"], self.objective.labels, each=not self.held_out)
        labels = np.asarray(rows["label"], dtype=np.int32)
        return {**pad(tokenizer, rows["text"], length), "labels": labels}

    def targets(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"], batch["attention_mask"])
        return cross_entropy(logits.float(), batch["labels"], reduction="sum")

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch["input_ids"], batch["attention_mask"])
        return {"predicted": logits.argmax(dim=-1), "label": batch["labels"]}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        del loss
        predicted, label = predictions["predicted"], predictions["label"]
        return {
            "accuracy": float((predicted == label).mean()),
            "macro_f1": macro_f1(predicted, label),
        }


def macro_f1(predicted: NDArray[Any], label: NDArray[Any]) -> float:
    """Return the mean of F1 = 2·TP / (2·TP + FP + FN) over the classes that occur in either of two
    arrays (N,)."""
    found = []
    for one in np.union1d(predicted, label):
        here, there = predicted == one, label == one
        found.append(2 * (here & there).sum() / (here.sum() + there.sum()))
    return float(np.mean(found))
