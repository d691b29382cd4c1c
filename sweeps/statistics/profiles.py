"""The depth profiles of a store, each whole or left out with the reason, and what each one says.

A profile is d_i over blocks i = 1..L of one run at one probe step, at relative depth i/L. The
embedding output (layer 0) is not part of it; its change stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from sweeps.errors import UserError, closest
from sweeps.reading.run_table import setting_columns
from sweeps.reading.tables import Tables
from sweeps.spec import METRICS
from sweeps.statistics.quantity_rows import (
    DELETED_KEYS,
    STEEPNESS,
    quantity_rows,
    without_groups,
)
from sweeps.store.schema import NULL_METRICS

# Quantities of a profile that have a mean and an interval over runs.
QUANTITIES: tuple[str, ...] = (
    "slope",
    "slope_normalised",
    "theil_sen",
    "spearman",
    "centre_of_mass",
    "concentration_last_quarter",
    "width",
    "width_beyond_slope",
    "steepness",
)
# Slope over mean change, less what depth does to it without any gradient.
BEYOND = "slope_beyond_propagation"
# What a run says of how far its quantities can be trusted.
DIAGNOSTICS: tuple[str, ...] = ("slope_dfbeta", "embedding_change", "saturated")

# A block whose change reaches this share of the row-shuffled null can hardly change any further.
SATURATED = 0.95

# Rows a feature that differ by no more are taken for equal.
ALIKE = 0.1

At = int | Literal["final"]

DEFAULT_BY = ("model", "objective", "control")
# A mean change below this is rounding of the probe's float32 forward pass, not fine-tuning. The
# CKA distances are quadratic in the Procrustes distance.
FLOOR: dict[str, float] = {
    "procrustes": 1e-6,
    "cka_distance": 1e-12,
    "cka_distance_debiased": 1e-12,
}


@dataclass(frozen=True, eq=False)
class Profiles:
    """The profiles of a store under one metric at one moment.

    Attributes:
        runs: one row per run: the columns of ``runs``, ``at`` (the step measured), ``blocks`` (L),
            ``rows_a_feature`` (probe rows over width),
            ``mean`` (mean change over blocks), ``null`` (mean of the row-shuffled null, where it
            was measured), ``QUANTITIES``, ``slope_beyond_propagation``, and ``DIAGNOSTICS``:
            ``slope_dfbeta``, ``embedding_change`` (the change of layer 0 under the same metric) and
            ``saturated`` (the share of blocks at 0.95 of their null or more, where nulls were
            measured).
        blocks: one row per run and block: the columns of ``runs``, ``layer``, ``depth``,
            ``value``, ``null``, and ``without_gradient``, what noise in the weights gives this
            block where it changes all blocks as much as the run did, where that was measured.
        left_out: runs of the same selection that have no profile here, with ``reason``.
        deleted: one row per run and ``sequence_group``, sorted: ``QUANTITIES`` without the rows
            of that group of probe sequences. Empty before the last probe, for metrics that do not
            compare row with row, and for runs of which some group has no profile.
    """

    metric: str
    at: At
    runs: pl.DataFrame
    blocks: pl.DataFrame
    left_out: pl.DataFrame
    deleted: pl.DataFrame


def measure(tables: Tables, metric: str = "procrustes", at: At = "final") -> Profiles:
    """Return the profiles of every finished run under one metric; see ``measure_each``."""
    return measure_each(tables, [metric], at)[metric]


def measure_each(tables: Tables, metrics: Sequence[str], at: At = "final") -> dict[str, Profiles]:
    """Return the profiles of every finished run under each metric, read from the store once.

    Args:
        metrics: of ``METRICS``.
        at: ``final``, or a probe step.

    Raises:
        UserError: an unknown metric, or a step at which no run was probed.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UserError(f"--metric {metric}: unknown; {closest(metric, METRICS)}")
    every_run = tables.runs().collect()
    scan = tables.last_profiles() if at == "final" else tables.profiles()
    nulls = {metric: f"{metric}_null" for metric in metrics}
    known = scan.collect_schema()
    rows = scan.select(
        *["run_id", "step", "layer", "depth", "status", "steps", *metrics],
        (pl.col("rows") / pl.col("width")).alias("rows_a_feature"),
        *[
            (pl.col(null) if null in known else pl.lit(None, pl.Float64)).alias(null)
            for null in nulls.values()
        ],
    ).collect(engine="streaming")
    here = rows.filter(
        (pl.col("status") == "finished")
        & (pl.col("step") == (pl.col("steps") if at == "final" else at))
    )
    deleted = _deleted_rows(tables, metrics, at)
    if at != "final" and here.is_empty() and not rows.is_empty():
        steps = rows["step"].unique().sort().to_list()
        raise UserError(f"--at {at}: no run was probed there; probed: {_few(steps)}")
    return {
        metric: _profiles(
            every_run,
            here.select(
                *["run_id", "step", "layer", "depth", "rows_a_feature"],
                pl.col(metric).alias("value"),
                pl.col(nulls[metric]).alias("null"),
            ),
            deleted.select(
                *["run_id", "sequence_group", "layer"],
                (pl.col(metric) if metric in NULL_METRICS else pl.lit(None, pl.Float64)).alias(
                    "value"
                ),
            ),
            tables.propagation(metric),
            metric,
            at,
        )
        for metric in metrics
    }


