"""The depth profiles of a store, each whole or left out with the reason, and what each one says.

A profile is d_i over layers i = 1..L of one stack of one run at one probe step, at relative depth
i/L. A block that runs T times is T layers. What enters the stack (layer 0) is not part of it; its
change stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from sweeps.reading.run_table import setting_columns, states_of_open, with_states
from sweeps.reading.tables import PROPAGATION, Tables
from sweeps.spec import score_column
from sweeps.statistics.profile_rows import (
    At,
    of_class,
    read_rows,
    refusals_by_step,
    require_class,
    require_metrics,
    scored_at,
    slopes_by_step,
)
from sweeps.statistics.quantity_rows import (
    STEEPNESS,
    WithoutGroups,
    quantity_rows,
    without_groups,
)
from sweeps.statistics.stacks import PROFILE, several_stacks, with_stacks
from sweeps.store.records import COMPLETE

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

# What says of a run that it answers prompts.
REFUSAL = score_column("refusal_rate")

# A block whose change reaches this share of the row-shuffled null can hardly change any further.
SATURATED = 0.95

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


@dataclass(frozen=True, eq=False)
class Profiles:
    """The profiles of a store under one metric at one moment.

    Attributes:
        runs: one row per run, and of a model of several stacks per ``stack``, which is null else:
            the columns of ``runs``, scores on held-out examples being those of the moment, ``at``
            (the step measured), ``blocks`` (L),
            ``rows_a_feature`` (probe rows over width),
            ``mean`` (mean change over blocks), ``null`` (mean of the row-shuffled null, where it
            was measured), ``QUANTITIES``, ``slope_beyond_propagation``, and ``DIAGNOSTICS``:
            ``slope_dfbeta``, ``embedding_change`` (the change of layer 0 under the same metric) and
            ``saturated`` (the share of blocks at 0.95 of their null or more, where nulls were
            measured).
        blocks: one row per run, stack and layer: the columns of ``runs``, ``stack``, ``layer``,
            ``depth``, ``block_class``, ``value``, ``null``, and ``without_gradient``, what noise in
            the weights gives this block where it changes all blocks as much as the run did, where
            that was measured.
        left_out: runs of the same selection that have no profile here, with ``reason``.
        without: the same profiles without each group of probe sequences. Empty before the last
            probe, for metrics that do not compare row with row, and for runs of which some group
            has no profile.
        block_class: of which class the blocks are; None for all of them.
        refusals: of final profiles of which some run answers prompts, what
            ``refusals_by_step`` returns; else None.
        by_step: of final profiles of which some run stopped early, ``mean`` and ``slope`` at each
            probe of every run and stack, by ``step``; else None.
    """

    metric: str
    at: At
    runs: pl.DataFrame
    blocks: pl.DataFrame
    left_out: pl.DataFrame
    without: WithoutGroups
    block_class: str | None = None
    by_step: pl.DataFrame | None = None
    refusals: pl.DataFrame | None = None

    @property
    def deleted(self) -> pl.DataFrame:
        """One row per run, stack and ``sequence_group``, sorted: ``QUANTITIES`` without the rows of
        that group of probe sequences."""
        return self.without.of(QUANTITIES)


# What noise in the weights does, of no run.
_UNKNOWN = pl.DataFrame(schema=PROPAGATION)


def measure(
    tables: Tables, metric: str = "procrustes", at: At = "final", block_class: str | None = None
) -> Profiles:
    """Return the profiles of every finished run under one metric; see ``measure_each``."""
    return measure_each(tables, [metric], at, block_class)[metric]


def measure_each(
    tables: Tables, metrics: Sequence[str], at: At = "final", block_class: str | None = None
) -> dict[str, Profiles]:
    """Return the profiles of every finished run under each metric, read from the store once.

    Args:
        metrics: of ``METRICS``, or of users' own.
        at: ``final``, or a probe step.
        block_class: only blocks of this class, of which the k-th of n is at depth k / n. What noise
            in the weights does is known of all blocks together, and not of these.

    Raises:
        UserError: an unknown metric, a class that no block has, or a step at which no run was
            probed.
    """
    require_metrics(tables, metrics)
    runs = tables.runs().collect()
    if at != "final":
        runs = scored_at(tables, runs, at)
    every_run = with_stacks(runs)
    if several_stacks(every_run):
        every_run = every_run.update(tables.doses_of_stacks(), on=PROFILE, how="left")
    rows = read_rows(tables, metrics, at, block_class)
    if block_class is not None:
        require_class(rows, block_class)
    found = {
        metric: _profiles(
            every_run,
            *rows.under(metric),
            tables.propagation(metric) if block_class is None else _UNKNOWN,
            metric,
            at,
            block_class,
        )
        for metric in metrics
    }
    states = states_of_open(runs, tables.attempts)
    found = {
        metric: replace(one, left_out=with_states(one.left_out, states, "reason"))
        for metric, one in found.items()
    }
    if at == "final" and block_class is None and runs[REFUSAL].is_not_null().any():
        found = {
            metric: replace(one, refusals=refusals_by_step(tables, metric))
            for metric, one in found.items()
        }
    if at == "final" and block_class is None and (runs["status"] == "stopped").any():
        return {
            metric: replace(one, by_step=slopes_by_step(tables, metric))
            for metric, one in found.items()
        }
    return found


def _profiles(
    every_run: pl.DataFrame,
    here: pl.DataFrame,
    without: pl.DataFrame,
    propagation: pl.DataFrame,
    metric: str,
    at: At,
    block_class: str | None,
) -> Profiles:
    """Return the profiles of the rows of one moment; see ``ProfileRows.under``.

    Args:
        every_run: a row for each run and stack of its model.
    """
    # The columns of runs are those of the primary metric.
    every_run = (
        every_run.drop("propagation", "propagation_sd")
        .join(
            propagation.drop("without_gradient"),
            on=PROFILE,
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        .select(every_run.columns)
    )
    layers = here.filter(pl.col("layer") > 0)
    usable, incomplete = _usable(every_run, layers)
    blocks = layers.join(usable, on=PROFILE, how="semi", nulls_equal=True)
    if block_class is None:
        blocks = blocks.sort(*PROFILE, "layer")
    else:
        blocks = of_class(blocks, block_class, PROFILE).with_columns(
            depth=pl.col("layer") / pl.len().over(PROFILE)
        )
    null, floor = pl.col("null"), FLOOR.get(metric, 0.0)
    runs = blocks.group_by(PROFILE, maintain_order=True).agg(
        pl.col("step").first().alias("at"),
        pl.len().cast(pl.Int32).alias("blocks"),
        pl.col("rows_a_feature").first(),
        pl.col("value").mean().alias("mean"),
        null.mean(),
        pl.when(null.is_not_null().all() & null.is_finite().all())
        .then((pl.col("value") >= SATURATED * null).mean())
        .alias("saturated"),
    )
    entering = here.filter(pl.col("layer") == 0).unique(PROFILE, keep="none")
    embedding = entering.select(*PROFILE, pl.col("value").fill_nan(None).alias("embedding_change"))
    runs = runs.join(embedding, on=PROFILE, how="left", nulls_equal=True)
    measured = (
        every_run.join(runs, on=PROFILE, how="inner", nulls_equal=True, maintain_order="left")
        .join(
            quantity_rows(blocks, PROFILE, floor),
            on=PROFILE,
            nulls_equal=True,
            maintain_order="left",
        )
        .with_columns(STEEPNESS, (pl.col("slope_normalised") - pl.col("propagation")).alias(BEYOND))
    )
    blocks = _with_propagation(blocks, runs, propagation)
    return Profiles(
        metric,
        at,
        measured.select(*every_run.columns, *_MEASURED, *QUANTITIES, BEYOND, *DIAGNOSTICS),
        every_run.join(
            blocks.drop("step", "stack_layers", "rows_a_feature"),
            on=PROFILE,
            how="inner",
            nulls_equal=True,
            maintain_order="left_right",
        ),
        _left_out(every_run, here, runs, incomplete, _absent(metric, at, block_class)),
        without_groups(measured, without, floor),
        block_class,
    )


_MEASURED = ("at", "blocks", "rows_a_feature", "mean", "null")


def _with_propagation(
    blocks: pl.DataFrame, runs: pl.DataFrame, propagation: pl.DataFrame
) -> pl.DataFrame:
    """Add ``without_gradient``: the change that noise gives a block, at the run's mean change."""
    shape = (
        propagation.select(*PROFILE, "without_gradient")
        .explode("without_gradient")
        .with_columns(layer=pl.int_range(1, pl.len() + 1).over(PROFILE).cast(pl.Int16))
    )
    means = runs.select(*PROFILE, "mean")
    return (
        blocks.join(
            shape,
            on=[*PROFILE, "layer"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        .join(means, on=PROFILE, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("without_gradient") * pl.col("mean"))
        .drop("mean")
    )


def _usable(every_run: pl.DataFrame, here: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the ``PROFILE`` of each stack that has each layer 1..L once and finite; and of those
    that lack one.

    A missing block would change the slope without a word. How many there are is known twice: from
    the model, or from what the rows say of their stack, and from the depth of each row.
    """
    layer, value = pl.col("layer"), pl.col("value")
    by_run = here.group_by(PROFILE).agg(
        (value.is_not_null() & value.is_finite()).all().alias("finite"),
        (
            (layer.n_unique() == pl.len())
            & (layer.max() == pl.len())
            & ((layer - pl.col("depth") * pl.len()).abs() < 1e-6).fill_null(value=False).all()
            # A column of rows that are not of the first versions.
            & (pl.col("stack_layers") == pl.len()).fill_null(value=True).all()
        ).alias("once"),
        pl.len().alias("found"),
    )
    of_model = every_run.select(*PROFILE, "model_stacks", "model_depth", "model_layers")
    by_run = by_run.join(of_model, on=PROFILE, how="inner", nulls_equal=True)
    # Of a single stack the model says so, too.
    expected = pl.when(pl.col("model_stacks").is_null()).then(
        pl.coalesce("model_depth", "model_layers")
    )
    whole = pl.col("once") & (pl.col("found") == expected).fill_null(value=True)
    return (
        by_run.filter(whole & pl.col("finite")).select(PROFILE),
        by_run.filter(~whole).select(PROFILE),
    )


def _left_out(
    every_run: pl.DataFrame,
    probed: pl.DataFrame,
    measured: pl.DataFrame,
    incomplete: pl.DataFrame,
    absent: tuple[str, str, str],
) -> pl.DataFrame:
    """Return the runs without a profile, each with the reason in words.

    Args:
        probed: those that have rows; ``incomplete`` of them lack some.
        absent: what is said of incomplete, of other probed and of other runs.
    """
    without = every_run.join(measured, on=PROFILE, how="anti", nulls_equal=True)
    status = pl.col("status")
    for name, rows in (("_incomplete", incomplete), ("_probed", probed)):
        seen = rows.select(PROFILE).unique().with_columns(pl.lit(value=True).alias(name))
        without = without.join(
            seen, on=PROFILE, how="left", nulls_equal=True, maintain_order="left"
        )
    return without.with_columns(
        reason=pl.when(~status.is_in(COMPLETE))
        .then(status)
        .when("_incomplete")
        .then(pl.lit(absent[0]))
        .when("_probed")
        .then(pl.lit(absent[1]))
        .otherwise(pl.lit(absent[2]))
    ).select(*every_run.columns, "reason")


def _absent(metric: str, at: At, block_class: str | None) -> tuple[str, str, str]:
    """Return why a finished run has no profile: rows are missing, values are, or all of it is."""
    moment = "at its last step" if at == "final" else f"at step {at}"
    unmeasured = f"{metric} was not measured, or is not finite, in some block"
    if block_class is not None:
        unmeasured = f"no block is a {block_class}, or {unmeasured}"
    return f"not every block has one row {moment}", unmeasured, f"not probed {moment}"


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
