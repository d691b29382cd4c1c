"""Which stacks a run's model has: each is a profile of its own, at a depth of its own.

An encoder-decoder has two. A model of one stack has no name for it: its ``stack`` is null, in every
table, and no reader is shown a column for it.
"""

from __future__ import annotations

import polars as pl

STACK = "stack"
# What tells one profile from another.
PROFILE = ("run_id", STACK)
# A model all of whose depth is one block, called again and again: every step moves all of its depth
# alike, under any control, so that whatever slope remains is propagation.
TIED = (
    pl.col("model_stacks").is_null()
    & (pl.col("model_layers") == 1)
    & (pl.col("model_depth") > 1).fill_null(value=False)
).fill_null(value=False)
NEGATIVE_CONTROL = "negative control"


def with_stacks(runs: pl.DataFrame) -> pl.DataFrame:
    """Return runs with ``stack``, a row for each stack of its model; null where it has one.

    Of a run that never began, whose model was not looked at, others of the same model tell.

    Args:
        runs: the columns ``model``, ``model_source``, ``model_layers`` (null where the model is not
            known) and ``model_stacks``, as in ``encoder 6, decoder 6``.
    """
    said = pl.col("model_stacks")
    if runs.select(said.is_null().all()).item():
        return runs.with_columns(pl.lit(None, pl.String).alias(STACK))
    of_model = ["model", "model_source"]
    told = said.drop_nulls().first().over(of_model)
    known = said.is_not_null() | pl.col("model_layers").is_not_null()
    return (
        runs.with_columns(pl.when(known).then(said).otherwise(told).alias(STACK))
        .with_columns(pl.col(STACK).str.split(", "))
        .explode(STACK)
        .with_columns(pl.col(STACK).str.replace(r" \d+$", ""))
    )


def several_stacks(runs: pl.DataFrame) -> bool:
    """Return whether the model of some profile has several stacks, so that they are told apart."""
    return STACK in runs.columns and bool(runs[STACK].is_not_null().any())
