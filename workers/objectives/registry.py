"""From the objective a specification names to the class that trains it."""

from __future__ import annotations

from sweeps.plugins.opened import opened
from sweeps.spec import Objective
from workers.objectives.classification import Classification, MultiLabel
from workers.objectives.contrastive import Contrastive
from workers.objectives.language_modelling import CausalLanguageModelling, MaskedLanguageModelling
from workers.objectives.objective import TrainingObjective
from workers.objectives.preference import Preference
from workers.objectives.regression import Regression
from workers.objectives.sft import SupervisedFineTuning
from workers.objectives.span_corruption import SpanCorruption
from workers.objectives.token_classification import TokenClassification

KINDS: dict[str, type[TrainingObjective]] = {
    "clm": CausalLanguageModelling,
    "span_corruption": SpanCorruption,
    "mlm": MaskedLanguageModelling,
    "classification": Classification,
    "contrastive": Contrastive,
    "regression": Regression,
    "multi_label": MultiLabel,
    "token_classification": TokenClassification,
    "sft": SupervisedFineTuning,
    "preference": Preference,
}


def build_objective(objective: Objective, *, held_out: bool = False) -> TrainingObjective:
    """Return the objective of a run, of data that is trained on or ``held_out``; a kind of the
    user's own has been opened."""
    if objective.code is not None:
        own = opened(objective.code, "objective", objective.kind)
        built: TrainingObjective = own.build(objective, options=objective.options)
        built.held_out = held_out
        return built
    return KINDS[objective.kind](objective, held_out=held_out)
