"""Which hidden states are compared, and when."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen, Steps
from sweeps.spec.plugin import PluginMetric

# Every one is computed, from one factorisation, so none of them is a choice of a sweep.
METRICS = (
    "procrustes",
    "cka_distance",
    "cka_distance_debiased",
    "mean_shift",
    "scale_log_ratio",
    "effective_rank",
    "rank_95",
    "rank_99",
    "subspace_overlap",
)
# At a quarter of a row a feature a slope comes out 40 % too small; from two on it is stable.
ROWS_PER_WIDTH = 2.0
MINIMUM_ROWS = 4
# Tokens of one sequence are far from independent: rows come from at least so many sequences.
PROBE_SEQUENCES = 64


class Probe(Frozen):
    """The fixed token rows on which hidden states are compared, and when.

    How many rows: ``rows``, or so many as ``rows_per_width`` says for the width of the model, which
    keeps rows over width the same for models that are compared. Without either it is 2.
    """

    data: DataSource
    rows: Annotated[int, Field(ge=MINIMUM_ROWS)] | None = Field(
        None, description="Probe tokens n (default: rows_per_width times the model's width)."
    )
    rows_per_width: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description=f"Probe tokens a feature of the model (default: {ROWS_PER_WIDTH:g})."
    )
    sequence_length: Annotated[int, Field(ge=4)] = 64
    every: Steps | None = Field(
        None, description="Probe every this many steps; always at the last step."
    )
    seed: int = 0
    metrics: tuple[PluginMetric, ...] = Field(
        (), description="Metrics of the user's own, beside those that are always computed."
    )

    @model_validator(mode="after")
    def _one_owner(self) -> Probe:
        if self.rows is not None and self.rows_per_width is not None:
            raise ValueError("rows and rows_per_width both say how many rows: remove one")
        return self

    def rows_for(self, width: int) -> int:
        """Return how many rows are measured of a model with so many features."""
        if self.rows is not None:
            return self.rows
        return max(MINIMUM_ROWS, math.ceil((self.rows_per_width or ROWS_PER_WIDTH) * width))

    def left_out(self, name: str) -> Any:
        """Return the value at which the identity leaves a field out: 2 rows a feature, too."""
        if name == "rows_per_width" and self.rows_per_width is not None:
            return ROWS_PER_WIDTH
        return super().left_out(name)
