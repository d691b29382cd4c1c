"""From the objective a specification names to the class that trains it."""

from __future__ import annotations

from sweeps.plugins.opened import opened
from sweeps.spec import Objective
from workers.objectives.classification import Classification
from workers.objectives.contrastive import Contrastive
from workers.objectives.language_modelling import CausalLanguageModelling, MaskedLanguageModelling
from workers.objectives.objective import TrainingObjective
from workers.objectives.span_corruption import SpanCorruption

KINDS: dict[str, type[TrainingObjective]] = {
    "clm": CausalLanguageModelling,
    "span_corruption": SpanCorruption,
    "mlm": MaskedLanguageModelling,
    "classification": Classification,
    "contrastive": Contrastive,
}


def build_objective(objective: Objective) -> TrainingObjective:
    """Return the objective of a run; a kind of the user's own has been opened."""
    if objective.code is not None:
        own = opened(objective.code, "objective", objective.kind)
        built: TrainingObjective = own.build(objective, options=objective.options)
        return built
    return KINDS[objective.kind](objective)
