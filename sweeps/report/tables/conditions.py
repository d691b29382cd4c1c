"""What is shown of each condition: the change of each block, and the quantities of its profile."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.declaration.matched_seeds import FEWEST_SEEDS
from sweeps.statistics.conditions import layer_bands, summarise
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import PROFILE

_OF_RUNS = (
    *("family", "kind", "block", "parameters"),
    *("objective_distance", "objective_distance_low", "objective_distance_high"),
    "objective_distance_noisy",
)


def without_intervals_of_few(table: pl.DataFrame, seeds: str) -> pl.DataFrame:
    """Null the ends of intervals of fewer seeds than a verdict needs; a null's are of its range."""
    ends = [
        name
        for name in table.columns
        if name.split("_")[-1] in ("low", "high") and not name.startswith("null")
    ]
    enough = pl.col(seeds) >= FEWEST_SEEDS
    return table.with_columns(pl.when(enough).then(pl.col(name)).alias(name) for name in ends)


def bands(profiles: Profiles, keys: Sequence[str]) -> pl.DataFrame:
    """Return the change of each block by condition, that of each seed in ``seed_values``; and the
    change of the embedding's output as block 0, where it is known."""
    blocks = without_intervals_of_few(layer_bands(profiles, keys), "n")
    of_seeds = (
        profiles.blocks.sort("seed")
        .group_by(*keys, "layer", pl.len().over(PROFILE).cast(pl.Int32).alias("blocks"))
        .agg(pl.col("value").alias("seed_values"))
    )
    on = [*keys, "layer", "blocks"]
    blocks = blocks.join(of_seeds, on=on, how="left", nulls_equal=True, maintain_order="left")
    kinds = blocks.schema
    embedding = (
        profiles.runs.drop_nulls("embedding_change")
        .sort("seed")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.lit(0, kinds["layer"]).alias("layer"),
            pl.lit(0.0, kinds["depth"]).alias("depth"),
            pl.len().cast(kinds["n"]).alias("n"),
            pl.col("embedding_change").mean().alias("value"),
            pl.col("embedding_change").alias("seed_values"),
        )
    )
    return pl.concat([blocks, embedding], how="diagonal").drop("blocks")


def band_limits(table: pl.DataFrame) -> pl.DataFrame:
    """Return, by model, where the scale of change begins and ends: ``low``; ``high_shared`` for all
    models, ``high_own`` for the model, ``high_null`` so that the row-shuffled null is on it."""
    if table.is_empty():
        return table
    drawn = ("value", "high", "without_gradient")
    largest = pl.max_horizontal(*drawn, pl.col("seed_values").list.max())
    least = pl.min_horizontal("value", "low", pl.col("seed_values").list.min())
    null = pl.col("null_high").fill_nan(None)
    return (
        table.group_by("model", maintain_order=True)
        .agg(high_own=largest.max() * 1.05, null=null.max() * 1.05, low=least.min() * 1.05)
        .with_columns(low=pl.min_horizontal("low", 0.0).min(), high_shared=pl.col("high_own").max())
        .with_columns(high_null=pl.max_horizontal("high_shared", pl.col("null").max()))
        .drop("null")
    )


def condition_slopes(profiles: Profiles, runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return a row per condition: its quantities, those of its seeds, and what its runs are."""
    table = without_intervals_of_few(summarise(profiles, keys), "seeds").with_columns(
        beyond_propagation=pl.col("beyond_propagation") & (pl.col("seeds") >= FEWEST_SEEDS)
    )
    facts = runs.group_by(keys).agg(pl.col(_OF_RUNS).first())
    seeds = (
        profiles.runs.sort("seed")
        .group_by(keys)
        .agg(
            "seed",
            pl.col("slope").alias("seed_slope"),
            pl.col("steepness").alias("seed_steepness"),
            pl.col("slope_dfbeta").max(),
        )
    )
    for other in (facts, seeds):
        table = table.join(other, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return table.with_columns(pl.col("seed", "seed_slope", "seed_steepness").fill_null([]))
