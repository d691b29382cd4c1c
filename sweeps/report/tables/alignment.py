"""What a report shows of alignment: its outcome by control, and how far layers went back."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.findings.alignment.outcomes import alignment_table
from sweeps.findings.persistence import comparison_columns
from sweeps.reading.tables import Tables
from sweeps.report.tables.comparisons import with_all_that_varies
from sweeps.report.tables.names import STANDARD, named
from sweeps.statistics.conditions import condition_columns, everyone
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import STACK
from sweeps.store.records import COMPLETE


def alignment_by_control(profiles: Profiles) -> pl.DataFrame:
    """Return the rows of ``alignment_table`` for each control of a sweep, under the names of their
    conditions; empty where no run answers prompts, or there is nothing to compare."""
    runs = everyone(profiles)
    controls = runs["control"].unique(maintain_order=True).to_list()
    if profiles.refusals is None or STANDARD not in controls:
        return pl.DataFrame()
    found = [_compared(profiles, one, runs) for one in controls if one != STANDARD]
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


def _compared(profiles: Profiles, control: str, runs: pl.DataFrame) -> pl.DataFrame:
    keys, own, _ = comparison_columns(runs, control, STANDARD)
    table = alignment_table(profiles, control, STANDARD)
    table = with_all_that_varies(table, runs, control, [*keys, *own])
    return named(table.with_columns(control=pl.lit(control)), condition_columns(runs))


def reversions(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    """Return, per condition and layer group, the mean ``reversion`` over the seeds at their last
    step, and ``n``; empty where no model is compared with another."""
    of_layers = [key for key in keys if key != STACK]
    return (
        tables.layers()
        .filter(
            pl.col("reversion").is_not_null()
            & (pl.col("step") == pl.col("last_step"))
            & pl.col("status").is_in(COMPLETE)
        )
        .group_by(*of_layers, "stack", "layer", "group", maintain_order=True)
        .agg(pl.col("reversion").mean(), pl.len().cast(pl.Int64).alias("n"))
        .sort(*of_layers, "stack", "layer", nulls_last=True)
        .collect(engine="streaming")
    )
