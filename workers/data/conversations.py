"""Prompts with their answers, as tokens: plain texts, or conversations by the model's own template.

What is an answer is seen from the tokens: it begins where those of the prompt alone, and of the
prompt with its answer, part (as in TRL, which this agrees with).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import Impossible, UserError
from sweeps.rows.cells import ANSWERS, WHAT, WHO
from workers.progress import PREPARATION

Dialogue = str | list[dict[str, Any]]
# A template that says itself what it has the model write.
_SAYS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
ASKS = "user"
COUNTED = ("tokenising", "rows")


@dataclass(frozen=True)
class Written:
    """One example's tokens, and which of them are answered."""

    ids: NDArray[np.int32]
    answered: NDArray[np.bool_]


def text_of(prompt: Dialogue) -> str:
    """Return what a prompt asks: its text, or what its user says, message by message."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(one[WHAT]) for one in prompt if one[WHO] == ASKS)


def written_pairs(
    tokenizer: Any, prompts: Sequence[Dialogue], completions: Sequence[Dialogue]
) -> Iterator[Written]:
    """Yield prompts, each with its completion; of plain texts the end token is answered too.

    Raises UserError for messages that the template refuses, Impossible where there is none.
    """
    pairs = PREPARATION.counted(zip(prompts, completions, strict=True), *COUNTED)
    for row, (prompt, completion) in enumerate(pairs):
        if isinstance(prompt, str) and isinstance(completion, str):
            end = tokenizer.eos_token or ""
            answer = completion if completion.endswith(end) else completion + end
            whole = _plain(tokenizer, prompt + answer)
            before = _shared(_plain(tokenizer, prompt), whole) if prompt else 0
        else:
            asked = _messages(prompt, ASKS)
            answer_messages = _messages(completion, ANSWERS)
            # Some repeat the prompt before each answer.
            if answer_messages[: len(asked)] == asked:
                answer_messages = answer_messages[len(asked) :]
            whole = _by_template(tokenizer, [*asked, *answer_messages], row)
            alone = _by_template(tokenizer, asked, row, prompt=True)
            before = _shared(alone, whole)
        answered = np.zeros(len(whole), dtype=bool)
        answered[before:] = True
        yield Written(np.asarray(whole, dtype=np.int32), answered)


def written_messages(
    tokenizer: Any, conversations: Sequence[list[dict[str, Any]]]
) -> Iterator[Written]:
    """Yield conversations, of which all that the assistant says is answered.

    Raises UserError for messages that the template refuses, or where it writes an earlier answer
    otherwise than a last one, Impossible where there is none.
    """
    for row, messages in enumerate(PREPARATION.counted(conversations, *COUNTED)):
        yield _written_messages(tokenizer, messages, row)


def _written_messages(tokenizer: Any, messages: list[dict[str, Any]], row: int) -> Written:
    if _SAYS_ANSWERS.search(_template(tokenizer)):
        with _refusals(row):
            said = tokenizer.apply_chat_template(
                messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        answered = np.asarray(said["assistant_masks"], dtype=bool)
        return Written(np.asarray(said["input_ids"], dtype=np.int32), answered)
    whole = _by_template(tokenizer, messages, row)
    answered = np.zeros(len(whole), dtype=bool)
    answers = [k for k, message in enumerate(messages) if message[WHO] == ANSWERS]
    for number, k in enumerate(answers, start=1):
        asked = _by_template(tokenizer, messages[:k], row, prompt=True) if k else []
        until = _by_template(tokenizer, messages[: k + 1], row)
        start, stop = _shared(asked, whole), _shared(until, whole)
        # What ends a conversation, and is not there where it goes on, is no part of an answer.
        if not set(until[stop:]) <= set(tokenizer.all_special_ids):
            raise UserError(
                f"example {row + 1}: the model's chat template writes answer {number} otherwise"
                " where more follows, so that it cannot be told from the rest; give rows with one"
                " answer"
            )
        answered[start:stop] = True
    return Written(np.asarray(whole, dtype=np.int32), answered)


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
    return ids


def _messages(dialogue: Dialogue, who: str) -> list[dict[str, Any]]:
    return [{WHO: who, WHAT: dialogue}] if isinstance(dialogue, str) else dialogue


def _template(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several by name
        template = template.get("default")
    if not template:
        raise Impossible(
            "the tokenizer has no chat template, which messages are written by; give a model that"
            " was tuned to chat, or give texts"
        )
    return str(template)


def written_prompts(tokenizer: Any, prompts: Sequence[Dialogue]) -> Iterator[list[int]]:
    """Yield prompts as tokens by the chat template, up to where the model begins to answer.

    Raises UserError for messages that the template refuses, Impossible where there is none.
    """
    for row, prompt in enumerate(prompts):
        yield _by_template(tokenizer, _messages(prompt, ASKS), row, prompt=True)


def _by_template(
    tokenizer: Any, messages: list[dict[str, Any]], row: int, *, prompt: bool = False
) -> list[int]:
    """Return the tokens of messages; of a ``prompt``, up to where the model begins to write."""
    _template(tokenizer)
    with _refusals(row):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    encoded = tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)
    ids: list[int] = encoded["input_ids"]
    return ids


class _refusals:
    """Say of which row a template has refused the messages."""

    def __init__(self, row: int) -> None:
        self._row = row

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from jinja2 import TemplateError

        if isinstance(error, (TemplateError, TypeError, KeyError, ValueError)):
            said = " ".join(str(error).split())[:160]
            raise UserError(
                f"example {self._row + 1}: the model's chat template refuses the messages: {said}"
            ) from error


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    for k, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return k
    return min(len(one), len(other))
