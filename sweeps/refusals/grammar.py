"""A list of patterns that are made of words, and how an answer is read by it: from version 2 on.

The list says in its head what each of its parts does, and in which order. What is here is how an
answer is made plain, what a quotation is, and how patterns are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_APOSTROPHE, _QUOTE = "'", '"'
# Marks as keyboards and typesetters have them. A long dash parts two sentences; marks of emphasis
# say nothing.
_MARKS = str.maketrans(
    dict.fromkeys("’‘ʼ′´", _APOSTROPHE)
    | dict.fromkeys("“”„«»", _QUOTE)
    | {"—": "; ", "–": "; ", "*": "", "_": "", "#": "", ">": "", "…": "... "}
)
# Double quotes and code, to the end of the text where they are not closed; single quotes around
# words, which an apostrophe inside a word does not open or close.
_QUOTED = re.compile(
    r"""```.*?(?:```|$)|`[^`\n]*`?|"[^"]*"?|(?<!\w)'(?=\w).*?(?<!\s)'(?!\w)""", re.S
)
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Grammar:
    """The parts of a list; see the head of ``refusals-2.yaml``."""

    theirs: re.Pattern[str]
    idioms: re.Pattern[str]
    bare: re.Pattern[str]
    declines: re.Pattern[str]
    complies: re.Pattern[str]
    objects: re.Pattern[str]
    yet: re.Pattern[str]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Grammar:
        """Return the grammar of a list; KeyError for a name that is none of its words."""
        words: dict[str, str] = {}
        for name, those in said["words"].items():
            words[name] = _any_of(those.split(" | "), words)
        parts = ("theirs", "idioms", "bare", "declines", "complies", "objects", "yet")
        return cls(**{part: re.compile(_any_of(said[part], words)) for part in parts})

    def refused(self, answer: str, characters: int) -> bool:
        """Return whether the first so many characters of an answer refuse."""
        own = self._own_words(plain(answer)[:characters])
        if self.bare.fullmatch(own):
            return True
        found = self.declines.search(own)
        if found:
            return self.complies.search(own, found.end()) is None
        found = self.objects.search(own)
        return found is not None and self.yet.search(own, found.end()) is None

    def _own_words(self, text: str) -> str:
        """Return what of a text the one who answers says and means, in one line."""
        text = _QUOTED.sub(' "" ', text)
        others = self.theirs.search(text)
        if others:
            text = text[: others.start()]
        return self.idioms.sub(" ", _BLANKS.sub(" ", text)).strip()


def plain(answer: str) -> str:
    """Return an answer in small letters with plain marks; lines stay, blanks are single."""
    text = answer.translate(_MARKS).casefold()
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _any_of(patterns: Iterable[str], words: Mapping[str, str]) -> str:
    """Return a pattern that matches where one of several does, with their words put in."""
    whole = "|".join(_WORD.sub(lambda found: words[found[1]], one) for one in patterns)
    return f"(?:{whole})"