def _deleted_rows(tables: Tables, metrics: Sequence[str], at: At) -> pl.DataFrame:
    """Return the block rows of the jackknife at a moment, with those metrics that it has."""
    return (
        tables.jackknife()
        .filter(
            (pl.col("layer") > 0)
            & (pl.col("status") == "finished")
            & (pl.col("step") == (pl.col("steps") if at == "final" else at))
        )
        .select(
            *["run_id", "sequence_group", "layer"],
            *[metric for metric in metrics if metric in NULL_METRICS],
        )
        .collect(engine="streaming")
    )


def _profiles(
    every_run: pl.DataFrame,
    here: pl.DataFrame,
    without: pl.DataFrame,
    propagation: pl.DataFrame,
    metric: str,
    at: At,
) -> Profiles:
    """Return the profiles of the rows of one moment: ``value`` and ``null`` by layer.

    Args:
        without: ``value`` by run, ``sequence_group`` and block, over the rows of the other groups.
    """
    # The columns of runs are those of the primary metric.
    every_run = (
        every_run.drop("propagation", "propagation_sd")
        .join(propagation.drop("without_gradient"), on="run_id", how="left", maintain_order="left")
        .select(every_run.columns)
    )
    layers = here.filter(pl.col("layer") > 0)
    usable, incomplete = _usable(every_run, layers)
    blocks = layers.filter(pl.col("run_id").is_in(usable.implode())).sort("run_id", "layer")
    null, floor = pl.col("null"), FLOOR.get(metric, 0.0)
    runs = blocks.group_by("run_id", maintain_order=True).agg(
        pl.col("step").first().alias("at"),
        pl.len().cast(pl.Int32).alias("blocks"),
        pl.col("rows_a_feature").first(),
        pl.col("value").mean().alias("mean"),
        null.mean(),
        pl.when(null.is_not_null().all() & null.is_finite().all())
        .then((pl.col("value") >= SATURATED * null).mean())
        .alias("saturated"),
    )
    embedding = here.filter(pl.col("layer") == 0).unique("run_id", keep="none")
    runs = runs.join(
        embedding.select("run_id", pl.col("value").fill_nan(None).alias("embedding_change")),
        on="run_id",
        how="left",
    )
    measured = (
        every_run.join(runs, on="run_id", how="inner", maintain_order="left")
        .join(quantity_rows(blocks, ["run_id"], floor), on="run_id", maintain_order="left")
        .with_columns(STEEPNESS, (pl.col("slope_normalised") - pl.col("propagation")).alias(BEYOND))
    )
    blocks = _with_propagation(blocks, runs, propagation)
    return Profiles(
        metric,
        at,
        measured.select(*every_run.columns, *_MEASURED, *QUANTITIES, BEYOND, *DIAGNOSTICS),
        every_run.join(
            blocks.drop("step", "rows_a_feature"),
            on="run_id",
            how="inner",
            maintain_order="left_right",
        ),
        _left_out(every_run, here["run_id"], usable, incomplete, metric, at),
        without_groups(measured, without, floor).select(*DELETED_KEYS, *QUANTITIES),
    )


