"""Profiles gathered into conditions: means over seeds with intervals that carry n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sweeps.errors import UserError, closest
from sweeps.statistics.bootstrap import Floats, mean_intervals
from sweeps.statistics.profiles import (
    DEFAULT_BY,
    FLOOR,
    QUANTITIES,
    Profiles,
    varied_settings,
)

FEW_SEEDS = 3


def condition_columns(runs: pl.DataFrame) -> list[str]:
    """Return model, objective, control and every other setting that tells two conditions apart."""
    return [*DEFAULT_BY, *varied_settings(runs, DEFAULT_BY)]


def everyone(profiles: Profiles) -> pl.DataFrame:
    """Return the columns of ``runs`` of each run of a selection, with and without a profile."""
    names = profiles.left_out.columns[:-1]
    return pl.concat([frame.select(names) for frame in (profiles.runs, profiles.left_out)])


def require_one_a_seed(runs: pl.DataFrame, keys: Sequence[str], what: str) -> None:
    """Raise UserError where two runs of one condition have one seed: no seed then has a partner."""
    double = runs.filter(pl.struct([*keys, "seed"]).is_duplicated())
    if not double.is_empty():
        ids = ", ".join(double["run_id"].sort()[:2])
        raise UserError(
            f"{what}: runs {ids} have the same settings and seed, so that no seed has one"
            " counterpart; ask for one sweep, or forget one of them"
        )


def parse_by(text: str | None, runs: pl.DataFrame) -> list[str]:
    """Return the columns of ``--by``; raise UserError for one that runs do not have."""
    if text is None:
        return condition_columns(runs)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in runs.columns:
            hint = closest(name, runs.columns)
            raise UserError(f"--by {name}: runs have no such column; {hint}")
    if not names:
        raise UserError("--by: names no column; for instance --by model,objective,control")
    return list(dict.fromkeys(names))


def summarise(
    profiles: Profiles,
    by: Sequence[str] | None = None,
    quantities: Sequence[str] = QUANTITIES,
) -> pl.DataFrame:
    """Return one row per condition, in the order of the runs; ``by`` groups them otherwise.

    Columns: ``by``; ``n`` (runs) and ``seeds`` (distinct); ``diverged`` and ``missing`` (runs of
    the condition without a profile); ``mean``, the mean change, and ``null``; for each quantity its
    mean and ``_low``, ``_high`` of the seed bootstrap; ``flags``, in words: also where ``by`` is
    coarser than a condition, so that a row pools several.
    """
    runs = everyone(profiles)
    keys = condition_columns(runs)
    by = keys if by is None else list(by)
    conditions = pl.struct(keys).n_unique().cast(pl.Int64)
    order = runs.group_by(by, maintain_order=True).agg(conditions=conditions)
    counts = profiles.left_out.group_by(by).agg(
        diverged=(pl.col("status") == "diverged").sum().cast(pl.Int64),
        missing=(pl.col("status") != "diverged").sum().cast(pl.Int64),
    )
    means = profiles.runs.group_by(by).agg(
        pl.len().cast(pl.Int64).alias("n"),
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
        pl.col("mean", "null").mean(),
        *[pl.col(name).mean() for name in quantities],
        pl.struct(quantities).alias("_values"),
    )
    table = (
        order.join(means, on=by, how="left", nulls_equal=True, maintain_order="left")
        .join(counts, on=by, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("n", "seeds", "diverged", "missing").fill_null(0))
    )
    lows, highs = _intervals(table["_values"], table["seeds"].to_numpy(), quantities)
    columns: list[pl.Series | pl.Expr] = []
    for k, name in enumerate(quantities):
        columns += [
            pl.col(name),
            pl.Series(f"{name}_low", lows[:, k]).fill_nan(None),
            pl.Series(f"{name}_high", highs[:, k]).fill_nan(None),
        ]
    counted = ("n", "seeds", "diverged", "missing", "conditions")
    table = table.select(*by, *counted, "mean", "null", *columns)
    flags = _flags(profiles.metric)
    return table.with_columns(flags=flags).drop("conditions")


def _intervals(
    values: pl.Series, seeds: NDArray[np.int64], quantities: Sequence[str]
) -> tuple[Floats, Floats]:
    """Return (conditions, quantities) lower and upper ends; one bootstrap per number of runs.

    A seed is the unit of replication: runs of a single seed have no interval, however many models
    a coarse grouping puts together.
    """
    shape = (len(values), len(quantities))
    lows, highs = np.full(shape, np.nan), np.full(shape, np.nan)
    flat = (
        pl.DataFrame({"row": np.arange(len(values)), "value": values})
        .explode("value")
        .unnest("value")
        .with_columns(n=pl.len().over("row"))
    )
    for n in flat["n"].unique():
        group = flat.filter(pl.col("n") == n)
        rows = group["row"].unique(maintain_order=True).to_numpy()
        stacked = group.select(quantities).to_numpy().astype(float).reshape(len(rows), n, -1)
        low, high = mean_intervals(stacked.transpose(1, 0, 2).reshape(n, -1))
        lows[rows] = low.reshape(len(rows), -1)
        highs[rows] = high.reshape(len(rows), -1)
    lows[seeds < 2] = highs[seeds < 2] = np.nan
    return lows, highs


def _flags(metric: str) -> pl.Expr:
    """What a reader must know before believing a row."""
    seeds = pl.col("seeds")
    words = [
        pl.when(pl.col("conditions") > 1).then(pl.format("pools {} conditions", "conditions")),
        pl.when(seeds == 1).then(pl.lit("one seed, no interval")),
        pl.when((seeds > 1) & (seeds < FEW_SEEDS)).then(pl.format("only {} seeds", seeds)),
        pl.when(pl.col("n") == 0).then(pl.lit("no finished run")),
        pl.when(pl.col("diverged") > 0).then(pl.format("{} diverged", "diverged")),
        pl.when(pl.col("missing") > 0).then(pl.format("{} without a profile", "missing")),
        pl.when(pl.col("mean") < FLOOR.get(metric, 0.0)).then(pl.lit("under the numerical floor")),
        pl.when(pl.col("mean") > 0.9 * pl.col("null")).then(pl.lit("at the row-shuffled null")),
    ]
    return (
        pl.concat_list([word.fill_null("") for word in words])
        .list.eval(pl.element().filter(pl.element() != ""))
        .list.join("; ")
    )


def layer_bands(profiles: Profiles, by: Sequence[str] | None = None) -> pl.DataFrame:
    """Return one row per condition and block: ``value``, ``low``, ``high``, ``n``.

    ``null`` is the mean of the row-shuffled null over the runs, of which each shuffled once;
    ``null_low`` and ``null_high`` are its range.

    Runs of one condition share L; where a condition mixes models of different L, its blocks are
    kept apart by ``blocks``.
    """
    by = condition_columns(everyone(profiles)) if by is None else list(by)
    blocks = profiles.blocks.with_columns(
        blocks=pl.len().over("run_id").cast(pl.Int32), block_depth=pl.col("depth")
    ).drop("depth")
    keys = [*by, "blocks", "layer"]
    table = blocks.group_by(keys, maintain_order=True).agg(
        pl.col("block_depth").first().alias("depth"),
        pl.len().cast(pl.Int64).alias("n"),
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
        pl.col("value").mean(),
        pl.col("null").mean(),
        pl.col("null").min().alias("null_low"),
        pl.col("null").max().alias("null_high"),
        pl.struct(pl.col("value").alias("_value")).alias("_values"),
    )
    lows, highs = _intervals(table["_values"], table["seeds"].to_numpy(), ["_value"])
    return table.drop("_values", "seeds").with_columns(
        pl.Series("low", lows[:, 0]).fill_nan(None), pl.Series("high", highs[:, 0]).fill_nan(None)
    )
