"""A label for each word, predicted at the first of its tokens."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.errors import Impossible, UserError
from workers.data.array_file import Arrays
from workers.data.packing import padded
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import (
    IGNORED,
    TrainingObjective,
    reader_to_pool,
    token_losses,
)
from workers.progress import PREPARATION

Span = tuple[int, int, str]


class TokenClassifier(nn.Module):
    """A backbone and a new linear head; forward returns logits (B, T, labels)."""

    def __init__(self, backbone: nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        logits: Tensor = self.head(output.last_hidden_state)
        return logits


class TokenClassification(TrainingObjective):
    """Cross-entropy of each word's label."""

    reads_together = True

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        assert self.objective.labels is not None
        reader = reader_to_pool(self.objective.kind, pretrained)
        return TokenClassifier(reader, pretrained.output_width, self.objective.labels)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        if not tokenizer.is_fast:
            raise Impossible(
                "the tokenizer does not say which word a token is of, which objective"
                " token_classification asks; give a model with a fast one (tokenizer.json)"
            )
        count = len(rows["tokens"])
        labels = np.full((count, length), IGNORED, dtype=np.int32)
        encoded = []
        both = zip(rows["tokens"], rows["labels"], strict=True)
        for row, (words, tags) in enumerate(PREPARATION.counted(both, "tokenising", "rows")):
            ids, firsts = _first_tokens(tokenizer, words, length)
            encoded.append(ids)
            for place, tag in zip(firsts, tags, strict=True):
                if place is not None:
                    labels[row, place] = tag
        if not (labels != IGNORED).any():
            raise UserError("no word of the dataset has a token; is it the right column?")
        return {**padded(tokenizer, [encoded], count, length), "labels": labels}

    def targets(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"], batch["attention_mask"])
        return cross_entropy(
            logits.float().flatten(0, 1),
            batch["labels"].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return token_losses(model(batch["input_ids"], batch["attention_mask"]), batch["labels"])

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return of each word, in order, what is predicted and wanted, and whether it is the first
        of its example."""
        logits = model(batch["input_ids"], batch["attention_mask"])
        there = batch["labels"] != IGNORED
        first = there & (there.cumsum(dim=1) == 1)
        return {
            "predicted": logits.argmax(-1)[there],
            "wanted": batch["labels"][there],
            "first": first[there],
        }

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return the share of words with their label and, where labels are called as in BIO, F1 of
        whole spans."""
        del loss
        predicted, wanted = predictions["predicted"], predictions["wanted"]
        found = {"accuracy": float(np.mean(predicted == wanted))}
        names = self.objective.label_names
        if names and all(name == "O" or name[:2] in ("B-", "I-") for name in names):
            starts = np.flatnonzero(predictions["first"])
            texts = [
                [[names[int(number)] for number in part] for part in np.split(numbers, starts[1:])]
                for numbers in (predicted, wanted)
            ]
            found["span_f1"] = span_f1(*texts)
        return found


def _first_tokens(
    tokenizer: Any, words: list[str], length: int
) -> tuple[list[int], list[int | None]]:
    """Return the tokens of words with a space between, cut to ``length``, and the place of each
    word's first token; None for a word that has none, or shares its first with the word before."""
    text = " ".join(words)
    # Where each word ends, which is where the space behind it is.
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=length,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    firsts: list[int | None] = [None] * len(words)
    last = -1
    for place, (start, stop) in enumerate(encoded["offset_mapping"]):
        # Some tokens have the space before the word with them; special ones stand for no text.
        begun = next((k for k in range(start, stop) if not text[k].isspace()), None)
        if begun is None:
            continue
        word = int(np.searchsorted(ends, begun, side="right"))
        if word > last:
            firsts[word] = place
            last = word
    return encoded["input_ids"], firsts


def span_f1(predicted: list[list[str]], wanted: list[list[str]]) -> float:
    """Return F1 of the spans of all examples (micro); 0 where there is none on either side.

    A span begins with B-, or with I- where none of its type goes on (as CoNLL counts).
    """
    both = either = 0
    for one, other in zip(predicted, wanted, strict=True):
        spans, true = set(spans_of(one)), set(spans_of(other))
        both += len(spans & true)
        either += len(spans) + len(true)
    return 2 * both / either if either else 0.0


def spans_of(names: list[str]) -> list[Span]:
    """Return the spans (first, behind the last, type) of one example's labels in BIO."""
    found: list[Span] = []
    begun: tuple[int, str] | None = None
    for k, name in enumerate(itertools.chain(names, ["O"])):
        kind = name[2:]
        if begun is not None and (name[:2] != "I-" or kind != begun[1]):
            found.append((begun[0], k, begun[1]))
            begun = None
        if begun is None and name != "O":
            begun = (k, kind)
    return found
