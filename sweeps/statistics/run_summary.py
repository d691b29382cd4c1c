"""A sweep in one row a run (a stack, where a model has several): what anybody needs to check a
table that was made of it."""

from __future__ import annotations

import polars as pl

from sweeps.reading.run_table import evaluated_columns, setting_columns
from sweeps.statistics.profiles import BEYOND, DEFAULT_BY, DIAGNOSTICS, QUANTITIES, Profiles
from sweeps.statistics.stacks import STACK, several_stacks


def run_summary(profiles: Profiles, digits: int = 6) -> pl.DataFrame:
    """Return one row per run, with or without a profile: what ran, how it ended, its quantities;
    of a model of several stacks one for each.

    Of the settings, those that differ between runs. Numbers are rounded to ``digits`` significant
    ones: enough to check any table made of them.
    """
    every = pl.concat([profiles.runs, profiles.left_out], how="diagonal")
    differing = [
        name
        for name in setting_columns(profiles.left_out.drop("reason"))
        if name not in DEFAULT_BY and every[name].n_unique() > 1
    ]
    stack = [STACK] if several_stacks(every) else []
    # How often blocks run is said where one runs several times, or some model has several stacks.
    called = (pl.col("model_depth") != pl.col("model_layers")).fill_null(value=False)
    unrolled = ["model_depth"] if stack or every.select(called.any()).item() else []
    # What some run was scored on.
    evaluated = [name for name in evaluated_columns() if every[name].is_not_null().any()]
    about = [
        *("model", "family", "block", "model_layers", *unrolled, "model_width", "parameters"),
        *("pretraining_loss", "pretraining_loss_se", "unigram_entropy"),
        *("objective", "control", *stack, *differing, "seed"),
        *("propagation", "propagation_sd", "dose", "dose_slope"),
        *("objective_distance", "objective_distance_low", "objective_distance_high"),
        *("objective_distance_noisy", "objective_distance_common"),
        "objective_distance_common_noisy",
        *("status", "last_step", "final_loss", *evaluated, "seconds"),
    ]
    numbers = [name for name in (*QUANTITIES, BEYOND) if name != "steepness"]
    order = [*DEFAULT_BY, *stack, *differing, "seed", "run_id"]
    return (
        every.select("run_id", *about, "blocks", "mean", "null", *numbers, *DIAGNOSTICS)
        .sort(order)
        .with_columns(pl.selectors.float().round_sig_figs(digits))
    )
