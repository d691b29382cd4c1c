"""How a run is carried out, which may not change its result beyond rounding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweeps.spec.frozen import Frozen, Steps

# Which trained weights are kept when a run has ended.
Keep = Literal["none", "final", "best"]


class Execution(Frozen):
    """How a run is carried out; nothing here may change its result beyond rounding."""

    micro_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Sequences a forward pass; the rest of the batch is accumulated."
    )
    part_steps: Steps = Field(
        100, description="Steps of rows in one Parquet part; a checkpoint may follow each."
    )
    checkpoint_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description="Most of a run's time that checkpoints take: parts are passed over where they"
        " would take more. 0: only when it is told to stop. 1: after every part.",
    )
    keep: Keep = Field(
        "none",
        description="Which weights stay when a run has ended: those of the last step (final), those"
        " of the lowest evaluation loss (best), or none.",
    )
    engine: Literal["plain", "deepspeed"] | None = Field(
        None, description="What trains: chosen from the model's size and the machine if not said."
    )
    processes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Ranks of one run, each with its share of the batch."
    )
    zero_stage: Literal[0, 1, 2, 3] | None = Field(
        None, description="What ranks share: 1 optimizer, 2 and gradients, 3 and weights."
    )
    offload: Literal["none", "optimizer", "parameters"] | None = Field(
        None, description="What lies in CPU memory; parameters takes the optimizer with it."
    )
    checkpoint_activations: bool | None = Field(
        None, description="Compute each block again in the backward pass instead of keeping it."
    )

    @model_validator(mode="before")
    @classmethod
    def _recorded_before_keep(cls, said: Any) -> Any:
        """Read records of stores that were written when there was only one choice to make."""
        if isinstance(said, dict) and "keep_checkpoint" in said:
            kept = "final" if said["keep_checkpoint"] else "none"
            return {**{k: v for k, v in said.items() if k != "keep_checkpoint"}, "keep": kept}
        return said

    @model_validator(mode="after")
    def _engine_has_its_settings(self) -> Execution:
        shared = {
            "processes": self.processes not in (None, 1),
            "zero_stage": self.zero_stage is not None,
            "offload": self.offload not in (None, "none"),
        }
        said = [name for name, given in shared.items() if given]
        if self.engine == "plain" and said:
            raise ValueError(f"{said[0]} does nothing with engine plain; use engine deepspeed")
        if self.offload == "parameters" and self.zero_stage not in (None, 3):
            raise ValueError("offload: parameters needs zero_stage 3")
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError("offload: optimizer needs zero_stage 1, 2 or 3")
        return self

    def settled(self) -> Execution:
        """Return it with every choice made: what was said, else the simplest that fits with it."""
        several = (self.processes or 1) > 1 or self.zero_stage is not None
        deepspeed = self.engine == "deepspeed" or several or self.offload not in (None, "none")
        stage = self.zero_stage
        if deepspeed and stage is None:
            stage = 3 if self.offload == "parameters" else 2
        return self.model_copy(
            update={
                "engine": "deepspeed" if deepspeed else "plain",
                "processes": self.processes or 1,
                "zero_stage": stage,
                "offload": self.offload or "none",
                "checkpoint_activations": bool(self.checkpoint_activations),
            }
        )
