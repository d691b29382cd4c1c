"""Which hidden states are compared, when, and by which metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen, Steps

METRICS = (
    "procrustes",
    "cka_distance",
    "cka_distance_debiased",
    "mean_shift",
    "scale_log_ratio",
    "effective_rank",
)


class Probe(Frozen):
    """The fixed token rows on which hidden states are compared, and when."""

    data: DataSource
    rows: Annotated[int, Field(ge=4, description="Probe tokens n; at least 4.")] = 512
    sequence_length: Annotated[int, Field(ge=4)] = 64
    every: Steps | None = Field(
        None, description="Probe every this many steps; always at the last step."
    )
    seed: int = 0
    metrics: tuple[Literal[METRICS], ...] = METRICS  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _metrics_distinct(self) -> Probe:
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics must name at least one metric, each once")
        return self

    def identity(self) -> dict[str, Any]:
        return {
            **self.model_dump(mode="json", exclude={"data"}),
            "data": self.data.identity(),
        }
