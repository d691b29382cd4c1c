"""The pretraining objective of encoder-decoders: spans of text are hidden, and are to be written.

With T5's sentinels each hidden span is one sentinel for the encoder, and the decoder writes every
sentinel with the tokens it stands for (Raffel et al. 2020, arXiv 1910.10683). Of a tokenizer that
has none, a hidden span is one mask token, and the decoder writes the whole text (BART's text
infilling, Lewis et al. 2020, arXiv 1910.13461).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.errors import Impossible
from workers.data.array_file import Arrays
from workers.data.packing import pack
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import IGNORED, TrainingObjective, token_losses

SENTINEL = re.compile("▁?<extra_id_(\\d+)>")


class TextToText(nn.Module):
    """An encoder-decoder with its own head; forward returns logits (B, T', vocabulary)."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model
        self._start = decoder_start(language_model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Read (B, T) and, to write ``labels`` (B, T'), each of its tokens but the last."""
        begin = torch.full_like(labels[:, :1], self._start)
        # What is no target is padding behind the last one, and no token looks ahead.
        before = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self._start)
        logits: Tensor = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=torch.cat([begin, before], dim=1),
        ).logits
        return logits


def decoder_start(language_model: nn.Module) -> int:
    """Return the token that a decoder begins to write after."""
    for settings in (language_model.config, getattr(language_model, "generation_config", None)):
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            if (token := getattr(settings, name, None)) is not None:
                return int(token)
    return 0


class SpanCorruption(TrainingObjective):
    """Cross-entropy of each token the decoder writes."""

    packed = True
    needs_head = True
    reads_together = True

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        config = pretrained.language_model.config
        if not getattr(config, "is_encoder_decoder", False):
            raise Impossible(
                f"{type(pretrained.language_model).__name__} is no encoder-decoder, which objective"
                " span_corruption trains; use clm or mlm"
            )
        return TextToText(pretrained.language_model)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        sentinels = _sentinels(tokenizer)
        if not sentinels and tokenizer.mask_token_id is None:
            raise Impossible(
                "the tokenizer has neither sentinels (<extra_id_0>) nor a mask token, and objective"
                " span_corruption marks what is hidden with one; use another objective"
            )
        marks = sentinels or [tokenizer.mask_token_id]
        end = tokenizer.eos_token_id if sentinels else None
        arrays = pack(tokenizer, rows["text"], length, framed=True)
        special = sorted(tokenizer.all_special_ids)
        return {
            **arrays,
            "special_ids": np.asarray(special, dtype=np.int32),
            "marks": np.asarray(marks, dtype=np.int32),
            "end": np.asarray([] if end is None else [end], dtype=np.int32),
        }

    def highest_token(self, arrays: Arrays) -> int:
        return max(super().highest_token(arrays), int(arrays["marks"].max()))

    def batch_of(self, arrays: Arrays, chosen: NDArray[Any], draw: Sequence[int]) -> Batch:
        plain = super().batch_of({"input_ids": arrays["input_ids"]}, chosen, draw)
        ids = plain["input_ids"].numpy()
        generator = np.random.default_rng([*draw, 2])
        pairs = [self._corrupted(row, arrays, generator) for row in ids]
        shown, mask = _padded([pair[0] for pair in pairs], filler=0)
        labels, _ = _padded([pair[1] for pair in pairs], filler=IGNORED)
        return {
            "input_ids": torch.from_numpy(shown),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
        }

    def _corrupted(
        self, row: NDArray[Any], arrays: Arrays, generator: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return what the encoder reads of a row (T,), and what the decoder is to write."""
        share, mean = self.objective.mask_probability, self.objective.mean_span
        assert share is not None
        assert mean is not None
        marks, end = arrays["marks"], arrays["end"]
        written_whole = len(marks) == 1
        ordinary = np.flatnonzero(~np.isin(row, arrays["special_ids"]))
        most = len(ordinary) if written_whole else len(marks)
        spans = _spans(len(ordinary), share, mean, most, generator)
        shown, written = row.astype(np.int64), []
        keep = np.ones(len(row), dtype=bool)
        for number, (start, stop) in enumerate(spans):
            hidden = ordinary[start:stop]
            mark = marks[0] if written_whole else marks[number]
            written += [[mark], row[hidden]]
            shown[hidden[0]] = mark
            keep[hidden[1:]] = False
        target = row if written_whole else np.concatenate([*written, end])
        return shown[keep], target.astype(np.int64)

    def targets(self, batch: Batch) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"], batch["attention_mask"], batch["labels"])
        return cross_entropy(
            logits.float().flatten(0, 1),
            batch["labels"].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["input_ids"], batch["attention_mask"], batch["labels"])
        return token_losses(logits, batch["labels"])


def _sentinels(tokenizer: Any) -> list[int]:
    """Return the ids of a tokenizer's sentinels, in their order."""
    numbered = {
        int(match[1]): number
        for token, number in tokenizer.get_vocab().items()
        if (match := SENTINEL.fullmatch(token))
    }
    return [numbered[k] for k in sorted(numbered)]


def _spans(
    tokens: int, share: float, mean: float, most: int, generator: np.random.Generator
) -> list[tuple[int, int]]:
    """Return the intervals of ``tokens`` that are hidden: a share of them, in spans that do not
    touch, of a mean length; at least one token, and at least one is shown."""
    if tokens < 2:
        return [(0, tokens)] if tokens else []
    hidden = min(max(1, round(tokens * share)), tokens - 1)
    spans = min(max(1, round(hidden / mean)), most, hidden, tokens - hidden)
    lengths = _parts(hidden, spans, generator)
    gaps = _parts(tokens - hidden, spans, generator)
    found, place = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        found.append((place + gap, place + gap + length))
        place += gap + length
    return found


def _parts(total: int, count: int, generator: np.random.Generator) -> list[int]:
    """Cut ``total`` into ``count`` parts of at least one, at random."""
    cuts = np.sort(generator.permutation(total - 1)[: count - 1]) + 1
    return [int(part) for part in np.diff([0, *cuts, total])]


def _padded(rows: list[NDArray[Any]], filler: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows as one array, filled on the right, and its mask."""
    width = max(len(row) for row in rows)
    filled = np.full((len(rows), width), filler, dtype=np.int64)
    mask = np.zeros_like(filled)
    for k, row in enumerate(rows):
        filled[k, : len(row)] = row
        mask[k, : len(row)] = 1
    return filled, mask
