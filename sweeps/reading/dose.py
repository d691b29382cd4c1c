"""How unevenly a run's steps were spread over its blocks: what a control had to take away.

R_l = √Σ_t r_l(t)² with r_l = ‖ΔW_l‖/‖W_l‖ of block l at step t. Embedding and head are no blocks,
whatever the scope of the control. Where only some steps are recorded, each counts as often as it
covers steps (``steps_covered``): an estimate of the sum over all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from sweeps.attempts.dose import DIGITS, OUTSIDE_BLOCKS

DOSES = pl.Schema({"run_id": pl.String, "dose": pl.Float64, "dose_slope": pl.Float64})


def known_doses(told: Mapping[str, Mapping[str, Any] | None], runs: pl.DataFrame) -> pl.DataFrame:
    """Return ``dose`` and ``dose_slope`` of the runs whose closing record says them, of all blocks.

    Args:
        told: by run id what ``attempts.dose.dose_of`` returned, None where a run has none.
        runs: ``run_id`` and ``model_layers``, null where the model was never loaded.
    """
    rows = [(run_id, *(one[name] for name in _TOLD)) for run_id, one in told.items() if one]
    schema = pl.Schema([*DOSES.items(), ("blocks", pl.Int64)])
    return (
        pl.DataFrame(rows, schema=schema, orient="row")
        .join(runs.select("run_id", "model_layers", *SAYS), on="run_id", how="inner")
        .filter(_SAID | (pl.col("blocks") == pl.col("model_layers")).fill_null(value=True))
        .select(*DOSES)
    )


_TOLD = ("dose", "dose_slope", "blocks")
# A study that trains some layers alone says which: what is left is what was controlled.
SAYS = ("freeze", "adapter_blocks", "adapter_targets")
_SAID = pl.any_horizontal(pl.col(name).is_not_null() for name in SAYS)


def doses(layers: pl.LazyFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Return ``dose`` and ``dose_slope`` of the runs for which both ends of the ratio are known.

    ``dose`` is max R_l / min R_l, 1 where all blocks moved alike; ``dose_slope`` the least squares
    slope of log₂ R_l on relative depth, null where there is one block. A run is missing of which a
    block has no row, though it is not frozen, no weight or no step, and one whose model has several
    stacks.

    Args:
        layers: the rows of the table ``layers``, of any runs.
        runs: ``run_id``, ``model_layers``, null where the model was never loaded, and ``SAYS``,
            null where all blocks are trained.
    """
    return _doses(layers.filter(pl.col("stack").is_null()), runs, ["run_id"])


def doses_of_stacks(layers: pl.LazyFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Return ``dose`` and ``dose_slope`` by run and ``stack``, of models that have several."""
    return _doses(layers.filter(pl.col("stack").is_not_null()), runs, ["run_id", "stack"])


def _doses(layers: pl.LazyFrame, runs: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    ratio = pl.col("update_norm") / pl.col("weight_norm")
    squared = ratio**2 * pl.col("steps_covered").fill_null(1)
    moved = (
        layers.filter(~pl.col("group").is_in(OUTSIDE_BLOCKS))
        .group_by(*keys, "layer")
        .agg(pl.when(squared.is_not_null().all()).then(squared.sum()).alias("squared"))
        .collect(engine="streaming")
        .join(runs.select("run_id", "model_layers", *SAYS), on="run_id", how="inner")
        .with_columns(blocks=pl.len().over("run_id"))
        .sort(*keys, "layer")
    )
    squared, layer = pl.col("squared"), pl.col("layer")
    depth, log2 = layer / layer.max(), squared.log(2) / 2
    complete = (
        (layer.min() == 1)
        & (layer.max() == pl.len())
        & (pl.col("blocks") == pl.col("model_layers")).fill_null(value=True).all()
    )
    whole = (
        (layer.n_unique() == pl.len())
        & (_SAID.all() | complete)
        & (squared.is_finite() & (squared > 0)).fill_null(value=False).all()
    )
    return (
        moved.group_by(keys, maintain_order=True)
        .agg(
            whole.alias("whole"),
            (squared.max() / squared.min()).sqrt().round_sig_figs(DIGITS).alias("dose"),
            (pl.cov(depth, log2) / depth.var())
            .fill_nan(None)
            # By its size in log₂: of equal blocks what is left over is of no fixed digits.
            .round(DIGITS)
            .alias("dose_slope"),
        )
        .filter("whole")
        .drop("whole")
    )
