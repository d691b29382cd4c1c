"""What a report shows of training: loss curves, and how far each block was moved."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.findings.arms import score_columns
from sweeps.reading.run_table import LOSS_CHANGE
from sweeps.reading.tables import Tables
from sweeps.spec import LOSS, METRICS
from sweeps.statistics.profiles import Profiles
from sweeps.statistics.stacks import STACK
from sweeps.store.records import COMPLETE

# Points of a training curve and columns of a heat map: what a page can show, whatever was run. Of
# many conditions each has fewer, down to the least, so that all of a table are about MOST_ROWS.
# Maps of which even the least are more than a page can hold are left out.
CURVE_POINTS, LEAST_POINTS = 60, 6
HEAT_COLUMNS, LEAST_COLUMNS = 24, 2
MOST_ROWS = 60_000
# In log₂: where no block is moved further than this from the mean, no colour is at its end.
LEAST_SPAN = 0.01


def moments_of(conditions: int, most: int, least: int) -> int:
    """Return how many moments of training each of so many conditions is shown at."""
    return max(least, min(most, MOST_ROWS // max(conditions, 1)))


def curves(tables: Tables, runs: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return training loss per condition at up to ``CURVE_POINTS`` moments: ``loss``, the mean over
    its ``n`` seeds, ``loss_low`` and ``loss_high``, the smallest and largest of them.

    Only moments at which all of its seeds are alive: a mean over fewer would move as they drop out.
    Seeds that are still running count where none of the condition has ended.
    """
    points = moments_of(runs.select(keys).n_unique(), CURVE_POINTS, LEAST_POINTS)
    moment = ((pl.col("step") - 1) * points) // pl.col("steps")
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


def learned(
    profiles: Profiles, runs: pl.DataFrame, keys: Sequence[str], of_runs: Sequence[str]
) -> pl.DataFrame:
    """Return, per condition, what its runs learned beside how far they changed: ``n`` runs that
    ended, the means of ``final_loss`` (on training batches) and of each score on held-out examples
    that any run has, and ``mean``, the change of its blocks; with the seeds of both as lists."""
    known = score_columns(runs)
    ended = runs.filter(pl.col("status").is_in(COMPLETE))
    of_scores = (
        ended.sort("seed")
        .group_by(of_runs, maintain_order=True)
        .agg(pl.len().alias("n"), pl.col("final_loss", *known).mean())
    )
    seen = profiles.runs.sort("seed").group_by(keys, maintain_order=True)
    scored = [pl.col(LOSS_CHANGE).alias("seed_loss_change")] if LOSS_CHANGE in known else []
    of_change = seen.agg(
        pl.col("mean").mean(), "seed", pl.col("mean").alias("seed_change"), *scored
    )
    return of_scores.join(
        of_change, on=of_runs, how="left", nulls_equal=True, maintain_order="left"
    )


def changes(tables: Tables, metrics: Sequence[str], keys: Sequence[str]) -> pl.DataFrame:
    """Return the change of each block at each probe, the mean over the ``n`` seeds of a condition,
    under as many of ``metrics``, in their order, as a page can hold.

    Columns: ``keys``, ``metric``, ``layer``, ``step``, ``value``, ``n``.
    """
    groups = [*keys, "layer", "step"]
    here = (pl.col("layer") > 0) & pl.col("status").is_in(COMPLETE)
    kept = [metric for metric in metrics if metric in METRICS]
    of_each = [
        pl.struct(
            pl.col(metric).fill_nan(None).mean().alias("value"),
            pl.col(metric).fill_nan(None).count().alias("n"),
        ).alias(metric)
        for metric in kept
    ]
    wide = tables.profiles().filter(here).group_by(groups).agg(of_each)
    found = [wide.collect(engine="streaming").unpivot(index=groups, variable_name="metric")]
    found[0] = found[0].rename({"value": "both"}).unnest("both")
    for metric in (one for one in metrics if one not in METRICS):
        value = pl.col("value").fill_nan(None)
        found.append(
            tables.metrics()
            .filter(here & (pl.col("metric") == metric))
            .group_by(groups)
            .agg(value.mean().alias("value"), value.count().alias("n"))
            .with_columns(pl.lit(metric).alias("metric"))
            .collect(engine="streaming")
        )
    table = pl.concat(found, how="diagonal_relaxed").drop_nulls("value")
    heights = dict(table.group_by("metric").len().iter_rows())
    room = MOST_ROWS
    fits: list[str] = []
    for metric in metrics:
        room -= heights.get(metric, 0)
        if room >= 0:
            fits.append(metric)
    return table.filter(pl.col("metric").is_in(fits)).sort("metric", *groups, nulls_last=True)


def change_limits(table: pl.DataFrame) -> pl.DataFrame:
    """Return, by metric, model and condition, the largest change under any arm: ``most``."""
    return table.group_by("metric", "model", "condition", maintain_order=True).agg(
        most=pl.max_horizontal(pl.col("value").max(), 1e-12)
    )


def ratios(tables: Tables, runs: pl.DataFrame, keys: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return ``ratios`` and ``spread`` of ‖ΔW‖/‖W‖ over the blocks, the groups equal_step controls;
    of a model of several stacks, for each, where ``keys`` have ``stack``.

    ``span`` of ``ratios`` is the largest ``relative``, either way, of the model and objective under
    any treatment.

    Without rows in ``ratios`` where they are more than a page can hold.

    Of runs that record some steps a mean weighs each by the steps it covers, and ``spread`` is the
    largest of the recorded ones.

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
    # A row stands for the steps since the one before it, where not all are recorded.
    covered, known = pl.col("steps_covered").fill_null(1), ratio.is_not_null()
    of_blocks = runs.select(*[name for name in keys if name != STACK], "model_layers").unique()
    columns = moments_of(int(of_blocks["model_layers"].sum() or 1), HEAT_COLUMNS, LEAST_COLUMNS)
    moment = ((pl.col("step") - 1) * columns) // pl.col("steps")
    wanted = [name for name in ("run_id", *keys, "steps") if name != STACK]
    conditions = runs.select(list(dict.fromkeys(wanted))).lazy()
    relative = pl.col("relative")
    largest = pl.when(relative.is_finite()).then(relative.abs()).max().over("model", "objective")
    heat = (
        blocks.group_by(*run, "layer", moment.alias("moment"))
        .agg(
            pl.when(known.any())
            .then((ratio * covered).sum() / covered.filter(known).sum())
            .alias("ratio"),
            (pl.col("step") - covered).min().alias("start"),
            pl.col("step").max().alias("until"),
        )
        .with_columns(relative=(pl.col("ratio") / pl.col("ratio").mean().over(*run, "moment")))
        .join(conditions, on="run_id")
        .group_by(*keys, "layer", "moment")
        .agg(
            relative.log(2).mean().alias("relative"),
            pl.col("run_id").n_unique().alias("n"),
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
    fits = found[0].height <= 2 * MOST_ROWS
    return {"ratios": found[0] if fits else found[0].clear(), "spread": found[1]}
