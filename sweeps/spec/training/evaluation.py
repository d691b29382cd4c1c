"""On which held-out examples a run is scored, when, and what that may end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen, Steps
from sweeps.spec.training.refusal import REFUSAL_SCORES, Refusal

# What a run is scored on beside the mean loss, by the kind of its objective; a column of ``runs``
# each. An objective that returns another score is refused where it is evaluated; one of them may be
# missing, as spans where labels mark none.
LOSS = "loss"
SCORES: dict[str, tuple[str, ...]] = {
    "clm": ("perplexity",),
    "classification": ("accuracy", "macro_f1"),
    "contrastive": ("recall_at_1",),
    "regression": ("rmse", "pearson", "spearman"),
    "multi_label": ("micro_f1", "macro_f1"),
    "token_classification": ("accuracy", "span_f1"),
    "sft": ("perplexity",),
    "preference": ("accuracy",),
}


class Evaluation(Frozen):
    """Held-out examples: another dataset, or a share of the rows of the objective's own, of which
    none is trained on then.

    A run is evaluated before the first step, at every probe and after the last step; with
    ``every`` in between, too.
    """

    data: DataSource | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the objective's own rows that is held out."
    )
    every: Steps | None = Field(None, description="Evaluate every this many steps, besides.")
    batches: Annotated[int, Field(ge=1)] | None = Field(
        None, description="So many batches, spread evenly over the examples (default: all)."
    )
    refusal: Refusal | None = Field(
        None, description="Prompts that are answered then, too: which are refused."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Evaluation:
        if (self.data is None) == (self.fraction is None):
            raise ValueError("evaluation takes exactly one of data and fraction")
        return self


class NoImprovement(Frozen):
    """The run ends once the evaluation loss has not fallen below its lowest so far in ``over``
    evaluations in a row."""

    kind: Literal["no_improvement"] = "no_improvement"
    over: Annotated[int, Field(ge=1)] = 3

    def holds(self, losses: list[float]) -> bool:
        """Return whether it is so after evaluations with these losses, in order."""
        if len(losses) <= self.over:
            return False
        return min(losses[-self.over :]) >= min(losses[: -self.over])


# What ends a run early, besides a loss that is not finite: its status is then ``stopped``.
Stop = NoImprovement


def scores_of(kind: str) -> tuple[str, ...]:
    """Return the names of the scores that an evaluation of an objective gives, its loss first."""
    return (LOSS, *SCORES.get(kind, ()))


def score_column(score: str) -> str:
    """Return the column of ``runs`` that a score at a run's end is in."""
    return f"evaluation_{score}"


def every_score() -> tuple[str, ...]:
    """Return the scores that there are, of all objectives and of refusals, each once."""
    of_objectives = (name for names in SCORES.values() for name in names)
    return tuple(dict.fromkeys((LOSS, *of_objectives, *REFUSAL_SCORES)))
