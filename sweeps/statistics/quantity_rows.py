"""Quantities of many profiles as rows: of whole runs, and of runs without a group of sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from sweeps.statistics.quantities import quantities
from sweeps.statistics.stacks import PROFILE

DELETED_KEYS = (*PROFILE, "sequence_group")
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
    """Return the quantities of each profile without each group, of those that have them for all.

    Args:
        runs: ``PROFILE``, ``control`` and ``blocks``, how many a profile has.
        without: ``value`` by ``PROFILE``, ``sequence_group`` and block.
    """
    keys = DELETED_KEYS
    rows = without.join(
        runs.select(*PROFILE, "blocks", "control"), on=PROFILE, how="inner", nulls_equal=True
    )
    layer, value = pl.col("layer"), pl.col("value")
    whole = (
        ((pl.len() == pl.col("blocks").first()) & (layer.n_unique() == pl.len()))
        & (layer.max() == pl.len())
        & (value.is_not_null() & value.is_finite()).all()
    )
    usable = (
        rows.group_by(keys)
        .agg(whole.alias("whole"))
        .group_by(PROFILE)
        .agg(pl.col("whole").all() & (pl.len() > 1))
        .filter("whole")
    )
    blocks = rows.join(usable, on=PROFILE, how="semi", nulls_equal=True).sort(*keys, "layer")
    return (
        runs.select(*PROFILE, "control")
        .join(
            quantity_rows(blocks, keys, floor),
            on=PROFILE,
            nulls_equal=True,
            maintain_order="left",
        )
        .with_columns(STEEPNESS)
        .sort(*keys)
    )
