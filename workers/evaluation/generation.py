"""Greedy answers in batches, with the cache of keys and values that transformers keeps.

Prompts are padded on the left, so that all of a batch begin to answer at once. What a model's own
``generation_config`` says of sampling and penalties is left aside: the most likely token is taken,
and the tokens that end an answer are those of the model and of its tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from transformers import GenerationConfig

from workers.evaluation.prompts import padded_left, padded_right

# Of logits, relative to the largest: rounding is 1e-6 of it.
_APART = 1e-3


class Writer:
    """Writes a model's answers; ``together`` where its forward pass is a collective, in which every
    rank has to take part for as long as one still writes."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, filler: int, most: int, *, together: bool
    ) -> None:
        self._model: Any = model
        self._filler, self._most, self._together = filler, most, together
        self._ends = ending_tokens(self._model, tokenizer)

    def answers(self, prompts: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
        """Return the tokens of each answer, without the one that ends it."""
        ids, mask = (each.to(device) for each in padded_left(prompts, self._filler))
        own = self._model.generation_config
        self._model.generation_config = GenerationConfig()
        try:
            whole = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                max_new_tokens=self._most,
                pad_token_id=self._filler,
                eos_token_id=list(self._ends) or None,
                synced_gpus=self._together,
            )
        finally:
            self._model.generation_config = own
        return [self._until_its_end(row) for row in whole[:, ids.shape[1] :].tolist()]

    def _until_its_end(self, tokens: list[int]) -> list[int]:
        for k, token in enumerate(tokens):
            if token in self._ends:
                return tokens[:k]
        return tokens

    def next_tokens(
        self, prompts: Sequence[Sequence[int]], said: Sequence[Sequence[int]], device: torch.device
    ) -> list[Tensor]:
        """Return, for each prompt and the tokens said after it, ln p of every token at each of
        their places, (tokens said, vocabulary) float32 in the machine's memory."""
        rows = [[*prompt, *tokens] for prompt, tokens in zip(prompts, said, strict=True)]
        ids, mask = (each.to(device) for each in padded_right(rows, self._filler))
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        return [
            log_softmax(
                logits[k, len(prompt) - 1 : len(prompt) - 1 + len(tokens)].float(), -1
            ).cpu()
            for k, (prompt, tokens) in enumerate(zip(prompts, said, strict=True))
        ]


def ending_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end an answer: those of the model and that of its tokenizer."""
    known: list[int] = []
    for said in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        known += said if isinstance(said, list) else [said] if said is not None else []
    return tuple(dict.fromkeys(known))


@torch.no_grad()
def reads_past_padding(model: nn.Module, filler: int, tokens: Sequence[int]) -> bool:
    """Return whether a model predicts the same after tokens with and without padding before them;
    one that does not, as RWKV, answers only prompts of one length together.

    It is tried in the way in which answers are written, two tokens of padding before ``tokens``.
    """
    language_model: Any = model
    alone = padded_left([tokens], filler)
    beside = padded_left([[*tokens[:2], *tokens], tokens], filler)
    training = model.training
    model.eval()
    try:
        last = [
            language_model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=1,
                pad_token_id=filler,
                return_dict_in_generate=True,
                output_logits=True,
            ).logits[0][-1]
            for ids, mask in (alone, beside)
        ]
    finally:
        model.train(training)
    return bool((last[0] - last[1]).abs().max() <= _APART * last[0].abs().max())