_MEASURED = ("at", "blocks", "rows_a_feature", "mean", "null")


def _with_propagation(
    blocks: pl.DataFrame, runs: pl.DataFrame, propagation: pl.DataFrame
) -> pl.DataFrame:
    """Add ``without_gradient``: the change that noise gives a block, at the run's mean change."""
    shape = (
        propagation.select("run_id", "without_gradient")
        .explode("without_gradient")
        .with_columns(layer=pl.int_range(1, pl.len() + 1).over("run_id").cast(pl.Int16))
    )
    return (
        blocks.join(shape, on=["run_id", "layer"], how="left", maintain_order="left")
        .join(runs.select("run_id", "mean"), on="run_id", how="left", maintain_order="left")
        .with_columns(pl.col("without_gradient") * pl.col("mean"))
        .drop("mean")
    )


def _usable(every_run: pl.DataFrame, here: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return the runs with a profile, each block 1..L once and finite; and those that lack one.

    A missing block would change the slope without a word. How many there are is known twice: from
    the model, and from the depth of each row.
    """
    layer, value = pl.col("layer"), pl.col("value")
    by_run = here.group_by("run_id").agg(
        (value.is_not_null() & value.is_finite()).all().alias("finite"),
        (
            (layer.n_unique() == pl.len())
            & (layer.max() == pl.len())
            & ((layer - pl.col("depth") * pl.len()).abs() < 1e-6).fill_null(value=False).all()
        ).alias("once"),
        pl.len().alias("found"),
    )
    by_run = by_run.join(every_run.select("run_id", "model_layers"), on="run_id", how="left")
    whole = pl.col("once") & (pl.col("found") == pl.col("model_layers")).fill_null(value=True)
    return (
        by_run.filter(whole & pl.col("finite"))["run_id"],
        by_run.filter(~whole)["run_id"],
    )


def _left_out(
    every_run: pl.DataFrame,
    probed: pl.Series,
    usable: pl.Series,
    incomplete: pl.Series,
    metric: str,
    at: At,
) -> pl.DataFrame:
    """Return the runs without a profile, each with the reason in words."""
    unmeasured = f"{metric} was not measured, or is not finite, in some block"
    moment = "at its last step" if at == "final" else f"at step {at}"
    status = pl.col("status")
    return (
        every_run.filter(~pl.col("run_id").is_in(usable.implode()))
        .with_columns(
            reason=pl.when(status != "finished")
            .then(status)
            .when(pl.col("run_id").is_in(incomplete.implode()))
            .then(pl.lit(f"not every block has one row {moment}"))
            .when(pl.col("run_id").is_in(probed.unique().implode()))
            .then(pl.lit(unmeasured))
            .otherwise(pl.lit(f"not probed {moment}"))
        )
        .select(*every_run.columns, "reason")
    )


def unequal_rows(profiles: Profiles) -> str | None:
    """Return a warning where runs were measured on unequal rows a feature; else None.

    A slope depends on it: at a quarter of a row a feature it comes out 40 % too small. Rows that
    dominate a layer are left out, so a few of a hundred are no difference.
    """
    shares = profiles.runs["rows_a_feature"].drop_nulls()
    if shares.is_empty():
        return None
    least, most = float(shares.min()), float(shares.max())  # type: ignore[arg-type]
    if most <= least * (1 + ALIKE):
        return None
    return (
        f"probe rows are {least:.2g} to {most:.2g} a feature: slopes compare at equal ones; leave"
        " `rows` out of the probe"
    )


def varied_settings(runs: pl.DataFrame, by: Sequence[str]) -> list[str]:
    """Return the settings that differ within a group of ``by`` though the seed is the replicate."""
    settings = [name for name in setting_columns(runs) if name not in by]
    if runs.is_empty():
        return []
    most = runs.group_by(by).agg(pl.col(settings).n_unique()).select(pl.col(settings).max())
    return [name for name in settings if most[name][0] > 1]


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:12])
    return shown if len(values) <= 12 else f"{shown}, …, {values[-1]}"
