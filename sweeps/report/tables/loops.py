"""What a report shows of loops: how much the turns of a block have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.reading.tables import Tables
from sweeps.report.tables.names import named, reference_first
from sweeps.statistics.intervals import mean_of
from sweeps.statistics.stacks import STACK
from sweeps.store.records import COMPLETE

PAIR = ("stack", "block_number", "iteration", "later_iteration")


def turns(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    """Return ``turn_overlaps`` under the names of conditions, and which ``loop`` a row is of."""
    found = reference_first(named(turn_overlaps(tables, keys), keys))
    stack = pl.col("stack").fill_null("") + " "
    return found.with_columns(
        loop=pl.concat_str(stack, pl.lit("block "), pl.col("block_number")).str.strip_chars_start()
    )


def turn_overlaps(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    """Return, per condition, block that runs several times, and pair of its turns, at the last step
    of its runs: ``value``, the mean over ``n`` seeds of the share of the later turn's energy in the
    earlier one's subspace, with ``low`` and ``high`` from 3 seeds on; ``before`` the same before
    fine-tuning, and ``rank_95``. Empty where no block runs twice."""
    of_runs = [key for key in keys if key != STACK]
    found = (
        tables.subspaces()
        .filter((pl.col("step") == pl.col("last_step")) & pl.col("status").is_in(COMPLETE))
        .filter(pl.col("subspace_overlap").is_finite())
        .group_by(*of_runs, *PAIR, maintain_order=True)
        .agg(
            pl.col("subspace_overlap").alias("seed_values"),
            pl.col("subspace_overlap_before").mean().alias("before"),
            pl.col("rank_95").mean(),
            pl.len().cast(pl.Int64).alias("n"),
        )
        .sort(*of_runs, *PAIR, nulls_last=True)
        .collect(engine="streaming")
    )
    means = [mean_of(np.array(values)) for values in found["seed_values"].to_list()]
    ends = [
        one.interval if n >= FEWEST_SEEDS else (None, None)
        for one, n in zip(means, found["n"], strict=True)
    ]
    return found.drop("seed_values").with_columns(
        value=pl.Series([one.value for one in means], dtype=pl.Float64),
        low=pl.Series([low for low, _ in ends], dtype=pl.Float64),
        high=pl.Series([high for _, high in ends], dtype=pl.Float64),
    )
