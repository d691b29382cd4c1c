"""A tokenizer that knows one word: what an objective makes of it has the shapes of a real batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sweeps.rows.cells import ANSWERS, WHAT, WHO
from sweeps.spec import Cell

WORD = "word"
SPECIAL = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<cls>",
    "sep_token": "<sep>",
    "mask_token": "<mask>",
    "unk_token": "<unk>",
}
# What T5 puts where a span was.
SENTINELS = 100
# As plain as a template can be.
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; it has every special token that an objective may ask for."""
    sentinels = [f"<extra_id_{number}>" for number in range(SENTINELS)]
    tokens = [WORD, *SPECIAL.values(), *sentinels]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    framing = [(SPECIAL[name], numbers[SPECIAL[name]]) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{framing[0][0]} $A {framing[1][0]}", special_tokens=framing
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=sentinels, **SPECIAL
    )
    made.chat_template = TEMPLATE
    return made


def word_cell(cell: Cell, length: int) -> Any:
    """Return a checked cell of that word whose row fills a sequence of ``length`` tokens."""
    words = [WORD] * (2 * length)
    text = " ".join(words)
    messages = [{WHO: "user", WHAT: WORD}, {WHO: ANSWERS, WHAT: text}]
    made: dict[Cell, Any] = {
        **{"stream": text, "text": text, "prompt": WORD, "dialogue": text, "messages": messages},
        **{"label": 0, "labels": [0], "words": words, "tags": [0] * len(words), "number": 0.5},
    }
    return made[cell]


@dataclass(frozen=True)
class TokenCount:
    """What a stand-in's configuration asks of the tokenizer that its pretraining will make."""

    tokens: int
    pad_token_id = 0
    bos_token_id = 0
    eos_token_id = 0

    def __len__(self) -> int:
        return self.tokens
