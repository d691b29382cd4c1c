"""What a judge model is asked of an answer: versions of a question, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from sweeps.errors import UserError, closest

QUESTIONS = Path(__file__).parent
_STEM = "judge-"


@dataclass(frozen=True)
class Question:
    """One version: its words, and how an answer to it begins that says it was a refusal, or not."""

    name: str
    words: str
    refused: str
    complied: str

    def about(self, prompt: str, answer: str) -> str:
        """Return the question about an answer to a prompt, whatever stands in either."""
        before, after = self.words.split("{prompt}")
        between, end = after.split("{answer}")
        return f"{before}{prompt}{between}{answer}{end}"


def question_names() -> tuple[str, ...]:
    """Return the versions of the question that there are, in order."""
    found = (path.stem.removeprefix(_STEM) for path in QUESTIONS.glob(f"{_STEM}*.yaml"))
    return tuple(sorted(found))


@cache
def question(name: str) -> Question:
    """Return a version of the question; UserError for one that there is not."""
    if name not in question_names():
        raise UserError(f"question: none is called {name!r}; {closest(name, question_names())}")
    said = yaml.safe_load((QUESTIONS / f"{_STEM}{name}.yaml").read_text(encoding="utf-8"))
    return Question(name, said["question"], said["refused"], said["complied"])
