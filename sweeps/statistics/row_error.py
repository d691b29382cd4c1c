"""How far the quantities of runs are a matter of which texts were probed.

The rows are the same for all runs of a model, so what leaving a group of probe sequences out does
to one run it does to all of a condition: the runs that were measured so speak for those of an
earlier version that were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sweeps.statistics.profiles import BEYOND, QUANTITIES, Profiles
from sweeps.statistics.quantity_rows import DELETED_KEYS
from sweeps.statistics.stacks import PROFILE

# What is a constant away from another quantity is moved by the rows as that one is.
_AS = {BEYOND: "slope_normalised"}


def deviations(profiles: Profiles, quantities: Sequence[str]) -> pl.DataFrame:
    """Return one row per profile and ``sequence_group``: each quantity without the group less what
    it is of all rows. A quantity that was not measured so has none: null."""
    known = {name: _AS.get(name, name) for name in quantities}
    known = {name: of for name, of in known.items() if of in QUANTITIES}
    needed = list(dict.fromkeys(known.values()))
    whole = profiles.runs.select(*PROFILE, *needed)
    return (
        profiles.without.of(needed)
        .join(whole, on=PROFILE, suffix="_whole", nulls_equal=True, maintain_order="left")
        .select(
            *DELETED_KEYS,
            *[(pl.col(of) - pl.col(f"{of}_whole")).alias(name) for name, of in known.items()],
        )
        .with_columns(
            pl.lit(None, pl.Float64).alias(name) for name in quantities if name not in known
        )
    )


def mean_deviations(
    found: pl.DataFrame, condition: Sequence[str], quantities: Sequence[str]
) -> pl.DataFrame:
    """Return the mean deviations of each condition by ``sequence_group``, in its order.

    A condition whose runs were cut into different groups has none: groups of one number would be
    other sequences.

    Args:
        found: ``condition``, ``sequence_group`` and the quantities of each run.
    """
    by_group = found.group_by([*condition, "sequence_group"]).agg(
        pl.col(quantities).mean(), pl.len().alias("_runs")
    )
    return (
        by_group.filter(pl.col("_runs").n_unique().over(condition) == 1)
        .drop("_runs")
        .sort("sequence_group")
    )
