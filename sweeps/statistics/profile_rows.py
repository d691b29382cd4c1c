"""The rows that profiles are made of, read from a store once for all metrics.

Blocks of one class in a model of several kinds (attention and Mamba layers interleaved) can be read
as a profile of their own: then the k-th of n such blocks is at depth k / n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from sweeps.errors import UserError, closest
from sweeps.reading.run_table import evaluated_columns
from sweeps.reading.tables import Tables
from sweeps.spec import LOSS, METRICS
from sweeps.statistics.stacks import PROFILE
from sweeps.store.records import COMPLETE
from sweeps.store.schema import NULL_METRICS

At = int | Literal["final"]
# Which distinct block a layer is a call of, from 1, and which of its calls, from 0.
CALL = ("block_number", "iteration")


@dataclass(frozen=True, eq=False)
class ProfileRows:
    """Rows of finished runs at one moment.

    Attributes:
        layers: one row per run, stack and layer, each metric with its ``_null``.
        deleted: one row per run, stack and ``sequence_group``, in their order: under each metric of
            ``NULL_METRICS`` the changes of all blocks over the rows of all other groups, as a list;
            ``once`` says that the blocks are 1, 2, … and each is there once.
    """

    layers: pl.DataFrame
    deleted: pl.DataFrame

    def under(self, metric: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return both with ``value``, and the first with ``null``, under one metric."""
        groups = [*PROFILE, "sequence_group", "once"]
        deleted = (
            self.deleted.select(*groups, pl.col(metric).alias("value"))
            if metric in self.deleted.columns
            else self.deleted.select(*groups, value=pl.lit([], pl.List(pl.Float64))).clear()
        )
        return (
            self.layers.select(
                *PROFILE,
                *("step", "layer", "depth", "stack_layers", "block_class", *CALL, "rows_a_feature"),
                pl.col(metric).alias("value"),
                pl.col(f"{metric}_null").alias("null"),
            ),
            deleted,
        )


def read_rows(
    tables: Tables, metrics: Sequence[str], at: At, block_class: str | None = None
) -> ProfileRows:
    """Return the rows of every finished run at a moment; UserError for a step without a probe.

    Of the rows without a group only those of ``block_class``, counted anew, where there is one.
    """
    scan = tables.last_profiles() if at == "final" else tables.profiles()
    for own in (metric for metric in metrics if metric not in METRICS):
        scan = _with_own(scan, tables, own)
    known = scan.collect_schema()
    rows = scan.select(
        *PROFILE,
        *("step", "layer", "depth", "stack_layers", "block_class", *CALL, "status", "last_step"),
        *metrics,
        (pl.col("rows") / pl.col("width")).alias("rows_a_feature"),
        *[
            (pl.col(null) if null in known else pl.lit(None, pl.Float64)).alias(null)
            for null in (f"{metric}_null" for metric in metrics)
        ],
    ).collect(engine="streaming")
    # Of a run that stopped early the last step is another than the specification's.
    moment = pl.col("step") == (pl.col("last_step") if at == "final" else at)
    here = pl.col("status").is_in(COMPLETE) & moment
    layers = rows.filter(here)
    if at != "final" and layers.is_empty() and not rows.is_empty():
        steps = rows["step"].unique().sort().to_list()
        raise UserError(f"--at {at}: no run was probed there; probed: {_few(steps)}")
    layer = pl.col("layer")
    of_class = pl.lit(True) if block_class is None else pl.col("block_class") == block_class
    highest = layer.max() == pl.len() if block_class is None else pl.lit(True)
    # Lists, made while the rows are read, take a fraction of the room of rows that are sorted.
    deleted = (
        tables.jackknife()
        .filter((layer > 0) & here & of_class)
        .group_by(*PROFILE, "sequence_group")
        .agg(
            *[pl.col(metric).sort_by("layer") for metric in metrics if metric in NULL_METRICS],
            ((layer.n_unique() == pl.len()) & highest).alias("once"),
        )
        .sort(*PROFILE, "sequence_group")
        .collect(engine="streaming")
    )
    return ProfileRows(layers, deleted)


def slopes_by_step(tables: Tables, metric: str) -> pl.DataFrame:
    """Return ``mean`` and ``slope`` of each stack of each finished run at each of its probes, whole
    ones alone, by run, stack and step."""
    scan = tables.profiles()
    if metric not in METRICS:
        scan = _with_own(scan, tables, metric)
    x, d = pl.col("depth"), pl.col(metric)
    layers = pl.coalesce("stack_layers", "model_layers")
    return (
        scan.filter((pl.col("layer") > 0) & pl.col("status").is_in(COMPLETE))
        .group_by(*PROFILE, "step")
        .agg(
            d.mean().alias("mean"),
            (pl.cov(x, d) / x.var()).alias("slope"),
            (d.is_finite().all() & (pl.len() == layers.first())).alias("whole"),
        )
        .filter("whole")
        .drop("whole")
        .sort(*PROFILE, "step")
        .collect(engine="streaming")
    )


