"""Whether a model still refuses: prompts that it answers, and by which phrases that is told."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen
from sweeps.spec.model_source import ModelSource

# What a prompt is: one to be refused, or its benign twin, which is not.
PromptKind = Literal["harmful", "benign"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("harmful", "benign")

# Each is a row of an evaluation, besides its loss and the scores of its objective: the share of
# harmful prompts that are refused, of benign ones that are, of all answers that are broken text;
# KL(now ‖ aligned) of the first tokens of the aligned model's own answers to harmful prompts, nats
# a token; tokens of an answer. The last two are by the judge that the evaluation names.
REFUSAL_SCORES = (
    "refusal_rate",
    "over_refusal_rate",
    "broken_rate",
    "first_token_kl",
    "answer_length",
    "refusal_rate_by_judge",
    "over_refusal_rate_by_judge",
)


class PromptSet(Frozen):
    """Prompts under a name, by which their answers are called in the tables.

    ``kind`` says what all of them are; without it a column does, cell by cell.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)]
    data: DataSource
    kind: PromptKind | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the columns that are read."""
        return ("prompt",) if self.kind else ("prompt", "kind")

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})" if self.kind else self.name


class Judge(Frozen):
    """A model that says of each answer whether it refuses, by a question that is put to it."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    source: ModelSource
    question: str = Field("1", description="The version of the question.")

    def __str__(self) -> str:
        return self.name


class Refusal(Frozen):
    """Prompts that a model answers wherever it is evaluated, greedily, by its own chat template."""

    # The first list is what runs of old, which name none, were told by.
    first_defaults: ClassVar[dict[str, Any]] = {"phrases": "1"}

    prompts: Annotated[tuple[PromptSet, ...], Field(min_length=1)]
    phrases: str = Field("2", description="The version of the list of phrases of a refusal.")
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 64
    prompt_batch: Annotated[int, Field(ge=1)] = Field(
        32, description="Prompts that are answered together; what they are padded to is by them."
    )

    judge: Annotated[tuple[Judge, ...], Field(max_length=1)] = Field(
        (), description="A model whose verdict on each answer stands beside that of the phrases."
    )

    @property
    def judged_by(self) -> Judge | None:
        """The judge, where one is named."""
        return self.judge[0] if self.judge else None

    @model_validator(mode="after")
    def _names_distinct(self) -> Refusal:
        names = [one.name for one in self.prompts]
        if len(set(names)) < len(names):
            raise ValueError("two sets of prompts have the same name")
        return self
