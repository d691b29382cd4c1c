"""What a report shows of training: loss curves, and how far each block was moved."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.findings.arms import score_columns
from sweeps.reading.tables import Tables
from sweeps.spec import LOSS
from sweeps.statistics.stacks import STACK

# Points of a training curve and columns of a heat map: what a page can show, whatever was run.
CURVE_POINTS = 60
HEAT_COLUMNS = 24
# In log₂: where no block is moved further than this from the mean, no colour is at its end.
LEAST_SPAN = 0.01


def curves(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    """Return training loss per condition at up to ``CURVE_POINTS`` moments: ``loss``, the mean over
    its ``n`` seeds, ``loss_low`` and ``loss_high``, the smallest and largest of them.

    Only moments at which all of its seeds are alive: a mean over fewer would move as they drop out.
    Seeds that are still running count where none of the condition has ended.
    """
    moment = ((pl.col("step") - 1) * CURVE_POINTS) // pl.col("steps")
    ended = pl.col("status") != "unfinished"
    by_run = (
        tables.steps()
        .group_by(*keys, "run_id", moment.alias("moment"))
        .agg(pl.col("step").max(), pl.col("loss").mean(), pl.col("status").first())
        .collect(engine="streaming")
    )
    return (
        by_run.filter(ended | ~ended.any().over(keys))
        .with_columns(n=pl.col("run_id").n_unique().over(keys))
        .filter(pl.len().over(*keys, "moment") == pl.col("n"))
        .group_by(*keys, "moment")
        .agg(
            pl.col("step").max(),
            pl.col("n").first(),
            pl.col("loss").mean(),
            pl.col("loss").min().alias("loss_low"),
            pl.col("loss").max().alias("loss_high"),
        )
        .sort(*keys, "moment", nulls_last=True)
        .drop("moment")
    )


def evaluation_curves(tables: Tables, keys: Sequence[str]) -> pl.DataFrame:
    """Return the loss on held-out examples per condition and step at which all of its seeds were
    evaluated, with the columns of ``curves``."""
    by_run = (
        tables.evaluations()
        .filter(pl.col("score") == LOSS)
        .select(*keys, "run_id", "step", pl.col("value").alias("loss"))
        .collect(engine="streaming")
    )
    loss = pl.col("loss")
    return (
        by_run.with_columns(n=pl.col("run_id").n_unique().over(keys))
        .filter(pl.len().over(*keys, "step") == pl.col("n"))
        .group_by(*keys, "step")
        .agg(
            pl.col("n").first(),
            loss.mean(),
            loss.min().alias("loss_low"),
            loss.max().alias("loss_high"),
        )
        .sort(*keys, "step", nulls_last=True)
    )


def scores(runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return what runs scored in the end, per condition: ``n`` of them and the mean of each column
    that any run has a value in; empty where none was evaluated."""
    known = score_columns(runs)
    if not known:
        return pl.DataFrame()
    scored = runs.filter(pl.any_horizontal(pl.col(known).is_not_null()))
    return (
        scored.group_by(keys, maintain_order=True)
        .agg(pl.len().alias("n"), pl.col(known).mean())
        .sort(keys, nulls_last=True)
    )


def ratios(tables: Tables, runs: pl.DataFrame, keys: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return ``ratios`` and ``spread`` of ‖ΔW‖/‖W‖ over the blocks, the groups equal_step controls;
    of a model of several stacks, for each, where ``keys`` have ``stack``.

    ``span`` of ``ratios`` is the largest ``relative``, either way, of the model and objective under
    any treatment.

    The layers table is the only long one: it is grouped by run first, and joined to the columns of
    runs when it is short.
    """
    blocks = tables.layers().filter(
        (pl.col("layer") >= 1)
        & (pl.col("layer") <= pl.col("model_layers"))
        # Of several stacks the head, which is of none, is not behind the last block of each.
        & (pl.col("stack").is_not_null() | pl.col("model_stacks").is_null())
        & (pl.col("weight_norm") > 0)
    )
    run = ["run_id", *([STACK] if STACK in keys else [])]
    ratio = pl.col("update_norm") / pl.col("weight_norm")
    moment = ((pl.col("step") - 1) * HEAT_COLUMNS) // pl.col("steps")
    wanted = [name for name in ("run_id", *keys, "steps") if name != STACK]
    conditions = runs.select(list(dict.fromkeys(wanted))).lazy()
    relative = pl.col("relative")
    largest = pl.when(relative.is_finite()).then(relative.abs()).max().over("model", "objective")
    heat = (
        blocks.group_by(*run, "layer", moment.alias("moment"))
        .agg(
            ratio.mean().alias("ratio"),
            (pl.col("step").min() - 1).alias("start"),
            pl.col("step").max().alias("until"),
        )
        .with_columns(relative=(pl.col("ratio") / pl.col("ratio").mean().over(*run, "moment")))
        .join(conditions, on="run_id")
        .group_by(*keys, "layer", "moment")
        .agg(
            relative.log(2).mean().alias("relative"),
            pl.col("ratio").mean(),
            pl.col("start").min(),
            pl.col("until").max(),
        )
        .with_columns(
            span=pl.max_horizontal(largest, pl.lit(LEAST_SPAN)),
        )
        .sort(*keys, "moment", "layer", nulls_last=True)
        .drop("moment")
    )
    spread = (
        blocks.group_by(*run, "step")
        .agg((ratio.max() / ratio.min() - 1).alias("spread"))
        .group_by(run)
        .agg(pl.col("spread").max())
        .join(conditions, on="run_id")
        .group_by(*keys)
        .agg(pl.col("spread").max(), pl.len().alias("runs"))
        .sort(keys, nulls_last=True)
    )
    found = pl.collect_all([heat, spread], engine="streaming")
    return {"ratios": found[0], "spread": found[1]}
