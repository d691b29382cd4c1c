"""From the adapter a specification names to what is done to the model."""

from __future__ import annotations

from sweeps.spec import Lora, RunSpec
from workers.models.pretrained import PretrainedModel
from workers.ranks.process_group import ALONE, Ranks


def add_adapter(run: RunSpec, pretrained: PretrainedModel, ranks: Ranks = ALONE) -> None:
    """Give a run's model, in place, what is trained of it instead of its own weights.

    A collective. Raises UserError where what the adapter names is not there.
    """
    if isinstance(run.adapter, Lora):
        # Whoever trains all weights does not wait for peft.
        from workers.adapters.lora import add_lora

        add_lora(run.adapter, run.seed, run.model.name, pretrained, ranks)
