"""Which pairs of a metric and a probe step a page can be switched to, and the tables of each.

A page holds what it shows, so there is a limit to how many pairs fit; the one asked for always is
there, then other metrics at its step, then other steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from sweeps.reading.tables import Tables
from sweeps.report.tables.comparisons import comparisons, pair_limits, retained_shares
from sweeps.report.tables.conditions import band_limits, bands, condition_slopes
from sweeps.report.tables.names import named, reference_first
from sweeps.spec import METRICS
from sweeps.statistics.conditions import condition_columns, everyone
from sweeps.statistics.profile_rows import At
from sweeps.statistics.profiles import Profiles, measure_each
from sweeps.store.records import COMPLETE

# Rows of profiles that a page can hold and still open at once; and steps that a list shows.
MOST_ROWS = 30_000
MOST_MOMENTS = 5
# Tables that have a column ``view``.
VIEWED = ("bands", "slopes", "persistence", "retained", "band_limits", "pair_limits")


@dataclass(frozen=True)
class View:
    """A metric at a moment."""

    metric: str
    at: At

    @property
    def name(self) -> str:
        return f"{self.metric} @ {self.at}"


def tables_of_view(
    view: View, profiles: Profiles, persistence: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Return what is shown of one view, each table with its name in ``view``."""
    keys = condition_columns(everyone(profiles))
    of_blocks = reference_first(named(bands(profiles, keys), keys))
    found = {
        "bands": of_blocks,
        "slopes": named(condition_slopes(profiles, everyone(profiles), keys), keys),
        "persistence": persistence,
        "retained": retained_shares(persistence),
        "band_limits": band_limits(of_blocks),
        "pair_limits": pair_limits(persistence),
    }
    return {name: _of(view, table) for name, table in found.items()}


def _of(view: View, table: pl.DataFrame) -> pl.DataFrame:
    return table if table.is_empty() else table.with_columns(view=pl.lit(view.name))


def other_views(
    tables: Tables, shown: View, metrics: Sequence[str], rows: int
) -> Iterator[tuple[View, dict[str, pl.DataFrame]]]:
    """Yield the views a page can be switched to, with their tables, for as long as they fit.

    Args:
        metrics: those that are shown first at the moment of ``shown``.
        rows: how many rows of profiles one view has.
    """
    room = MOST_ROWS // max(rows, 1) - 1
    if room < 1:
        return
    every = list(dict.fromkeys([*metrics, *METRICS, *tables.own_metrics()]))
    for at in (shown.at, *_other_moments(tables, shown.at)):
        wanted = [one for one in every if (one, at) != (shown.metric, shown.at)][:room]
        for metric, profiles in measure_each(tables, wanted, at).items():
            if not profiles.runs.is_empty():
                view = View(metric, at)
                yield view, tables_of_view(view, profiles, comparisons({metric: profiles}))
        room -= len(wanted)
        if room < 1:
            return


def _other_moments(tables: Tables, shown: At) -> list[At]:
    """Return the last step and some probe steps, the latest first, but the one shown."""
    probed = (
        tables.profiles()
        .filter(pl.col("status").is_in(COMPLETE))
        .select("step", "last_step")
        .unique()
        .collect(engine="streaming")
    )
    steps = sorted(probed["step"].unique().to_list(), reverse=True)
    if probed["last_step"].n_unique() == 1:
        # The last step of all runs is not shown a second time under its number.
        steps = [step for step in steps if step != probed["last_step"][0]]
    kept = [steps[k * len(steps) // MOST_MOMENTS] for k in range(MOST_MOMENTS)] if steps else []
    moments: list[At] = ["final", *dict.fromkeys(kept)]
    return [one for one in moments if one != shown]