# Of these a refusal rate says nothing of what is refused.
_UNSOUND = ("over_refusal_rate", "broken_rate")


def refusals_by_step(tables: Tables, metric: str) -> pl.DataFrame:
    """Return ``slope``, evaluation ``loss``, ``refusal`` rate and of how many ``prompts`` it is,
    and ``unsound``, the larger of the shares of benign prompts that are refused and of answers that
    are broken, of each stack of each finished run that answers prompts, before its first step (a
    slope of 0: nothing has changed) and at each of its probes; by run, stack and step."""
    scored = (
        tables.evaluations()
        .filter(pl.col("score").is_in([LOSS, "refusal_rate", *_UNSOUND]))
        .select("run_id", "step", "score", "value", "targets")
        .collect(engine="streaming")
    )

    def of(score: str, **columns: str) -> pl.DataFrame:
        rows = scored.filter(pl.col("score") == score)
        return rows.select("run_id", "step", **columns)

    refusals = of("refusal_rate", refusal="value", prompts="targets")
    unsound = (
        scored.filter(pl.col("score").is_in(_UNSOUND))
        .group_by("run_id", "step")
        .agg(unsound=pl.col("value").max())
    )
    both = (
        of(LOSS, loss="value")
        .join(refusals, on=["run_id", "step"])
        .join(unsound, on=["run_id", "step"], how="left")
        .with_columns(pl.col("unsound").fill_null(0.0))
    )
    probes = slopes_by_step(tables, metric).select(*PROFILE, "step", "slope")
    first = probes.select(
        *PROFILE, pl.lit(0, probes.schema["step"]).alias("step"), pl.lit(0.0).alias("slope")
    )
    return (
        pl.concat([first.unique(), probes]).join(both, on=["run_id", "step"]).sort(*PROFILE, "step")
    )


def require_metrics(tables: Tables, metrics: Sequence[str]) -> None:
    """Raise UserError for a metric that neither every run has, nor any by a user's own code."""
    for metric in metrics:
        if metric not in METRICS and metric not in (own := tables.own_metrics()):
            raise UserError(f"--metric {metric}: unknown; {closest(metric, [*METRICS, *own])}")


def _with_own(scan: pl.LazyFrame, tables: Tables, metric: str) -> pl.LazyFrame:
    """Return rows of profiles with a metric of a user's own, null where a run has not got it."""
    keys = [*PROFILE, "step", "layer"]
    own = tables.metrics().filter(pl.col("metric") == metric)
    own = own.select(*keys, pl.col("value").alias(metric))
    return scan.join(own, on=keys, how="left", nulls_equal=True)


def require_class(rows: ProfileRows, block_class: str) -> None:
    """Raise UserError unless some run has blocks of a class."""
    known = rows.layers["block_class"].drop_nulls().unique().sort().to_list()
    if block_class not in known:
        hint = closest(block_class, known) if known else "no run says which its blocks are of"
        raise UserError(f"--block-class {block_class}: no block is one; {hint}")


def of_class(blocks: pl.DataFrame, block_class: str, keys: Sequence[str]) -> pl.DataFrame:
    """Return the blocks of a class, sorted and counted anew from 1 within each of ``keys``."""
    chosen = blocks.filter(pl.col("block_class") == block_class).sort(*keys, "layer")
    counted = pl.int_range(1, pl.len() + 1).over(keys).cast(pl.Int16)
    return chosen.with_columns(counted.alias("layer"))


def _few(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:12])
    return shown if len(values) <= 12 else f"{shown}, …, {values[-1]}"


def scored_at(tables: Tables, runs: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return ``runs`` with what they scored on held-out examples after a step, in place of what
    they did in the end; null where they were not evaluated then."""
    scored = tables.evaluations().filter(pl.col("step").is_in([0, step])).collect()

    def of(score: str, at: int) -> pl.DataFrame:
        rows = scored.filter(pl.col("score") == score, pl.col("step") == at)
        return runs.select("run_id").join(
            rows.select("run_id", "value"), on="run_id", how="left", maintain_order="left"
        )

    moved = of(LOSS, step)["value"] - of(LOSS, 0)["value"]
    return runs.with_columns(
        (moved if score is None else of(score, step)["value"]).alias(column)
        for column, score in evaluated_columns().items()
    )
