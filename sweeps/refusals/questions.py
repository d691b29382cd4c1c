"""What a judge model is asked of an answer: versions of a question, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sweeps.refusals.versions import read_version, versions_of

_QUESTIONS = "judge"


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
    return versions_of(_QUESTIONS)


@cache
def question(name: str) -> Question:
    """Return a version of the question; UserError for one that there is not."""
    said = read_version(_QUESTIONS, name, "question: none is called")
    return Question(name, said["question"], said["refused"], said["complied"])
