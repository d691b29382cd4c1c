"""A list of plain phrases, looked for sentence by sentence: version 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Quotes as keyboards and typesetters have them.
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+")
_QUOTED = re.compile(r'"[^"]*"?')
# Somebody speaks: what follows the colon, or stands in the sentence, are their words.
_SAID = re.compile(r"\b(?:she|he|they) (?:said|answered|asked|wrote)\b")


@dataclass(frozen=True)
class Phrases:
    """What is looked for in a sentence, and what must not be in it then."""

    phrases: tuple[str, ...]
    unless: tuple[str, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Phrases:
        """Return the phrases of a list."""
        return cls(tuple(said["phrases"]), tuple(said["unless"]))

    def refused(self, answer: str, characters: int) -> bool:
        """Return whether the first so many characters of an answer refuse."""
        start = " ".join(answer.translate(_QUOTES).casefold().split())[:characters]
        theirs = False
        for sentence in _SENTENCE.split(_QUOTED.sub(" ", start)):
            theirs = theirs or _SAID.search(sentence) is not None
            if theirs or any(phrase in sentence for phrase in self.unless):
                continue
            if any(phrase in sentence for phrase in self.phrases):
                return True
        return False
