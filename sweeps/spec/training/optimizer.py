"""AdamW and its schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweeps.spec.frozen import Frozen, Positive


class Optimizer(Frozen):
    """AdamW with linear warm-up, then constant or linear decay to zero at the last step."""

    learning_rate: Positive
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["linear", "constant"] = "linear"
    max_grad_norm: Positive | None = Field(
        None, description="Global gradient clipping over all parameters together."
    )

    @model_validator(mode="after")
    def _betas_in_range(self) -> Optimizer:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must lie in [0, 1)")
        return self


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Learning rate of ``step`` in 1..steps: linear warm-up, then the schedule.

    Warm-up reaches the peak at step ``warmup_steps + 1``; linear decay would reach zero one step
    after the last, so that every step moves the weights.
    """
    done = step - 1
    if done < optimizer.warmup_steps:
        return optimizer.learning_rate * (done + 1) / (optimizer.warmup_steps + 1)
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    remaining = (steps - done) / (steps - optimizer.warmup_steps)
    return optimizer.learning_rate * remaining
