"""What a text, or a pair of texts, is: a class, several labels, from the pooled last hidden state.

Of an encoder-decoder the encoder is read, and the decoder takes no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from workers.data.array_file import Arrays
from workers.data.packing import pad
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, macro_f1, pool, reader_to_pool


class Classifier(nn.Module):
    """A backbone and a new linear head; forward returns logits (B, labels)."""

    def __init__(self, backbone: nn.Module, width: int, labels: int, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, labels)
        self._pooling = pooling
        # What a tokenizer numbers the texts of a pair with is not for every model to read.
        types = getattr(getattr(backbone, "config", None), "type_vocab_size", 0)
        self._has_types = (types or 0) > 1

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **(types if self._has_types else {}),
        )
        logits: Tensor = self.head(pool(output.last_hidden_state, attention_mask, self._pooling))
        return logits


class OfATextOrAPair(TrainingObjective):
    """Something that a text, or a pair of texts, has: ``outputs`` numbers are predicted of it."""

    reads_together = True

    def outputs(self) -> int:
        """Return how many numbers are predicted."""
        assert self.objective.labels is not None
        return self.objective.labels

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        assert self.objective.pooling is not None
        reader = reader_to_pool(self.objective.kind, pretrained)
        width = pretrained.output_width
        return Classifier(reader, width, self.outputs(), self.objective.pooling)

    def texts(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        """Return the arrays of what is read."""
        return pad(tokenizer, rows["text"], length, pairs=rows.get("text_pair"))

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the model predicts, (B, outputs), in float32."""
        types = batch.get("token_type_ids")
        logits: Tensor = model(batch["input_ids"], batch["attention_mask"], types)
        return logits.float()


class Classification(OfATextOrAPair):
    """Cross-entropy of a label, a whole number from 0."""

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        labels = np.asarray(rows["label"], dtype=np.int32)
        return {**self.texts(tokenizer, rows, length), "labels": labels}

    def targets(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(self.logits(model, batch), batch["labels"], reduction="sum")

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(self.logits(model, batch), batch["labels"], reduction="none")

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        predicted = self.logits(model, batch).argmax(dim=-1)
        return {"predicted": predicted, "label": batch["labels"]}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return the share of right labels, and the mean F1 of the labels that occur in either."""
        del loss
        predicted, label = predictions["predicted"], predictions["label"]
        classes = np.union1d(predicted, label)
        one_hot = (of[:, None] == classes for of in (predicted, label))
        return {"accuracy": float(np.mean(predicted == label)), "macro_f1": macro_f1(*one_hot)}


class MultiLabel(OfATextOrAPair):
    """Binary cross-entropy of each label, whether it applies."""

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        indicators = np.zeros((len(rows["labels"]), self.outputs()), dtype=np.int32)
        for row, labels in enumerate(rows["labels"]):
            indicators[row, labels] = 1
        return {**self.texts(tokenizer, rows, length), "indicators": indicators}

    def targets(self, batch: Batch) -> int:
        return batch["indicators"].numel()

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        wanted = batch["indicators"].float()
        return binary_cross_entropy_with_logits(self.logits(model, batch), wanted, reduction="sum")

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, wanted = self.logits(model, batch), batch["indicators"].float()
        return binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=1)

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"predicted": self.logits(model, batch) > 0, "wanted": batch["indicators"] > 0}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return F1 over all labels of all examples, and the mean of each label's own."""
        del loss
        predicted, wanted = predictions["predicted"] > 0, predictions["wanted"] > 0
        micro = macro_f1(predicted.reshape(-1, 1), wanted.reshape(-1, 1))
        return {"micro_f1": micro, "macro_f1": macro_f1(predicted, wanted)}
