"""What one depth profile says: every quantity as a Polars expression, one row per run.

A profile is d_i over blocks i = 1..L of one run at one probe step, at relative depth i/L. The
embedding output (layer 0) is not part of it. Formulas are those of this project's definitions
("Profile").
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

At = int | Literal["final"]

QUANTITIES: tuple[str, ...] = (
    "slope",
    "slope_normalised",
    "spearman",
    "centre_of_mass",
    "concentration_last_quarter",
    "width",
    "steepness",
)

# Rows a feature that differ by no more are taken for equal.
ALIKE = 0.1

DEFAULT_BY = ("model", "objective", "control")
# A mean change below this is rounding of the probe's float32 forward pass, not fine-tuning. The
# CKA distances are quadratic in the Procrustes distance.
FLOOR: dict[str, float] = {
    "procrustes": 1e-6,
    "cka_distance": 1e-12,
    "cka_distance_debiased": 1e-12,
}


def quantity_expressions(metric: str, depth: str = "depth") -> dict[str, pl.Expr]:
    """Return each quantity as an aggregation over the block rows of one run.

    Null where it is not defined: slopes and ranks need two blocks; shares (centre of mass,
    concentration, width) need values that are not negative and not all zero.
    """
    d, x = pl.col(metric), pl.col(depth)
    slope = pl.cov(x, d) / x.var()
    total = pl.when(d.min() >= 0).then(d.sum())
    share = d / d.sum()
    # 0·ln 0 = 0: a block that did not change carries nothing.
    entropy = -pl.when(share > 0).then(share * share.log()).otherwise(0.0).sum()
    defined = (d.min() >= 0) & (d.sum() > 0)
    quantities = {
        "slope": slope,
        "slope_normalised": pl.when(d.mean() != 0).then(slope / d.mean()),
        "spearman": pl.corr(x, d, method="spearman").fill_nan(None),
        "centre_of_mass": pl.when(defined).then((d * x).sum() / total),
        "concentration_last_quarter": pl.when(defined).then(d.filter(x > 0.75).sum() / total),
        "width": pl.when(defined).then(entropy.exp() / pl.len()),
    }
    return {name: expression.fill_nan(None) for name, expression in quantities.items()}


@dataclass(frozen=True, eq=False)
class Profiles:
    """The profiles of a store under one metric at one moment.

    Attributes:
        runs: one row per run: the columns of ``runs``, ``at`` (the step measured), ``blocks`` (L),
            ``rows_a_feature`` (probe rows over width),
            ``mean`` (mean change over blocks), ``null`` (mean of the row-shuffled null, where it
            was measured) and ``QUANTITIES``.
        blocks: one row per run and block: the columns of ``runs``, ``layer``, ``depth``,
            ``value``, ``null``.
        left_out: runs of the same selection that have no profile here, with ``reason``.
    """

    metric: str
    at: At
    runs: pl.DataFrame
    blocks: pl.DataFrame
    left_out: pl.DataFrame


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
    rows = (
        scan.filter(pl.col("layer") > 0)
        .select(
            *["run_id", "step", "layer", "depth", "status", "steps", *metrics],
            (pl.col("rows") / pl.col("width")).alias("rows_a_feature"),
            *[
                (pl.col(null) if null in known else pl.lit(None, pl.Float64)).alias(null)
                for null in nulls.values()
            ],
        )
        .collect(engine="streaming")
    )
    here = rows.filter(
        (pl.col("status") == "finished")
        & (pl.col("step") == (pl.col("steps") if at == "final" else at))
    )
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
            metric,
            at,
        )
        for metric in metrics
    }


def _profiles(every_run: pl.DataFrame, here: pl.DataFrame, metric: str, at: At) -> Profiles:
    """Return the profiles of the block rows of one moment: ``value`` and ``null`` by block."""
    usable, incomplete = _usable(every_run, here)
    blocks = here.filter(pl.col("run_id").is_in(usable.implode())).sort("run_id", "layer")
    runs = blocks.group_by("run_id", maintain_order=True).agg(
        pl.col("step").first().alias("at"),
        pl.len().cast(pl.Int32).alias("blocks"),
        pl.col("rows_a_feature").first(),
        pl.col("value").mean().alias("mean"),
        pl.col("null").mean(),
        *[expr.alias(name) for name, expr in quantity_expressions("value").items()],
    )
    joined = every_run.join(runs, on="run_id", how="inner", maintain_order="left").with_columns(
        steepness=pl.when(pl.col("control") == "standard").then("slope_normalised")
    )
    return Profiles(
        metric,
        at,
        joined,
        every_run.join(
            blocks.drop("step", "rows_a_feature"),
            on="run_id",
            how="inner",
            maintain_order="left_right",
        ),
        _left_out(every_run, here["run_id"], usable, incomplete, metric, at),
    )


def _usable(every_run: pl.DataFrame, here: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return the runs with a profile, each block 1..L once and finite; and those that lack one.

    A missing block would change the slope without a word.
    """
    layer, value = pl.col("layer"), pl.col("value")
    by_run = here.group_by("run_id").agg(
        (value.is_not_null() & value.is_finite()).all().alias("finite"),
        ((layer.n_unique() == pl.len()) & (layer.max() == pl.len())).alias("once"),
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


def run_summary(profiles: Profiles, digits: int = 6) -> pl.DataFrame:
    """Return one row per run, with or without a profile: what ran, how it ended, its quantities.

    Of the settings, those that differ between runs. Numbers are rounded to ``digits`` significant
    ones: enough to check any table made of them.
    """
    every = pl.concat([profiles.runs, profiles.left_out], how="diagonal")
    differing = [
        name
        for name in setting_columns(profiles.left_out.drop("reason"))
        if name not in DEFAULT_BY and every[name].n_unique() > 1
    ]
    about = [
        *("model", "family", "block", "model_layers", "model_width", "parameters"),
        *(
            "pretraining_loss",
            "pretraining_loss_se",
            "unigram_entropy",
            "objective",
            "control",
            *differing,
            "seed",
        ),
        *("objective_distance", "status", "last_step", "final_loss", "seconds"),
    ]
    quantities = [name for name in QUANTITIES if name != "steepness"]
    order = [*DEFAULT_BY, *differing, "seed", "run_id"]
    return (
        every.select("run_id", *about, "blocks", "mean", "null", *quantities)
        .sort(order)
        .with_columns(pl.selectors.float().round_sig_figs(digits))
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
