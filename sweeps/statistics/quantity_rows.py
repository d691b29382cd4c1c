"""Quantities of many profiles as rows: of whole runs, and of runs without a group of sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sweeps.statistics.quantities import quantities

DELETED_KEYS = ("run_id", "sequence_group")
STEEPNESS = pl.when(pl.col("control") == "standard").then("slope_normalised").alias("steepness")


def quantity_rows(blocks: pl.DataFrame, keys: Sequence[str], floor: float) -> pl.DataFrame:
    """Return one row per profile: its keys and quantities, null where they are not defined.

    Args:
        blocks: the rows of the profiles, each of one ``keys``: finite ``value`` by block, in order.
        floor: the mean change below which there is nothing but rounding.
    """
    lists = blocks.group_by(keys, maintain_order=True).agg(pl.col("value"))
    nothing = quantities(np.empty((0, 1)))
    parts = [lists.head(0).select(keys).with_columns(pl.lit(0.0).alias(name) for name in nothing)]
    for (count,), part in lists.group_by(pl.col("value").list.len()):
        values = part["value"].explode().to_numpy().reshape(-1, count)
        columns = quantities(values, floor)
        parts.append(part.select(keys).with_columns(pl.Series(n, v) for n, v in columns.items()))
    return pl.concat(parts).with_columns(pl.col(nothing.keys()).fill_nan(None))


def without_groups(runs: pl.DataFrame, without: pl.DataFrame, floor: float) -> pl.DataFrame:
    """Return the quantities of each run without each group, of runs that have them for all.

    Args:
        runs: ``run_id``, ``control`` and ``blocks``, how many a profile has.
        without: ``value`` by run, ``sequence_group`` and block.
    """
    keys = DELETED_KEYS
    rows = without.join(runs.select("run_id", "blocks", "control"), on="run_id", how="inner")
    layer, value = pl.col("layer"), pl.col("value")
    whole = (
        ((pl.len() == pl.col("blocks").first()) & (layer.n_unique() == pl.len()))
        & (layer.max() == pl.len())
        & (value.is_not_null() & value.is_finite()).all()
    )
    usable = (
        rows.group_by(keys)
        .agg(whole.alias("whole"))
        .group_by("run_id")
        .agg(pl.col("whole").all() & (pl.len() > 1))
        .filter("whole")["run_id"]
    )
    blocks = rows.filter(pl.col("run_id").is_in(usable.implode())).sort(*keys, "layer")
    return (
        runs.select("run_id", "control")
        .join(quantity_rows(blocks, keys, floor), on="run_id", maintain_order="left")
        .with_columns(STEEPNESS)
        .sort(*keys)
    )
