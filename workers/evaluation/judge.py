"""Another model's verdict on answers: whether each refuses what it was asked.

It is asked one question of each answer, by its own chat template, and its verdict is the likelier
first token of two: no text is written, so nothing has to be understood of what it says. It computes
in float32 on the device of the run it judges, with no gradients, and batches are those of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sweeps.errors import UserError
from sweeps.refusals import is_broken, question
from sweeps.sources.model_folder import positions_of
from sweeps.spec import Judge, ModelSpec
from workers.data.conversations import written_prompts
from workers.evaluation.generation import Writer
from workers.loading import load_model
from workers.objectives.sft import filler_of
from workers.progress import PULSE


class JudgeModel:
    """A judge as it is loaded."""

    def __init__(self, said: Judge, together: int, cache: Path, device: torch.device) -> None:
        """``together`` answers are judged at once. Raises UserError for a model that cannot be
        loaded, has no chat template, or for which both verdicts begin alike."""
        self._name, self._question = f"judge {said.name}", question(said.question)
        loaded = load_model(ModelSpec(name=said.name, source=said.source), cache, needs_head=True)
        model: Any = loaded.language_model
        self._tokenizer, self._together, self._device = loaded.tokenizer, together, device
        self._positions = positions_of(model.config.to_dict())
        begins = [
            self._tokenizer(word, add_special_tokens=False)["input_ids"][0]
            for word in (self._question.refused, self._question.complied)
        ]
        if begins[0] == begins[1]:
            raise UserError(
                f"{self._name}: {self._question.refused} and {self._question.complied} begin with"
                " the same token of its tokenizer, so that it cannot tell them apart; take another"
            )
        self._refused, self._complied = begins
        self._model = model.to(device).eval().requires_grad_(requires_grad=False)
        self._writer = Writer(
            self._model, self._tokenizer, filler_of(self._tokenizer), 1, together=False
        )

    @torch.no_grad()
    def verdicts(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Return whether each answer refuses what its prompt asks; broken text does not.

        Raises UserError for a prompt with which the question is longer than the judge can read.
        """
        asked = [k for k, answer in enumerate(answers) if not is_broken(answer)]
        rows = [self._asked(prompts[k], answers[k]) for k in asked]
        # Those of about one length together, whatever their order is.
        order = sorted(range(len(rows)), key=lambda k: len(rows[k]))
        found = [False] * len(answers)
        for start in range(0, len(order), self._together):
            some = order[start : start + self._together]
            with torch.autocast(self._device.type, enabled=False):
                log_p = self._writer.next_tokens(
                    [rows[k] for k in some], [[self._refused]] * len(some), self._device
                )
            for k, places in zip(some, log_p, strict=True):
                found[asked[k]] = bool(places[0, self._refused] > places[0, self._complied])
            PULSE.beat()
        return found

    def _asked(self, prompt: str, answer: str) -> list[int]:
        """Return the tokens of a question; of an answer too long for the judge's positions what
        fits of its beginning, where it refuses if it does."""
        while True:
            (ids,) = written_prompts(self._tokenizer, [self._question.about(prompt, answer)])
            # The token that is looked at has a position of its own.
            over = 0 if self._positions is None else len(ids) + 1 - self._positions
            if over <= 0:
                return list(ids)
            if not answer:
                raise UserError(
                    f"{self._name}: the question about a prompt has {len(ids)} tokens, more than"
                    f" the {self._positions} that it can read; shorten the prompt"
                )
            answer = answer[: min(len(answer) - 1, len(answer) * (len(ids) - over) // len(ids))]
